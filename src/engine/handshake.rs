//! R1 (handshake), R2 (SYN options), the promise part of R5, and R21 (reuse) as far as a SYN is concerned.

use super::context::{Answer, Context};
use super::flow::{ClientSide, Flow, FlowState, Promise, SynOptions};
use super::leg::{Leg, Mode};
use super::pos::{Pos, pos_of};
use super::rare::Rare;
use super::sendbuf::SendBuffer;
use super::spec::{MachineId, MachineRef, Micros, ServiceId};
use super::{Checksum, Counter, DropReason, Reason, Verdict};
use crate::mutant::{self, Mutation};
use crate::wire::{Editor, Flags, Options, Parsed, SackBlocks, Seq, SynKeep};
use std::net::{IpAddr, SocketAddr};

/// R2: what is let through in a SYN. Fast open, multipath and whatever is invented next would be agreed on by one machine alone.
const ALLOWED: SynKeep = SynKeep {
    mss: true,
    wscale: true,
    sack_permitted: true,
    timestamps: true,
};

/// RFC 9293 section 3.7.1: without the option, 536 bytes over IPv4 and 1220 over IPv6.
#[must_use]
pub fn default_mss(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { 536 } else { 1_220 }
}

/// The largest MSS that a path of `mtu` bytes carries.
#[must_use]
pub fn path_mss(ip: IpAddr, mtu: u16) -> u16 {
    mtu.saturating_sub(if ip.is_ipv4() { 40 } else { 60 }).max(64)
}

impl Flow {
    /// A flow for a client's first SYN, to be answered by `machine`.
    #[must_use]
    pub fn for_syn(
        cx: &Context,
        now: Micros,
        service: ServiceId,
        p: &Parsed,
        peer: SocketAddr,
        machine: MachineId,
    ) -> Self {
        let window = Pos::from(p.window);
        Self {
            service,
            peer,
            state: FlowState::SynSent,
            client: ClientSide {
                addr: p.src,
                isn: p.seq,
                syn: SynOptions::from(&p.options),
                syn_window: p.window,
                max: 1,
                acked: 0,
                edge: 1 + window,
                largest_window: window,
                ts_latest: p.options.timestamps.map(|t| t.val),
                ts_recent: None,
                challenged_at: None,
                ack_out: 1,
                edge_out: 1,
                sent: 0,
                ts_out: None,
                ts_echo: p.options.timestamps.map_or(0, |t| t.val),
                ack_due: false,
                syn_ack_due: false,
                has_left: false,
            },
            promise: Promise::default(),
            buffer: SendBuffer::default(),
            legs: vec![Leg::new(machine, Mode::Direct, cx.rtt(service), now)],
            original: 0,
            fin: None,
            trial: Rare::new(),
            fin_due: false,
            blocks: Rare::new(),
            compare: None,
            behind_since: None,
            cleared: 0,
            seen_at: now,
            since: now,
            shrunk_at: now,
            dirty: false,
            switched: false,
            lead: machine,
            heir: None,
            recover_to: 0,
            resent: 0,
            armed: None,
            generation: 0,
        }
    }

    /// The client's SYN, for the first time or again, on its way to the original.
    pub fn forward_syn(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        self.seen_at = now;
        if self.original().mode == Mode::Relayed {
            // The engine speaks to this machine, and repeats its SYN by itself. If the client was promised something by the last one,
            // that promise holds.
            self.client.syn_ack_due = self.state == FlowState::SynReceived;
            return Verdict::Drop(DropReason::Relayed);
        }
        let again = self.original_mut().syn_sent.replace(now).is_some();
        if again {
            cx.suspect(self.service, self.original().machine, Reason::UnansweredSyn);
        }
        self.syn_to_original(cx, checksum, p, bytes)
    }

