//! Positions on the two number lines of a flow (design section 4).
//!
//! A position counts from the SYN (0), the first byte is 1, the FIN is counted. Inside the engine positions are 64-bit and
//! never wrap; only the wire's sequence numbers do. `u` runs from client to server, `v` from server to client.

use crate::wire::Seq;

/// A position in bytes since the SYN. Signed, so that an old or forged sequence number may lie before the start.
pub type Pos = i64;

/// The position that `seq` means, given the line's start and a position that it is near to (within 2³¹, RFC 9293 section 3.4).
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "modulo 2³² is meant"
)]
pub fn pos_of(near: Pos, start: Seq, seq: Seq) -> Pos {
    let expected = start.0.wrapping_add(near as u32);
    near + Pos::from(seq.0.wrapping_sub(expected) as i32)
}

/// The sequence number of a position.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "modulo 2³² is meant"
)]
pub fn seq_of(start: Seq, pos: Pos) -> Seq {
    Seq(start.0.wrapping_add(pos as u32))
}

/// A length in bytes as a distance between positions. No packet or buffer comes near 2⁶³ bytes.
#[must_use]
pub fn span(len: usize) -> Pos {
    Pos::try_from(len).unwrap_or(Pos::MAX)
}

/// A distance between positions as a length; 0 if it is negative.
#[must_use]
pub fn length(span: Pos) -> usize {
    usize::try_from(span).unwrap_or(0)
}

/// Where the words end of what lies below `pos`: a FIN takes a position (RFC 9293 section 3.4), but is no word.
#[must_use]
pub fn words_end(pos: Pos, fin: Option<Pos>) -> Pos {
    fin.map_or(pos, |fin| pos.min(fin))
}

/// Whether timestamp `a` is not older than `b` (RFC 7323 section 5.2, modulo 2³²).
#[must_use]
pub fn ts_not_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

/// The newer of a known timestamp and a fresh one.
#[must_use]
pub fn ts_newer(known: Option<u32>, fresh: u32) -> u32 {
    match known {
        Some(known) if !ts_not_before(fresh, known) => known,
        _ => fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Half of the sequence space.
    const HALF: Pos = 1 << 31;

    #[test]
    fn translation_has_an_inverse_up_to_half_the_space_and_no_further() {
        for isn in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX].map(Seq) {
            for near in [0, 1, HALF - 1, HALF, 2 * HALF - 1, 2 * HALF, 7 * HALF + 5, 1 << 40] {
                // All distances within 2^12 of none and of half the space, on both sides.
                for corner in [-HALF, 0, HALF] {
                    for step in -4_096..4_096 {
                        let pos = near + corner + step;
                        let back = pos_of(near, isn, seq_of(isn, pos));
                        if (-HALF..HALF).contains(&(corner + step)) {
                            assert_eq!(back, pos, "near {near}");
                        } else {
                            assert_eq!((back - pos).abs(), 2 * HALF, "once round: never anything in between");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_on_is_newer_and_one_that_goes_back_is_not() {
        for known in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX] {
            for step in 0..1u32 << 16 {
                let (on, back) = (known.wrapping_add(step), known.wrapping_sub(step));
                assert_eq!(ts_newer(Some(known), on), on);
                assert_eq!(ts_newer(Some(known), back), known);
                assert!(ts_not_before(known.wrapping_add((1 << 31) - 1), known));
            }
        }
    }

    proptest! {
        #[test]
        fn translation_has_an_inverse(isn: u32, near in 0..1i64 << 50, way in -HALF..HALF) {
            let isn = Seq(isn);
            prop_assert_eq!(pos_of(near, isn, seq_of(isn, near + way)), near + way);
        }

        #[test]
        fn translation_is_one_addition(isn_m: u32, isn_0: u32, near in 0..1i64 << 50, seq: u32) {
            // Design section 4: from a machine's numbering to the client's, the same offset wherever the flow has got to.
            let there = seq_of(Seq(isn_0), pos_of(near, Seq(isn_m), Seq(seq)));
            prop_assert_eq!(there, Seq(seq).add(isn_0).sub(isn_m));
            let v = pos_of(near, Seq(isn_0), there);
            prop_assert_eq!(seq_of(Seq(isn_m), v), Seq(seq), "and back");
            prop_assert_eq!(v, pos_of(near, Seq(isn_m), Seq(seq)), "one position, whoever numbers it");
        }
    }

    #[test]
    fn positions_survive_the_wrap() {
        let start = Seq(u32::MAX - 9);
        assert_eq!(pos_of(0, start, start), 0);
        assert_eq!(pos_of(0, start, Seq(5)), 15);
        assert_eq!(pos_of(15, start, start), 0);
        assert_eq!(seq_of(start, 15), Seq(5));
        // Four times round, still the same place.
        let far = 4 * (1i64 << 32) + 7;
        assert_eq!(pos_of(far + 100, start, seq_of(start, far)), far);
        // Older than the start: negative, never a wild leap forward.
        assert_eq!(pos_of(0, Seq(100), Seq(90)), -10);
    }

    #[test]
    fn timestamps_compare_modulo_2_32() {
        assert!(ts_not_before(1, u32::MAX));
        assert!(!ts_not_before(u32::MAX, 1));
        assert_eq!(ts_newer(Some(u32::MAX), 3), 3);
        assert_eq!(ts_newer(Some(3), u32::MAX), 3);
        assert_eq!(ts_newer(None, 9), 9);
    }
}
