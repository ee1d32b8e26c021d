//! The observer's books: what each party of a flow has really said, in 64-bit positions that do not wrap.
//!
//! u counts the client's bytes, v the service's; SYN is 0, the first byte 1 (design section 4).

mod leg;

use std::net::IpAddr;

use relevo::engine::Micros;

pub use self::leg::Leg;
use crate::packet::{ACK, FIN, Packet, RST, SYN};

/// A broken invariant or rule, in words.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

/// Returns a [`Violation`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $rule:expr, $($text:tt)*) => {
        if !$condition {
            return Err(crate::books::Violation { rule: $rule, text: format!($($text)*) });
        }
    };
}
pub(crate) use ensure;

/// The position of `raw` on the line that starts at `isn`, next to a position that is known.
pub fn place(raw: u32, isn: u32, near: u64) -> i64 {
    let step = raw.wrapping_sub(isn).wrapping_sub(near as u32) as i32;
    near as i64 + i64::from(step)
}

/// The later of two time stamps.
pub fn later(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a) as i32 > 0 { b } else { a }
}

fn raise(max: &mut u64, to: i64) {
    *max = (*max).max(u64::try_from(to).unwrap_or(0));
}

/// Time stamps that one party has sent: the first and the latest.
#[derive(Clone, Copy, Debug)]
pub struct Stamps {
    first: u32,
    pub latest: u32,
}

impl Stamps {
    fn add(stamps: &mut Option<Self>, value: u32) {
        let known = stamps.get_or_insert(Self {
            first: value,
            latest: value,
        });
        known.latest = later(known.latest, value);
    }
    /// Whether an echo is of something that was sent, or, if `old` may be, of something before: a stack may echo what it has
    /// heard last on an older connection.
    pub fn may_be_echoed(&self, echo: u32, old: bool) -> bool {
        let back = self.latest.wrapping_sub(echo);
        if old {
            (back as i32) >= 0
        } else {
            back <= self.latest.wrapping_sub(self.first)
        }
    }
}

/// What the engine has told one party: it may only go forward (I5).
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub ack: u64,
    pub edge: u64,
    pub tsval: Option<u32>,
    /// Highest position sent to it.
    pub sent: u64,
}

impl Told {
    /// Checks a packet's news against the last, then takes note of it. `unit` is the window scale's unit in bytes.
    pub fn advance(&mut self, ack: i64, edge: i64, unit: u64, tsval: Option<u32>) -> Result<(), Violation> {
        ensure!(ack >= self.ack as i64, "I5", "ack goes back from {} to {ack}", self.ack);
        ensure!(
            edge + unit as i64 > self.edge as i64,
            "I5",
            "window edge goes back from {} to {edge}",
            self.edge
        );
        if let (Some(before), Some(now)) = (self.tsval, tsval) {
            ensure!(
                now.wrapping_sub(before) as i32 >= 0,
                "I5",
                "TSval goes back from {before} to {now}"
            );
        }
        raise(&mut self.ack, ack);
        raise(&mut self.edge, edge);
        self.tsval = tsval.or(self.tsval);
        Ok(())
    }
}

