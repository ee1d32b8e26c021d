//! Planned handover: the operator's wish that a machine become original. A flow moves at the moment when that machine is level with
//! the original, so that the client notices nothing; or at once, if the operator does not want to wait.

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::LegState;
use super::pos::Pos;
use super::spec::{MachineId, Micros};
use super::{Counter, Outcome};
use crate::mutant::{self, Mutation};

impl Flow {
    /// Whether leg `index` has acknowledged and sent as much as the original, and the engine holds all that it has said beyond what the client
    /// was sent: whoever takes over like that keeps nobody waiting.
    fn is_level(&self, index: usize) -> bool {
        if mutant::is(Mutation::LevelUnchecked) {
            return true;
        }
        let leg = &self.legs[index];
        let held = leg.cache.next() + Pos::from(leg.fin.is_some());
        leg.acked() >= self.original().acked() && leg.sent >= self.client.sent && held >= leg.sent
    }

    /// At once: `machine` becomes original if it can, level or not. Returns whether the flow has moved.
    pub fn hand_over(&mut self, cx: &mut Context, now: Micros, machine: MachineId, outcome: &mut Outcome) -> bool {
        self.heir = None;
        let fit = |i: &usize| *i != self.original && self.is_fit(&self.legs[*i]);
        if self.state == FlowState::Open
            && let Some(next) = self.leg_of(machine).filter(fit)
        {
            self.switch(cx, now, next);
            outcome.switched += 1;
            return true;
        }
        false
    }

    /// As soon as it is level: `machine` becomes original. What can't be yet is pending, what can't be at all is stuck.
    /// Returns whether the flow has moved.
    pub fn plan_handover(&mut self, cx: &mut Context, now: Micros, machine: MachineId, outcome: &mut Outcome) -> bool {
        self.heir = Some(machine);
        let moved = self.follow_plan(cx, now);
        self.count_plan(machine, outcome);
        moved
    }

    /// The operator waits no longer: a flow whose heir is not level stays where it is.
    pub fn end_handover(&mut self, machine: MachineId, outcome: &mut Outcome) {
        self.count_plan(machine, outcome);
        self.heir = None;
    }

    /// A client that has not proved itself is not waited for, and a conversation that is over on either machine has nothing to move.
    pub fn count_plan(&self, machine: MachineId, outcome: &mut Outcome) {
        let there = self.original().machine == machine || self.original().state == LegState::Finished;
        if self.state != FlowState::Open || there {
            return;
        }
        match self.leg_of(machine).map(|i| &self.legs[i]) {
            Some(leg) if leg.state == LegState::Finished => {}
            Some(leg) if self.is_fit(leg) || leg.state == LegState::SynSent => outcome.pending += 1,
            _ => outcome.stuck += 1,
        }
    }

    /// Whether the heir of a planned handover has become level; if so, the flow is its own from here on.
    pub fn follow_plan(&mut self, cx: &mut Context, now: Micros) -> bool {
        let Some(heir) = self.heir else { return false };
        if self.original().machine == heir {
            self.heir = None;
            return false;
        }
        let ready = |i: &usize| self.is_fit(&self.legs[*i]) && self.is_level(*i);
        if self.state == FlowState::Open
            && let Some(next) = self.leg_of(heir).filter(ready)
        {
            self.heir = None;
            self.switch(cx, now, next);
            cx.stats.count(Counter::HandoversLevel);
            cx.moved[usize::from(self.service.0)] += 1;
            return true;
        }
        false
    }
}
