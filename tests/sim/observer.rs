//! The observer at the engine's boundary: it keeps books of its own and checks each packet that leaves against them.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use relevo::engine::{EngineSpec, MaxLag, Micros, Original, SourceMode};

use crate::app::Script;
use crate::books::{Flow, Leg, Promise, Violation, cause_of, ensure, later, place};
use crate::packet::{ACK, FIN, Packet, RST, SYN, URG};

/// Where a packet that leaves the engine came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client's packet, accepted; the flow that it belongs to.
    Client(Option<usize>),
    /// A machine's packet, accepted.
    Machine(usize),
    /// The engine originated it.
    Engine,
}

/// Sequence and acknowledgement number as offsets, where known.
pub type Offsets = (Option<i64>, Option<i64>);

/// What is known of a machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub down: bool,
    pub frozen: bool,
    /// When it was last told up or down.
    pub changed_at: Micros,
    pub ever_down: bool,
    /// Nothing listens on it.
    pub refuses: bool,
    /// Its stack agrees to timestamps.
    pub timestamps: bool,
    /// Its stack agrees to SACK and to window scaling.
    pub sack: bool,
    pub scaling: bool,
    /// Its service does nothing at present.
    pub hung: bool,
    /// When its service last ended, or its stack last forgot everything.
    pub died_at: Option<Micros>,
}

impl Machine {
    /// Whether its service ended, or hangs, in a flow's time.
    fn failed(&self, flow: &Flow) -> bool {
        self.hung || self.died_at.is_some_and(|at| at >= flow.started_at)
    }
}

/// Whether the engine judges what an original says when its service crashes or hangs (R11's vote, R14's `hang`). Until it does, a flow that meets
/// this is counted as a known limit.
pub const JUDGED: bool = false;

/// The books of one run.
pub struct Observer {
    psc: SocketAddr,
    source: SourceMode,
    max_lag: Option<u64>,
    /// Any machine that keeps the promises may speak (R16).
    fastest: bool,
    forgotten_after: Micros,
    /// Bytes of output that the engine keeps of each machine.
    cache_limit: u64,
    machines: Vec<(SocketAddr, usize)>,
    client_mtu: Vec<usize>,
    scripts: Rc<Vec<Script>>,
    /// Client address and port of each flow, by script.
    planned: Vec<(IpAddr, u16)>,
    pub state: Vec<Machine>,
    pub flows: Vec<Flow>,
    /// Whether the engine has fed a replica before it had answered, and so no longer thinks it fit to take over (R23).
    pub released: bool,
    /// Whether a replica was ever fed before it had answered (R23): the caller knows if the engine said so.
    pub early_release: bool,
}

impl Observer {
    pub fn new(
        spec: &EngineSpec,
        client_mtu: Vec<usize>,
        machine_mtu: &[usize],
        scripts: Rc<Vec<Script>>,
        planned: Vec<(IpAddr, u16)>,
    ) -> Self {
        let service = &spec.services[0];
        Self {
            psc: service.psc,
            source: service.source,
            max_lag: match service.max_lag {
                MaxLag::Bytes(bytes) => Some(bytes),
                MaxLag::Unlimited => None,
            },
            fastest: service.original == Original::Fastest,
            forgotten_after: spec.limits.half_open_timeout,
            cache_limit: spec.limits.flow_buffer as u64,
            machines: service
                .machines
                .iter()
                .zip(machine_mtu)
                .map(|(m, mtu)| (m.addr, *mtu))
                .collect(),
            client_mtu,
            scripts,
            planned,
            state: vec![Machine::default(); service.machines.len()],
            flows: Vec::new(),
            released: false,
            early_release: false,
        }
    }

    fn by_client(&self, addr: IpAddr, port: u16) -> Option<usize> {
        self.flows.iter().rposition(|f| f.client == (addr, port))
    }

    fn by_peer(&self, addr: IpAddr, port: u16) -> Option<usize> {
        self.flows.iter().rposition(|f| f.peer == Some((addr, port)))
    }

