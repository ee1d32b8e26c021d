//! The send buffer (R3): the client's bytes from the lowest position that a live leg has not acknowledged.
//!
//! It also knows where the client's PSH, URG and FIN were, and what the client had acknowledged when it sent each piece (R23).

use super::pack::Packer;
use super::pos::{Pos, span};
use super::rare::{Rare, Resting};
use super::stream::{Budget, Stream};
use std::collections::VecDeque;

/// How many changes of the client's acknowledgement one buffer remembers; beyond it packets are dropped and come again.
const MAX_MARKS: usize = 8_192;
/// How many PSH positions are remembered; losing the oldest costs a receiver a hint.
const MAX_PUSHES: usize = 32;

/// What a client's segment carries besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Piece {
    /// Position of the first byte (u).
    pub at: Pos,
    /// What the client had acknowledged when it sent the segment (v).
    pub acked: Pos,
    /// PSH was set.
    pub push: bool,
    /// FIN was set.
    pub fin: bool,
    /// End of urgent data (u), if URG was set.
    pub urgent: Option<Pos>,
}

/// The client's half of a flow.
#[derive(Debug)]
pub struct SendBuffer {
    stream: Stream,
    fin: Option<Pos>,
    notes: Rare<Notes>,
}

/// What is known of the bytes that are kept.
#[derive(Clone, Debug)]
struct Notes {
    urgent: Option<Pos>,
    /// From `.0` (u) on, bytes may go to a leg that has sent at least `.1` (v); both ascend (R23).
    marks: VecDeque<(Pos, Pos)>,
    /// The highest v that a segment beyond a hole acknowledged, a bare FIN among them.
    island_acked: Pos,
    pushes: VecDeque<Pos>,
}

impl Resting for Notes {
    const RESTING: &'static Self = &Self {
        urgent: None,
        marks: VecDeque::new(),
        island_acked: 0,
        pushes: VecDeque::new(),
    };
}

impl Default for SendBuffer {
    fn default() -> Self {
        Self {
            stream: Stream::new(1),
            fin: None,
            notes: Rare::new(),
        }
    }
}

