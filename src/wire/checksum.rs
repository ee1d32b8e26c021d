//! The Internet checksum: sums (RFC 1071) and incremental updates (RFC 1624).
//!
//! A *sum* here is a `u64` that is congruent modulo 65535 to the one's-complement sum of big-endian 16-bit words, and zero
//! only if every word was. Since 2^16 is 1 modulo 65535, a wider big-endian number that ends on a word boundary simply adds as it
//! is; one that ends in the middle of a word adds shifted by eight bits.

use std::net::IpAddr;

use super::field::{PROTO_TCP, ipv4, ipv6};
use super::packet::{Layout, Parsed};

/// Adds two sums, carrying around, so that no number of additions overflows.
#[must_use]
pub const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is at most 2^64 - 2, so this addition can't carry again.
    sum + carry as u64
}

/// Folds a sum to 16 bits.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a folded sum fits in 16 bits")]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff); // below 2^33
    let sum = (sum >> 16) + (sum & 0xffff); // below 2^17 + 2^16
    let sum = (sum >> 16) + (sum & 0xffff); // at most 0xffff + 2
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum field for a sum: the complement of its 16 bits.
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Adds the big-endian 16-bit words of `bytes` to `initial`; a last odd byte counts as the high half of a word.
#[must_use]
pub fn sum(bytes: &[u8], initial: u64) -> u64 {
    // The sum is the same in either byte order but for a final swap (RFC 1071 section 2 B), so whole native words are
    // added, in four lanes that do not wait for each other's carry.
    let mut lanes = [0; 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        add_words(&mut lanes, block.as_chunks().0);
    }
    let (words, rest) = rest.as_chunks();
    add_words(&mut lanes, words);
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let native = lanes.into_iter().fold(u64::from_ne_bytes(last), add);
    add(initial, u64::from(u16::from_be(fold(native))))
}

/// Adds at most four words, one to each lane.
fn add_words(lanes: &mut [u64; 4], words: &[[u8; 8]]) {
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = add(*lane, u64::from_ne_bytes(*word));
    }
}

/// The sum of TCP's pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1). `tcp_len` is header and payload in bytes.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, tcp_len: u32) -> u64 {
    add(
        add(address(src), address(dst)),
        u64::from(tcp_len) + u64::from(PROTO_TCP),
    )
}

/// The sum of an address.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the two halves are taken apart")]
pub fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            add((bits >> 64) as u64, bits as u64)
        }
    }
}

/// The new checksum field for data to which `delta` was added: the old words negated, the new ones as they are
/// (RFC 1624 equation 3: HC' = ~(~HC + ~m + m')).
#[must_use]
pub fn update(field: u16, delta: u64) -> u16 {
    finish(add(u64::from(!field), delta))
}

/// What takes a sum away again when it is added: its complement.
#[must_use]
pub const fn negate(sum: u64) -> u64 {
    // 2^64 - 1 is 0 modulo 65535.
    !sum
}

/// Moves a sum to the other half of its words: what `sum` gave for bytes that really start at an odd offset.
#[must_use]
pub const fn shift_to_odd(sum: u64) -> u64 {
    (fold(sum) as u64) << 8
}

/// Whether the TCP checksum of a packet is right. `parsed` must be what these bytes parse to.
#[must_use]
pub fn tcp_checksum_ok(bytes: &[u8], parsed: &Parsed) -> bool {
    tcp_sum(bytes, &parsed.layout, parsed.layout.end).is_some_and(|sum| fold(sum) == 0xffff)
}

/// The sum of the pseudo header of a packet that ends at `end`, from the addresses that stand in its bytes now.
pub(super) fn pseudo_header_sum(bytes: &[u8], layout: &Layout, end: usize) -> Option<u64> {
    let addresses = if layout.v6 {
        bytes.get(ipv6::SRC..ipv6::HEADER)
    } else {
        bytes.get(ipv4::SRC..ipv4::MIN_HEADER)
    }?;
    let tcp_len = end.checked_sub(layout.tcp)? as u64;
    Some(sum(addresses, tcp_len + u64::from(PROTO_TCP)))
}

