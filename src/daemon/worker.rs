//! One worker: a queue, a shard of the engine, an injector; shares nothing but a few atomic words with anybody.
//!
//! The loop: sleep until a packet, an order or the engine's deadline; take packets, each with its verdict at once; then do the
//! work that no verdict waits for, and send what comes of it in one batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};

use anyhow::Context;

use super::heard::LastHeard;
use super::pacer::Pacer;
use crate::engine::{Command, DropReason, Engine, Event, MachineRef, Micros, Outbox, Outcome, ShardStatus, Verdict};
use crate::host::clock;
use crate::host::inject::{InjectCounters, Injector};
use crate::host::queue::{PacketQueue, QUEUE_LENGTH, QueueCounters, Waker};

/// Packets taken before the engine's deferred work gets its turn.
const BATCH: usize = 32;

/// A wait that took no longer than this did not sleep: packets had been waiting, so more may be.
const BACKLOG_WAIT: Micros = 3;

/// What the coordinator wants of a worker.
#[derive(Debug)]
pub enum Order {
    /// Carry out a command and report [`Reply::Done`] under this number.
    Command(u64, Command),
    /// Report [`Reply::Status`] under this number.
    Status(u64),
    /// Send a probe; no report.
    Probe(MachineRef),
    /// Take every packet that has arrived so far, and report [`Reply::Done`] under this number.
    Drain(u64),
    /// End.
    Stop,
}

/// The report that an [`Order`] asks for.
#[derive(Debug)]
pub enum Reply {
    /// A command was carried out, and its packets were sent, at this time.
    Done(u64, Outcome, Micros),
    /// The state of one worker.
    Status(u64, Box<WorkerStatus>),
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
        /// Who.
        machine: MachineRef,
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
}

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

/// A worker before its thread starts.
pub struct Worker<Q> {
    queue_number: u16,
    queue: Q,
    engine: Engine,
    injector: Injector,
    outbox: Outbox,
    pacer: Pacer,
    lines: Lines,
    notices_lost: u64,
}

impl<Q: PacketQueue> Worker<Q> {
    /// Puts a worker together.
    #[must_use]
    pub fn new(queue_number: u16, queue: Q, engine: Engine, injector: Injector, lines: Lines) -> Self {
        let (outbox, pacer) = (Outbox::new(), Pacer::default());
        Self {
            queue_number,
            queue,
            engine,
            injector,
            outbox,
            pacer,
            lines,
            notices_lost: 0,
        }
    }

    /// Works until told to stop. An error means that the queue is lost: nothing can go on without it.
    pub fn run(mut self) -> anyhow::Result<()> {
        loop {
            let deadline = self.engine.next_deadline();
            let asked = clock::now();
            let due = deadline.map(|d| self.pacer.host_time(d));
            let ready = self
                .queue
                .wait(&self.lines.waker, clock::until(due, asked))
                .context("waiting for packets")?;
            let woke = clock::now();
            let stalled = self.pacer.woke(deadline, woke).is_some();
            if ready.packets || stalled {
                // A second receive just to learn that there is nothing more would cost a lone packet a syscall.
                let backlog = stalled || woke.saturating_sub(asked) <= BACKLOG_WAIT;
                self.take_packets(if backlog { BATCH } else { 1 })?;
            }
            if ready.woken && !self.take_orders()? {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// Takes up to `most` packets, each with its verdict at once.
    fn take_packets(&mut self, most: usize) -> anyhow::Result<()> {
        for _ in 0..most {
            let Self {
                queue, engine, pacer, ..
            } = self;
            let mut spoke = None;
            let taken = queue.receive(&mut |meta, packet| {
                let now = clock::now();
                let verdict = engine.handle_packet(pacer.engine_time(now), meta, packet);
                spoke = engine
                    .heard()
                    .map(|machine| (now, machine, verdict == Verdict::Drop(DropReason::ProbeReply)));
                verdict
            });
            if let Some((at, machine, to_probe)) = spoke {
                self.lines.heard.note(machine, at);
                if to_probe {
                    self.tell(Notice::ProbeReply { at, machine });
                    self.lines.coordinator.wake();
                }
            }
            if !taken.context("receiving from the packet queue")? {
                break;
            }
        }
        Ok(())
    }

    /// The work that no verdict waits for; then what the engine noticed goes to the coordinator.
    fn catch_up(&mut self) {
        let now = clock::now();
        self.engine.poll(self.pacer.engine_time(now), &mut self.outbox);
        self.flush();
        let mut noticed = false;
        while let Some(event) = self.engine.take_event() {
            self.tell(Notice::Event { at: now, event });
            noticed = true;
        }
        if noticed {
            self.lines.coordinator.wake();
        }
    }

    /// Leaves a notice for the coordinator, and never waits for it.
    fn tell(&mut self, notice: Notice) {
        if self.lines.notices.try_send(notice).is_err() {
            self.notices_lost += 1;
        }
    }

    fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.injector.send(&self.outbox);
            self.outbox.clear();
        }
    }

    /// Carries out all orders; returns whether to go on.
    fn take_orders(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.lines.orders.try_recv() {
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => return Ok(true),
                Ok(order) => self.carry_out(order)?,
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        let now = self.pacer.engine_time(clock::now());
        let reply = match order {
            Order::Stop => return Ok(()),
            Order::Probe(machine) => {
                self.engine.probe(now, machine, &mut self.outbox);
                self.flush();
                return Ok(());
            }
            Order::Drain(number) => {
                self.take_packets(QUEUE_LENGTH as usize)?;
                Reply::Done(number, Outcome::default(), clock::now())
            }
            Order::Command(number, command) => {
                let outcome = self.engine.command(now, command);
                self.engine.poll(now, &mut self.outbox);
                self.flush();
                Reply::Done(number, outcome, clock::now())
            }
            Order::Status(number) => Reply::Status(number, Box::new(self.status())),
        };
        // The coordinator is gone only when the process is about to be.
        let _ = self.lines.replies.send(reply);
        self.lines.coordinator.wake();
        Ok(())
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            queue: self.queue_number,
            shard: self.engine.status(),
            queue_counters: self.queue.counters(),
            inject: *self.injector.counters(),
            stalled: self.pacer.stalled(),
            notices_lost: self.notices_lost,
        }
    }
}
