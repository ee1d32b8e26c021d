//! What all workers are asked to do together: it is over when the last has answered, and ends in a word to the operator, a line in the log, or the
//! next step.

use std::sync::mpsc::Sender;

use tracing::warn;

use super::super::status::{Answer, Sources, Status, Takeover, shard_totals};
use super::super::worker::{Order, Reply, WorkerStatus};
use super::Coordinator;
use super::operator::Plan;
use crate::engine::{Command, MachineId, MachineRef, Micros, Outcome, Reason, ServiceId, Successor};
use crate::host::clock;
use crate::host::queue::kernel_queues;

/// Something asked of all workers, until the last has answered.
pub struct Operation {
    missing: usize,
    outcome: Outcome,
    /// When the first packet of the new original was out in the last worker that had one; 0 while there is none.
    redirected_at: Micros,
    done_at: Micros,
    statuses: Vec<WorkerStatus>,
    /// How it ends.
    pub then: Then,
    /// Who wants to know.
    asker: Option<Sender<Answer>>,
}

/// What all workers are asked to do.
#[derive(Clone, Copy)]
pub enum Task {
    Command(Command),
    Drain,
    Status,
}

/// How an operation ends.
pub enum Then {
    /// With a status report.
    Report,
    /// With a judgement (R14: a worker that was itself not scheduled in time disqualifies its own evidence). Its answer may
    /// have been waiting in a queue that nobody read; now all have been read.
    Judge {
        machine: MachineRef,
        reason: Reason,
        suspected_at: Micros,
    },
    /// With a plain yes: a machine was enabled, or another serves new flows.
    Confirm,
    /// With the choice of a machine by what the workers know of all (R16).
    Choose { service: ServiceId, purpose: Purpose },
    /// With the next round of a planned handover, or its end.
    HandOver(Plan),
    /// With a takeover to be recorded, or a replica's end.
    Takeover {
        machine: MachineRef,
        was_original: bool,
        record: Takeover,
        decided_at: Micros,
        /// What has been done for the same request before: a handover.
        before: Option<Takeover>,
    },
}

/// What a machine is chosen for.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// Serving new flows, instead of this one, the first in the list.
    Serve { instead_of: MachineId },
    /// A planned handover, after which this machine may be taken out.
    HandOn {
        disable: Option<MachineRef>,
        within: Micros,
    },
}

impl Coordinator {
    /// Gives all workers a task and opens the operation that their replies will close.
    pub(super) fn start(&mut self, then: Then, asker: Option<Sender<Answer>>, task: Task) {
        self.next_number += 1;
        let number = self.next_number;
        for post in &mut self.workers {
            post.order(match task {
                Task::Command(command) => Order::Command(number, command),
                Task::Drain => Order::Drain(number),
                Task::Status => Order::Status(number),
            });
        }
        // Workers that look out for it, or were woken for it, may want this very processor.
        rustix::thread::sched_yield();
        let (missing, outcome, done_at, statuses) = (self.workers.len(), Outcome::default(), 0, Vec::new());
        self.operations.insert(
            number,
            Operation {
                missing,
                outcome,
                redirected_at: 0,
                done_at,
                statuses,
                then,
                asker,
            },
        );
    }

    pub(super) fn handle_reply(&mut self, reply: Reply) {
        let (Reply::Done(number, ..) | Reply::Status(number, _)) = reply;
        let Some(operation) = self.operations.get_mut(&number) else {
            return;
        };
        operation.missing = operation.missing.saturating_sub(1);
        match reply {
            Reply::Done(_, outcome, sent) => {
                if outcome.switched > 0 {
                    operation.redirected_at = operation.redirected_at.max(sent.first);
                }
                operation.outcome.switched += outcome.switched;
                operation.outcome.lost += outcome.lost;
                operation.outcome.legs_freed += outcome.legs_freed;
                operation.outcome.pending += outcome.pending;
                operation.outcome.stuck += outcome.stuck;
                operation.done_at = operation.done_at.max(sent.last);
            }
            Reply::Status(_, status) => operation.statuses.push(*status),
        }
        if operation.missing == 0
            && let Some(operation) = self.operations.remove(&number)
        {
            self.finish(operation);
        }
    }

