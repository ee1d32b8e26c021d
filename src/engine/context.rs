//! What all flows of a shard share: settings, counters, the buffer budget, which machines are up, and what is queued to be said.

use super::crash::Ends;
use super::pos::Pos;
use super::rtt::Rtt;
use super::spec::{
    DivergePolicy, EngineSpec, MILLISECOND, MachineId, MachineRef, MachineSpec, MaxLag, Micros, Original, ServiceId,
    ServiceSpec,
};
use super::stats::{Counter, Stats};
use super::stream::Budget;
use super::supers::Arrivals;
use super::{Event, Reason};
use crate::wire::{Flags, Options, Segment, Seq};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Strangers and the fenced that are answered in one poll; more are not. What is owed to flows of our own is not limited: each can
/// be owed a RST for the client and one for each leg, once.
const MAX_ANSWERS: usize = 256;
/// Events that may wait for the coordinator; more are forgotten. A suspicion comes again with the next evidence, an eviction does not.
const MAX_EVENTS: usize = 1_024;
/// When so many wait, what is only for people to read (R17) is forgotten, so that it does not crowd out the others; it is counted besides.
const MAX_TOLD: usize = MAX_EVENTS / 2;

/// A RST or a bare ACK owed to somebody outside any flow.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: Flags,
}

/// The shard's shared state.
#[derive(Debug)]
pub struct Context {
    pub spec: EngineSpec,
    pub stats: Stats,
    pub budget: Budget,
    pub events: VecDeque<Event>,
    pub answers: Vec<Answer>,
    /// By service and machine: told down.
    pub down: Vec<Vec<bool>>,
    /// By service and machine: until when new clients do not wait for it, since one has waited in vain (R15).
    pub slow: Vec<Vec<Micros>>,
    /// By service and machine: the connections that it ends, alone as it seems (R11).
    pub ends: Vec<Vec<Ends>>,
    /// By service and machine: whether super-packets arrive there.
    pub arrivals: Vec<Vec<Arrivals>>,
    /// By service: who serves new flows.
    pub current: Vec<MachineId>,
    /// By service: flows that have moved by plan since the coordinator was last told.
    pub moved: Vec<usize>,
    /// By service and machine: what R17 found.
    pub diverged: Vec<Vec<Diverged>>,
}

/// One machine's differences (R17).
#[derive(Clone, Copy, Debug, Default)]
pub struct Diverged {
    /// Legs that differed from what the client was given.
    pub legs: u64,
    /// Differences in which, as the original, it was outvoted.
    pub outvoted: u64,
}

