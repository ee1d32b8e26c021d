//! R11, R14: the end of many connections tells of those that have not ended yet.
//!
//! A killed process leaves its connections to its kernel, which ends them one after the other; ten thousand of them take more than a tenth of a
//! second. Until its turn comes, a connection looks well: the kernel takes what the client asks, and nobody answers. The service's port may be
//! open as long, so that probes are accepted, too.
//!
//! So where a machine alone has ended `crash_ends` connections, and its service has not said a word in any other since, a request that a replica has answered and
//! it has not is no longer given the time that a slow service is: after the silence that raises a suspicion (`floor`) its flow moves to that
//! replica. Flow by flow, and only where a client would gain by it: the machine itself is judged by what its probes
//! show, and a service that lives on has lost nothing but a connection in which it was late.

use super::context::Context;
use super::flow::Flow;
use super::pos::words_end;
use super::spec::{MachineId, Micros, ServiceId};
use super::{Counter, Reason};
use crate::mutant::{self, Mutation};

/// The connections that a machine ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// So many alone, one soon after the other, since its service last said a word; and when the last was.
    flows: u32,
    last: Micros,
    /// When the coordinator was last told of one.
    told: Option<Micros>,
}

impl Context {
    fn ends(&mut self, service: ServiceId, machine: MachineId) -> &mut Ends {
        &mut self.ends[usize::from(service.0)][usize::from(machine.0)]
    }

    /// An original has ended a connection, and no replica says the same yet. What came before `probe_interval` is another story.
    pub fn note_end(&mut self, now: Micros, service: ServiceId, machine: MachineId) {
        let interval = self.service(service).detect.probe_interval;
        let ends = self.ends(service, machine);
        let before = if now <= ends.last + interval { ends.flows } else { 0 };
        (ends.flows, ends.last) = (before.saturating_add(1), now);
    }

    /// Its service has said a word, or a replica has ended the same connection: it works, or means what it does.
    pub fn note_word(&mut self, service: ServiceId, machine: MachineId) {
        self.ends(service, machine).flows = 0;
    }

    /// Whether it ends its connections, all of them as it seems, and works for none.
    pub fn is_crashing(&self, now: Micros, service: ServiceId, machine: MachineId) -> bool {
        let ends = &self.ends[usize::from(service.0)][usize::from(machine.0)];
        let detect = &self.service(service).detect;
        (ends.flows >= detect.crash_ends && now <= ends.last + detect.probe_interval)
            || mutant::is(Mutation::LeavesUnproven)
    }

    /// The original has ended a connection, and nobody says the same yet: its service may have crashed, with all its connections. A probe
    /// tells sooner than the vote. Connections that end are an everyday thing, so that is said once in `probe_interval`; but once more for an
    /// end, held back from `since` on, that has turned out to be a failure: what was asked before it says nothing about it.
    pub fn suspect_end(&mut self, now: Micros, since: Option<Micros>, service: ServiceId, machine: MachineId) {
        let interval = self.service(service).detect.probe_interval;
        let told = &mut self.ends(service, machine).told;
        if told.is_none_or(|told| now >= told + interval || since.is_some_and(|since| told < since)) {
            *told = Some(now);
            self.suspect(service, machine, Reason::Vote);
        }
    }
}

impl Flow {
    /// The original has been silent for long enough to be suspected. If its service is seen to crash, and the successor has said a word that it has not,
    /// the flow moves; returns whether it did.
    pub fn leaves_crash(&mut self, cx: &mut Context, now: Micros) -> bool {
        if !cx.is_crashing(now, self.service, self.original().machine) || self.outdone().is_none() {
            return false;
        }
        let said = self.original().sent;
        let heir = self
            .successor(cx)
            .filter(|i| self.is_fit(&self.legs[*i]) && words_end(self.legs[*i].sent, self.legs[*i].fin) > said);
        let Some(heir) = heir else { return false };
        cx.stats.count(Counter::CrashesLeft);
        self.switch(cx, now, heir);
        true
    }
}
