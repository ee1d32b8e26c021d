//! The client's packets in an established flow: what they mean (R22), what is kept of them (R3), and how the original gets them.

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::Mode;
use super::pos::{Pos, ts_newer, ts_not_before};
use super::sendbuf::Piece;
use super::spec::{MILLISECOND, Micros};
use super::{Checksum, Counter, DropReason, Reason, Verdict};
use crate::wire::{Editor, Flags, Parsed};

/// The least time between two acknowledgements that answer impossible segments of one side.
pub const CHALLENGE_INTERVAL: Micros = 50 * MILLISECOND;

/// A client's segment on the flow's number lines.
#[derive(Clone, Copy, Debug)]
struct Segment {
    u: Pos,
    end: Pos,
    v: Pos,
    edge: Pos,
}

/// Where a segment lies (RFC 9293 section 3.4, RFC 5961 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Acceptable.
    Window,
    /// Wholly acknowledged before: it asks for an acknowledgement and says nothing else.
    Old,
    /// Beyond the window, or acknowledging what was never sent or is long past.
    Impossible,
}

impl Flow {
    /// A packet without SYN from the client, once it was given a SYN/ACK.
    pub fn hear_client(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        if let FlowState::Reset { .. } = self.state {
            cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
            return Verdict::Drop(DropReason::UnknownFlow);
        }
        if p.flags.contains(Flags::RST) {
            return self.client_resets(cx, now, checksum, p, bytes);
        }
        if !p.flags.contains(Flags::ACK) {
            return Verdict::Drop(DropReason::Implausible);
        }
        let cut = self.cut_to_promise(checksum, p, bytes);
        let p = cut.as_ref().unwrap_or(p);
        let u = self.u_of(p.seq);
        let v = self.v_of_ack(p.ack);
        let edge = v + (Pos::from(p.window) << self.client_shift());
        let seg = Segment {
            u,
            end: u + Pos::from(p.seq_len()),
            v,
            edge,
        };
        let place = if self.is_stale(p) {
            Place::Impossible
        } else {
            self.place(seg)
        };
        match place {
            // RFC 9293 section 3.10.7.4: an unacceptable segment is answered with an ACK and changes nothing.
            Place::Impossible => {
                self.challenge(now);
                return Verdict::Drop(DropReason::Implausible);
            }
            // A keep-alive (one byte below the window, RFC 9293 section 3.8.4) moves the machine's idea of the client's clock: what the
            // engine says after it must not seem older. A last segment that is sent again may bring the last acknowledgement: none may
            // follow it. Both are placed exactly; of what lies further below nothing is believed.
            Place::Old if seg.end + 1 >= self.client.ack_out => {
                if let Some(ts) = p.options.timestamps {
                    self.client.ts_latest = Some(ts_newer(self.client.ts_latest, ts.val));
                }
                self.take_ack(seg.v);
            }
            Place::Old => {}
            // An acknowledgement that was overtaken: with the number that the machine has been told since, it would count as a duplicate.
            Place::Window if seg.end == seg.u && seg.v < self.client.acked => return Verdict::Drop(DropReason::NoNews),
            Place::Window => {
                if let Err(reason) = self.take_in(cx, now, seg, p, bytes) {
                    return Verdict::Drop(reason);
                }
            }
        }
        self.seen_at = now;
        let verdict = self.on_to_original(cx, now, checksum, seg, p, bytes);
        if self.buffer.fin().is_some() {
            // With this packet the machine may be done, and may forget: a copy must not reach it, even one that comes before the next poll.
            self.finish_followers();
        }
        verdict
    }

    /// An acknowledgement for what can't be, at a limited rate (RFC 5961 section 7): two sides that both do so must not keep each other busy.
    pub fn challenge(&mut self, now: Micros) {
        let rested = self
            .client
            .challenged_at
            .is_none_or(|at| now >= at + CHALLENGE_INTERVAL);
        if rested && !self.is_half_open() {
            self.client.challenged_at = Some(now);
            self.client.ack_due = true;
        }
    }

    /// RFC 7323 section 5.3, R1: older than what the last segment in sequence showed. The engine stamps what it passes on with the
    /// client's latest clock, so it must look itself. A connection that was idle for 24 days is taken at its word (section 5.5).
    fn is_stale(&self, p: &Parsed) -> bool {
        match (self.client.ts_recent, p.options.timestamps) {
            (Some(recent), Some(ts)) => !ts_not_before(ts.val, recent),
            _ => false,
        }
    }

