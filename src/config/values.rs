//! Durations, byte counts and port ranges as a person writes them.

use std::ops::RangeInclusive;

use crate::engine::{MILLISECOND, Micros, SECOND};

/// What a duration looks like, for messages.
pub(super) const DURATION: &str = "a duration such as \"200us\", \"5ms\", \"1s\", \"5m\", \"2h\" or \"5d\"";
/// What a byte count looks like, for messages.
pub(super) const SIZE: &str = "a number of bytes, or text such as \"64KiB\", \"4MiB\" or \"1GiB\"";

/// Units of durations in microseconds, longest first.
const DURATION_UNITS: [(&str, Micros); 6] = [
    ("d", 24 * 3_600 * SECOND),
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLISECOND),
    ("us", 1),
];

/// Units of byte counts, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A whole number and its unit, multiplied out; `None` for anything else, also for what does not fit.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The value in the largest unit that divides it.
fn format_with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(factor);
    match units.iter().find(fits).or(units.last()) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => value.to_string(),
    }
}

/// A duration in microseconds.
pub fn parse_duration(text: &str) -> Option<Micros> {
    parse_with_unit(text, &DURATION_UNITS)
}

/// The text that [`parse_duration`] reads back.
pub(super) fn format_duration(value: Micros) -> String {
    format_with_unit(value, &DURATION_UNITS)
}

/// A byte count with its unit.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse_with_unit(text, &SIZE_UNITS)
}

/// The text that [`parse_size`] reads back.
pub(super) fn format_size(value: u64) -> String {
    format_with_unit(value, &SIZE_UNITS)
}

/// A port range, `FIRST-LAST`.
pub(super) fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_every_unit_and_read_back() {
        let cases = [
            ("200us", 200),
            ("5ms", 5_000),
            ("1s", 1_000_000),
            ("2m", 120_000_000),
            ("2h", 7_200_000_000),
            ("5d", 432_000_000_000),
            ("0us", 0),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_duration(text), Some(micros), "{text}");
            assert_eq!(format_duration(micros), text);
        }
        assert_eq!(format_duration(1_500_000), "1500ms");
    }

    #[test]
    fn durations_refuse_the_rest() {
        for text in [
            "",
            "5",
            "ms",
            "-5ms",
            "5 ms",
            "1.5s",
            "5sec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_take_every_unit_and_read_back() {
        for (text, bytes) in [("1GiB", 1 << 30), ("4MiB", 4 << 20), ("64KiB", 64 << 10), ("100B", 100)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(format_size(bytes), text);
        }
        for text in ["4MB", "4 MiB", "MiB", "1.5GiB", "20000000000GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(parse_ports("20000-60999"), Some(20_000..=60_999));
        for text in ["20000", "60999-20000", "0-10", "1-65536", "a-b", "-5"] {
            assert_eq!(parse_ports(text), None, "{text}");
        }
    }
}
