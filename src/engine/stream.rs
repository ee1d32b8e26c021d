//! Bytes of one direction, kept by position: a ring that grows on demand, and what has arrived out of order.
//!
//! The send buffer (R3) and the output caches (R9) are built on it. Nothing is allocated while the ring is large enough, and
//! every byte of capacity is taken out of a [`Budget`] (R18).

use super::pack::Packer;
use super::pos::{Pos, length, span};
use super::ranges::Ranges;
use super::rare::{Rare, Resting};
use crate::mutant::{self, Mutation};

/// The smallest ring, in bytes: a request or two.
const SMALLEST: usize = 2_048;

/// The bytes that all buffers of a shard may take together (R18).
#[derive(Debug)]
pub struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }
    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }
    /// Whether more than three quarters are taken: windows close before anything has to be dropped (R5).
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used > self.limit / 4 * 3
    }
    fn swap(&mut self, give: usize, take: usize) -> bool {
        let used = self.used.saturating_sub(give).saturating_add(take);
        let fits = used <= self.limit || take <= give;
        if fits {
            self.used = used;
        }
        fits
    }
}

/// A window of a byte stream: `[base, next)` is whole, beyond it there may be islands.
#[derive(Debug, Default)]
pub struct Stream {
    base: Pos,
    next: Pos,
    kept: Rare<Kept>,
}

/// What is kept of it.
#[derive(Clone, Debug)]
struct Kept {
    islands: Ranges,
    ring: Vec<u8>,
}

impl Resting for Kept {
    const RESTING: &'static Self = &Self {
        islands: Ranges::EMPTY,
        ring: Vec::new(),
    };
}

