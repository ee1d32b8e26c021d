//! The one thread that sees all shards: turns evidence into proof (R14), proof into commands, and answers the operator.
//!
//! It never works on a flow and never waits for a worker: orders go out, and each operation is finished when the last
//! worker's reply has come in.

mod operator;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use anyhow::Context;
use tracing::{debug, trace, warn};

use super::heard::LastHeard;
use super::limit::RateLimit;
use super::roster::{Machine, Roster, State};
use super::status::{Answer, Request, Sources, Status, Takeover, shard_totals};
use super::worker::{Notice, Order, Reply, WorkerStatus};
use crate::engine::detect::{Action, Detector};
use crate::engine::{
    Command, Difference, Event, MILLISECOND, MachineId, MachineRef, Micros, Outcome, Probe, Reason, SECOND, ServiceId,
    ServiceSpec, Successor,
};
use crate::host::clock;
use crate::host::links::{Links, Loss};
use crate::host::probe::{News, Pinger};
use crate::host::queue::{Waker, kernel_queues};
use operator::{Pause, Plan};

/// Waking this much too late means that the whole host stood still, as a paused virtual machine does: packets that arrived
/// meanwhile have not even been handed out. For anything less, see [`Then::Judge`].
const PAUSE: Micros = 20 * MILLISECOND;

/// Pauses that may restart bursts within a second. On a host that is always late, death must still be provable.
const PAUSES_PER_SECOND: u32 = 2;

/// What others want of the coordinator.
pub enum Input {
    /// The operator, by the admin socket.
    Ask(Request, Sender<Answer>),
    /// The end.
    Stop,
}

/// The coordinator's ends of the lines to one worker.
pub struct WorkerLine {
    /// Orders go out here.
    pub orders: Sender<Order>,
    /// Used after each.
    pub waker: Waker,
}

/// The coordinator's ends of all other lines.
pub struct Ears {
    /// Wakes the coordinator.
    pub waker: Waker,
    /// What engines noticed.
    pub notices: Receiver<Notice>,
    /// What workers report.
    pub replies: Receiver<Reply>,
    /// What others want.
    pub inputs: Receiver<Input>,
    /// Written by the workers.
    pub heard: Arc<LastHeard>,
}

/// The state of the thread.
pub struct Coordinator {
    roster: Roster,
    detector: Detector,
    pinger: Pinger,
    links: Links,
    workers: Vec<WorkerLine>,
    ears: Ears,
    operations: BTreeMap<u64, Operation>,
    next_number: u64,
    /// What the detector was last told, in the order of [`LastHeard::iter`].
    told: Vec<Micros>,
    pauses: PauseBudget,
    /// Handovers between two rounds.
    pauses_of_plans: Vec<Pause>,
    started: Micros,
    lonely: RateLimit,
    differing: RateLimit,
    outvoted: RateLimit,
}

/// Something asked of all workers, until the last has answered.
struct Operation {
    missing: usize,
    outcome: Outcome,
    /// When the first packet of the new original was out in the last worker that had one; 0 while there is none.
    redirected_at: Micros,
    done_at: Micros,
    statuses: Vec<WorkerStatus>,
    then: Then,
    /// Who wants to know.
    asker: Option<Sender<Answer>>,
}

/// What all workers are asked to do.
#[derive(Clone, Copy)]
enum Task {
    Command(Command),
    Drain,
    Status,
}

/// How an operation ends.
enum Then {
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
    },
}

/// What a machine is chosen for.
#[derive(Clone, Copy)]
enum Purpose {
    /// Serving new flows, instead of this one, the first in the list.
    Serve { instead_of: MachineId },
    /// A planned handover, after which this machine may be taken out.
    HandOn {
        disable: Option<MachineRef>,
        within: Micros,
    },
}

impl Coordinator {
    /// Puts the coordinator together.
    #[must_use]
    pub fn new(services: &[ServiceSpec], pinger: Pinger, links: Links, workers: Vec<WorkerLine>, ears: Ears) -> Self {
        let now = clock::now();
        Self {
            roster: Roster::new(services),
            detector: Detector::new(services, now),
            pinger,
            links,
            workers,
            told: ears.heard.iter().map(|(_, at)| at).collect(),
            ears,
            operations: BTreeMap::new(),
            next_number: 0,
            pauses: PauseBudget::default(),
            pauses_of_plans: Vec::new(),
            started: now,
            lonely: RateLimit::new(),
            differing: RateLimit::new(),
            outvoted: RateLimit::new(),
        }
    }

