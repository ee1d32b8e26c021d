//! Where a worker's time goes, packet by packet: histograms that never allocate after their making, read by `relevo status`.
//!
//! In nanoseconds, since a verdict takes about one microsecond. Counted since the start of the daemon.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::host::clock::Nanos;

/// The longest time that is told apart: 10 s. What takes longer counts as that.
const LONGEST: Nanos = 10_000_000_000;
/// Two significant digits: a quantile is off by 1 % at most, and a histogram takes some 28 KiB.
const DIGITS: u8 = 2;

/// The stages of a worker's work.
#[derive(Debug)]
pub struct Times {
    /// A packet in the engine, from its arrival in the worker to the engine's word.
    pub engine: Stage,
    /// From a packet's arrival in the worker until the kernel has its verdict; a verdict "drop" may be handed over later, in a batch.
    pub verdict: Stage,
    /// One turn of the work that no verdict waits for, the sending of what comes of it included; turns without a packet to send are not counted.
    pub deferred: Stage,
}

impl Times {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            engine: Stage::new(),
            verdict: Stage::new(),
            deferred: Stage::new(),
        }
    }

    /// As it stands.
    #[must_use]
    pub fn report(&self) -> TimesReport {
        TimesReport {
            engine_ns: self.engine.report(),
            verdict_ns: self.verdict.report(),
            deferred_ns: self.deferred.report(),
        }
    }
}

/// How long one stage has taken, each time.
#[derive(Debug)]
pub struct Stage {
    histogram: Option<Histogram<u64>>,
    sum: Nanos,
}

impl Stage {
    fn new() -> Self {
        Self {
            // Bounds that the crate takes; if it ever did not, `status` would say that nothing was measured.
            histogram: Histogram::new_with_bounds(1, LONGEST, DIGITS).ok(),
            sum: 0,
        }
    }

    /// Takes a measurement.
    pub fn note(&mut self, took: Nanos) {
        self.sum = self.sum.saturating_add(took);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(took);
        }
    }

    fn report(&self) -> StageReport {
        let Some(histogram) = &self.histogram else {
            return StageReport::default();
        };
        StageReport {
            count: histogram.len(),
            sum: self.sum,
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// A worker's stages in the answer to `status`, all in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimesReport {
    /// [`Times::engine`].
    pub engine_ns: StageReport,
    /// [`Times::verdict`].
    pub verdict_ns: StageReport,
    /// [`Times::deferred`].
    pub deferred_ns: StageReport,
}

/// One stage: how often, how long in all, and how that is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// Measurements.
    pub count: u64,
    /// All of them together.
    pub sum: u64,
    /// The median.
    pub p50: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
    /// 999 of 1,000 took no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_how_its_times_are_spread() {
        let mut times = Times::new();
        for n in 1..=1_000 {
            times.verdict.note(n * 10);
        }
        let report = times.report().verdict_ns;
        assert_eq!((report.count, report.sum), (1_000, 5_005_000));
        for (said, exact) in [
            (report.p50, 5_000),
            (report.p99, 9_900),
            (report.p999, 9_990),
            (report.max, 10_000),
        ] {
            assert!(said >= exact && said <= exact + exact / 100, "{report:?}");
        }
        assert_eq!(times.report().engine_ns, StageReport::default());
    }

    #[test]
    fn what_takes_for_ever_counts_as_the_longest() {
        let mut times = Times::new();
        times.deferred.note(u64::MAX);
        times.deferred.note(u64::MAX);
        let report = times.report().deferred_ns;
        assert_eq!((report.count, report.sum), (2, u64::MAX));
        assert!(
            report.max >= LONGEST && report.max <= LONGEST + LONGEST / 50,
            "{report:?}"
        );
    }
}
