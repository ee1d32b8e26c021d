//! What the engine says by itself: segments and acknowledgements to legs (R3, R7, R23), acknowledgements to the client (R6).

use super::Counter;
use super::context::Context;
use super::flow::{Flow, FlowState};
use super::gate::Offer;
use super::leg::{Leg, LegState, Mode};
use super::outbox::Outbox;
use super::pos::{Pos, length, span, words_end};
use super::sender::{Plan, Supply};
use super::spec::{Micros, ServiceSpec};
use crate::mutant::{self, Mutation};
use crate::wire::{Flags, Options, SackBlocks, Segment, Timestamps, header_len};
use std::num::NonZeroU16;
use std::ops::Range;

/// A machine that does not answer this many SYNs is given up for this flow.
const SYN_TRIES: u32 = 6;

impl Flow {
    /// Everything that is due for this flow, after its packets have had their verdicts.
    pub fn pump(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        self.follow_plan(cx, now);
        self.judge(cx, now);
        out.begin_flow();
        for index in 0..self.legs.len() {
            match (self.legs[index].mode, self.legs[index].state) {
                (Mode::Relayed, LegState::SynSent) => self.pump_syn(cx, now, index, out),
                // A client that has not proved itself has acknowledged nothing that could be passed on.
                (Mode::Relayed, LegState::Open) if !self.is_half_open() => self.pump_open(cx, now, index, out),
                (Mode::Direct, LegState::Open) => self.ask(cx, index, out),
                (_, LegState::Finished) if self.legs[index].ack_due => self.acknowledge(cx, index, out),
                _ => {}
            }
        }
        self.tell_client(cx, now, out);
        self.compare(cx);
        // Who differs is asked no more.
        self.judge(cx, now);
        self.trim();
        self.watch(cx, now);
        self.advance_close(cx, now, out);
    }

    fn trim(&mut self) {
        let lowest = self
            .legs
            .iter()
            .filter(|l| l.counts())
            .map(Leg::acked)
            .min()
            .unwrap_or(self.buffer.end());
        self.buffer.trim(lowest);
    }

    // ---- legs ----

    fn pump_syn(&mut self, cx: &mut Context, now: Micros, index: usize, out: &mut Outbox) {
        if !std::mem::take(&mut self.legs[index].work_due) {
            return;
        }
        // Where nobody else can go on, it is asked on: the flow's own limits end that.
        let spare = index != self.original || self.has_heir(cx);
        if spare && self.legs[index].sender.rtt.backoffs() >= SYN_TRIES {
            self.abandon(cx, index);
            if index == self.original && !self.is_over() {
                self.replace_original(cx, now);
            }
            return;
        }
        // R1, R2: the client's own numbering, and just the options that the original accepted; before that, the client's.
        let known = self.state != FlowState::SynSent;
        let syn = self.client.syn;
        let timestamps = syn.timestamps.filter(|_| !known || self.promise.timestamps);
        let options = Options {
            mss: syn.mss,
            wscale: syn.wscale.filter(|_| !known || self.promise.wscale.is_some()),
            sack_permitted: if known { self.promise.sack } else { syn.sack_permitted },
            timestamps: timestamps.map(|ts| Timestamps {
                val: self.client.ts_latest.unwrap_or(ts.val),
                ecr: 0,
            }),
            sack: SackBlocks::default(),
        };
        let leg = &mut self.legs[index];
        leg.syn_sent = Some(now);
        let segment = Segment {
            src: self.peer,
            dst: cx.machine(self.service, self.legs[index].machine).addr,
            seq: self.client.isn,
            ack: crate::wire::Seq(0),
            flags: Flags::SYN,
            window: self.client.syn_window,
            urgent: 0,
            options,
            payload: (&[], &[]),
        };
        send(cx, &segment, out);
    }

    fn pump_open(&mut self, cx: &mut Context, now: Micros, index: usize, out: &mut Outbox) {
        if let Some(arrived) = self.legs[index].sender.take_run_news() {
            cx.note_super(now, self.machine_ref(index), arrived);
        }
        let supply = self.supply(cx, now, index);
        let mut said = false;
        self.legs[index].work_due = false;
        while let Some(plan) = self.legs[index].sender.next_segment(now, supply) {
            self.send_plan(cx, index, plan, out);
            said = true;
        }
        self.ask(cx, index, out);
        if !said && self.owes_ack(index) {
            self.acknowledge(cx, index, out);
        }
        let leg = &mut self.legs[index];
        leg.sender.mind_window(now, supply);
        // R23: since when it waits for its own machine's output.
        let blocked = leg.sender.nxt() >= supply.end && supply.end < self.buffer.end();
        let since = match leg.waits.blocked_since {
            // A replica that is always one answer behind is not stuck: each position has a wait of its own.
            Some(since) if blocked && leg.waits.blocked_at == supply.end => Some(since),
            _ if blocked => Some(now),
            _ => None,
        };
        leg.set_blocked(since, supply.end);
    }

