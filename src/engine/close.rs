//! R10 (close) and R24 (played to the end): how a flow and its legs come to their end.

use super::Counter;
use super::context::{Answer, Context};
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::outbox::Outbox;
use super::pos::Pos;
use super::spec::Micros;
use crate::wire::Flags;

impl Flow {
    /// A RST of the client or the original ends the conversation between the two; replicas still get what the client had sent.
    pub fn end_by_reset(&mut self, cx: &mut Context, now: Micros) {
        self.state = FlowState::Reset { at: now };
        let original = self.original;
        if self.legs[original].mode == Mode::Direct {
            self.drop_leg(original, &mut cx.budget);
        }
        for leg in &mut self.legs {
            leg.cache.release(&mut cx.budget);
            leg.progress_at = now;
        }
        if let Some(mut compare) = self.compare.take() {
            compare.release(&mut cx.budget);
        }
    }

    /// Looks which of the flow and its legs have come to their end.
    pub fn advance_close(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        match self.state {
            FlowState::Open => {
                self.finish_followers();
                self.close_in_order(now);
            }
            FlowState::Closed { .. } => self.finish_legs(cx, now, out),
            FlowState::Reset { .. } => self.abort_legs(cx, now, out),
            FlowState::SynSent | FlowState::SynReceived => {}
        }
    }

    fn close_in_order(&mut self, now: Micros) {
        let client_done = self.buffer.fin().is_some_and(|fin| self.client.ack_out > fin);
        // The original's own may be held (R11), and others may have said more (R16, `fastest`).
        let server_done = self.fin.is_some_and(|fin| self.client.acked > fin);
        if client_done && server_done {
            self.state = FlowState::Closed { at: now };
            for leg in &mut self.legs {
                leg.progress_at = now;
            }
        }
    }

    /// The client was sent a FIN at `fin`. What a machine has sent at the end of the conversation can only be its FIN, even if that packet
    /// was lost: the client has another machine's, so this one will not be asked to repeat it. But one that has sent more than that says
    /// something of another length (R17), and ends elsewhere.
    pub fn note_fin(&mut self, fin: Pos) {
        self.fin = Some(fin);
        let ended = |leg: &&mut Leg| leg.sent == fin + 1 && leg.cache.next() <= fin;
        for leg in self.legs.iter_mut().filter(ended) {
            leg.fin = leg.fin.or(Some(fin));
        }
    }

    /// A leg is done when the machine has acknowledged the client's FIN and its own FIN has been acknowledged.
    pub fn finish_followers(&mut self) {
        let fin = self.buffer.fin();
        for leg in &mut self.legs {
            let heard_all = fin.is_some_and(|fin| leg.acked() > fin);
            let said_all = leg.fin.is_some_and(|fin| leg.told > fin);
            if leg.is_open() && heard_all && said_all {
                // Its machine may forget the connection now; whatever it says of it from here on is no news. The original, too: a
                // client that still waits for a replica's acknowledgement repeats its FIN, and must not meet a machine that has forgotten.
                leg.state = LegState::Finished;
                leg.sender.hand_back();
            }
        }
    }

    fn finish_legs(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        self.finish_followers();
        for index in 0..self.legs.len() {
            let leg = &self.legs[index];
            let late = now >= leg.progress_at + cx.spec.limits.close_timeout;
            if leg.counts() && leg.mode == Mode::Relayed && late {
                cx.stats.count(Counter::LegsReset);
                self.reset_leg(cx, index, out);
            }
        }
    }

    /// After a RST, a replica is reset once it has all that the client had sent (R24), or makes no progress.
    fn abort_legs(&mut self, cx: &mut Context, now: Micros, out: &mut Outbox) {
        for index in 0..self.legs.len() {
            let leg = &self.legs[index];
            if !leg.counts() || leg.mode != Mode::Relayed {
                continue;
            }
            let heard_all = leg.is_open() && leg.acked() >= self.buffer.end();
            let late = now >= leg.progress_at + cx.spec.limits.close_timeout;
            if heard_all || late {
                if !heard_all {
                    cx.stats.count(Counter::LegsReset);
                }
                self.reset_leg(cx, index, out);
            }
        }
    }

    /// Tells all legs that still count that it is over: the client's addresses are used anew (R21), or the flow is given up.
    pub fn answer_resets(&self, cx: &mut Context) {
        for leg in self.legs.iter().filter(|l| l.counts()) {
            if leg.mode == Mode::Direct && self.is_over() {
                continue;
            }
            cx.answer(Answer {
                src: self.peer,
                dst: cx.machine(self.service, leg.machine).addr,
                seq: self.client_seq(leg.acked()),
                ack: leg.seq_of(leg.told),
                flags: Flags::RST | Flags::ACK,
            });
        }
    }

    /// Whether a leg that the engine speaks to is not done yet.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        self.legs.iter().any(|l| l.counts() && l.mode == Mode::Relayed)
    }

    /// Whether the flow can be forgotten.
    #[must_use]
    pub fn is_forgettable(&self, cx: &Context, now: Micros) -> bool {
        let limits = &cx.spec.limits;
        let pending = self.has_followers();
        match self.state {
            FlowState::SynSent | FlowState::SynReceived => now >= self.since + limits.half_open_timeout,
            FlowState::Open => now >= self.seen_at + limits.idle_timeout,
            FlowState::Closed { at } => !pending && now >= at + limits.time_wait,
            FlowState::Reset { .. } => !pending,
        }
    }
}
