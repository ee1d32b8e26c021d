//! R11: what becomes of a machine's RST, and of the connection that it is about.

use super::context::Context;
use super::flow::Flow;
use super::spec::Micros;
use super::{Checksum, Counter, DropReason, Verdict};
use crate::wire::{Editor, Flags, Parsed};

impl Flow {
    /// R11, RFC 5961 section 3.2: exact is the end of what the machine has sent, or the acknowledgement that it was last given (it
    /// answers a segment on a connection that it does not have).
    pub(super) fn machine_resets(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let leg = &self.legs[index];
        let v = leg.v_of(p.seq);
        if v != leg.sent && v != leg.told {
            return Verdict::Drop(DropReason::MisplacedReset);
        }
        if index != self.original || self.client.has_left {
            cx.stats.count(Counter::LegsRefused);
            self.note_reset(now, index);
            self.drop_leg(index, &mut cx.budget);
            return Verdict::Drop(DropReason::Replica);
        }
        if self.holds_reset(cx, now) {
            return Verdict::Drop(DropReason::Held);
        }
        if self.is_half_open() && self.has_heir(cx) {
            // It has forgotten the connection, or its service has gone, before the client had said a word: as if it had refused.
            self.note_refusal(cx, index);
            cx.stats.count(Counter::RefusalsMasked);
            self.replace_original(cx, now);
            return Verdict::Drop(DropReason::Held);
        }
        cx.stats.count(Counter::ResetsPassed);
        let offer = self.offer(cx);
        let seq = self.promised_seq(self.client.sent.max(v));
        let half_open = self.is_half_open();
        self.end_by_reset(cx, now);
        let mut ed = Editor::new(bytes, p);
        ed.set_src(cx.service(self.service).psc);
        ed.set_dst(self.client.addr);
        ed.set_seq(if half_open { p.seq } else { seq });
        if p.flags.contains(Flags::ACK) {
            ed.set_ack(self.client_seq(offer.ack));
        }
        ed.truncate_payload(0);
        if let Some(mut ts) = p.options.timestamps {
            ts.val = self.ts_to_client(self.original, ts.val);
            ed.set_timestamps(ts);
        }
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }
}