    /// A machine that is to say where it stands is asked by a segment just below what it has acknowledged (RFC 9293 section 3.8.6.1), to which
    /// any stack answers.
    fn ask(&mut self, cx: &mut Context, index: usize, out: &mut Outbox) {
        if std::mem::take(&mut self.legs[index].probe_due) {
            let at = self.legs[index].sender.una() - 1;
            self.send_to_leg(cx, index, at, Flags::ACK, (0, 0), out);
        }
    }

    fn supply(&self, cx: &Context, now: Micros, index: usize) -> Supply {
        let leg = &self.legs[index];
        let end = if leg.unbound || mutant::is(Mutation::CausalityIgnored) {
            self.buffer.end()
        } else {
            self.buffer.released(leg.sent)
        };
        Supply {
            end,
            fin: self.buffer.fin(),
            most: if cx.cuts_for(now, self.machine_ref(index)) {
                self.most_at_once(leg)
            } else {
                0
            },
        }
    }

    /// The payload of the longest packet to a leg. The kernel would repeat an urgent pointer, which counts from its segment's start, in each
    /// segment that it cuts: then there is no more than one.
    fn most_at_once(&self, leg: &Leg) -> Pos {
        if self.buffer.urgent_after(leg.sender.nxt()).is_some() {
            return 0;
        }
        let options = Options {
            timestamps: leg.timestamps.then_some(Timestamps { val: 0, ecr: 0 }),
            ..Options::default()
        };
        span(usize::from(u16::MAX) - header_len(self.peer.ip(), &options))
    }

    /// R7: whether the machine is owed an acknowledgement, or news of the client's window.
    fn owes_ack(&self, index: usize) -> bool {
        let leg = &self.legs[index];
        let opened = self.client.edge - leg.told_edge;
        let starved = leg.told_edge - leg.sent < Pos::from(self.promise.mss) && opened > 0;
        leg.ack_due || leg.ack_for(self.client.acked) > leg.told || starved || opened >= 64 << 10
    }

    fn acknowledge(&mut self, cx: &mut Context, index: usize, out: &mut Outbox) {
        cx.stats.count(Counter::GhostAcks);
        let at = self.legs[index].sender.nxt();
        self.send_to_leg(cx, index, at, Flags::ACK, (0, 0), out);
    }

    fn send_plan(&mut self, cx: &mut Context, index: usize, plan: Plan, out: &mut Outbox) {
        if plan.again {
            cx.stats.count(Counter::Retransmissions);
        }
        let end = plan.from + plan.len;
        let mut flags = Flags::ACK;
        // PSH keeps its place, and marks the end of what there is to send, as any sender does (RFC 9293 section 3.9.1.2).
        if plan.len > 0 && (self.buffer.pushes_in(plan.from, end) || end == self.buffer.end()) {
            flags |= Flags::PSH;
        }
        if plan.fin {
            flags |= Flags::FIN;
        }
        self.send_to_leg(cx, index, plan.from, flags, (plan.from, length(plan.len)), out);
    }

    /// Says something to a leg. A payload of more than a segment is for the host to cut.
    fn send_to_leg(
        &mut self,
        cx: &mut Context,
        index: usize,
        at: Pos,
        flags: Flags,
        (from, len): (Pos, usize),
        out: &mut Outbox,
    ) {
        let (acked, edge, shift) = (self.client.acked, self.client.edge, self.client_shift());
        let urgent = self.buffer.urgent_after(at).filter(|_| len > 0);
        let src = self.peer;
        let seq = self.client_seq(at);
        let ts_val = self.client.ts_latest.unwrap_or(0);
        let leg = &mut self.legs[index];
        leg.told = leg.ack_for(acked);
        leg.told_edge = edge.max(leg.told_edge);
        leg.ack_due = false;
        let cut = NonZeroU16::new(leg.sender.segment()).filter(|full| len > usize::from(full.get()));
        let mut segment = Segment {
            src,
            dst: cx.machine(self.service, leg.machine).addr,
            seq,
            ack: leg.seq_of(leg.told),
            flags: if urgent.is_some() { flags | Flags::URG } else { flags },
            window: u16::try_from((leg.told_edge - leg.told).max(0) >> shift).unwrap_or(u16::MAX),
            urgent: urgent.map_or(0, |end| u16::try_from(end - at).unwrap_or(u16::MAX)),
            options: Options {
                timestamps: leg.timestamps.then(|| Timestamps {
                    val: ts_val,
                    ecr: leg.ts_latest.unwrap_or(0),
                }),
                ..Options::default()
            },
            payload: (&[], &[]),
        };
        if let Some(cut) = cut {
            let shared = out.share(from, len, |from, len| self.buffer.slices(from, len));
            send_uncut(cx, &segment, shared, cut, out);
        } else {
            segment.payload = self.buffer.slices(from, len);
            send(cx, &segment, out);
        }
    }

