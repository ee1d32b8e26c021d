//! Taking packets off the queue: each gets its verdict at once, and between batches the engine's deferred work gets its turn.

use anyhow::Context;

use super::{Notice, Worker};
use crate::engine::{DropReason, Meta, Verdict};
use crate::host::clock;
use crate::host::queue::PacketQueue;

/// Packets taken before the engine's deferred work gets its turn.
const BATCH: usize = 32;

/// Bytes after which it gets its turn, too, so that what was taken goes on to the replicas while it is in the processor's nearest caches. Seen to
/// double an upload's rate with one replica where other programs want the same processors; on quiet ones it makes no difference.
const BATCH_BYTES: usize = 128 << 10;

/// What came out of the queue at a time.
pub struct Taken {
    pub packets: usize,
    /// It was stopped by its bytes.
    full: bool,
}

impl<Q: PacketQueue> Worker<Q> {
    /// The rest of a batch, with a turn for the engine's deferred work wherever it is full by bytes. Between these turns nobody is let in: on a busy
    /// processor that costs a time slice, and the machine that got a packet has been let in once.
    pub(super) fn take_batch(&mut self, overslept: bool) -> anyhow::Result<()> {
        // Whatever came while it slept comes before its timers.
        let room = if overslept { usize::MAX } else { BATCH_BYTES };
        let mut left = BATCH - 1;
        loop {
            let taken = self.take_packets(left, room)?;
            left -= taken.packets;
            if !taken.full || left == 0 {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// Takes up to `most` packets, and none after the one with which `bytes` are full. What may go on leaves at once; verdicts "drop" leave at the
    /// end at the latest.
    pub(super) fn take_packets(&mut self, most: usize, bytes: usize) -> anyhow::Result<Taken> {
        let (mut packets, mut taken_bytes) = (0, 0);
        for _ in 0..most {
            let Some(length) = self.take_packet()? else { break };
            packets += 1;
            taken_bytes += length;
            if taken_bytes >= bytes {
                break;
            }
        }
        self.queue.flush();
        Ok(Taken {
            packets,
            full: taken_bytes >= bytes,
        })
    }

    /// Takes one packet, and says who spoke. Returns its bytes (0 if it was lost on the way here), or `None` if there was nothing.
    fn take_packet(&mut self) -> anyhow::Result<Option<usize>> {
        let Self {
            queue,
            engine,
            pacer,
            times,
            ..
        } = self;
        let (mut length, mut arrived, mut spoke) = (0, None, None);
        let taken = queue.receive(&mut |meta, packet| {
            let start = clock::nanos();
            let now = clock::micros(start);
            length = packet.len();
            let time = pacer.engine_time(now);
            let behind = now.saturating_sub(time);
            let verdict = engine.handle_packet(time, Meta { behind, ..meta }, packet);
            times.engine.note(clock::nanos().saturating_sub(start));
            arrived = Some(start);
            let accepts = verdict != Verdict::Drop(DropReason::ProbeRefused);
            let answers = engine.probe_age().map(|age| (age, accepts));
            spoke = engine.heard().map(|machine| (now, machine, answers));
            verdict
        });
        if let Some(start) = arrived {
            times.verdict.note(clock::nanos().saturating_sub(start));
            self.last_packet = clock::micros(start);
        }
        if let Some((at, machine, answers)) = spoke {
            self.lines.heard.note(machine, at);
            if let Some((age, accepts)) = answers {
                self.tell(Notice::ProbeReply {
                    at,
                    sent: at.saturating_sub(age),
                    machine,
                    accepts,
                });
                self.lines.coordinator.wake();
            }
        }
        let taken = taken.context("receiving from the packet queue")?;
        Ok(taken.then_some(length))
    }
}
