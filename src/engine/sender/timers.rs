//! When to act though nothing is heard. Timers, one at a time:
//!
//! - *retransmission* (RFC 6298): armed while something is unacknowledged; everything from `una` on is sent again, slowly.
//! - *tail probe* (in the spirit of RFC 8985 section 7): once before the first retransmission timeout of a flight, after two round
//!   trips, the last segment is sent again, so that the loss of a tail costs milliseconds and not the timeout's floor.
//! - *persist* (RFC 9293 section 3.8.6.1): armed while the window is closed and something waits; probes until it opens.

use super::super::spec::{MILLISECOND, Micros};
use super::{Sender, Supply};
use crate::mutant::{self, Mutation};

/// The least wait for a tail probe: a machine may need that long to be scheduled.
pub(super) const TAIL_FLOOR: Micros = 10 * MILLISECOND;
/// A single segment may be acknowledged late on purpose (RFC 9293 section 3.8.6.3); 40 milliseconds is what Linux takes.
const DELAYED_ACK: Micros = 40 * MILLISECOND;
/// The longest wait between two window probes; the gate may hang on this window.
const PERSIST_MAX: Micros = 500 * MILLISECOND;

/// What a timer's expiry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing was due.
    None,
    /// Call [`Sender::next_segment`]: something is to be sent again.
    Resend,
    /// Send a window probe.
    Probe,
}

/// The timer that runs, and when it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Retransmit(Micros),
    Tail(Micros),
    Persist(Micros),
}

impl Sender {
    /// When [`Sender::on_timer`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        self.flight.timer.map(|t| match t {
            Timer::Retransmit(at) | Timer::Tail(at) | Timer::Persist(at) => at,
        })
    }

    /// Arms what should run: after sending, after an acknowledgement, or when a closed window leaves something waiting.
    pub(super) fn arm(&mut self, now: Micros) {
        if matches!(self.flight.timer, Some(Timer::Retransmit(_) | Timer::Tail(_))) {
            return;
        }
        if self.una >= self.max {
            return;
        }
        let timeout = now + self.rtt.timeout();
        let timer = match self.rtt.smoothed() {
            Some(smoothed) if !self.flight.tail_probed && self.rtt.backoffs() == 0 => {
                let lone = if self.max - self.una <= self.mss() {
                    DELAYED_ACK
                } else {
                    0
                };
                Timer::Tail((now + (2 * smoothed).max(TAIL_FLOOR) + lone).min(timeout))
            }
            _ => Timer::Retransmit(timeout),
        };
        self.flight.wake().timer = Some(timer);
    }

    /// Keeps the persist timer running exactly while something waits, nothing is in flight and the window is closed.
    pub fn mind_window(&mut self, now: Micros, supply: Supply) {
        let blocked = self.una >= self.max && self.edge <= self.nxt && supply.end > self.nxt;
        match self.flight.timer {
            None if blocked => {
                self.flight.wake().timer = Some(Timer::Persist(now + self.rtt.timeout().min(PERSIST_MAX)));
            }
            Some(Timer::Persist(_)) if !blocked => self.stop_timer(),
            _ => {}
        }
    }

    pub(super) fn stop_timer(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timer = None;
        }
    }

    /// The machine speaks, and acknowledges nothing, after the timer has expired again and again: it is back from wherever it was, and what it
    /// lacks follows at once (in the spirit of RFC 6069, which takes back what the timer was backed off by while nobody could be reached).
    /// Two expiries are needed each time, so a machine that is merely hard to reach draws no more by it than by its timer.
    pub fn on_sign_of_life(&mut self, now: Micros) {
        if matches!(self.flight.timer, Some(Timer::Retransmit(_))) && self.rtt.backoffs() > 1 {
            self.rtt.reset_backoff();
            self.flight.wake().timer = Some(Timer::Retransmit(now));
        }
    }

    /// A deadline may have passed.
    pub fn on_timer(&mut self, now: Micros) -> Expiry {
        let Some(flight) = self.flight.awake() else {
            return Expiry::None;
        };
        match flight.timer {
            Some(Timer::Tail(at)) if at <= now => {
                flight.tail_probed = true;
                flight.tail_due = true;
                flight.timed = None;
                flight.timer = Some(Timer::Retransmit(now + self.rtt.timeout()));
                Expiry::Resend
            }
            Some(Timer::Retransmit(at)) if at <= now && mutant::is(Mutation::NeverResends) => {
                flight.timer = None;
                Expiry::None
            }
            Some(Timer::Retransmit(at)) if at <= now => {
                self.on_timeout(now);
                Expiry::Resend
            }
            Some(Timer::Persist(at)) if at <= now => {
                self.rtt.back_off();
                flight.timer = Some(Timer::Persist(now + self.rtt.timeout().min(PERSIST_MAX)));
                Expiry::Probe
            }
            _ => Expiry::None,
        }
    }

    fn on_timeout(&mut self, now: Micros) {
        let first = self.rtt.backoffs() == 0;
        self.congestion.collapse(first, self.outstanding(), self.mss());
        self.nxt = self.una;
        self.rtt.back_off();
        let flight = self.flight.wake();
        flight.recover = None;
        flight.dup_acks = 0;
        flight.hole_due = false;
        flight.timed = None;
        flight.timed_out_at = self.max;
        // RFC 2018 section 8: after a timeout, what was selectively acknowledged may have been thrown away.
        flight.sacked.clear();
        flight.timer = Some(Timer::Retransmit(now + self.rtt.timeout()));
    }
}
