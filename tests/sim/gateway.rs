//! What stands in the middle of the network: the engine, or a plain address translator that proves the network itself.

use relevo::engine::{Command, Counter, Engine, Event, MachineRef, Meta, Micros, Outbox, Probe, ShardStatus, Verdict};

/// The engine's contract, as far as the simulation drives it.
pub trait Gateway {
    fn handle_packet(&mut self, now: Micros, meta: Meta, packet: &mut [u8]) -> Verdict;
    /// Some of the work: no more than `most` flows' or packets' at a time.
    fn poll_part(&mut self, now: Micros, out: &mut Outbox, most: usize);
    /// Whether there is more of it.
    fn is_behind(&self) -> bool {
        false
    }
    fn next_deadline(&self) -> Option<Micros>;
    fn take_event(&mut self) -> Option<Event>;
    fn command(&mut self, now: Micros, command: Command);
    fn heard(&self) -> Option<MachineRef>;
    fn probe_age(&self) -> Option<Micros>;
    fn probe(&mut self, probe: Probe, out: &mut Outbox);
    fn status(&self) -> ShardStatus;
    /// How often a machine's wait for its own output was given up (R23).
    fn released(&self) -> u64 {
        0
    }
    /// How many flows have left a machine whose service crashes (R11).
    fn crashes_left(&self) -> u64 {
        0
    }
    /// How often some of a replica's output did not fit the memory that R9 allows.
    fn skipped(&self) -> u64 {
        0
    }
}

impl Gateway for Engine {
    fn handle_packet(&mut self, now: Micros, meta: Meta, packet: &mut [u8]) -> Verdict {
        Engine::handle_packet(self, now, meta, packet)
    }
    fn poll_part(&mut self, now: Micros, out: &mut Outbox, most: usize) {
        Engine::poll_part(self, now, out, most);
    }
    fn is_behind(&self) -> bool {
        Engine::is_behind(self)
    }
    fn next_deadline(&self) -> Option<Micros> {
        Engine::next_deadline(self)
    }
    fn take_event(&mut self) -> Option<Event> {
        Engine::take_event(self)
    }
    fn command(&mut self, now: Micros, command: Command) {
        Engine::command(self, now, command);
    }
    fn heard(&self) -> Option<MachineRef> {
        Engine::heard(self)
    }
    fn probe_age(&self) -> Option<Micros> {
        Engine::probe_age(self)
    }
    fn probe(&mut self, probe: Probe, out: &mut Outbox) {
        Engine::probe(self, probe, out);
    }
    fn status(&self) -> ShardStatus {
        Engine::status(self)
    }
    fn released(&self) -> u64 {
        self.stats().get(Counter::CausalityReleases)
    }
    fn crashes_left(&self) -> u64 {
        self.stats().get(Counter::CrashesLeft)
    }
    fn skipped(&self) -> u64 {
        self.stats().get(Counter::CacheSkipped)
    }
}

/// I7: one verdict for each packet, one counter for each verdict.
pub fn counters_add_up(status: &ShardStatus, packets: u64, accepted: u64) -> Result<(), String> {
    let stats = &status.stats;
    let (seen, passed, dropped) = (
        stats.get(Counter::PacketsIn),
        stats.get(Counter::Accepted),
        stats.all_drops(),
    );
    if (seen, passed, dropped) == (packets, accepted, packets - accepted) {
        return Ok(());
    }
    Err(format!(
        "{packets} packets, {accepted} accepted, but the counters say {seen} in, {passed} accepted, {dropped} dropped"
    ))
}
