//! What a machine's acknowledgements say: what has arrived (RFC 9293), what has arrived out of order (RFC 2018), and what is lost
//! (RFC 5681, RFC 6582).

use super::super::pos::Pos;
use super::super::spec::Micros;
use super::Sender;
use super::timers::Timer;

/// RFC 5681 section 3.2: duplicate acknowledgements that mean a loss.
const DUP_THRESHOLD: u32 = 3;

impl Sender {
    /// An acknowledgement by the machine. `repeats` says that the segment could be a duplicate acknowledgement: no payload, no
    /// SYN or FIN (RFC 5681 section 2). Blocks are what it acknowledges selectively. Returns whether `una` or the edge advanced.
    pub fn on_ack(
        &mut self,
        now: Micros,
        ack: Pos,
        edge: Pos,
        blocks: impl Iterator<Item = (Pos, Pos)>,
        repeats: bool,
    ) -> bool {
        let moved_edge = edge > self.edge;
        self.edge = self.edge.max(edge);
        for (from, to) in blocks {
            if from >= self.una.max(ack) && to <= self.max {
                self.flight.wake().sacked.insert(from, to);
            }
        }
        let before = self.una;
        if self.advance_una(now, ack) {
            self.on_progress(now, ack - before);
        } else if repeats && ack == self.una && self.una < self.max && !moved_edge {
            self.on_duplicate();
        }
        if moved_edge && matches!(self.flight.timer, Some(Timer::Persist(_))) {
            self.stop_timer();
            // The waits between window probes say nothing of the way to the machine.
            self.rtt.reset_backoff();
        }
        ack > before || moved_edge
    }

    /// All below `ack` has arrived; returns whether that is news. What else follows from it depends on who sends.
    pub(super) fn advance_una(&mut self, now: Micros, ack: Pos) -> bool {
        if ack <= self.una {
            return false;
        }
        self.una = ack;
        self.nxt = self.nxt.max(ack);
        self.max = self.max.max(ack);
        if let Some(flight) = self.flight.awake() {
            flight.sacked.trim(ack);
            if let Some((end, sent_at)) = flight.timed
                && ack >= end
            {
                self.rtt.sample(now.saturating_sub(sent_at));
                flight.timed = None;
            }
        }
        self.rtt.reset_backoff();
        true
    }

    fn on_progress(&mut self, now: Micros, acked: Pos) {
        let (una, mss) = (self.una, self.mss());
        let flight = self.flight.wake();
        flight.tail_probed = false;
        flight.dup_acks = 0;
        flight.timer = None;
        flight.note_arrival(una);
        match flight.recover {
            // RFC 6582 section 3.2: a full acknowledgement ends recovery ...
            Some(recover) if una >= recover => {
                flight.recover = None;
                self.congestion.recovered(self.outstanding(), mss);
            }
            // ... a partial one means that the next hole is lost, too.
            Some(_) => {
                flight.high_rxt = flight.high_rxt.max(una);
                flight.hole_due = true;
            }
            None => self.congestion.grow(acked, mss),
        }
        self.arm(now);
    }

    fn on_duplicate(&mut self) {
        let (una, max, mss) = (self.una, self.max, self.mss());
        let flight = self.flight.wake();
        flight.dup_acks = flight.dup_acks.saturating_add(1);
        let lost = flight.dup_acks >= DUP_THRESHOLD || flight.sacked.total() >= Pos::from(DUP_THRESHOLD) * mss;
        match flight.recover {
            Some(_) => flight.hole_due |= !flight.sacked.is_empty(),
            None if lost && una >= flight.timed_out_at => {
                self.congestion.halve(self.outstanding(), mss);
                let flight = self.flight.wake();
                flight.recover = Some(max);
                flight.high_rxt = una;
                flight.hole_due = true;
                flight.timed = None;
            }
            None => {}
        }
    }

    /// Bytes that are under way, as far as the acknowledgements tell.
    pub(super) fn outstanding(&self) -> Pos {
        let flight = &self.flight;
        let left_the_network = if flight.sacked.is_empty() {
            // RFC 5681 section 3.2: each duplicate acknowledgement means that a segment has left the network.
            Pos::from(flight.recover.map_or(0, |_| flight.dup_acks)) * self.mss()
        } else {
            flight.sacked.total()
        };
        (self.nxt - self.una - left_the_network).max(0)
    }
}
