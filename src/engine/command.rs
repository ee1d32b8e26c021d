//! What the coordinator wants done in all flows of a service: R12 (takeover), R13 (rejoin), planned handover.

use super::context::Context;
use super::fall::{Fall, Roles};
use super::flow::Flow;
use super::{Command, Engine, MachineRef, Micros, Outcome, ServiceId};

impl Engine {
    /// Carries out a command; its packets come from the next [`Engine::poll`].
    pub fn command(&mut self, now: Micros, command: Command) -> Outcome {
        // What was ordered before comes before.
        self.tell_sleepers(usize::MAX);
        match command {
            Command::Down { machine } => self.machine_down(now, machine),
            Command::Up { machine } => {
                let known = self.down_flag(machine).map(|down| *down = false);
                if known.is_some() {
                    self.cx.set_slow(machine, 0);
                }
                Outcome {
                    applied: known.is_some(),
                    ..Outcome::default()
                }
            }
            Command::Serve { machine } => Outcome {
                applied: self.serve(machine),
                ..Outcome::default()
            },
            Command::Failover { to } => self.failover(now, to),
            Command::HandOver { to } => self.hand_over(now, to),
            Command::EndHandOver { to } => self.end_hand_over(to),
        }
    }

    /// New flows go to this machine, if it is up.
    fn serve(&mut self, id: MachineRef) -> bool {
        let up = self.down_flag(id).is_some_and(|down| !*down);
        if up {
            self.cx.current[usize::from(id.service.0)] = id.machine;
        }
        up
    }

    pub(super) fn down_flag(&mut self, id: MachineRef) -> Option<&mut bool> {
        self.cx
            .down
            .get_mut(usize::from(id.service.0))?
            .get_mut(usize::from(id.machine.0))
    }

    fn machine_down(&mut self, now: Micros, id: MachineRef) -> Outcome {
        let mut outcome = Outcome::default();
        // The last live machine stays: a service with one dead machine is better than one with none.
        let others = self.down_flag(id).is_some() && self.cx.up(id.service).any(|m| m != id.machine);
        if !others {
            return outcome;
        }
        outcome.applied = true;
        if let Some(down) = self.down_flag(id) {
            *down = true;
        }
        if let Some(next) = self.cx.serving(id.service) {
            self.cx.current[usize::from(id.service.0)] = next;
        }
        let fall = Fall::new(&self.cx, id, now);
        let mut foretold = Outcome::default();
        let wakes = |roles: &Roles| !fall.effect(roles).count(&mut foretold);
        self.each_flow(id.service, wakes, |flow, cx| {
            flow.machine_down(cx, now, id.machine, &mut outcome);
            true
        });
        self.flows.set_fall(fall);
        outcome.switched += foretold.switched;
        outcome.legs_freed += foretold.legs_freed;
        outcome
    }

    fn failover(&mut self, now: Micros, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.serve(to),
            ..Outcome::default()
        };
        if !outcome.applied {
            return outcome;
        }
        self.each_flow(
            to.service,
            |_| true,
            |flow, cx| flow.hand_over(cx, now, to.machine, &mut outcome),
        );
        outcome
    }

    fn hand_over(&mut self, now: Micros, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.serve(to),
            ..Outcome::default()
        };
        if outcome.applied {
            self.each_flow(
                to.service,
                |_| true,
                |flow, cx| flow.plan_handover(cx, now, to.machine, &mut outcome),
            );
            outcome.switched = self.take_moved(to.service);
        }
        outcome
    }

    fn end_hand_over(&mut self, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.down_flag(to).is_some(),
            ..Outcome::default()
        };
        if outcome.applied {
            // Those at rest have no plan, and are only counted.
            self.flows
                .look_at_rest(to.service, |flow| flow.count_plan(to.machine, &mut outcome));
            let none = |_: &Roles| false;
            self.each_flow(to.service, none, |flow, _| {
                flow.end_handover(to.machine, &mut outcome);
                false
            });
            outcome.switched = self.take_moved(to.service);
        }
        outcome
    }

    /// Flows that have moved by plan since this was last asked.
    fn take_moved(&mut self, service: ServiceId) -> usize {
        std::mem::take(&mut self.cx.moved[usize::from(service.0)])
    }

    /// Each flow that is awake, and each at rest that `wakes`. `f` returns whether the flow has something to do in the next poll.
    fn each_flow(
        &mut self,
        service: ServiceId,
        wakes: impl FnMut(&Roles) -> bool,
        mut f: impl FnMut(&mut Flow, &mut Context) -> bool,
    ) {
        self.flows.each(service, wakes, |key, flow| {
            let before = flow.is_half_open();
            let busy = f(flow, &mut self.cx);
            self.half_open -= usize::from(before && !flow.is_half_open());
            // One that was parked has its next poll to be parked again.
            if (busy || flow.can_park()) && !std::mem::replace(&mut flow.dirty, true) {
                self.burdened = true;
                // A client that waits for output that is there goes before those who are only owed a number.
                if flow.owes_output() {
                    self.dirty.push_front(key);
                } else {
                    self.dirty.push_back(key);
                }
            }
        });
    }
}
