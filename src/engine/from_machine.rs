//! What machines send: the original's packets on their way to the client, the replicas' into the ghost client (R7).

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::from_client::CHALLENGE_INTERVAL;
use super::gate::Offer;
use super::leg::{LegState, Mode};
use super::pos::{Pos, pos_of};
use super::spec::Micros;
use super::{Checksum, Counter, DropReason, Verdict};
use crate::mutant::{self, Mutation};
use crate::wire::{Editor, Flags, Parsed, SackBlocks};

/// A machine's segment on the flow's number lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) v: Pos,
    /// What is not to reach the client of its end, a FIN, is taken off here.
    pub(super) end: Pos,
    pub(super) u: Pos,
    pub(super) edge: Pos,
    /// Nothing in it but an acknowledgement, and it could repeat the last one (RFC 5681 section 2).
    pub(super) pure: bool,
}

impl Flow {
    /// A packet of the machine whose leg is `index`.
    pub fn hear_machine(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        self.seen_at = now;
        let is_original = index == self.original;
        match self.legs[index].state {
            // R13: whoever lost this flow is told so when it speaks, and the client never hears of it.
            LegState::Gone if mutant::is(Mutation::FenceOpen) && self.state == FlowState::Open => {
                self.open_machine(cx, now, checksum, self.original, p, bytes)
            }
            LegState::Gone => {
                cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
                Verdict::Drop(DropReason::Fenced)
            }
            // A FIN again: our last acknowledgement was lost.
            LegState::Finished => {
                self.legs[index].ack_due |= p.seq_len() > 0 && !p.flags.contains(Flags::RST);
                Verdict::Drop(DropReason::Replica)
            }
            LegState::SynSent if is_original => self.original_answers(cx, now, checksum, p, bytes),
            LegState::SynSent => self.replica_answers(cx, now, index, p),
            LegState::Open => self.open_machine(cx, now, checksum, index, p, bytes),
        }
    }

    fn open_machine(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        if p.flags.contains(Flags::RST) {
            return self.machine_resets(cx, now, checksum, index, p, bytes);
        }
        if p.flags.contains(Flags::SYN) {
            return self.syn_ack_again(cx, now, checksum, index, p, bytes);
        }
        let cut = self.cut_to_client(checksum, index, p, bytes);
        self.take_segment(cx, now, checksum, index, cut.as_ref().unwrap_or(p), bytes)
    }

    fn take_segment(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let Some(seg) = self.plausible(index, p) else {
            let leg = &mut self.legs[index];
            let rested = leg.waits.challenged_at.is_none_or(|at| now >= at + CHALLENGE_INTERVAL);
            if rested && leg.mode == Mode::Relayed {
                leg.waits.wake().challenged_at = Some(now);
                leg.ack_due = true;
            }
            return Verdict::Drop(DropReason::Implausible);
        };
        // After a reset, or when it has begun anew (R21), the client hears nothing more, whoever is still played to the end (R24).
        if index == self.original && !self.client.has_left && !matches!(self.state, FlowState::Reset { .. }) {
            self.hear_original(cx, now, checksum, seg, p, bytes)
        } else {
            let sent = self.legs[index].sent;
            self.hear_replica(cx, now, index, seg, p, bytes);
            if let Some(verdict) = self.speak_first(cx, now, checksum, index, sent, seg, p, bytes) {
                return verdict;
            }
            if mutant::is(Mutation::ReplicaSpeaks) && seg.end > seg.v {
                let offer = self.offer(cx);
                return self.on_to_client(cx, checksum, self.original, seg, offer, p, bytes);
            }
            Verdict::Drop(DropReason::Replica)
        }
    }

    /// R22: the segment's place on the number lines, or `None` if no honest machine could have sent it.
    fn plausible(&self, index: usize, p: &Parsed) -> Option<Segment> {
        let leg = &self.legs[index];
        let v = leg.v_of(p.seq);
        let end = v + Pos::from(p.seq_len());
        let u = pos_of(leg.acked(), self.client.isn, p.ack);
        // A window probe of the old kind lies one byte beyond (RFC 9293 section 3.8.6.1); a client that rounds its window down to the unit of
        // its scale may have told an edge less than a unit higher (RFC 7323 section 2.4).
        let slack = 1i64 << self.client_shift();
        let fits = p.flags.contains(Flags::ACK)
            && u <= leg.sender.max().max(1)
            && u >= 1.max(leg.acked() - (1 << 30))
            && end <= self.client.edge + slack
            && v >= 0.max(leg.sent - (1 << 30))
            && leg.fin.is_none_or(|fin| end <= fin + 1);
        let edge = u + (Pos::from(p.window) << leg.window_shift);
        fits.then_some(Segment {
            v,
            end,
            u,
            edge,
            // Also one beyond a hole, whose data was lost on the way here: to the client it is a duplicate all the same.
            pure: v == end && v >= leg.sent,
        })
    }

