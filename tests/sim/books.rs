//! The observer's books: what each party of a flow has really said, in 64-bit positions that do not wrap.
//!
//! u counts the client's bytes, v the service's; SYN is 0, the first byte 1 (design section 4).

use std::net::IpAddr;

use relevo::engine::Micros;

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

/// One machine's half of a flow, as far as the engine can know it.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    pub isn: Option<u32>,
    /// What its SYN/ACK agreed to.
    pub scale: Option<u8>,
    pub timestamps: bool,
    /// Highest v that it has sent, highest u that it has acknowledged, its window edge in u.
    pub sent: u64,
    pub acked: u64,
    pub edge: u64,
    /// The end of its output up to which nothing has been missed on the way to the engine.
    pub whole: u64,
    /// Its latest packet's acknowledgement, and whether that packet stood at the end of its output and held nothing else.
    pub latest: (u64, bool),
    /// Whether that packet bears its newest time stamp.
    pub latest_is_newest: bool,
    pub stamps: Option<Stamps>,
    /// What is added to its clock on the way to the client: fixed from its first packet on.
    pub clock_offset: Option<u32>,
    pub told: Told,
    /// A reset ended it, and the machine itself sent one.
    pub reset: bool,
    pub quit: bool,
    /// Its machine has said FIN or RST: what R11 votes on.
    pub ended: bool,
    /// The engine wants its machine evicted; if that is the last one it stays all the same.
    pub evicted: bool,
    /// Its machine was declared down: it never counts again, whatever the machine does (R13).
    pub lost: bool,
}

impl Leg {
    /// Whether the machine can be expected to read all of the client's stream: not when it gave up itself, and not when all its answers
    /// to the SYN were lost until the engine gave it up (R10).
    pub fn should_finish(&self) -> bool {
        !self.evicted && !self.lost && !self.quit && (!self.reset || self.isn.is_some())
    }

    /// Whether the commitment counts it (R4).
    pub fn counts(&self) -> bool {
        !self.reset && !self.lost && !self.evicted
    }

    fn unit(&self) -> u32 {
        self.scale.map_or(0, u32::from)
    }