/// What the client was promised by the SYN/ACK that reached it.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub isn: u32,
    pub scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Number of its script.
    pub id: usize,
    pub client: (IpAddr, u16),
    /// The peer that the machines see, once known.
    pub peer: Option<(IpAddr, u16)>,
    pub started_at: Micros,
    pub isn: u32,
    /// The client's SYN.
    pub offer: Packet,
    pub promise: Option<Promise>,
    /// Highest u that the client has sent, and where its FIN ends, if it sent one.
    pub sent: u64,
    pub fin: Option<u64>,
    /// Highest v that the client has acknowledged, and its window edge in v.
    pub acked: u64,
    pub edge: u64,
    /// The edge by acceptable segments alone: of one that lies before the window, as a keep-alive, no receiver takes the window (RFC 9293
    /// section 3.10.7.4).
    pub sure_edge: u64,
    pub stamps: Option<Stamps>,
    /// Whether the client's last packet carried time stamps. RFC 7323 (3.2) lets a receiver drop one that should; whether it does is the
    /// machine's to decide, as it would be without an engine.
    pub stamped: bool,
    /// The client has answered the SYN/ACK (R1).
    pub proved: bool,
    pub client_reset: bool,
    pub reset_to_client: bool,
    /// The service itself refused it.
    pub refused: bool,
    /// It met what the design does not mask yet: nothing is asked of it any more.
    pub limit: bool,
    pub told: Told,
    /// The client's segments: from, to, and the v that each acknowledged (R23).
    pub pieces: Vec<(i64, i64, u64)>,
    pub legs: Vec<Option<Leg>>,
    /// Whose output the client gets; `None` while a takeover may have changed it.
    pub original: Option<usize>,
    /// The machines that it was to move to by plan, one after the other, at moments of the engine's choice. It may be anywhere between its last
    /// known original and the last of them: a move is not heard before the new original speaks.
    pub heirs: Vec<usize>,
    /// No plan is waited for any more: whoever speaks next stays.
    pub settled: bool,
    pub takeovers: u32,
    /// Another original was asked for, and the engine has not been looked at since.
    pub switching: bool,
    /// The whole length of the service's side: SYN, bytes and FIN.
    pub whole: u64,
    /// When both directions were over.
    pub finished_at: Option<Micros>,
}

impl Flow {
    pub fn new(id: usize, syn: &Packet, now: Micros, machines: usize, bytes_down: usize) -> Self {
        let mut flow = Self {
            id,
            client: (syn.src, syn.sport),
            peer: None,
            started_at: now,
            isn: syn.seq,
            offer: *syn,
            promise: None,
            sent: 1,
            fin: None,
            acked: 0,
            edge: 1 + u64::from(syn.win),
            sure_edge: 1 + u64::from(syn.win),
            stamps: None,
            stamped: syn.options.ts.is_some(),
            proved: false,
            client_reset: false,
            reset_to_client: false,
            refused: false,
            limit: false,
            told: Told::default(),
            pieces: Vec::new(),
            legs: vec![None; machines],
            original: None,
            heirs: Vec::new(),
            settled: false,
            takeovers: 0,
            switching: false,
            whole: bytes_down as u64 + 2,
            finished_at: None,
        };
        if let Some((tsval, _)) = syn.options.ts {
            Stamps::add(&mut flow.stamps, tsval);
        }
        flow
    }

    /// Whether the next SYN/ACK is another promise: a flow whose client did not answer may have been forgotten, and opened anew by the client's next
    /// SYN. So may one that nobody could go on with, when the reset that says so was lost.
    pub fn may_open_anew(&self, now: Micros, forgotten_after: Micros) -> bool {
        self.acked == 0 && (now > self.started_at + forgotten_after || self.reset_to_client)
    }

    /// The service of machine `m` has ended before what the client was given: if it was the original, another one is (R12).
    pub fn replaced(&mut self, m: usize, fastest: bool) {
        if fastest || self.original.is_none_or(|original| original == m) {
            self.original = None;
            self.takeovers += 1;
            self.switching = true;
        }
    }

    fn has_ended(&self, m: usize) -> bool {
        self.legs[m].as_ref().is_some_and(Leg::has_ended)
    }

    /// Whether the original, or who took over by plan and has not spoken, has said something that a vote may take for its own failure (R11).
    pub fn original_has_ended(&self) -> bool {
        self.original.iter().chain(&self.heirs).any(|m| self.has_ended(*m))
    }

    /// Whether a vote may have made another machine the original. Where the fastest speaks, the books don't know who was.
    pub fn may_have_moved(&self) -> bool {
        let unknown = self.original.is_none() && (0..self.legs.len()).any(|m| self.has_ended(m));
        unknown || self.original_has_ended()
    }

