//! How the status report comes about: what the workers say is added up, and the coordinator's picture goes with it.

use super::super::heard::LastHeard;
use super::super::roster::{Roster, Service, State};
use super::super::worker::WorkerStatus;
use super::{Divergence, MachineReport, QueueReport, ServiceReport, Status};
use crate::engine::{Counter, Difference, DropReason, MachineId, MachineRef, MachineStatus, Micros, ServiceId, Stats};
use crate::host::inject::{InjectCounters, InjectError};
use crate::host::queue::KernelQueue;

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
