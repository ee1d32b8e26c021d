//! R11, R14: the end of many connections tells of those that have not ended yet.
//!
//! A killed process leaves its connections to its kernel, which ends them one after the other; with ten thousand of them that takes a tenth of a
//! second, and as long again as it has other work. Until its turn comes, a connection looks well: the kernel takes what the client asks, nobody answers, and the service's port
//! is the last to be closed, so that probes are accepted, too. (Linux 6.18: the descriptors' last work is done in no order that anybody may count on.)
//!
//! So where a machine alone has ended [`MANY`] connections, and its service has not said a word in any other since, a request that a replica has answered and
//! it has not is no longer given the time that a slow service is: after the silence that raises a suspicion (`floor`) its flow moves to that
//! replica. Flow by flow, and only where a client would gain by it: the machine itself is judged by what its probes
//! show, and a service that lives on has lost nothing but a connection in which it was late.

use super::Counter;
use super::context::Context;
use super::flow::Flow;
use super::spec::{MachineId, Micros, ServiceId};

/// So many connections that end together are not each an end of its own. As many flows that fall silent together count for a probe (R14).
const MANY: u32 = 16;

/// The connections that a machine has ended alone, one soon after the other, since its service last said a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    flows: u32,
    last: Micros,
}

impl Context {
    fn ends(&mut self, service: ServiceId, machine: MachineId) -> Option<&mut Ends> {
        self.ends
            .get_mut(usize::from(service.0))?
            .get_mut(usize::from(machine.0))
    }

    /// An original has ended a connection, and no replica says the same yet. What came before `probe_interval` is another story.
    pub fn note_end(&mut self, now: Micros, service: ServiceId, machine: MachineId) {
        let interval = self.service(service).detect.probe_interval;
        if let Some(ends) = self.ends(service, machine) {
            let before = if now <= ends.last + interval { ends.flows } else { 0 };
            *ends = Ends {
                flows: before.saturating_add(1),
                last: now,
            };
        }
    }

    /// Its service has said a word, or a replica has ended the same connection: it works, or means what it does.
    pub fn note_word(&mut self, service: ServiceId, machine: MachineId) {
        if let Some(ends) = self.ends(service, machine) {
            ends.flows = 0;
        }
    }

    /// Whether it ends its connections, all of them as it seems, and works for none.
    pub fn is_crashing(&self, now: Micros, service: ServiceId, machine: MachineId) -> bool {
        let ends = self
            .ends
            .get(usize::from(service.0))
            .and_then(|of| of.get(usize::from(machine.0)));
        let interval = self.service(service).detect.probe_interval;
        ends.is_some_and(|ends| ends.flows >= MANY && now <= ends.last + interval)
    }
}

impl Flow {
    /// The original has been silent for long enough to be suspected. If its service is seen to crash, and the successor has said what it has not,
    /// the flow moves; returns whether it did.
    pub fn leaves_crash(&mut self, cx: &mut Context, now: Micros) -> bool {
        if !cx.is_crashing(now, self.service, self.original().machine) || !self.is_outdone() {
            return false;
        }
        let said = self.original().sent;
        let heir = self
            .successor(cx)
            .filter(|i| self.is_fit(&self.legs[*i]) && self.legs[*i].sent > said);
        let Some(heir) = heir else { return false };
        cx.stats.count(Counter::CrashesLeft);
        self.switch(cx, now, heir);
        true
    }
}
