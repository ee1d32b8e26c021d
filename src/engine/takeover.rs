//! R12 (takeover), R13 (fence), R15 (replica failure) and R16 (successor, `first`).

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::spec::{MachineId, Micros};
use super::{Counter, Outcome};

impl Flow {
    /// The machine is down: this flow's leg of it is fenced, and if it was the original, the successor takes over.
    pub fn machine_down(&mut self, cx: &mut Context, now: Micros, machine: MachineId, outcome: &mut Outcome) {
        let Some(index) = self.leg_of(machine).filter(|i| self.legs[*i].state != LegState::Gone) else {
            return;
        };
        if index != self.original || self.is_over() || self.legs[index].state == LegState::Finished {
            self.drop_leg(index, &mut cx.budget);
            outcome.legs_freed += 1;
            return;
        }
        if self.is_half_open() && !self.legs.iter().enumerate().any(|(i, l)| i != index && l.counts()) {
            self.rehome(cx, now, index, outcome);
            return;
        }
        match self.successor(cx) {
            Some(next) => {
                self.drop_leg(index, &mut cx.budget);
                outcome.legs_freed += 1;
                self.switch(cx, now, next);
                outcome.switched += 1;
            }
            None => {
                self.drop_leg(index, &mut cx.budget);
                self.lose(cx, now, outcome);
            }
        }
    }

    /// Nobody has all of this flow: an honest end is better than a silent one.
    fn lose(&mut self, cx: &mut Context, now: Micros, outcome: &mut Outcome) {
        cx.stats.count(Counter::FlowsLost);
        outcome.lost += 1;
        self.reset_client(cx);
        self.end_by_reset(cx, now);
    }

    /// R16, `first`: in list order, an open and eligible leg; failing that one that has had and said everything already, so that only
    /// acknowledgements are left to be given; failing that one that is still being opened.
    pub fn successor(&self, cx: &Context) -> Option<usize> {
        let order = |fit: &dyn Fn(&Leg) -> bool| {
            cx.up(self.service)
                .filter_map(|m| self.leg_of(m))
                .find(|i| *i != self.original && fit(&self.legs[*i]))
        };
        order(&|l| l.is_open() && l.eligible)
            .or_else(|| order(&|l| l.state == LegState::Finished))
            .or_else(|| order(&|l| l.state == LegState::SynSent))
    }

    /// A client that has not yet proved itself starts over with another machine; the engine repeats its SYN.
    pub fn rehome(&mut self, cx: &mut Context, now: Micros, index: usize, outcome: &mut Outcome) {
        self.drop_leg(index, &mut cx.budget);
        let Some(next) = cx.up(self.service).find(|m| self.leg_of(*m).is_none()) else {
            // All that are up have lost this flow before (R13).
            self.lose(cx, now, outcome);
            return;
        };
        self.legs.push(Leg::new(next, Mode::Relayed, cx.rtt(self.service), now));
        self.original = self.legs.len() - 1;
        outcome.switched += 1;
        cx.stats.count(Counter::Takeovers);
    }

    /// R12: leg `next` becomes original. What the client lacks and what the machine lacks follow from the next pump.
    pub fn switch(&mut self, cx: &mut Context, now: Micros, next: usize) {
        let old = self.original;
        if self.legs[old].counts() && self.legs[old].mode == Mode::Direct {
            // A planned handover: the engine goes on speaking to the old original as to any replica.
            let leg = &mut self.legs[old];
            leg.mode = Mode::Relayed;
            leg.sender.take_over(now);
            leg.cache.advance(leg.sent);
            leg.progress_at = now;
        }
        self.original = next;
        self.switched = true;
        self.behind_since = None;
        let leg = &mut self.legs[next];
        leg.holding_since = None;
        leg.ack_due = true;
        cx.stats.count(Counter::Takeovers);
    }

    /// The operator's wish: `machine` becomes original if it can.
    pub fn hand_over(&mut self, cx: &mut Context, now: Micros, machine: MachineId, outcome: &mut Outcome) {
        let fit = |l: &Leg| l.is_open() && l.eligible;
        if !matches!(self.state, FlowState::Open) {
            return;
        }
        if let Some(next) = self
            .leg_of(machine)
            .filter(|i| *i != self.original && fit(&self.legs[*i]))
        {
            self.switch(cx, now, next);
            outcome.switched += 1;
        }
    }
}
