//! A difference as it is told: where, and the words of both sides around it. Of fixed size: nothing is allocated to tell it.

use super::super::pos::{Pos, length};
use super::super::spec::MachineId;
use super::super::stream::Stream;
use std::fmt;
use std::net::SocketAddr;

/// Bytes of an excerpt.
const EXCERPT: usize = 32;
/// How many of them come before the difference.
const BEFORE: Pos = 8;

/// Up to 32 bytes of somebody's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; EXCERPT],
    len: u8,
}

impl Excerpt {
    fn of(stream: &Stream, from: Pos) -> Self {
        let (first, second) = stream.slices(from, EXCERPT);
        let mut excerpt = Self::default();
        for (to, byte) in excerpt.bytes.iter_mut().zip(first.iter().chain(second)) {
            *to = *byte;
            excerpt.len += 1;
        }
        excerpt
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Escaped, so that whatever a machine said can stand in a log line: `HTTP/1.1 200 OK\r\n`.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// R17: the first difference between what a machine said and what the client was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose connection.
    pub client: SocketAddr,
    /// The connection's original at that time.
    pub original: MachineId,
    /// Bytes of output before the difference: the first byte of a connection has offset 0.
    pub offset: u64,
    /// The offset at which both excerpts begin; at most `offset`.
    pub start: u64,
    /// What the client was given, as far as it is known yet.
    pub given: Excerpt,
    /// What the machine said, as far as it is known yet; an excerpt that stops at `offset` means that it ended there.
    pub said: Excerpt,
    /// One of the two ended where the other went on.
    pub length: bool,
}

impl Difference {
    /// The difference at `at` between what the client was given and what a machine said.
    #[must_use]
    pub fn between(
        client: SocketAddr,
        original: MachineId,
        at: Pos,
        given: &Stream,
        said: &Stream,
        length_differs: bool,
    ) -> Self {
        let start = (at - BEFORE).max(given.base()).max(said.base()).min(at);
        // Position 0 is the SYN (design section 4).
        let offset = |pos: Pos| length(pos - 1) as u64;
        Self {
            client,
            original,
            offset: offset(at),
            start: offset(start),
            given: Excerpt::of(given, start),
            said: Excerpt::of(said, start),
            length: length_differs,
        }
    }
}
