//! R23 as it can be seen from outside: no byte of the client's is sent to a machine that has said less than the client had read when it sent the
//! byte, but where the machine has long had all that it may be given, and says nothing more. Such a replica may take over no more.

use relevo::engine::Micros;

use super::{Cause, Observer};
use crate::books::{Leg, Violation, cause_of, ensure, place};
use crate::packet::{Packet, RST, SYN};

impl Observer {
    /// The engine has given up a wait, and says not whose: it may be that of any leg which has had all that it may be given, has said less than the client
    /// had read, and has long made no progress.
    pub fn note_released(&mut self, now: Micros) {
        let patience = self.patience_with_words();
        for flow in &mut self.flows {
            for leg in flow.legs.iter_mut().flatten() {
                let first = leg.acked as i64;
                let heard = leg.acked >= leg.told.sent || cause_of(&flow.pieces, first, first + 1) > leg.sent;
                let waits = leg.isn.is_some() && leg.sent < flow.acked;
                leg.may_be_fed |= waits && heard && now >= leg.moved_at + patience;
            }
        }
    }

    /// Judges what is about to be sent to machine `m`.
    pub(super) fn check_causality(&mut self, f: usize, m: usize, p: &Packet, cause: Cause) -> Result<(), Violation> {
        // A lone original's own traffic keeps causality by itself.
        let judged = self.fastest || cause == Cause::Engine;
        let flow = &mut self.flows[f];
        let Some(leg) = flow.legs[m].as_mut().filter(|_| judged && !p.has(SYN) && !p.has(RST)) else {
            return Ok(());
        };
        if leg.released || p.seq_len() == 0 || !is_early(&flow.pieces, flow.isn, flow.acked, leg, p) {
            return Ok(());
        }
        ensure!(
            leg.may_be_fed,
            "R23",
            "machine {m} is sent a byte before it has said what the client answers"
        );
        leg.released = true;
        Ok(())
    }

    /// How long a machine has at least for what it has yet to say. The engine gives a replica that trails more where its memory allows; an original,
    /// and who is fed when the conversation is over, have times of their own.
    fn patience_with_words(&self) -> Micros {
        let replica = self
            .max_lag
            .map_or(self.close_timeout, |_| self.replica_timeout / 4 * 3);
        replica.min(self.replica_timeout).min(self.close_timeout / 2)
    }
}

/// Whether a byte of it is news to the machine, and answers what that has not said.
fn is_early(pieces: &[(i64, i64, u64)], isn: u32, acked: u64, leg: &Leg, p: &Packet) -> bool {
    let start = place(p.seq, isn, leg.told.sent.max(leg.acked));
    let (start, end) = (start.max(leg.acked as i64), start + i64::from(p.seq_len()));
    // Looked up only where the answer matters: no byte needs more than the client has acknowledged by now.
    end > leg.acked as i64 && leg.sent < acked && leg.sent < cause_of(pieces, start, end)
}
