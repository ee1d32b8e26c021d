//! What must hold when the engine rests after a takeover: the client has been sent what the others had said (R9).

use super::Observer;
use crate::books::{Violation, ensure};

impl Observer {
    /// R9, but for FINs, which may have to wait for a vote (R11): what every machine that could take over had said by then, the client has been sent when the engine rests. A machine that
    /// the engine does not think fit for reasons of its own (R23) can only lower what all have said.
    pub fn check_replayed(&mut self) -> Result<(), Violation> {
        let limit = self.cache_limit;
        let states = &self.state;
        for flow in self.flows.iter_mut() {
            if !std::mem::take(&mut flow.switching) {
                continue;
            }
            let Some(promise) = flow.promise.filter(|_| flow.proved && !flow.finished()) else {
                continue;
            };
            if flow.reset_to_client || flow.refused || flow.limit {
                continue;
            }
            let heirs = flow
                .legs
                .iter()
                .zip(states)
                .filter_map(|(l, s)| l.as_ref().filter(|_| !s.down));
            let heirs = heirs.filter(|l| l.counts() && !l.gone && l.agrees(promise));
            let Some(said) = heirs
                .chain(flow.heirs_on_trial())
                .map(|l| l.skipped_at.unwrap_or(l.whole).min(l.whole) - u64::from(l.fin.is_some()))
                .min()
            else {
                continue;
            };
            let said = said.min(flow.sure_edge);
            ensure!(
                said <= flow.told.sent || said > flow.acked + limit,
                "R9",
                "every machine has said up to {said}, but after the takeover the client has only {}",
                flow.told.sent
            );
        }
        Ok(())
    }
}