impl Context {
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            stats: Stats::default(),
            budget: Budget::new(spec.limits.total_buffer),
            events: VecDeque::new(),
            answers: Vec::new(),
            slow: spec.services.iter().map(|s| vec![0; s.machines.len()]).collect(),
            down: spec.services.iter().map(|s| vec![false; s.machines.len()]).collect(),
            diverged: spec
                .services
                .iter()
                .map(|s| vec![Diverged::default(); s.machines.len()])
                .collect(),
            ends: spec
                .services
                .iter()
                .map(|s| vec![Ends::default(); s.machines.len()])
                .collect(),
            arrivals: spec
                .services
                .iter()
                .map(|s| vec![Arrivals::default(); s.machines.len()])
                .collect(),
            current: spec.services.iter().map(|_| MachineId(0)).collect(),
            moved: vec![0; spec.services.len()],
            spec,
        }
    }

    pub fn service(&self, id: ServiceId) -> &ServiceSpec {
        &self.spec.services[usize::from(id.0)]
    }

    pub fn machine(&self, service: ServiceId, machine: MachineId) -> &MachineSpec {
        &self.service(service).machines[usize::from(machine.0)]
    }

    pub fn is_down(&self, service: ServiceId, machine: MachineId) -> bool {
        self.down[usize::from(service.0)][usize::from(machine.0)]
    }

    /// Whether new clients do not wait for this machine (R15).
    pub fn is_slow(&self, now: Micros, id: MachineRef) -> bool {
        now < self.slow[usize::from(id.service.0)][usize::from(id.machine.0)]
    }

    /// New clients do not wait for this machine until then (R15); 0 if they do.
    pub fn set_slow(&mut self, id: MachineRef, until: Micros) {
        self.slow[usize::from(id.service.0)][usize::from(id.machine.0)] = until;
    }

    /// The machines of a service that are up, in takeover order.
    pub fn up(&self, service: ServiceId) -> impl Iterator<Item = MachineId> + '_ {
        (0u16..)
            .zip(&self.down[usize::from(service.0)])
            .filter(|(_, down)| !**down)
            .map(|(i, _)| MachineId(i))
    }

    /// Who serves new flows: the current original while it is up, else the first that is (R16, `first`).
    pub fn serving(&self, service: ServiceId) -> Option<MachineId> {
        let current = self.current[usize::from(service.0)];
        if self.is_down(service, current) {
            self.up(service).next()
        } else {
            Some(current)
        }
    }

    /// R4's slack; so large for `"unlimited"` that no position reaches it.
    pub fn slack(&self, service: ServiceId) -> Pos {
        match self.service(service).max_lag {
            MaxLag::Bytes(bytes) => Pos::try_from(bytes).unwrap_or(Pos::MAX / 4).min(Pos::MAX / 4),
            MaxLag::Unlimited => Pos::MAX / 4,
        }
    }

    /// Whether what a service's machines say is compared (R17). Where the fastest speaks, nobody's words are what the others' could be
    /// compared with.
    pub fn compares(&self, service: ServiceId) -> bool {
        let service = self.service(service);
        service.diverge != DivergePolicy::Off && service.original == Original::First
    }

    /// A fresh estimator for a leg: several tries must fit into `replica_timeout` (R15).
    pub fn rtt(&self, service: ServiceId) -> Rtt {
        let floor = (self.service(service).replica_timeout / 4).clamp(10 * MILLISECOND, 200 * MILLISECOND);
        Rtt::new(floor)
    }

    pub fn event(&mut self, event: Event) {
        let room = match event {
            Event::Diverged { .. } | Event::Outvoted { .. } | Event::SuperPacketsLost { .. } => MAX_TOLD,
            Event::Suspect { .. } | Event::Evict { .. } => MAX_EVENTS,
        };
        if self.events.len() < room {
            self.events.push_back(event);
        }
    }

    fn diverged_mut(&mut self, id: MachineRef) -> Option<&mut Diverged> {
        self.diverged
            .get_mut(usize::from(id.service.0))?
            .get_mut(usize::from(id.machine.0))
    }

    /// A leg of this machine differs.
    pub fn note_diverged(&mut self, machine: MachineRef) {
        self.stats.count(Counter::LegsDiverged);
        if let Some(diverged) = self.diverged_mut(machine) {
            diverged.legs += 1;
        }
    }

    /// This machine, as the original, was outvoted.
    pub fn note_outvoted(&mut self, machine: MachineRef) {
        self.stats.count(Counter::OriginalsOutvoted);
        if let Some(diverged) = self.diverged_mut(machine) {
            diverged.outvoted += 1;
        }
    }

    pub fn suspect(&mut self, service: ServiceId, machine: MachineId, reason: Reason) {
        self.event(Event::Suspect {
            machine: MachineRef { service, machine },
            reason,
        });
    }

    /// All shards are to take this machine out.
    pub fn evict(&mut self, machine: MachineRef, reason: Reason) {
        self.event(Event::Evict { machine, reason });
    }

    pub fn answer(&mut self, answer: Answer) {
        if answer.flags.contains(Flags::RST) {
            self.stats.count(Counter::ResetsSent);
        }
        self.answers.push(answer);
    }

    /// Answers a segment that belongs to nothing as RFC 9293 section 3.10.7.1 says; never a RST with a RST.
    pub fn refuse(&mut self, src: SocketAddr, dst: SocketAddr, seq: Seq, ack: Seq, flags: Flags, seq_len: u32) {
        if flags.contains(Flags::RST) || self.answers.len() >= MAX_ANSWERS {
            return;
        }
        let answer = if flags.contains(Flags::ACK) {
            Answer {
                src: dst,
                dst: src,
                seq: ack,
                ack: Seq(0),
                flags: Flags::RST,
            }
        } else {
            Answer {
                src: dst,
                dst: src,
                seq: Seq(0),
                ack: seq.add(seq_len),
                flags: Flags::RST | Flags::ACK,
            }
        };
        self.answer(answer);
    }
}

impl Answer {
    pub fn segment(&self) -> Segment<'static> {
        Segment {
            src: self.src,
            dst: self.dst,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload: (&[], &[]),
        }
    }
}
