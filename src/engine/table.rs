//! Which flow a packet belongs to, and which server-side ports are taken.

use super::ports::Ports;
use super::spec::{Limits, MachineRef, ServiceId, ServiceSpec, SourceMode};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

/// SipHash with a secret key: an outsider chooses addresses and ports, so he must not choose collisions (R18).
#[derive(Clone, Debug)]
pub struct Keyed([u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// Flows by a service and an address. The entries are as small as they can be, for there are two for each flow.
#[derive(Debug)]
struct Places {
    v4: HashMap<([u8; 4], u16, ServiceId), u32, Keyed>,
    v6: HashMap<([u8; 16], u16, ServiceId), u32, Keyed>,
}

impl Places {
    fn new(hasher: &Keyed) -> Self {
        Self {
            v4: HashMap::with_hasher(hasher.clone()),
            v6: HashMap::with_hasher(hasher.clone()),
        }
    }
    fn get(&self, service: ServiceId, addr: SocketAddr) -> Option<usize> {
        let flow = match addr.ip() {
            IpAddr::V4(ip) => self.v4.get(&(ip.octets(), addr.port(), service)),
            IpAddr::V6(ip) => self.v6.get(&(ip.octets(), addr.port(), service)),
        };
        flow.and_then(|flow| usize::try_from(*flow).ok())
    }
    fn insert(&mut self, service: ServiceId, addr: SocketAddr, flow: usize) {
        // No table of flows comes near this: one that did would not be found, and answered as unknown.
        let flow = u32::try_from(flow).unwrap_or(u32::MAX);
        match addr.ip() {
            IpAddr::V4(ip) => self.v4.insert((ip.octets(), addr.port(), service), flow),
            IpAddr::V6(ip) => self.v6.insert((ip.octets(), addr.port(), service), flow),
        };
    }
    fn remove(&mut self, service: ServiceId, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => self.v4.remove(&(ip.octets(), addr.port(), service)),
            IpAddr::V6(ip) => self.v6.remove(&(ip.octets(), addr.port(), service)),
        };
    }
    fn shrink(&mut self) {
        self.v4.shrink_to_fit();
        self.v6.shrink_to_fit();
    }
}

/// The lookup tables of a shard. They are never iterated, so hashing order decides nothing.
#[derive(Debug)]
pub struct Table {
    services: HashMap<SocketAddr, ServiceId, Keyed>,
    machines: HashMap<SocketAddr, MachineRef, Keyed>,
    by_client: Places,
    by_peer: Places,
    ports: Vec<Ports>,
}

impl Table {
    /// Empty tables for these services.
    #[must_use]
    pub fn new(services: &[ServiceSpec], limits: &Limits, key: [u8; 16], shard: u16, shards: u16) -> Self {
        let mut table = Self {
            services: HashMap::with_hasher(Keyed(key)),
            machines: HashMap::with_hasher(Keyed(key)),
            by_client: Places::new(&Keyed(key)),
            by_peer: Places::new(&Keyed(key)),
            ports: Vec::new(),
        };
        for (s, service) in (0u16..).zip(services) {
            table.services.insert(service.psc, ServiceId(s));
            table.ports.push(Ports::new(limits.ports.clone(), shard, shards));
            for (m, machine) in (0u16..).zip(&service.machines) {
                let id = MachineRef {
                    service: ServiceId(s),
                    machine: super::spec::MachineId(m),
                };
                table.machines.insert(machine.addr, id);
            }
        }
        table
    }

    /// The service whose PSC this is.
    #[must_use]
    pub fn service(&self, addr: &SocketAddr) -> Option<ServiceId> {
        self.services.get(addr).copied()
    }
    /// The machine that speaks from this address and port.
    #[must_use]
    pub fn machine(&self, addr: &SocketAddr) -> Option<MachineRef> {
        self.machines.get(addr).copied()
    }
    /// The flow of a client.
    #[must_use]
    pub fn flow_of_client(&self, service: ServiceId, client: SocketAddr) -> Option<usize> {
        self.by_client.get(service, client)
    }
    /// The flow whose machines see this peer.
    #[must_use]
    pub fn flow_of_peer(&self, service: ServiceId, peer: SocketAddr) -> Option<usize> {
        self.by_peer.get(service, peer)
    }

    /// The peer address that the machines will see for a new client (design section 2); `None` if no port is free.
    pub fn assign_peer(&mut self, id: ServiceId, service: &ServiceSpec, client: SocketAddr) -> Option<SocketAddr> {
        match service.source {
            SourceMode::Client => Some(client),
            SourceMode::Psc => {
                let by_peer = &self.by_peer;
                let taken = |port: u16| by_peer.get(id, SocketAddr::new(service.psc.ip(), port)).is_some();
                let port = self.ports[usize::from(id.0)].take(client, taken)?;
                Some(SocketAddr::new(service.psc.ip(), port))
            }
        }
    }
    /// Enters a flow.
    pub fn insert(&mut self, service: ServiceId, client: SocketAddr, peer: SocketAddr, flow: usize) {
        self.by_client.insert(service, client, flow);
        self.by_peer.insert(service, peer, flow);
    }
    /// Gives back the room for flows that have gone.
    pub fn shrink(&mut self) {
        self.by_client.shrink();
        self.by_peer.shrink();
    }
    /// Frees a client's address and port for a new flow; the machines' side of the old one goes on (R24).
    pub fn detach(&mut self, service: ServiceId, client: SocketAddr) {
        self.by_client.remove(service, client);
    }
    /// Takes a flow out.
    pub fn remove(&mut self, service: ServiceId, client: SocketAddr, peer: SocketAddr, flow: usize) {
        if self.by_client.get(service, client) == Some(flow) {
            self.by_client.remove(service, client);
        }
        self.by_peer.remove(service, peer);
        // With `source = "client"` they are the same, and nothing is given.
        if peer != client {
            self.ports[usize::from(service.0)].give_back(peer.port(), client);
        }
    }
}
