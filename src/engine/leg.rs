//! One machine's half of a flow.

use super::pos::{Pos, pos_of, seq_of, ts_newer, ts_not_before, words_end};
use super::rare::{Rare, Resting};
use super::rtt::Rtt;
use super::sender::Sender;
use super::spec::{MachineId, Micros};
use super::stream::Stream;
use crate::mutant::{self, Mutation};
use crate::wire::{Options, Seq};

/// How far a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// A SYN was sent, or is about to be.
    SynSent,
    /// The handshake is done.
    Open,
    /// The conversation ended in order, or the engine ended it; what still comes is answered in kind.
    Finished,
    /// Refused, evicted, fenced or reset: it takes no part in the flow any more (R13).
    Gone,
}

/// Who speaks to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The client's own packets, translated: the original on the steady path.
    Direct,
    /// The engine, out of the send buffer: replicas, and an original that is still recovering.
    Relayed,
}

/// What is remembered of a leg while somebody waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waits {
    /// Since when it holds the client up (R15).
    pub holding_since: Option<Micros>,
    /// Since when it waits for the machine's own output (R23).
    pub blocked_since: Option<Micros>,
    /// The position (u) that it waits at.
    pub blocked_at: Pos,
    /// When the machine was last asked how far it has sent.
    pub asked_at: Micros,
    /// When it was last answered for sending what can't be.
    pub challenged_at: Option<Micros>,
}

impl Resting for Waits {
    const RESTING: &'static Self = &Self {
        holding_since: None,
        blocked_since: None,
        blocked_at: 0,
        asked_at: 0,
        challenged_at: None,
    };
}

/// State of one leg. Positions u and v as in design section 4.
#[derive(Debug)]
pub struct Leg {
    /// Whose.
    pub machine: MachineId,
    /// How far it has come.
    pub state: LegState,
    /// Who speaks to it.
    pub mode: Mode,
    /// It has proved the options that the client was promised, and is fit to take over.
    pub eligible: bool,
    /// Start of the machine's numbering, once open.
    pub isn: Seq,
    /// The machine's window shift; 0 without window scaling.
    pub window_shift: u8,
    /// Timestamps are in use on this leg.
    pub timestamps: bool,
    /// The end of what the machine has sent (v).
    pub sent: Pos,
    /// The acknowledgement that it was last given (v).
    pub told: Pos,
    /// The right edge of the client's window that it was last given (v).
    pub told_edge: Pos,
    /// The largest segment that it and the path to it take, in bytes without options.
    pub mss: u16,
    /// Position of its FIN (v).
    pub fin: Option<Pos>,
    /// Its latest TSval.
    pub ts_latest: Option<u32>,
    /// What is added to its TSval on the way to the client; fixed when it first speaks to the client.
    pub ts_offset: Option<u32>,
    /// The client's half as this machine has it: `una` is what it has acknowledged (u).
    pub sender: Sender,
    /// Output that the client has not acknowledged (R9).
    pub cache: Stream,
    /// The largest window that it has offered, in bytes.
    pub largest_window: Pos,
    /// The window field of its last segment.
    pub last_window: u16,
    /// An acknowledgement is owed (R7).
    pub ack_due: bool,
    /// A resend is due although nothing else has happened.
    pub work_due: bool,
    /// A zero-length probe is due: its answer tells how far the machine has sent, or that its window has opened.
    pub probe_due: bool,
    /// When `una` or the window's edge last advanced, or the leg was opened; while it trails and waits for its own output (R23), when that last grew.
    pub progress_at: Micros,
    /// Who waits for whom, while anybody does.
    pub waits: Rare<Waits>,
    /// Its wait was given up: it is fed whatever it has sent (R23).
    pub unbound: bool,
    /// The client does not wait for it: it is behind, and fed until it is level again (R15).
    pub trails: bool,
    /// How often it has come to that.
    pub relapses: u8,
    /// The machine has refused the connection.
    pub refused: bool,
    /// When the SYN was last sent; it is repeated after the estimator's timeout.
    pub syn_sent: Option<Micros>,
}

impl Leg {
    /// A leg that is about to be opened.
    #[must_use]
    pub fn new(machine: MachineId, mode: Mode, rtt: Rtt, now: Micros) -> Self {
        Self {
            machine,
            state: LegState::SynSent,
            mode,
            eligible: false,
            isn: Seq(0),
            window_shift: 0,
            timestamps: false,
            sent: 0,
            told: 0,
            told_edge: 0,
            mss: 536,
            fin: None,
            ts_latest: None,
            ts_offset: None,
            sender: Sender::new(rtt),
            cache: Stream::new(1),
            largest_window: 0,
            last_window: 0,
            ack_due: false,
            work_due: mode == Mode::Relayed,
            probe_due: false,
            progress_at: now,
            waits: Rare::new(),
            unbound: false,
            trails: false,
            relapses: 0,
            refused: false,
            syn_sent: None,
        }
    }

