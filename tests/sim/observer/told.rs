//! What the engine is told beside the packets: machines down, up and evicted, failovers and handovers, and so which machines
//! could have carried a flow.

use relevo::engine::Micros;

use super::Observer;
use crate::books::{Flow, Leg, Promise, place};
use crate::packet::Packet;

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
            } else if flow.heirs.contains(&m) {
                // It may have moved there already, unheard. Who is dead is no heir any more.
                flow.original = None;
                flow.heirs.retain(|heir| *heir != m);
                flow.takeovers += 1;
            } else if flow.original.is_none() {
                // A failover may have made it the original without a word of its own to the client.
                flow.takeovers += 1;
            }
        }
    }

    /// A failover to machine `to` was ordered: each flow may have another original now. But none moves to a machine that has reset it (R13), or
    /// has not opened it as the client was promised; and where the original itself has reset it, a vote is still open (R11): what the others have said
    /// waits for its end.
    pub fn failover(&mut self, to: usize) {
        for flow in &mut self.flows {
            flow.original = None;
            flow.heirs.clear();
            flow.takeovers += 1;
            let promise = flow.promise;
            let able = |leg: &Leg| !leg.gone && promise.is_some_and(|promise| leg.agrees(promise));
            flow.switching |= flow.legs[to].as_ref().is_some_and(able);
        }
    }

    /// No handover is waited for any more.
    pub fn end_hand_over(&mut self) {
        for flow in &mut self.flows {
            flow.settled = true;
        }
    }

    /// A handover was ordered: each flow moves to machine `m` when that is level.
    pub fn hand_over(&mut self, m: usize) {
        for flow in &mut self.flows {
            if flow.original == Some(m) && flow.heirs.is_empty() {
                continue;
            }
            flow.takeovers += 1;
            flow.settled = false;
            // Of the fastest it can't be said who is the original, before or after.
            // The same plan again, before it was carried out, is one move.
            if !self.fastest && flow.heirs.last() != Some(&m) {
                if !flow.heirs.contains(&m) {
                    flow.legs[m].iter_mut().for_each(|leg| leg.levelled = false);
                }
                flow.heirs.push(m);
                flow.note_level();
            }
        }
    }

    /// Some of machine `m`'s output, in the flow that `p` belongs to, did not fit the engine's memory.
    pub fn skipped(&mut self, m: usize, p: &Packet) {
        if let Some(f) = self.by_peer(m, p.dst, p.dport)
            && let Some(leg) = &mut self.flows[f].legs[m]
            && let Some(isn) = leg.isn
        {
            let start = u64::try_from(place(p.seq, isn, leg.sent)).unwrap_or(0);
            leg.skipped_at = Some(leg.skipped_at.unwrap_or(start).min(start));
        }
    }

    /// Whether machine `m` was in service for the whole of flow `f`, and its stack runs.
    pub fn lived_through(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        // One that has lost the flow never has it again (R13), even if it was back at once.
        let lost = flow.legs[m].as_ref().is_some_and(|l| l.lost);
        !lost
            && !state.down
            && !state.frozen
            && !state.failed(flow)
            && (!state.ever_down || state.changed_at <= flow.started_at)
    }

    /// Whether machine `m` could have carried the flow all along: it lived, agrees to what the client was promised, and its wait for
    /// its own output was not given up (R23). An original that speaks goes on speaking.
    pub fn could_carry(&self, m: usize, flow: &Flow) -> bool {
        let state = &self.state[m];
        let agrees = |p: Promise| {
            (state.timestamps || !p.timestamps) && (state.sack || !p.sack) && (state.scaling || p.scale.is_none())
        };
        let released = flow.original != Some(m) && flow.legs[m].as_ref().is_some_and(|l| l.released);
        let able = !flow.refused && !state.refuses && !released && flow.promise.is_none_or(agrees);
        able && self.lived_through(m, flow)
    }
}