    /// A client's packet reached the engine.
    pub fn hear_client(&mut self, now: Micros, p: &Packet) -> (Option<usize>, Offsets) {
        let known = self.by_client(p.src, p.sport);
        if p.has(SYN) && known.is_none_or(|f| self.flows[f].isn != p.seq) {
            let taken = |id: usize| self.flows.iter().any(|f| f.id == id);
            let planned = (0..self.planned.len()).find(|id| self.planned[*id] == (p.src, p.sport) && !taken(*id));
            if let Some(id) = planned {
                self.flows
                    .push(Flow::new(id, p, now, self.machines.len(), self.scripts[id].down.len()));
                return (Some(self.flows.len() - 1), (Some(0), None));
            }
        }
        let Some(f) = known else { return (None, (None, None)) };
        let flow = &mut self.flows[f];
        flow.hear(p);
        let ack = flow
            .promise
            .filter(|_| p.has(ACK))
            .map(|promise| place(p.ack, promise.isn, flow.acked));
        (Some(f), (Some(place(p.seq, flow.isn, flow.sent)), ack))
    }

    /// A machine's packet reached the engine.
    pub fn hear_machine(&mut self, m: usize, p: &Packet) -> Offsets {
        let Some(f) = self.by_peer(p.dst, p.dport) else {
            return (None, None);
        };
        let flow = &mut self.flows[f];
        let (isn, fin, proved) = (flow.isn, flow.fin, flow.proved);
        let Some(leg) = &mut flow.legs[m] else {
            return (None, None);
        };
        leg.hear(p, isn, fin, proved);
        let seq = leg.isn.map(|start| place(p.seq, start, leg.sent));
        (seq, Some(place(p.ack, isn, leg.acked)).filter(|_| p.has(ACK)))
    }

    /// The engine wants the machine evicted: its legs hold nobody up any more (R15).
    pub fn evicted(&mut self, m: usize) {
        for leg in self.flows.iter_mut().filter_map(|f| f.legs[m].as_mut()) {
            leg.evicted = true;
        }
    }

    /// The machine was told down or up.
    pub fn machine_told(&mut self, now: Micros, m: usize, down: bool) {
        if self.state[m].down == down {
            return;
        }
        (self.state[m].down, self.state[m].changed_at) = (down, now);
        self.state[m].ever_down |= down;
        if !down {
            return;
        }
        for flow in &mut self.flows {
            if let Some(leg) = &mut flow.legs[m] {
                leg.lost = true;
            }
            // Whoever is fastest speaks; which leg carries the client's packets is not to be seen from here.
            if flow.original == Some(m) || self.fastest {
                flow.original = None;
                flow.takeovers += 1;
                flow.switching = true;
            } else if flow.heir == Some(m) {
                // It may have moved there already, unheard.
                (flow.original, flow.heir) = (None, None);
                flow.takeovers += 1;
            }
        }
    }

    /// A failover was ordered: each flow may have another original now.
    pub fn failover(&mut self) {
        for flow in &mut self.flows {
            (flow.original, flow.heir) = (None, None);
            flow.takeovers += 1;
            flow.switching = true;
        }
    }

    /// A handover was ordered: each flow moves to machine `m` when that is level.
    pub fn hand_over(&mut self, m: usize) {
        for flow in self.flows.iter_mut().filter(|f| f.original != Some(m)) {
            // Of the fastest it can't be said who is the original, before or after.
            flow.heir = Some(m).filter(|_| !self.fastest);
            flow.takeovers += 1;
        }
    }

    /// Whether machine `m` was in service for the whole of flow `f`, and its stack runs.
    pub fn lived_through(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        !state.down && !state.frozen && !state.failed(flow) && (!state.ever_down || state.changed_at <= flow.started_at)
    }

    /// Whether machine `m` could have carried the flow all along: it lived, and agrees to what the client was promised.
    pub fn could_carry(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        let agrees = |p: Promise| {
            (state.timestamps || !p.timestamps) && (state.sack || !p.sack) && (state.scaling || p.scale.is_none())
        };
        let able = !flow.refused && !state.refuses && flow.promise.is_none_or(agrees);
        able && self.lived_through(m, flow)
    }

