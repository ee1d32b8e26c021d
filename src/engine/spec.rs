//! What the engine is told once, at its start: services, machines and limits, already validated.
//!
//! The config module turns a file into these; tests and the simulation build them by hand.

use crate::variants::named_enum;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// Monotonic time in microseconds since an origin of the caller's choice. The engine never reads a clock.
pub type Micros = u64;

/// One millisecond in [`Micros`].
pub const MILLISECOND: Micros = 1_000;
/// One second in [`Micros`].
pub const SECOND: Micros = 1_000_000;

/// Index of a service in [`EngineSpec::services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u16);

/// Index of a machine in its service's [`ServiceSpec::machines`]; 0 is the configured original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(pub u16);

/// One machine of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineRef {
    /// The service that the machine works for.
    pub service: ServiceId,
    /// The machine within that service.
    pub machine: MachineId,
}

/// Which address the machines see as their peer (design section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceMode {
    /// The PSC address itself: replies always come back to the engine host.
    Psc,
    /// The client's real address: the engine host is the machines' gateway.
    Client,
}

/// How many bytes a replica may lag behind what the client sees acknowledged (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxLag {
    /// At most this many bytes; 0 means that an acknowledged byte is in every live machine's TCP.
    Bytes(u64),
    /// The thesis's behaviour: the client never waits for a replica.
    Unlimited,
}

named_enum! {
    /// Who takes over (R16). By the first two choices, one that has yet to say what the client has heard comes after all that have.
    Successor {
        /// The first in the list that is fit (thesis 5.3.2).
        First => "first",
        /// The machine with the shortest smoothed round-trip time (thesis, future work 2).
        LowestRtt => "lowest-rtt",
        /// The machine that lacks the fewest bytes of both directions.
        LeastLag => "least-lag",
    }
}

/// Whose output the client sees (R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// One machine's, the first in the list, until another takes over.
    First,
    /// Each byte from whichever machine says it first (thesis, future work 3).
    Fastest,
}

named_enum! {
    /// What becomes of a leg whose output differs from what the client was given (R17).
    DivergePolicy {
        /// Nothing is compared.
        Off => "off",
        /// It is counted and told. Only output of another length makes a leg unfit to take over.
        Warn => "warn",
        /// The leg does not take over.
        Ineligible => "ineligible",
        /// The machine is taken out.
        Evict => "evict",
    }
}

/// What a non-SYN packet without a flow is answered with (R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// A RST, as a host would answer.
    Reset,
    /// Nothing.
    Drop,
}

/// Detection settings (R14), all times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectSpec {
    /// The least silence that counts as suspicion.
    pub floor: Micros,
    /// How often a machine that says nothing is probed.
    pub probe_interval: Micros,
    /// How many unanswered probes in a burst prove death.
    pub probes: u32,
    /// Output that replicas have produced and the original has not for this long is a failure; `None` is off.
    pub hang: Option<Micros>,
    /// How long an unconfirmed RST or early FIN of the original is held back (R11).
    pub vote: Micros,
    /// So many connections that the original alone ends, one soon after the other, are not each an end of its own: its service crashes (R11).
    pub crash_ends: u32,
}

/// One machine of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// The operator's name for it.
    pub name: String,
    /// Where the service listens on that machine.
    pub addr: SocketAddr,
    /// Index of the interface its packets must arrive on (R22); `None` accepts any.
    pub ifindex: Option<u32>,
    /// MTU of the path to it in bytes, IP header included (R5).
    pub path_mtu: u16,
}

/// One PSC with its machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The operator's name for it.
    pub name: String,
    /// The one address:port that clients use.
    pub psc: SocketAddr,
    /// Which address the machines see.
    pub source: SourceMode,
    /// R4's bound.
    pub max_lag: MaxLag,
    /// R16: whose output the client sees.
    pub original: Original,
    /// R16's choice of who takes over.
    pub successor: Successor,
    /// R15: a client never waits longer than this for a replica.
    pub replica_timeout: Micros,
    /// R14's settings.
    pub detect: DetectSpec,
    /// R17's policy.
    pub diverge: DivergePolicy,
    /// R19's answer.
    pub unknown: UnknownPolicy,
    /// In takeover order; the first is the original.
    pub machines: Vec<MachineSpec>,
}

/// R18: every table and buffer has a bound. All are for one shard (worker).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows of any state.
    pub max_flows: usize,
    /// Flows whose client has not yet proved itself by its third packet.
    pub max_half_open: usize,
    /// Bytes of one flow's send buffer, and of one leg's output cache.
    pub flow_buffer: usize,
    /// Bytes of all buffers together.
    pub total_buffer: usize,
    /// Server-side ports for clients whose own port is taken (`source = "psc"`).
    pub ports: RangeInclusive<u16>,
    /// A half-open flow is forgotten after this long.
    pub half_open_timeout: Micros,
    /// A leg that makes no progress towards its close for this long is reset (R10).
    pub close_timeout: Micros,
    /// A finished flow answers retransmitted FINs for this long.
    pub time_wait: Micros,
    /// An established flow without a packet for this long is forgotten.
    pub idle_timeout: Micros,
    /// And parked (R18) after this long. To make a parked flow what it was takes some microseconds, which a takeover of thousands would feel: so
    /// those that speak now and then stay as they are.
    pub park_after: Micros,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 200_000,
            max_half_open: 8_192,
            flow_buffer: 4 << 20,
            total_buffer: 1 << 30,
            ports: 20_000..=60_999,
            half_open_timeout: 30 * SECOND,
            close_timeout: 10 * SECOND,
            time_wait: 5 * SECOND,
            idle_timeout: 5 * 24 * 3_600 * SECOND,
            park_after: 30 * SECOND,
        }
    }
}

/// Everything one shard of the engine is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// The services, in file order.
    pub services: Vec<ServiceSpec>,
    /// R18.
    pub limits: Limits,
    /// Which shard this is: it owns the flows whose client-side port leads to it by its low bits but for the lowest (see the rules).
    pub shard: u16,
    /// How many shards there are; a power of two.
    pub shards: u16,
    /// Whether the host can cut super-packets ([`super::outbox::Packet::cut`]); otherwise each segment is a packet of its own.
    pub super_packets: bool,
    /// Key of the flow table's hash, so that an outsider can't choose collisions (R18), and of probe sequence numbers.
    pub hash_key: [u8; 16],
}
