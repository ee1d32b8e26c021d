//! The sender while somebody else sends: the client's own packets are forwarded, and it only keeps count, so that it can go on where they
//! left off (R12).

use super::super::pos::Pos;
use super::super::spec::Micros;
use super::Sender;

impl Sender {
    /// Somebody else (the forwarded client) has sent up to `end`: only follow.
    pub fn follow_sent(&mut self, now: Micros, from: Pos, end: Pos) {
        if end > self.max {
            if self.flight.timed.is_none() && from >= self.max {
                self.flight.wake().timed = Some((end, now));
            }
            self.max = end;
            self.nxt = end;
        } else if end > from {
            // Karn: what was sent twice is no measure.
            self.measure_no_more();
        }
    }

    /// An acknowledgement for somebody else's segments: only follow. Returns whether it advanced.
    pub fn follow_ack(&mut self, now: Micros, ack: Pos, edge: Pos) -> bool {
        let advanced = self.advance_una(now, ack);
        self.edge = self.edge.max(edge);
        self.stop_timer();
        advanced
    }

    /// The sender's own work begins where a forwarded client left off (R12).
    pub fn take_over(&mut self, now: Micros) {
        self.measure_no_more();
        self.arm(now);
    }

    /// The forwarded client sends from here on.
    pub fn hand_back(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timer = None;
            flight.hole_due = false;
            flight.tail_due = false;
            flight.recover = None;
        }
    }

    fn measure_no_more(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timed = None;
        }
    }
}
