//! Whether a machine's service listens, and works: what its host's answers can't hide.

use crate::engine::spec::Micros;

/// Probes that a service has refused in a row.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// When the first of them was sent.
    pub since: Micros,
    /// How many.
    pub count: u32,
}

/// What is known of a machine's service, apart from its host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    /// It was found to hang, and nobody has been told yet.
    hangs: Option<Micros>,
    refusal: Option<Refusal>,
    /// When the last probe that it has accepted was sent.
    accepted_at: Option<Micros>,
    /// When it is to be asked whether it listens, whatever else was heard of the machine.
    ask_at: Option<Micros>,
}

impl Service {
    /// It has accepted a probe that was sent then. One that was sent before another which it has refused says nothing about now.
    pub fn accepted(&mut self, sent: Micros) {
        if self.refusal.is_none_or(|refusal| refusal.since <= sent) {
            (self.accepted_at, self.refusal, self.ask_at) = (Some(sent), None, None);
        }
    }

    /// Its host has refused a probe, sent then, because nobody listens. Returns what is held against it by now.
    pub fn refused(&mut self, sent: Micros) -> Refusal {
        let refusal = self.refusal.get_or_insert(Refusal { since: sent, count: 0 });
        refusal.count = refusal.count.saturating_add(1);
        *refusal
    }

    /// It is to be asked (again) whether it listens.
    pub fn ask(&mut self, at: Micros) {
        self.ask_at = Some(at);
    }

    /// The question is due: it is asked now, and again `later` if it has refused, for an answer that gets lost must not end the asking.
    pub fn takes_question(&mut self, now: Micros, later: Micros) -> bool {
        if self.ask_at.is_none_or(|at| at > now) {
            return false;
        }
        self.ask_at = self.refusal.map(|_| later);
        true
    }

    /// When it is to be asked.
    pub fn asks_at(&self) -> Option<Micros> {
        self.ask_at
    }

    /// It has refused, and not accepted since.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// It has accepted a probe that was sent since then, and refused none after that.
    pub fn accepts_since(&self, then: Micros) -> bool {
        self.refusal.is_none() && self.accepted_at.is_some_and(|at| at >= then)
    }

    /// A flow has seen it hang.
    pub fn hangs(&mut self, now: Micros) {
        self.hangs = self.hangs.or(Some(now));
    }

    /// Since when it hangs, told once.
    pub fn take_hang(&mut self) -> Option<Micros> {
        self.hangs.take()
    }
}
