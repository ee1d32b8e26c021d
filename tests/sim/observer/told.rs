//! What the engine is told beside the packets: machines down, up and evicted, failovers and handovers, and so which machines
//! could have carried a flow.

use relevo::engine::Micros;

use super::Observer;
use crate::books::Flow;

impl Observer {
    /// The engine wants the machine evicted: its legs hold nobody up any more (R15).
    pub fn evicted(&mut self, m: usize) {
        for leg in self.flows.iter_mut().filter_map(|f| f.legs[m].as_mut()) {
            leg.evicted = true;
        }
    }

    /// The machine was told down or up.
    pub fn machine_told(&mut self, now: Micros, m: usize, down: bool) {
        if self.state[m].down == down {
            return;
        }
        (self.state[m].down, self.state[m].changed_at) = (down, now);
        self.state[m].ever_down |= down;
        if !down {
            return;
        }
        for flow in &mut self.flows {
            if let Some(leg) = &mut flow.legs[m] {
                leg.lost = true;
            }
            // Whoever is fastest speaks; which leg carries the client's packets is not to be seen from here.
            if flow.original == Some(m) || self.fastest {
                flow.original = None;
                flow.takeovers += 1;
                flow.switching = true;
            } else if flow.heir == Some(m) {
                // It may have moved there already, unheard.
                (flow.original, flow.heir) = (None, None);
                flow.takeovers += 1;
            }
        }
    }

    /// A failover was ordered: each flow may have another original now.
    pub fn failover(&mut self) {
        for flow in &mut self.flows {
            (flow.original, flow.heir) = (None, None);
            flow.takeovers += 1;
            flow.switching = true;
        }
    }

    /// A handover was ordered: each flow moves to machine `m` when that is level.
    pub fn hand_over(&mut self, m: usize) {
        for flow in self.flows.iter_mut().filter(|f| f.original != Some(m)) {
            flow.heir = Some(m);
            flow.takeovers += 1;
        }
    }

    /// Whether machine `m` was in service for the whole of flow `f`, and its stack runs.
    pub fn lived_through(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        !state.down && !state.frozen && !state.crashed && (!state.ever_down || state.changed_at <= flow.started_at)
    }

    /// Whether machine `m` could have carried the flow all along: it lived, and agrees to what the client was promised.
    pub fn could_carry(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        let able = !flow.refused && !state.refuses && (state.timestamps || flow.promise.is_none_or(|p| !p.timestamps));
        able && self.lived_through(m, flow)
    }
}
