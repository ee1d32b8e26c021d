//! A machine's half of a flow in the books.

use relevo::engine::{Micros, SECOND};

use super::{Promise, Stamps, Told, place, raise};
use crate::packet::{ACK, FIN, Packet, RST, SYN};

/// When a machine was last sent the first byte that it lacks, or its closed window was probed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Urged {
    /// Which byte that was.
    lacks: u64,
    before: Option<Micros>,
    last: Option<Micros>,
    frozen: bool,
}

impl Urged {
    /// It is sent byte `lacks` now, while its machine is frozen or not.
    pub fn again(&mut self, now: Micros, lacks: u64, frozen: bool) {
        let before = self.last.filter(|_| self.lacks == lacks);
        (self.lacks, self.before, self.last, self.frozen) = (lacks, before, Some(now), frozen);
    }

    /// Whether that was within the last second: a closed window is probed twice in it.
    pub fn is_recent(&self, now: Micros) -> bool {
        self.last.is_some_and(|last| now <= last + SECOND)
    }

    /// Whether its machine was frozen the last time, and the next is not due: after twice the time that lay between the last two (RFC 6298 section 5.5).
    pub fn was_in_vain(&self, now: Micros) -> bool {
        let due = self
            .before
            .zip(self.last)
            .map(|(before, last)| last + 2 * (last - before));
        self.frozen && due.is_some_and(|due| now <= due)
    }
}

/// One machine's half of a flow, as far as the engine can know it.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    pub isn: Option<u32>,
    /// What its SYN/ACK agreed to.
    pub scale: Option<u8>,
    pub timestamps: bool,
    pub sack: bool,
    /// Highest v that it has sent, highest u that it has acknowledged, its window edge in u.
    pub sent: u64,
    pub acked: u64,
    pub edge: u64,
    /// The largest window that it has ever told.
    pub largest: u64,
    /// When that output last grew; and from when to when it had not, for `replica_timeout` at least.
    pub said_at: Micros,
    pub was_silent: Vec<(Micros, Micros)>,
    /// Where its FIN ends, if it sent one, and when that was first heard.
    pub fin: Option<u64>,
    pub fin_at: Micros,
    /// It was said within the client's window, so that it need not be said again.
    pub fin_fits: bool,
    /// The end of its output up to which nothing has been missed on the way to the engine.
    pub whole: u64,
    /// The end of its output as its packets tell, holes included, without what lay beyond the client's window.
    pub known: u64,
    /// Its latest packet's acknowledgement, and whether that packet stood at the end of its output and held nothing else.
    pub latest: (u64, bool),
    /// Whether that packet bears its newest time stamp.
    pub latest_is_newest: bool,
    pub stamps: Option<Stamps>,
    /// Its last packet carried no time stamp. A stack leaves it out in its answer to a packet that has none (see [`super::Flow::stamped`]).
    pub unstamped: bool,
    /// What it had said when some of its output did not fit the engine's memory: only that much need be replayed (R9).
    pub skipped_at: Option<u64>,
    /// What is added to its clock on the way to the client: fixed from its first packet on, or, if that had to wait for the client's clock, from the
    /// first that had not.
    pub clock_offset: Option<(u32, bool)>,
    pub told: Told,
    /// A reset ended it, and the machine itself sent one before it had acknowledged everything.
    pub reset: bool,
    pub quit: bool,
    /// It had time enough to end (R10): its window is closed as far as is known, and so it was when the conversation had been over for long; or its
    /// machine was frozen until then, or so nearly that it has not been sent since what it lacks first.
    pub given_up: bool,
    /// When it was last sent what it lacks first, and whether its machine was frozen.
    pub urged: Urged,
    /// The machine sent a reset, whenever: it has no connection any more, and can't go on with one.
    pub gone: bool,
    /// As heir of a plan it was level with the original once: the flow may have moved there, unheard.
    pub levelled: bool,
    /// Its wait for its own output may have been given up (R23); and it was: it may take over no more.
    pub may_be_fed: bool,
    pub released: bool,
    /// The engine wants its machine evicted; if that is the last one it stays all the same.
    pub evicted: bool,
    /// Its machine was declared down: it never counts again, whatever the machine does (R13).
    pub lost: bool,
    /// What it had acknowledged, and its edge, when that last changed, and when that was.
    pub progress: (u64, u64),
    pub progress_at: Micros,
    /// When what it had acknowledged, or its edge, last moved, whoever waits for it.
    pub moved_at: Micros,
    /// When its edge alone last did: an acknowledgement is its kernel's, room is its service's.
    pub widened_at: Micros,
    /// Since when it is behind another, and whether the client need not wait for it any more (R15).
    pub behind_since: Option<Micros>,
    pub trails: bool,
}

