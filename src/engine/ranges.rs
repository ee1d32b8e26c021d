//! A small bounded set of byte ranges: what has arrived out of order, what a peer has selectively acknowledged.

use super::pos::Pos;

/// How many separate ranges one set holds. A stream with more holes than this is treated as lost beyond them.
pub const MAX_RANGES: usize = 64;

/// Disjoint, non-adjacent, ascending half-open ranges of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    list: Vec<(Pos, Pos)>,
}

impl Ranges {
    /// No range.
    pub const EMPTY: Self = Self { list: Vec::new() };

    /// Adds `[from, to)`; false (and nothing changed) if that would make too many ranges.
    pub fn insert(&mut self, from: Pos, to: Pos) -> bool {
        if from >= to {
            return true;
        }
        let first = self.list.partition_point(|r| r.1 < from);
        let last = self.list.partition_point(|r| r.0 <= to);
        if first == last {
            if self.list.len() >= MAX_RANGES {
                return false;
            }
            self.list.insert(first, (from, to));
            return true;
        }
        let merged = (from.min(self.list[first].0), to.max(self.list[last - 1].1));
        self.list[first] = merged;
        self.list.drain(first + 1..last);
        true
    }

    /// Forgets everything below `pos`.
    pub fn trim(&mut self, pos: Pos) {
        let gone = self.list.partition_point(|r| r.1 <= pos);
        self.list.drain(..gone);
        if let Some(first) = self.list.first_mut() {
            first.0 = first.0.max(pos);
        }
    }

    /// The end of the range that contains `pos`, or `pos` itself.
    #[must_use]
    pub fn skip(&self, pos: Pos) -> Pos {
        match self.list.iter().find(|r| r.0 <= pos && pos < r.1) {
            Some(range) => range.1,
            None => pos,
        }
    }

    /// The start of the first range that begins after `pos`.
    #[must_use]
    pub fn next_start(&self, pos: Pos) -> Option<Pos> {
        self.list.iter().find(|r| r.0 > pos).map(|r| r.0)
    }

    /// The end of the highest range.
    #[must_use]
    pub fn highest(&self) -> Option<Pos> {
        self.list.last().map(|r| r.1)
    }

    /// Bytes in all ranges.
    #[must_use]
    pub fn total(&self) -> Pos {
        self.list.iter().map(|r| r.1 - r.0).sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_merge_and_trim() {
        let mut r = Ranges::default();
        assert!(r.insert(10, 20) && r.insert(30, 40) && r.insert(20, 30));
        assert_eq!(r.list, [(10, 40)]);
        r.trim(15);
        assert_eq!(
            (r.skip(20), r.skip(5), r.next_start(5), r.total()),
            (40, 5, Some(15), 25)
        );
    }

    /// All sequences of four steps over seven positions, each an insertion or a trim, against a set of bits.
    #[test]
    fn ranges_equal_a_set_of_bits_exhaustively() {
        const WIDTH: Pos = 7;
        let mut steps = vec![];
        for from in 0..WIDTH {
            steps.push((from, None));
            steps.extend((from + 1..=WIDTH).map(|to| (from, Some(to))));
        }
        let mut todo = vec![(Ranges::default(), 0u8, 0)];
        while let Some((ranges, bits, depth)) = todo.pop() {
            agree(&ranges, bits, WIDTH);
            for (from, to) in steps.iter().filter(|_| depth < 4) {
                let (mut next, mut model) = (ranges.clone(), bits);
                if let Some(to) = to {
                    assert!(next.insert(*from, *to));
                    (*from..*to).for_each(|p| model |= 1 << p);
                } else {
                    next.trim(*from);
                    (0..*from).for_each(|p| model &= !(1 << p));
                }
                todo.push((next, model, depth + 1));
            }
        }
    }

    fn agree(ranges: &Ranges, bits: u8, width: Pos) {
        let has = |p: Pos| bits >> p & 1 == 1;
        for p in 0..width {
            let skipped = (p..).find(|q| *q >= width || !has(*q)).unwrap();
            assert_eq!(ranges.skip(p), skipped, "{ranges:?}");
            let start = (p + 1..width).find(|q| has(*q) && !has(*q - 1));
            assert_eq!(ranges.next_start(p), start, "{ranges:?}");
        }
        assert_eq!(ranges.highest(), (0..width).rev().find(|p| has(*p)).map(|p| p + 1));
        assert_eq!(ranges.total(), Pos::from(bits.count_ones()));
        assert_eq!(ranges.is_empty(), bits == 0);
        assert!(ranges.list.iter().all(|r| r.0 < r.1));
        assert!(ranges.list.windows(2).all(|w| w[0].1 < w[1].0));
    }

    #[test]
    fn too_many_ranges_change_nothing() {
        let mut ranges = Ranges::default();
        assert!((0..64).all(|i| ranges.insert(3 * i, 3 * i + 1)));
        let before = ranges.clone();
        assert!(!ranges.insert(1_000, 1_001));
        assert_eq!(ranges, before);
        assert!(ranges.insert(1, 3), "what joins two is welcome");
        assert_eq!(ranges.list.len(), MAX_RANGES - 1);
    }

    proptest! {
        #[test]
        fn ranges_equal_a_set_of_numbers(ops in prop::collection::vec((0i64..200, 0i64..30, any::<bool>()), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
            for (from, len, trim) in ops {
                if trim && len == 7 {
                    ranges.trim(from);
                    model.retain(|p| *p >= from);
                } else if ranges.insert(from, from + len) {
                    model.extend(from..from + len);
                }
                prop_assert_eq!(ranges.total(), model.len() as i64);
                for p in 0..240 {
                    prop_assert_eq!(ranges.skip(p) > p, model.contains(&p));
                }
                prop_assert!(ranges.list.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
