//! The engine (pure): packets and a `now` in; a verdict, packets to send and events out.

mod close;
mod command;
mod context;
mod contract;
mod crash;
mod cut;
pub mod detect;
mod dispatch;
mod diverge;
mod fall;
mod fastest;
mod flow;
mod flows;
mod from_client;
mod from_machine;
mod gate;
mod handover;
mod handshake;
mod hang;
mod leg;
pub mod outbox;
mod pack;
mod park;
mod ports;
mod pos;
mod probe;
mod pump;
mod ranges;
mod rare;
mod reset;
mod rtt;
mod sendbuf;
mod sender;
pub mod spec;
pub mod stats;
mod status;
mod stream;
mod supers;
mod table;
mod takeover;
mod timers;
mod trail;
mod vote;
mod watch;

use crate::wire::{ParseError, Parsed, tcp_checksum_ok};
use context::Context;
use flows::Flows;
use std::collections::VecDeque;
use table::Table;
use timers::Timers;

pub use contract::*;
pub use diverge::{Difference, Excerpt};
pub use outbox::Outbox;
pub use spec::*;
pub use stats::{Counter, DropReason, Stats};

/// Room in the tables that is kept when no flow is left: a shard with fewer at a time never allocates it again.
const KEPT_FLOWS: usize = 1_024;

/// One shard of the engine.
///
/// The contract (sans-I/O): give each packet to [`Engine::handle_packet`], carry out its verdict at once, then call
/// [`Engine::poll`] and send what is in the outbox; call `poll` again no later than [`Engine::next_deadline`].
/// A panic is a bug, never bad input.
#[derive(Debug)]
pub struct Engine {
    cx: Context,
    table: Table,
    flows: Flows,
    timers: Timers,
    /// How many deadlines may pile up before those that no longer count are thrown out.
    sweep_at: usize,
    /// Flows with work for the next poll.
    dirty: VecDeque<usize>,
    half_open: usize,
    /// Clients that had not proved themselves when they came, oldest first; those that have since are passed over.
    unproved: VecDeque<(usize, u32)>,
    /// One of them has legs that the engine speaks to.
    burdened: bool,
    generation: u32,
    heard: Option<MachineRef>,
    probe_age: Option<Micros>,
}

