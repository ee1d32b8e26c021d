//! The engine (pure): packets and a `now` in; a verdict, packets to send and events out.

mod close;
mod context;
pub mod detect;
mod diverge;
mod fastest;
mod flow;
mod from_client;
mod from_machine;
mod gate;
mod handover;
mod handshake;
mod leg;
pub mod outbox;
mod ports;
mod pos;
mod pump;
mod ranges;
mod rare;
mod rtt;
mod sendbuf;
mod sender;
pub mod spec;
pub mod stats;
mod status;
mod stream;
mod table;
mod takeover;
mod timers;
mod watch;

use crate::wire::{ChecksumMode, Flags, Options, ParseError, Parsed, Segment, Seq, tcp_checksum_ok};
use context::Context;
use flow::{Flow, FlowState};
use slab::Slab;
use std::collections::VecDeque;
use std::net::SocketAddr;
use table::Table;
use timers::Timers;

pub use diverge::{Difference, Excerpt};
pub use outbox::Outbox;
pub use spec::*;
pub use stats::{Counter, DropReason, Stats};

/// What the caller knows of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Index of the interface that it arrived on; 0 if unknown.
    pub ifindex: u32,
    /// State of its TCP checksum.
    pub checksum: Checksum,
}

/// State of a packet's TCP checksum on delivery (kernel.md: it must be whole and right on the way out).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Complete: it is verified, and updated incrementally (RFC 1624), so that corruption on the way through stays visible.
    #[default]
    Complete,
    /// Not computed yet by the sender's kernel: compute it in full.
    Partial,
    /// A GSO super-packet: the kernel computes it anew for each segment, whatever stands there.
    Offloaded,
}

impl From<Checksum> for ChecksumMode {
    fn from(state: Checksum) -> Self {
        match state {
            Checksum::Complete => Self::Complete,
            Checksum::Partial => Self::Partial,
            Checksum::Offloaded => Self::Offloaded,
        }
    }
}

/// What becomes of a packet: exactly one for each (I7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it go on as rewritten in place, cut to `len` bytes.
    Accept {
        /// Length of the packet in bytes from the IP header on, at most what was given.
        len: usize,
    },
    /// Drop it.
    Drop(DropReason),
}

/// Why a machine is thought, or known, to have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Data unacknowledged by the original while another machine acknowledged it (R14).
    Silence,
    /// The original has not answered a SYN.
    UnansweredSyn,
    /// The client had to retransmit what the original has not acknowledged.
    Retransmission,
    /// Probes stayed unanswered.
    Probes,
    /// A replica held the client up for `replica_timeout` (R15).
    ReplicaTimeout,
    /// It says something else than the others, and the policy is to evict (R17).
    Divergence,
    /// The operator asked for it.
    Command,
}

impl Reason {
    /// The stable name used by `relevo status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::UnansweredSyn => "unanswered_syn",
            Self::Retransmission => "retransmission",
            Self::Probes => "probes",
            Self::ReplicaTimeout => "replica_timeout",
            Self::Divergence => "divergence",
            Self::Command => "command",
        }
    }
}

/// What a shard reports to whoever coordinates the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Evidence against a machine; wants proof by [`detect::Detector`].
    Suspect {
        /// Who.
        machine: MachineRef,
        /// Why.
        reason: Reason,
    },
    /// A replica held a client up too long: all shards are to be told by [`Command::Down`].
    Evict {
        /// Who.
        machine: MachineRef,
    },
    /// A leg differs for the first time (R17); for people to read.
    Diverged {
        /// Whose leg.
        machine: MachineRef,
        /// Where, and what both sides say.
        difference: Difference,
    },
    /// A majority of a flow's machines agree against the original (R17); the client has had the original's word.
    Outvoted {
        /// The original.
        machine: MachineRef,
        /// Whose connection.
        client: SocketAddr,
        /// As in [`Difference::offset`].
        offset: u64,
    },
    /// R17's policy is to take this machine out: all shards are to be told by [`Command::Down`].
    Expel {
        /// Who.
        machine: MachineRef,
    },
}

/// What a shard is told by whoever coordinates the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The machine is dead, evicted or disabled: its flows are taken over, its legs freed, it is fenced (R12, R13, R15).
    /// The last live machine of a service stays.
    Down {
        /// Who.
        machine: MachineRef,
    },
    /// The machine may serve new flows again (R13).
    Up {
        /// Who.
        machine: MachineRef,
    },
    /// The machine serves new flows from now on, if it is up; running ones stay where they are (R16).
    Serve {
        /// Who.
        machine: MachineRef,
    },
    /// Every flow of the service that can moves to this machine at once; the old original stays as a replica.
    Failover {
        /// The new original.
        to: MachineRef,
    },
    /// Every flow of the service moves to this machine as soon as it is level there, so that no client notices. Repeated, it counts anew.
    HandOver {
        /// The new original.
        to: MachineRef,
    },
    /// What has not moved by [`Command::HandOver`] stays where it is.
    EndHandOver {
        /// Who was to be the new original.
        to: MachineRef,
    },
}

