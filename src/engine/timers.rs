//! Deadlines of all flows in one heap.
//!
//! A flow has at most one entry that counts. A deadline that moves away is not touched: when the old one is due, the flow is
//! asked again and armed anew; what no longer counts is swept out when it has piled up. So the steady path does not allocate, and a
//! deadline costs a constant share of a sweep.

use super::spec::Micros;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The heap: deadline, flow, generation of the flow. A flow's number is small: `max_flows` is no more than memory holds.
#[derive(Debug)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Micros, u32, u32)>>,
}

/// Entries that a heap has room for from the start: more than pile up between two sweeps while there are few flows.
const FEW: usize = 128;

impl Timers {
    /// No deadlines.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(FEW),
        }
    }
    /// Arms a deadline for a flow.
    pub fn arm(&mut self, at: Micros, flow: usize, generation: u32) {
        // A number that did not fit would be armed for nobody: no flow table comes near.
        let flow = u32::try_from(flow).unwrap_or(u32::MAX);
        self.heap.push(Reverse((at, flow, generation)));
    }
    /// Entries, those that no longer count included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
    /// Forgets the entries that no longer count: each flow that armed an earlier deadline, or went, left one behind (R18).
    pub fn retain(&mut self, mut counts: impl FnMut(Micros, usize, u32) -> bool) {
        self.heap
            .retain(|Reverse((at, flow, generation))| counts(*at, index(*flow), *generation));
    }
    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Micros> {
        self.heap.peek().map(|r| r.0.0)
    }
    /// The next flow whose deadline has come.
    pub fn pop_due(&mut self, now: Micros) -> Option<(Micros, usize, u32)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((at, flow, generation)) = self.heap.pop()?;
        Some((at, index(flow), generation))
    }
}

fn index(flow: u32) -> usize {
    usize::try_from(flow).unwrap_or(usize::MAX)
}