    fn note_output(&mut self, now: Micros, index: usize, seg: Segment, p: &Parsed) {
        let leg = &mut self.legs[index];
        // R15: what it lacks is its own output (R23), and that grows.
        if leg.trails && leg.waits.blocked_since.is_some() && seg.end > leg.sent {
            leg.progress_at = now;
        }
        leg.sent = leg.sent.max(seg.end);
        if p.flags.contains(Flags::FIN) {
            leg.fin = Some(seg.end - 1);
        }
        if let Some(ts) = p.options.timestamps {
            leg.note_ts(ts.val);
        }
        // Words that end there are no FIN.
        if let Some(fin) = self.fin.filter(|_| seg.v == seg.end || p.flags.contains(Flags::FIN)) {
            self.note_fin(fin);
        }
    }

    /// Takes in an acknowledgement; returns whether the machine merely repeated itself.
    fn note_ack(&mut self, now: Micros, index: usize, seg: Segment, p: &Parsed) -> bool {
        let isn = self.client.isn;
        let blocks = p.options.sack;
        let leg = &mut self.legs[index];
        let (before, edge_before) = (leg.acked(), leg.sender.edge());
        let last_window = std::mem::replace(&mut leg.last_window, p.window);
        let advanced = if leg.mode == Mode::Direct {
            leg.sender.follow_ack(now, seg.u, seg.edge)
        } else {
            let blocks = blocks
                .as_slice()
                .iter()
                .map(|(l, r)| (pos_of(before, isn, *l), pos_of(before, isn, *r)));
            leg.sender.on_ack(now, seg.u, seg.edge, blocks, seg.pure)
        };
        if leg.mode == Mode::Relayed {
            leg.sender.on_sign_of_life(now);
        }
        leg.largest_window = leg.largest_window.max(seg.edge - seg.u);
        if advanced || seg.edge > edge_before {
            leg.progress_at = now;
        }
        // RFC 5681 section 2: with the window that it told last. One that was overtaken, its window lower than one that is known, repeats nothing.
        let same_window = seg.edge == edge_before || (seg.edge < edge_before && p.window == last_window);
        seg.u == before && same_window
    }

    fn hear_original(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        seg: Segment,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let sent = self.original().sent;
        self.note_output(now, self.original, seg, p);
        let repeats = self.note_ack(now, self.original, seg, p);
        if !self.reaches(self.original()) && !self.is_votable(cx) {
            // R16: others have said more, and nobody votes on that.
            self.replace_original(cx, now);
            return Verdict::Drop(DropReason::Replica);
        }
        self.behind_since = None;
        // An answer to a window probe; a machine that sends data meanwhile says its window a thousand times.
        if seg.pure && cx.service(self.service).detect.hang.is_some() {
            self.ask_who_reads();
        }
        if seg.end > sent && p.payload_len() > 0 {
            cx.note_word(self.service, self.original().machine);
        }
        if self.blocks.is_awake() || !p.options.sack.is_empty() {
            *self.blocks.wake() = p.options.sack;
        }
        let answers = seg.pure && self.is_answer(cx, now);
        let held = self.hears_fin(cx, now, p.flags.contains(Flags::FIN));
        let repeats = repeats && seg.pure && !answers;
        let seg = if held { self.without_fin(seg) } else { seg };
        if let Some(reason) = self.absorb_late(cx, sent, seg) {
            return Verdict::Drop(reason);
        }
        self.note_given(cx, seg.v, p.payload(bytes));
        let offer = self.offer(cx);
        // R6: a pure acknowledgement that says nothing new would count as a duplicate.
        if seg.pure && !self.is_news(offer, seg.u, repeats) {
            return Verdict::Drop(if held { DropReason::Held } else { DropReason::NoNews });
        }
        // A recovering original says again what the client has long had: the ghost answers (R7), for the client's answer is not
        // passed on to it.
        if self.original().mode == Mode::Relayed && seg.end > seg.v && seg.v < self.client.acked {
            self.original_mut().ack_due = true;
            if seg.end <= self.client.acked {
                return Verdict::Drop(DropReason::Relayed);
            }
        }
        if seg.end > self.client.sent {
            self.lead = self.original().machine;
        }
        self.on_to_client(cx, checksum, self.original, seg, offer, p, bytes)
    }

    /// R11: a segment as it was before the original's FIN, which is held: with the number after it an acknowledgement would tell of it.
    fn without_fin(&self, seg: Segment) -> Segment {
        let fin = self.original().fin.unwrap_or(seg.end);
        let (v, end) = (seg.v.min(fin), seg.end.min(fin));
        Segment {
            v,
            end,
            pure: v == end,
            ..seg
        }
    }

