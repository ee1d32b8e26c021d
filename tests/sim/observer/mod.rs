//! The observer at the engine's boundary: it keeps books of its own and checks each packet that leaves against them.
//!
//! Here are its books, and what it hears: each packet on its way into the engine. The checks of those that leave are in
//! [`to_client`] and [`to_machine`]; what it learns otherwise is in [`told`].

mod either_way;
mod failing;
mod released;
mod replayed;
mod to_client;
mod to_machine;
mod told;
mod trailing;
mod unmasked;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use relevo::engine::{EngineSpec, MaxLag, Micros, Original, SourceMode};

use crate::books::{Flow, place};
use crate::packet::{ACK, Packet, SYN};
use crate::script::Script;

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
    /// Its stack agrees to timestamps, SACK, window scaling.
    pub timestamps: bool,
    pub sack: bool,
    pub scaling: bool,
    /// Its service does nothing at present.
    pub hung: bool,
    /// It was the original of some flow when the engine was last asked.
    pub is_original: bool,
    /// When its service last ended, or its stack last forgot everything.
    pub died_at: Option<Micros>,
    /// Connections that it has ended since its service last said a word as original, and when it last did.
    pub ends: u32,
    pub ended_at: Micros,
}

impl Machine {
    /// Whether its service ended, or hangs, in a flow's time.
    fn failed(&self, flow: &Flow) -> bool {
        self.hung || self.died_at.is_some_and(|at| at >= flow.started_at)
    }
}

/// The books of one run.
pub struct Observer {
    psc: SocketAddr,
    source: SourceMode,
    max_lag: Option<u64>,
    replica_timeout: Micros,
    /// Any machine that keeps the promises may speak (R16).
    fastest: bool,
    /// A service that does not do what others do is found out (R14, `hang`).
    judges_hangs: bool,
    /// There are no votes: what the original ends is ended (R11).
    believes: bool,
    forgotten_after: Micros,
    close_timeout: Micros,
    /// Bytes of output that the engine keeps of each machine.
    cache_limit: u64,
    machines: Vec<(SocketAddr, usize)>,
    client_mtu: Vec<usize>,
    scripts: Rc<Vec<Script>>,
    /// Client address and port of each flow, by script.
    planned: Vec<(IpAddr, u16)>,
    pub state: Vec<Machine>,
    pub flows: Vec<Flow>,
    /// By machine: until when new clients need not wait for it, since it has trailed (R15).
    slow_until: Vec<Micros>,
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
            replica_timeout: service.replica_timeout,
            fastest: service.original == Original::Fastest,
            judges_hangs: service.detect.hang.is_some(),
            believes: service.detect.vote == 0,
            forgotten_after: spec.limits.half_open_timeout,
            close_timeout: spec.limits.close_timeout,
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
            slow_until: vec![0; service.machines.len()],
        }
    }

    fn by_client(&self, addr: IpAddr, port: u16) -> Option<usize> {
        self.flows.iter().rposition(|f| f.client == (addr, port))
    }

    /// Before its SYN is answered a client says nothing else, and is told nothing else (RFC 9293 section 3.10.7.3): what is said all the same is late,
    /// or answers a challenge, on an older connection from the same port, which the engine may still have (R21).
    fn answered(&self, f: usize, p: &Packet) -> usize {
        let unanswered = self.flows[f].promise.is_none() && !p.has(SYN);
        let older = self.flows[..f].iter().rposition(|o| o.client == self.flows[f].client);
        older.filter(|_| unanswered).unwrap_or(f)
    }

    /// The connection of machine `m` with a peer: the latest that has a leg there. The SYN of a later one may not have reached it (R21).
    fn by_peer(&self, m: usize, addr: IpAddr, port: u16) -> Option<usize> {
        let of_peer = |f: &Flow| f.peer == Some((addr, port));
        let with_leg = self.flows.iter().rposition(|f| of_peer(f) && f.legs[m].is_some());
        with_leg.or_else(|| self.flows.iter().rposition(of_peer))
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
        let f = self.answered(f, p);
        let flow = &mut self.flows[f];
        flow.hear(p);
        flow.note_end(now);
        self.note_trailing(now, f);
        let flow = &self.flows[f];
        let ack = flow
            .promise
            .filter(|_| p.has(ACK))
            .map(|promise| place(p.ack, promise.isn, flow.acked));
        (Some(f), (Some(place(p.seq, flow.isn, flow.sent)), ack))
    }

    /// A machine's packet reached the engine.
    pub fn hear_machine(&mut self, now: Micros, m: usize, p: &Packet) -> Offsets {
        let Some(f) = self.by_peer(m, p.dst, p.dport) else {
            return (None, None);
        };
        let flow = &mut self.flows[f];
        // A machine that has forgotten its connection may answer a SYN again, and otherwise.
        let kept = flow.proved || self.state[m].failed(flow);
        let unit = 1 << flow.client_scale(flow.promise.and_then(|promise| promise.scale));
        let (isn, fin, room) = (flow.isn, flow.fin, (flow.edge, unit));
        let tried = !flow.proved && !flow.may_open_anew(now, self.forgotten_after);
        let to_keep = flow.promise.filter(|_| tried);
        let Some(leg) = &mut flow.legs[m] else {
            return (None, None);
        };
        let (ended, sent, taken) = (leg.fin.is_some(), leg.sent, (leg.acked, leg.edge));
        let before = (sent, ended, leg.gone);
        leg.hear(p, isn, fin, kept, room);
        // R1, R5: before the client has proved itself one machine at a time has the flow; who can't keep its promise has it no longer.
        leg.lost |= to_keep.is_some_and(|promise| leg.isn.is_some() && !leg.agrees(promise));
        leg.moved_at = if (leg.acked, leg.edge) == taken {
            leg.moved_at
        } else {
            now
        };
        leg.widened_at = if leg.edge > taken.1 { now } else { leg.widened_at };
        if leg.sent > sent {
            leg.was_silent.push((leg.said_at, now));
            leg.was_silent.retain(|(from, to)| to - from >= self.replica_timeout);
            leg.said_at = now;
        }
        leg.fin_at = if ended { leg.fin_at } else { now };
        let too_early = leg.fin.filter(|_| !ended).is_some_and(|end| end <= flow.told.sent);
        let seq = leg.isn.map(|start| place(p.seq, start, leg.sent));
        let offsets = (seq, Some(place(p.ack, isn, leg.acked)).filter(|_| p.has(ACK)));
        flow.note_level();
        if too_early && self.state[m].failed(flow) {
            flow.replaced(m, self.fastest);
        }
        self.note_life(now, f, m, p, before);
        self.note_trailing(now, f);
        offsets
    }
}