    /// Works until told to stop.
    pub fn run(mut self) -> anyhow::Result<()> {
        loop {
            let deadline = self.detector.next_deadline();
            let round = self.pauses_of_plans.iter().map(|pause| pause.until).min();
            let wake_at = deadline.into_iter().chain(round).min();
            self.pinger
                .wait(
                    &self.ears.waker,
                    self.links.as_fd(),
                    clock::until(wake_at, clock::now()),
                )
                .context("waiting for probes")?;
            let now = clock::now();
            while let Ok(reply) = self.ears.replies.try_recv() {
                self.handle_reply(reply);
            }
            while let Ok(input) = self.ears.inputs.try_recv() {
                match input {
                    Input::Ask(request, asker) => self.handle_request(request, asker),
                    Input::Stop => return Ok(()),
                }
            }
            self.resume_plans(now);
            self.handle_echoes(now);
            self.handle_losses(now);
            self.handle_notices();
            self.tell_heard();
            let patience = self.detector.patience().max(PAUSE);
            if deadline.is_some_and(|d| now > d.saturating_add(patience)) && self.pauses.allow(now) {
                debug!("this host stood still: bursts begin again");
                self.detector.handle_stall(now);
            }
            while let Some(action) = self.detector.poll(now) {
                self.act(action);
            }
        }
    }

    fn handle_echoes(&mut self, now: Micros) {
        while let Some(reply) = self.pinger.take_reply(now) {
            match reply {
                News::Echo { from, rtt } => {
                    for (machine, _) in self.ears.heard.iter() {
                        if let Some(record) = self.roster.machine_mut(machine)
                            && same_address(record.addr.ip(), from)
                        {
                            record.echo_rtt = Some(rtt);
                            self.ears.heard.note(machine, now);
                            self.detector.handle_probe_reply(now.saturating_sub(rtt), now, machine);
                        }
                    }
                }
                News::Unreachable { to } => {
                    self.suspect(now, Reason::Unreachable, |m| same_address(m.addr.ip(), to));
                }
            }
        }
    }

    /// What the kernel says of links and neighbours (R14).
    fn handle_losses(&mut self, now: Micros) {
        let mut losses = Vec::new();
        self.links.take(|loss| losses.push(loss));
        for loss in losses {
            match loss {
                Loss::Link { ifindex } => self.suspect(now, Reason::LinkDown, |m| m.ifindex == Some(ifindex)),
                Loss::Neighbour { ifindex, ip } => self.suspect(now, Reason::Unreachable, |m| {
                    m.ifindex == Some(ifindex) && same_address(m.addr.ip(), ip)
                }),
            }
        }
    }

    /// Evidence that is no flow's, against all machines that it concerns.
    fn suspect(&mut self, now: Micros, reason: Reason, concerns: impl Fn(&Machine) -> bool) {
        for (machine, _) in self.ears.heard.iter() {
            if self.roster.machine(machine).is_some_and(&concerns) {
                debug!(machine = ?self.roster.names(machine), reason = reason.name(), "suspected");
                self.detector.handle_suspect(now, machine, reason);
            }
        }
    }

    fn handle_notices(&mut self) {
        while let Ok(notice) = self.ears.notices.try_recv() {
            match notice {
                Notice::ProbeReply {
                    at,
                    sent,
                    machine,
                    accepts,
                } => {
                    self.detector.handle_probe_reply(sent, at, machine);
                    self.detector.handle_service(sent, at, machine, accepts);
                }
                Notice::Event {
                    at,
                    event: Event::Suspect { machine, reason },
                } => {
                    trace!(machine = ?self.roster.names(machine), reason = reason.name(), "suspected");
                    self.detector.handle_suspect(at, machine, reason);
                }
                Notice::Event {
                    at,
                    event: Event::Evict { machine, reason },
                } => self.take_down(machine, State::Evicted, reason, at, None),
                Notice::Event {
                    at,
                    event: Event::Diverged { machine, difference },
                } => self.note_difference(at, machine, difference),
                Notice::Event {
                    at,
                    event:
                        Event::Outvoted {
                            machine,
                            client,
                            offset,
                        },
                } => self.note_outvoted(at, machine, client, offset),
            }
        }
    }

    /// R17: a connection of this machine has begun to differ.
    fn note_difference(&mut self, at: Micros, machine: MachineRef, difference: Difference) {
        if let Some(record) = self.roster.machine_mut(machine) {
            record.diverged = Some((at, difference));
        }
        let Some(more) = self.differing.pass(at) else { return };
        let (service, name) = self.roster.names(machine);
        let original = MachineRef {
            service: machine.service,
            machine: difference.original,
        };
        let Difference {
            client, offset, start, ..
        } = difference;
        warn!(
            service,
            machine = name,
            original = self.roster.names(original).1,
            %client,
            offset,
            start,
            given = %difference.given,
            said = %difference.said,
            length = difference.length,
            more,
            "divergence"
        );
    }

    fn note_outvoted(&mut self, at: Micros, machine: MachineRef, client: SocketAddr, offset: u64) {
        if let Some(more) = self.outvoted.pass(at) {
            let (service, name) = self.roster.names(machine);
            warn!(service, original = name, %client, offset, more, "divergence: the majority agrees against the original");
        }
    }

