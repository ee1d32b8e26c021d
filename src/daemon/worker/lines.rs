//! What a worker and the coordinator say to each other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use super::super::heard::LastHeard;
use super::super::times::TimesReport;
use crate::engine::{Command, Event, MachineRef, Micros, Outcome, Probe, ShardStatus};
use crate::host::inject::InjectCounters;
use crate::host::queue::{QueueCounters, Waker};
use crate::host::schedule::Held;

/// A worker's ends of the lines to the coordinator.
pub struct Lines {
    /// Orders come in here; the waker is used after each.
    pub orders: Receiver<Order>,
    /// Wakes this worker.
    pub waker: Waker,
    /// Answers to orders.
    pub replies: Sender<Reply>,
    /// Notices; bounded, so that a flood of evidence costs evidence, not memory.
    pub notices: SyncSender<Notice>,
    /// Wakes the coordinator.
    pub coordinator: Waker,
    /// Shared with everybody.
    pub heard: Arc<LastHeard>,
}

/// What the coordinator wants of a worker.
#[derive(Debug)]
pub enum Order {
    /// Carry out a command and report [`Reply::Done`] under this number.
    Command(u64, Command),
    /// Report [`Reply::Status`] under this number.
    Status(u64),
    /// Send a probe; its times are host times. No report.
    Probe(Probe),
    /// Take every packet that has arrived so far, and report [`Reply::Done`] under this number.
    Drain(u64),
    /// End.
    Stop,
}

/// The report that an [`Order`] asks for.
#[derive(Debug)]
pub enum Reply {
    /// A command was carried out, and its packets were sent.
    Done(u64, Outcome, Sent),
    /// The state of one worker.
    Status(u64, Box<WorkerStatus>),
}

/// When the packets that a command leads to were sent, in host time.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The first of them; all flows had switched by then.
    pub first: Micros,
    /// The last.
    pub last: Micros,
}

/// What a worker noticed, in host time.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// Its engine says so.
    Event {
        /// When.
        at: Micros,
        /// What.
        event: Event,
    },
    /// A machine answered a SYN of the engine's own.
    ProbeReply {
        /// When.
        at: Micros,
        /// When that had been sent.
        sent: Micros,
        /// Who.
        machine: MachineRef,
        /// Its service listens.
        accepts: bool,
    },
}

/// One worker's part of `relevo status`.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its queue's number.
    pub queue: u16,
    /// Its engine.
    pub shard: ShardStatus,
    /// What its queue lost.
    pub queue_counters: QueueCounters,
    /// What it sent, and could not send.
    pub inject: InjectCounters,
    /// How often it was not scheduled in time, and for how long in all.
    pub stalled: (u64, Micros),
    /// Notices that the coordinator had no room for.
    pub notices_lost: u64,
    /// How its thread runs.
    pub held: Held,
    /// Packets found by looking for them without sleeping: with `busy_poll`, or while an order was looked out for.
    pub busy_polls: u64,
    /// Where its time has gone.
    pub times: TimesReport,
}
