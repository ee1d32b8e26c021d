//! R12 (takeover), R13 (fence), R15 (replica failure) and R16 (successor).

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pos::words_end;
use super::spec::{MachineId, Micros, Successor};
use super::{Counter, Outcome};

impl Flow {
    /// The machine is down: this flow's leg of it is fenced, and if it was the original, the successor takes over.
    pub fn machine_down(&mut self, cx: &mut Context, now: Micros, machine: MachineId, outcome: &mut Outcome) {
        // Who has died is no heir, even if it is back before this flow has asked it anything: the operator planned with another machine.
        self.heir = self.heir.filter(|heir| *heir != machine);
        let Some(index) = self.leg_of(machine) else { return };
        if self.legs[index].state == LegState::Gone {
            if index == self.original
                && self.trial.vote.is_some()
                && let Some(next) = self.successor(cx)
            {
                // It has reset the flow: nobody need vote on that any more.
                self.mask(cx, now, next);
                outcome.switched += 1;
            }
            return;
        }
        // R16: where the fastest speaks, an original may have ended short of what the client has heard, and so lack the end.
        let leg = &self.legs[index];
        let played = leg.state == LegState::Finished && self.reaches(leg);
        if index != self.original || self.is_over() || played {
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

    /// Whether anybody could take the original's place.
    pub fn has_heir(&self, cx: &Context) -> bool {
        self.successor(cx).is_some() || (self.is_half_open() && self.untried(cx).is_some())
    }

    /// The original is no good for this flow, whatever becomes of its machine: another one may be.
    pub fn replace_original(&mut self, cx: &mut Context, now: Micros) {
        let outcome = &mut Outcome::default();
        if let Some(next) = self.successor(cx) {
            self.switch(cx, now, next);
        } else if self.is_half_open() {
            self.rehome(cx, now, self.original, outcome);
        } else {
            self.lose(cx, now, outcome);
        }
    }

    /// Nobody has all of this flow: an honest end is better than a silent one.
    fn lose(&mut self, cx: &mut Context, now: Micros, outcome: &mut Outcome) {
        cx.stats.count(Counter::FlowsLost);
        outcome.lost += 1;
        self.reset_client(cx);
        self.end_by_reset(cx, now);
    }

    /// R16: the best of the open and eligible legs, of those that trail (R15) only if there are no others; failing that one that has had
    /// and said everything already, so that only acknowledgements are left to be given; failing that one that is still being opened.
    pub fn successor(&self, cx: &Context) -> Option<usize> {
        let best = |fit: &dyn Fn(&Leg) -> bool| {
            cx.up(self.service)
                .filter_map(|m| self.leg_of(m))
                .filter(|i| *i != self.original && fit(&self.legs[*i]))
                // Of equals the first in the list.
                .min_by_key(|i| self.demerit(cx, *i))
        };
        // One that has said FIN may have crashed, where that is not simply believed (R11).
        let believed = cx.service(self.service).detect.vote == 0;
        best(&|l| self.is_fit(l) && !l.trails && (believed || l.fin.is_none()))
            .or_else(|| best(&|l| self.is_fit(l) && (believed || l.fin.is_none())))
            .or_else(|| best(&|l| self.is_fit(l)))
            .or_else(|| best(&|l| l.state == LegState::Finished && self.reaches(l)))
            .or_else(|| best(&|l| l.state == LegState::SynSent))
    }

    /// R16: what speaks against a leg as successor, by the service's choice; the least is best. By the first two choices one that stands where the
    /// client does goes first: the client would have to wait for one that has yet to say what it has heard already.
    fn demerit(&self, cx: &Context, index: usize) -> (bool, u64) {
        let leg = &self.legs[index];
        let behind = leg.sent < self.heard();
        match cx.service(self.service).successor {
            Successor::First => (behind, 0),
            // Unmeasured is no merit.
            Successor::LowestRtt => (behind, leg.sender.rtt.smoothed().unwrap_or(u64::MAX)),
            Successor::LeastLag => {
                let (input, output) = self.missing(index);
                (false, input.saturating_add(output))
            }
        }
    }

    /// A machine that is up and has never said anything in this flow: it may be asked, again if it was before, for the client has heard
    /// nothing of it that R13 would have to guard.
    fn untried(&self, cx: &Context) -> Option<MachineId> {
        let fresh = |m: &MachineId| {
            self.leg_of(*m).is_none_or(|i| {
                let leg = &self.legs[i];
                leg.state == LegState::Gone && leg.sent == 0 && !leg.refused
            })
        };
        cx.up(self.service).find(fresh)
    }

    /// A client that has not yet proved itself starts over with another machine; the engine repeats its SYN.
    fn rehome(&mut self, cx: &mut Context, now: Micros, index: usize, outcome: &mut Outcome) {
        self.drop_leg(index, &mut cx.budget);
        let Some(next) = self.untried(cx) else {
            // All that are up have lost this flow before (R13).
            self.lose(cx, now, outcome);
            return;
        };
        let leg = Leg::new(next, Mode::Relayed, cx.rtt(self.service), now);
        self.original = match self.leg_of(next) {
            Some(index) => {
                self.legs[index] = leg;
                index
            }
            None => {
                self.legs.push(leg);
                self.legs.len() - 1
            }
        };
        outcome.switched += 1;
        cx.stats.count(Counter::Takeovers);
    }

    /// The machine that was to take over has not answered yet, and leg `index`, fit to, just has: whoever answers first goes on.
    pub fn overtake_silent_heir(&mut self, cx: &mut Context, now: Micros, index: usize) {
        let heir = self.original();
        if self.state == FlowState::Open && heir.state == LegState::SynSent && self.legs[index].eligible {
            self.switch(cx, now, index);
        }
    }

    /// R12: leg `next` becomes original. What the client lacks and what the machine lacks follow from the next pump.
    pub fn switch(&mut self, cx: &mut Context, now: Micros, next: usize) {
        let old = self.original;
        if self.legs[old].counts() {
            // A planned handover: the engine goes on speaking to the old original as to any replica.
            self.legs[old].relay(now, words_end(self.client.sent, self.fin));
        }
        self.recover_to = self.recover_to.max(self.legs[old].acked());
        self.note_switch(old);
        self.original = next;
        self.switched = true;
        self.close_vote(cx);
        self.behind_since = None;
        if let Some(trial) = self.trial.awake() {
            (trial.stuck, trial.question) = (None, None);
        }
        let leg = &mut self.legs[next];
        leg.set_holding(None);
        leg.trails = false;
        if let Some(waits) = leg.waits.awake().filter(|waits| waits.blocked_since.is_some()) {
            // R23: what it waited for as a replica is no measure for how long the client waits for it now.
            waits.blocked_since = Some(now);
        }
        leg.ack_due = true;
        cx.stats.count(Counter::Takeovers);
    }

    /// A switch has made output available that the client has not had.
    pub fn owes_output(&self) -> bool {
        self.switched && self.original().cache.next() > self.client.sent
    }
}