    /// Ends a leg with a RST in its own numbering (R11).
    pub fn reset_leg(&mut self, cx: &mut Context, index: usize, out: &mut Outbox) {
        let leg = &self.legs[index];
        // A RST is obeyed only at the machine's RCV.NXT: what it has acknowledged, if nothing is under way, is just that.
        let at = leg.acked();
        cx.stats.count(Counter::ResetsSent);
        self.send_to_leg(cx, index, at, Flags::RST | Flags::ACK, (0, 0), out);
        self.drop_leg(index, &mut cx.budget);
    }

    // ---- client ----

    /// R6: what a replica's progress, a switch of the original, or the client's own question lets the engine say.
    fn tell_client(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        if self.client.has_left {
            return;
        }
        if std::mem::take(&mut self.client.syn_ack_due) {
            self.promise_again(cx, out);
        }
        if self.is_half_open() || matches!(self.state, FlowState::Reset { .. }) {
            return;
        }
        let switched = std::mem::take(&mut self.switched);
        if switched {
            self.replay(cx, now, out);
        }
        if std::mem::take(&mut self.fin_due) {
            self.say_fin(cx, out);
        }
        let offer = self.offer(cx);
        let asked = std::mem::take(&mut self.client.ack_due);
        if offer.ack > self.client.ack_out || asked || self.opens_window(offer) {
            cx.stats.count(Counter::ClientAcks);
            let at = self.client.sent;
            self.send_to_client(cx, offer, at, Flags::ACK, 0, out);
        }
    }

    /// The SYN/ACK that the client was given, once more, in the name of a machine that has died since.
    fn promise_again(&mut self, cx: &mut Context, out: &mut Outbox) {
        let promise = self.promise;
        let ts = Timestamps {
            val: self.client.ts_out.unwrap_or(0),
            ecr: self.client.ts_latest.unwrap_or(0),
        };
        let segment = Segment {
            src: cx.service(self.service).psc,
            dst: self.client.addr,
            seq: promise.isn,
            ack: self.client_seq(1),
            flags: Flags::SYN | Flags::ACK,
            window: u16::try_from(self.client.edge_out - 1).unwrap_or(u16::MAX),
            urgent: 0,
            options: Options {
                mss: Some(promise.mss),
                wscale: promise.wscale,
                sack_permitted: promise.sack,
                timestamps: promise.timestamps.then_some(ts),
                sack: SackBlocks::default(),
            },
            payload: (&[], &[]),
        };
        send(cx, &segment, out);
    }

    /// RFC 9293 section 3.8.6.2.2: a window update is worth a packet when it is large against what the client had left. A machine
    /// whose whole window is small has thought about that before it offered it.
    fn opens_window(&self, offer: Offer) -> bool {
        let new_edge = self.window_field(offer).1;
        let (left, whole) = (self.client.edge_out - self.client.ack_out, new_edge - offer.ack);
        let opened = new_edge - self.client.edge_out;
        opened > 0 && opened >= whole.min(2 * Pos::from(self.promise.mss)) && left < whole / 2
    }

    /// R11: the original's FIN, once it may pass. If the client has no room for it, the original will say it again.
    fn say_fin(&mut self, cx: &mut Context, out: &mut Outbox) {
        if let Some(at) = self.fin.filter(|at| *at < self.client.edge && *at >= self.client.sent) {
            let offer = self.offer(cx);
            self.send_to_client(cx, offer, at, Flags::ACK | Flags::FIN, 0, out);
            self.client.sent = self.client.sent.max(at + 1);
        }
    }

