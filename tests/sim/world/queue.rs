//! Events and the clock: what can happen at a time, in which order, and timers that are set anew.

use relevo::engine::Micros;

use crate::scenario::Fault;

/// What happens at a time.
pub(super) enum Happening {
    /// A packet reaches the engine from a host, or a host.
    ToEngine(usize, Vec<u8>),
    ToHost(usize, Vec<u8>),
    /// A host's own timer, valid if the number is still its latest.
    Host(usize, u64),
    Engine(u64),
    Connect(usize),
    Fault(usize),
    /// A service that dies goes on doing so.
    Ends(Fault),
    Tick,
    /// The engine runs again after a stall.
    Resume,
}

pub(super) struct Entry {
    pub(super) at: Micros,
    pub(super) number: u64,
    pub(super) what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A timer that can be set anew.
#[derive(Clone, Copy, Default)]
pub(super) struct Timer {
    at: Option<Micros>,
    number: u64,
}

impl Timer {
    /// Sets it anew; what is to be put into the queue, unless that stands there already.
    pub(super) fn set(&mut self, next: Option<Micros>) -> Option<(Micros, u64)> {
        if self.at == next {
            return None;
        }
        self.number += 1;
        self.at = next;
        next.map(|at| (at, self.number))
    }
    /// Whether an entry of the queue is this timer's latest; if so it has gone off.
    pub(super) fn goes_off(&mut self, number: u64) -> bool {
        let valid = self.at.is_some() && self.number == number;
        if valid {
            self.at = None;
        }
        valid
    }
}
