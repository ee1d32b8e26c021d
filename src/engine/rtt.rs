//! Round-trip time and retransmission timeout (RFC 6298).

use super::pack::Packer;
use super::spec::{Micros, SECOND};

/// RFC 6298 (2.5): an upper bound must be at least 60 seconds.
const RTO_MAX: Micros = 60 * SECOND;
/// Clock granularity G of RFC 6298: the engine's microseconds are exact, its wake-ups are not.
const GRANULARITY: Micros = 1_000;

/// SRTT, RTTVAR and RTO of one leg. Every leg of every flow has one: 32 bits of microseconds are more than an hour.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    smoothed: Option<u32>,
    variation: u32,
    floor: u32,
    backoff: u8,
    /// Only a SYN has been measured.
    provisional: bool,
}

fn narrow(time: Micros) -> u32 {
    u32::try_from(time).unwrap_or(u32::MAX)
}

impl Rtt {
    /// Nothing measured yet. `floor` is the least RTO, and the first one: RFC 6298 (2.4) advises one second for the Internet;
    /// between the engine and its machines a replica must be given several tries within `replica_timeout` (R15).
    #[must_use]
    pub fn new(floor: Micros) -> Self {
        Self {
            smoothed: None,
            variation: 0,
            floor: narrow(floor),
            backoff: 0,
            provisional: false,
        }
    }

    /// All that it consists of (`park`).
    pub fn pack<P: Packer>(&mut self, p: &mut P) {
        let Self {
            smoothed,
            variation,
            floor,
            backoff,
            provisional,
        } = self;
        p.option(smoothed, Packer::small);
        p.small(variation);
        p.small(floor);
        p.small(backoff);
        p.flags([provisional]);
    }

    /// Takes a measurement of a SYN: it holds until there is one of data. A SYN may have waited for a link-layer address (up to a second), or
    /// for a link to come up, and at 1/8 a sample that would make a machine seem far away for the next fifty round trips.
    pub fn sample_syn(&mut self, rtt: Micros) {
        self.smoothed = None;
        self.sample(rtt);
        self.provisional = true;
    }

    /// Takes a measurement of a segment that was sent only once (Karn's algorithm is the caller's part).
    pub fn sample(&mut self, rtt: Micros) {
        let provisional = std::mem::take(&mut self.provisional);
        match self.smoothed.filter(|_| !provisional) {
            // RFC 6298 (2.2)
            None => {
                self.smoothed = Some(narrow(rtt));
                self.variation = narrow(rtt / 2);
            }
            // RFC 6298 (2.3): alpha = 1/8, beta = 1/4
            Some(smoothed) => {
                let (smoothed, rtt) = (Micros::from(smoothed), rtt.min(Micros::from(u32::MAX)));
                self.variation = narrow((3 * Micros::from(self.variation) + smoothed.abs_diff(rtt)) / 4);
                self.smoothed = Some(narrow((7 * smoothed + rtt) / 8));
            }
        }
    }

    /// Smoothed round-trip time in microseconds, once measured.
    #[must_use]
    pub fn smoothed(&self) -> Option<Micros> {
        self.smoothed.map(Micros::from)
    }

    /// The retransmission timeout in microseconds, backed off as often as it has expired.
    #[must_use]
    pub fn timeout(&self) -> Micros {
        let base = self
            .smoothed()
            .map_or(0, |s| s + GRANULARITY.max(4 * Micros::from(self.variation)))
            .max(Micros::from(self.floor));
        base.saturating_mul(1 << self.backoff.min(16)).min(RTO_MAX)
    }

    /// RFC 6298 (5.5): the timer expired.
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    /// New data was acknowledged.
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// How often the timer has expired since the last progress.
    #[must_use]
    pub fn backoffs(&self) -> u32 {
        u32::from(self.backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_measured_until_there_is_something_better() {
        let mut rtt = Rtt::new(10_000);
        rtt.sample_syn(900_000);
        assert_eq!(rtt.smoothed(), Some(900_000));
        rtt.sample(800);
        assert_eq!((rtt.smoothed(), rtt.timeout()), (Some(800), 10_000));
        rtt.sample(1_600);
        assert_eq!(rtt.smoothed(), Some(900));
    }

    #[test]
    fn timeout_follows_rfc_6298() {
        let mut rtt = Rtt::new(10_000);
        assert_eq!(rtt.timeout(), 10_000);
        rtt.sample(8_000);
        assert_eq!((rtt.smoothed(), rtt.timeout()), (Some(8_000), 8_000 + 4 * 4_000));
        rtt.sample(16_000);
        assert_eq!((rtt.smoothed(), rtt.timeout()), (Some(9_000), 9_000 + 4 * 5_000));
        rtt.back_off();
        assert_eq!(rtt.timeout(), 58_000);
        (0..40).for_each(|_| rtt.back_off());
        assert_eq!(rtt.timeout(), RTO_MAX);
        rtt.reset_backoff();
        assert_eq!(rtt.timeout(), 29_000);
    }
}
