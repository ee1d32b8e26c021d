//! What the engine wants sent: whole IP packets in one reused arena, so that the steady path allocates nothing.

use std::net::IpAddr;
use std::ops::Range;

/// Packets that the engine originated, in order. Reused: [`Outbox::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    packets: Vec<(IpAddr, Range<usize>)>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Appends a packet of `len` zeroed bytes for `dst` and returns them to be filled in.
    pub fn push(&mut self, dst: IpAddr, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.packets.push((dst, start..start + len));
        &mut self.bytes[start..]
    }
    /// The packets: destination and bytes from the IP header on, checksums complete.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (IpAddr, &[u8])> {
        self.packets
            .iter()
            .map(|(dst, range)| (*dst, &self.bytes[range.clone()]))
    }
    /// How many packets are waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }
    /// Whether nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
    /// Forgets the packets, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }
}
