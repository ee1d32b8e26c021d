//! What a sender remembers of what is under way.

use super::super::pos::Pos;
use super::super::ranges::Ranges;
use super::super::rare::Resting;
use super::super::spec::Micros;
use super::timers::Timer;

/// What a sender remembers of what is under way; nothing, once all is acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Flight {
    pub dup_acks: u32,
    /// Fast recovery lasts until this position is acknowledged (RFC 6582).
    pub recover: Option<Pos>,
    /// Duplicate acknowledgements below this are echoes of a go-back-N, not news of a loss (RFC 6582 section 3.2, step 1).
    pub timed_out_at: Pos,
    /// What was retransmitted in this recovery.
    pub high_rxt: Pos,
    /// The next hole is to be sent again.
    pub hole_due: bool,
    /// The last segment is to be sent again.
    pub tail_due: bool,
    /// It was, since the last progress.
    pub tail_probed: bool,
    /// What the machine has acknowledged selectively.
    pub sacked: Ranges,
    /// The end of the segment whose way is measured, and when it was sent.
    pub timed: Option<(Pos, Micros)>,
    pub timer: Option<Timer>,
    /// The first byte of a super-packet of which it is not known whether it has arrived, and whether that byte was sent again since.
    pub run: Option<(Pos, bool)>,
    /// Whether the last one of which it is known has, until somebody asks.
    pub run_news: Option<bool>,
}

impl Resting for Flight {
    const RESTING: &'static Self = &Self {
        dup_acks: 0,
        recover: None,
        timed_out_at: 0,
        high_rxt: 0,
        hole_due: false,
        tail_due: false,
        tail_probed: false,
        sacked: Ranges::EMPTY,
        timed: None,
        timer: None,
        run: None,
        run_news: None,
    };
}

impl Flight {
    /// Something is still to be done, even if all is acknowledged.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.timer.is_some() || self.recover.is_some() || self.hole_due || self.tail_due
    }
}
