//! The network around the engine: a queue of events on a virtual clock.
//!
//! Here are the parts of one run, and its loop, which takes the next event from the queue until all is over. What an event does
//! is in [`hosts`], [`boundary`] and [`faults`]; what is asked of the run as a whole, in [`differences`] and [`done`]; what a
//! failure has to show, in [`report`].

mod boundary;
mod differences;
mod done;
mod faults;
mod hosts;
mod queue;
mod report;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::rc::Rc;

use relevo::engine::detect::Detector;
use relevo::engine::{Counter, MILLISECOND, Micros, Outbox, SECOND};

use self::queue::{Entry, Happening, Timer};
use crate::books::{Violation, ensure};
use crate::gateway::Gateway;
use crate::host::Host;
use crate::net::Link;
use crate::observer::Observer;
use crate::pcap::Capture;
use crate::rng::Rng;
use crate::scenario::{Scenario, When, client_addr};
use crate::script::Script;
use crate::trace::Trace;

/// After the network is healed, an application must do something within this time, and so many times `replica_timeout`, until all is over: ten for
/// a replica that trails (R15), ten for an end that nobody can confirm (R11). These stacks wait up to ten seconds before they send again what
/// was lost, and may send but one segment then.
const PATIENCE: Micros = 120 * SECOND;
const TIMEOUTS: Micros = 20;
/// So many times as long may the whole take.
const IN_ALL: Micros = 10;
/// More events than this are a storm of packets.
const MAX_EVENTS: u64 = 300_000;
/// How often the slow checks are made.
const TICK: Micros = 100 * MILLISECOND;

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
    /// Machines taken out because their service hung.
    pub hung: u64,
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
    /// Clients of whose connections a difference was told.
    differing: Vec<(IpAddr, u16)>,
    engine: G,
    detector: Option<Detector>,
    /// By machine: when it was last probed.
    probed_at: Vec<Option<Micros>>,
    outbox: Outbox,
    observer: Observer,
    pub trace: Trace,
    /// By host: what its link carried, if anybody wants to see it.
    pub captures: Vec<Capture>,
    scripts: Rc<Vec<Script>>,
    /// Machines first, then clients.
    hosts: Vec<Host>,
    /// Chance of how super-packets are cut.
    cuts: Rng,
    up: Vec<Link>,
    down: Vec<Link>,
    stopped: Vec<bool>,
    frozen_at: Vec<Option<Micros>>,
    ever_frozen: Vec<bool>,
    /// Since when there is a machine that could take over from a frozen one.
    heir_since: Option<Micros>,
    /// The engine does not run before this time.
    stalled_until: Micros,
    now: Micros,
    queue: BinaryHeap<Reverse<Entry>>,
    number: u64,
    host_timer: Vec<Timer>,
    engine_timer: Timer,
    /// When an application last did something.
    worked_at: Micros,
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
            cuts: Rng::new(s.seed, 18),
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
            heir_since: None,
            probed_at: vec![None; n],
            ever_frozen: vec![false; n],
            stalled_until: 0,
            hosts,
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            host_timer: vec![Timer::default(); n],
            engine_timer: Timer::default(),
            worked_at: 0,
            connected: vec![false; scripts.len()],
            done: vec![false; scripts.len()],
            excused: vec![false; scripts.len()],
            last_byte: vec![(0, 0); scripts.len()],
            scripts,
            accepted: 0,
            summary: Summary::default(),
            differing: Vec::new(),
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

    /// Runs to the end.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        let patience = PATIENCE + TIMEOUTS * self.scenario.service.replica_timeout;
        let limit = self.scenario.heal + IN_ALL * patience;
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
                Happening::Ends(fault) => self.die_on(fault)?,
                Happening::Resume => {
                    if let Some(detector) = &mut self.detector {
                        detector.handle_stall(self.now);
                    }
                }
                Happening::Tick => {
                    if self.tick()? {
                        self.check_differences()?;
                        return Ok(self.finish());
                    }
                    self.at(self.now + TICK, Happening::Tick);
                }
            }
            events += 1;
            ensure!(events < MAX_EVENTS, "storm", "{events} events and no end");
            ensure!(
                self.now < limit.min(self.worked_at.max(self.scenario.heal) + patience),
                "stuck",
                "not over {} s after the network was healed, and nothing done for {} s",
                (self.now - self.scenario.heal) / SECOND,
                (self.now - self.worked_at) / SECOND
            );
        }
        unreachable!("there is always another tick")
    }

    fn finish(&mut self) -> Summary {
        self.summary.stats = self.engine.status().stats;
        self.summary.takeovers = self.summary.stats.get(Counter::Takeovers);
        self.summary.clone()
    }
}
