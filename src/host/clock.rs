//! The one clock: CLOCK_MONOTONIC in microseconds, which no date change moves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

use crate::engine::Micros;

/// A time in nanoseconds: what the stages of a worker take is measured in them.
pub type Nanos = u64;

/// Microseconds since an origin of the kernel's choice (boot). Never runs backwards; stands still while the host sleeps.
#[must_use]
pub fn now() -> Micros {
    micros(nanos())
}

/// The same in nanoseconds.
#[must_use]
pub fn nanos() -> Nanos {
    let t = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// What [`now`] would have said when [`nanos`] said that.
#[must_use]
pub fn micros(nanos: Nanos) -> Micros {
    nanos / 1_000
}

/// What a wall clock showed `at` a time not long ago, in microseconds since 1970-01-01 UTC: what it shows now, less what has passed since.
#[must_use]
pub fn since_1970(at: Micros) -> u64 {
    let passed = Duration::from_micros(now().saturating_sub(at));
    let shown = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(shown.saturating_sub(passed).as_micros()).unwrap_or(u64::MAX)
}

/// From now until `deadline`: zero if it has passed, `None` (wait for ever) without a deadline.
#[must_use]
pub fn until(deadline: Option<Micros>, now: Micros) -> Option<Duration> {
    deadline.map(|d| Duration::from_micros(d.saturating_sub(now)))
}

/// The same duration as the kernel wants it; an absurdly long one is cut to the longest that fits.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_forwards_in_microseconds() {
        let before = now();
        std::thread::sleep(Duration::from_millis(5));
        let passed = now() - before;
        assert!((5_000..5_000_000).contains(&passed), "{passed} us");
    }

    #[test]
    fn a_wall_clock_showed_less_before() {
        let wall = || {
            u64::try_from(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_micros(),
            )
        };
        let before = wall().expect("this side of the year 500,000");
        let at = now();
        let (shown, earlier) = (since_1970(at), since_1970(at - 1_000_000));
        let after = wall().expect("as before");
        // A microsecond may be lost where nanoseconds are cut off.
        assert!((before..=after + 1).contains(&(shown + 1)), "{before} {shown} {after}");
        assert!(
            (before..=after + 1).contains(&(earlier + 1_000_001)),
            "{before} {earlier} {after}"
        );
    }

    #[test]
    fn a_passed_deadline_waits_for_nothing() {
        assert_eq!(until(Some(10), 20), Some(Duration::ZERO));
        assert_eq!(until(Some(25), 20), Some(Duration::from_micros(5)));
        assert_eq!(until(None, 20), None);
    }
}
