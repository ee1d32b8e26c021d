//! What the engine and its caller say to each other: a packet's circumstances and its verdict; events and commands; the state of a shard.

use super::{Difference, DropReason, MachineId, MachineRef, Micros, Stats};
use crate::variants::named_enum;
use crate::wire::ChecksumMode;
use std::net::SocketAddr;

/// What the caller knows of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Index of the interface that it arrived on; 0 if unknown.
    pub ifindex: u32,
    /// State of its TCP checksum.
    pub checksum: Checksum,
    /// How much later it is by the clock of [`Probe::at`] than the `now` that comes with the packet, in microseconds: what the shard has slept.
    pub behind: Micros,
}

/// A probe that is to be sent (R14). Its times are of one clock for all shards, for any of them may hear the answer.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// To whom.
    pub machine: MachineRef,
    /// Now.
    pub at: Micros,
    /// When the one before was sent to this machine; it may have left a half-open connection.
    pub last: Option<Micros>,
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

named_enum! {
    /// Why a machine is thought, or known, to have failed.
    Reason {
        /// Data unacknowledged by the original while another machine acknowledged it (R14).
        Silence => "silence",
        /// The original has not answered a SYN.
        UnansweredSyn => "unanswered_syn",
        /// The client had to retransmit what the original has not acknowledged.
        Retransmission => "retransmission",
        /// The host's link to it is down (R14).
        LinkDown => "link_down",
        /// Its link-layer address is not answered for, or a router says that there is no way to it (R14).
        Unreachable => "unreachable",
        /// Probes stayed unanswered.
        Probes => "probes",
        /// It ended a connection, and no replica did (R11).
        Vote => "vote",
        /// Its service has made no progress for `hang`, while a replica's has (R14).
        Hang => "hang",
        /// Its host answers, its service does not listen, while another machine's does.
        Refused => "refused",
        /// A replica held the client up for `replica_timeout` (R15).
        ReplicaTimeout => "replica_timeout",
        /// It says something else than the others, and the policy is to evict (R17).
        Divergence => "divergence",
        /// The operator asked for it.
        Command => "command",
    }
}

/// What a shard reports to whoever coordinates the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Evidence against a machine; wants proof by [`super::detect::Detector`].
    Suspect {
        /// Who.
        machine: MachineRef,
        /// Why.
        reason: Reason,
    },
    /// A replica held a client up too long (R15), or R17's policy is to take this machine out: all shards are to be told by
    /// [`Command::Down`].
    Evict {
        /// Who.
        machine: MachineRef,
        /// Why.
        reason: Reason,
    },
    /// A leg differs for the first time (R17); for people to read.
    Diverged {
        /// Whose leg.
        machine: MachineRef,
        /// Where, and what both sides say.
        difference: Difference,
    },
    /// Several super-packets to this machine were lost in a row, and none has arrived since: for a while it gets single segments. For people to
    /// read: a firewall of this host may stop what comes from their device.
    SuperPacketsLost {
        /// To whom.
        machine: MachineRef,
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
    /// Of those, flows whose clients do not wait for it, since it is behind (R15).
    pub trailing: usize,
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
    /// By [`super::ServiceId`].
    pub services: Vec<ServiceStatus>,
    /// Bytes held in buffers.
    pub buffered_bytes: usize,
    /// Counters.
    pub stats: Stats,
}
