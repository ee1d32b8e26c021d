//! Super-packets cut into segments, as the kernel does it (Linux `tcp_gso_segment`, `inet_gso_segment`): one header for all, numbers that go on, FIN and
//! PSH on the last one alone.

use std::num::NonZeroU16;

use relevo::engine::outbox;

use crate::books::{Violation, ensure};
use crate::packet::{FIN, PSH, Packet, fold, sum};

/// The segments of a super-packet, of `size` bytes each and a last one.
pub fn cut(packet: &outbox::Packet<'_>, size: NonZeroU16) -> Result<Vec<Vec<u8>>, Violation> {
    let whole = [packet.bytes, packet.more].concat();
    let read = Packet::parse(&whole).map_err(|text| Violation { rule: "I7", text })?;
    ensure!(
        read.len == packet.more.len() && read.len > usize::from(size.get()),
        "contract",
        "a super-packet with {} bytes of payload, {} of them behind its headers, for segments of {size}",
        read.len,
        packet.more.len()
    );
    ensure!(
        read.flags & !(FIN | PSH) == crate::packet::ACK,
        "contract",
        "flags {} in a super-packet",
        read.flag_names()
    );
    let tcp = if whole[0] >> 4 == 4 { 20 } else { 40 };
    let length = whole.len() - tcp;
    ensure!(
        u16::from_be_bytes([whole[tcp + 16], whole[tcp + 17]]) == fold(addresses(&whole) + 6 + length as u64),
        "checksum",
        "the pseudo header's sum of a super-packet is wrong"
    );
    let pieces = packet.more.chunks(usize::from(size.get()));
    let last = pieces.len() - 1;
    Ok(pieces
        .enumerate()
        .map(|(i, piece)| segment(packet.bytes, piece, i * usize::from(size.get()), i as u16, i == last))
        .collect())
}

fn addresses(packet: &[u8]) -> u64 {
    sum(if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    })
}

/// One segment, `offset` bytes from the beginning.
fn segment(headers: &[u8], payload: &[u8], offset: usize, number: u16, last: bool) -> Vec<u8> {
    let mut b = [headers, payload].concat();
    let total = b.len();
    let tcp = if b[0] >> 4 == 4 {
        b[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        let id = u16::from_be_bytes([b[4], b[5]]).wrapping_add(number);
        b[4..6].copy_from_slice(&id.to_be_bytes());
        b[10..12].fill(0);
        let header = !fold(sum(&b[..20]));
        b[10..12].copy_from_slice(&header.to_be_bytes());
        20
    } else {
        b[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        40
    };
    let seq = u32::from_be_bytes([b[tcp + 4], b[tcp + 5], b[tcp + 6], b[tcp + 7]]).wrapping_add(offset as u32);
    b[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    if !last {
        b[tcp + 13] &= !(FIN | PSH);
    }
    b[tcp + 16..tcp + 18].fill(0);
    let field = !fold(addresses(&b) + 6 + (total - tcp) as u64 + sum(&b[tcp..]));
    b[tcp + 16..tcp + 18].copy_from_slice(&field.to_be_bytes());
    b
}