    fn place(&self, seg: Segment) -> Place {
        let c = &self.client;
        // RFC 5961 section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT
        if seg.v > c.sent || seg.v < c.acked - c.largest_window || (seg.v < 1) {
            return Place::Impossible;
        }
        // One byte more is a window probe of the old kind (RFC 9293 section 3.8.6.1); less than a unit of the scale is rounding (RFC 7323
        // section 2.4).
        let slack = 1 << self.promise.wscale.unwrap_or(0);
        let beyond_fin = self.buffer.fin().is_some_and(|fin| seg.end > fin + 1);
        if seg.u > c.edge_out + slack || seg.end > c.edge_out + slack || beyond_fin {
            return Place::Impossible;
        }
        let reaches = if seg.u == seg.end {
            seg.u >= c.ack_out
        } else {
            seg.end > c.ack_out
        };
        if reaches {
            Place::Window
        } else if seg.u >= c.ack_out - (1 << 30) {
            Place::Old
        } else {
            Place::Impossible
        }
    }

    /// An acceptable segment: the client's acknowledgement, window and clock, and its bytes.
    fn take_in(
        &mut self,
        cx: &mut Context,
        now: Micros,
        seg: Segment,
        p: &Parsed,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        if self.state == FlowState::SynReceived {
            self.prove(cx, now);
        }
        // A recovering original that has caught up is spoken to by the client again, before this packet makes a difference.
        self.settle(cx);
        if seg.end > seg.u {
            self.keep(cx, seg, p, bytes)?;
        }
        self.take_ack(seg.v);
        self.client.edge = self.client.edge.max(seg.edge);
        self.client.largest_window = self.client.largest_window.max(seg.edge - seg.v);
        if let Some(ts) = p.options.timestamps {
            self.client.ts_latest = Some(ts_newer(self.client.ts_latest, ts.val));
            if seg.u <= self.client.ack_out {
                self.client.ts_recent = Some(ts_newer(self.client.ts_recent, ts.val));
            }
        }
        Ok(())
    }

    fn take_ack(&mut self, v: Pos) {
        if v > self.client.acked {
            self.client.acked = v;
            // What it has taken was within its window, even where it took a probe beyond the edge that it had told.
            self.client.edge = self.client.edge.max(v);
            for index in 0..self.legs.len() {
                let floor = self.cache_floor(index, v);
                self.legs[index].cache.advance(floor);
            }
        }
    }

    fn keep(&mut self, cx: &mut Context, seg: Segment, p: &Parsed, bytes: &[u8]) -> Result<(), DropReason> {
        let piece = Piece {
            at: seg.u,
            acked: seg.v,
            push: p.flags.contains(Flags::PSH),
            fin: p.flags.contains(Flags::FIN),
            urgent: p.flags.contains(Flags::URG).then(|| seg.u + Pos::from(p.urgent)),
        };
        if self.must_keep() {
            // What was promised before memory became short must still fit: one unit of rounding and a probe on top.
            let limit = cx.spec.limits.flow_buffer + (1 << 16);
            if !self.buffer.store(piece, p.payload(bytes), limit, &mut cx.budget) {
                return Err(DropReason::BufferFull);
            }
        } else {
            self.buffer.pass(piece, p.payload_len());
        }
        if seg.u < self.client.max && seg.end > self.original().acked() {
            self.note_repetition();
        }
        if seg.end > self.client.max {
            self.note_turn(cx, seg.u, seg.v);
            self.client.max = seg.end;
        } else if seg.end > self.original().acked() && !self.is_over() {
            // The client has waited a retransmission timeout, or seen duplicates: evidence, and cheap to disprove (R14).
            if std::mem::replace(&mut self.resent, seg.end) == seg.end {
                cx.suspect(self.service, self.original().machine, Reason::Retransmission);
            }
        }
        Ok(())
    }

