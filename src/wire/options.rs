//! TCP options: a bounded walk over the list, and the values of those that the engine understands.

use super::Seq;
use super::field::{be16, be32, kind, tcp};
use super::packet::ParseError;

/// The largest window scale that may be used; a larger one counts as this (RFC 7323 section 2.3).
pub const MAX_WSCALE: u8 = 14;

/// The most SACK blocks that the 40 bytes of options can hold (RFC 2018 section 3).
pub const MAX_SACK_BLOCKS: usize = 4;

/// The timestamps option (RFC 7323 section 3), host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock, in ticks of its own.
    pub val: u32,
    /// TSecr: the echo of the peer's clock; means something only with ACK set.
    pub ecr: u32,
}

/// The blocks of a SACK option: left edge, and right edge (the first number behind the block), in the order of the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); MAX_SACK_BLOCKS],
    len: u8,
}

impl SackBlocks {
    /// No block.
    pub const EMPTY: Self = Self {
        blocks: [(Seq(0), Seq(0)); MAX_SACK_BLOCKS],
        len: 0,
    };

    /// The blocks, first of the wire first.
    #[must_use]
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        self.blocks.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Appends a block; false, and no change, if there are four already.
    pub fn push(&mut self, left: Seq, right: Seq) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = (left, right);
        self.len += 1;
        true
    }

    /// Whether there is no block.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
}

impl std::fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The options that the engine understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size in bytes (RFC 9293 section 3.7.1).
    pub mss: Option<u16>,
    /// Window scale as a shift, at most [`MAX_WSCALE`].
    pub wscale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks; none if there is no such option.
    pub sack: SackBlocks,
}

/// Where the options that are edited in established flows start, in bytes from the start of the TCP header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OptionOffsets {
    pub mss: Option<u8>,
    pub timestamps: Option<u8>,
    pub sack: Option<u8>,
}

/// One item of the list: `kind`, and where it lies (`start..start + len`) in the bytes given to the walk.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub kind: u8,
    pub start: usize,
    pub len: usize,
}

/// The item at `at` of an option list, or `None` where the list ends: at its last byte or at an end-of-list option.
pub(super) fn item_at(list: &[u8], at: usize) -> Result<Option<Item>, ParseError> {
    let Some(&kind) = list.get(at) else { return Ok(None) };
    match kind {
        kind::END => Ok(None),
        kind::NOP => Ok(Some(Item {
            kind,
            start: at,
            len: 1,
        })),
        _ => match list.get(at + 1).map(|&len| usize::from(len)) {
            Some(len) if len >= 2 && at + len <= list.len() => Ok(Some(Item { kind, start: at, len })),
            _ => Err(ParseError::Malformed),
        },
    }
}

impl Options {
    /// Reads the option list of a TCP header: the bytes from offset 20 to the data offset.
    ///
    /// Unknown options are skipped. One that is known, but has an impossible length or stands there twice, is malformed:
    /// an editor that translates one of two copies would let the other one through in a foreign numbering.
    pub(super) fn parse(list: &[u8]) -> Result<(Self, OptionOffsets), ParseError> {
        let mut options = Self::default();
        let mut offsets = OptionOffsets::default();
        let mut at = 0;
        while let Some(item) = item_at(list, at)? {
            let first = match (item.kind, item.len) {
                (kind::MSS, 4) => {
                    offsets.mss.replace(header_offset(at)).is_none() && {
                        options.mss = be16(list, at + 2);
                        true
                    }
                }
                (kind::WSCALE, 3) => options
                    .wscale
                    .replace(list.get(at + 2).map_or(0, |&shift| shift.min(MAX_WSCALE)))
                    .is_none(),
                (kind::SACK_PERMITTED, 2) => !std::mem::replace(&mut options.sack_permitted, true),
                (kind::TIMESTAMPS, 10) => {
                    options.timestamps = be32(list, at + 2)
                        .zip(be32(list, at + 6))
                        .map(|(val, ecr)| Timestamps { val, ecr });
                    offsets.timestamps.replace(header_offset(at)).is_none()
                }
                (kind::SACK, len) if len % 8 == 2 => {
                    options.sack = read_blocks(list, item);
                    offsets.sack.replace(header_offset(at)).is_none()
                }
                (kind::MSS | kind::WSCALE | kind::SACK_PERMITTED | kind::TIMESTAMPS | kind::SACK, _) => false,
                _ => true,
            };
            if !first {
                return Err(ParseError::Malformed);
            }
            at = item.start + item.len;
        }
        Ok((options, offsets))
    }

