//! The network around the engine: a queue of events on a virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use relevo::engine::detect::{Action, Detector};
use relevo::engine::{
    Checksum, Command, Counter, Event, MILLISECOND, MachineId, MachineRef, Meta, Micros, Outbox, Reason, SECOND,
    ServiceId, ShardStatus, Verdict,
};

use crate::app::{ClientApp, Script};
use crate::books::{Leg, Violation, ensure};
use crate::gateway::{Gateway, counters_add_up};
use crate::host::Host;
use crate::net::Link;
use crate::observer::{Cause, JUDGED, Observer};
use crate::packet::{Packet, SYN};
use crate::pcap::Capture;
use crate::rng::Rng;
use crate::scenario::{CLIENT_IFINDEX, Fault, MACHINE_IFINDEX, Scenario, Sums, When, client_addr};
use crate::trace::Trace;

/// After the network is healed, all must be over within this time.
const PATIENCE: Micros = 120 * SECOND;
/// More events than this are a storm of packets.
const MAX_EVENTS: u64 = 300_000;
/// A frozen machine must be found out within this time, if another can take over.
const DETECTION: Micros = 15 * SECOND;
/// The engine's memory is looked at after each so many packets, for the answer costs more than most packets.
const MEMORY_EVERY: u64 = 16;
/// How often the slow checks are made.
const TICK: Micros = 100 * MILLISECOND;

/// What happens at a time.
enum Happening {
    /// A packet reaches the engine from a host, or a host.
    ToEngine(usize, Vec<u8>),
    ToHost(usize, Vec<u8>),
    /// A host's own timer, valid if the number is still its latest.
    Host(usize, u64),
    Engine(u64),
    Connect(usize),
    Fault(usize),
    Tick,
    /// The engine runs again after a stall.
    Resume,
}

struct Entry {
    at: Micros,
    number: u64,
    what: Happening,
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
struct Timer {
    at: Option<Micros>,
    number: u64,
}

impl Timer {
    /// Sets it anew; what is to be put into the queue, unless that stands there already.
    fn set(&mut self, next: Option<Micros>) -> Option<(Micros, u64)> {
        if self.at == next {
            return None;
        }
        self.number += 1;
        self.at = next;
        next.map(|at| (at, self.number))
    }
    /// Whether an entry of the queue is this timer's latest; if so it has gone off.
    fn goes_off(&mut self, number: u64) -> bool {
        let valid = self.at.is_some() && self.number == number;
        if valid {
            self.at = None;
        }
        valid
    }
}

/// What a run that went well amounts to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub packets: u64,
    pub takeovers: u64,
    /// Flows that no machine lived through: nothing could be asked of them.
    pub excused: u64,
    /// Flows that met what the design does not mask yet: a crashed or hung original.
    pub limits: u64,
    pub evictions: u64,
    /// Machines declared dead that were alive, on links that lose packets.
    pub false_alarms: u64,
    /// When the last flow was over for its client, and the longest time between two bytes read by a client, in microseconds.
    pub end: Micros,
    pub longest_gap: Micros,
    pub stats: relevo::engine::Stats,
}

/// One run.
pub struct World<G> {
    scenario: Scenario,
    engine: G,
    detector: Option<Detector>,
    outbox: Outbox,
    observer: Observer,
    pub trace: Trace,
    /// By host: what its link carried, if anybody wants to see it.
    pub captures: Vec<Capture>,
    scripts: Rc<Vec<Script>>,
    /// Machines first, then clients.
    hosts: Vec<Host>,
    up: Vec<Link>,
    down: Vec<Link>,
    stopped: Vec<bool>,
    frozen_at: Vec<Option<Micros>>,
    ever_frozen: Vec<bool>,
    /// The engine does not run before this time.
    stalled_until: Micros,
    now: Micros,
    queue: BinaryHeap<Reverse<Entry>>,
    number: u64,
    host_timer: Vec<Timer>,
    engine_timer: Timer,
    connected: Vec<bool>,
    done: Vec<bool>,
    excused: Vec<bool>,
    last_byte: Vec<(usize, Micros)>,
    accepted: u64,
    summary: Summary,
}

