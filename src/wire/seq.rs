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
}
