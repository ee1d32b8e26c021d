//! What the coordinator orders, and the replies.

use std::sync::mpsc::TryRecvError;

use super::{Order, PART, Reply, Sent, Worker, WorkerStatus};
use crate::engine::Outcome;
use crate::host::clock;
use crate::host::queue::{PacketQueue, QUEUE_LENGTH};
use crate::host::schedule::held;

impl<Q: PacketQueue> Worker<Q> {
    /// Carries out all orders; returns whether to go on.
    pub(super) fn take_orders(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.lines.orders.try_recv() {
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => return Ok(true),
                Ok(order) => self.carry_out(order)?,
            }
        }
    }

    pub(super) fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        let now = self.pacer.engine_time(clock::now());
        let reply = match order {
            Order::Stop => return Ok(()),
            Order::Probe(probe) => {
                self.engine.probe(probe, &mut self.outbox);
                self.flush();
                return Ok(());
            }
            Order::Drain(number) => {
                self.take_packets(QUEUE_LENGTH as usize, usize::MAX)?;
                // A machine is judged by what has been taken.
                self.look_out();
                let now = clock::now();
                Reply::Done(number, Outcome::default(), Sent { first: now, last: now })
            }
            Order::Command(number, command) => {
                self.order_by = 0;
                let outcome = self.engine.command(now, command);
                // The first packet does not wait for the others of a part. Timers do: packets that have arrived come before them.
                let mut turns = 0..PART;
                while self.outbox.is_empty() && turns.next().is_some() {
                    self.engine.work_part(now, &mut self.outbox, 1);
                }
                self.flush();
                self.under_way.push((number, outcome, clock::now()));
                self.report_commands();
                return Ok(());
            }
            Order::Status(number) => Reply::Status(number, Box::new(self.status())),
        };
        // The coordinator is gone only when the process is about to be.
        let _ = self.lines.replies.send(reply);
        self.lines.coordinator.wake();
        Ok(())
    }

    /// Replies to the commands whose packets are all out.
    pub(super) fn report_commands(&mut self) {
        if self.under_way.is_empty() || self.engine.is_behind() {
            return;
        }
        let last = clock::now();
        for (number, outcome, first) in self.under_way.drain(..) {
            // The coordinator is gone only when the process is about to be.
            let _ = self
                .lines
                .replies
                .send(Reply::Done(number, outcome, Sent { first, last }));
        }
        self.lines.coordinator.wake();
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            queue: self.queue_number,
            shard: self.engine.status(),
            queue_counters: self.queue.counters(),
            inject: *self.injector.counters(),
            stalled: self.pacer.stalled(),
            notices_lost: self.notices_lost,
            held: held(),
            busy_polls: self.busy_polls,
            times: self.times.report(),
        }
    }
}