impl<G: Gateway> World<G> {
    /// Without a detector (`watch`) nobody is ever declared dead, and only what the applications see is checked.
    pub fn new(scenario: Scenario, engine: G, watch: bool) -> Self {
        let s = &scenario;
        let spec = s.engine_spec();
        let script =
            |(i, f): (usize, &crate::scenario::FlowSpec)| Script::new(s.seed, i as u16, s.greeting, &f.dialogue);
        let scripts: Rc<Vec<Script>> = Rc::new(s.flows.iter().enumerate().map(script).collect());
        let mut hosts = Vec::new();
        for (i, m) in s.machines.iter().enumerate() {
            let addr = s.machine_addr(i);
            let (name, scripts) = (format!("machine {i}"), Rc::clone(&scripts));
            hosts.push(Host::new(name, addr.ip(), *m, scripts, Some(addr.port()), s.greeting));
        }
        for (i, c) in s.clients.iter().enumerate() {
            hosts.push(Host::new(
                format!("client {i}"),
                client_addr(s.v6, i),
                *c,
                Rc::clone(&scripts),
                None,
                0,
            ));
        }
        let link = |stream: u64, i: usize, spec| Link::new(spec, Rng::new(s.seed, stream + i as u64));
        let n = hosts.len();
        let machine_mtu: Vec<usize> = s.machines.iter().map(|m| m.mtu).collect();
        let planned = s.flows.iter().map(|f| (client_addr(s.v6, f.client), f.port)).collect();
        let client_mtu = s.clients.iter().map(|c| c.mtu).collect();
        let mut world = Self {
            detector: watch.then(|| Detector::new(&spec.services, 0)),
            observer: Observer::new(&spec, client_mtu, &machine_mtu, Rc::clone(&scripts), planned),
            engine,
            outbox: Outbox::new(),
            trace: Trace::default(),
            captures: Vec::new(),
            up: hosts
                .iter()
                .enumerate()
                .map(|(i, h)| link(1_000, i, h.spec.up))
                .collect(),
            down: hosts
                .iter()
                .enumerate()
                .map(|(i, h)| link(2_000, i, h.spec.down))
                .collect(),
            stopped: vec![false; n],
            frozen_at: vec![None; n],
            ever_frozen: vec![false; n],
            stalled_until: 0,
            hosts,
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            host_timer: vec![Timer::default(); n],
            engine_timer: Timer::default(),
            connected: vec![false; scripts.len()],
            done: vec![false; scripts.len()],
            excused: vec![false; scripts.len()],
            last_byte: vec![(0, 0); scripts.len()],
            scripts,
            accepted: 0,
            summary: Summary::default(),
            scenario,
        };
        for (state, m) in world.observer.state.iter_mut().zip(&world.scenario.machines) {
            (state.refuses, state.timestamps) = (m.refuses, m.timestamps);
            (state.sack, state.scaling) = (m.sack, m.scaling);
        }
        for i in 0..world.scenario.flows.len() {
            world.at(world.scenario.flows[i].start, Happening::Connect(i));
        }
        for i in 0..world.scenario.faults.len() {
            if let When::Time(at) = world.scenario.faults[i].0 {
                world.at(at, Happening::Fault(i));
            }
        }
        world.at(TICK, Happening::Tick);
        world
    }

    fn machines(&self) -> usize {
        self.scenario.machines.len()
    }

    fn at(&mut self, at: Micros, what: Happening) {
        self.number += 1;
        self.queue.push(Reverse(Entry {
            at,
            number: self.number,
            what,
        }));
    }

    /// Keeps what each link carries.
    pub fn capture(&mut self) {
        self.captures.resize_with(self.hosts.len(), Capture::default);
    }