    /// R12: a flow moves to the heir of a plan, maybe without a word to the client, when that is level: it has acknowledged as much as the original, or
    /// the heir before it, and said what the client was sent. Takes note of those that are.
    pub fn note_level(&mut self) {
        let Some(promise) = self.promise.filter(|_| !self.settled) else {
            return;
        };
        let acked = |m: usize| self.legs[m].as_ref().map(|leg| leg.acked);
        let mut least = self.original.and_then(acked);
        let mut level = Vec::new();
        for heir in &self.heirs {
            let fit = |leg: &&Leg| leg.counts() && !leg.gone && leg.agrees(promise);
            if let Some(leg) = self.legs[*heir].as_ref().filter(fit)
                && least.is_none_or(|least| leg.acked >= least)
                && leg.sent >= self.told.sent
            {
                level.push(*heir);
            }
            least = [least, acked(*heir)].into_iter().flatten().min();
        }
        for heir in level {
            self.legs[heir].iter_mut().for_each(|leg| leg.levelled = true);
        }
    }

    /// Heirs that the flow may have moved to, and that have reset it since: then what others have said waits for a vote (R11).
    pub fn heirs_on_trial(&self) -> impl Iterator<Item = &Leg> {
        let heirs = self.heirs.iter().filter_map(|heir| self.legs[*heir].as_ref());
        heirs.filter(|leg| leg.levelled && leg.gone)
    }

    /// Machine `m` speaks to the client: it may have taken over from an original that has ended. Where it is not known who was original, it may
    /// have been this one all along, and an heir that has ended is still to come, for an end in order forbids no planned move (R12).
    pub fn moves_on(&mut self, m: usize) {
        if self.original.is_some_and(|original| original != m) && self.original_has_ended() {
            self.original = Some(m);
            if let Some(at) = self.heirs.iter().position(|heir| *heir == m) {
                // It may have moved there by plan, and what was planned after that is still to come.
                self.heirs.drain(..=at);
            } else {
                let legs = &self.legs;
                self.heirs
                    .retain(|heir| !legs[*heir].as_ref().is_some_and(Leg::has_ended));
            }
            self.takeovers += 1;
        }
    }

    /// The scale of windows that the client sends: both sides must have offered one (RFC 7323, 2.2).
    pub fn client_scale(&self, other: Option<u8>) -> u32 {
        match (self.offer.options.scale, other) {
            (Some(scale), Some(_)) => u32::from(scale),
            _ => 0,
        }
    }

    /// A packet of the client reached the engine.
    pub fn hear(&mut self, p: &Packet) {
        self.stamped = p.options.ts.is_some();
        if let Some((tsval, _)) = p.options.ts {
            Stamps::add(&mut self.stamps, tsval);
        }
        // Only an exactly placed reset ends anything (R11): behind all bytes that have come, of which an acknowledgement's number is no news, or where
        // the client was told. Others are challenged (RFC 5961 section 3.2), or answer what is left of older connections.
        let at = place(p.seq, self.isn, self.sent);
        let end = || self.pieces.iter().map(|piece| piece.1).fold(1, i64::max);
        self.client_reset |= p.has(RST) && (at == self.told.ack.max(1) as i64 || at == end());
        let Some(promise) = self.promise else { return };
        if p.has(SYN) || p.has(RST) || !p.has(ACK) {
            return;
        }
        let ack = place(p.ack, promise.isn, self.acked);
        let before = place(p.seq, self.isn, self.sent) < 0;
        if before
            || ack > self.told.sent as i64
            || place(p.seq, self.isn, self.sent) > self.told.edge as i64 + (1 << 16)
        {
            // Late, from an older connection on these addresses.
            return;
        }
        // A keep-alive lies before the window: in SYN-RECEIVED its acknowledgement is not looked at (RFC 9293 section 3.10.7.4).
        self.proved |= ack >= 1 && place(p.seq, self.isn, self.sent) >= 1;
        raise(&mut self.acked, ack);
        let edge = ack + (i64::from(p.win) << self.client_scale(promise.scale));
        raise(&mut self.edge, edge);
        let start = place(p.seq, self.isn, self.sent);
        let end = start + i64::from(p.seq_len());
        if start >= self.told.ack as i64 || end > self.told.ack as i64 {
            raise(&mut self.sure_edge, edge);
        }
        raise(&mut self.sent, end);
        if end > start {
            self.pieces.push((start, end, u64::try_from(ack).unwrap_or(0)));
        }
        if p.has(FIN) {
            self.fin = Some(end as u64);
        }
    }

