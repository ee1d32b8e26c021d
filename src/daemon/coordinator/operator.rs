//! What the operator asks for: machines in and out, and planned handovers.
//!
//! A handover takes rounds: the workers are told who is to become original, each flow moves by itself when that machine is level in it, and
//! every few milliseconds they are asked how many have not. When none is left, or the time is up, it ends: what has not moved stays.

use std::sync::mpsc::Sender;

use tracing::info;

use super::super::roster::State;
use super::super::status::{Answer, MOST_WITHIN, Request, Takeover, WITHIN};
use super::operation::{Purpose, Task, Then};
use super::{Coordinator, Errand};
use crate::engine::{Command, MILLISECOND, MachineId, MachineRef, Micros, Outcome, Reason, ServiceId, Successor};
use crate::host::clock;

/// Between two rounds of a handover.
const ROUND: Micros = 5 * MILLISECOND;

/// A handover under way.
pub struct Plan {
    /// The machine that is to become original.
    pub to: MachineRef,
    /// Who served new flows before.
    from: MachineId,
    /// The operator wants this machine out afterwards.
    disable: Option<MachineRef>,
    began: Micros,
    until: Micros,
    /// The workers have been told to wait no longer.
    ending: bool,
    record: Takeover,
}

/// A handover between two rounds.
pub struct Pause {
    /// When the next begins.
    pub until: Micros,
    plan: Plan,
    asker: Option<Sender<Answer>>,
}

impl Coordinator {
    /// Starts what is asked for, or says why not; then nothing has changed.
    pub(super) fn handle_request(&mut self, request: Request, asker: Sender<Answer>) {
        let refused = match request {
            Request::Status => {
                self.start(Then::Report, Some(asker.clone()), Task::Status);
                Ok(())
            }
            Request::Failover { service, to, within_us } => self.failover(&service, to.as_deref(), within_us, &asker),
            Request::Machine {
                service,
                machine,
                enable: true,
            } => self.enable(&service, &machine, &asker),
            Request::Machine {
                service,
                machine,
                enable: false,
            } => self.disable(&service, &machine, &asker),
        };
        if let Err(why) = refused {
            // An asker that has gone needs no answer.
            let _ = asker.send(Answer::error(why));
        }
    }

    fn failover(
        &mut self,
        service: &str,
        to: Option<&str>,
        within: Micros,
        asker: &Sender<Answer>,
    ) -> Result<(), String> {
        if within > MOST_WITHIN {
            return Err(format!("within_us: found {within}, expected at most {MOST_WITHIN}"));
        }
        let id = self.roster.find_service(service)?;
        self.refuse_second(id)?;
        let Some(name) = to else {
            return self.hand_on(id, None, within, asker);
        };
        let target = self.roster.find_machine(id, name)?;
        if let Some(state) = self.roster.machine(target).map(|m| m.state).filter(|s| *s != State::Up) {
            let state = state.name();
            return Err(format!(
                "machine \"{name}\" is {state}; bring it back first: relevo machine enable {service} {name}"
            ));
        }
        self.begin(target, None, within, Some(asker.clone()));
        Ok(())
    }

    /// To whoever is next by the service's choice.
    fn hand_on(
        &mut self,
        id: ServiceId,
        disable: Option<MachineRef>,
        within: Micros,
        asker: &Sender<Answer>,
    ) -> Result<(), String> {
        let record = self.roster.service(id).ok_or("no such service")?;
        let next = record
            .next_up(record.original)
            .ok_or("no other machine of the service is up")?;
        if record.successor == Successor::First {
            let target = MachineRef {
                service: id,
                machine: next,
            };
            self.begin(target, disable, within, Some(asker.clone()));
        } else {
            let purpose = Purpose::HandOn { disable, within };
            let then = Then::Choose { service: id, purpose };
            self.start(then, Some(asker.clone()), Task::Status);
        }
        Ok(())
    }