    /// How many bytes [`Options::write`] takes: a multiple of four, at most 40.
    pub(super) fn encoded_len(&self) -> usize {
        let sack = self.sack_fitting();
        self.len_without_sack() + if sack == 0 { 0 } else { 4 + 8 * sack }
    }

    /// MSS: 4 bytes. Timestamps: 12 with what is in front of them. SACK permitted: 4, or in front of the timestamps. Scale: 4.
    fn len_without_sack(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { 12 } else { 0 };
        let sack_permitted = if self.sack_permitted && self.timestamps.is_none() {
            4
        } else {
            0
        };
        let wscale = if self.wscale.is_some() { 4 } else { 0 };
        mss + timestamps + sack_permitted + wscale
    }

    /// How many SACK blocks there is room for behind the rest.
    fn sack_fitting(&self) -> usize {
        self.sack
            .len()
            .min((tcp::MAX_OPTIONS - self.len_without_sack() - 4) / 8)
    }

    /// Writes the options in the order and with the padding of Linux; returns the 40 bytes of which [`Options::encoded_len`] count.
    pub(super) fn write(&self) -> [u8; tcp::MAX_OPTIONS] {
        let mut out = Writer {
            bytes: [kind::NOP; tcp::MAX_OPTIONS],
            len: 0,
        };
        if let Some(mss) = self.mss {
            out.put(&[kind::MSS, 4]);
            out.put(&mss.to_be_bytes());
        }
        if let Some(Timestamps { val, ecr }) = self.timestamps {
            out.put(if self.sack_permitted {
                &[kind::SACK_PERMITTED, 2]
            } else {
                &[kind::NOP; 2]
            });
            out.put(&[kind::TIMESTAMPS, 10]);
            out.put(&val.to_be_bytes());
            out.put(&ecr.to_be_bytes());
        } else if self.sack_permitted {
            out.put(&[kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]);
        }
        if let Some(wscale) = self.wscale {
            out.put(&[kind::NOP, kind::WSCALE, 3, wscale.min(MAX_WSCALE)]);
        }
        let fitting = self.sack_fitting();
        if fitting > 0 {
            out.put(&[kind::NOP, kind::NOP, kind::SACK, sack_option_len(fitting)]);
            for (left, right) in self.sack.as_slice().iter().take(fitting) {
                out.put(&left.0.to_be_bytes());
                out.put(&right.0.to_be_bytes());
            }
        }
        out.bytes
    }
}

/// The length byte of a SACK option with `blocks` blocks.
pub(super) fn sack_option_len(blocks: usize) -> u8 {
    u8::try_from(2 + 8 * blocks.min(MAX_SACK_BLOCKS)).unwrap_or(2)
}

/// The offset from the start of the TCP header of what is at `at` of the option list (below 40: it always fits).
fn header_offset(at: usize) -> u8 {
    u8::try_from(tcp::MIN_HEADER + at).unwrap_or(u8::MAX)
}

fn read_blocks(list: &[u8], item: Item) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    for at in (item.start + 2..item.start + item.len).step_by(8) {
        if let Some((left, right)) = be32(list, at).zip(be32(list, at + 4)) {
            blocks.push(Seq(left), Seq(right));
        }
    }
    blocks
}

/// A cursor over the space for options; what does not fit is left out.
struct Writer {
    bytes: [u8; tcp::MAX_OPTIONS],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            to.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}
