//! What others can cause comes at a limited rate: log lines (R18), and bursts of probes that begin again.

use crate::engine::{Micros, SECOND};

/// Lets a few through per interval, and tells how many it held back before the next one.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    burst: u32,
    interval: Micros,
    since: Option<Micros>,
    passed: u32,
    held_back: u64,
}

impl RateLimit {
    /// Five lines in ten seconds: enough to see what goes on, too few to fill a disk.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(5, 10 * SECOND)
    }

    /// So many in an interval.
    #[must_use]
    pub const fn of(burst: u32, interval: Micros) -> Self {
        Self {
            burst,
            interval,
            since: None,
            passed: 0,
            held_back: 0,
        }
    }

    /// Whether one may pass now, a line be written; if so, how many were held back since the last one.
    pub fn pass(&mut self, now: Micros) -> Option<u64> {
        if self
            .since
            .is_none_or(|since| now.saturating_sub(since) >= self.interval)
        {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed < self.burst {
            self.passed += 1;
            Some(std::mem::take(&mut self.held_back))
        } else {
            self.held_back += 1;
            None
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that is always late must still be able to prove a death.
    #[test]
    fn two_a_second_are_two() {
        let mut limit = RateLimit::of(2, SECOND);
        let passed = (0..100).filter(|i| limit.pass(SECOND + i * 5_000).is_some()).count();
        assert_eq!(passed, 2);
        assert!(limit.pass(3 * SECOND).is_some());
    }

    #[test]
    fn a_burst_passes_the_rest_is_counted() {
        let mut limit = RateLimit::new();
        for _ in 0..5 {
            assert_eq!(limit.pass(7), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(limit.pass(8), None);
        }
        assert_eq!(limit.pass(7 + 10 * SECOND), Some(3));
        assert_eq!(limit.pass(7 + 10 * SECOND), Some(0));
    }
}