/// What a [`Command`] did in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It was carried out. The last live machine of a service can't be taken down, an unknown one can't be anything.
    pub applied: bool,
    /// Flows that now have another original.
    pub switched: usize,
    /// Flows that could not go on (client reset, counted).
    pub lost: usize,
    /// Legs freed.
    pub legs_freed: usize,
    /// Flows that are to move, but whose new original is not level yet.
    pub pending: usize,
    /// Flows that can't move to that machine: it has no leg in them, or one that is not eligible.
    pub stuck: usize,
}

/// A machine as one shard sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineStatus {
    /// Told down, or never up.
    pub down: bool,
    /// Flows whose original it is.
    pub original_of: usize,
    /// Flows that it takes over at this moment (thesis role 4).
    pub recovering: usize,
    /// What it lacks in those of the clients' bytes (u).
    pub missing_input: u64,
    /// What it has not said yet in those of what the clients were sent (v).
    pub missing_output: u64,
    /// Flows that it follows as a replica.
    pub replica_of: usize,
    /// Smoothed round-trip time over its legs in microseconds; 0 if not measured.
    pub srtt_us: u64,
    /// The largest number of client bytes that one of its legs lacks.
    pub lag_bytes: u64,
    /// Legs, since the start, whose output differed from what the client was given (R17).
    pub legs_diverged: u64,
    /// Differences in which, as the original, it was outvoted (R17).
    pub outvoted: u64,
}

/// A service as one shard sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Which machine serves new flows.
    pub original: Option<MachineId>,
    /// Flows of any state.
    pub flows: usize,
    /// Flows whose client has not proved itself.
    pub half_open: usize,
    /// By [`MachineId`].
    pub machines: Vec<MachineStatus>,
}

/// One shard's state for `relevo status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// By [`ServiceId`].
    pub services: Vec<ServiceStatus>,
    /// Bytes held in buffers.
    pub buffered_bytes: usize,
    /// Counters.
    pub stats: Stats,
}

/// One shard of the engine.
///
/// The contract (sans-I/O): give each packet to [`Engine::handle_packet`], carry out its verdict at once, then call
/// [`Engine::poll`] and send what is in the outbox; call `poll` again no later than [`Engine::next_deadline`].
/// A panic is a bug, never bad input.
#[derive(Debug)]
pub struct Engine {
    cx: Context,
    table: Table,
    flows: Slab<Box<Flow>>,
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
}