    /// Some of machine `m`'s output, in the flow that `p` belongs to, did not fit the engine's memory.
    pub fn skipped(&mut self, m: usize, p: &Packet) {
        if let Some(f) = self.by_peer(p.dst, p.dport)
            && let Some(leg) = &mut self.flows[f].legs[m]
            && let Some(isn) = leg.isn
        {
            let start = u64::try_from(place(p.seq, isn, leg.sent)).unwrap_or(0);
            leg.skipped_at = Some(leg.skipped_at.unwrap_or(start).min(start));
        }
    }

    /// Whether the flow's original, or who may be it, has a service that hangs or that ended in the flow's time.
    pub fn original_failed(&self, id: usize) -> bool {
        self.flows.iter().find(|f| f.id == id).is_some_and(|f| {
            let failed = |m: usize| self.state[m].failed(f) && !self.state[m].down;
            f.original.map_or_else(|| (0..self.state.len()).any(failed), failed)
        })
    }

    /// R9: what every machine that could take over had said by then, the client has been sent when the engine rests. A machine that the engine
    /// does not think fit for reasons of its own (R23) can only lower what all have said.
    pub fn check_replayed(&mut self) -> Result<(), Violation> {
        let limit = self.cache_limit;
        let states = &self.state;
        for flow in self.flows.iter_mut() {
            if !std::mem::take(&mut flow.switching) {
                continue;
            }
            let Some(promise) = flow.promise.filter(|_| flow.proved && !flow.finished()) else {
                continue;
            };
            if flow.reset_to_client || flow.refused || flow.limit {
                continue;
            }
            let alike = |l: &Leg| {
                let agreed = (l.timestamps, l.scale.is_some(), l.sack);
                agreed == (promise.timestamps, promise.scale.is_some(), promise.sack)
            };
            let heirs = flow
                .legs
                .iter()
                .zip(states)
                .filter_map(|(l, s)| l.as_ref().filter(|_| !s.down));
            let heirs = heirs.filter(|l| l.counts() && l.isn.is_some() && alike(l));
            let Some(said) = heirs.map(|l| l.skipped_at.unwrap_or(l.whole).min(l.whole)).min() else {
                continue;
            };
            let said = said.min(flow.edge);
            ensure!(
                said <= flow.told.sent || said > flow.acked + limit,
                "R9",
                "every machine has said up to {said}, but after the takeover the client has only {}",
                flow.told.sent
            );
        }
        Ok(())
    }

    /// The offsets of a packet on its way to a client.
    fn client_offsets(flow: &Flow, p: &Packet) -> Offsets {
        let seq = flow.promise.map(|promise| place(p.seq, promise.isn, flow.told.sent));
        (seq, Some(place(p.ack, flow.isn, flow.told.ack)).filter(|_| p.has(ACK)))
    }