impl Engine {
    /// A shard with no flows; all machines count as up.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            table: Table::new(&spec.services, &spec.limits, spec.hash_key, spec.shard, spec.shards),
            cx: Context::new(spec),
            flows: Flows::default(),
            timers: Timers::new(),
            sweep_at: 64,
            dirty: VecDeque::new(),
            half_open: 0,
            unproved: VecDeque::new(),
            burdened: false,
            generation: 0,
            heard: None,
            probe_age: None,
        }
    }

    /// The packet's verdict. `packet` starts at the IP header and is rewritten in place.
    pub fn handle_packet(&mut self, now: Micros, meta: Meta, packet: &mut [u8]) -> Verdict {
        self.cx.stats.count(Counter::PacketsIn);
        self.heard = None;
        self.probe_age = None;
        let verdict = match Parsed::parse(packet) {
            // Nobody has looked at it on the way here, and replicas get its bytes with a checksum of the engine's own making.
            Ok(parsed) if meta.checksum == Checksum::Complete && !tcp_checksum_ok(packet, &parsed) => {
                Verdict::Drop(DropReason::Checksum)
            }
            Ok(parsed) => self.dispatch(now, meta, &parsed, packet),
            Err(ParseError::Fragment) => Verdict::Drop(DropReason::Fragment),
            Err(ParseError::Malformed | ParseError::NotTcp) => Verdict::Drop(DropReason::Malformed),
        };
        match verdict {
            Verdict::Accept { .. } => self.cx.stats.count(Counter::Accepted),
            Verdict::Drop(reason) => self.cx.stats.drop(reason),
        }
        verdict
    }

    fn touch(&mut self, key: usize) {
        if let Some(flow) = self.flows.get_mut(&mut self.cx, key)
            && !std::mem::replace(&mut flow.dirty, true)
        {
            self.burdened |= flow.has_followers();
            self.dirty.push_back(key);
        }
    }

    /// Whether the next [`Engine::poll`] has replica work to do: worth letting others go first.
    #[must_use]
    pub fn is_burdened(&self) -> bool {
        self.burdened
    }

    /// Takes a flow out of all tables; with `reset`, its legs are told.
    fn forget(&mut self, key: usize, reset: bool) {
        let Some(mut flow) = self.flows.remove(key) else {
            return;
        };
        if reset {
            flow.answer_resets(&mut self.cx);
        }
        self.half_open -= usize::from(flow.is_half_open());
        flow.close_vote(&mut self.cx);
        flow.release(&mut self.cx.budget);
        self.table.remove(flow.service, flow.client.addr, flow.peer, key);
        self.cx.stats.count(Counter::FlowsClosed);
    }

    /// From here on each segment is a packet of its own: the host can cut super-packets no longer.
    pub fn stop_super_packets(&mut self) {
        self.cx.spec.super_packets = false;
    }

    /// The work that a verdict does not wait for: acknowledgements, replica segments, due timers. Appends to `out`.
    pub fn poll(&mut self, now: Micros, out: &mut Outbox) {
        self.poll_part(now, out, usize::MAX);
    }

    /// As [`Engine::poll`], but begins no further flow's work once `out` holds `most` packets, or `most` flows have had their turn: after a
    /// command on ten thousand flows, what they owe goes out bit by bit, and packets get their verdicts between. Call again while
    /// [`Engine::is_behind`].
    pub fn poll_part(&mut self, now: Micros, out: &mut Outbox, most: usize) {
        while let Some((at, key, generation)) = self.timers.pop_due(now) {
            if self.flows.has_armed(key, generation, at)
                && let Some(flow) = self.flows.get_mut(&mut self.cx, key)
            {
                flow.armed = None;
                flow.on_timer(&mut self.cx, now);
                self.touch(key);
            }
        }
        self.work_part(now, out, most);
        if self.timers.len() > self.sweep_at {
            let flows = &self.flows;
            self.timers
                .retain(|at, key, generation| flows.has_armed(key, generation, at));
            // Twice what counts: so a sweep costs each deadline that was armed since a constant share.
            self.sweep_at = 2 * self.timers.len() + 64;
        }
    }

    /// As [`Engine::poll_part`], but fires no timers: for the time between a command and the packets that have arrived before it.
    pub fn work_part(&mut self, now: Micros, out: &mut Outbox, most: usize) {
        // A stale connection is cleared before its machine is asked again.
        self.say_answers(out);
        self.tell_sleepers(most.saturating_sub(self.dirty.len()));
        for _ in 0..most {
            if out.len() >= most {
                break;
            }
            let Some(key) = self.dirty.pop_front() else { break };
            self.work(now, key, out);
        }
        self.burdened = self.is_behind();
        self.say_answers(out);
    }

    /// Whether flows still have work for the next poll: after a [`Engine::poll_part`] that ended early.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.dirty.is_empty() || self.flows.is_falling()
    }

    fn say_answers(&mut self, out: &mut Outbox) {
        let mut answers = std::mem::take(&mut self.cx.answers);
        for answer in answers.drain(..) {
            pump::send(&mut self.cx, &answer.segment(), out);
        }
        self.cx.answers = answers;
    }

    fn work(&mut self, now: Micros, key: usize, out: &mut Outbox) {
        let Some(flow) = self.flows.get_mut(&mut self.cx, key) else {
            return;
        };
        flow.dirty = false;
        let before = flow.is_half_open();
        flow.pump(&mut self.cx, now, out);
        self.half_open -= usize::from(before && !flow.is_half_open());
        if flow.is_forgettable(&self.cx, now) {
            self.forget(key, true);
            return;
        }
        flow.forget_handshakes();
        let parks_at = flow.parks_at(&self.cx);
        let parks = parks_at.is_some_and(|at| at <= now);
        let deadlines = [flow.deadline(&self.cx), parks_at.filter(|_| !parks)];
        if let Some(deadline) = deadlines.into_iter().flatten().min().map(|at| at.max(now + 1))
            && flow.armed.is_none_or(|armed| deadline < armed)
        {
            flow.armed = Some(deadline);
            self.timers.arm(deadline, key, flow.generation);
        }
        if parks {
            self.flows.park(key);
        }
    }

    /// Once the last flow of many has gone: gives back the room that the tables had grown to. Otherwise they would keep it, and grow once
    /// more when as many flows come again, for a hash table counts the places of what was removed until it is rebuilt. To be called after
    /// [`Engine::poll`], now and then. Returns whether there was anything to give back.
    pub fn give_back(&mut self) -> bool {
        if !self.flows.is_empty() || self.flows.capacity() <= KEPT_FLOWS {
            return false;
        }
        self.flows.shrink_to_fit();
        self.table.shrink();
        // No deadline counts any more, nor does work for a flow that has gone.
        self.timers = Timers::new();
        self.sweep_at = 64;
        self.dirty = VecDeque::new();
        self.unproved = VecDeque::new();
        true
    }

    /// When [`Engine::poll`] wants to be called next, if no packet comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        self.timers.next()
    }

    /// What the shard wants the coordinator to know, oldest first.
    pub fn take_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// The machine that the last packet given to [`Engine::handle_packet`] came from: any packet counts as life (R14).
    #[must_use]
    pub fn heard(&self) -> Option<MachineRef> {
        self.heard
    }

    /// How long ago the probe was sent that the last packet answers, in microseconds; `None` if it answers none.
    #[must_use]
    pub fn probe_age(&self) -> Option<Micros> {
        self.probe_age
    }

    /// What it was told at its start.
    #[must_use]
    pub fn spec(&self) -> &EngineSpec {
        &self.cx.spec
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.cx.stats
    }
}

#[cfg(test)]
mod tests;
