//! Super-packets cut into segments, as the kernel does it: one header for all, numbers that go on, FIN and PSH on the last one alone.

use super::super::packet::{repair, tcp_start};
use relevo::engine::outbox::Packet;

const FIN_AND_PSH: u8 = 0x09;

/// The packets that reach the wire.
pub fn cut(packet: &Packet<'_>) -> Vec<Vec<u8>> {
    let Some(size) = packet.cut.map(|size| usize::from(size.get())) else {
        assert!(packet.more.is_empty(), "only a super-packet has more");
        return vec![packet.bytes.to_vec()];
    };
    assert!(
        packet.more.len() > size,
        "{} bytes need no cut at {size}",
        packet.more.len()
    );
    let tcp = tcp_start(packet.bytes);
    let length = packet.bytes.len() - tcp + packet.more.len();
    assert_eq!(
        word(packet.bytes, tcp + 16),
        pseudo_sum(packet.bytes, length),
        "the pseudo header's sum"
    );
    let last = (packet.more.len() - 1) / size;
    let pieces = packet.more.chunks(size).enumerate();
    pieces
        .map(|(i, piece)| {
            let mut segment = [packet.bytes, piece].concat();
            let at = tcp + 4;
            let first = u32::from(word(&segment, at)) << 16 | u32::from(word(&segment, at + 2));
            let seq = first.wrapping_add(u32::try_from(i * size).expect("less than 64 KiB"));
            segment[at..at + 4].copy_from_slice(&seq.to_be_bytes());
            if i < last {
                segment[tcp + 13] &= !FIN_AND_PSH;
            }
            repair(&mut segment);
            segment
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 9293 section 3.1: addresses, protocol and TCP length, folded and not complemented.
fn pseudo_sum(packet: &[u8], length: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let words = addresses.step_by(2).map(|at| u64::from(word(packet, at)));
    let mut sum = words.sum::<u64>() + 6 + length as u64;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}