    /// R12, the end of recovery: once the new original has acknowledged and sent as much as the client has sent and seen, the client's
    /// packets go straight to it again. The client may also have been promised larger segments, or more window, than this machine takes:
    /// then the engine goes on cutting and pacing.
    fn settle(&mut self, cx: &mut Context) {
        let level = {
            let leg = self.original();
            leg.mode == Mode::Relayed
                && leg.is_open()
                // What it has said, and the client has yet to hear, is still in the cache: thousands of flows are not pumped at once.
                && !self.owes_output()
                && leg.sender.una() == self.buffer.end()
                && self.client.max == self.buffer.end()
                && leg.sent >= self.client.sent
                && leg.mss >= self.promise.mss
                && leg.sender.edge() >= self.client.edge_out
        };
        if level {
            let original = self.original;
            let leg = &mut self.legs[original];
            leg.mode = Mode::Direct;
            leg.sender.hand_back();
            leg.cache.release(&mut cx.budget);
        }
    }

    /// The packet as the original gets it, or nothing if the engine speaks to the original.
    fn on_to_original(
        &mut self,
        cx: &Context,
        now: Micros,
        checksum: Checksum,
        seg: Segment,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let index = self.original;
        if self.original().mode == Mode::Relayed || !self.original().is_open() {
            // As a receiver would: a segment that brings nothing new asks for an acknowledgement.
            self.client.ack_due |= seg.end <= self.client.ack_out && (seg.end > seg.u || seg.u < self.client.ack_out);
            if seg.end == seg.u {
                self.original_mut().pass_duplicate(seg.v);
                self.wake_lead(seg.v);
            }
            return Verdict::Drop(DropReason::Relayed);
        }
        let machine = cx.machine(self.service, self.original().machine).addr;
        let client_edge = self.client.edge;
        // What an old segment says beyond is not believed, so the machine must not be told it either (I4).
        let acked = self.client.acked;
        let shift = self.client_shift();
        let leg = &mut self.legs[index];
        leg.sender.follow_sent(now, seg.u, seg.end);
        let told = leg.ack_for(acked);
        leg.told = told;
        leg.told_edge = client_edge;
        let mut ed = Editor::new(bytes, p);
        ed.set_src(self.peer);
        ed.set_dst(machine);
        ed.set_ack(leg.seq_of(told));
        // The client's edge stays where it has been, whatever becomes of the acknowledgement (I5).
        ed.set_window(u16::try_from((client_edge - told).max(0) >> shift).unwrap_or(u16::MAX));
        if let Some(mut ts) = p.options.timestamps {
            ts.ecr = leg.ecr_for(ts.ecr);
            ts.val = ts_newer(self.client.ts_latest, ts.val);
            ed.set_timestamps(ts);
        }
        self.map_blocks(&mut ed, p, index, seg.v);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// R11, RFC 5961 section 3.2: only an exactly placed RST ends anything. Exact is what the client has been told as acknowledged
    /// (it answers a challenge ACK), or the end of what it has sent (it aborts).
    fn client_resets(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let u = self.u_of(p.seq);
        let end = self.buffer.end();
        let acked = self.original().acked();
        if u != end && u != self.client.max && u != self.client.ack_out && u != acked {
            self.challenge(now);
            return Verdict::Drop(DropReason::MisplacedReset);
        }
        cx.stats.count(Counter::ResetsPassed);
        let direct = self.original().mode == Mode::Direct && self.original().is_open();
        self.end_by_reset(cx, now);
        if !direct {
            return Verdict::Drop(DropReason::Relayed);
        }
        let index = self.original;
        let leg = &self.legs[index];
        let told = leg.told.max(1);
        let exact = if u == end { end } else { acked };
        let mut ed = Editor::new(bytes, p);
        ed.set_src(self.peer);
        ed.set_dst(cx.machine(self.service, leg.machine).addr);
        ed.set_seq(self.client_seq(exact));
        if p.flags.contains(Flags::ACK) {
            ed.set_ack(leg.seq_of(leg.ack_for(self.client.acked).max(told)));
        }
        if let Some(mut ts) = p.options.timestamps {
            ts.ecr = leg.ecr_for(ts.ecr);
            ed.set_timestamps(ts);
        }
        ed.truncate_payload(0);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// How many bytes the machine at `index` lacks of what the client has sent, and how many it has not said of what the client was sent.
    #[must_use]
    pub fn missing(&self, index: usize) -> (u64, u64) {
        let leg = &self.legs[index];
        let bytes = |span: Pos| span.max(0).unsigned_abs();
        (
            bytes(self.buffer.end() - leg.acked()),
            bytes(self.client.sent - leg.sent),
        )
    }
}
