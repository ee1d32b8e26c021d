//! When each machine was last heard: written by every worker, read by the coordinator, no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{MachineId, MachineRef, Micros, ServiceId, ServiceSpec};

/// One cell for each machine of each service.
#[derive(Debug)]
pub struct LastHeard {
    /// Index of each service's first machine in `cells`.
    first: Vec<usize>,
    cells: Vec<AtomicU64>,
    machines: Vec<MachineRef>,
}

impl LastHeard {
    /// All machines count as heard at `now`.
    #[must_use]
    pub fn new(services: &[ServiceSpec], now: Micros) -> Self {
        let mut first = Vec::new();
        let mut machines = Vec::new();
        for (service, spec) in (0..).map(ServiceId).zip(services) {
            first.push(machines.len());
            machines.extend(
                (0..)
                    .map(MachineId)
                    .zip(&spec.machines)
                    .map(|(machine, _)| MachineRef { service, machine }),
            );
        }
        let cells = machines.iter().map(|_| AtomicU64::new(now)).collect();
        Self { first, cells, machines }
    }

    /// The machine said something at `at`. Relaxed: nothing else hangs on it, and a later time wins soon enough.
    pub fn note(&self, machine: MachineRef, at: Micros) {
        if let Some(cell) = self.cell(machine) {
            cell.store(at, Ordering::Relaxed);
        }
    }

    /// When the machine last said something.
    #[must_use]
    pub fn get(&self, machine: MachineRef) -> Micros {
        self.cell(machine).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// All machines in order, with their times.
    pub fn iter(&self) -> impl Iterator<Item = (MachineRef, Micros)> {
        self.machines
            .iter()
            .zip(&self.cells)
            .map(|(&machine, cell)| (machine, cell.load(Ordering::Relaxed)))
    }

    fn cell(&self, machine: MachineRef) -> Option<&AtomicU64> {
        let index = self.first.get(usize::from(machine.service.0))? + usize::from(machine.machine.0);
        self.cells.get(index)
    }
}