    /// The highest ack number that R4 allows now; `max_lag` in bytes, `None` for unlimited.
    pub fn ack_bound(&self, max_lag: Option<u64>) -> u64 {
        let live = || {
            self.legs
                .iter()
                .enumerate()
                .filter_map(|(m, l)| Some((m, l.as_ref().filter(|l| l.counts())?)))
        };
        let known = self.original.filter(|_| self.heirs.is_empty());
        let original = known
            .and_then(|o| self.legs[o].as_ref())
            .filter(|l| !l.reset && !l.lost && !l.has_ended());
        let first = match original {
            Some(leg) => leg.acked,
            // It may be one that has died since it acknowledged everything: nobody need take over from it.
            None => {
                let done = self
                    .legs
                    .iter()
                    .flatten()
                    .map(|l| l.acked)
                    .filter(|u| self.fin.is_some_and(|fin| *u >= fin));
                // Or the last one, which stays though another flow wanted it evicted (R15).
                let stays = self
                    .legs
                    .iter()
                    .flatten()
                    .filter(|l| !l.reset && !l.lost)
                    .map(|l| l.acked);
                stays.chain(done).max().unwrap_or(0)
            }
        };
        let Some(lag) = max_lag else { return first };
        let others = live().filter(|(m, l)| !l.trails && (original.is_none() || Some(*m) != known));
        others.map(|(_, l)| l.acked + lag).min().unwrap_or(first).min(first)
    }

    /// The highest window edge that R5 allows now.
    pub fn edge_bound(&self, all: bool) -> u64 {
        let legs = self.legs.iter().enumerate().filter_map(|(m, l)| Some((m, l.as_ref()?)));
        let legs = legs.filter(|(_, l)| l.counts() && l.isn.is_some());
        if all {
            legs.filter(|(_, l)| !l.trails)
                .map(|(_, l)| l.edge)
                .min()
                .unwrap_or(u64::MAX)
        } else {
            let known = self.original.filter(|_| self.heirs.is_empty());
            legs.filter(|(m, _)| known.is_none_or(|o| o == *m) || self.original_has_ended())
                .map(|(_, l)| l.edge)
                .max()
                .unwrap_or(u64::MAX)
        }
    }

    /// The client has had all, and machine `m` was given all of the client's: just its word on that is missing.
    pub fn lacks_only_an_acknowledgement(&self, m: usize) -> bool {
        let fin = self.fin.unwrap_or(u64::MAX);
        self.acked >= self.whole && self.legs[m].as_ref().is_some_and(|leg| leg.told.sent >= fin)
    }

    /// Takes note of the end, after something was heard or told.
    pub fn note_end(&mut self, now: Micros) {
        self.finished_at = self.finished_at.or_else(|| self.finished().then_some(now));
    }

    /// Both directions are over, and the client knows: what still comes is old.
    pub fn finished(&self) -> bool {
        self.client_reset || (self.acked >= self.whole && self.fin.is_some_and(|fin| self.told.ack >= fin))
    }
}

/// The most that the client had acknowledged (v) when it first sent any of its bytes from `start` to `end` (R23).
pub fn cause_of(pieces: &[(i64, i64, u64)], start: i64, end: i64) -> u64 {
    let before = |end: i64| {
        let covering = pieces.iter().filter(|(from, to, _)| *from < end && end <= *to);
        covering.map(|piece| piece.2).min().unwrap_or(0)
    };
    // It changes only where a piece ends, or the next begins.
    let borders = pieces.iter().flat_map(|(from, to, _)| [*from, *to]);
    let inside = borders.filter(|at| start < *at && *at < end);
    inside.chain([end]).map(before).max().unwrap_or(0)
}
