//! One worker: a queue, a shard of the engine, an injector; shares nothing but a few atomic words with anybody.
//!
//! The loop: sleep until a packet, an order or the engine's deadline; take packets, letting go at once what may go on; then do the
//! work that no verdict waits for, and send what comes of it in one batch.

mod lines;
mod orders;
mod packets;

#[cfg(test)]
mod tests;

pub use self::lines::{Lines, Notice, Order, Reply, Sent, WorkerStatus};

use anyhow::Context;
use tracing::warn;

use super::pacer::Pacer;
use super::times::Times;
use crate::engine::{Engine, Event, Micros, Outbox, Outcome, Reason};
use crate::host::clock;
use crate::host::inject::Injector;
use crate::host::memory;
use crate::host::queue::{PacketQueue, Ready};
use crate::host::schedule::Plan;

/// Packets of the engine's own after which arrived ones get their turn: one sendmmsg's worth, so that a takeover of ten thousand flows keeps
/// no verdict waiting, and its first packets leave before the last are made.
const PART: usize = 64;

/// A wait that took no longer than this did not sleep.
const BACKLOG_WAIT: Micros = 3;

/// How long a worker looks out for an order that is likely, before it sleeps: to be woken takes as long as all that a takeover has to do then.
const LOOKOUT: Micros = 500;

/// How a worker's thread is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Where, and before whom.
    pub plan: Plan,
    /// How long after a packet it looks for the next one before it sleeps, in microseconds.
    pub busy_poll: Micros,
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
    manner: Manner,
    /// When the last packet came, in host time.
    last_packet: Micros,
    /// Until when an order is likely, in host time.
    order_by: Micros,
    busy_polls: u64,
    notices_lost: u64,
    times: Times,
    /// Commands whose packets are not all out: number, outcome, when the first went out.
    under_way: Vec<(u64, Outcome, Micros)>,
}

impl<Q: PacketQueue> Worker<Q> {
    /// Puts a worker together.
    #[must_use]
    pub fn new(queue_number: u16, queue: Q, engine: Engine, injector: Injector, lines: Lines, manner: Manner) -> Self {
        let (outbox, pacer) = (Outbox::new(), Pacer::default());
        Self {
            queue_number,
            queue,
            engine,
            injector,
            outbox,
            pacer,
            lines,
            manner,
            last_packet: 0,
            order_by: 0,
            busy_polls: 0,
            notices_lost: 0,
            times: Times::new(),
            under_way: Vec::new(),
        }
    }

    /// Works until told to stop. An error means that the queue is lost: nothing can go on without it.
    pub fn run(mut self) -> anyhow::Result<()> {
        for complaint in self.manner.plan.carry_out() {
            warn!("queue {}: {complaint}", self.queue_number);
        }
        loop {
            let asked = clock::now();
            let due = if self.engine.is_behind() {
                Some(asked)
            } else {
                self.engine.next_deadline().map(|d| self.pacer.host_time(d))
            };
            let found = self.look_for_packets(asked, due)?;
            let ready = match found {
                Some(ready) => ready,
                None => self.sleep(asked, due)?,
            };
            // Then packets had been waiting, and more may be; otherwise a second receive would only cost a lone packet a syscall.
            let backlog = clock::now().saturating_sub(asked) <= BACKLOG_WAIT;
            let mut overslept = self.note_stall();
            // A takeover waits for no packet, least of all for those that it lets pass by its yield. But whatever came while the worker slept
            // comes before the engine's timers, and so before an order.
            let ordered = ready.woken && !overslept;
            if ordered && !self.take_orders()? {
                return Ok(());
            }
            if ready.packets || overslept {
                if found.is_none() {
                    self.take_packets(1, 0)?;
                }
                // Whoever waits for this processor goes first, the machine that just got its packet among them; and what they
                // sent meanwhile comes before the work for replicas, too (design section 3, step 3). On a processor of our
                // own this is a syscall that does nothing.
                if self.engine.is_burdened() {
                    rustix::thread::sched_yield();
                    overslept |= self.note_stall();
                }
                if self.engine.is_burdened() || backlog || overslept {
                    self.take_batch(overslept)?;
                }
            }
            if ready.woken && !ordered && !self.take_orders()? {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// `busy_poll`: looks for a packet without sleeping, as long as the last one is not long ago, and takes the one that it finds; or while an order is
    /// likely. `None` if there was nothing, or neither is so.
    fn look_for_packets(&mut self, asked: Micros, due: Option<Micros>) -> anyhow::Result<Option<Ready>> {
        let until = self.last_packet.saturating_add(self.manner.busy_poll);
        let until = until.max(self.order_by);
        let until = due.map_or(until, |due| until.min(due));
        let mut now = asked;
        while now < until {
            self.note_stall();
            let packets = self.take_packets(1, 0)?.packets > 0;
            let woken = self.lines.waker.take();
            self.busy_polls += u64::from(packets);
            if packets || woken {
                return Ok(Some(Ready { packets, woken }));
            }
            if now < self.order_by {
                // Whoever is to give it may need this processor.
                rustix::thread::sched_yield();
            } else {
                std::hint::spin_loop();
            }
            now = clock::now();
        }
        Ok(None)
    }

    fn sleep(&mut self, asked: Micros, due: Option<Micros>) -> anyhow::Result<Ready> {
        let now = if self.manner.busy_poll > 0 { clock::now() } else { asked };
        let timeout = clock::until(due, now);
        self.queue
            .wait(&self.lines.waker, timeout)
            .context("waiting for packets")
    }

    /// To be called after every rest: time that was slept past the engine's deadline does not count (see [`Pacer`]).
    fn note_stall(&mut self) -> bool {
        let deadline = self.engine.next_deadline();
        self.pacer.woke(deadline, clock::now()).is_some()
    }

    /// The work that no verdict waits for; then what the engine noticed goes to the coordinator.
    fn catch_up(&mut self) {
        let start = clock::nanos();
        let now = clock::micros(start);
        self.engine
            .poll_part(self.pacer.engine_time(now), &mut self.outbox, PART);
        if self.flush() {
            self.times.deferred.note(clock::nanos().saturating_sub(start));
        }
        self.report_commands();
        let mut noticed = false;
        while let Some(event) = self.engine.take_event() {
            // What is proof by itself is followed by an order at once.
            if let Event::Suspect {
                reason: Reason::Hang, ..
            } = event
            {
                self.look_out();
            }
            self.tell(Notice::Event { at: now, event });
            noticed = true;
        }
        if noticed {
            self.lines.coordinator.wake();
        }
        if self.engine.give_back() {
            memory::trim();
        }
    }

    /// An order is likely to come soon. In a real-time class a thread that looks out lets nobody in, and so it sleeps.
    fn look_out(&mut self) {
        if !self.manner.plan.is_realtime() {
            self.order_by = clock::now().saturating_add(LOOKOUT);
        }
    }

    /// Leaves a notice for the coordinator, and never waits for it.
    fn tell(&mut self, notice: Notice) {
        if self.lines.notices.try_send(notice).is_err() {
            self.notices_lost += 1;
        }
    }

    /// Sends what is in the outbox; returns whether there was anything.
    fn flush(&mut self) -> bool {
        let any = !self.outbox.is_empty();
        if any {
            self.injector.send(&self.outbox);
            self.outbox.clear();
            if self.engine.spec().super_packets && !self.injector.cuts() {
                warn!(
                    "queue {}: the device for super-packets is down or gone; going on with single segments",
                    self.queue_number
                );
                self.engine.stop_super_packets();
            }
        }
        any
    }
}
