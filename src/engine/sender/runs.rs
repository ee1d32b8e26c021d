//! Whether super-packets arrive: one of them is watched at a time, by its first byte.

use super::super::pos::Pos;
use super::flight::Flight;
use super::{Plan, Sender};

impl Sender {
    /// Takes note of a super-packet's beginning: that it goes out, and whether it has to be sent again.
    pub(super) fn note_run(&mut self, plan: Plan) {
        let (mss, flight) = (self.mss(), self.flight.wake());
        match &mut flight.run {
            Some((run, again)) => *again |= plan.again && (plan.from..plan.from + plan.len).contains(run),
            run if !plan.again && plan.len > mss => *run = Some((plan.from, false)),
            None => {}
        }
    }

    /// Whether a super-packet has arrived, or its beginning only when it was sent again, since this was last asked. Where nothing arrives at
    /// all, that says nothing of super-packets.
    pub fn take_run_news(&mut self) -> Option<bool> {
        self.flight.awake().and_then(|flight| flight.run_news.take())
    }
}

impl Flight {
    /// All below `una` has arrived.
    pub(super) fn note_arrival(&mut self, una: Pos) {
        if let Some((_, again)) = self.run.filter(|(run, _)| una > *run) {
            (self.run, self.run_news) = (None, Some(!again));
        }
    }
}
