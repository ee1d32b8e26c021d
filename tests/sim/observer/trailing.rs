//! R15 as it can be seen from outside: which replicas a client need not be made to wait for.
//!
//! A leg that is behind another, in what it has acknowledged or in a window that the client could use, and has made no progress for
//! `replica_timeout`, may trail until it is level. The engine is stricter (it looks at the original alone, and excuses who waits for
//! the client), so here nothing is asked of a leg that the engine lets trail, and a little less of some others.

use relevo::engine::Micros;

use super::Observer;
use crate::books::Flow;

/// For so many times `replica_timeout` a trailing leg may make no progress, and new clients need not wait for a machine that has trailed.
pub(super) const TRAIL_TIMEOUTS: u64 = 10;

impl Observer {
    /// Takes note of a leg that may just have been opened: one of a slow machine trails from its beginning.
    pub(super) fn note_opened(&mut self, now: Micros, f: usize, m: usize) {
        let others = (0..self.flows.len()).filter(|other| *other != f);
        others.for_each(|other| self.note_trailing(now, other));
        if let Some(leg) = &mut self.flows[f].legs[m]
            && leg.progress == (0, 0)
        {
            leg.progress = (leg.acked, leg.edge);
            leg.progress_at = now;
            leg.behind_since = Some(now);
            leg.trails = now < self.slow_until[m];
        }
    }

    /// Takes note, after something was heard and before something is judged, of who trails in flow `f`.
    pub(super) fn note_trailing(&mut self, now: Micros, f: usize) {
        let Some(lag) = self.max_lag else { return };
        for m in 0..self.flows[f].legs.len() {
            let flow = &self.flows[f];
            if flow.legs[m].is_none() {
                continue;
            }
            let behind = is_behind(flow, m, lag);
            let leg = self.flows[f].legs[m].as_mut().expect("just looked at");
            // Its patience may have ended before what was heard just now.
            let expired = |since: Micros| now >= since.max(leg.progress_at) + self.replica_timeout;
            leg.trails |= leg.behind_since.is_some_and(expired);
            if (leg.acked, leg.edge) != leg.progress {
                leg.progress = (leg.acked, leg.edge);
                leg.progress_at = now;
            }
            leg.behind_since = if behind { leg.behind_since.or(Some(now)) } else { None };
            // A SYN/ACK is no sign of a service that works.
            leg.trails &= behind || leg.acked <= 1;
            if leg.trails {
                self.slow_until[m] = now + TRAIL_TIMEOUTS * self.replica_timeout;
            }
        }
    }
}

/// Whether the client could be told more, or could send more, without machine `m`.
fn is_behind(flow: &Flow, m: usize, lag: u64) -> bool {
    let Some(leg) = &flow.legs[m] else { return false };
    let others = flow.legs.iter().flatten();
    let (acked, edge) = others.fold((0, 0), |(acked, edge), l| (l.acked.max(acked), l.edge.max(edge)));
    leg.isn.is_none() || leg.acked + lag < acked || (leg.edge + lag <= flow.sent && leg.edge + lag < edge)
}
