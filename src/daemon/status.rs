//! What the admin socket says, as JSON (docs/admin.md): requests, answers, and the status report with its assembly.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::heard::LastHeard;
use super::roster::{Roster, Service, State};
use super::times::TimesReport;
use super::worker::WorkerStatus;
use crate::engine::{
    Counter, Difference, DropReason, MachineId, MachineRef, MachineStatus, Micros, SECOND, ServiceId, Stats,
};
use crate::host::inject::{InjectCounters, InjectError};
use crate::host::queue::KernelQueue;

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Everything there is to know.
    Status,
    /// Move a service's flows to another machine.
    Failover {
        /// Its name.
        service: String,
        /// The new original's name; `None` is the next by the service's choice.
        #[serde(default)]
        to: Option<String>,
        /// How long to wait for it to be level, in microseconds; 0 moves all flows at once, level or not.
        #[serde(default = "within_default")]
        within_us: Micros,
    },
    /// Take a machine in or out.
    Machine {
        /// Its service's name.
        service: String,
        /// Its name.
        machine: String,
        /// In or out.
        enable: bool,
    },
}

impl Request {
    /// How long it may take to do, besides the time to answer.
    #[must_use]
    pub fn takes(&self) -> Duration {
        match self {
            Self::Status => Duration::ZERO,
            Self::Failover { within_us, .. } => Duration::from_micros((*within_us).min(MOST_WITHIN)),
            Self::Machine { enable: false, .. } => Duration::from_micros(WITHIN),
            Self::Machine { .. } => Duration::ZERO,
        }
    }
}

/// The longest that a handover may wait, in microseconds.
pub const MOST_WITHIN: Micros = 60 * SECOND;

/// How long a handover may wait unless the operator says otherwise, and that of `machine disable`, in microseconds.
pub const WITHIN: Micros = SECOND;

fn within_default() -> Micros {
    WITHIN
}

/// One line to a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether what was asked for has been done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// To `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// To `failover`, and to `machine` if flows had to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Takeover>,
}

impl Answer {
    /// No, and why.
    #[must_use]
    pub fn error(why: impl Into<String>) -> Self {
        Self {
            error: Some(why.into()),
            ..Self::default()
        }
    }
    /// Done.
    #[must_use]
    pub fn done(takeover: Option<Takeover>) -> Self {
        Self {
            ok: true,
            takeover,
            ..Self::default()
        }
    }
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

impl Divergence {
    fn report(service: &Service, (at, difference): &(Micros, Difference), now: Micros) -> Self {
        Self {
            service: service.name.clone(),
            client: difference.client.to_string(),
            original: service.machine_name(difference.original).to_owned(),
            offset: difference.offset,
            start: difference.start,
            given: difference.given.to_string(),
            said: difference.said.to_string(),
            length: difference.length,
            ago_ms: now.saturating_sub(*at) / crate::engine::MILLISECOND,
        }
    }
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

/// What the report is put together from, besides the workers' parts.
pub struct Sources<'a> {
    /// The coordinator's picture.
    pub roster: &'a Roster,
    /// Everybody's ears.
    pub heard: &'a LastHeard,
    /// The kernel's view of all queues.
    pub kernel: &'a [KernelQueue],
    /// Host time.
    pub now: Micros,
    /// Host time at the daemon's start.
    pub started: Micros,
    /// Echo requests that could not be sent.
    pub echo_errors: u64,
}

impl Status {
    /// Adds up what the workers say.
    #[must_use]
    pub fn assemble(sources: &Sources<'_>, workers: &[WorkerStatus]) -> Self {
        let mut stats = Stats::default();
        let mut inject = InjectCounters::default();
        for worker in workers {
            stats.add(&worker.shard.stats);
            inject.add(&worker.inject);
        }
        let services = (0..).map(ServiceId).zip(&sources.roster.services);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: sources.now.saturating_sub(sources.started) / crate::engine::SECOND,
            services: services
                .map(|(id, service)| service_report(sources, workers, id, service))
                .collect(),
            buffered_bytes: workers.iter().map(|w| w.shard.buffered_bytes).sum(),
            counters: Counter::ALL
                .iter()
                .map(|&c| (c.name().to_owned(), stats.get(c)))
                .collect(),
            drops: DropReason::ALL
                .iter()
                .map(|&r| (r.name().to_owned(), stats.drops(r)))
                .collect(),
            queues: workers.iter().map(|w| queue_report(sources.kernel, w)).collect(),
            injected: inject.sent,
            inject_errors: InjectError::ALL
                .iter()
                .map(|&k| (k.name().to_owned(), inject.errors(k)))
                .collect(),
            echo_errors: sources.echo_errors,
        }
    }
}

fn queue_report(kernel: &[KernelQueue], worker: &WorkerStatus) -> QueueReport {
    let unknown = KernelQueue {
        queue: worker.queue,
        ..KernelQueue::default()
    };
    let lost = worker.queue_counters;
    QueueReport {
        kernel: kernel
            .iter()
            .find(|k| k.queue == worker.queue)
            .copied()
            .unwrap_or(unknown),
        truncated: lost.truncated,
        receive_errors: lost.receive_errors,
        verdict_errors: lost.verdict_errors,
        stalls: worker.stalled.0,
        stalled_us: worker.stalled.1,
        notices_lost: worker.notices_lost,
        cpus: worker.held.cpus.clone(),
        realtime_priority: worker.held.realtime,
        busy_polls: worker.busy_polls,
        times: worker.times.clone(),
    }
}

