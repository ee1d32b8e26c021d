//! A translator between the clients and the original alone: under it the network must work without any engine.

use std::net::{IpAddr, SocketAddr};

use relevo::engine::{
    Command, Counter, DropReason, EngineSpec, Event, MachineRef, Meta, Micros, Outbox, Probe, ShardStatus, Stats,
    Verdict,
};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::gateway::Gateway;

/// Clients by server-side port; the machine sees the PSC's address.
pub struct Nat {
    psc: SocketAddr,
    original: SocketAddr,
    clients: Vec<(u16, SocketAddr)>,
    stats: Stats,
}

impl Nat {
    pub fn new(spec: &EngineSpec) -> Self {
        let service = &spec.services[0];
        Self {
            psc: service.psc,
            original: service.machines[0].addr,
            clients: Vec::new(),
            stats: Stats::default(),
        }
    }

    fn port_of(&mut self, client: SocketAddr) -> u16 {
        if let Some((port, _)) = self.clients.iter().find(|(_, c)| *c == client) {
            return *port;
        }
        let mut port = client.port();
        while self.clients.iter().any(|(p, _)| *p == port) {
            port += 1;
        }
        self.clients.push((port, client));
        port
    }
}

fn rewrite(bytes: &mut [u8], src: SocketAddr, dst: SocketAddr) {
    let header = match (src.ip(), dst.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let mut ip = Ipv4Packet::new_unchecked(&mut *bytes);
            ip.set_src_addr(s);
            ip.set_dst_addr(d);
            ip.fill_checksum();
            usize::from(ip.header_len())
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let mut ip = Ipv6Packet::new_unchecked(&mut *bytes);
            ip.set_src_addr(s);
            ip.set_dst_addr(d);
            40
        }
        _ => unreachable!("one family a run"),
    };
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[header..]);
    tcp.set_src_port(src.port());
    tcp.set_dst_port(dst.port());
    tcp.fill_checksum(&IpAddress::from(src.ip()), &IpAddress::from(dst.ip()));
}

impl Gateway for Nat {
    fn handle_packet(&mut self, _: Micros, _: Meta, packet: &mut [u8]) -> Verdict {
        self.stats.count(Counter::PacketsIn);
        let p = crate::packet::Packet::parse(packet).expect("the network makes whole packets");
        let src = SocketAddr::new(p.src, p.sport);
        if SocketAddr::new(p.dst, p.dport) == self.psc {
            let port = self.port_of(src);
            rewrite(packet, SocketAddr::new(self.psc.ip(), port), self.original);
        } else if let Some((_, client)) = self
            .clients
            .iter()
            .find(|(port, _)| src == self.original && *port == p.dport)
        {
            rewrite(packet, self.psc, *client);
        } else {
            self.stats.drop(DropReason::NotOurs);
            return Verdict::Drop(DropReason::NotOurs);
        }
        self.stats.count(Counter::Accepted);
        Verdict::Accept { len: packet.len() }
    }
    fn poll_part(&mut self, _: Micros, _: &mut Outbox, _: usize) {}
    fn next_deadline(&self) -> Option<Micros> {
        None
    }
    fn take_event(&mut self) -> Option<Event> {
        None
    }
    fn command(&mut self, _: Micros, _: Command) {}
    fn heard(&self) -> Option<MachineRef> {
        None
    }
    fn probe_age(&self) -> Option<Micros> {
        None
    }
    fn probe(&mut self, _: Probe, _: &mut Outbox) {}
    fn status(&self) -> ShardStatus {
        ShardStatus {
            stats: self.stats.clone(),
            ..ShardStatus::default()
        }
    }
}
