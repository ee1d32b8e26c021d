//! Deterministic bytes: the same for the same seed and position, on every machine and in every run.

use sha2::{Digest as _, Sha256};

/// An endless stream of bytes drawn from a seed.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    position: u64,
}

impl Pattern {
    /// The stream's beginning.
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// The stream's next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let word = mix(self.seed ^ (self.position / 8)).to_le_bytes();
            let skip = usize::try_from(self.position % 8).expect("below 8");
            let n = rest.len().min(8 - skip);
            rest[..n].copy_from_slice(&word[skip..skip + n]);
            self.position += n as u64;
            rest = &mut rest[n..];
        }
    }

    /// SHA-256 of the first `len` bytes.
    pub fn digest(seed: u64, len: u64) -> String {
        let mut pattern = Self::new(seed);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut left = len;
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            pattern.fill(&mut buffer[..n]);
            hash.update(&buffer[..n]);
            left -= n as u64;
        }
        hex(&hash.finalize())
    }
}

/// A small generator for the tests' own choices (SplitMix64: one word of state, every seed good).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// A number from `low` up to but without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        low + mix(self.0) % (high - low)
    }
}

/// SplitMix64's output function.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A digest as people write it.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
