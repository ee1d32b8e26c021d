//! How much may be under way to a machine: the congestion window of NewReno (RFC 5681, RFC 6582), in bytes.

use super::super::pack::Packer;
use super::super::pos::Pos;

/// RFC 6928: the initial window in segments.
const INITIAL_WINDOW: Pos = 10;
/// No congestion window grows past this many bytes: no buffer does either.
const CWND_MAX: Pos = 64 << 20;

/// A congestion window. `mss` is always the payload of a full segment, `outstanding` what is under way, in bytes.
#[derive(Debug)]
pub struct Congestion {
    cwnd: Pos,
    ssthresh: Pos,
}

impl Congestion {
    /// Of a leg on which nothing was ever lost.
    #[must_use]
    pub fn new(mss: Pos) -> Self {
        Self {
            cwnd: INITIAL_WINDOW * mss,
            ssthresh: CWND_MAX,
        }
    }

    /// The stream starts.
    pub fn open(&mut self, mss: Pos) {
        self.cwnd = INITIAL_WINDOW * mss;
    }

    /// Whether so many bytes may be under way.
    #[must_use]
    pub fn allows(&self, bytes: Pos) -> bool {
        bytes <= self.cwnd
    }

    /// `acked` further bytes have arrived, and nothing is missing. RFC 5681 section 3.1: slow start, then congestion avoidance, by bytes
    /// acknowledged (RFC 3465, L = 2).
    pub fn grow(&mut self, acked: Pos, mss: Pos) {
        let step = if self.cwnd < self.ssthresh {
            acked.min(2 * mss)
        } else {
            (mss * mss / self.cwnd.max(1)).max(1)
        };
        self.cwnd = (self.cwnd + step).min(CWND_MAX);
    }

    /// A segment is lost, and others arrive: fast recovery begins.
    pub fn halve(&mut self, outstanding: Pos, mss: Pos) {
        self.lower_threshold(outstanding, mss);
        self.cwnd = self.ssthresh;
    }

    /// Fast recovery is over (RFC 6582 section 3.2, step 3).
    pub fn recovered(&mut self, outstanding: Pos, mss: Pos) {
        self.cwnd = self.ssthresh.min(outstanding.max(mss) + mss);
    }

    /// Nothing was heard for a retransmission timeout; `first` says that it is the first of this silence (RFC 5681 section 3.1).
    pub fn collapse(&mut self, first: bool, outstanding: Pos, mss: Pos) {
        if first {
            self.lower_threshold(outstanding, mss);
        }
        self.cwnd = mss;
    }

    /// RFC 5681 section 3.1, equation 4.
    fn lower_threshold(&mut self, outstanding: Pos, mss: Pos) {
        self.ssthresh = (outstanding / 2).max(2 * mss);
    }

    /// All that it consists of (`park`).
    pub fn pack<P: Packer>(&mut self, p: &mut P) {
        let Self { cwnd, ssthresh } = self;
        p.pos(cwnd, 0);
        p.pos(ssthresh, CWND_MAX);
    }
}
