//! The one thread that sees all shards: turns evidence into proof (R14), proof into commands, and answers the operator.
//!
//! It never works on a flow and never waits for a worker: orders go out, and each operation is finished when the last
//! worker's reply has come in.

mod evidence;
mod operation;
mod operator;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use anyhow::Context;
use tracing::{debug, trace, warn};

use super::heard::LastHeard;
use super::limit::RateLimit;
use super::roster::{Roster, State};
use super::status::{Answer, Request, Takeover};
use super::worker::{Notice, Order, Reply};
use crate::engine::detect::{Action, Detector};
use crate::engine::{Command, MILLISECOND, MachineRef, Micros, Probe, Reason, SECOND, ServiceSpec};
use crate::host::clock;
use crate::host::links::Links;
use crate::host::probe::Pinger;
use crate::host::queue::Waker;
use operation::{Operation, Task, Then};
use operator::Pause;

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
    /// Pauses that have restarted bursts.
    pauses: RateLimit,
    /// Handovers between two rounds.
    pauses_of_plans: Vec<Pause>,
    started: Micros,
    lonely: RateLimit,
    differing: RateLimit,
    outvoted: RateLimit,
    uncut: RateLimit,
}

/// For whom a machine is taken out, if anybody has asked for it.
#[derive(Default)]
struct Errand {
    asker: Option<Sender<Answer>>,
    /// The handover that came first.
    done: Option<Takeover>,
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
            pauses: RateLimit::of(PAUSES_PER_SECOND, SECOND),
            pauses_of_plans: Vec::new(),
            started: now,
            lonely: RateLimit::new(),
            differing: RateLimit::new(),
            outvoted: RateLimit::new(),
            uncut: RateLimit::new(),
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
            if deadline.is_some_and(|d| now > d.saturating_add(patience)) && self.pauses.pass(now).is_some() {
                debug!("this host stood still: bursts begin again");
                self.detector.handle_stall(now);
            }
            while let Some(action) = self.detector.poll(now) {
                self.act(action);
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
            } => self.take_down(machine, State::Down, reason, suspected_at, Errand::default()),
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
            self.take_down(machine, State::Down, reason, suspected_at, Errand::default());
        }
    }

    /// Takes a machine out of all shards, unless it is out already or nobody would be left.
    fn take_down(&mut self, machine: MachineRef, state: State, reason: Reason, suspected_at: Micros, errand: Errand) {
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
            before: errand.done,
        };
        self.start(then, errand.asker, Task::Command(Command::Down { machine }));
    }

    fn original_name(&self, machine: MachineRef) -> String {
        self.roster
            .service(machine.service)
            .map_or_else(String::new, |s| s.machine_name(s.original).to_owned())
    }
}

impl WorkerLine {
    fn order(&self, order: Order) {
        // A worker that has gone takes the process with it.
        let _ = self.orders.send(order);
        self.waker.wake();
    }
}