impl SendBuffer {
    /// The end of the client's stream as far as it is whole, the FIN counted: what a receiver would call RCV.NXT.
    #[must_use]
    pub fn end(&self) -> Pos {
        self.stream.next() + Pos::from(self.fin == Some(self.stream.next()))
    }
    /// The lowest byte kept.
    #[must_use]
    pub fn base(&self) -> Pos {
        self.stream.base()
    }
    /// Position of the client's FIN, if it was seen.
    #[must_use]
    pub fn fin(&self) -> Option<Pos> {
        self.fin
    }
    /// End of the client's urgent data, if any lies beyond `from`.
    #[must_use]
    pub fn urgent_after(&self, from: Pos) -> Option<Pos> {
        self.notes.urgent.filter(|end| *end > from)
    }
    /// Whether the client set PSH on a byte in `[from, to)`.
    #[must_use]
    pub fn pushes_in(&self, from: Pos, to: Pos) -> bool {
        self.notes.pushes.iter().any(|p| from < *p && *p <= to)
    }
    /// Whether so many pieces wait for a leg that soon no more can be kept.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.notes.marks.len() >= MAX_MARKS / 2
    }
    /// The bytes `[from, from + len)` as two slices.
    #[must_use]
    pub fn slices(&self, from: Pos, len: usize) -> (&[u8], &[u8]) {
        self.stream.slices(from, len)
    }
    /// Nothing is kept, nor known of what was.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.stream.is_at_rest() && !self.notes.is_awake()
    }
    /// All that it consists of at rest (`park`). It is likely to stand near `near`.
    pub fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self { stream, fin, notes: _ } = self;
        stream.pack(p, near);
        p.option(fin, |p, at| p.pos(at, near));
    }
    /// Bytes of memory held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.stream.capacity()
    }

    /// Keeps a piece of the client's stream; false, and nothing changed, if a limit forbids it (R18).
    pub fn store(&mut self, piece: Piece, bytes: &[u8], limit: usize, budget: &mut Budget) -> bool {
        let before = self.end();
        if self.notes.marks.len() >= MAX_MARKS || !self.stream.store(piece.at, bytes, limit, budget) {
            return false;
        }
        self.note(piece, piece.at + span(bytes.len()), before);
        true
    }

    /// Follows the stream without keeping it: nobody is left who could ask for it.
    pub fn pass(&mut self, piece: Piece, len: usize) {
        let end = piece.at + span(len);
        if end > self.stream.next() {
            self.stream.advance(end);
        }
        if piece.fin {
            self.fin = self.fin.or(Some(end));
        }
        self.trim(self.stream.next());
    }

    fn note(&mut self, piece: Piece, end: Pos, before: Pos) {
        if piece.fin {
            self.fin = self.fin.or(Some(end));
        }
        let after = self.end();
        let has_islands = self.stream.has_islands() || self.fin.is_some_and(|fin| after <= fin);
        let notes = self.notes.wake();
        if piece.urgent.is_some() {
            notes.urgent = notes.urgent.max(piece.urgent);
        }
        if piece.push && end > before && notes.pushes.back().is_none_or(|p| *p < end) {
            if notes.pushes.len() >= MAX_PUSHES {
                notes.pushes.pop_front();
            }
            notes.pushes.push_back(end);
        }
        if after > before {
            // What fills a hole releases what waited behind it, so it carries the latest acknowledgement of them all. The original
            // had not seen the missing bytes either, so none of that output depends on them: no leg can wait for itself.
            let acked = piece.acked.max(notes.island_acked);
            if notes.marks.back().is_none_or(|m| m.1 < acked) {
                notes.marks.push_back((before, acked));
            }
        }
        notes.island_acked = if has_islands {
            notes.island_acked.max(piece.acked)
        } else {
            0
        };
    }

    /// How far a leg that has sent `sent` (v) may be fed (R23).
    #[must_use]
    pub fn released(&self, sent: Pos) -> Pos {
        let marks = &self.notes.marks;
        let next = marks.partition_point(|m| m.1 <= sent);
        marks.get(next).map_or(self.end(), |m| m.0)
    }

    /// Forgets what every live leg has acknowledged.
    pub fn trim(&mut self, to: Pos) {
        self.stream.advance(to.min(self.stream.next()));
        let Some(notes) = self.notes.awake() else { return };
        while notes.marks.len() > 1 && notes.marks[1].0 <= to {
            notes.marks.pop_front();
        }
        while notes.pushes.front().is_some_and(|p| *p <= to) {
            notes.pushes.pop_front();
        }
    }

    /// Whether [`SendBuffer::shrink`] could give memory back, now or once all is acknowledged.
    #[must_use]
    pub fn can_shrink(&self) -> bool {
        self.capacity() > 0 || (self.notes.is_awake() && self.needs_no_notes())
    }
    /// The next byte makes a mark of its own; but a FIN that waits for a machine's output is bound by the last one (R23).
    fn needs_no_notes(&self) -> bool {
        self.fin.is_none() && self.urgent_after(self.stream.next()).is_none()
    }

    /// Gives the memory back if nothing is kept.
    pub fn shrink(&mut self, budget: &mut Budget) {
        if self.stream.base() == self.stream.next() && !self.stream.has_islands() {
            self.stream.release(budget);
            if self.needs_no_notes() {
                self.notes.rest();
            }
        }
    }

    /// Gives the memory back, whatever is kept.
    pub fn release(&mut self, budget: &mut Budget) {
        self.stream.release(budget);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pos::length;
    use super::*;
    use proptest::prelude::*;

    fn piece(at: Pos, acked: Pos) -> Piece {
        Piece {
            at,
            acked,
            ..Piece::default()
        }
    }

    #[test]
    fn a_byte_waits_for_what_the_client_had_read() {
        let (mut b, mut budget) = (SendBuffer::default(), Budget::new(1 << 20));
        assert!(b.store(piece(1, 1), b"GET", 1 << 20, &mut budget));
        assert!(b.store(piece(4, 500), b"GET", 1 << 20, &mut budget));
        assert_eq!((b.released(1), b.released(499), b.released(500)), (4, 4, 7));
        b.trim(4);
        assert_eq!((b.released(1), b.released(500)), (4, 7));
    }

    #[test]
    fn pieces_behind_a_hole_wait_for_the_latest_of_them() {
        let (mut b, mut budget) = (SendBuffer::default(), Budget::new(1 << 20));
        assert!(b.store(piece(4, 20), b"def", 1 << 20, &mut budget));
        assert!(b.store(piece(1, 10), b"abc", 1 << 20, &mut budget));
        assert_eq!((b.released(10), b.released(20)), (1, 7));
    }

    #[test]
    fn a_bare_fin_behind_a_hole_waits_for_what_the_client_had_read() {
        let (mut b, mut budget) = (SendBuffer::default(), Budget::new(1 << 20));
        let fin = Piece {
            fin: true,
            ..piece(4, 20)
        };
        assert!(b.store(fin, b"", 1 << 20, &mut budget));
        assert!(b.store(piece(1, 10), b"abc", 1 << 20, &mut budget));
        assert_eq!((b.released(10), b.released(20)), (1, 5));
    }

    #[test]
    fn a_fin_is_a_position() {
        let (mut b, mut budget) = (SendBuffer::default(), Budget::new(1 << 20));
        assert!(b.store(
            Piece {
                fin: true,
                ..piece(3, 1)
            },
            b"cd",
            1 << 20,
            &mut budget
        ));
        assert_eq!(b.end(), 1);
        assert!(b.store(piece(1, 1), b"ab", 1 << 20, &mut budget));
        assert_eq!((b.end(), b.fin()), (6, Some(5)));
    }

    proptest! {
        /// R23, safety: no byte goes to a leg that has sent less than what the client had acknowledged when it sent that byte. And
        /// liveness: a leg that has sent all of it gets every byte that is whole.
        #[test]
        fn no_byte_is_released_before_what_its_sender_had_read(
            pieces in prop::collection::vec((1i64..60, 1usize..12, 1i64..40, any::<bool>()), 1..40),
        ) {
            let (mut b, mut budget) = (SendBuffer::default(), Budget::new(1 << 20));
            let mut read = [None; 80];
            let (mut acked, mut highest) = (1, 1);
            for (at, len, ack, trims) in pieces {
                // A client's acknowledgement only ever advances; its packets may be late.
                acked = acked.max(ack);
                let said = if trims { acked } else { ack };
                highest = highest.max(said);
                prop_assert!(b.store(piece(at, said), &vec![7; len], 1 << 20, &mut budget));
                for known in &mut read[length(at)..length(at) + len] {
                    known.get_or_insert(said);
                }
                for sent in 0..=highest {
                    let released = b.released(sent);
                    prop_assert!(released <= b.end() && released <= b.released(sent + 1));
                    for p in b.base()..released {
                        prop_assert!(read[length(p)].expect("stored") <= sent, "byte {} at {}", p, sent);
                    }
                }
                prop_assert_eq!(b.released(highest), b.end());
                if trims && at % 3 == 0 {
                    b.trim(at.min(b.end()));
                }
            }
        }
    }
}