    /// Writes the captures of all links, one file each.
    pub fn write_captures(&self, dir: &std::path::Path) -> std::io::Result<()> {
        for (capture, host) in self.captures.iter().zip(&self.hosts) {
            let name = format!("seed-{}-{}.pcap", self.scenario.seed, host.name.replace(' ', "-"));
            capture.write(&dir.join(name))?;
        }
        Ok(())
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        let limit = self.scenario.heal + PATIENCE;
        let mut healed = false;
        let mut events = 0;
        self.engine_rest()?;
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now = entry.at;
            if !healed && self.now >= self.scenario.heal {
                healed = true;
                self.up.iter_mut().chain(&mut self.down).for_each(Link::heal);
            }
            let for_engine = matches!(
                entry.what,
                Happening::ToEngine(..) | Happening::Engine(_) | Happening::Fault(_)
            );
            if for_engine && self.now < self.stalled_until {
                self.at(self.stalled_until, entry.what);
                continue;
            }
            match entry.what {
                Happening::ToEngine(host, packet) => self.engine_packet(host, packet)?,
                Happening::ToHost(host, packet) => self.host_run(host, Some(packet))?,
                Happening::Host(host, number) => {
                    if self.host_timer[host].goes_off(number) {
                        self.host_run(host, None)?;
                    }
                }
                Happening::Engine(number) => {
                    if self.engine_timer.goes_off(number) {
                        self.engine_rest()?;
                    }
                }
                Happening::Connect(flow) => self.connect(flow)?,
                Happening::Fault(i) => self.strike(self.scenario.faults[i].1)?,
                Happening::Resume => {
                    if let Some(detector) = &mut self.detector {
                        detector.handle_stall(self.now);
                    }
                }
                Happening::Tick => {
                    if self.tick()? {
                        return Ok(self.finish());
                    }
                    self.at(self.now + TICK, Happening::Tick);
                }
            }
            events += 1;
            ensure!(events < MAX_EVENTS, "storm", "{events} events and no end");
            ensure!(
                self.now < limit,
                "stuck",
                "not over {} s after the network was healed",
                PATIENCE / SECOND
            );
        }
        unreachable!("there is always another tick")
    }

    fn finish(&mut self) -> Summary {
        self.summary.stats = self.engine.status().stats;
        self.summary.takeovers = self.summary.stats.get(Counter::Takeovers);
        self.summary.clone()
    }

    fn connect(&mut self, flow: usize) -> Result<(), Violation> {
        let f = &self.scenario.flows[flow];
        let earlier = (0..flow).filter(|id| {
            let other = &self.scenario.flows[*id];
            (other.client, other.port) == (f.client, f.port)
        });
        let limited = |id| self.observer.flows.iter().any(|o| o.id == id && o.limit);
        if earlier
            .clone()
            .any(|id| self.excused[id] || (self.done[id] && (limited(id) || !self.has_survivor(id))))
        {
            // What is left of a connection that nobody could carry on is in the way.
            self.excuse(flow);
            return Ok(());
        }
        // A client gives its port up when its last acknowledgement has been seen: others must not be lost with the socket.
        let finished = |id| self.observer.flows.iter().any(|o| o.id == id && o.finished());
        if !earlier.clone().all(|id| self.done[id] && finished(id)) {
            self.at(self.now + 10 * MILLISECOND, Happening::Connect(flow));
            return Ok(());
        }
        let host = self.machines() + f.client;
        let app = ClientApp::new(Rc::clone(&self.scripts), flow, self.scenario.clients[f.client].pace);
        self.hosts[host].connect(self.scenario.psc(), f.port, app);
        self.connected[flow] = true;
        self.last_byte[flow] = (0, self.now);
        self.host_run(host, None)
    }

    // -- hosts

    fn host_run(&mut self, host: usize, packet: Option<Vec<u8>>) -> Result<(), Violation> {
        if self.frozen_at[host].is_some() && (packet.is_some() || self.stopped[host]) {
            return Ok(());
        }
        if let Err(wrong) = self.hosts[host].run(self.now, packet) {
            self.excuse_or_fail(host, wrong)?;
        }
        while let Some(packet) = self.hosts[host].take_packet(self.now) {
            let syn = host >= self.machines() && is_syn(&packet);
            let arrivals = self.up[host].transit(self.now, packet.len(), syn);
            let silent = self.frozen_at[host].is_some();
            for at in arrivals.into_iter().flatten().filter(|_| !silent) {
                self.at(at, Happening::ToEngine(host, packet.clone()));
            }
            if silent || arrivals[0].is_none() {
                self.note_lost(host, &packet);
            }
        }
        self.set_host_timer(host);
        if host >= self.machines() {
            self.watch_client(host);
        }
        Ok(())
    }

    fn set_host_timer(&mut self, host: usize) {
        // A stack that wants to be run at once but then does nothing must not stop the clock.
        let next = self.hosts[host].next_deadline(self.now).map(|at| at.max(self.now + 50));
        if let Some((at, number)) = self.host_timer[host].set(next) {
            self.at(at, Happening::Host(host, number));
        }
    }

    fn note_lost(&mut self, host: usize, bytes: &[u8]) {
        if let Ok(packet) = Packet::parse(bytes) {
            let (now, hosts) = (self.now, &self.hosts);
            self.trace.packet(
                now,
                || format!("{} > lost", hosts[host].name),
                &packet,
                (None, None),
                String::new,
            );
        }
    }

    fn watch_client(&mut self, host: usize) {
        for flow in 0..self.scenario.flows.len() {
            if self.machines() + self.scenario.flows[flow].client != host || !self.connected[flow] || self.done[flow] {
                continue;
            }
            let Some(app) = self.hosts[host].client(flow) else {
                continue;
            };
            if app.read > self.last_byte[flow].0 {
                self.summary.longest_gap = self.summary.longest_gap.max(self.now - self.last_byte[flow].1);
                self.last_byte[flow] = (app.read, self.now);
            }
            if app.done {
                self.done[flow] = true;
                self.summary.end = self.now;
                self.trace
                    .note(self.now, || format!("flow {flow} is over for its client"));
                // What is left of it on the other side may stand in the way of the next connection.
                if self.observer.flows.iter().any(|f| f.id == flow && f.limit) {
                    self.meet_limit(flow);
                }
            }
        }
    }

    /// A client's misfortune is none of the engine's if no machine lived through its flow.
    fn excuse_or_fail(&mut self, host: usize, (flow, text): (usize, String)) -> Result<(), Violation> {
        if host < self.machines() {
            return Err(Violation { rule: "I2", text });
        }
        if !self.excused[flow] && self.observer.flows.iter().any(|f| f.id == flow && f.limit) {
            self.meet_limit(flow);
        } else if !self.excused[flow] {
            ensure!(!self.has_survivor(flow), "I1", "{text}");
            self.excuse(flow);
        }
        Ok(())
    }

    fn meet_limit(&mut self, flow: usize) {
        self.trace.note(self.now, || format!("flow {flow} meets a known limit"));
        (self.done[flow], self.excused[flow]) = (true, true);
        self.summary.limits += 1;
        for f in self.observer.flows.iter_mut().filter(|f| f.id == flow) {
            f.limit = true;
        }
    }

    fn excuse(&mut self, flow: usize) {
        self.trace.note(self.now, || format!("flow {flow} has no survivor"));
        (self.done[flow], self.excused[flow]) = (true, true);
        self.summary.excused += 1;
    }

    /// Whether some machine could have carried the flow from its start to now.
    fn has_survivor(&self, id: usize) -> bool {
        let Some(flow) = self.observer.flows.iter().find(|f| f.id == id) else {
            return true;
        };
        (0..self.machines()).any(|m| self.observer.could_carry(m, flow))
    }

    // -- the engine

    fn machine_ref(m: usize) -> MachineRef {
        MachineRef {
            service: ServiceId(0),
            machine: MachineId(m as u16),
        }
    }

    fn engine_packet(&mut self, host: usize, mut bytes: Vec<u8>) -> Result<(), Violation> {
        let before = Packet::parse(&bytes).map_err(|text| Violation { rule: "network", text })?;
        if let Some(capture) = self.captures.get_mut(host) {
            capture.packet(self.now, &bytes);
        }
        let from_machine = host < self.machines();
        let (cause, offsets) = if from_machine {
            (Cause::Machine(host), self.observer.hear_machine(host, &before))
        } else {
            let (flow, offsets) = self.observer.hear_client(self.now, &before);
            (Cause::Client(flow), offsets)
        };
        let checksum = match self.scenario.sums {
            Sums::Complete => Checksum::Complete,
            Sums::Partial => {
                // The sum of the pseudo header alone stands there; any value does.
                let at = if bytes[0] >> 4 == 4 { 20 } else { 40 } + 16;
                bytes[at..at + 2].copy_from_slice(&[0xbe, 0xef]);
                Checksum::Partial
            }
        };
        let ifindex = if from_machine { MACHINE_IFINDEX } else { CLIENT_IFINDEX };
        let length = bytes.len();
        let skipped = self.engine.skipped();
        let verdict = self
            .engine
            .handle_packet(self.now, Meta { ifindex, checksum }, &mut bytes);
        self.summary.packets += 1;
        if from_machine && self.engine.skipped() > skipped {
            self.observer.skipped(host, &before);
        }
        let (now, hosts) = (self.now, &self.hosts);
        self.trace.packet(
            now,
            || format!("{} > engine", hosts[host].name),
            &before,
            offsets,
            || format!("{verdict:?}"),
        );
        if let Some(machine) = self.engine.heard()
            && let Some(detector) = &mut self.detector
        {
            ensure!(
                Some(machine) == from_machine.then(|| Self::machine_ref(host)),
                "R14",
                "heard {machine:?}"
            );
            detector.handle_heard(self.now, machine);
        }
        if let Verdict::Accept { len } = verdict {
            self.accepted += 1;
            ensure!(len <= length, "I7", "{len} bytes accepted of {length}");
            bytes.truncate(len);
            self.leave(&bytes, cause)?;
        }
        self.engine_rest()?;
        let seen = self.summary.packets;
        if seen.is_multiple_of(MEMORY_EVERY) {
            self.check_memory(&self.engine.status())?;
        }
        let due = self
            .scenario
            .faults
            .iter()
            .filter(|(w, _)| matches!(w, When::Packets(n) if *n == seen));
        for fault in due.map(|(_, fault)| *fault).collect::<Vec<_>>() {
            self.strike(fault)?;
        }
        Ok(())
    }

    /// A packet leaves the engine: it is checked and sent on its way.
    fn leave(&mut self, bytes: &[u8], cause: Cause) -> Result<(), Violation> {
        let packet = Packet::parse(bytes).map_err(|text| Violation { rule: "I7", text })?;
        let Some(host) = self.hosts.iter().position(|h| h.addr == packet.dst) else {
            ensure!(false, "I6", "a packet for {} from {cause:?}", packet.dst);
            return Ok(());
        };
        if let Some(capture) = self.captures.get_mut(host) {
            capture.packet(self.now, bytes);
        }
        let (offsets, result) = if host < self.machines() {
            self.observer.leave_for_machine(host, &packet, bytes, cause)
        } else {
            self.observer
                .leave_for_client(self.now, host - self.machines(), &packet, bytes, cause)
        };
        let (now, hosts) = (self.now, &self.hosts);
        let how = if cause == Cause::Engine { "engine >>" } else { "     >" };
        self.trace.packet(
            now,
            || format!("{how} {}", hosts[host].name),
            &packet,
            offsets,
            String::new,
        );
        if self.detector.is_some() {
            result?;
        }
        ensure!(
            !self.observer.early_release || self.engine.has_released(),
            "R23",
            "a byte was released before its machine had said what the client answers"
        );
        for at in self.down[host]
            .transit(self.now, bytes.len(), false)
            .into_iter()
            .flatten()
        {
            self.at(at, Happening::ToHost(host, bytes.to_vec()));
        }
        Ok(())
    }

    /// Polls the engine and the detector until both rest, as the daemon does after each packet.
    fn engine_rest(&mut self) -> Result<(), Violation> {
        for _ in 0..64 {
            self.engine.poll(self.now, &mut self.outbox);
            let events: Vec<Event> = std::iter::from_fn(|| self.engine.take_event()).collect();
            for event in &events {
                if let Event::Evict { machine } = event {
                    // The flow that evicts a leg may release its client at once; the other flows hear of it by command.
                    self.observer.evicted(usize::from(machine.machine.0));
                }
            }
            // Such a reset comes from the outbox.
            self.observer.released = !self.outbox.is_empty() && self.engine.has_released();
            let mut again = self.send_outbox()? || !events.is_empty();
            for event in events {
                self.trace.note(self.now, || format!("{event:?}"));
                match event {
                    Event::Suspect { machine, reason } => {
                        if let Some(d) = &mut self.detector {
                            d.handle_suspect(self.now, machine, reason);
                        }
                    }
                    Event::Evict { machine } => {
                        self.summary.evictions += 1;
                        self.down(machine)?;
                    }
                }
            }
            while let Some(action) = self.detector.as_mut().and_then(|d| d.poll(self.now)) {
                again = true;
                match action {
                    Action::Probe { machine } => {
                        self.engine.probe(self.now, machine, &mut self.outbox);
                        self.send_outbox()?;
                    }
                    Action::Down { machine, reason, .. } => self.declared_dead(machine, reason)?,
                }
            }
            if !again {
                if self.detector.is_some() {
                    self.observer.check_replayed()?;
                }
                return self.set_engine_timer();
            }
        }
        ensure!(false, "contract", "the engine never rests");
        Ok(())
    }

    fn send_outbox(&mut self) -> Result<bool, Violation> {
        if self.outbox.is_empty() {
            return Ok(false);
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        for (dst, bytes) in outbox.iter() {
            let addressed = Packet::parse(bytes).is_ok_and(|p| p.dst == dst);
            ensure!(addressed, "contract", "the outbox says {dst}, the packet does not");
            self.leave(bytes, Cause::Engine)?;
        }
        outbox.clear();
        self.outbox = outbox;
        Ok(true)
    }

    fn set_engine_timer(&mut self) -> Result<(), Violation> {
        let detector = self.detector.as_ref().and_then(Detector::next_deadline);
        let engine = self.engine.next_deadline();
        ensure!(
            engine.is_none_or(|at| at > self.now),
            "contract",
            "after poll the engine's deadline {engine:?} has passed"
        );
        ensure!(
            detector.is_none_or(|at| at > self.now),
            "contract",
            "the detector's deadline {detector:?} has passed"
        );
        let next = engine.into_iter().chain(detector).min();
        if let Some((at, number)) = self.engine_timer.set(next) {
            self.at(at, Happening::Engine(number));
        }
        Ok(())
    }

    // -- faults and commands

    fn declared_dead(&mut self, machine: MachineRef, reason: Reason) -> Result<(), Violation> {
        let m = usize::from(machine.machine.0);
        self.trace
            .note(self.now, || format!("machine {m} is declared dead: {reason:?}"));
        if !self.ever_frozen[m] {
            let spec = &self.scenario.machines[m];
            let clean = spec.up.is_clean() && spec.down.is_clean();
            ensure!(
                !clean || spec.refuses,
                "R14",
                "machine {m} is declared dead ({reason:?}), but it is well"
            );
            self.summary.false_alarms += 1;
        }
        self.down(machine)
    }

    fn down(&mut self, machine: MachineRef) -> Result<(), Violation> {
        self.command(Command::Down { machine });
        let m = usize::from(machine.machine.0);
        let status = self.engine.status();
        if status.services.first().is_some_and(|s| s.machines[m].down) {
            if let Some(d) = &mut self.detector {
                d.handle_down(machine);
            }
            self.observer.machine_told(self.now, m, true);
        } else if let Some(d) = &mut self.detector {
            // The last machine stays: it is watched on.
            d.handle_up(self.now, machine);
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        self.trace.note(self.now, || format!("{command:?}"));
        self.engine.command(self.now, command);
    }

    fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        self.trace.note(self.now, || format!("{fault:?}"));
        match fault {
            Fault::Freeze { machine, stop } => {
                self.frozen_at[machine] = Some(self.now);
                (self.ever_frozen[machine], self.stopped[machine]) = (true, stop);
                self.observer.state[machine].frozen = true;
            }
            Fault::Thaw { machine } => {
                self.frozen_at[machine] = None;
                self.stopped[machine] = false;
                self.observer.state[machine].frozen = false;
                self.host_run(machine, None)?;
            }
            Fault::Down { machine } => self.down(Self::machine_ref(machine))?,
            Fault::Up { machine } => {
                let machine = Self::machine_ref(machine);
                self.command(Command::Up { machine });
                if let Some(d) = &mut self.detector {
                    d.handle_up(self.now, machine);
                }
                self.observer
                    .machine_told(self.now, usize::from(machine.machine.0), false);
            }
            Fault::Crash { machine, fin } => {
                self.observer.state[machine].died_at = Some(self.now);
                self.hosts[machine].crash(fin);
                self.host_run(machine, None)?;
            }
            Fault::Restart { machine } => {
                let state = &mut self.observer.state[machine];
                (state.died_at, state.hung) = (Some(self.now), false);
                self.hosts[machine].restart();
                self.set_host_timer(machine);
            }
            Fault::Hang { machine } => {
                self.observer.state[machine].hung = true;
                self.hosts[machine].hung = true;
            }
            Fault::Wake { machine } => {
                self.observer.state[machine].hung = false;
                self.hosts[machine].hung = false;
                self.host_run(machine, None)?;
            }
            Fault::Stall { micros } => {
                self.engine_rest()?;
                self.stalled_until = self.now + micros;
                self.at(self.stalled_until, Happening::Resume);
                return Ok(());
            }
            Fault::Failover { to } => {
                self.command(Command::Failover {
                    to: Self::machine_ref(to),
                });
                // One that is down is not even asked, and what was planned stays planned.
                if !self.observer.state[to].down {
                    self.observer.failover();
                }
            }
            Fault::HandOver { to } => {
                if !self.observer.state[to].down {
                    self.observer.hand_over(to);
                }
                self.command(Command::HandOver {
                    to: Self::machine_ref(to),
                });
            }
        }
        self.engine_rest()
    }

    // -- the slow checks

    /// Whether all is over; looks for what should not last.
    fn tick(&mut self) -> Result<bool, Violation> {
        let status = self.engine.status();
        counters_add_up(&status, self.summary.packets, self.accepted).map_err(|text| Violation { rule: "I7", text })?;
        self.check_memory(&status)?;
        if self.detector.is_some() {
            self.check_detection()?;
        }
        // What nobody could carry on need not end well, but it is not waited for.
        for id in 0..self.done.len() {
            let lost = self.connected[id] && !self.done[id] && self.now > self.scenario.heal && !self.has_survivor(id);
            if lost {
                self.excuse(id);
            }
        }
        for id in 0..self.done.len() {
            let open = self.connected[id] && !self.done[id] && self.now > self.scenario.heal;
            if !JUDGED && open && self.observer.original_failed(id) {
                self.meet_limit(id);
            }
        }
        for id in 0..self.done.len() {
            // A client whose reset was lost has gone without a word: nobody can know.
            let host = self.machines() + self.scenario.flows[id].client;
            let gone = self.hosts[host].client(id).is_some_and(|app| app.aborted);
            let heard = self.observer.flows.iter().any(|f| f.id == id && f.client_reset);
            if gone && !heard && !self.excused[id] && self.now > self.scenario.heal {
                self.excuse(id);
            }
        }
        let over = self.done.iter().all(|d| *d) && self.machines_are_done();
        if !over {
            return Ok(false);
        }
        let orphaned = (0..self.done.len()).any(|id| !self.has_survivor(id));
        let hung = self.observer.state.iter().any(|s| s.hung);
        if self.summary.excused + self.summary.limits > 0 || orphaned || hung {
            return Ok(true);
        }
        let flows: usize = status.services.iter().map(|s| s.flows).sum();
        Ok(flows == 0 && status.buffered_bytes == 0)
    }

    fn check_memory(&self, status: &ShardStatus) -> Result<(), Violation> {
        let limit = self.scenario.limits.total_buffer;
        ensure!(
            status.buffered_bytes <= limit,
            "I8",
            "{} bytes buffered of {limit}",
            status.buffered_bytes
        );
        Ok(())
    }

    fn check_detection(&mut self) -> Result<(), Violation> {
        let well = (0..self.machines())
            .any(|m| !self.observer.state[m].down && self.frozen_at[m].is_none() && !self.scenario.machines[m].refuses);
        for m in 0..self.machines() {
            let unnoticed = self.frozen_at[m].filter(|_| well && !self.observer.state[m].down);
            if let Some(since) = unnoticed {
                ensure!(
                    self.now - since < DETECTION,
                    "R14",
                    "machine {m} has been frozen since {since} µs, unnoticed"
                );
            }
        }
        Ok(())
    }

    /// Whether each live machine's application has read all that it should have (I2).
    fn machines_are_done(&self) -> bool {
        let flows = &self.observer.flows;
        flows.iter().enumerate().all(|(i, flow)| {
            // R21: a new flow on the same addresses ends what is left of the old one.
            let reused = flows[i + 1..].iter().any(|other| other.client == flow.client);
            (0..self.machines()).all(|m| {
                let asked = self.observer.lived_through(m, flow)
                    && !reused
                    && !self.excused[flow.id]
                    && (JUDGED || !self.observer.original_failed(flow.id))
                    && flow.legs[m].as_ref().is_some_and(Leg::should_finish)
                    && !flow.client_reset
                    && !flow.reset_to_client
                    && !self.scenario.machines[m].refuses;
                let script = &self.scripts[flow.id];
                !asked
                    || self.hosts[m]
                        .progress(flow.id)
                        .is_some_and(|p| p.read == script.up.len() && p.eof)
            })
        })
    }

    /// Everything that helps to understand a failure.
    pub fn describe(&self) -> String {
        let mut text = format!("at {:.3} ms\n", self.now as f64 / 1e3);
        for (i, host) in self.hosts.iter().enumerate() {
            if self.frozen_at[i].is_some() {
                text += &format!("    {} is frozen\n", host.name);
            }
            text += &host.describe();
        }
        for flow in &self.observer.flows {
            text += &format!(
                "    flow {}: client sent {} acked {} told ack {} edge {} sent {}, original {:?}, fin {:?}\n",
                flow.id, flow.sent, flow.acked, flow.told.ack, flow.told.edge, flow.told.sent, flow.original, flow.fin
            );
            for (m, leg) in flow.legs.iter().enumerate() {
                let Some(l) = leg else { continue };
                text += &format!(
                    "      leg {m}: sent {} acked {} edge {}, told ack {} edge {} sent {}, reset {} lost {}\n",
                    l.sent, l.acked, l.edge, l.told.ack, l.told.edge, l.told.sent, l.reset, l.lost
                );
            }
        }
        text + &describe_status(&self.engine.status())
    }
}

fn is_syn(bytes: &[u8]) -> bool {
    Packet::parse(bytes).is_ok_and(|p| p.has(SYN))
}

fn describe_status(status: &ShardStatus) -> String {
    use relevo::engine::DropReason;
    let mut text = format!("    engine: {} bytes buffered\n", status.buffered_bytes);
    for service in &status.services {
        text += &format!(
            "      original {:?}, {} flows, {} half open\n",
            service.original, service.flows, service.half_open
        );
        for (i, m) in service.machines.iter().enumerate() {
            text += &format!("      machine {i}: {m:?}\n");
        }
    }
    let counters = Counter::ALL.iter().map(|c| (c.name(), status.stats.get(*c)));
    let drops = DropReason::ALL.iter().map(|d| (d.name(), status.stats.drops(*d)));
    let used = counters
        .chain(drops)
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {n}"));
    text + "      " + &used.collect::<Vec<_>>().join(", ") + "\n"
}