    /// One handover of a service at a time: flows can't move to two machines.
    fn refuse_second(&self, service: ServiceId) -> Result<(), String> {
        let busy = self
            .pauses_of_plans
            .iter()
            .any(|pause| pause.plan.to.service == service)
            || self.operations.values().any(|operation| match &operation.then {
                Then::HandOver(plan) => plan.to.service == service,
                Then::Choose {
                    service: other,
                    purpose: Purpose::HandOn { .. },
                } => *other == service,
                _ => false,
            });
        if busy {
            return Err("another failover of this service is under way".to_owned());
        }
        Ok(())
    }

    /// The first round. New flows go to the target from now on.
    pub(super) fn begin(
        &mut self,
        to: MachineRef,
        disable: Option<MachineRef>,
        within: Micros,
        asker: Option<Sender<Answer>>,
    ) {
        let now = clock::now();
        let Some(service) = self.roster.service_mut(to.service) else {
            return;
        };
        let from = std::mem::replace(&mut service.original, to.machine);
        let record = Takeover {
            from: service.machine_name(from).to_owned(),
            to: service.machine_name(to.machine).to_owned(),
            reason: Reason::Command.name().to_owned(),
            ..Takeover::default()
        };
        if within == 0 {
            let then = Then::Takeover {
                machine: to,
                was_original: from != to.machine,
                record,
                decided_at: now,
                before: None,
            };
            self.start(then, asker, Task::Command(Command::Failover { to }));
            return;
        }
        let plan = Plan {
            to,
            from,
            disable,
            began: now,
            until: now.saturating_add(within),
            ending: false,
            record,
        };
        self.start(Then::HandOver(plan), asker, Task::Command(Command::HandOver { to }));
    }

    /// All workers have answered a round; the last flows that moved were redirected at `redirected_at` (0: none moved in this round).
    pub(super) fn next_round(
        &mut self,
        mut plan: Plan,
        outcome: Outcome,
        (redirected_at, done_at): (Micros, Micros),
        asker: Option<Sender<Answer>>,
    ) {
        let now = clock::now();
        plan.record.flows += outcome.switched;
        plan.record.redirect_us = plan.record.redirect_us.max(redirected_at.saturating_sub(plan.began));
        let to = plan.to;
        if plan.ending {
            plan.record.stayed = outcome.pending + outcome.stuck;
            plan.record.switch_us = done_at.saturating_sub(plan.began);
            self.conclude(plan, asker);
        } else if outcome.pending > 0 && now < plan.until && self.roster.is_up(to) {
            self.pauses_of_plans.push(Pause {
                until: (now + ROUND).min(plan.until),
                plan,
                asker,
            });
        } else {
            plan.ending = true;
            self.start(Then::HandOver(plan), asker, Task::Command(Command::EndHandOver { to }));
        }
    }

    /// Starts the rounds that are due.
    pub(super) fn resume_plans(&mut self, now: Micros) {
        while let Some(due) = self.pauses_of_plans.iter().position(|pause| pause.until <= now) {
            let Pause { plan, asker, .. } = self.pauses_of_plans.swap_remove(due);
            let to = plan.to;
            self.start(Then::HandOver(plan), asker, Task::Command(Command::HandOver { to }));
        }
    }

