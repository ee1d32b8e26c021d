//! Where the fixed fields are (byte offsets), and total reads of big-endian numbers.

/// Offsets from the start of an IPv4 header (RFC 791).
pub mod ipv4 {
    /// Shortest header in bytes.
    pub const MIN_HEADER: usize = 20;
    pub const TOTAL_LENGTH: usize = 2;
    pub const CHECKSUM: usize = 10;
    pub const SRC: usize = 12;
    pub const DST: usize = 16;
}

/// Offsets from the start of an IPv6 header (RFC 8200).
pub mod ipv6 {
    /// Length of the fixed header in bytes.
    pub const HEADER: usize = 40;
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const SRC: usize = 8;
    pub const DST: usize = 24;
}

/// Offsets from the start of a TCP header (RFC 9293 section 3.1).
pub mod tcp {
    /// Length of a header without options in bytes.
    pub const MIN_HEADER: usize = 20;
    /// Most bytes that options can take: the data offset counts to 15 words.
    pub const MAX_OPTIONS: usize = 40;
    pub const SRC_PORT: usize = 0;
    pub const DST_PORT: usize = 2;
    pub const SEQ: usize = 4;
    pub const ACK: usize = 8;
    /// Data offset, reserved bits, flags: one 16-bit word.
    pub const OFFSET_FLAGS: usize = 12;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
}

/// Kinds of TCP options.
pub mod kind {
    /// End of the list (RFC 9293).
    pub const END: u8 = 0;
    /// Padding of one byte (RFC 9293).
    pub const NOP: u8 = 1;
    /// Maximum segment size (RFC 9293).
    pub const MSS: u8 = 2;
    /// Window scale (RFC 7323).
    pub const WSCALE: u8 = 3;
    /// SACK permitted (RFC 2018).
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK blocks (RFC 2018).
    pub const SACK: u8 = 5;
    /// Timestamps (RFC 7323).
    pub const TIMESTAMPS: u8 = 8;
}

/// Protocol number of TCP.
pub const PROTO_TCP: u8 = 6;

/// The `N` bytes at `at`, if they are there.
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The big-endian 16-bit number at `at`.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The big-endian 32-bit number at `at`.
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}
