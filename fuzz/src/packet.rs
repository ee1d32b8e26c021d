//! Packets as somebody else reads them: where TCP starts, and etherparse's opinion of its checksum.

use etherparse::TcpSlice;
use relevo::wire::Parsed;
use std::net::IpAddr;

/// Where the TCP header of a packet that parses starts, found independently of the code under test.
#[must_use]
pub fn tcp_start(bytes: &[u8]) -> usize {
    if bytes[0] >> 4 == 4 {
        return usize::from(bytes[0] & 15) * 4;
    }
    let (mut at, mut next) = (40, bytes[6]);
    while next != 6 {
        next = bytes[at];
        at += (usize::from(bytes[at + 1]) + 1) * 8;
    }
    at
}

/// The checksum that a packet carries, and the one that etherparse computes for it.
#[must_use]
pub fn checksums(bytes: &[u8], parsed: &Parsed) -> (u16, u16) {
    let segment = TcpSlice::from_slice(&bytes[tcp_start(bytes)..parsed.len()]).expect("etherparse reads what we read");
    let right = match (parsed.src.ip(), parsed.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => segment.calc_checksum_ipv4(src.octets(), dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => segment.calc_checksum_ipv6(src.octets(), dst.octets()),
        _ => unreachable!("both addresses come from one header"),
    };
    (segment.checksum(), right.expect("short enough"))
}

/// Whether the checksum is right; 0x0000 and 0xffff are one number to a receiver (RFC 1071).
#[must_use]
pub fn is_right(bytes: &[u8], parsed: &Parsed) -> bool {
    let (found, right) = checksums(bytes, parsed);
    found == right || (found == 0xffff && right == 0) || (found == 0 && right == 0xffff)
}

/// How far the checksum is off the right one, in one's-complement arithmetic.
#[must_use]
pub fn error(bytes: &[u8], parsed: &Parsed) -> u32 {
    let (found, right) = checksums(bytes, parsed);
    (u32::from(found) + u32::from(!right)) % 65_535
}

/// Asserts that IPv4's header checksum is right: word by word, for etherparse leaves the reserved flag out of its sum.
pub fn assert_ip_header(bytes: &[u8]) {
    if bytes[0] >> 4 == 4 {
        let words = bytes[..tcp_start(bytes)].chunks(2);
        let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        assert_eq!((sum - 1) % 65_535 + 1, 65_535, "RFC 1071: all words sum to 0xffff");
    }
}

/// Makes lengths and TCP checksum of a packet right as far as there are any, so that mutated bytes get past the first look.
pub fn repair(bytes: &mut [u8]) {
    let len = bytes.len();
    match bytes.first().map(|first| first >> 4) {
        Some(4) if len >= 20 => {
            bytes[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
            bytes[6..8].copy_from_slice(&[0x40, 0]);
            bytes[9] = 6;
        }
        Some(6) if len >= 40 => bytes[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap_or(0).to_be_bytes()),
        _ => return,
    }
    if let Ok(parsed) = Parsed::parse(bytes) {
        let (_, right) = checksums(bytes, &parsed);
        let at = tcp_start(bytes) + 16;
        bytes[at..at + 2].copy_from_slice(&right.to_be_bytes());
    }
}