/// The sum over pseudo header, TCP header and payload, checksum field included.
pub(super) fn tcp_sum(bytes: &[u8], layout: &Layout, end: usize) -> Option<u64> {
    Some(sum(bytes.get(layout.tcp..end)?, pseudo_header_sum(bytes, layout, end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 2, word by word.
    fn by_the_book(bytes: &[u8], initial: u64) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u64::from(low)));
        let mut sum = u128::from(initial) + words.map(u128::from).sum::<u128>();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes, 0)), 0xddf2);
    }

    #[test]
    fn example_of_rfc_1624() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000, where equation 2 gave 0xffff.
        assert_eq!(update(0xdd2f, add(negate(0x5555), 0x3285)), 0x0000);
    }

    #[test]
    fn sum_of_every_length_and_alignment() {
        let bytes: Vec<u8> = (0..200u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for start in 0..9 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(fold(sum(part, 0)), by_the_book(part, 0), "{start}..{end}");
                assert_eq!(fold(sum(part, u64::MAX)), by_the_book(part, u64::MAX), "{start}..{end}");
            }
        }
    }

    #[test]
    fn only_nothing_but_zeros_sums_to_zero() {
        assert_eq!(sum(&[0; 77], 0), 0);
        assert_eq!(fold(sum(&[0xff; 65536], 0)), 0xffff);
        assert_eq!(fold(add(5, negate(5))), 0xffff);
    }

    #[test]
    fn folding_at_the_limits() {
        for (sum, folded) in [
            (0, 0),
            (0xffff, 0xffff),
            (0x1_0000, 1),
            (0x1_ffff, 1),
            (u64::MAX, 0xffff),
            (u64::MAX - 1, 0xfffe),
        ] {
            assert_eq!(fold(sum), folded, "{sum:x}");
        }
    }

    #[test]
    fn odd_start_is_a_byte_swap() {
        let bytes = [9, 1, 2, 3, 4, 5];
        let split = add(sum(&bytes[..1], 0), shift_to_odd(sum(&bytes[1..], 0)));
        assert_eq!(fold(split), fold(sum(&bytes, 0)));
    }

    #[test]
    fn an_update_is_a_recomputation_for_every_word() {
        // One word `old` among others that sum to `rest`, replaced by `new`: all 2^16 of each against the corners of the others.
        const CORNERS: [u16; 8] = [0, 1, 0x00ff, 0x7fff, 0x8000, 0xff00, 0xfffe, 0xffff];
        let check = |rest: u64, old: u16, new: u16| {
            let field = finish(add(rest, u64::from(old)));
            let updated = update(field, add(negate(u64::from(old)), u64::from(new)));
            let computed = finish(add(rest, u64::from(new)));
            if rest == 0 && new == 0 {
                // RFC 1624 section 3: they differ only where all words have become zero, and TCP's pseudo header never is.
                assert_eq!((updated, computed), (0, 0xffff), "{rest:x} {old:x} {new:x}");
            } else {
                assert_eq!(updated, computed, "{rest:x} {old:x} {new:x}");
            }
        };
        for rest in CORNERS
            .into_iter()
            .map(u64::from)
            .chain([0x1_0000, u64::MAX - 1, u64::MAX])
        {
            for corner in CORNERS {
                for word in 0..=u16::MAX {
                    check(rest, word, corner);
                    check(rest, corner, word);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn many_updates_are_one_recomputation(words: Vec<u16>, edits: Vec<(usize, u16)>) {
            // The pseudo header's protocol number: never all zero.
            let mut words: Vec<u16> = [u16::from(PROTO_TCP)].into_iter().chain(words).collect();
            let total = |words: &[u16]| words.iter().fold(0, |sum, word| add(sum, u64::from(*word)));
            let mut field = finish(total(&words));
            words.push(0);
            for (at, new) in edits {
                let at = 1 + at % (words.len() - 1);
                field = update(field, add(negate(u64::from(words[at])), u64::from(new)));
                words[at] = new;
                proptest::prop_assert_eq!(field, finish(total(&words)));
            }
        }
    }
}