    /// A packet of the machine reached the engine; `fin` is the end of the client's stream, if it is known.
    pub fn hear(&mut self, p: &Packet, isn_c: u32, fin: Option<u64>, proved: bool) {
        if let Some((tsval, _)) = p.options.ts {
            Stamps::add(&mut self.stamps, tsval);
            self.latest_is_newest = self.stamps.is_some_and(|s| s.latest == tsval);
        }
        if p.has(RST) {
            // A machine that has acknowledged everything has closed: its reset of what comes late takes nothing back. Nor does one
            // that belongs to an older connection on these addresses.
            let exact = match self.isn {
                Some(isn) => {
                    let v = place(p.seq, isn, self.sent);
                    v == self.sent as i64 || v == self.told.ack as i64
                }
                None => p.has(ACK) && p.ack == isn_c.wrapping_add(1),
            };
            self.ended |= exact;
            self.quit |= exact && fin.is_none_or(|fin| self.acked < fin);
            self.reset |= self.quit;
        } else if p.has(SYN) && p.has(ACK) {
            // A machine that answers anew has forgotten the first time; so has the engine, or the client would have answered.
            let anew = self.isn.is_some_and(|isn| isn != p.seq) && !proved;
            if p.ack == isn_c.wrapping_add(1) && (self.isn.is_none() || anew) {
                self.isn = Some(p.seq);
                (self.scale, self.timestamps) = (p.options.scale, p.options.ts.is_some());
                self.acked = 1;
                self.edge = 1 + u64::from(p.win);
                self.sent = 1;
                self.whole = 1;
            }
        } else if let Some(isn) = self.isn {
            let start = place(p.seq, isn, self.sent);
            let end = start + i64::from(p.seq_len());
            raise(&mut self.sent, end);
            self.ended |= p.has(FIN);
            if start <= self.whole as i64 {
                raise(&mut self.whole, end);
            }
            let ack = place(p.ack, isn_c, self.acked);
            let pure = p.flags == ACK && p.len == 0 && start == self.sent as i64;
            self.latest = (u64::try_from(ack).unwrap_or(0), pure);
            raise(&mut self.acked, ack);
            let edge = ack + (i64::from(p.win) << self.unit());
            raise(&mut self.edge, edge);
        }
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
    pub told: Told,
    /// The client's segments: from, to, and the v that each acknowledged (R23).
    pub pieces: Vec<(i64, i64, u64)>,
    pub legs: Vec<Option<Leg>>,
    /// Whose output the client gets; `None` while a takeover may have changed it.
    pub original: Option<usize>,
    /// The machine that it is to move to by plan, at a moment of the engine's choice.
    pub heir: Option<usize>,
    pub takeovers: u32,
    /// Another original was asked for, and the engine has not been looked at since.
    pub switching: bool,
    /// The whole length of the service's side: SYN, bytes and FIN.
    pub whole: u64,
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
            stamps: None,
            stamped: syn.options.ts.is_some(),
            proved: false,
            client_reset: false,
            reset_to_client: false,
            refused: false,
            told: Told::default(),
            pieces: Vec::new(),
            legs: vec![None; machines],
            original: None,
            heir: None,
            takeovers: 0,
            switching: false,
            whole: bytes_down as u64 + 2,
        };
        if let Some((tsval, _)) = syn.options.ts {
            Stamps::add(&mut flow.stamps, tsval);
        }
        flow
    }

    fn has_ended(&self, m: usize) -> bool {
        self.legs[m].as_ref().is_some_and(|leg| leg.ended)
    }

    /// Whether the original, or who took over by plan and has not spoken, has said something that a vote may take for its own failure (R11).
    pub fn original_has_ended(&self) -> bool {
        self.original.into_iter().chain(self.heir).any(|m| self.has_ended(m))
    }

    /// Whether a vote may have made another machine the original. Where the fastest speaks, the books don't know who was.
    pub fn may_have_moved(&self) -> bool {
        let unknown = self.original.is_none() && (0..self.legs.len()).any(|m| self.has_ended(m));
        unknown || self.original_has_ended()
    }

    /// Machine `m` speaks to the client: it may have taken over from an original that has ended.
    pub fn moves_on(&mut self, m: usize) {
        if self.original != Some(m) && self.original_has_ended() {
            self.original = Some(m);
            self.heir = self.heir.filter(|heir| *heir != m && !self.has_ended(*heir));
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
        // Only an exactly placed reset ends anything (R11); others answer what is left of older connections.
        let at = place(p.seq, self.isn, self.sent);
        self.client_reset |= p.has(RST) && (at == self.sent as i64 || at == self.told.ack.max(1) as i64);
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
        self.proved |= ack >= 1;
        raise(&mut self.acked, ack);
        let edge = ack + (i64::from(p.win) << self.client_scale(promise.scale));
        raise(&mut self.edge, edge);
        let start = place(p.seq, self.isn, self.sent);
        let end = start + i64::from(p.seq_len());
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
        let known = self.original.filter(|_| self.heir.is_none());
        let original = known
            .and_then(|o| self.legs[o].as_ref())
            .filter(|l| !l.reset && !l.lost && !l.ended);
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
                live().map(|(_, l)| l.acked).chain(done).max().unwrap_or(0)
            }
        };
        let Some(lag) = max_lag else { return first };
        let others = live().filter(|(m, _)| original.is_none() || Some(*m) != known);
        others.map(|(_, l)| l.acked + lag).min().unwrap_or(first).min(first)
    }

    /// The highest window edge that R5 allows now.
    pub fn edge_bound(&self, all: bool) -> u64 {
        let legs = self.legs.iter().enumerate().filter_map(|(m, l)| Some((m, l.as_ref()?)));
        let legs = legs.filter(|(_, l)| l.counts() && l.isn.is_some());
        if all {
            legs.map(|(_, l)| l.edge).min().unwrap_or(u64::MAX)
        } else {
            let known = self.original.filter(|_| self.heir.is_none());
            legs.filter(|(m, _)| known.is_none_or(|o| o == *m) || self.original_has_ended())
                .map(|(_, l)| l.edge)
                .max()
                .unwrap_or(u64::MAX)
        }
    }

    /// Both directions are over, and the client knows: what still comes is old.
    pub fn finished(&self) -> bool {
        self.client_reset || (self.acked >= self.whole && self.fin.is_some_and(|fin| self.told.ack >= fin))
    }
}

/// The v that the client had acknowledged when it first sent the byte before `end` (R23).
pub fn cause_of(pieces: &[(i64, i64, u64)], end: i64) -> u64 {
    let covering = pieces.iter().filter(|(from, to, _)| *from < end && end <= *to);
    covering.map(|piece| piece.2).min().unwrap_or(0)
}