    /// A packet leaves the engine for a client. The offsets are for the trace, whatever the checks say.
    pub fn leave_for_client(
        &mut self,
        now: Micros,
        c: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> (Offsets, Result<(), Violation>) {
        let Some(f) = self.by_client(p.dst, p.dport) else {
            let stray = if p.has(RST) {
                Ok(())
            } else {
                Err(Violation {
                    rule: "I6",
                    text: "a packet for a client without a flow".into(),
                })
            };
            return ((None, None), stray);
        };
        let result = self.check_to_client(now, c, f, p, bytes, cause);
        (Self::client_offsets(&self.flows[f], p), result)
    }

    fn check_to_client(
        &mut self,
        now: Micros,
        c: usize,
        f: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> Result<(), Violation> {
        p.check_sums(bytes)
            .map_err(|text| Violation { rule: "checksum", text })?;
        ensure!(
            (p.src, p.sport) == (self.psc.ip(), self.psc.port()),
            "I6",
            "its source is not the PSC"
        );
        ensure!(
            bytes.len() <= self.client_mtu[c],
            "R3",
            "{} bytes exceed the client's MTU",
            bytes.len()
        );
        ensure!(!p.has(URG) && p.flags & 0xc0 == 0, "R2", "flags {:#x}", p.flags);
        let lived = (0..self.machines.len()).find(|m| self.could_carry(*m, &self.flows[f]));
        let (max_lag, forgotten_after, fastest) = (self.max_lag, self.forgotten_after, self.fastest);
        let forgiven = cause == Cause::Engine && self.released;
        let states = &self.state;
        let client = self.flows[f].client;
        let known_before = self.flows[..f].iter().any(|other| other.client == client);
        let flow = &mut self.flows[f];
        if flow.limit {
            return Ok(());
        }
        if let Cause::Machine(m) = cause {
            ensure!(
                !states[m].down,
                "R13",
                "machine {m} is down, and its packet was let through"
            );
            ensure!(
                flow.legs[m].as_ref().is_some_and(|l| !l.lost),
                "R13",
                "machine {m} has lost this flow"
            );
            if flow.heir == Some(m) {
                let sent = flow.legs[m].as_ref().map_or(0, |l| l.sent);
                ensure!(
                    fastest || flow.original.is_none() || sent >= flow.told.sent,
                    "R12",
                    "moved by plan to machine {m}, which has said {sent} of {}",
                    flow.told.sent
                );
                (flow.original, flow.heir) = (Some(m), None);
            }
            let original = if fastest { m } else { *flow.original.get_or_insert(m) };
            ensure!(
                original == m,
                "I6",
                "a packet of machine {m}, but the original is {original}"
            );
        }
        // What a service says by ending is passed on, or replayed by a takeover, as if it wished to.
        let ends = p.has(RST) && matches!(cause, Cause::Machine(m) if states[m].failed(flow));
        let early = |promise: Promise| {
            let end = place(p.seq, promise.isn, flow.told.sent) + i64::from(p.seq_len());
            p.has(FIN) && end < flow.whole as i64
        };
        let failed = states.iter().any(|s| s.failed(flow));
        if !JUDGED && (ends || (failed && flow.promise.is_some_and(early))) {
            flow.limit = true;
            flow.reset_to_client |= ends;
            return Ok(());
        }
        if p.has(RST) {
            // The service's own refusal is passed on as the original says it.
            flow.refused |= forgiven || matches!(cause, Cause::Machine(m) if states[m].refuses);
            ensure!(
                flow.refused || forgiven || flow.finished() || lived.is_none(),
                "I1",
                "the client is reset though machine {} lived through its flow",
                lived.unwrap_or(0)
            );
            flow.reset_to_client = true;
            return Ok(());
        }
        if p.has(SYN) {
            return Self::check_syn_ack(now, forgotten_after, flow, p);
        }
        let Some(promise) = flow.promise else {
            // What a machine says on an older connection passes as it is: the client's reset is its answer (RFC 9293, 3.5.1).
            // So does the challenge to a SYN that meets a live connection (R21).
            let challenge = cause == Cause::Engine && known_before && p.flags == ACK && p.len == 0;
            ensure!(
                matches!(cause, Cause::Machine(_)) || challenge,
                "R1",
                "a packet before the SYN/ACK"
            );
            return Ok(());
        };
        ensure!(p.has(ACK), "R2", "no ACK flag");
        ensure!(
            p.options.ts.is_some() == promise.timestamps,
            "R5",
            "timestamps are not as promised"
        );
        if flow.client_reset {
            return Ok(());
        }
        Self::check_data_to_client(flow, p, bytes, &promise, &self.scripts[flow.id], cause)?;
        Self::check_echo(
            flow.stamps.as_ref().map(|s| (s, "the client")),
            p,
            cause != Cause::Engine,
        )?;
        let ack = place(p.ack, flow.isn, flow.told.ack);
        // One that is the original for the second time may find the client's clock ahead of its own, and has to wait for it.
        if let (Cause::Machine(m), Some((told, _))) = (cause, p.options.ts)
            // Of several clocks at once the latest counts.
            && !fastest
            && let Some(leg) = &mut flow.legs[m]
            && let Some((stamps, true)) = leg.stamps.map(|s| (s, leg.latest_is_newest))
        {
            let offset = told.wrapping_sub(stamps.latest);
            let fixed = *leg.clock_offset.get_or_insert(offset);
            let waits = flow.takeovers > 1 && flow.told.tsval == Some(told);
            ensure!(
                offset == fixed || waits,
                "R5",
                "the clock of machine {m} has the offset {offset} after {fixed}"
            );
        }
        let said = ack == flow.told.ack as i64
            && ack + (i64::from(p.win) << promise.scale.map_or(0, u32::from)) <= flow.told.edge as i64;
        if let Cause::Machine(m) = cause
            && let Some(Leg { latest: (u, true), .. }) = flow.legs[m]
        {
            ensure!(
                !said || u as i64 == ack,
                "R6",
                "machine {m} acknowledges {u}, the client hears {ack} again"
            );
        }
        let bound = flow.ack_bound(max_lag).max(flow.told.ack);
        ensure!(ack <= bound as i64, "I3", "ack {ack} is past {bound}: {}", acks(flow));
        ensure!(
            ack <= flow.sent as i64,
            "I4",
            "ack {ack} of what the client has not sent ({})",
            flow.sent
        );
        if ack > 1 {
            for (m, leg) in flow.legs.iter().enumerate() {
                let in_service = !states[m].down && !states[m].ever_down;
                ensure!(
                    leg.is_some() || !in_service,
                    "I3",
                    "ack {ack} though machine {m} has no leg yet"
                );
            }
        }
        for (left, right) in p.options.sack.iter().flatten() {
            let (left, right) = (place(*left, flow.isn, flow.sent), place(*right, flow.isn, flow.sent));
            ensure!(promise.sack, "R8", "SACK was not agreed on");
            ensure!(
                ack < left && left < right && right <= flow.sent as i64,
                "R8",
                "SACK block {left}..{right}, ack {ack}"
            );
        }
        let scale = promise.scale.map_or(0, u32::from);
        let edge = ack + (i64::from(p.win) << scale);
        let bound = flow.edge_bound(max_lag == Some(0)).max(flow.told.edge);
        // Once its FIN is acknowledged, a window says nothing to the client any more.
        let sends = flow.fin.is_none_or(|fin| ack < fin as i64);
        ensure!(
            !sends || bound == u64::MAX || edge <= bound as i64,
            "R5",
            "window edge {edge} is past {bound}: {}",
            acks(flow)
        );
        flow.told.advance(ack, edge, 1 << scale, p.options.ts.map(|t| t.0))
    }

    fn check_syn_ack(now: Micros, forgotten_after: Micros, flow: &mut Flow, p: &Packet) -> Result<(), Violation> {
        ensure!(
            p.has(ACK) && p.ack == flow.isn.wrapping_add(1),
            "R1",
            "SYN/ACK of something else"
        );
        let (o, offer) = (&p.options, &flow.offer.options);
        ensure!(o.other.is_none(), "R2", "option {:?}", o.other);
        ensure!(
            o.scale.is_none() || offer.scale.is_some(),
            "R2",
            "a window scale that was not offered"
        );
        ensure!(
            o.ts.is_none() || offer.ts.is_some(),
            "R2",
            "timestamps that were not offered"
        );
        ensure!(
            !o.sack_permitted || offer.sack_permitted,
            "R2",
            "SACK that was not offered"
        );
        let new = Promise {
            isn: p.seq,
            scale: o.scale,
            sack: o.sack_permitted,
            timestamps: o.ts.is_some(),
        };
        // A flow whose client did not answer may have been forgotten, and opened anew by the client's next SYN.
        if flow.acked == 0 && now > flow.started_at + forgotten_after {
            flow.promise = Some(new);
        }
        let promise = *flow.promise.get_or_insert(new);
        ensure!(
            (promise.isn, promise.scale, promise.timestamps) == (new.isn, new.scale, new.timestamps),
            "R5",
            "another SYN/ACK than before: {new:?}, was {promise:?}"
        );
        flow.told.sent = flow.told.sent.max(1);
        flow.told.edge = flow.told.edge.max(1 + u64::from(p.win));
        flow.told.tsval = p.options.ts.map(|t| t.0).or(flow.told.tsval);
        Ok(())
    }

    fn check_data_to_client(
        flow: &mut Flow,
        p: &Packet,
        bytes: &[u8],
        promise: &Promise,
        script: &Script,
        cause: Cause,
    ) -> Result<(), Violation> {
        let start = place(p.seq, promise.isn, flow.told.sent);
        let end = start + i64::from(p.seq_len());
        ensure!(
            start >= 0 && end <= flow.whole as i64,
            "I1",
            "v {start}..{end} of {}",
            flow.whole
        );
        ensure!(
            p.seq_len() == 0 || cause != Cause::Engine || flow.takeovers > 0,
            "I6",
            "data, but nobody took over"
        );
        ensure!(
            end <= flow.edge as i64 + 1,
            "R22",
            "v {end} is past the client's window edge {}",
            flow.edge
        );
        ensure!(
            !p.has(FIN) || end == flow.whole as i64,
            "I1",
            "FIN at v {end} instead of {}",
            flow.whole
        );
        same_bytes(p, bytes, start, flow.acked, &script.down, "the service's")?;
        // An empty segment beyond a hole, or a FIN that was lost, gives the client nothing.
        if p.seq_len() > 0 {
            flow.told.sent = flow.told.sent.max(end as u64);
        }
        Ok(())
    }

    fn check_echo(stamps: Option<(&crate::books::Stamps, &str)>, p: &Packet, old: bool) -> Result<(), Violation> {
        if let (Some((stamps, who)), Some((_, echo))) = (stamps, p.options.ts) {
            ensure!(
                stamps.may_be_echoed(echo, old),
                "R5",
                "TSecr {echo} was never sent by {who}: {stamps:?}"
            );
        }
        Ok(())
    }

    /// A packet leaves the engine for a machine.
    pub fn leave_for_machine(
        &mut self,
        m: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> (Offsets, Result<(), Violation>) {
        let peer = (p.src, p.sport);
        let flow = match cause {
            Cause::Client(flow) => flow,
            _ if p.has(SYN) => self
                .flows
                .iter()
                .rposition(|f| f.isn == p.seq && f.peer.is_none_or(|known| known == peer)),
            _ => self.by_peer(p.src, p.sport),
        };
        let Some(f) = flow else {
            // A probe, or the reset of its answer.
            let probe = p.len == 0 && (p.has(SYN) || p.has(RST)) && cause == Cause::Engine;
            let stray = Violation {
                rule: "I6",
                text: "a packet for a machine without a flow".into(),
            };
            return ((None, None), if probe { Ok(()) } else { Err(stray) });
        };
        let result = self.check_to_machine(f, m, p, bytes, cause);
        let flow = &self.flows[f];
        let offsets = flow.legs[m].as_ref().map_or((None, None), |leg| {
            let ack = leg
                .isn
                .filter(|_| p.has(ACK))
                .map(|isn| place(p.ack, isn, leg.told.ack));
            (Some(place(p.seq, flow.isn, leg.told.sent)), ack)
        });
        (offsets, result)
    }

    fn check_to_machine(
        &mut self,
        f: usize,
        m: usize,
        p: &Packet,
        bytes: &[u8],
        cause: Cause,
    ) -> Result<(), Violation> {
        p.check_sums(bytes)
            .map_err(|text| Violation { rule: "checksum", text })?;
        let (addr, mtu) = self.machines[m];
        ensure!(p.dport == addr.port(), "I6", "port {} of the machine", p.dport);
        ensure!(
            bytes.len() <= mtu,
            "R3",
            "{} bytes exceed the machine's MTU {mtu}",
            bytes.len()
        );
        let flow = &mut self.flows[f];
        let source = if self.source == SourceMode::Psc {
            self.psc.ip()
        } else {
            flow.client.0
        };
        ensure!(p.src == source, "I6", "its source is {}", p.src);
        if self.source == SourceMode::Client {
            ensure!(p.sport == flow.client.1, "I6", "source port {}", p.sport);
        }
        if p.has(RST) {
            if let Some(leg) = &mut flow.legs[m] {
                // One that is for an older connection on these addresses ends nothing.
                let at = place(p.seq, flow.isn, leg.acked);
                leg.reset |= (leg.acked as i64..=leg.edge as i64).contains(&at);
            }
            return Ok(());
        }
        if flow.limit {
            return Ok(());
        }
        ensure!(
            !self.state[m].down,
            "R13",
            "machine {m} is down, but gets more than a reset"
        );
        ensure!(p.flags & 0xc0 == 0, "R2", "ECN bits");
        if p.has(SYN) {
            return Self::check_syn(flow, m, p, cause);
        }
        let stamped = flow.stamped;
        let Some(leg) = &mut flow.legs[m] else {
            ensure!(false, "R1", "machine {m} has no leg");
            return Ok(());
        };
        let Some(isn) = leg.isn else {
            ensure!(false, "R1", "machine {m} has not answered the SYN");
            return Ok(());
        };
        ensure!(!leg.lost, "R13", "machine {m} has lost this flow");
        ensure!(p.has(ACK), "R2", "no ACK flag");
        let unstamped = matches!(cause, Cause::Client(_)) && !stamped;
        ensure!(
            p.options.ts.is_some() == (leg.timestamps && !unstamped),
            "R5",
            "timestamps are not as the machine agreed"
        );
        let ack = place(p.ack, isn, leg.told.ack);
        ensure!(
            ack <= leg.sent as i64,
            "I4",
            "ack {ack}, but machine {m} has sent {}",
            leg.sent
        );
        ensure!(
            ack <= flow.acked as i64,
            "I4",
            "ack {ack}, but the client has acknowledged {}",
            flow.acked
        );
        let start = place(p.seq, flow.isn, leg.told.sent.max(leg.acked));
        let end = start + i64::from(p.seq_len());
        ensure!(
            start >= 0 && end <= flow.sent as i64,
            "I2",
            "u {start}..{end}, but the client has sent {}",
            flow.sent
        );
        ensure!(
            end <= leg.edge as i64 + 1,
            "R3",
            "u {end} is past the machine's window edge {}",
            leg.edge
        );
        ensure!(
            !p.has(FIN) || flow.fin == Some(end as u64),
            "I2",
            "FIN at u {end}, the client's is {:?}",
            flow.fin
        );
        same_bytes(p, bytes, start, leg.acked, &self.scripts[flow.id].up, "the client's")?;
        if p.seq_len() > 0 && end > leg.acked as i64 {
            // Looked up only where the answer matters: no byte needs more than the client has acknowledged by now.
            let need = if leg.sent < flow.acked {
                cause_of(&flow.pieces, end)
            } else {
                0
            };
            // A lone original's own traffic keeps causality by itself.
            self.early_release |= (self.fastest || cause == Cause::Engine) && leg.sent < need;
        }
        Self::check_echo(
            leg.stamps.as_ref().map(|s| (s, "that machine")),
            p,
            cause != Cause::Engine,
        )?;
        for (left, right) in p.options.sack.iter().flatten() {
            let (left, right) = (place(*left, isn, leg.sent), place(*right, isn, leg.sent));
            ensure!(
                ack < left && left < right && right <= leg.sent as i64,
                "R8",
                "SACK block {left}..{right}, ack {ack}"
            );
        }
        let scale = match (flow.offer.options.scale, leg.scale) {
            (Some(scale), Some(_)) => u32::from(scale),
            _ => 0,
        };
        let edge = ack + (i64::from(p.win) << scale);
        let bound = flow.edge.max(leg.told.edge);
        ensure!(
            bound == u64::MAX || edge <= bound as i64,
            "R5",
            "window edge {edge} is past the client's {bound}"
        );
        leg.told.sent = leg.told.sent.max(end as u64);
        let tsval = p.options.ts.map(|t| t.0);
        // The client's own packets keep their order and their stamps, whichever those are.
        // A segment that is wholly old moves nobody's clock: it is out of the window (RFC 7323 section 4.3).
        let old = matches!(cause, Cause::Client(_)) && end <= flow.told.ack as i64 && end > start;
        let tsval = tsval.filter(|_| !old);
        let late = matches!(cause, Cause::Client(_)).then_some(leg.told.tsval).flatten();
        let tsval = tsval.zip(late).map(|(val, told)| later(val, told)).or(tsval);
        leg.told.advance(ack, edge, 1 << scale, tsval)
    }

    fn check_syn(flow: &mut Flow, m: usize, p: &Packet, cause: Cause) -> Result<(), Violation> {
        ensure!(!p.has(ACK) && p.len == 0, "R1", "a SYN with more");
        ensure!(
            p.seq == flow.isn,
            "R1",
            "opened with ISN {} instead of the client's {}",
            p.seq,
            flow.isn
        );
        flow.peer = Some((p.src, p.sport));
        let alone = flow
            .legs
            .iter()
            .enumerate()
            .all(|(i, l)| i == m || l.as_ref().is_none_or(|l| !l.counts()));
        ensure!(
            flow.proved || alone || flow.takeovers > 0,
            "R1",
            "machine {m} is opened before the client proved itself"
        );
        let (o, offer) = (&p.options, &flow.offer.options);
        ensure!(o.other.is_none(), "R2", "option {:?}", o.other);
        ensure!(
            o.mss <= offer.mss.max(Some(536)),
            "R5",
            "MSS {:?}, the client's is {:?}",
            o.mss,
            offer.mss
        );
        let accepted = flow.promise.filter(|_| cause == Cause::Engine);
        let (ts, sack, scale) = accepted
            .map_or((offer.ts.is_some(), offer.sack_permitted, offer.scale.is_some()), |a| {
                (a.timestamps, a.sack, a.scale.is_some())
            });
        ensure!(
            o.ts.is_none() || ts,
            "R1",
            "timestamps, which the original did not accept"
        );
        ensure!(
            !o.sack_permitted || sack,
            "R1",
            "SACK, which the original did not accept"
        );
        ensure!(
            o.scale.is_none() || scale,
            "R1",
            "a window scale, which the original did not accept"
        );
        ensure!(
            o.scale.is_none() || o.scale == offer.scale,
            "R1",
            "window scale {:?}",
            o.scale
        );
        if !flow.proved && cause == Cause::Engine {
            // The flow starts over with this machine.
            flow.legs.iter_mut().flatten().for_each(|leg| leg.lost = true);
        }
        let fresh = || Leg {
            acked: 1,
            edge: 1,
            ..Leg::default()
        };
        let leg = flow.legs[m].get_or_insert_with(fresh);
        if !leg.counts() {
            *leg = fresh();
        }
        leg.told.tsval = p.options.ts.map(|t| t.0);
        Ok(())
    }
}

/// The payload above what its receiver has acknowledged is `whole`'s; a keep-alive's byte lies below.
fn same_bytes(p: &Packet, b: &[u8], start: i64, acked: u64, whole: &[u8], whose: &str) -> Result<(), Violation> {
    let data = &b[p.data_at..p.data_at + p.len];
    let skip = usize::try_from(acked as i64 - start).unwrap_or(0).min(data.len());
    let data = &data[skip..];
    if data.is_empty() {
        return Ok(());
    }
    let at = (start + skip as i64 - 1).max(0) as usize;
    ensure!(
        whole.get(at..at + data.len()) == Some(data),
        "I1",
        "{} bytes at offset {at} are not {whose}",
        data.len()
    );
    Ok(())
}

/// Every leg's position in a few words.
fn acks(flow: &Flow) -> String {
    let legs = flow.legs.iter().enumerate().filter_map(|(m, l)| Some((m, l.as_ref()?)));
    let legs = legs.map(|(m, l)| format!("{m}: acked {} edge {} counts {}", l.acked, l.edge, l.counts()));
    format!("original {:?}, {}", flow.original, legs.collect::<Vec<_>>().join("; "))
}