    /// A segment of leg `index` as the client gets it.
    #[expect(clippy::too_many_arguments, reason = "a packet, its place, and whose it is")]
    pub(super) fn on_to_client(
        &mut self,
        cx: &Context,
        checksum: Checksum,
        index: usize,
        seg: Segment,
        offer: Offer,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let window = self.note_offer(offer);
        // An empty segment gives the client nothing: what stands before it may be lost on the way here, be it a FIN.
        if seg.end > seg.v {
            self.client.sent = self.client.sent.max(seg.end);
        }
        let mut ed = Editor::new(bytes, p);
        ed.set_src(cx.service(self.service).psc);
        ed.set_dst(self.client.addr);
        if !mutant::is(Mutation::SeqUntranslated) {
            ed.set_seq(self.promised_seq(seg.v));
        }
        ed.set_ack(self.client_seq(offer.ack));
        ed.set_window(window);
        // R11: nor where the end has not been confirmed.
        if seg.v + Pos::from(p.seq_len()) > seg.end || self.fin.is_none_or(|fin| seg.end <= fin) {
            ed.set_flags(p.flags.without(Flags::FIN));
        }
        if let Some(mut ts) = p.options.timestamps {
            ts.val = self.ts_to_client(index, ts.val);
            self.note_echo(ts.ecr);
            ed.set_timestamps(ts);
        }
        if index == self.original {
            self.clip_blocks(&mut ed, p, seg.u, offer.ack);
        } else {
            // R8: they are about another acknowledgement than the client is given here.
            ed.map_sack(|_, _| None);
        }
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// A SYN/ACK on an open leg: the third packet was lost.
    fn syn_ack_again(
        &mut self,
        cx: &Context,
        now: Micros,
        checksum: Checksum,
        index: usize,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let leg = &mut self.legs[index];
        // R22: it acknowledges the SYN, and nothing else: whatever it says beyond would reach the client as it stands.
        let acks_syn = p.flags.contains(Flags::ACK) && p.ack == self.client.isn.add(1);
        if !acks_syn || p.seq != leg.isn {
            return Verdict::Drop(DropReason::Implausible);
        }
        if index == self.original && !self.client.has_left && leg.mode == Mode::Direct && p.seq == self.promise.isn {
            return self.repeat_syn_ack(cx, checksum, p, bytes);
        }
        if index == self.original && self.state == FlowState::Open && self.buffer.base() <= leg.acked() {
            // It took over before the client had proved itself, and lost the packet that did. The client has had another machine's SYN/ACK, and
            // need not say anything again: the engine does. What it has said that was not kept, for want of replicas, it will say again by
            // itself.
            leg.relay(now, self.client.sent);
        }
        leg.ack_due = true;
        leg.sender.on_sign_of_life(now);
        // It waits for a client that has not answered: the client may not have heard, and may wait for the machine's first word.
        self.client.syn_ack_due |= index == self.original && self.state == FlowState::SynReceived;
        Verdict::Drop(DropReason::Replica)
    }

    fn replica_answers(&mut self, cx: &mut Context, now: Micros, index: usize, p: &Parsed) -> Verdict {
        let u = pos_of(1, self.client.isn, p.ack);
        let acks_syn = p.flags.contains(Flags::ACK) && u == 1;
        if p.flags.contains(Flags::RST) {
            if acks_syn {
                self.note_refusal(cx, index);
                self.drop_leg(index, &mut cx.budget);
                return Verdict::Drop(DropReason::Replica);
            }
            return Verdict::Drop(DropReason::MisplacedReset);
        }
        if p.flags.contains(Flags::SYN) && acks_syn {
            self.open_replica(cx, now, index, p);
            self.overtake_silent_heir(cx, now, index);
            return Verdict::Drop(DropReason::Replica);
        }
        if p.flags.contains(Flags::ACK) {
            self.clear_stale(cx, index, p);
        }
        Verdict::Drop(DropReason::Replica)
    }

    /// R7, R9: a replica's output is kept for a takeover and acknowledged as far as the client has acknowledged the original's.
    fn hear_replica(&mut self, cx: &mut Context, now: Micros, index: usize, seg: Segment, p: &Parsed, bytes: &[u8]) {
        let repeated = seg.end > seg.v && seg.end <= self.legs[index].sent;
        let asks = repeated || (seg.v == seg.end && seg.v < self.legs[index].sent);
        self.note_output(now, index, seg, p);
        self.note_ack(now, index, seg, p);
        if self.legs[index].trails {
            // If it speaks first, the client is told what it can take, too.
            let measure = self.measure(cx);
            self.end_trailing(cx, &measure, index);
        }
        if let Some(ts) = p.options.timestamps {
            self.note_echo(ts.ecr);
        }
        let acked = self.client.acked;
        let keeps = self.keeps_output(cx, index, (seg.v, seg.end), p.payload_len());
        let floor = self.cache_floor(index, acked);
        let limit = cx.spec.limits.flow_buffer;
        let leg = &mut self.legs[index];
        leg.ack_due |= asks;
        leg.cache.advance(floor);
        if keeps && !leg.cache.store(seg.v, p.payload(bytes), limit, &mut cx.budget) {
            cx.stats.count(Counter::CacheSkipped);
        }
    }

    /// The blocks to be repeated with an acknowledgement `ack` of the engine's own making: what the original holds beyond it.
    #[must_use]
    pub fn blocks_above(&self, ack: Pos) -> SackBlocks {
        let mut kept = SackBlocks::default();
        if self.promise.sack && self.original().mode == Mode::Direct && self.original().acked() == ack {
            let seq = self.client_seq(ack);
            for (left, right) in self.blocks.as_slice() {
                if left.gt(seq) {
                    kept.push(*left, *right);
                }
            }
        }
        kept
    }
}
