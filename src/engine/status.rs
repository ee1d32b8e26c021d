//! A shard's state for `relevo status`: counted when asked, not kept.

use super::flow::Flow;
use super::{Engine, MachineId, MachineStatus, ServiceId, ServiceStatus, ShardStatus};

impl Engine {
    /// Counts flows and legs anew: O(flows), for `relevo status`. Until the engine is no longer behind ([`Engine::is_behind`]) some flows at
    /// rest count as they were before the last [`Command::Down`](super::Command::Down).
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let ids = (0u16..).map(ServiceId).take(self.cx.spec.services.len());
        let mut services: Vec<ServiceStatus> = ids.map(|id| self.empty_service(id)).collect();
        self.flows.look(|flow| {
            if let Some(service) = services.get_mut(usize::from(flow.service.0)) {
                add_flow(service, flow);
            }
        });
        ShardStatus {
            services,
            buffered_bytes: self.cx.budget.used(),
            stats: self.cx.stats.clone(),
        }
    }

    fn empty_service(&self, id: ServiceId) -> ServiceStatus {
        let down = &self.cx.down[usize::from(id.0)];
        let machines = down
            .iter()
            .zip(&self.cx.diverged[usize::from(id.0)])
            .map(|(down, diverged)| MachineStatus {
                down: *down,
                legs_diverged: diverged.legs,
                outvoted: diverged.outvoted,
                ..MachineStatus::default()
            })
            .collect();
        ServiceStatus {
            original: self.cx.serving(id),
            machines,
            ..ServiceStatus::default()
        }
    }
}

fn add_flow(service: &mut ServiceStatus, flow: &Flow) {
    service.flows += 1;
    service.half_open += usize::from(flow.is_half_open());
    for (index, leg) in flow.legs.iter().enumerate().filter(|(_, l)| l.counts()) {
        let MachineId(machine) = leg.machine;
        let Some(status) = service.machines.get_mut(usize::from(machine)) else {
            continue;
        };
        if index == flow.original {
            status.original_of += 1;
            if flow.is_recovering() {
                let (input, output) = flow.missing(index);
                status.recovering += 1;
                status.missing_input += input;
                status.missing_output += output;
            }
        } else {
            status.replica_of += 1;
            status.trailing += usize::from(leg.trails);
        }
        status.lag_bytes = status.lag_bytes.max(flow.missing(index).0);
        if let Some(srtt) = leg.sender.rtt.smoothed() {
            status.srtt_us = if status.srtt_us == 0 {
                srtt
            } else {
                (7 * status.srtt_us + srtt) / 8
            };
        }
    }
}
