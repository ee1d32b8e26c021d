//! What is told of replicas that say something else (R17): of the odd one only, and of each connection that it followed.

use std::net::IpAddr;

use relevo::engine::{Counter, Difference, MachineRef};

use super::World;
use crate::app::Oddity;
use crate::books::{Violation, ensure};
use crate::gateway::Gateway;

impl<G: Gateway> World<G> {
    /// R17: a difference is told only of the machine that is odd, and not before the byte that is.
    pub(super) fn note_difference(&mut self, machine: MachineRef, difference: &Difference) -> Result<(), Violation> {
        let m = usize::from(machine.machine.0);
        let odd = self.scenario.machines[m].odd;
        let explained = odd.is_some_and(|odd| match odd.what {
            Oddity::Other => difference.offset == odd.at as u64 && !difference.length,
            // What follows may be the same byte again.
            Oddity::Shorter | Oddity::Longer => difference.offset >= odd.at as u64,
        });
        let client = (difference.client.ip(), difference.client.port());
        // A service that has ended early is shorter indeed, by all that it had yet to say.
        let ended = difference.length
            && (self.observer.ended_early(client, m, difference.offset)
            // Where nobody fit was there to ask, an original is believed that has ended too early (R11).
            || self.observer.has_failed(client, usize::from(difference.original.0)));
        ensure!(
            explained || ended,
            "R17",
            "machine {m} is said to differ: {difference:?}, but is {odd:?}"
        );
        self.differing.push(client);
        Ok(())
    }

    /// R17: where the odd one followed a connection to its end, in which everything could be compared, its difference was seen.
    pub(super) fn check_differences(&self) -> Result<(), Violation> {
        let status = self.engine.status();
        let stats = &status.stats;
        // A run that nobody can bring to its end is cut short: what is still followed then may have more to say.
        let cut_short = status.services.iter().any(|s| s.flows > 0);
        if stats.get(Counter::Takeovers) > 0 || stats.get(Counter::Uncompared) > 0 {
            return Ok(());
        }
        for (m, odd) in self.scenario.machines.iter().enumerate() {
            let Some(odd) = odd.odd else { continue };
            let flows = self.observer.flows.iter();
            let followed = flows.filter(|flow| {
                let whole = flow.legs[m].as_ref().is_some_and(|leg| {
                    let said_all = leg.fin.is_some_and(|fin| leg.whole >= fin);
                    !leg.evicted && !leg.lost && (said_all || !cut_short)
                });
                whole
                    && self.observer.lived_through(m, flow)
                    && !flow.client_reset
                    && !flow.reset_to_client
                    && !self.excused[flow.id]
                    && odd.at < self.scripts[flow.id].down.len()
            });
            for flow in followed {
                let same = |client: &&(IpAddr, u16)| **client == flow.client;
                // Where a client comes again from the same port, the old connection may not have been played to its end (R21).
                let reused = self.observer.flows.iter().filter(|f| f.client == flow.client).count() > 1;
                let seen = self.differing.iter().filter(same).count();
                ensure!(
                    seen > 0 || reused,
                    "R17",
                    "machine {m} differs in flow {}, unseen: {odd:?}",
                    flow.id
                );
            }
        }
        Ok(())
    }
}
