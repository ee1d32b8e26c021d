//! What goes out now: first what has to be sent again, then what is new, as far as the windows allow.

use super::super::pos::Pos;
use super::super::spec::Micros;
use super::Sender;
use crate::mutant::{self, Mutation};

/// What should go out now: one segment, or a run of new ones that the host is to cut (a super-packet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Position of its first byte (or of the FIN).
    pub from: Pos,
    /// Payload bytes; more than a segment's only as far as [`Supply::most`] allows.
    pub len: Pos,
    /// It ends with the FIN.
    pub fin: bool,
    /// It has been sent before.
    pub again: bool,
}

/// What there is to send.
#[derive(Clone, Copy, Debug)]
pub struct Supply {
    /// End of what may be sent now, the FIN counted.
    pub end: Pos,
    /// Position of the FIN, if the client has sent it.
    pub fin: Option<Pos>,
    /// The most payload bytes that one [`Plan`] may have where more than one segment may go out; 0 if each goes by itself.
    pub most: Pos,
}

impl Sender {
    /// The next segment that should go out now, if any: call until `None`.
    pub fn next_segment(&mut self, now: Micros, supply: Supply) -> Option<Plan> {
        let plan = self
            .due_hole(supply)
            .or_else(|| self.due_tail(supply))
            .or_else(|| self.due_next(now, supply))?;
        self.note_run(plan);
        self.arm(now);
        Some(plan)
    }

    /// The next hole, in recovery.
    fn due_hole(&mut self, supply: Supply) -> Option<Plan> {
        let flight = self.flight.awake()?;
        if !std::mem::take(&mut flight.hole_due) || flight.recover.is_none() {
            return None;
        }
        let from = flight.sacked.skip(flight.high_rxt.max(self.una));
        let sent = self.max.min(supply.end);
        let limit = flight.sacked.highest().unwrap_or(self.una + 1).min(sent);
        if from < limit || (from == self.una && from < sent) {
            let end = self.hole_end(from, supply);
            self.flight.wake().high_rxt = end;
            return Some(self.plan(from, end, supply));
        }
        None
    }

    /// The last segment, as a probe.
    fn due_tail(&mut self, supply: Supply) -> Option<Plan> {
        if !std::mem::take(&mut self.flight.awake()?.tail_due) {
            return None;
        }
        let end = self.max.min(supply.end);
        let from = (end - self.mss()).max(self.una);
        (from < end).then(|| self.plan(from, end, supply))
    }

    /// What follows: new, or once more after a timeout.
    fn due_next(&mut self, now: Micros, supply: Supply) -> Option<Plan> {
        if self.nxt < self.max {
            self.nxt = self.flight.sacked.skip(self.nxt);
        }
        let from = self.nxt;
        let usable = self.edge.min(supply.end);
        if from >= usable {
            return None;
        }
        let mut end = (from + self.mss()).min(usable);
        if from < self.max {
            end = self.hole_end(from, supply).min(usable);
        }
        let in_flight = self.outstanding();
        // RFC 9293 section 3.8.6.2.1, sender's silly window avoidance: a small segment only if it is all there is.
        let cut_by_window = end - from < self.mss() && end < supply.end && from >= self.max;
        let too_much = !self.congestion.allows(in_flight + (end - from));
        if in_flight > 0 && (too_much || cut_by_window) {
            return None;
        }
        if from >= self.max {
            end = self.run_end(from, end, usable, supply);
        }
        let plan = self.plan(from, end, supply);
        let flight = self.flight.wake();
        if plan.again {
            flight.timed = None;
        } else if flight.timed.is_none() {
            flight.timed = Some((end, now));
        }
        self.nxt = end;
        self.max = self.max.max(end);
        Some(plan)
    }

    fn hole_end(&self, from: Pos, supply: Supply) -> Pos {
        let end = (from + self.mss()).min(self.max).min(supply.end);
        self.flight.sacked.next_start(from).map_or(end, |start| end.min(start))
    }

    /// The end of all that may go out after a first new segment `[from, end)`: each further one by the rules that it would be sent by alone.
    fn run_end(&self, from: Pos, mut end: Pos, usable: Pos, supply: Supply) -> Pos {
        let in_flight = self.outstanding();
        let usable = if mutant::is(Mutation::SuperPacketPastWindow) {
            supply.end
        } else {
            usable
        };
        loop {
            let next = (end + self.mss()).min(usable);
            let cut_by_window = next - end < self.mss() && next < supply.end;
            let too_much = next - from > supply.most || !self.congestion.allows(in_flight + (next - from));
            if next == end || (end - from) % self.mss() != 0 || cut_by_window || too_much {
                return end;
            }
            end = next;
        }
    }

    fn plan(&self, from: Pos, end: Pos, supply: Supply) -> Plan {
        let fin = supply.fin.is_some_and(|fin| from <= fin && fin < end);
        Plan {
            from,
            len: (end - from - Pos::from(fin) - Pos::from(fin && mutant::is(Mutation::FinEarly))).max(0),
            fin,
            again: from < self.max,
        }
    }
}
