//! One worker: a queue, a shard of the engine, an injector; shares nothing but a few atomic words with anybody.
//!
//! The loop: sleep until a packet, an order or the engine's deadline; take packets, each with its verdict at once; then do the
//! work that no verdict waits for, and send what comes of it in one batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};

use anyhow::Context;

use super::heard::LastHeard;
use super::pacer::{Pacer, STALL};
use crate::engine::{Command, Engine, Event, MachineRef, Micros, Outbox, Outcome, ShardStatus};
use crate::host::clock;
use crate::host::inject::{InjectCounters, Injector};
use crate::host::queue::{PacketQueue, QueueCounters, Waker};

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

/// What the engine noticed, and when.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Host time.
    pub at: Micros,
    /// What.
    pub event: Event,
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
    /// Events that the coordinator had no room for.
    pub events_lost: u64,
}

/// What the coordinator can see of a worker without asking.
#[derive(Debug, Default)]
pub struct Pulse {
    /// The worker gives a sign of life by this host time; `u64::MAX` while it waits for packets alone.
    due: AtomicU64,
    /// When it last found itself stalled; 0 if never.
    stalled_at: AtomicU64,
    /// Orders carried out.
    orders_done: AtomicU64,
}

impl Pulse {
    /// Of a worker that is about to start.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        Self {
            due: AtomicU64::new(now),
            ..Self::default()
        }
    }

    /// Whether the worker found itself stalled after `since`, or is overdue at `now`.
    #[must_use]
    pub fn stalled(&self, since: Micros, now: Micros) -> bool {
        self.stalled_at.load(Ordering::Relaxed) > since || now > self.due.load(Ordering::Relaxed).saturating_add(STALL)
    }

    /// How many orders it has carried out.
    #[must_use]
    pub fn orders_done(&self) -> u64 {
        self.orders_done.load(Ordering::Acquire)
    }
}

/// A worker's ends of the lines to the coordinator.
pub struct Lines {
    /// Orders come in here; the waker is used after each.
    pub orders: Receiver<Order>,
    /// Wakes this worker.
    pub waker: Waker,
    /// Answers to orders.
    pub replies: Sender<Reply>,
    /// Events; bounded, so that a flood of evidence costs evidence, not memory.
    pub notices: SyncSender<Notice>,
    /// Wakes the coordinator.
    pub coordinator: Waker,
    /// Shared with the coordinator.
    pub pulse: Arc<Pulse>,
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
    events_lost: u64,
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
            events_lost: 0,
        }
    }

    /// Works until told to stop. An error means that the queue is lost: nothing can go on without it.
    pub fn run(mut self) -> anyhow::Result<()> {
        loop {
            let deadline = self.engine.next_deadline();
            let asked = clock::now();
            let due = deadline.map(|d| self.pacer.host_time(d));
            self.lines
                .pulse
                .due
                .store(due.unwrap_or(u64::MAX).max(asked), Ordering::Relaxed);
            let ready = self
                .queue
                .wait(&self.lines.waker, clock::until(due, asked))
                .context("waiting for packets")?;
            let woke = clock::now();
            self.lines.pulse.due.store(woke, Ordering::Relaxed);

            let stalled = self.pacer.woke(deadline, woke).is_some();
            if stalled {
                self.lines.pulse.stalled_at.store(woke, Ordering::Relaxed);
            }
            if ready.packets || stalled {
                // A second receive just to learn that there is nothing more would cost a lone packet a syscall.
                let backlog = stalled || woke.saturating_sub(asked) <= BACKLOG_WAIT;
                self.take_packets(if backlog { BATCH } else { 1 })?;
            }
            if ready.woken && !self.take_orders() {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// Takes up to `most` packets, each with its verdict at once.
    fn take_packets(&mut self, most: usize) -> anyhow::Result<()> {
        let Self {
            queue,
            engine,
            pacer,
            lines,
            ..
        } = self;
        for _ in 0..most {
            let mut heard = None;
            let taken = queue.receive(&mut |meta, packet| {
                let now = clock::now();
                let verdict = engine.handle_packet(pacer.engine_time(now), meta, packet);
                heard = engine.heard().map(|machine| (machine, now));
                verdict
            });
            if let Some((machine, at)) = heard {
                lines.heard.note(machine, at);
            }
            if !taken.context("receiving from the packet queue")? {
                break;
            }
        }
        Ok(())
    }

    /// The work that no verdict waits for; then what the engine noticed goes to the coordinator, which is never waited for.
    fn catch_up(&mut self) {
        let now = clock::now();
        self.engine.poll(self.pacer.engine_time(now), &mut self.outbox);
        self.flush();
        let mut noticed = false;
        while let Some(event) = self.engine.take_event() {
            noticed = true;
            if self.lines.notices.try_send(Notice { at: now, event }).is_err() {
                self.events_lost += 1;
            }
        }
        if noticed {
            self.lines.coordinator.wake();
        }
    }

    fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.injector.send(&self.outbox);
            self.outbox.clear();
        }
    }

    /// Carries out all orders; returns whether to go on.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.lines.orders.try_recv() {
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
                Ok(order) => self.carry_out(order),
            }
            self.lines.pulse.orders_done.fetch_add(1, Ordering::Release);
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = self.pacer.engine_time(clock::now());
        let reply = match order {
            Order::Stop => return,
            Order::Probe(machine) => {
                self.engine.probe(now, machine, &mut self.outbox);
                self.flush();
                return;
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
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            queue: self.queue_number,
            shard: self.engine.status(),
            queue_counters: self.queue.counters(),
            inject: *self.injector.counters(),
            stalled: self.pacer.stalled(),
            events_lost: self.events_lost,
        }
    }
}
