//! What no vote can mask (R11): the service of a flow's original ends or hangs, or its stack has forgotten the flow, and no machine has lived
//! through the flow that could say otherwise, or the original says nothing by which it could be seen (a hang without R14's `hang`, a
//! machine that has forgotten all and is asked nothing), or all who could are silent for as long as R11 waits for them. Such a flow is at a known limit: it is counted, and only its end is not asked; every
//! other check goes on.

use std::net::IpAddr;

use relevo::engine::{MachineStatus, Micros, SECOND, ShardStatus};

use super::trailing::TRAIL_TIMEOUTS;
use super::{Cause, Machine, Observer};
use crate::books::{Flow, Leg, cause_of, place};
use crate::packet::{FIN, Packet, RST};

/// An end that was lost is said again within that time, after a second and twice as long each time (RFC 6298 section 2).
const ENDS_SHOW: Micros = 8 * SECOND;

impl Observer {
    /// Where nobody knows better, what a service says by ending is passed on, or replayed by a takeover, as if it wished to: the flow is at its
    /// limit. But an end before what the client has been given is known to be none.
    pub(super) fn passes_an_end(&mut self, f: usize, p: &Packet, cause: Cause) -> bool {
        let (states, flow) = (&self.state, &mut self.flows[f]);
        let end = flow.promise.filter(|_| p.has(FIN)).map(|promise| {
            let start = place(p.seq, promise.isn, flow.told.sent);
            u64::try_from(start + i64::from(p.seq_len())).unwrap_or(0)
        });
        // Once its end has passed, whatever it does not know of is answered by a reset (R19).
        let resets = p.has(RST) && (flow.limit || matches!(cause, Cause::Machine(m) if states[m].failed(flow)));
        let of_failed = |end| {
            let said =
                |(leg, s): (&Option<Leg>, &Machine)| s.failed(flow) && leg.as_ref().is_some_and(|l| l.fin == Some(end));
            flow.legs.iter().zip(states).any(said)
        };
        let ends = end.is_some_and(|end| of_failed(end) && end < flow.whole && (flow.limit || end > flow.told.sent));
        if !(resets || ends) {
            return false;
        }
        flow.limit = true;
        flow.reset_to_client |= resets;
        // The client will acknowledge it.
        flow.told.sent = flow.told.sent.max(end.unwrap_or(0));
        true
    }

    /// R11: whether the end that `p` tells was said by an original that has failed, and all that could have gone on have not come so far, and have
    /// said nothing since, for as long as a trailing replica may make no progress (R15), or trail by now and lack something. They may hang, and the original is believed. A stack that
    /// has lost a packet may be as silent, where its retransmission timeout (RFC 6298 section 2.4: at least a second) is longer than that.
    pub(super) fn are_silent_on(&self, now: Micros, f: usize, p: &Packet) -> bool {
        let flow = &self.flows[f];
        if flow.limit {
            // After such an end, whatever the client does not know of is answered by a reset (R19).
            return true;
        }
        let Some(promise) = flow.promise.filter(|_| p.has(FIN)) else {
            return false;
        };
        let end = place(p.seq, promise.isn, flow.told.sent) + i64::from(p.seq_len());
        let patience = self.max_lag.map_or(1, |_| TRAIL_TIMEOUTS) * self.replica_timeout;
        let of_failed = |(leg, state): (&Option<Leg>, &Machine)| {
            let leg = leg.as_ref().filter(|l| l.fin.is_some_and(|fin| fin as i64 == end))?;
            state.failed(flow).then_some((leg.fin_at, leg.acked))
        };
        let Some((ended_at, acked)) = flow.legs.iter().zip(&self.state).find_map(of_failed) else {
            return false;
        };
        // A SYN/ACK is no sign of a service that works, if that was told what it may be told of what the client has said (R23).
        let told = |leg: &Leg| leg.told.sent > 1 || flow.sent <= 1 || cause_of(&flow.pieces, 1, 2) > leg.sent;
        let new = |leg: &Leg| leg.sent <= 1 && told(leg);
        let mute = |leg: &Leg| new(leg) || leg.said_at <= ended_at;
        let is_silent = |leg: &Leg| (leg.sent as i64) < end - 1 && mute(leg) && now >= ended_at + patience;
        // What is believed then may wait for a client that reads slowly.
        let was_silent = |leg: &Leg| {
            let until = ended_at + patience;
            leg.was_silent
                .iter()
                .any(|(from, to)| *from <= ended_at && until <= *to)
        };
        let silent = |leg: &Leg| is_silent(leg) || was_silent(leg);
        let trails = |leg: &Leg| leg.trails && ((leg.sent as i64) < end - 1 || leg.acked < acked);
        let mut able = (0..self.state.len()).filter(|m| self.could_carry(*m, flow));
        able.all(|m| flow.legs[m].as_ref().is_some_and(|l| silent(l) || trails(l)))
    }