fn service_report(s: &Sources<'_>, workers: &[WorkerStatus], id: ServiceId, service: &Service) -> ServiceReport {
    let shards = || workers.iter().filter_map(|w| w.shard.services.get(usize::from(id.0)));
    let totals = shard_totals(workers, id, service.machines.len());
    let machines = (0..)
        .map(MachineId)
        .zip(service.machines.iter().zip(totals))
        .map(|(machine, (record, total))| {
            let heard = s.heard.get(MachineRef { service: id, machine });
            MachineReport {
                name: record.name.clone(),
                address: record.addr.to_string(),
                role: role(record.state, machine == service.original, total.recovering > 0).to_owned(),
                state: record.state.name().to_owned(),
                srtt_us: if total.srtt_us > 0 {
                    total.srtt_us
                } else {
                    record.echo_rtt.unwrap_or(0)
                },
                lag_bytes: total.lag_bytes,
                last_heard_ms: s.now.saturating_sub(heard) / crate::engine::MILLISECOND,
                flows_as_original: total.original_of,
                flows_as_replica: total.replica_of,
                flows_trailing: total.trailing,
                flows_recovering: total.recovering,
                missing_input_bytes: total.missing_input,
                missing_output_bytes: total.missing_output,
                legs_diverged: total.legs_diverged,
                outvoted: total.outvoted,
                last_divergence: record
                    .diverged
                    .as_ref()
                    .map(|last| Divergence::report(service, last, s.now)),
            }
        });
    ServiceReport {
        name: service.name.clone(),
        psc: service.psc.to_string(),
        original: service.machine_name(service.original).to_owned(),
        machines: machines.collect(),
        flows: shards().map(|shard| shard.flows).sum(),
        half_open: shards().map(|shard| shard.half_open).sum(),
        last_takeover: service.last_takeover.clone(),
    }
}

/// What all shards together say of a service's machines, by [`MachineId`].
#[must_use]
pub fn shard_totals(workers: &[WorkerStatus], id: ServiceId, machines: usize) -> Vec<MachineStatus> {
    let shards = || workers.iter().filter_map(|w| w.shard.services.get(usize::from(id.0)));
    (0..machines)
        .map(|machine| add_up(shards().filter_map(|shard| shard.machines.get(machine))))
        .collect()
}

/// Sums of flows, the largest lag, and the mean of the round-trip times that were measured.
fn add_up<'a>(shards: impl Iterator<Item = &'a MachineStatus>) -> MachineStatus {
    let mut total = MachineStatus::default();
    let mut measured = 0;
    for shard in shards {
        total.down |= shard.down;
        total.original_of += shard.original_of;
        total.recovering += shard.recovering;
        total.missing_input += shard.missing_input;
        total.missing_output += shard.missing_output;
        total.replica_of += shard.replica_of;
        total.trailing += shard.trailing;
        total.legs_diverged += shard.legs_diverged;
        total.outvoted += shard.outvoted;
        total.lag_bytes = total.lag_bytes.max(shard.lag_bytes);
        total.srtt_us += shard.srtt_us;
        measured += u64::from(shard.srtt_us > 0);
    }
    total.srtt_us /= measured.max(1);
    total
}

fn role(state: State, original: bool, recovering: bool) -> &'static str {
    match (state, original) {
        (State::Disabled, _) => "disabled",
        (State::Down | State::Evicted, _) => "down",
        (State::Up, true) if recovering => "recovering",
        (State::Up, true) => "original",
        (State::Up, false) => "replica",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let read = |text| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#"{"cmd":"status"}"#).expect("read"), Request::Status);
        let failover = Request::Failover {
            service: "x".into(),
            to: None,
            within_us: WITHIN,
        };
        assert_eq!(
            read(r#"{"cmd":"failover","service":"x","to":null}"#).expect("read"),
            failover
        );
        assert_eq!(read(r#"{"cmd":"failover","service":"x"}"#).expect("read"), failover);
        let at_once = Request::Failover {
            service: "x".into(),
            to: Some("y".into()),
            within_us: 0,
        };
        let text = r#"{"cmd":"failover","service":"x","to":"y","within_us":0}"#;
        assert_eq!(read(text).expect("read"), at_once);
        let machine = Request::Machine {
            service: "x".into(),
            machine: "vm-b".into(),
            enable: false,
        };
        let text = r#"{"cmd":"machine","service":"x","machine":"vm-b","enable":false}"#;
        assert_eq!(read(text).expect("read"), machine);
        for bad in [
            "",
            "{}",
            r#"{"cmd":"stop"}"#,
            r#"{"cmd":"failover"}"#,
            r#"{"cmd":"failover","service":"x","t":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_hold_only_what_they_say() {
        let text = |answer: &Answer| serde_json::to_string(answer).expect("write");
        assert_eq!(text(&Answer::done(None)), r#"{"ok":true}"#);
        assert_eq!(text(&Answer::error("no")), r#"{"ok":false,"error":"no"}"#);
    }

    #[test]
    fn shards_add_up() {
        let shard = |srtt_us, lag_bytes| MachineStatus {
            srtt_us,
            lag_bytes,
            original_of: 2,
            ..MachineStatus::default()
        };
        let total = add_up([shard(100, 5), shard(0, 9), shard(300, 1)].iter());
        assert_eq!((total.srtt_us, total.lag_bytes, total.original_of), (200, 9, 6));
        assert_eq!(add_up([].iter()), MachineStatus::default());
    }

    #[test]
    fn roles_follow_the_state_first() {
        assert_eq!(role(State::Disabled, true, false), "disabled");
        assert_eq!(role(State::Evicted, false, false), "down");
        assert_eq!(role(State::Up, true, true), "recovering");
        assert_eq!(role(State::Up, true, false), "original");
        assert_eq!(role(State::Up, false, true), "replica");
    }
}
