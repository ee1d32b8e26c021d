//! Packets as nobody's stack would send them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use super::SYN;

/// Sends a whole IP packet as it is.
pub fn send(packet: &[u8], mark: Option<u32>) -> io::Result<()> {
    let v4 = packet[0] >> 4 == 4;
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    // IPPROTO_RAW: the header is the sender's.
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    let to: IpAddr = if v4 {
        <[u8; 4]>::try_from(&packet[16..20]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
    };
    socket.send_to(packet, &SocketAddr::new(to, 0).into()).map(drop)
}

/// A TCP packet, with these flags in its byte.
pub fn tcp(from: &str, to: &str, flags: u8) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut packet = Vec::new();
    builder
        .tcp(from.port(), to.port(), 1, 1000)
        .write(&mut packet, &[])
        .unwrap();
    let header = if from.is_ipv4() { 20 } else { 40 };
    packet[header + 13] = flags;
    packet
}

/// The same packet as a fragment from this byte on, with more to come.
pub fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        // Bit 13 says that there is more; the offset counts in eights.
        packet[6..8].copy_from_slice(&(0x2000 | offset >> 3).to_be_bytes());
        return packet;
    }
    let next = std::mem::replace(&mut packet[6], 44);
    let [high, low] = (offset | 1).to_be_bytes();
    packet.splice(40..40, [next, 0, high, low, 0, 0, 0, 9]);
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// "Port unreachable" from the PSC's address, quoting a packet of this protocol.
pub fn unreachable(v4: bool, protocol: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    if v4 {
        let mut quoted = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
        quoted[9] = protocol;
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
        let builder = PacketBuilder::ipv4([10, 0, 1, 100], [10, 0, 1, 1], 64).icmpv4(kind);
        builder.write(&mut packet, &quoted).unwrap();
    } else {
        let mut quoted = tcp("[fd00:1::1]:40000", "[fd00:1::100]:80", SYN);
        quoted[6] = protocol;
        let [from, to] = ["fd00:1::100", "fd00:1::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let kind = etherparse::Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
        PacketBuilder::ipv6(from, to, 64)
            .icmpv6(kind)
            .write(&mut packet, &quoted)
            .unwrap();
    }
    packet
}