    /// R12: the new original's output that the client has not had, out of the cache.
    fn replay(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        let index = self.original;
        let sent = self.client.sent;
        let leg = &mut self.legs[index];
        // What it was told as acknowledged, and was lost on the way here, it will not say again; the client has had it of another.
        let known = words_end(leg.told, leg.fin).min(sent);
        let cache = &mut leg.cache;
        while cache.next() < known && cache.has_islands() && cache.skip_hole(known) {}
        let from = sent.max(cache.base());
        if from > self.client.sent || mutant::is(Mutation::CacheNotReplayed) {
            return;
        }
        let end = self.legs[index].cache.next().min(self.client.edge);
        let timestamps = if self.promise.timestamps { 12 } else { 0 };
        let client_mss = self
            .client
            .syn
            .mss
            .unwrap_or(super::handshake::default_mss(self.client.addr.ip()));
        // The client may claim more than any path carries: the machines would not send more than theirs either.
        let mss = client_mss.min(self.promise.mss);
        let step = Pos::from(mss.saturating_sub(timestamps).max(64));
        let mut at = from;
        while at < end {
            let len = step.min(end - at);
            let offer = self.offer(cx);
            let last = at + len == end;
            let flags = if last { Flags::ACK | Flags::PSH } else { Flags::ACK };
            self.send_to_client(cx, offer, at, flags, length(len), out);
            at += len;
        }
        self.note_replayed(cx, from, at);
        self.client.sent = self.client.sent.max(at);
        if self.legs[index].fin == Some(at) && at < self.client.edge && !self.holds_fin(cx, now) {
            let offer = self.offer(cx);
            self.send_to_client(cx, offer, at, Flags::ACK | Flags::FIN, 0, out);
            self.client.sent = self.client.sent.max(at + 1);
        }
    }

    fn send_to_client(&mut self, cx: &mut Context, offer: Offer, at: Pos, flags: Flags, len: usize, out: &mut Outbox) {
        let window = self.note_offer(offer);
        let index = self.original;
        let timestamps = self.promise.timestamps.then(|| {
            let val = match self.legs[index].ts_latest {
                Some(latest) => self.ts_to_client(index, latest),
                None => self.client.ts_out.unwrap_or(0),
            };
            Timestamps {
                val,
                ecr: self.client.ts_echo,
            }
        });
        let sack = if len == 0 {
            self.blocks_above(offer.ack)
        } else {
            SackBlocks::default()
        };
        let segment = Segment {
            src: cx.service(self.service).psc,
            dst: self.client.addr,
            seq: self.promised_seq(at),
            ack: self.client_seq(offer.ack),
            flags,
            window,
            urgent: 0,
            options: Options {
                timestamps,
                sack,
                ..Options::default()
            },
            payload: self.legs[index].cache.slices(at, len),
        };
        send(cx, &segment, out);
    }

    /// A RST to the client, exactly placed: nobody is left who could go on.
    pub fn reset_client(&mut self, cx: &mut Context) {
        if self.client.has_left {
            return;
        }
        let psc = self.service_spec(cx).psc;
        cx.answer(super::context::Answer {
            src: psc,
            dst: self.client.addr,
            seq: self.promised_seq(self.client.sent),
            ack: self.client_seq(self.client.ack_out),
            flags: Flags::RST | Flags::ACK,
        });
    }

    fn service_spec<'a>(&self, cx: &'a Context) -> &'a ServiceSpec {
        cx.service(self.service)
    }
}

/// Appends a packet to the outbox.
pub fn send(cx: &mut Context, segment: &Segment<'_>, out: &mut Outbox) {
    cx.stats.count(Counter::Originated);
    let room = out.push(segment.dst.ip(), segment.len());
    let written = segment.write(room);
    debug_assert!(written, "the room was made for this segment");
}

/// Appends a super-packet: these headers, and what is `shared`, to be cut into segments of `cut`.
fn send_uncut(cx: &mut Context, segment: &Segment<'_>, shared: Range<usize>, cut: NonZeroU16, out: &mut Outbox) {
    cx.stats.count(Counter::Originated);
    cx.stats.count(Counter::SuperPackets);
    let len = shared.len();
    let segments = len.div_ceil(usize::from(cut.get()));
    cx.stats.add_to(Counter::SuperSegments, segments as u64);
    let room = out.push_uncut(segment.dst.ip(), segment.len(), shared, cut);
    let written = segment.write_uncut(room, len);
    debug_assert!(written, "the room was made for this super-packet");
}
