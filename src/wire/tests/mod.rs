//! Golden packets as byte arrays, and properties over arbitrary ones. The reference for checksums is another implementation.

mod build;
mod edit;
mod parse;
mod properties;

use super::*;

/// A SYN as Linux sends it: 10.0.0.1:40000 > 10.0.1.100:6379, ISN 2^32 - 2, MSS 1460, SACK permitted, timestamps, scale 7.
const SYN_V4: [u8; 60] = [
    0x45, 0x00, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0x09,
    0x12, // IHL 5, length 60, id, DF, TTL 64, TCP
    0x0a, 0x00, 0x00, 0x01, 0x0a, 0x00, 0x01, 0x64, // addresses
    0x9c, 0x40, 0x18, 0xeb, 0xff, 0xff, 0xff, 0xfe, 0x00, 0x00, 0x00, 0x00, // ports, seq, ack
    0xa0, 0x02, 0xfa, 0xf0, 0x82, 0x8f, 0x00, 0x00, // offset 10, SYN, window 64240, checksum, urgent pointer
    0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0xff, 0xff, 0xff, 0xf0, 0x00, 0x00, 0x00,
    0x00, // MSS, SACK, TS
    0x01, 0x03, 0x03, 0x07, // NOP, scale
];

/// Data over IPv6: [2001:db8::1]:40000 > [2001:db8::64]:6379, PSH|ACK, timestamps, two SACK blocks, payload "hello".
const DATA_V6: [u8; 97] = [
    0x60, 0x00, 0x00, 0x00, 0x00, 0x39, 0x06, 0x40, // payload length 57, TCP, hop limit 64
    0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, // source
    0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x64, // destination
    0x9c, 0x40, 0x18, 0xeb, 0x00, 0x00, 0x00, 0x05, 0xff, 0xff, 0xff, 0xff, // ports, seq, ack
    0xd0, 0x18, 0x01, 0xf6, 0xb7, 0x5c, 0x12, 0x34, // offset 13, PSH|ACK, window 502, checksum, urgent pointer
    0x01, 0x01, 0x08, 0x0a, 0x00, 0x00, 0x00, 0x10, 0xff, 0xff, 0xff, 0xf1, // NOP, NOP, timestamps
    0x01, 0x01, 0x05, 0x12, // NOP, NOP, SACK: the second block wraps
    0x00, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x14, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x09, //
    b'h', b'e', b'l', b'l', b'o',
];

/// Offset of the TCP header in [`SYN_V4`].
const TCP_V4: usize = 20;
/// Offset of the TCP header in [`DATA_V6`].
const TCP_V6: usize = 40;

fn addr(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}

/// The TCP checksum that the packet should have, as another implementation computes it.
fn reference_checksum(packet: &[u8]) -> u16 {
    let ip = etherparse::IpSlice::from_slice(packet).unwrap();
    let segment = etherparse::TcpSlice::from_slice(ip.payload().payload).unwrap();
    match (ip.source_addr(), ip.destination_addr()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            segment.calc_checksum_ipv4(src.octets(), dst.octets())
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            segment.calc_checksum_ipv6(src.octets(), dst.octets())
        }
        _ => unreachable!(),
    }
    .unwrap()
}

/// The TCP checksum that stands in the packet.
fn checksum_field(packet: &[u8]) -> u16 {
    let ip = etherparse::IpSlice::from_slice(packet).unwrap();
    etherparse::TcpSlice::from_slice(ip.payload().payload)
        .unwrap()
        .checksum()
}

/// TCP checksum right, and IPv4 header checksum too.
#[track_caller]
fn assert_checksums(packet: &[u8]) {
    assert_eq!(checksum_field(packet), reference_checksum(packet), "TCP checksum");
    let parsed = Parsed::parse(packet).unwrap();
    assert!(tcp_checksum_ok(packet, &parsed));
    assert_header_checksum(packet);
}

#[track_caller]
fn assert_header_checksum(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        let (header, _) = etherparse::Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(
            header.header_checksum,
            header.calc_header_checksum(),
            "IPv4 header checksum"
        );
    }
}

/// The packet [`SYN_V4`] with another option list; its checksums are right.
fn with_options(list: &[u8]) -> Vec<u8> {
    with_options_and_payload(list, &[])
}

/// An IPv4 ACK with these options (a multiple of four bytes) and payload; its checksums are right.
fn with_options_and_payload(list: &[u8], payload: &[u8]) -> Vec<u8> {
    assert_eq!(list.len() % 4, 0);
    let mut packet = SYN_V4[..40].to_vec();
    packet.extend_from_slice(list);
    packet.extend_from_slice(payload);
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[TCP_V4 + 12] = u8::try_from((20 + list.len()) / 4 * 16).unwrap();
    fix(&mut packet);
    packet
}

/// Puts right both checksums of a packet made by hand.
fn fix(packet: &mut [u8]) {
    let ip = etherparse::IpSlice::from_slice(packet).unwrap();
    let segment_len = ip.payload().payload.len();
    if packet[0] >> 4 == 4 {
        let (header, _) = etherparse::Ipv4Header::from_slice(packet).unwrap();
        packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
    let field = reference_checksum(packet).to_be_bytes();
    let at = packet.len() - segment_len + 16;
    packet[at..at + 2].copy_from_slice(&field);
}
