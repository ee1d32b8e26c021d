//! What the engine wants sent: whole IP packets in one reused arena, so that the steady path allocates nothing.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;

/// Packets that the engine originated, in order. Reused: [`Outbox::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    packets: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    dst: IpAddr,
    place: Range<usize>,
    cut: Option<NonZeroU16>,
}

/// A packet of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its destination.
    pub dst: IpAddr,
    /// From the IP header on.
    pub bytes: &'a [u8],
    /// `None`: a packet as it is to be on the wire, checksums complete. Otherwise a super-packet: the host cuts it into segments with so many
    /// bytes of payload each, the last one perhaps fewer, and the TCP checksum field holds the pseudo header's sum
    /// ([`crate::wire::Segment::write_uncut`]).
    pub cut: Option<NonZeroU16>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Appends a packet of `len` zeroed bytes for `dst` and returns them to be filled in.
    pub fn push(&mut self, dst: IpAddr, len: usize) -> &mut [u8] {
        self.push_cut(dst, len, None)
    }
    /// As [`Outbox::push`], perhaps for a super-packet: see [`Packet::cut`].
    pub fn push_cut(&mut self, dst: IpAddr, len: usize, cut: Option<NonZeroU16>) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.packets.push(Entry {
            dst,
            place: start..start + len,
            cut,
        });
        &mut self.bytes[start..]
    }
    /// The packets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Packet<'_>> {
        self.packets.iter().map(|entry| Packet {
            dst: entry.dst,
            bytes: &self.bytes[entry.place.clone()],
            cut: entry.cut,
        })
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