    /// The machine's SYN/ACK: its numbering, its window, what it has agreed to.
    pub fn open(&mut self, now: Micros, seq: Seq, window: u16, options: &Options, mss: u16) {
        self.state = LegState::Open;
        self.isn = seq;
        self.sent = 1;
        self.window_shift = options.wscale.unwrap_or(0);
        self.timestamps = options.timestamps.is_some();
        self.ts_latest = options.timestamps.map(|t| t.val);
        self.mss = mss;
        // RFC 7323 section 2.2: the window in a SYN/ACK is never scaled.
        self.last_window = window >> self.window_shift;
        // RFC 6691: the MSS option does not count TCP options; a timestamp takes 12 bytes of every segment.
        let payload = if self.timestamps { mss.saturating_sub(12) } else { mss };
        self.sender.open(payload, 1 + Pos::from(window));
        self.largest_window = Pos::from(window);
        self.progress_at = now;
    }

    /// It takes part in the flow: from its opening until it is refused, evicted or finished. R4 and R5 wait for it unless it trails (R15).
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(self.state, LegState::SynSent | LegState::Open)
    }
    /// Notes since when it holds the client up (R15).
    pub fn set_holding(&mut self, since: Option<Micros>) {
        if self.waits.holding_since != since {
            self.waits.wake().holding_since = since;
        }
    }
    /// Notes since when, and where (u), it waits for its own machine's output (R23).
    pub fn set_blocked(&mut self, since: Option<Micros>, at: Pos) {
        if since.is_some() || self.waits.blocked_since.is_some() {
            let waits = self.waits.wake();
            (waits.blocked_since, waits.blocked_at) = (since, at);
        }
    }
    /// Gives back what says nothing.
    pub fn settle(&mut self) {
        self.sender.settle();
        self.waits.settle();
    }
    /// None of its output is kept (R9): the cache's memory can be given back.
    #[must_use]
    pub fn keeps_nothing(&self) -> bool {
        self.cache.base() == self.cache.next() && !self.cache.has_islands()
    }
    /// Whether [`Leg::rest`] would give memory back.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        self.sender.can_rest() || (self.waits.is_awake() && self.waits_for_nobody())
    }
    /// Gives back what only a busy leg needs. Long enough after its last packet that nobody is challenged too often by what is forgotten.
    pub fn rest(&mut self) {
        self.sender.rest();
        if self.waits_for_nobody() {
            self.waits.rest();
        }
    }
    fn waits_for_nobody(&self) -> bool {
        self.waits.holding_since.is_none() && self.waits.blocked_since.is_none()
    }
    /// It can be spoken to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == LegState::Open
    }
    /// What it has acknowledged (u); its SYN counts as acknowledged from the opening on (R4).
    #[must_use]
    pub fn acked(&self) -> Pos {
        self.sender.una().max(1)
    }
    /// The position (v) of a sequence number of the machine.
    #[must_use]
    pub fn v_of(&self, seq: Seq) -> Pos {
        pos_of(self.sent, self.isn, seq)
    }
    /// The machine's sequence number of a position (v).
    #[must_use]
    pub fn seq_of(&self, v: Pos) -> Seq {
        seq_of(self.isn, v)
    }
    /// The position (v) that this machine may be told as acknowledged: nothing that it has not sent (I4).
    #[must_use]
    pub fn ack_for(&self, client_acked: Pos) -> Pos {
        if mutant::is(Mutation::GhostAcksTooFar) {
            return self.sent.max(self.told);
        }
        if mutant::is(Mutation::AcksUnsent) {
            return client_acked.max(self.told);
        }
        client_acked.min(self.sent).max(self.told)
    }
    /// The engine speaks to the machine as to a replica (R3), and keeps what it says from here on (R9): what it said as original was
    /// passed on, up to `given` (v), and would be a hole before it. What lies beyond was lost on the way to the engine, may end in a FIN that
    /// nobody knows of, and will be said again.
    pub fn relay(&mut self, now: Micros, given: Pos) {
        if self.mode == Mode::Direct {
            self.mode = Mode::Relayed;
            self.sender.take_over(now);
            self.progress_at = now;
        }
        let said = words_end(self.sent.min(given), self.fin);
        if self.cache.next() < said {
            self.cache.advance(said);
        }
    }
    /// A duplicate acknowledgement of the client, `v`, is news of a loss (RFC 5681), and this machine can mend it if it was told the same.
    pub fn pass_duplicate(&mut self, v: Pos) {
        self.ack_due |= self.is_open() && v == self.told && self.sent > self.told;
    }
    /// RFC 9293 section 3.8.4: whether `len` bytes of payload in a segment from `at` up to `end` (v, its FIN counted) may be the garbage byte of a
    /// keep-alive, which is no word. The last byte may come with the FIN.
    #[must_use]
    pub fn is_garbage(&self, at: Pos, end: Pos, len: usize) -> bool {
        len == 1 && (end <= self.told || self.fin.is_some_and(|fin| at >= fin))
    }
    /// Takes note of the machine's clock.
    pub fn note_ts(&mut self, val: u32) {
        self.ts_latest = Some(ts_newer(self.ts_latest, val));
    }
    /// The client's TSecr in this machine's clock, never one that it has not sent (design section 4).
    #[must_use]
    pub fn ecr_for(&self, client_ecr: u32) -> u32 {
        if mutant::is(Mutation::EchoUntranslated) {
            return client_ecr;
        }
        match (
            self.ts_offset.map(|offset| client_ecr.wrapping_sub(offset)),
            self.ts_latest,
        ) {
            (Some(echo), Some(latest)) if ts_not_before(latest, echo) => echo,
            // It has not yet spoken to the client, so what the client echoes is another machine's.
            (_, Some(latest)) => latest,
            (echo, None) => echo.unwrap_or(client_ecr),
        }
    }
}
