//! The engine's clock in one worker: monotonic time less what the worker slept past its deadlines.
//!
//! A worker that was itself not scheduled in time disqualifies its own evidence (R14). Its timers would otherwise fire, all
//! at once, for answers that are waiting in its queue or could not be asked for. So time that the worker did not see does not
//! pass for the engine: after an oversleep its clock goes on from just before the deadline, and packets are taken before timers.

use crate::engine::{MILLISECOND, Micros};

/// Waking this much later than asked for is a stall. The kernel's own lateness is some 50 µs; R14's floor is 5 ms.
pub const STALL: Micros = 5 * MILLISECOND;

/// Turns host time into engine time.
#[derive(Debug, Default)]
pub struct Pacer {
    /// How far engine time is behind host time.
    behind: Micros,
    /// The latest engine time given out.
    last: Micros,
    /// How often the worker stalled.
    stalls: u64,
}

impl Pacer {
    /// Engine time at host time `now`; never runs backwards.
    pub fn engine_time(&mut self, now: Micros) -> Micros {
        self.last = self.last.max(now.saturating_sub(self.behind));
        self.last
    }

    /// Host time of an engine deadline.
    #[must_use]
    pub fn host_time(&self, engine: Micros) -> Micros {
        engine.saturating_add(self.behind)
    }

    /// Takes note that the worker, which wanted to wake by engine time `deadline`, woke at host time `now`. Returns by how
    /// much it overslept if that was a stall.
    pub fn woke(&mut self, deadline: Option<Micros>, now: Micros) -> Option<Micros> {
        let late = now.saturating_sub(self.behind).checked_sub(deadline?)?;
        if late <= STALL {
            return None;
        }
        self.stalls += 1;
        // Resume a stall's worth before the deadline, so that whatever comes in now is still in time.
        let resume = deadline?.saturating_sub(STALL).max(self.last);
        self.behind = now.saturating_sub(resume);
        Some(late)
    }

    /// How often the worker stalled, and for how many microseconds in all.
    #[must_use]
    pub fn stalled(&self) -> (u64, Micros) {
        (self.stalls, self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_as_it_does_while_the_worker_keeps_up() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.engine_time(1_000), 1_000);
        assert_eq!(pacer.woke(Some(2_000), 2_050), None);
        assert_eq!(pacer.woke(None, 9_999_999), None, "slept without a deadline");
        assert_eq!(pacer.woke(Some(20_000), 3_000), None, "woken early by a packet");
        assert_eq!(pacer.engine_time(3_000), 3_000);
        assert_eq!(pacer.stalled(), (0, 0));
    }

    #[test]
    fn a_stall_does_not_age_the_evidence() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.engine_time(100_000), 100_000);
        assert_eq!(pacer.woke(Some(120_000), 520_000), Some(400_000));
        assert_eq!(
            pacer.engine_time(520_000),
            115_000,
            "before the deadline: packets first"
        );
        assert_eq!(pacer.engine_time(521_000), 116_000, "and on from there");
        assert_eq!(pacer.host_time(120_000), 525_000);
        assert_eq!(pacer.stalled(), (1, 405_000));
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.engine_time(100_000), 100_000);
        assert_eq!(pacer.woke(Some(101_000), 200_000), Some(99_000));
        assert_eq!(pacer.engine_time(200_000), 100_000);
        assert_eq!(pacer.engine_time(199_000), 100_000);
    }
}
