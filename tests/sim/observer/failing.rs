//! What the engine holds against a machine whose stack is well, as it can be seen from outside: that its service crashes (R11), or hangs (R14).

use relevo::engine::{DetectSpec, Micros};

use super::Observer;
use crate::books::{Flow, Leg, Violation, ensure};
use crate::packet::{FIN, Packet, RST};

impl Observer {
    /// Takes note of what machine `m` has just said in flow `f`: whether it ends a connection, or its service works. `before` is its leg as it was.
    /// Where the engine is stricter, more is counted here.
    pub(super) fn note_life(&mut self, now: Micros, f: usize, m: usize, p: &Packet, before: (u64, bool, bool)) {
        let (sent, ended, gone) = before;
        let flow = &self.flows[f];
        let Some(leg) = &flow.legs[m] else { return };
        let state = &mut self.state[m];
        if p.len > 0 && leg.sent > sent && flow.original == Some(m) && flow.heirs.is_empty() {
            state.ends = 0;
        }
        state.ends += u32::from(leg.fin.is_some() && !ended) + u32::from(leg.gone && !gone);
        if p.has(FIN) || p.has(RST) {
            state.ended_at = now;
        }
    }

    /// So many flows have left a machine whose service crashes, as the engine says: it must have ended connections enough, and left unanswered what
    /// another has answered.
    pub fn left_crash(&mut self, now: Micros, many: u64, detect: &DetectSpec) -> Result<(), Violation> {
        let crashing = |m: usize| {
            let state = &self.state[m];
            state.ends >= detect.crash_ends && now <= state.ended_at + detect.probe_interval && !state.down
        };
        let crashing: Vec<bool> = (0..self.state.len()).map(crashing).collect();
        let leaves = |flow: &Flow| {
            (0..crashing.len()).any(|m| {
                let mute = |leg: &Leg| now >= leg.said_at.max(leg.moved_at) + detect.floor && is_outdone(flow, m, leg);
                crashing[m] && may_be_original(flow, m) && flow.legs[m].as_ref().is_some_and(mute)
            })
        };
        let left: Vec<usize> = (0..self.flows.len()).filter(|f| leaves(&self.flows[*f])).collect();
        ensure!(
            left.len() as u64 >= many,
            "R11",
            "{many} flows have left a crash, but {} have a reason to",
            left.len()
        );
        for f in &left {
            let flow = &mut self.flows[*f];
            flow.original = None;
            flow.takeovers += 1;
            // Where more had a reason to, it is not to be seen which of them moved.
            flow.switching |= left.len() as u64 == many;
        }
        Ok(())
    }

    /// Whether machine `m`, the original, has not done for so long what another machine's service has.
    pub fn hangs(&self, now: Micros, m: usize, hang: Micros) -> bool {
        self.flows.iter().any(|flow| {
            let stuck = |leg: &Leg| {
                // A window that takes half of what it has ever taken is open (RFC 9293 section 3.8.6.2.2).
                let closed = leg.edge.saturating_sub(flow.sent) < leg.largest.div_ceil(2);
                // A larger buffer is no work of a service's: it must have read more, too.
                let reads = |l: &Leg| l.edge > leg.edge && l.read() > leg.read();
                let deaf = closed && leg.fin.is_none() && others(flow, m).any(reads);
                // A client that does not read is none of its faults.
                let mute = flow.edge > leg.known && is_outdone(flow, m, leg);
                (mute && now >= leg.said_at + hang) || (deaf && now >= leg.widened_at + hang)
            };
            may_be_original(flow, m) && flow.legs[m].as_ref().is_some_and(stuck)
        })
    }
}

fn may_be_original(flow: &Flow, m: usize) -> bool {
    flow.original.is_none_or(|original| original == m) || flow.heirs.contains(&m) || flow.may_have_moved()
}

fn others(flow: &Flow, m: usize) -> impl Iterator<Item = &Leg> {
    let others = flow.legs.iter().enumerate().filter(move |(i, _)| *i != m);
    others.filter_map(|(_, l)| l.as_ref()).filter(|l| l.counts())
}

/// Whether another's service has said more, or two at least have answered the client's end, and its own has not ended. What it has said beyond the
/// client's window has to be said again, its end, too; what was lost on the way to the engine has been said.
fn is_outdone(flow: &Flow, m: usize, leg: &Leg) -> bool {
    let more = |end| others(flow, m).filter(move |l| l.words(end) > leg.known);
    !leg.fin_fits && (more(None).next().is_some() || more(flow.fin).count() > 1)
}
