//! What the engine wants sent: whole IP packets in reused arenas, so that the steady path allocates nothing.
//!
//! Legs of one flow are sent the same bytes at much the same time. What a super-packet carries is therefore kept once for all of them, apart from
//! the headers.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;

use super::pos::{Pos, length, span};

/// Packets that the engine originated, in order. Reused: [`Outbox::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    shared: Vec<u8>,
    window: Window,
    packets: Vec<Entry>,
}

/// The bytes at the end of `shared` that belong to the flow at work.
#[derive(Debug, Default)]
struct Window {
    /// Where they begin in `shared`.
    start: usize,
    /// Position (u) of the first.
    from: Pos,
}

#[derive(Debug)]
struct Entry {
    dst: IpAddr,
    place: Range<usize>,
    shared: Range<usize>,
    cut: Option<NonZeroU16>,
}

/// A packet of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its destination.
    pub dst: IpAddr,
    /// From the IP header on; of a super-packet, its headers.
    pub bytes: &'a [u8],
    /// The rest of a super-packet.
    pub more: &'a [u8],
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
        self.push_entry(dst, len, 0..0, None)
    }
    /// Appends a super-packet, to be cut by `cut`, and returns its `len` bytes of headers to be filled in. It carries what
    /// [`Outbox::share`] has given.
    pub fn push_uncut(&mut self, dst: IpAddr, len: usize, shared: Range<usize>, cut: NonZeroU16) -> &mut [u8] {
        self.push_entry(dst, len, shared, Some(cut))
    }
    fn push_entry(&mut self, dst: IpAddr, len: usize, shared: Range<usize>, cut: Option<NonZeroU16>) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        let place = start..start + len;
        self.packets.push(Entry {
            dst,
            place,
            shared,
            cut,
        });
        &mut self.bytes[start..]
    }

    /// Another flow's turn, or the same one's with other bytes: nothing is shared with what was before.
    pub fn begin_flow(&mut self) {
        self.window = Window {
            start: self.shared.len(),
            from: 0,
        };
    }
    /// The place of the bytes `[from, from + len)` (u) of the flow at work, of which `slices` gives any part, as two slices. What is there already
    /// is not copied again.
    pub fn share<'a>(
        &mut self,
        from: Pos,
        len: usize,
        slices: impl Fn(Pos, usize) -> (&'a [u8], &'a [u8]),
    ) -> Range<usize> {
        let known = self.window.from + span(self.shared.len() - self.window.start);
        if from < self.window.from || from > known {
            self.window = Window {
                start: self.shared.len(),
                from,
            };
        }
        let start = self.window.start + length(from - self.window.from);
        let lacking = (start + len).saturating_sub(self.shared.len());
        if lacking > 0 {
            let (first, second) = slices(from + span(len - lacking), lacking);
            self.shared.extend_from_slice(first);
            self.shared.extend_from_slice(second);
        }
        start..start + len
    }

    /// The packets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Packet<'_>> {
        self.packets.iter().map(|entry| Packet {
            dst: entry.dst,
            bytes: &self.bytes[entry.place.clone()],
            more: &self.shared[entry.shared.clone()],
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
        self.shared.clear();
        self.window = Window::default();
        self.packets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_once_for_all_legs() {
        let stream: Vec<u8> = (0..100).collect();
        let slices = |from: Pos, len: usize| {
            let all = &stream[length(from)..length(from) + len];
            all.split_at(len / 2)
        };
        let mut out = Outbox::new();
        let add = |out: &mut Outbox, from: Pos, len: usize| {
            let shared = out.share(from, len, slices);
            out.push_uncut([10, 0, 0, 1].into(), 0, shared, NonZeroU16::MIN);
        };
        out.begin_flow();
        for (from, len) in [(10, 20), (10, 20), (15, 30), (45, 5), (0, 5), (60, 10)] {
            add(&mut out, from, len);
        }
        out.begin_flow();
        add(&mut out, 60, 10);
        let carried: Vec<&[u8]> = out.iter().map(|packet| packet.more).collect();
        let expected = [10..30, 10..30, 15..45, 45..50, 0..5, 60..70, 60..70].map(|range| &stream[range]);
        assert_eq!(carried, expected);
        // [10, 50) once, and what could not be shared.
        assert_eq!(out.shared.len(), 40 + 5 + 10 + 10);
        out.clear();
        add(&mut out, 1, 3);
        assert_eq!(out.iter().next().map(|packet| packet.more), Some(&stream[1..4]));
    }
}