    fn conclude(&mut self, plan: Plan, asker: Option<Sender<Answer>>) {
        let Plan {
            to,
            from,
            disable,
            began,
            mut record,
            ..
        } = plan;
        record.decided_at_us = clock::since_1970(began);
        let (service, machine) = (to.service, from);
        // Not where nothing has changed; nor where one of them has died meanwhile, which is a takeover of its own.
        let changed = record.flows > 0 || (from != to.machine && self.roster.is_up(MachineRef { service, machine }));
        if let Some(service) = self
            .roster
            .service_mut(service)
            .filter(|service| changed && service.original == to.machine)
        {
            service.last_takeover = Some(record.clone());
            self.log_takeover(to, true, &record, 0);
        }
        let answer = match disable {
            // What has not moved by now is taken over, level or not: the operator wants the machine out.
            Some(machine) if self.roster.is_up(machine) && !self.roster.is_last(machine) => {
                let errand = Errand {
                    asker,
                    done: Some(record),
                };
                return self.take_down(machine, State::Disabled, Reason::Command, clock::now(), errand);
            }
            Some(machine) if self.roster.is_up(machine) => Answer::error(
                "its connections were to move, but it is the last live machine of its service by now: it stays",
            ),
            Some(machine) => {
                // It has died meanwhile; from now on it is out because the operator wants it so.
                self.roster.take_out(machine, State::Disabled);
                Answer::done(Some(record))
            }
            None if !self.roster.is_up(to) => Answer::error(format!(
                "machine \"{}\" has failed before all was over: its connections went on to another",
                record.to
            )),
            None => Answer::done(Some(record)),
        };
        if let Some(asker) = asker {
            let _ = asker.send(answer);
        }
    }

    fn disable(&mut self, service: &str, name: &str, asker: &Sender<Answer>) -> Result<(), String> {
        let id = self.roster.find_service(service)?;
        let machine = self.roster.find_machine(id, name)?;
        if !self.roster.is_up(machine) {
            // It is out already; from now on because the operator wants it so.
            self.roster.take_out(machine, State::Disabled);
            let _ = asker.send(Answer::done(None));
            return Ok(());
        }
        if self.roster.is_last(machine) {
            return Err(format!(
                "machine \"{name}\" is the last live one of service \"{service}\""
            ));
        }
        self.refuse_second(id)?;
        let serves = self.roster.service(id).is_some_and(|s| s.original == machine.machine);
        if serves {
            return self.hand_on(id, Some(machine), WITHIN, asker);
        }
        self.take_down(
            machine,
            State::Disabled,
            Reason::Command,
            clock::now(),
            Errand {
                asker: Some(asker.clone()),
                done: None,
            },
        );
        Ok(())
    }

    fn enable(&mut self, service: &str, name: &str, asker: &Sender<Answer>) -> Result<(), String> {
        let machine = self.roster.find_machine(self.roster.find_service(service)?, name)?;
        if self.roster.is_up(machine) {
            let _ = asker.send(Answer::done(None));
            return Ok(());
        }
        if let Some(record) = self.roster.machine_mut(machine) {
            record.state = State::Up;
        }
        self.detector.handle_up(clock::now(), machine);
        info!(service, machine = name, "machine enabled: it serves new flows");
        self.start(
            Then::Confirm,
            Some(asker.clone()),
            Task::Command(Command::Up { machine }),
        );
        Ok(())
    }

    /// The workers have said what the choice of a successor needs (R16).
    pub(super) fn chosen(
        &mut self,
        service: ServiceId,
        next: Option<MachineId>,
        purpose: Purpose,
        asker: Option<Sender<Answer>>,
    ) {
        let machine = next.map(|machine| MachineRef { service, machine });
        match (purpose, machine) {
            (Purpose::HandOn { disable, within }, Some(to)) => self.begin(to, disable, within, asker),
            (Purpose::HandOn { .. }, None) => {
                if let Some(asker) = asker {
                    let _ = asker.send(Answer::error("no other machine of the service is up"));
                }
            }
            (Purpose::Serve { .. }, None) => {}
            (Purpose::Serve { instead_of }, Some(machine)) => {
                let Some(record) = self.roster.service_mut(service) else {
                    return;
                };
                // The operator, or another failure, may have decided otherwise since.
                if record.original == instead_of && machine.machine != instead_of {
                    record.original = machine.machine;
                    let (service, name) = self.roster.names(machine);
                    info!(service, machine = name, "new flows go to this machine");
                    self.start(Then::Confirm, None, Task::Command(Command::Serve { machine }));
                }
            }
        }
    }
}
