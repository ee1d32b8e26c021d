//! Every default of the configuration file, once. `relevo check --print` shows what they come to.

use std::ops::RangeInclusive;

use super::{DirectPolicy, QueueKind, WorkerCpus};
use crate::engine::{
    DetectSpec, DivergePolicy, MILLISECOND, MaxLag, Micros, Original, SECOND, SourceMode, Successor, UnknownPolicy,
};

/// `[engine] workers`: queues, and threads to serve them.
pub const WORKERS: u16 = 2;
/// `[engine] first_queue`: the others follow it.
pub const FIRST_QUEUE: u16 = 0;
/// `[engine] admin_socket`, also where `relevo status` looks unless told otherwise.
pub const ADMIN_SOCKET: &str = "/run/relevo/admin.sock";
/// `[engine] queue`.
pub const QUEUE: QueueKind = QueueKind::Direct;
/// `[engine] worker_cpus`: the kernel knows best, unless the operator does.
pub const WORKER_CPUS: WorkerCpus = WorkerCpus::Off;
/// `[engine] realtime_priority`: a program that never sleeps can then stop all others.
pub const REALTIME_PRIORITY: Option<u8> = None;
/// `[engine] busy_poll` in microseconds, 0 for off: looking for packets takes a processor from others.
pub const BUSY_POLL: Micros = 0;
/// `[engine] sysctls`: whether `relevo run` sets what it needs under /proc/sys.
pub const SYSCTLS: bool = true;
/// `[engine] super_packets`: whether a replica's segments leave together, through a TUN device.
pub const SUPER_PACKETS: bool = true;

/// `[engine] max_flows`, for the whole host (R18).
pub const MAX_FLOWS: usize = 200_000;
/// `[engine] max_half_open`, for the whole host (R18).
pub const MAX_HALF_OPEN: usize = 8_192;
/// `[engine] max_syn_rate`, connection attempts a second for the whole host (R18). Each costs a machine's and the engine's work; a
/// small machine's two cores were seen to carry 20,000 a second beside their other work, and to choke on 100,000.
pub const MAX_SYN_RATE: u32 = 10_000;
/// `[engine] flow_buffer` in bytes: a window of 4 MiB is the most that Linux receives by default (`tcp_rmem`).
pub const FLOW_BUFFER: usize = 4 << 20;
/// `[engine] total_buffer` in bytes, for the whole host (R18).
pub const TOTAL_BUFFER: usize = 1 << 30;
/// `[engine] ports`: the server-side ports for clients whose own port is taken.
pub const PORTS: RangeInclusive<u16> = 20_000..=60_999;
/// `[engine] half_open_timeout`.
pub const HALF_OPEN_TIMEOUT: Micros = 30 * SECOND;
/// `[engine] close_timeout` (R10).
pub const CLOSE_TIMEOUT: Micros = 10 * SECOND;
/// `[engine] time_wait`.
pub const TIME_WAIT: Micros = 5 * SECOND;
/// `[engine] idle_timeout`: five days, as conntrack has it for established connections.
pub const IDLE_TIMEOUT: Micros = 5 * 24 * 3_600 * SECOND;

/// `source` (design section 2).
pub const SOURCE: SourceMode = SourceMode::Psc;
/// `max_lag` (R4): an acknowledged byte is in every live machine's TCP.
pub const MAX_LAG: MaxLag = MaxLag::Bytes(0);
/// `original` (R16): one machine serves, the others follow.
pub const ORIGINAL: Original = Original::First;
/// `successor` (R16).
pub const SUCCESSOR: Successor = Successor::First;
/// `replica_timeout` (R15).
pub const REPLICA_TIMEOUT: Micros = 200 * MILLISECOND;
/// `diverge` (R17): a difference is worth knowing, and mostly harmless, as a date or an id of equal length is. Output of another length
/// makes a leg unfit by any policy.
pub const DIVERGE: DivergePolicy = DivergePolicy::Warn;
/// `direct`.
pub const DIRECT: DirectPolicy = DirectPolicy::Stop;
/// `unknown` (R19).
pub const UNKNOWN: UnknownPolicy = UnknownPolicy::Reset;
/// `detect` (R14, R11).
pub const DETECT: DetectSpec = DetectSpec {
    floor: 5 * MILLISECOND,
    probe_interval: 100 * MILLISECOND,
    probes: 3,
    hang: None,
    vote: 20 * MILLISECOND,
    // As many flows that fall silent together count for a probe (R14).
    crash_ends: 16,
};
