//! The slow checks, made at each tick: whether all is over, and what should not last (I7, I8, R14); which flows nobody could
//! carry on, so that nothing is asked of them.

use relevo::engine::{Micros, SECOND, ShardStatus};

use super::World;
use crate::books::{Leg, Violation, ensure};
use crate::gateway::{Gateway, counters_add_up};

/// A frozen machine must be found out within this time, if another can take over.
const DETECTION: Micros = 15 * SECOND;

impl<G: Gateway> World<G> {
    /// Whether all is over; looks for what should not last.
    pub(super) fn tick(&mut self) -> Result<bool, Violation> {
        let status = self.engine.status();
        counters_add_up(&status, self.summary.packets, self.accepted).map_err(|text| Violation { rule: "I7", text })?;
        self.check_memory(&status)?;
        self.observer.note_originals(&status);
        if self.detector.is_some() {
            self.check_detection()?;
        }
        // What nobody could carry on need not end well, but it is not waited for.
        for id in 0..self.done.len() {
            let lost = self.connected[id] && !self.done[id] && self.now > self.scenario.heal && !self.has_survivor(id);
            if lost {
                self.excuse(id);
            }
        }
        for id in 0..self.done.len() {
            let open = self.connected[id] && !self.done[id] && self.now > self.scenario.heal;
            if open && (self.observer.is_at_limit(id) || self.observer.original_failed(self.now, id)) {
                self.meet_limit(id);
            }
        }
        for id in 0..self.done.len() {
            // A client whose reset was lost has gone without a word: nobody can know.
            let host = self.machines() + self.scenario.flows[id].client;
            let gone = self.hosts[host].client(id).is_some_and(|app| app.aborted);
            let heard = self.observer.flows.iter().any(|f| f.id == id && f.client_reset);
            if gone && !heard && !self.excused[id] && self.now > self.scenario.heal {
                self.excuse(id);
            }
        }
        let over = self.done.iter().all(|d| *d) && self.machines_are_done();
        if !over {
            return Ok(false);
        }
        let orphaned = (0..self.done.len()).any(|id| !self.has_survivor(id));
        let hung = self.observer.state.iter().any(|s| s.hung);
        if self.summary.excused + self.summary.limits > 0 || orphaned || hung {
            return Ok(true);
        }
        let flows: usize = status.services.iter().map(|s| s.flows).sum();
        Ok((flows == 0 && status.buffered_bytes == 0) || self.observer.are_held_by_failed(&status))
    }

    pub(super) fn check_memory(&self, status: &ShardStatus) -> Result<(), Violation> {
        let limit = self.scenario.limits.total_buffer;
        ensure!(
            status.buffered_bytes <= limit,
            "I8",
            "{} bytes buffered of {limit}",
            status.buffered_bytes
        );
        Ok(())
    }

    fn check_detection(&mut self) -> Result<(), Violation> {
        let well = (0..self.machines())
            .any(|m| !self.observer.state[m].down && self.frozen_at[m].is_none() && !self.scenario.machines[m].refuses);
        self.heir_since = well.then(|| self.heir_since.unwrap_or(self.now));
        let Some(heir_since) = self.heir_since else {
            return Ok(());
        };
        for m in 0..self.machines() {
            let unnoticed = self.frozen_at[m].filter(|_| !self.observer.state[m].down);
            // One that is told up again has to be found out again, and the last one is kept until there is another.
            if let Some(since) = unnoticed.map(|at| at.max(self.observer.state[m].changed_at).max(heir_since)) {
                ensure!(
                    self.now - since < DETECTION,
                    "R14",
                    "machine {m} has been frozen since {since} µs, unnoticed"
                );
            }
        }
        Ok(())
    }

    /// Whether each live machine's application has read all that it should have (I2).
    fn machines_are_done(&self) -> bool {
        self.unfinished().next().is_none()
    }

    /// The machines, and the flows, that a run is not over without: the application has not read all that it should (I2).
    pub(super) fn unfinished(&self) -> impl Iterator<Item = (usize, usize)> {
        let flows = self.observer.flows.iter().enumerate();
        flows.flat_map(move |(i, flow)| {
            // R21: a new flow on the same addresses ends what is left of the old one.
            let reused = self.observer.flows[i + 1..]
                .iter()
                .any(|other| other.client == flow.client);
            let asked = move |m: &usize| {
                self.observer.lived_through(*m, flow)
                    && !reused
                    && !self.excused[flow.id]
                    && !self.observer.original_failed(self.now, flow.id)
                    && flow.legs[*m].as_ref().is_some_and(Leg::should_finish)
                    && !flow.client_reset
                    && !flow.reset_to_client
                    && !self.scenario.machines[*m].refuses
            };
            let has_read = |m: usize| {
                let all = self.scripts[flow.id].up.len();
                self.hosts[m].progress(flow.id).is_some_and(|p| p.read == all && p.eof)
            };
            let machines = (0..self.machines()).filter(asked);
            machines.filter(move |m| !has_read(*m)).map(|m| (m, flow.id))
        })
    }

    /// A client's misfortune is none of the engine's if no machine lived through its flow.
    pub(super) fn excuse_or_fail(&mut self, host: usize, (flow, text): (usize, String)) -> Result<(), Violation> {
        if host < self.machines() {
            return Err(Violation { rule: "I2", text });
        }
        if !self.excused[flow] && self.observer.is_at_limit(flow) {
            self.meet_limit(flow);
        } else if !self.excused[flow] {
            ensure!(!self.has_survivor(flow), "I1", "{text}");
            self.excuse(flow);
        }
        Ok(())
    }

    pub(super) fn excuse(&mut self, flow: usize) {
        self.trace.note(self.now, || format!("flow {flow} has no survivor"));
        (self.done[flow], self.excused[flow]) = (true, true);
        self.summary.excused += 1;
    }

    pub(super) fn meet_limit(&mut self, flow: usize) {
        self.trace.note(self.now, || format!("flow {flow} meets a known limit"));
        (self.done[flow], self.excused[flow]) = (true, true);
        self.summary.limits += 1;
        self.observer.meet_limit(flow);
    }

    /// Whether some machine could have carried the flow from its start to now.
    pub(super) fn has_survivor(&self, id: usize) -> bool {
        let Some(flow) = self.observer.flows.iter().find(|f| f.id == id) else {
            return true;
        };
        (0..self.machines()).any(|m| self.observer.could_carry(m, flow))
    }
}
