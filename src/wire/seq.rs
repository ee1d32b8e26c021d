//! Sequence numbers (RFC 9293 section 3.4): 32 bits, wrapping, so "before" and "after" only mean something within half the space.

use std::fmt;

/// A TCP sequence number in host byte order. Arithmetic wraps; there is no `Ord`, because a circle has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `n` octets later.
    #[must_use]
    pub const fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The number `n` octets earlier.
    #[must_use]
    pub const fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// The signed way from `base` to `self`: positive if `self` is later. At exactly half the space it is `i32::MIN`.
    #[must_use]
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the sign is the point: RFC 9293 section 3.4 compares modulo 2^32"
    )]
    pub const fn diff(self, base: Self) -> i32 {
        self.0.wrapping_sub(base.0) as i32
    }

    /// Whether `self` is earlier than `other`.
    #[must_use]
    pub const fn lt(self, other: Self) -> bool {
        self.diff(other) < 0
    }

    /// Whether `self` is `other` or earlier.
    #[must_use]
    pub const fn le(self, other: Self) -> bool {
        self.diff(other) <= 0
    }

    /// Whether `self` is later than `other`.
    #[must_use]
    pub const fn gt(self, other: Self) -> bool {
        self.diff(other) > 0
    }

    /// Whether `self` is `other` or later.
    #[must_use]
    pub const fn ge(self, other: Self) -> bool {
        self.diff(other) >= 0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;
    use proptest::prelude::*;

    #[test]
    fn arithmetic_wraps() {
        assert_eq!(Seq(u32::MAX).add(1), Seq(0));
        assert_eq!(Seq(0).sub(1), Seq(u32::MAX));
        assert_eq!(Seq(5).diff(Seq(u32::MAX - 4)), 10);
        assert_eq!(Seq(u32::MAX - 4).diff(Seq(5)), -10);
    }

    #[test]
    fn comparison_goes_the_short_way_round() {
        let before = Seq(u32::MAX - 1);
        let after = Seq(3);
        assert!(before.lt(after) && before.le(after) && !before.gt(after) && !before.ge(after));
        assert!(after.gt(before) && after.ge(before) && !after.lt(before) && !after.le(before));
        assert!(after.le(after) && after.ge(after) && !after.lt(after) && !after.gt(after));
    }

    #[test]
    fn half_the_space_away_is_earlier_both_ways() {
        assert_eq!(Seq(0).diff(Seq(1 << 31)), i32::MIN);
        assert!(Seq(0).lt(Seq(1 << 31)) && Seq(1 << 31).lt(Seq(0)));
    }

    #[test]
    fn prints_as_a_number() {
        assert_eq!(format!("{} {:?}", Seq(7), Seq(u32::MAX)), "7 4294967295");
    }

    /// RFC 1982 section 3.2 for SERIAL_BITS = 32, word by word; undefined at exactly half the space.
    fn before_by_the_book(a: u32, b: u32) -> bool {
        (a < b && b - a < 1 << 31) || (a > b && a - b > 1 << 31)
    }

    #[test]
    fn comparison_is_rfc_1982_around_every_corner() {
        // Every distance within 2^14 of none, of half the space and of the whole, from bases on both sides of each edge.
        for base in [0, 1, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, u32::MAX - 1, u32::MAX] {
            for corner in [0u32, 1 << 31] {
                for step in 0..1u32 << 15 {
                    let other = base.wrapping_add(corner).wrapping_sub(1 << 14).wrapping_add(step);
                    let (a, b) = (Seq(base), Seq(other));
                    if other.wrapping_sub(base) == 1 << 31 {
                        assert!(
                            a.lt(b) && b.lt(a) && !a.gt(b),
                            "neither is before the other: told apart as if both were"
                        );
                        continue;
                    }
                    assert_eq!(a.lt(b), before_by_the_book(base, other), "{base} {other}");
                    assert_eq!(a.gt(b), before_by_the_book(other, base), "{base} {other}");
                    assert_eq!((a.le(b), a.ge(b)), (!a.gt(b), !a.lt(b)));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn comparison_is_rfc_1982_anywhere(a: u32, b: u32, shift: u32) {
            prop_assume!(a.wrapping_sub(b) != 1 << 31);
            prop_assert_eq!(Seq(a).lt(Seq(b)), before_by_the_book(a, b));
            prop_assert_eq!(Seq(a).add(shift).lt(Seq(b).add(shift)), Seq(a).lt(Seq(b)), "the same wherever on the circle");
            prop_assert_eq!(Seq(a).add(shift).sub(shift), Seq(a));
            prop_assert_eq!(i64::from(Seq(a).diff(Seq(b))), -i64::from(Seq(b).diff(Seq(a))));
            prop_assert_eq!(Seq(b).add(Seq(a).diff(Seq(b)).cast_unsigned()), Seq(a));
        }
    }
}