impl Leg {
    /// Whether the machine can be expected to read all of the client's stream: not when it gave up itself, and not when all its answers
    /// to the SYN were lost until the engine gave it up (R10), or it left its window closed for as long.
    pub fn should_finish(&self) -> bool {
        !self.evicted && !self.lost && !self.quit && !self.given_up && (!self.reset || self.isn.is_some())
    }

    /// Whether it has opened the connection with the options that the client was promised: without them it never becomes original (R5).
    pub fn agrees(&self, promise: Promise) -> bool {
        let agreed = (self.timestamps, self.scale.is_some(), self.sack);
        self.isn.is_some() && agreed == (promise.timestamps, promise.scale.is_some(), promise.sack)
    }

    /// How much its service has said. A FIN is no word, for the kernel says it, too, of one that crashes; but for the answer to the client's, `end`.
    pub fn words(&self, end: Option<u64>) -> u64 {
        let answers = end.is_some_and(|end| self.acked >= end);
        self.sent - u64::from(self.fin == Some(self.sent) && !answers)
    }

    /// How much its service has read at least: what it has made room for, without the largest room that it has ever had.
    pub fn read(&self) -> u64 {
        self.edge.saturating_sub(self.largest)
    }

    /// Whether its machine has acknowledged everything that its window takes: the engine can give it no more (R3).
    pub fn is_full(&self) -> bool {
        self.isn.is_some() && self.acked == self.edge
    }

    /// Whether its machine has said FIN or RST: what R11 votes on.
    pub fn has_ended(&self) -> bool {
        self.fin.is_some() || self.gone
    }

    /// Whether the commitment counts it (R4).
    pub fn counts(&self) -> bool {
        !self.reset && !self.lost && !self.evicted
    }

    fn unit(&self) -> u32 {
        self.scale.map_or(0, u32::from)
    }

    /// A packet of the machine reached the engine; `fin` is the end of the client's stream, if it is known. `kept` says that the engine
    /// has not forgotten what the machine has said before; `room` is the right edge of the client's window, and the unit by which it may be rounded.
    pub fn hear(&mut self, p: &Packet, isn_c: u32, fin: Option<u64>, kept: bool, (room, unit): (u64, u64)) {
        self.unstamped = p.options.ts.is_none();
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
            self.gone |= exact;
            self.quit |= exact && fin.is_none_or(|fin| self.acked < fin);
            self.reset |= self.quit;
        } else if p.has(SYN) && p.has(ACK) {
            // A machine that answers anew has forgotten the first time; so has the engine, or the client would have answered.
            let anew = self.isn.is_some_and(|isn| isn != p.seq) && !kept;
            if p.ack == isn_c.wrapping_add(1) && (self.isn.is_none() || anew) {
                self.isn = Some(p.seq);
                (self.scale, self.timestamps) = (p.options.scale, p.options.ts.is_some());
                self.sack = p.options.sack_permitted;
                self.acked = 1;
                self.edge = 1 + u64::from(p.win);
                self.largest = u64::from(p.win);
                self.sent = 1;
                self.whole = 1;
                self.known = 1;
            }
        } else if let Some(isn) = self.isn {
            let start = place(p.seq, isn, self.sent);
            let end = start + i64::from(p.seq_len());
            raise(&mut self.sent, end);
            if p.has(FIN) {
                self.fin = u64::try_from(end).ok();
                self.fin_fits |= end <= room as i64;
            }
            // What lies beyond the client's window is cut off, as a receiver would (RFC 9293 section 3.10.7.4): it has to be said again.
            if start <= self.whole as i64 {
                raise(&mut self.whole, end.min(room as i64));
            }
            if start <= room as i64 {
                raise(&mut self.known, end.min(room as i64));
            }
            // What lies beyond is no news of anything (R22; RFC 9293 section 3.10.7.4: it is not acceptable).
            if start > (room + unit) as i64 {
                return;
            }
            let ack = place(p.ack, isn_c, self.acked);
            let pure = p.flags == ACK && p.len == 0 && start == self.sent as i64;
            self.latest = (u64::try_from(ack).unwrap_or(0), pure);
            raise(&mut self.acked, ack);
            let edge = ack + (i64::from(p.win) << self.unit());
            raise(&mut self.largest, edge - ack);
            raise(&mut self.edge, edge);
        }
    }
}
