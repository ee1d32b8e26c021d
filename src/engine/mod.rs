//! The engine (pure): packets and a `now` in; a verdict, packets to send and events out.

pub mod detect;
pub mod outbox;
pub mod spec;
pub mod stats;

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
    /// Complete: update it incrementally (RFC 1624), so that corruption on the way here stays visible.
    #[default]
    Complete,
    /// Not computed yet by the sender's kernel: compute it in full.
    Partial,
    /// A GSO super-packet: the kernel computes it anew for each segment, whatever stands there.
    Offloaded,
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
    /// Every flow of the service that can moves to this machine; the old original stays as a replica.
    Failover {
        /// The new original.
        to: MachineRef,
    },
}

/// What a [`Command`] did in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Flows that now have another original.
    pub switched: usize,
    /// Flows that could not go on (client reset, counted).
    pub lost: usize,
    /// Legs freed.
    pub legs_freed: usize,
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
    /// Flows that it follows as a replica.
    pub replica_of: usize,
    /// Smoothed round-trip time over its legs in microseconds; 0 if not measured.
    pub srtt_us: u64,
    /// The largest number of client bytes that one of its legs lacks.
    pub lag_bytes: u64,
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
pub struct Engine {
    spec: EngineSpec,
    stats: Stats,
}

impl Engine {
    /// A shard with no flows; all machines count as up.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            spec,
            stats: Stats::default(),
        }
    }
    /// The packet's verdict. `packet` starts at the IP header and is rewritten in place.
    pub fn handle_packet(&mut self, now: Micros, meta: Meta, packet: &mut [u8]) -> Verdict {
        let _ = (now, meta, packet);
        Verdict::Drop(DropReason::NotOurs)
    }
    /// The work that a verdict does not wait for: acknowledgements, replica segments, due timers. Appends to `out`.
    pub fn poll(&mut self, now: Micros, out: &mut Outbox) {
        let _ = (now, out);
    }
    /// When [`Engine::poll`] wants to be called next, if no packet comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        None
    }
    /// What the shard wants the coordinator to know, oldest first.
    pub fn take_event(&mut self) -> Option<Event> {
        None
    }
    /// Carries out a command; its packets come from the next [`Engine::poll`].
    pub fn command(&mut self, now: Micros, command: Command) -> Outcome {
        let _ = (now, command);
        Outcome::default()
    }
    /// The machine that the last packet given to [`Engine::handle_packet`] came from: any packet counts as life (R14).
    #[must_use]
    pub fn heard(&self) -> Option<MachineRef> {
        None
    }
    /// Appends a probe to `machine`: a SYN from the PSC's reserved port to the service port (R14). Its answer comes back
    /// through [`Engine::handle_packet`], where it counts as life and is reset.
    pub fn probe(&mut self, now: Micros, machine: MachineRef, out: &mut Outbox) {
        let _ = (now, machine, out);
    }
    /// Counts flows and legs anew: O(flows), for `relevo status`.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        ShardStatus {
            stats: self.stats.clone(),
            ..ShardStatus::default()
        }
    }
    /// What it was told at its start.
    #[must_use]
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }
}