    /// R2: a SYN of the client with what is let through of it.
    fn syn_to_original(&self, cx: &Context, checksum: Checksum, p: &Parsed, bytes: &mut [u8]) -> Verdict {
        let machine = cx.machine(self.service, self.original().machine).addr;
        let mut ed = Editor::new(bytes, p);
        ed.keep_syn_options(ALLOWED);
        ed.clear_ecn_setup();
        // Data in a SYN would be news to one machine only; the client sends it again when the SYN alone is acknowledged.
        ed.truncate_payload(0);
        ed.set_src(self.peer);
        ed.set_dst(machine);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// A SYN on a live flow is the original's to judge (R21): it answers with a challenge ACK (RFC 5961 section 4.2).
    /// Where the engine speaks to the original, it challenges in its stead.
    pub fn challenge_syn(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        cx.stats.count(Counter::SynsChallenged);
        if self.original().mode == Mode::Relayed || !self.original().is_open() {
            self.challenge(now);
            return Verdict::Drop(DropReason::Relayed);
        }
        self.syn_to_original(cx, checksum, p, bytes)
    }

    /// What the original says before its SYN/ACK has been seen.
    pub fn original_answers(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        let u = pos_of(1, self.client.isn, p.ack);
        let is_syn_ack = p.flags.contains(Flags::SYN | Flags::ACK);
        if self.original().syn_sent.is_none() {
            // R13: this flow has come back to it, and has not asked again yet. What it says was asked before it fell.
            return Verdict::Drop(DropReason::Fenced);
        }
        if is_syn_ack && u == 1 && !p.flags.contains(Flags::RST) {
            return self.accept_syn_ack(cx, now, checksum, p, bytes);
        }
        if p.flags.contains(Flags::RST) && p.flags.contains(Flags::ACK) && u == 1 {
            self.note_refusal(cx, self.original);
            if (self.has_heir(cx) && !mutant::is(Mutation::RefusalPassed)) || self.state != FlowState::SynSent {
                // It refuses; another one may not. Where the client was promised something, only an end in its own numbers makes sense.
                cx.stats.count(Counter::RefusalsMasked);
                let refuser = self.original;
                self.drop_leg(refuser, &mut cx.budget);
                self.replace_original(cx, now);
                return Verdict::Drop(DropReason::Relayed);
            }
            // RFC 9293 section 3.10.7.3: refused, by all that could be asked.
            cx.stats.count(Counter::ResetsPassed);
            let refuser = self.original;
            self.drop_leg(refuser, &mut cx.budget);
            self.end_by_reset(cx, now);
            return self.pass_raw(checksum, p, bytes, cx);
        }
        if p.flags.contains(Flags::ACK) && !p.flags.contains(Flags::SYN) && self.state == FlowState::SynSent {
            // An old connection of the machine on these addresses (RFC 9293 section 3.5.1, half-open): the client answers with the
            // RST that clears it, and its SYN comes again. Its number is nobody's but that machine's, so it passes as it is.
            if self.original().mode == Mode::Relayed {
                self.clear_stale(cx, self.original, p);
                return Verdict::Drop(DropReason::Relayed);
            }
            return self.pass_raw(checksum, p, bytes, cx);
        }
        Verdict::Drop(DropReason::Implausible)
    }

    /// RFC 9293 section 3.10.7.3: a machine has answered the SYN with a RST. For this flow it is not asked again.
    pub fn note_refusal(&mut self, cx: &mut Context, index: usize) {
        cx.stats.count(Counter::LegsRefused);
        self.legs[index].refused = true;
        cx.suspect(self.service, self.legs[index].machine, Reason::Refused);
    }

    /// A machine that still has an old connection on these addresses is told that it is over (RFC 9293 section 3.5.1).
    pub fn clear_stale(&mut self, cx: &mut Context, index: usize, p: &Parsed) {
        cx.answer(Answer {
            src: p.dst,
            dst: p.src,
            seq: p.ack,
            ack: Seq(0),
            flags: Flags::RST,
        });
        self.legs[index].work_due = true;
    }

    fn pass_raw(&mut self, checksum: Checksum, p: &Parsed, bytes: &mut [u8], cx: &Context) -> Verdict {
        let mut ed = Editor::new(bytes, p);
        // What an old connection had to say is not for this client.
        ed.truncate_payload(0);
        ed.set_src(cx.service(self.service).psc);
        ed.set_dst(self.client.addr);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// What the client says before it has a SYN/ACK: only the end of its attempt makes sense.
    pub fn client_before_answer(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        if !p.flags.contains(Flags::RST) || self.original().mode == Mode::Relayed {
            return Verdict::Drop(DropReason::Implausible);
        }
        let machine = cx.machine(self.service, self.original().machine).addr;
        if pos_of(1, self.client.isn, p.seq) == 1 {
            self.end_by_reset(cx, now);
        }
        let mut ed = Editor::new(bytes, p);
        ed.set_src(self.peer);
        ed.set_dst(machine);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// The first SYN/ACK: it becomes the promise to the client.
    fn accept_syn_ack(
        &mut self,
        cx: &mut Context,
        now: Micros,
        checksum: Checksum,
        p: &Parsed,
        bytes: &mut [u8],
    ) -> Verdict {
        if self.state != FlowState::SynSent {
            return self.late_syn_ack(cx, now, p);
        }
        let accepted = self.agreed(&p.options);
        let (own, mss) = self.open_original(cx, now, p, &accepted);
        self.promise = Promise {
            isn: p.seq,
            wscale: accepted.wscale,
            sack: accepted.sack_permitted,
            timestamps: accepted.timestamps.is_some(),
            mss: own.min(mss),
        };
        self.state = FlowState::SynReceived;
        self.since = now;
        self.client.sent = 1;
        self.repeat_syn_ack(cx, checksum, p, bytes)
    }

    /// The leg opens; returns its MSS and the largest that all machines' paths carry (R5).
    fn open_original(&mut self, cx: &Context, now: Micros, p: &Parsed, accepted: &Options) -> (u16, u16) {
        let ip = p.src.ip();
        let machines = &cx.service(self.service).machines;
        let common = machines
            .iter()
            .map(|m| path_mss(ip, m.path_mtu))
            .min()
            .unwrap_or(u16::MAX);
        let own = accepted.mss.unwrap_or(default_mss(ip));
        let leg = self.original_mut();
        leg.open(now, p.seq, p.window, accepted, own.min(common));
        if let Some(sent) = leg.syn_sent {
            leg.sender.rtt.sample_syn(now.saturating_sub(sent));
        }
        leg.eligible = true;
        (own, common)
    }

    /// What both the client and the machine have agreed to (R2).
    #[must_use]
    pub fn agreed(&self, answer: &Options) -> Options {
        let syn = &self.client.syn;
        Options {
            mss: answer.mss,
            wscale: syn.wscale.and(answer.wscale),
            sack_permitted: syn.sack_permitted && answer.sack_permitted,
            timestamps: syn.timestamps.and(answer.timestamps),
            sack: SackBlocks::default(),
        }
    }

    /// The SYN/ACK as the client gets it, for the first time or again.
    pub fn repeat_syn_ack(&mut self, cx: &Context, checksum: Checksum, p: &Parsed, bytes: &mut [u8]) -> Verdict {
        let window = usize::from(p.window).min(cx.spec.limits.flow_buffer);
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        self.client.edge_out = self.client.edge_out.max(1 + Pos::from(window));
        let mut ed = Editor::new(bytes, p);
        ed.keep_syn_options(ALLOWED);
        ed.clear_ecn_setup();
        ed.truncate_payload(0);
        ed.set_mss(self.promise.mss);
        ed.set_window(window);
        if let Some(mut ts) = p.options.timestamps {
            ts.val = self.ts_to_client(self.original, ts.val);
            ed.set_timestamps(ts);
        }
        ed.set_src(cx.service(self.service).psc);
        ed.set_dst(self.client.addr);
        Verdict::Accept {
            len: ed.finish(checksum.into()),
        }
    }

    /// The SYN/ACK of a machine that took over while it was still being opened: the client has its promise already.
    fn late_syn_ack(&mut self, cx: &mut Context, now: Micros, p: &Parsed) -> Verdict {
        if !self.open_replica(cx, now, self.original, p) {
            // It can't keep the promise.
            self.replace_original(cx, now);
        }
        Verdict::Drop(DropReason::Relayed)
    }

    /// A machine's SYN/ACK on a leg that the engine opened. Returns whether it has proved the promised options (R5).
    pub fn open_replica(&mut self, cx: &mut Context, now: Micros, index: usize, p: &Parsed) -> bool {
        let accepted = self.agreed(&p.options);
        let promise = self.promise;
        let eligible = accepted.wscale.is_some() == promise.wscale.is_some()
            && accepted.sack_permitted == promise.sack
            && accepted.timestamps.is_some() == promise.timestamps;
        let ip = p.src.ip();
        let leg = &mut self.legs[index];
        let mtu = cx.spec.services[usize::from(self.service.0)].machines[usize::from(leg.machine.0)].path_mtu;
        let mss = accepted.mss.unwrap_or(default_mss(ip)).min(path_mss(ip, mtu));
        leg.open(now, p.seq, p.window, &accepted, mss);
        if let Some(sent) = leg.syn_sent
            && leg.sender.rtt.backoffs() == 0
        {
            leg.sender.rtt.sample_syn(now.saturating_sub(sent));
        }
        leg.sender.rtt.reset_backoff();
        leg.eligible = eligible;
        leg.ack_due = true;
        if !eligible {
            cx.stats.count(Counter::LegsIneligible);
        }
        eligible
    }

    /// R1: the client's third packet proves it real: every live replica gets a leg.
    pub fn prove(&mut self, cx: &mut Context, now: Micros) {
        self.state = FlowState::Open;
        self.since = now;
        let rtt = cx.rtt(self.service);
        let missing: usize = cx.up(self.service).filter(|m| self.leg_of(*m).is_none()).count();
        self.legs.reserve_exact(missing);
        for machine in cx.up(self.service) {
            if self.leg_of(machine).is_none() {
                let service = self.service;
                let mut leg = Leg::new(machine, Mode::Relayed, rtt, now);
                leg.trails = cx.is_slow(now, MachineRef { service, machine });
                self.legs.push(leg);
            }
        }
        (0..missing).for_each(|_| cx.stats.count(Counter::LegsOpened));
    }
}