    /// Passes on what the workers have heard since the last time.
    fn tell_heard(&mut self) {
        for ((machine, at), told) in self.ears.heard.iter().zip(&mut self.told) {
            if at > *told {
                *told = at;
                self.detector.handle_heard(at, machine);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Probe { machine } => {
                trace!(machine = ?self.roster.names(machine), "probe");
                let at = clock::now();
                let Some(record) = self.roster.machine_mut(machine) else {
                    return;
                };
                let last = record.probed_at.replace(at);
                self.pinger.ping(at, record.addr.ip());
                // All of a machine's by one worker, so that none overtakes the one before.
                let prober = usize::from(machine.machine.0) % self.workers.len().max(1);
                if let Some(post) = self.workers.get_mut(prober) {
                    post.order(Order::Probe(Probe { machine, at, last }));
                }
            }
            // Its host lives, and that it does is no excuse.
            Action::Down {
                machine,
                reason: reason @ (Reason::Refused | Reason::Hang),
                suspected_at,
            } => self.take_down(machine, State::Down, reason, suspected_at, None),
            Action::Down {
                machine,
                reason,
                suspected_at,
            } => {
                debug!(machine = ?self.roster.names(machine), reason = reason.name(), "silent: judged once the queues are read");
                self.start(
                    Then::Judge {
                        machine,
                        reason,
                        suspected_at,
                    },
                    None,
                    Task::Drain,
                );
            }
        }
    }

    /// A machine has let a burst pass, and the workers have since read all that had arrived: has it really said nothing?
    fn judge(&mut self, machine: MachineRef, reason: Reason, suspected_at: Micros) {
        let now = clock::now();
        self.handle_echoes(now);
        if self.ears.heard.get(machine) > suspected_at {
            debug!(machine = ?self.roster.names(machine), "alive: its answer was waiting in a queue");
            self.detector.handle_up(now, machine);
        } else {
            self.take_down(machine, State::Down, reason, suspected_at, None);
        }
    }

    /// Takes a machine out of all shards, unless it is out already or nobody would be left.
    fn take_down(
        &mut self,
        machine: MachineRef,
        state: State,
        reason: Reason,
        suspected_at: Micros,
        asker: Option<Sender<Answer>>,
    ) {
        let now = clock::now();
        if !self.roster.is_up(machine) {
            return;
        }
        if self.roster.is_last(machine) {
            if let Some(more) = self.lonely.pass(now) {
                let (service, name) = self.roster.names(machine);
                warn!(
                    service,
                    machine = name,
                    reason = reason.name(),
                    more,
                    "the last live machine of its service fails: kept"
                );
            }
            // Watch on: it may come back.
            self.detector.handle_up(now, machine);
            return;
        }
        self.detector.handle_down(machine);
        let from = self.roster.names(machine).1.to_owned();
        let was_original = self.roster.take_out(machine, state);
        let record = Takeover {
            from,
            to: self.original_name(machine),
            reason: reason.name().to_owned(),
            detect_us: now.saturating_sub(suspected_at),
            ..Takeover::default()
        };
        let then = Then::Takeover {
            machine,
            was_original,
            record,
            decided_at: now,
        };
        self.start(then, asker, Task::Command(Command::Down { machine }));
    }

    fn original_name(&self, machine: MachineRef) -> String {
        self.roster
            .service(machine.service)
            .map_or_else(String::new, |s| s.machine_name(s.original).to_owned())
    }

    /// Gives all workers a task and opens the operation that their replies will close.
    fn start(&mut self, then: Then, asker: Option<Sender<Answer>>, task: Task) {
        self.next_number += 1;
        let number = self.next_number;
        for post in &mut self.workers {
            post.order(match task {
                Task::Command(command) => Order::Command(number, command),
                Task::Drain => Order::Drain(number),
                Task::Status => Order::Status(number),
            });
        }
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

    fn handle_reply(&mut self, reply: Reply) {
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
            } => {
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
                Answer::done(moved.then_some(record))
            }
        };
        if let Some(asker) = asker {
            let _ = asker.send(answer);
        }
    }

    /// After a takeover the first machine in the list serves new flows; where the service's choice is another (R16), the workers
    /// are asked for what it depends on, and all shards hear of the one machine that it comes to.
    fn choose_server(&mut self, service: ServiceId) {
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

    fn log_takeover(&self, machine: MachineRef, was_original: bool, record: &Takeover, legs_freed: usize) {
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

impl WorkerLine {
    fn order(&self, order: Order) {
        // A worker that has gone takes the process with it.
        let _ = self.orders.send(order);
        self.waker.wake();
    }
}

/// How many pauses have restarted bursts in this second.
#[derive(Debug, Default)]
struct PauseBudget {
    since: Micros,
    used: u32,
}

impl PauseBudget {
    fn allow(&mut self, now: Micros) -> bool {
        if now.saturating_sub(self.since) >= SECOND {
            *self = Self { since: now, used: 0 };
        }
        self.used += 1;
        self.used <= PAUSES_PER_SECOND
    }
}

/// An IPv4 address may come back in IPv6 clothes.
fn same_address(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_always_late_still_proves_death() {
        let mut budget = PauseBudget::default();
        let allowed = (0..100).filter(|i| budget.allow(SECOND + i * 5_000)).count();
        assert_eq!(allowed, PAUSES_PER_SECOND as usize);
        assert!(budget.allow(3 * SECOND));
    }
}