impl Stream {
    /// An empty stream whose first byte will be at `start`. Allocates nothing.
    #[must_use]
    pub fn new(start: Pos) -> Self {
        Self {
            base: start,
            next: start,
            ..Self::default()
        }
    }
    /// The lowest position kept.
    #[must_use]
    pub fn base(&self) -> Pos {
        self.base
    }
    /// The end of what is whole.
    #[must_use]
    pub fn next(&self) -> Pos {
        self.next
    }
    /// Whether bytes wait beyond a hole.
    #[must_use]
    pub fn has_islands(&self) -> bool {
        !self.kept.islands.is_empty()
    }
    /// Bytes of memory held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.kept.ring.len()
    }

    /// Nothing is kept.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.kept.is_awake()
    }
    /// All that it consists of at rest (`park`). It is likely to stand near `near`.
    pub fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self { base, next, kept: _ } = self;
        p.pos(base, near);
        p.pos(next, *base);
    }

    /// Keeps `bytes` at `at`. What is already there stays as it is: a retransmission with other content changes nothing.
    /// False, and nothing changed, if it would not fit `limit` bytes above the base, the budget, or the number of islands.
    pub fn store(&mut self, at: Pos, bytes: &[u8], limit: usize, budget: &mut Budget) -> bool {
        let end = at + span(bytes.len());
        let from = at.max(self.next);
        if end <= from {
            return true;
        }
        if end - self.base > span(limit) || !self.reserve(end, budget) {
            return false;
        }
        if from > self.next || self.has_islands() {
            // A copy of the set is made only on this path, which is not the steady one.
            let mut islands = self.kept.islands.clone();
            if !islands.insert(from, end) {
                return false;
            }
            self.fill_gaps(from, at, bytes);
            self.kept.wake().islands = islands;
            self.join();
        } else {
            self.write(from, &bytes[length(from - at)..]);
            self.next = end;
        }
        true
    }

    fn fill_gaps(&mut self, from: Pos, at: Pos, bytes: &[u8]) {
        let end = at + span(bytes.len());
        let mut gap = self.kept.islands.skip(from);
        while gap < end {
            let stop = self.kept.islands.next_start(gap).unwrap_or(end).min(end);
            self.write(gap, &bytes[length(gap - at)..length(stop - at)]);
            gap = self.kept.islands.skip(stop);
        }
    }

    fn join(&mut self) {
        let whole = self.kept.islands.skip(self.next);
        if whole > self.next {
            self.next = whole;
            self.trim_islands(whole);
        }
    }

    fn trim_islands(&mut self, pos: Pos) {
        if let Some(kept) = self.kept.awake() {
            kept.islands.trim(pos);
        }
    }

    /// Forgets everything below `pos`, which may lie beyond what has arrived.
    pub fn advance(&mut self, pos: Pos) {
        if pos <= self.base {
            return;
        }
        self.base = pos;
        if self.next < pos {
            self.next = pos;
            self.trim_islands(pos);
            self.join();
        }
    }

    /// Gives up what is missing up to `pos`, or up to the first island; false if nothing is.
    pub fn skip_hole(&mut self, pos: Pos) -> bool {
        let start = self
            .kept
            .islands
            .next_start(self.next)
            .map_or(pos, |start| start.min(pos));
        let misses = start > self.next;
        if misses {
            self.advance(start);
        }
        misses
    }

    /// The bytes `[from, from + len)` as two slices, as far as they are whole and still kept.
    #[must_use]
    pub fn slices(&self, from: Pos, len: usize) -> (&[u8], &[u8]) {
        let len = len.min(length(self.next - from));
        if len == 0 || from < self.base {
            return (&[], &[]);
        }
        let start = self.index(from);
        let first = len.min(self.kept.ring.len() - start);
        (&self.kept.ring[start..start + first], &self.kept.ring[..len - first])
    }

    /// Gives the memory back. What was kept is lost: call it when nothing is, or when nobody will ask again.
    pub fn release(&mut self, budget: &mut Budget) {
        if !mutant::is(Mutation::MemoryLeaks) {
            budget.swap(self.kept.ring.len(), 0);
        }
        self.kept.rest();
        self.base = self.next;
    }

    fn index(&self, pos: Pos) -> usize {
        // The ring's length is a power of two; modulo it, all positions are small and not negative.
        length(pos & (span(self.kept.ring.len()) - 1))
    }

    fn write(&mut self, at: Pos, bytes: &[u8]) {
        let start = self.index(at);
        let first = bytes.len().min(self.kept.ring.len() - start);
        let Some(kept) = self.kept.awake() else { return };
        kept.ring[start..start + first].copy_from_slice(&bytes[..first]);
        kept.ring[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    fn reserve(&mut self, end: Pos, budget: &mut Budget) -> bool {
        let needed = length(end - self.base);
        if needed <= self.kept.ring.len() {
            return true;
        }
        let grown = needed.next_power_of_two().max(SMALLEST);
        if !budget.swap(self.kept.ring.len(), grown) {
            return false;
        }
        let old = std::mem::replace(&mut self.kept.wake().ring, vec![0; grown]);
        if !old.is_empty() {
            let split = length(self.base & (span(old.len()) - 1));
            self.write(self.base, &old[split..]);
            self.write(self.base + span(old.len() - split), &old[..split]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(s: &Stream, from: Pos, len: usize) -> Vec<u8> {
        let (a, b) = s.slices(from, len);
        [a, b].concat()
    }

    #[test]
    fn bytes_arrive_out_of_order_and_overlap() {
        let (mut s, mut budget) = (Stream::new(1), Budget::new(1 << 20));
        assert!(s.store(4, b"def", 100, &mut budget));
        assert_eq!(s.next(), 1);
        assert!(
            s.store(1, b"abcX", 100, &mut budget),
            "the X loses against the d that came first"
        );
        assert_eq!((s.next(), joined(&s, 1, 6)), (7, b"abcdef".to_vec()));
        s.advance(3);
        assert_eq!(joined(&s, 3, 9), b"cdef");
        assert!(!s.store(7, &[0; 101], 100, &mut budget), "over the limit");
        s.release(&mut budget);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_budget_is_a_bound() {
        let (mut s, mut budget) = (Stream::new(0), Budget::new(3_000));
        assert!(s.store(0, &[1; 2_000], 1 << 20, &mut budget));
        assert!(!s.store(2_000, &[1; 1_000], 1 << 20, &mut budget));
        assert_eq!(joined(&s, 0, 4_000), [1; 2_000]);
    }

    proptest! {
        #[test]
        fn any_order_of_pieces_gives_the_text(pieces in prop::collection::vec((0usize..6_000, 1usize..1_500), 1..80), start in 0i64..1 << 40) {
            let text: Vec<u8> = (0..8_000u32).map(|i| (i * 7 % 251) as u8).collect();
            let (mut s, mut budget) = (Stream::new(start), Budget::new(1 << 20));
            for (at, len) in pieces {
                s.store(start + span(at), &text[at..at + len], 1 << 20, &mut budget);
                let whole = length(s.next() - s.base());
                prop_assert_eq!(joined(&s, s.base(), whole), &text[length(s.base() - start)..][..whole]);
                if at % 5 == 0 {
                    s.advance(s.base() + span(whole / 2));
                }
            }
            s.release(&mut budget);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
