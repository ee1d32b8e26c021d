//! R15, the first step: the client no longer waits for a replica that is behind. The replica *trails*: it is fed on out of the send
//! buffer (R24) and heard as before, and it counts again (R4, R5) once it is level, so that it holds nobody up by that.
//! What it lacks is kept, so a trailing replica can still take over; others are preferred.
//!
//! A replica that makes no progress while it trails, or for which the buffer has no room left, is out. A machine for which one flow has
//! stopped waiting is *slow*: its legs of new flows trail from their beginning, so that not each new client waits in its turn. It is
//! slow no more with the first leg that is level, or when one that makes no progress would be out.

use super::context::Context;
use super::flow::Flow;
use super::leg::Leg;
use super::pos::{Pos, span};
use super::spec::Micros;
use super::{Counter, Reason};

/// A trailing leg that has made no progress for so many times `replica_timeout` is given up, and its machine with it. More than the second
/// after which a lost question for a link-layer address is asked again, with the default of 200 ms.
pub const TRAIL_TIMEOUTS: u64 = 10;

/// How often a client waits for the same machine in vain. One that is late again and again costs `replica_timeout` each time, and is out.
const RELAPSES: u8 = 3;

impl Flow {
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
