//! What `status` answers: the fields, as docs/admin.md tells them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::times::TimesReport;
use crate::engine::Micros;
use crate::host::queue::KernelQueue;

/// The answer to `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// In file order.
    pub services: Vec<ServiceReport>,
    /// Bytes held for replicas and for takeover, all workers together.
    pub buffered_bytes: usize,
    /// By stable name.
    pub counters: BTreeMap<String, u64>,
    /// By stable name.
    pub drops: BTreeMap<String, u64>,
    /// One for each worker.
    pub queues: Vec<QueueReport>,
    /// Packets that the engine originated and the host sent.
    pub injected: u64,
    /// And those that it could not send, by stable name.
    pub inject_errors: BTreeMap<String, u64>,
    /// Echo requests that could not be sent.
    pub echo_errors: u64,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// The operator's name.
    pub name: String,
    /// Address and port.
    pub psc: String,
    /// Who serves new flows.
    pub original: String,
    /// In takeover order.
    pub machines: Vec<MachineReport>,
    /// Flows of any state.
    pub flows: usize,
    /// Flows whose client has not proved itself.
    pub half_open: usize,
    /// Since the start of the daemon.
    pub last_takeover: Option<Takeover>,
}

/// One machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The operator's name.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// `original`, `recovering`, `replica`, `down` or `disabled`.
    pub role: String,
    /// `up`, `down`, `evicted` or `disabled`.
    pub state: String,
    /// Smoothed round-trip time over its legs in microseconds, or else of the last echo; 0 if none was measured.
    pub srtt_us: Micros,
    /// The largest number of client bytes that one of its legs lacks.
    pub lag_bytes: u64,
    /// Milliseconds since it last said anything.
    pub last_heard_ms: u64,
    /// Flows whose original it is.
    pub flows_as_original: usize,
    /// Flows that it follows.
    pub flows_as_replica: usize,
    /// Of those, flows whose clients do not wait for it, since it is behind (R15).
    pub flows_trailing: usize,
    /// Flows that it is taking over at this moment.
    pub flows_recovering: usize,
    /// Client bytes that it lacks in those.
    pub missing_input_bytes: u64,
    /// Bytes that the clients were sent and that it has not said yet in those.
    pub missing_output_bytes: u64,
    /// Connections, since the start, in which it said something else than the client was given (R17).
    #[serde(default)]
    pub legs_diverged: u64,
    /// Differences in which, as the original, it was alone against a majority (R17).
    #[serde(default)]
    pub outvoted: u64,
    /// The last of the connections counted in `legs_diverged`.
    #[serde(default)]
    pub last_divergence: Option<Divergence>,
}

/// Where a machine's output first differed from what the client was given (R17).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The service's name.
    pub service: String,
    /// Address and port of the client.
    pub client: String,
    /// The connection's original at that time.
    pub original: String,
    /// Bytes of output before the difference: the first byte of a connection has offset 0.
    pub offset: u64,
    /// The offset at which both excerpts begin.
    pub start: u64,
    /// What the client was given, from `start` on, at most 32 bytes, escaped.
    pub given: String,
    /// What the machine said, likewise.
    pub said: String,
    /// One of the two ended where the other went on.
    pub length: bool,
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
}

/// One worker's queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueReport {
    /// What the kernel says.
    #[serde(flatten)]
    pub kernel: KernelQueue,
    /// Packets too long to be handed over whole.
    pub truncated: u64,
    /// Packets lost while receiving.
    pub receive_errors: u64,
    /// Verdicts that could not be sent.
    pub verdict_errors: u64,
    /// How often the worker was not scheduled in time.
    pub stalls: u64,
    /// For how long in all, in microseconds.
    pub stalled_us: Micros,
    /// Evidence lost on the way to the coordinator.
    pub notices_lost: u64,
    /// Processors that its thread may run on, as ranges.
    #[serde(default)]
    pub cpus: String,
    /// Its real-time priority; 0 if it runs as everybody does.
    #[serde(default)]
    pub realtime_priority: u8,
    /// Packets that it found while it looked for them without sleeping (`busy_poll`).
    #[serde(default)]
    pub busy_polls: u64,
    /// Where the worker's time has gone.
    #[serde(flatten)]
    pub times: TimesReport,
}

/// One takeover of a service (R12).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The machine that was the original.
    pub from: String,
    /// The machine that is now.
    pub to: String,
    /// The stable name of [`crate::engine::Reason`].
    pub reason: String,
    /// When it was decided, in microseconds since 1970-01-01 UTC by this host's clock; of a planned handover, when it began.
    #[serde(default)]
    pub decided_at_us: u64,
    /// From the first suspicion to the decision, in microseconds; 0 for a command.
    pub detect_us: Micros,
    /// From the decision until every worker with flows to move had switched them all and sent its first packet in the new original's name, in
    /// microseconds; 0 if no flow moved.
    #[serde(default)]
    pub redirect_us: Micros,
    /// From the decision to the last worker's report that its packets are out, in microseconds; of a planned handover the waiting is part.
    pub switch_us: Micros,
    /// Flows that moved.
    pub flows: usize,
    /// Flows that could not.
    pub lost: usize,
    /// Flows that stay where they are, since the new original was not level in time, or is not eligible; a handover by command only.
    #[serde(default)]
    pub stayed: usize,
}