    /// Whether the flow is at a known limit.
    pub fn is_at_limit(&self, id: usize) -> bool {
        self.flows.iter().any(|f| f.id == id && f.limit)
    }

    /// Whether the connection that a client has had last is at a known limit.
    pub fn client_is_at_limit(&self, client: (IpAddr, u16)) -> bool {
        self.flows.iter().rfind(|f| f.client == client).is_some_and(|f| f.limit)
    }

    /// Whether the service of machine `m` has ended in a client's connection after `offset` bytes, or its original has, which is taken at
    /// its word.
    pub fn ended_early(&self, client: (IpAddr, u16), m: usize, offset: u64) -> bool {
        self.flows.iter().rfind(|f| f.client == client).is_some_and(|f| {
            let fin = f.legs[m].as_ref().and_then(|leg| leg.fin);
            f.limit || (self.state[m].failed(f) && fin == Some(offset + 2))
        })
    }

    /// Whether the service of machine `m` has ended, or hangs, in a client's connection.
    pub fn has_failed(&self, client: (IpAddr, u16), m: usize) -> bool {
        let flow = self.flows.iter().rfind(|f| f.client == client);
        flow.is_some_and(|f| self.state[m].failed(f))
    }

    /// Whether all flows that the engine still has are of originals that have failed. One that has forgotten a connection whose last acknowledgement
    /// was lost says nothing of it any more, and the client has long been done.
    pub fn are_held_by_failed(&self, status: &ShardStatus) -> bool {
        let failed = |(state, _): &(&Machine, &MachineStatus)| state.died_at.is_some();
        status.services.iter().all(|s| {
            let of_failed = self.state.iter().zip(&s.machines).filter(failed);
            s.flows > 0 && s.flows <= of_failed.map(|(_, m)| m.original_of).sum()
        })
    }

    /// The flow, by its script, is at a known limit.
    pub fn meet_limit(&mut self, id: usize) {
        for flow in self.flows.iter_mut().filter(|f| f.id == id) {
            flow.limit = true;
        }
    }

    /// What the engine says of who is original.
    pub fn note_originals(&mut self, status: &ShardStatus) {
        for (state, m) in self
            .state
            .iter_mut()
            .zip(status.services.iter().flat_map(|s| &s.machines))
        {
            state.is_original = m.original_of > 0;
        }
    }

    /// R14: whether machine `m` at worst hangs, which is seen where a machine that does not has more to say than an end of its own accord.
    fn sees_hang(&self, flow: &Flow, m: usize) -> bool {
        let ended = self.state[m].died_at.is_some_and(|at| at >= flow.started_at);
        // Nor does an end say anything, be it an answer to the client's, where another that could answer it may be silent for ever, or where there is
        // but one other.
        let others = || (0..self.state.len()).filter(|i| *i != m);
        let able = others().filter(|i| self.could_carry(*i, flow)).count();
        let ends_count = flow.fin.is_some() && able > 1 && !others().any(|i| self.state[i].failed(flow));
        let all_said = |leg: &Leg| leg.fin.is_some() || (!ends_count && leg.sent + 1 >= flow.whole);
        let all_said = flow.legs[m].as_ref().is_some_and(all_said);
        self.judges_hangs && !ended && !all_said && (0..self.state.len()).any(|i| self.could_carry(i, flow))
    }

    /// Whether machine `m`'s service has ended so lately that its end may yet be heard, however often it was lost, and be voted on for as long as a trailing
    /// replica may make no progress (R11, R15).
    fn may_yet_show(&self, now: Micros, m: usize) -> bool {
        let patience = ENDS_SHOW + TRAIL_TIMEOUTS * self.replica_timeout;
        self.state[m].died_at.is_some_and(|at| now < at + patience)
    }

    /// Whether the flow's original, or who may be it, has a service that hangs or that ended in the flow's time, and the engine may not know.
    pub fn original_failed(&self, now: Micros, id: usize) -> bool {
        let failed = |flow: &Flow, m: usize| {
            let state = &self.state[m];
            state.failed(flow) && !state.down && !self.sees_hang(flow, m) && !self.may_yet_show(now, m)
        };
        // Who is original after a takeover, and of the fastest, only the engine can say.
        let any = |f: &Flow| (0..self.state.len()).any(|m| self.state[m].is_original && failed(f, m));
        let heir = |f: &Flow| f.heirs.iter().any(|m| self.state[*m].is_original && failed(f, *m));
        // Nor can a vote be seen before its heir speaks.
        let who =
            |f: &Flow| f.original.map_or_else(|| any(f), |m| failed(f, m)) || heir(f) || (f.may_have_moved() && any(f));
        self.flows.iter().find(|f| f.id == id).is_some_and(who)
    }
}
