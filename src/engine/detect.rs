//! R14: evidence, then proof. Decides which machine is probed when, and which is dead.
//!
//! Pure like the rest; one [`Detector`] serves all shards, owned by whoever coordinates them.

use super::{MachineRef, Micros, Reason, ServiceSpec};

/// What the detector wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the machine a probe by every means at hand (SYN to the service port, ICMP echo).
    Probe {
        /// Who.
        machine: MachineRef,
    },
    /// The machine is proved dead.
    Down {
        /// Who.
        machine: MachineRef,
        /// What raised the suspicion.
        reason: Reason,
        /// When it was raised.
        suspected_at: Micros,
    },
}

/// Watches the machines of all services.
#[derive(Debug)]
pub struct Detector {}

impl Detector {
    /// All machines count as up and as heard at `now`.
    #[must_use]
    pub fn new(services: &[ServiceSpec], now: Micros) -> Self {
        let _ = (services, now);
        Self {}
    }
    /// Evidence from a flow: starts a probe burst unless one runs.
    pub fn handle_suspect(&mut self, now: Micros, machine: MachineRef, reason: Reason) {
        let _ = (now, machine, reason);
    }
    /// Any packet from the machine, at the time it arrived.
    pub fn handle_heard(&mut self, at: Micros, machine: MachineRef) {
        let _ = (at, machine);
    }
    /// The machine was declared dead, evicted or disabled elsewhere: it is no longer watched.
    pub fn handle_down(&mut self, machine: MachineRef) {
        let _ = machine;
    }
    /// The machine was enabled again.
    pub fn handle_up(&mut self, now: Micros, machine: MachineRef) {
        let _ = (now, machine);
    }
    /// The next thing to do, if any is due; call until `None`.
    pub fn poll(&mut self, now: Micros) -> Option<Action> {
        let _ = now;
        None
    }
    /// When [`Detector::poll`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        None
    }
}
