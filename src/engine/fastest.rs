//! R16, `original = "fastest"`: the client hears each byte from whichever machine says it first.
//!
//! The original's leg still carries the client's packets on their way (directly, while nobody is ahead of it), and still acknowledges as R4
//! says. In the other direction any open, eligible leg may speak:
//!
//! - bytes that the client was not sent yet pass, whoever says them; the leg that said the last ones is the *lead*;
//! - what another has said before is dropped, and answered by the ghost client (R7), also the original's;
//! - every machine keeps what the client has not acknowledged; so what is lost on the way to the client is said again by the lead and by
//!   the original, both pass, and of nobody else: twice at most;
//! - a FIN passes from a machine that is not the original once another machine has said it at the same place (R11);
//! - pure acknowledgements and resets are the original's matter as ever.
//!
//! An original that was beaten is fed by the engine as a replica is, from the send buffer and by R23, until it is level again.

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::from_machine::Segment;
use super::leg::{Leg, LegState, Mode};
use super::pos::Pos;
use super::spec::{Micros, Original};
use super::{Checksum, DropReason, Verdict};
use crate::mutant::{self, Mutation};
use crate::wire::{Flags, Parsed};

impl Flow {
    fn races(&self, cx: &Context) -> bool {
        cx.service(self.service).original == Original::Fastest && self.state == FlowState::Open && !self.client.has_left
    }

    /// A segment of leg `index`, which is not the original's and had said `sent` before: its verdict, if the client is to hear it.
    #[expect(clippy::too_many_arguments, reason = "a packet, its place, and whose it is")]
    pub fn speak_first(
        &mut self,
        cx: &Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        sent: Pos,
        seg: Segment,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Option<Verdict> {
        let leg = &self.legs[index];
        let fit = leg.is_open() && (leg.eligible || mutant::is(Mutation::IneligibleSpeaks));
        // RFC 9293 section 3.8.4: beyond its FIN there is only the garbage byte of a keep-alive.
        let garbage = !p.flags.contains(Flags::FIN) && leg.fin.is_some_and(|at| seg.end > at);
        if !fit || garbage || !self.races(cx) {
            return None;
        }
        // Once it was confirmed it stands, whatever has become of whoever confirmed it.
        let fin = p.flags.contains(Flags::FIN) && (self.fin == Some(seg.end - 1) || self.confirms_end(index));
        let end = seg.end - Pos::from(p.flags.contains(Flags::FIN) && !fin);
        let new = seg.v <= self.client.sent && self.client.sent < end;
        let known = end <= sent.min(self.client.sent);
        let again = known && self.lead == leg.machine && seg.v < end && self.client.acked < end;
        if !(new || again) {
            return None;
        }
        if new {
            self.lead = leg.machine;
            if fin {
                self.note_fin(end - 1);
            }
            self.beat_original(now, end);
        }
        let offer = self.offer(cx);
        Some(self.on_to_client(cx, checksum, index, Segment { end, ..seg }, offer, p, bytes))
    }

    /// R11: somebody else has ended the conversation at the same place.
    fn confirms_end(&self, index: usize) -> bool {
        let fin = self.legs[index].fin;
        let agrees = |leg: &Leg| leg.state != LegState::Gone && leg.eligible && leg.fin == fin;
        self.legs.iter().enumerate().any(|(i, leg)| i != index && agrees(leg))
    }

    /// Another machine has said up to `end`. The client's next packets would tell the original of bytes that it has not sent, and ask what it
    /// is not ready for (R23): the engine speaks to it until it is level.
    fn beat_original(&mut self, now: Micros, end: Pos) {
        let given = self.client.sent;
        let leg = self.original_mut();
        if leg.mode == Mode::Direct && leg.is_open() && leg.sent < end && !mutant::is(Mutation::BeatenStaysDirect) {
            leg.relay(now, given);
        }
    }

    /// Why the segment goes no further, if the original, which had said `sent` before, says for the first time what the client has had from
    /// another machine; the ghost client answers it (R7).
    pub fn absorb_late(&mut self, cx: &Context, sent: Pos, seg: Segment) -> Option<DropReason> {
        if !self.races(cx) || seg.end > self.client.sent {
            return None;
        }
        if seg.v == seg.end {
            // Its number is behind what the client has had: no receiver would accept it. What it acknowledges the engine says (R6).
            return (seg.v < self.client.sent).then_some(DropReason::NoNews);
        }
        // If it was said by a machine that is gone, and was lost on the way, nobody else says it again.
        let led = self.leg_of(self.lead).is_some_and(|i| self.legs[i].is_open());
        let first_time = seg.end > sent && led;
        self.original_mut().ack_due |= first_time;
        first_time.then_some(DropReason::Replica)
    }

    /// A duplicate acknowledgement of the client is news of a loss (RFC 5681); the lead, if it is not the original, can mend it, too.
    pub fn wake_lead(&mut self, v: Pos) {
        if self.lead == self.original().machine {
            return;
        }
        if let Some(index) = self.leg_of(self.lead) {
            self.legs[index].pass_duplicate(v);
        }
    }
}