impl Engine {
    /// A shard with no flows; all machines count as up.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            table: Table::new(&spec.services, &spec.limits, spec.hash_key, spec.shard, spec.shards),
            cx: Context::new(spec),
            flows: Slab::new(),
            timers: Timers::default(),
            sweep_at: 64,
            dirty: VecDeque::new(),
            half_open: 0,
            unproved: VecDeque::new(),
            burdened: false,
            generation: 0,
            heard: None,
        }
    }

    /// The packet's verdict. `packet` starts at the IP header and is rewritten in place.
    pub fn handle_packet(&mut self, now: Micros, meta: Meta, packet: &mut [u8]) -> Verdict {
        self.cx.stats.count(Counter::PacketsIn);
        self.heard = None;
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

    fn dispatch(&mut self, now: Micros, meta: Meta, p: &Parsed, packet: &mut [u8]) -> Verdict {
        if let Some(machine) = self.table.machine(&p.src)
            && (self.cx.service(machine.service).source == SourceMode::Client
                || p.dst.ip() == self.cx.service(machine.service).psc.ip())
        {
            return self.dispatch_machine(now, meta, machine, p, packet);
        }
        match self.table.service(&p.dst) {
            Some(service) => self.dispatch_client(now, meta, service, p, packet),
            None => Verdict::Drop(DropReason::NotOurs),
        }
    }

    fn dispatch_machine(&mut self, now: Micros, meta: Meta, id: MachineRef, p: &Parsed, packet: &mut [u8]) -> Verdict {
        // R22: on its own interface or not at all.
        let own = self.cx.machine(id.service, id.machine).ifindex;
        if own.is_some_and(|own| meta.ifindex != 0 && own != meta.ifindex) {
            return Verdict::Drop(DropReason::WrongInterface);
        }
        self.heard = Some(id);
        let Some(key) = self.table.flow_of_peer(id.service, p.dst) else {
            return self.stranger_machine(id, p);
        };
        let Some(flow) = self.flows.get_mut(key) else {
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let Some(index) = flow.leg_of(id.machine) else {
            self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let before = flow.is_half_open();
        let verdict = flow.hear_machine(&mut self.cx, now, meta.checksum, index, p, packet);
        self.half_open -= usize::from(before && !flow.is_half_open());
        self.touch(key);
        verdict
    }

    /// A machine speaks, and no flow knows of it: the answer to a probe, or something stale (R19).
    fn stranger_machine(&mut self, id: MachineRef, p: &Parsed) -> Verdict {
        let service = self.cx.service(id.service);
        let is_probe = p.dst == SocketAddr::new(service.psc.ip(), ports::PROBE_PORT);
        self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
        if is_probe {
            self.cx.stats.count(Counter::ProbeReplies);
            return Verdict::Drop(DropReason::ProbeReply);
        }
        Verdict::Drop(DropReason::UnknownFlow)
    }

    fn dispatch_client(&mut self, now: Micros, meta: Meta, id: ServiceId, p: &Parsed, packet: &mut [u8]) -> Verdict {
        let syn = p.flags.contains(Flags::SYN);
        if syn && (p.flags.contains(Flags::ACK) || p.flags.contains(Flags::RST) || p.flags.contains(Flags::FIN)) {
            return Verdict::Drop(DropReason::Implausible);
        }
        match self.table.flow_of_client(id, p.src) {
            None if syn => self.open_flow(now, meta, id, p, packet),
            None => {
                if self.cx.service(id).unknown == UnknownPolicy::Reset {
                    self.cx.refuse(p.src, p.dst, p.seq, p.ack, p.flags, p.seq_len());
                }
                Verdict::Drop(DropReason::UnknownFlow)
            }
            Some(key) => self.client_speaks(now, meta, id, key, p, packet),
        }
    }

    fn client_speaks(
        &mut self,
        now: Micros,
        meta: Meta,
        id: ServiceId,
        key: usize,
        p: &Parsed,
        packet: &mut [u8],
    ) -> Verdict {
        let Some(flow) = self.flows.get_mut(key) else {
            return Verdict::Drop(DropReason::UnknownFlow);
        };
        let before = flow.is_half_open();
        let verdict = if p.flags.contains(Flags::SYN) {
            // R21: on a finished flow's addresses, or with another number on an unproved one, a SYN starts a new flow.
            if flow.is_over() || (before && p.seq != flow.client.isn) {
                // Where the machines see another port than the client's own, the old flow can still be played to its end (R24). An
                // unproved client's has nothing to be played.
                if !before && flow.has_followers() && self.cx.service(id).source == SourceMode::Psc {
                    flow.client.has_left = true;
                    self.table.detach(id, p.src);
                } else {
                    self.forget(key, true);
                }
                return self.open_flow(now, meta, id, p, packet);
            }
            if before {
                flow.forward_syn(&mut self.cx, now, meta.checksum, p, packet)
            } else {
                flow.challenge_syn(&mut self.cx, now, meta.checksum, p, packet)
            }
        } else if flow.state == FlowState::SynSent {
            flow.client_before_answer(&mut self.cx, now, meta.checksum, p, packet)
        } else {
            flow.hear_client(&mut self.cx, now, meta.checksum, p, packet)
        };
        self.half_open -= usize::from(before && !flow.is_half_open());
        self.touch(key);
        verdict
    }

    fn open_flow(&mut self, now: Micros, meta: Meta, id: ServiceId, p: &Parsed, packet: &mut [u8]) -> Verdict {
        if self.flows.len() >= self.cx.spec.limits.max_flows {
            return Verdict::Drop(DropReason::TableFull);
        }
        self.make_room_for_half_open();
        let Some(machine) = self.cx.serving(id) else {
            return Verdict::Drop(DropReason::NoMachine);
        };
        let Some(peer) = self.table.assign_peer(id, self.cx.service(id), p.src) else {
            return Verdict::Drop(DropReason::TableFull);
        };
        let mut flow = Box::new(Flow::for_syn(&self.cx, now, id, p, peer, machine));
        self.generation = self.generation.wrapping_add(1);
        flow.generation = self.generation;
        let verdict = flow.forward_syn(&mut self.cx, now, meta.checksum, p, packet);
        let key = self.flows.insert(flow);
        self.table.insert(id, p.src, peer, key);
        self.half_open += 1;
        self.unproved.push_back((key, self.generation));
        self.cx.stats.count(Counter::FlowsOpened);
        self.touch(key);
        verdict
    }

    /// R18: at the limit the oldest unproved client makes room, as a SYN backlog's would: a flood of forged SYNs must not lock out real
    /// clients, who prove themselves within a round trip.
    fn make_room_for_half_open(&mut self) {
        while let Some((key, generation)) = self.unproved.front().copied() {
            let flow = self
                .flows
                .get(key)
                .filter(|f| f.generation == generation && f.is_half_open());
            if flow.is_some() {
                if self.half_open < self.cx.spec.limits.max_half_open {
                    return;
                }
                self.forget(key, true);
            }
            self.unproved.pop_front();
        }
    }

    fn touch(&mut self, key: usize) {
        if let Some(flow) = self.flows.get_mut(key)
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
        let Some(mut flow) = self.flows.try_remove(key) else {
            return;
        };
        if reset {
            flow.answer_resets(&mut self.cx);
        }
        self.half_open -= usize::from(flow.is_half_open());
        flow.release(&mut self.cx.budget);
        self.table.remove(flow.service, flow.client.addr, flow.peer, key);
        self.cx.stats.count(Counter::FlowsClosed);
    }

    /// The work that a verdict does not wait for: acknowledgements, replica segments, due timers. Appends to `out`.
    pub fn poll(&mut self, now: Micros, out: &mut Outbox) {
        self.poll_part(now, out, usize::MAX);
    }

    /// As [`Engine::poll`], but begins no further flow's work once `out` holds `most` packets: after a command on ten thousand flows,
    /// what they owe goes out bit by bit, and packets get their verdicts between. Call again while [`Engine::is_behind`].
    pub fn poll_part(&mut self, now: Micros, out: &mut Outbox, most: usize) {
        while let Some((at, key, generation)) = self.timers.pop_due(now) {
            if let Some(flow) = self.flows.get_mut(key)
                && flow.generation == generation
                && flow.armed == Some(at)
            {
                flow.armed = None;
                flow.on_timer(&mut self.cx, now);
                self.touch(key);
            }
        }
        self.burdened = false;
        // A stale connection is cleared before its machine is asked again.
        self.say_answers(out);
        while out.len() < most
            && let Some(key) = self.dirty.pop_front()
        {
            self.work(now, key, out);
        }
        if self.timers.len() > self.sweep_at {
            let flows = &self.flows;
            self.timers.retain(|at, key, generation| {
                flows
                    .get(key)
                    .is_some_and(|f| f.generation == generation && f.armed == Some(at))
            });
            // Twice what counts: so a sweep costs each deadline that was armed since a constant share.
            self.sweep_at = 2 * self.timers.len() + 64;
        }
        self.say_answers(out);
    }

    /// Whether flows still have work for the next poll: after a [`Engine::poll_part`] that ended early.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn say_answers(&mut self, out: &mut Outbox) {
        let mut answers = std::mem::take(&mut self.cx.answers);
        for answer in answers.drain(..) {
            pump::send(&mut self.cx, &answer.segment(), out);
        }
        self.cx.answers = answers;
    }

    fn work(&mut self, now: Micros, key: usize, out: &mut Outbox) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.dirty = false;
        let before = flow.is_half_open();
        flow.pump(&mut self.cx, now, out);
        self.half_open -= usize::from(before && !flow.is_half_open());
        if flow.is_forgettable(&self.cx, now) {
            self.forget(key, true);
            return;
        }
        let Some(deadline) = flow.deadline(&self.cx).map(|at| at.max(now + 1)) else {
            return;
        };
        if flow.armed.is_none_or(|armed| deadline < armed) {
            flow.armed = Some(deadline);
            self.timers.arm(deadline, key, flow.generation);
        }
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

    /// Carries out a command; its packets come from the next [`Engine::poll`].
    pub fn command(&mut self, now: Micros, command: Command) -> Outcome {
        match command {
            Command::Down { machine } => self.machine_down(now, machine),
            Command::Up { machine } => {
                let known = self.down_flag(machine).map(|down| *down = false);
                Outcome {
                    applied: known.is_some(),
                    ..Outcome::default()
                }
            }
            Command::Serve { machine } => Outcome {
                applied: self.serve(machine),
                ..Outcome::default()
            },
            Command::Failover { to } => self.failover(now, to),
            Command::HandOver { to } => self.hand_over(now, to),
            Command::EndHandOver { to } => self.end_hand_over(to),
        }
    }

    /// New flows go to this machine, if it is up.
    fn serve(&mut self, id: MachineRef) -> bool {
        let up = self.down_flag(id).is_some_and(|down| !*down);
        if up {
            self.cx.current[usize::from(id.service.0)] = id.machine;
        }
        up
    }

    fn down_flag(&mut self, id: MachineRef) -> Option<&mut bool> {
        self.cx
            .down
            .get_mut(usize::from(id.service.0))?
            .get_mut(usize::from(id.machine.0))
    }

    fn machine_down(&mut self, now: Micros, id: MachineRef) -> Outcome {
        let mut outcome = Outcome::default();
        // The last live machine stays: a service with one dead machine is better than one with none.
        let others = self.down_flag(id).is_some() && self.cx.up(id.service).any(|m| m != id.machine);
        if !others {
            return outcome;
        }
        outcome.applied = true;
        if let Some(down) = self.down_flag(id) {
            *down = true;
        }
        if let Some(next) = self.cx.serving(id.service) {
            self.cx.current[usize::from(id.service.0)] = next;
        }
        self.each_flow(id.service, |flow, cx| {
            flow.machine_down(cx, now, id.machine, &mut outcome)
        });
        outcome
    }

    fn failover(&mut self, now: Micros, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.serve(to),
            ..Outcome::default()
        };
        if !outcome.applied {
            return outcome;
        }
        self.each_flow(to.service, |flow, cx| flow.hand_over(cx, now, to.machine, &mut outcome));
        outcome
    }

    fn hand_over(&mut self, now: Micros, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.serve(to),
            ..Outcome::default()
        };
        if outcome.applied {
            self.each_flow(to.service, |flow, cx| {
                flow.plan_handover(cx, now, to.machine, &mut outcome);
            });
            outcome.switched = self.take_moved(to.service);
        }
        outcome
    }

    fn end_hand_over(&mut self, to: MachineRef) -> Outcome {
        let mut outcome = Outcome {
            applied: self.down_flag(to).is_some(),
            ..Outcome::default()
        };
        if outcome.applied {
            self.each_flow(to.service, |flow, _| flow.end_handover(to.machine, &mut outcome));
            outcome.switched = self.take_moved(to.service);
        }
        outcome
    }

    /// Flows that have moved by plan since this was last asked.
    fn take_moved(&mut self, service: ServiceId) -> usize {
        std::mem::take(&mut self.cx.moved[usize::from(service.0)])
    }

    fn each_flow(&mut self, service: ServiceId, mut f: impl FnMut(&mut Flow, &mut Context)) {
        for (key, flow) in &mut self.flows {
            if flow.service != service {
                continue;
            }
            let before = flow.is_half_open();
            f(flow, &mut self.cx);
            self.half_open -= usize::from(before && !flow.is_half_open());
            if !std::mem::replace(&mut flow.dirty, true) {
                // A client that waits for output that is there goes before those who are only owed a number.
                if flow.owes_output() {
                    self.dirty.push_front(key);
                } else {
                    self.dirty.push_back(key);
                }
            }
        }
    }

    /// The machine that the last packet given to [`Engine::handle_packet`] came from: any packet counts as life (R14).
    #[must_use]
    pub fn heard(&self) -> Option<MachineRef> {
        self.heard
    }

    /// Appends a probe to `machine`: a SYN from the PSC's reserved port to the service port (R14). Its answer comes back
    /// through [`Engine::handle_packet`], where it counts as life (`DropReason::ProbeReply`) and is reset.
    pub fn probe(&mut self, now: Micros, machine: MachineRef, out: &mut Outbox) {
        if self.down_flag(machine).is_none() {
            return;
        }
        let psc = self.cx.service(machine.service).psc;
        let key = self.cx.spec.hash_key;
        // RFC 6528: numbers that a third party can't guess; a clock of 4 microseconds and a secret.
        let secret = u32::from_le_bytes([key[0], key[1], key[2], key[3]]);
        #[expect(clippy::cast_possible_truncation, reason = "a clock modulo 2³² is meant")]
        let clock = (now / 4) as u32;
        let segment = Segment {
            src: SocketAddr::new(psc.ip(), ports::PROBE_PORT),
            dst: self.cx.machine(machine.service, machine.machine).addr,
            seq: Seq(secret).add(clock),
            ack: Seq(0),
            flags: Flags::SYN,
            window: 1_024,
            urgent: 0,
            options: Options {
                mss: Some(handshake::default_mss(psc.ip())),
                ..Options::default()
            },
            payload: (&[], &[]),
        };
        pump::send(&mut self.cx, &segment, out);
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
