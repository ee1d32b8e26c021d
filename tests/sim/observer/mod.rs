//! The observer at the engine's boundary: it keeps books of its own and checks each packet that leaves against them.
//!
//! Here are its books, and what it hears: each packet on its way into the engine. The checks of those that leave are in
//! [`to_client`] and [`to_machine`]; what it learns otherwise is in [`told`].

mod either_way;
mod replayed;
mod to_client;
mod to_machine;
mod told;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use relevo::engine::{EngineSpec, MaxLag, Micros, Original, SourceMode};

use crate::app::Script;
use crate::books::{Flow, place};
use crate::packet::{ACK, Packet, SYN};

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
    /// Its service was killed.
    pub crashed: bool,
    /// When it was last told up or down.
    pub changed_at: Micros,
    pub ever_down: bool,
    /// Nothing listens on it.
    pub refuses: bool,
    /// Its stack agrees to timestamps.
    pub timestamps: bool,
}

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
}
