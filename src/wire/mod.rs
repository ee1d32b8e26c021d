//! Checked views over packet bytes, edits in place, and packets built from scratch (pure: no sockets, clock or allocation).
//!
//! A packet starts at its IP header and carries TCP over IPv4 or IPv6. [`Parsed::parse`] looks at every length once and
//! remembers where things are; [`Editor`] rewrites fields in place and mends the checksums; [`Segment`] writes what the
//! engine itself originates. A forwarded packet is only ever edited, never taken apart and built anew, so that what this
//! module does not know of passes through untouched.
//!
//! Nothing here panics, whatever the bytes: a function that is handed a [`Parsed`] together with bytes that it does not
//! belong to may do nothing, or something useless, but stays within the buffer.

mod build;
pub mod checksum;
mod edit;
mod field;
mod flags;
mod options;
mod packet;
mod seq;
#[cfg(test)]
mod tests;

pub use build::{Segment, header_len};
pub use checksum::tcp_checksum_ok;
pub use edit::{ChecksumMode, Editor, SynKeep};
pub use flags::Flags;
pub use options::{MAX_SACK_BLOCKS, MAX_WSCALE, Options, SackBlocks, Timestamps};
pub use packet::{ParseError, Parsed};
pub use seq::Seq;
