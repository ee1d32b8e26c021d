//! How long the way to a machine is, as its answers to probes say.

use crate::engine::spec::Micros;

/// Round-trip time of probes. A sample is an answer to the last probe, once for each (Karn's rule, RFC 6298 section 3, for the same reason: an
/// answer that is sent again, or to a probe before a loss, would measure the loss); each says itself which probe it answers.
///
/// A probe may have waited where no later one will: for a link-layer address, for a link to come up, for a processor. So the first sample, and
/// any that is much longer than what was known, is followed at once, but doubted: another probe is to confirm it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// When the last probe was sent, until it is answered.
    asked_at: Option<Micros>,
    /// Follows a rise at once, a fall slowly.
    round_trip: Option<Micros>,
    /// When a sample came in that a later probe is to confirm.
    doubted_at: Option<Micros>,
}

/// What the clock that an answer's time of sending was read from may be coarser or earlier by than ours.
const TOLERANCE: Micros = 500;

impl Way {
    /// A probe is sent.
    pub fn ask(&mut self, now: Micros) {
        self.asked_at = Some(now);
    }

    /// An answer came `at` a time, to a probe sent at another. The first is taken whatever was asked since: to a machine far away more than
    /// one probe may be on its way.
    pub fn answered(&mut self, sent: Micros, at: Micros) {
        let sample = at.saturating_sub(sent);
        if self.asked_at.is_some_and(|asked| sent + TOLERANCE >= asked) {
            self.asked_at = None;
        } else if self.round_trip.is_some() {
            return;
        }
        if self.doubted_at.is_some_and(|doubted| sent + TOLERANCE < doubted) {
            // It waited for the same.
            return;
        }
        let known = self.round_trip.filter(|_| self.doubted_at.is_none());
        let doubtful = self.doubted_at.is_none() && known.is_none_or(|rtt| sample > 2 * rtt);
        self.doubted_at = doubtful.then_some(at);
        self.round_trip = Some(known.map_or(sample, |rtt| sample.max((3 * rtt + sample) / 4)));
    }

    /// The next probe should be sent at once.
    pub fn is_doubtful(&self) -> bool {
        self.doubted_at.is_some() && self.asked_at.is_none()
    }

    /// What was asked will not be answered: the machine was away.
    pub fn forget(&mut self) {
        self.asked_at = None;
    }

    /// In microseconds, once measured.
    pub fn round_trip(&self) -> Option<Micros> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_probe_is_no_part_of_the_way() {
        let mut way = Way::default();
        way.ask(1_000);
        way.ask(400_000);
        way.answered(400_100, 400_300);
        assert_eq!(way.round_trip(), Some(200));
    }

    #[test]
    fn a_long_way_is_believed_when_it_is_measured_twice() {
        let mut way = Way::default();
        let mut now = 0;
        let mut measure = |sample: Micros| {
            way.ask(now);
            way.answered(now, now + sample);
            now += sample;
            (way.round_trip().unwrap(), way.is_doubtful())
        };
        assert_eq!(measure(900_000), (900_000, true), "the first");
        assert_eq!(measure(200), (200, false), "it had waited for a link-layer address");
        assert_eq!(measure(150), (187, false));
        assert_eq!(measure(30_000), (30_000, true), "much longer");
        assert_eq!(measure(31_000), (31_000, false), "indeed");
        assert_eq!(measure(90_000), (90_000, true));
        assert_eq!(
            measure(900_000),
            (900_000, false),
            "whatever it says, this is the measure"
        );
    }

    #[test]
    fn two_probes_that_waited_for_the_same_do_not_confirm_each_other() {
        let mut way = Way::default();
        way.ask(0);
        way.ask(400_000);
        way.answered(0, 643_000);
        way.answered(400_000, 643_000);
        assert!(way.is_doubtful());
        way.ask(643_100);
        way.answered(643_100, 643_300);
        assert_eq!((way.round_trip(), way.is_doubtful()), (Some(200), false));
    }

    #[test]
    fn an_answer_that_is_sent_again_measures_nothing() {
        let mut way = Way::default();
        way.ask(1_000);
        way.answered(1_000, 1_200);
        way.answered(1_000, 900_000);
        assert_eq!(way.round_trip(), Some(200));
        way.ask(1_000_000);
        way.answered(1_000, 1_000_100);
        assert_eq!(way.round_trip(), Some(200), "to the probe before");
    }

    #[test]
    fn a_way_longer_than_the_wait_between_probes_is_measured_once_and_then_waited_for() {
        let mut way = Way::default();
        way.ask(0);
        way.ask(50_000);
        way.answered(0, 80_000);
        assert_eq!(way.round_trip(), Some(80_000));
    }

    #[test]
    fn it_follows_a_rise_at_once_and_a_fall_slowly() {
        let mut way = Way::default();
        for (now, sample, expected) in [
            (1, 900, 900),
            (1_001, 900, 900),
            (2_001, 100, 700),
            (3_001, 100, 550),
            (4_001, 600, 600),
        ] {
            way.ask(now);
            way.answered(now, now + sample);
            assert_eq!(way.round_trip(), Some(expected));
        }
    }
}
