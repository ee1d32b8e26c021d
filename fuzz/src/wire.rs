//! Any bytes as a packet: what is said of them agrees with etherparse.

use super::packet::{is_right, tcp_start};
use etherparse::TcpSlice;
use relevo::wire::{Parsed, tcp_checksum_ok};

/// Parses `data`.
pub fn run(data: &[u8]) {
    let Ok(parsed) = Parsed::parse(data) else { return };
    assert!(parsed.len() <= data.len());
    assert_eq!(parsed.payload(data).len(), parsed.payload_len());
    let segment = TcpSlice::from_slice(&data[tcp_start(data)..parsed.len()]).expect("etherparse reads what we read");
    assert_eq!(
        (parsed.src.port(), parsed.dst.port()),
        (segment.source_port(), segment.destination_port())
    );
    assert_eq!(
        (parsed.seq.0, parsed.ack.0, parsed.window, parsed.urgent),
        (
            segment.sequence_number(),
            segment.acknowledgment_number(),
            segment.window_size(),
            segment.urgent_pointer()
        )
    );
    assert_eq!(parsed.payload(data), segment.payload());
    assert_eq!(tcp_checksum_ok(data, &parsed), is_right(data, &parsed));
}