    fn finish(&mut self, operation: Operation) {
        let Operation {
            outcome,
            redirected_at,
            done_at,
            mut statuses,
            then,
            asker,
            ..
        } = operation;
        let answer = match then {
            Then::Judge {
                machine,
                reason,
                suspected_at,
            } => return self.judge(machine, reason, suspected_at),
            Then::Confirm => Answer::done(None),
            Then::HandOver(plan) => return self.next_round(plan, outcome, (redirected_at, done_at), asker),
            Then::Choose { service, purpose } => {
                let next = self.choose(service, purpose, &statuses);
                return self.chosen(service, next, purpose, asker);
            }
            Then::Report => {
                statuses.sort_by_key(|status| status.queue);
                Answer {
                    ok: true,
                    status: Some(self.report(&statuses)),
                    ..Answer::default()
                }
            }
            Then::Takeover {
                machine,
                was_original,
                mut record,
                decided_at,
                before,
            } => {
                record.decided_at_us = clock::since_1970(decided_at);
                record.redirect_us = redirected_at.saturating_sub(decided_at);
                record.switch_us = done_at.saturating_sub(decided_at);
                record.flows = outcome.switched;
                record.lost = outcome.lost;
                self.log_takeover(machine, was_original, &record, outcome.legs_freed);
                let moved = was_original || outcome.switched > 0;
                if let Some(service) = self.roster.service_mut(machine.service).filter(|_| moved) {
                    service.last_takeover = Some(record.clone());
                }
                if was_original && record.reason != Reason::Command.name() {
                    self.choose_server(machine.service);
                }
                Answer::done(moved.then_some(record).or(before))
            }
        };
        if let Some(asker) = asker {
            let _ = asker.send(answer);
        }
    }

    /// After a takeover the first machine in the list serves new flows; where the service's choice is another (R16), the workers
    /// are asked for what it depends on, and all shards hear of the one machine that it comes to.
    pub(super) fn choose_server(&mut self, service: ServiceId) {
        let Some(record) = self.roster.service(service) else {
            return;
        };
        if record.successor != Successor::First {
            let purpose = Purpose::Serve {
                instead_of: record.original,
            };
            self.start(Then::Choose { service, purpose }, None, Task::Status);
        }
    }

    /// R16 for a whole service: who is best among the machines that are up. A handover goes to another than serves now.
    fn choose(&self, service: ServiceId, purpose: Purpose, statuses: &[WorkerStatus]) -> Option<MachineId> {
        let record = self.roster.service(service)?;
        let but = matches!(purpose, Purpose::HandOn { .. }).then_some(record.original);
        record.best_up(but, &shard_totals(statuses, service, record.machines.len()))
    }

    pub(super) fn log_takeover(&self, machine: MachineRef, was_original: bool, record: &Takeover, legs_freed: usize) {
        let (service, name) = self.roster.names(machine);
        let Takeover {
            from,
            to,
            reason,
            detect_us,
            redirect_us,
            switch_us,
            flows,
            lost,
            stayed,
            ..
        } = record;
        if was_original || *flows > 0 {
            warn!(
                service,
                from, to, reason, detect_us, redirect_us, switch_us, flows, lost, stayed, "takeover"
            );
        } else {
            warn!(
                service,
                machine = name,
                reason,
                detect_us,
                switch_us,
                legs_freed,
                lost,
                "replica taken out"
            );
        }
    }

    fn report(&self, statuses: &[WorkerStatus]) -> Status {
        // Without the kernel's view (no such file before the first queue is bound) the numbers are 0.
        let kernel = kernel_queues().unwrap_or_default();
        let sources = Sources {
            roster: &self.roster,
            heard: &self.ears.heard,
            kernel: &kernel,
            now: clock::now(),
            started: self.started,
            echo_errors: self.pinger.send_errors,
        };
        Status::assemble(&sources, statuses)
    }
}
