//! The TCP sender of a leg (R3): what to send when, within the machine's window and a NewReno congestion window.
//!
//! It knows positions only, no bytes and no packets. This module is what it remembers, from the SYN to its rest; what it does with that:
//!
//! - `follow`: nothing of its own, while the client's packets are forwarded;
//! - `acks`: takes in what the machine acknowledges, and sees what is lost;
//! - `congestion`: how much may be under way;
//! - `segments`: what goes out now;
//! - `timers`: when to act though nothing is heard;
//! - `runs`: whether super-packets arrive.

mod acks;
mod congestion;
mod flight;
mod follow;
mod runs;
mod segments;
mod timers;

#[cfg(test)]
mod tests;

pub use self::segments::{Plan, Supply};
pub use self::timers::Expiry;

use self::congestion::Congestion;
use self::flight::Flight;
use super::pack::Packer;
use super::pos::Pos;
use super::rare::Rare;
use super::rtt::Rtt;

/// Payload of a segment before the machine has said what it takes (RFC 9293 section 3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Sender state of one leg. Positions are u; SYN = 0.
#[derive(Debug)]
pub struct Sender {
    una: Pos,
    nxt: Pos,
    max: Pos,
    edge: Pos,
    congestion: Congestion,
    flight: Rare<Flight>,
    /// Round-trip time to the machine.
    pub rtt: Rtt,
    mss: u16,
}

impl Sender {
    /// A leg whose SYN is not acknowledged yet.
    #[must_use]
    pub fn new(rtt: Rtt) -> Self {
        Self {
            una: 0,
            nxt: 0,
            max: 0,
            edge: 1,
            congestion: Congestion::new(Pos::from(DEFAULT_MSS)),
            flight: Rare::new(),
            rtt,
            mss: DEFAULT_MSS,
        }
    }

    /// The SYN was acknowledged: the stream starts. `mss` is the payload of a full segment in bytes; `edge` the first window's end.
    pub fn open(&mut self, mss: u16, edge: Pos) {
        self.mss = mss.max(1);
        self.congestion.open(self.mss());
        (self.una, self.nxt, self.max) = (self.una.max(1), self.nxt.max(1), self.max.max(1));
        self.edge = self.edge.max(edge);
        self.stop_timer();
    }

    fn mss(&self) -> Pos {
        Pos::from(self.mss)
    }
    /// The payload of a full segment in bytes.
    #[must_use]
    pub fn segment(&self) -> u16 {
        self.mss
    }
    /// The lowest position that the machine has not acknowledged.
    #[must_use]
    pub fn una(&self) -> Pos {
        self.una
    }
    /// The next position to send.
    #[must_use]
    pub fn nxt(&self) -> Pos {
        self.nxt
    }
    /// The end of all that was ever sent.
    #[must_use]
    pub fn max(&self) -> Pos {
        self.max
    }
    /// The right edge of the machine's window.
    #[must_use]
    pub fn edge(&self) -> Pos {
        self.edge
    }

    /// Whether [`Sender::rest`] would give memory back: all that was under way has been acknowledged.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        self.flight.is_awake() && self.una >= self.max && !self.flight.is_busy()
    }
    /// Gives back the memory of what was under way, once all of it has been acknowledged.
    pub fn rest(&mut self) {
        if self.can_rest() {
            self.flight.rest();
        }
    }
    /// Gives the memory back if there is nothing to remember.
    pub fn settle(&mut self) {
        self.flight.settle();
    }
    /// Nobody sends from here on: what was under way is of no interest any more.
    pub fn forget(&mut self) {
        self.flight.rest();
    }
    /// Nothing is under way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.flight.is_awake()
    }

    /// All that it consists of at rest (`park`). Positions are likely to be near `near`.
    pub fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self {
            una,
            nxt,
            max,
            edge,
            congestion,
            rtt,
            mss,
            flight: _,
        } = self;
        p.pos(una, near);
        p.pos(nxt, *una);
        p.pos(max, *una);
        p.pos(edge, *una);
        congestion.pack(p);
        p.small(mss);
        rtt.pack(p);
    }
}
