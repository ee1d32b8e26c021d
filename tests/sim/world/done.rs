//! The slow checks, made at each tick: whether all is over, and what should not last (I7, I8, R14); which flows nobody could
//! carry on, so that nothing is asked of them.

use relevo::engine::{Micros, SECOND};

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
        let limit = self.scenario.limits.total_buffer;
        ensure!(
            status.buffered_bytes <= limit,
            "I8",
            "{} bytes buffered of {limit}",
            status.buffered_bytes
        );
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
        if self.summary.excused > 0 || orphaned {
            return Ok(true);
        }
        let flows: usize = status.services.iter().map(|s| s.flows).sum();
        Ok(flows == 0 && status.buffered_bytes == 0)
    }

    fn check_detection(&mut self) -> Result<(), Violation> {
        let well = (0..self.machines())
            .map(|m| (&self.observer.state[m], self.frozen_at[m], &self.scenario.machines[m]))
            .any(|(state, frozen, spec)| !state.down && !state.crashed && frozen.is_none() && !spec.refuses);
        for m in 0..self.machines() {
            let unnoticed = self.frozen_at[m].filter(|_| well && !self.observer.state[m].down);
            if let Some(since) = unnoticed {
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
        let flows = &self.observer.flows;
        flows.iter().enumerate().all(|(i, flow)| {
            // R21: a new flow on the same addresses ends what is left of the old one.
            let reused = flows[i + 1..].iter().any(|other| other.client == flow.client);
            (0..self.machines()).all(|m| {
                let asked = self.observer.lived_through(m, flow)
                    && !reused
                    && !self.excused[flow.id]
                    && flow.legs[m].as_ref().is_some_and(Leg::should_finish)
                    && !flow.client_reset
                    && !flow.reset_to_client
                    && !self.scenario.machines[m].refuses;
                let script = &self.scripts[flow.id];
                !asked
                    || self.hosts[m]
                        .progress(flow.id)
                        .is_some_and(|p| p.read == script.up.len() && p.eof)
            })
        })
    }

    /// A client's misfortune is none of the engine's if no machine lived through its flow.
    pub(super) fn excuse_or_fail(&mut self, host: usize, (flow, text): (usize, String)) -> Result<(), Violation> {
        if host < self.machines() {
            return Err(Violation { rule: "I2", text });
        }
        if !self.excused[flow] {
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

    /// Whether some machine could have carried the flow from its start to now.
    pub(super) fn has_survivor(&self, id: usize) -> bool {
        let Some(flow) = self.observer.flows.iter().find(|f| f.id == id) else {
            return true;
        };
        (0..self.machines()).any(|m| self.observer.could_carry(m, flow))
    }
}
