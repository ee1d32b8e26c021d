//! R15, the first step: the client no longer waits for a replica that is behind. The replica *trails*: it is fed on out of the send
//! buffer (R24) and heard as before, and it counts again (R4, R5) once it is level, so that it holds nobody up by that.
//! What it lacks is kept, so a trailing replica can still take over; others are preferred.
//!
//! A replica that makes no progress while it trails, or for which the buffer has no room left, is out. A machine for which one flow has
//! stopped waiting is *slow*: its legs of new flows trail from their beginning, so that not each new client waits in its turn. It is
//! slow no more with the first leg that is level, or when one that makes no progress would be out.

use super::context::Context;
use super::flow::Flow;
use super::leg::{Leg, LegState};
use super::pos::{Pos, span};
use super::spec::{MachineRef, Micros};
use super::{Counter, Reason};

/// A trailing leg that has made no progress for so many times `replica_timeout` is given up, and its machine with it. More than the second
/// after which a lost question for a link-layer address is asked again, with the default of 200 ms.
pub const TRAIL_TIMEOUTS: u64 = 10;

/// How often a client waits for the same machine in vain. One that is late again and again costs `replica_timeout` each time, and is out.
const RELAPSES: u8 = 3;

/// What the legs of a flow are measured by: how far the original has come, and what the client could use.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// What the original has acknowledged (u).
    pub acked: Pos,
    /// The right edge of the original's window (u).
    edge: Pos,
    /// Windows of healthy machines differ a little, and a closed one is a machine's own fault only where the original's service reads.
    reads: bool,
    /// How much less than the original a leg may have (R4).
    slack: Pos,
    /// The end of what the client has sent (u).
    max: Pos,
    /// Where the send buffer begins (u), if it is full.
    full: Option<Pos>,
    /// The flow has ended.
    over: bool,
}

impl Measure {
    /// R15: whether the client could be told more, or could send more, without this leg; if it trails, it would hold the client up.
    #[must_use]
    pub fn is_held_up_by(&self, leg: &Leg) -> bool {
        let (acked, edge) = (leg.acked(), leg.sender.edge() + self.slack);
        acked + self.slack < self.acked
            || (self.reads && edge <= self.max && edge < self.edge)
            || self.full.is_some_and(|base| acked <= base && acked < self.acked)
    }
}

impl Flow {
    /// What its legs are measured by now.
    #[must_use]
    pub fn measure(&self, cx: &Context) -> Measure {
        let original = self.original();
        let (acked, edge) = (original.acked(), original.sender.edge());
        Measure {
            acked,
            edge,
            reads: edge - acked >= original.largest_window / 2,
            slack: cx.slack(self.service),
            max: self.client.max,
            full: self.buffer_is_full(cx).then(|| self.buffer.base()),
            over: self.is_over(),
        }
    }

    /// A leg that trails does so no more once it is level. A SYN/ACK is no sign of a service that works.
    pub fn end_trailing(&mut self, cx: &mut Context, measure: &Measure, index: usize) {
        let leg = &mut self.legs[index];
        if !leg.trails {
            return;
        }
        let done = leg.state == LegState::Finished || (measure.over && leg.is_open() && leg.acked() >= measure.acked);
        let level = leg.is_open() && !measure.is_held_up_by(leg) && leg.acked() > 1;
        if done || level {
            leg.trails = false;
            if !leg.unbound {
                let (service, machine) = (self.service, leg.machine);
                cx.set_slow(MachineRef { service, machine }, 0);
            }
        }
    }

    /// Whether the client can send no more because of what is kept for the slowest machine.
    pub fn buffer_is_full(&self, cx: &Context) -> bool {
        let limit = self.buffer.base() + span(self.buffer_limit(cx));
        self.buffer.is_crowded()
            || self.buffer.fin().is_none() && limit <= self.client.max + Pos::from(self.promise.mss)
    }

    /// How long a leg may hold up the client, or trail without progress, before something is done about it.
    pub fn patience_with(&self, cx: &Context, leg: &Leg) -> Micros {
        if leg.trails {
            self.patience_in_all(cx)
        } else {
            cx.service(self.service).replica_timeout
        }
    }

    /// How long a leg may be behind without progress before it is out.
    pub fn patience_in_all(&self, cx: &Context) -> Micros {
        let timeout = cx.service(self.service).replica_timeout;
        if self.buffer_is_full(cx) {
            timeout
        } else {
            timeout.saturating_mul(TRAIL_TIMEOUTS)
        }
    }

    /// R15: the patience with leg `index` is at its end. What the buffer still has room for costs the client nothing.
    pub fn lose_patience(&mut self, cx: &mut Context, now: Micros, index: usize) {
        let leg = &self.legs[index];
        if leg.trails || leg.relapses >= RELAPSES || self.buffer_is_full(cx) {
            self.abandon(cx, index);
        } else {
            self.legs[index].relapses += 1;
            cx.stats.count(Counter::LegsTrailed);
            cx.set_slow(self.machine_ref(index), now + self.patience_in_all(cx));
            self.legs[index].trails = true;
        }
    }

    /// R15: the leg is out, and its machine.
    pub fn abandon(&mut self, cx: &mut Context, index: usize) {
        cx.stats.count(Counter::LegsEvicted);
        self.drop_leg(index, &mut cx.budget);
        cx.evict(self.machine_ref(index), Reason::ReplicaTimeout);
    }
}
