//! The gate between what machines say and what the client is told: R4 (commitment), R5 (window), R6 (no false news), R8 (SACK).

use super::context::Context;
use super::flow::Flow;
use super::leg::Leg;
use super::pos::{Pos, span, ts_newer, ts_not_before};
use crate::mutant::{self, Mutation};
use crate::wire::{Editor, Parsed, Seq};

/// What one flow may buffer when the shard is short of memory (R5).
const SHORT_LIMIT: usize = 16 << 10;

/// An acknowledgement and a window for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The acknowledged position (u).
    pub ack: Pos,
    /// The right edge of the window (u), before it is quantised.
    pub edge: Pos,
}

impl Flow {
    /// The replicas that the client waits for.
    fn replicas(&self) -> impl Iterator<Item = &Leg> {
        let original = self.original;
        self.legs
            .iter()
            .enumerate()
            .filter(move |(i, l)| *i != original && l.counts() && !l.trails)
            .map(|(_, l)| l)
    }

    /// R4 and R5: what the client may be told now; never less than before (I5).
    #[must_use]
    pub fn offer(&self, cx: &Context) -> Offer {
        let slack = cx.slack(self.service);
        let original = self.original();
        if self.trial.vote.is_some_and(|vote| vote.reset) {
            // It has reset the connection, and its successor is not decided on (R11): nothing that it has taken counts any more.
            return Offer {
                ack: self.client.ack_out,
                edge: self.client.edge_out,
            };
        }
        let (mut ack, mut edge) = (original.acked(), original.sender.edge());
        for leg in self.replicas() {
            if !mutant::is(Mutation::CommitIgnoresReplicas) {
                ack = ack.min(leg.acked() + slack + Pos::from(mutant::is(Mutation::CommitOffByOne)));
            }
            if !mutant::is(Mutation::WindowIgnoresReplicas) {
                edge = edge.min(leg.sender.edge() + slack);
            }
        }
        if self.must_keep() {
            edge = edge.min(self.buffer.base() + span(self.buffer_limit(cx)));
        }
        if self.buffer.fin().is_some() {
            // The client has said that it has no more to send: nothing is gained by inviting it.
            edge = self.client.edge_out;
        }
        if mutant::is(Mutation::AckBackwards) {
            return Offer { ack: ack - 1, edge };
        }
        Offer {
            ack: ack.max(self.client.ack_out),
            edge: edge.max(self.client.edge_out),
        }
    }

    /// R5, R18: how many bytes above the lowest one kept the client is invited to send.
    #[must_use]
    pub fn buffer_limit(&self, cx: &Context) -> usize {
        let limit = cx.spec.limits.flow_buffer;
        if cx.budget.is_short() {
            limit.min(SHORT_LIMIT)
        } else {
            limit
        }
    }

    /// The window field that comes nearest to an edge, and the edge that it really says. Rounding may fall short of an edge told
    /// before by less than one unit of the scale; senders must bear that (RFC 7323 section 2.4).
    #[must_use]
    pub fn window_field(&self, offer: Offer) -> (u16, Pos) {
        let shift = self.promise.wscale.unwrap_or(0);
        let unit = if mutant::is(Mutation::WindowUnscaled) { 0 } else { shift };
        let units = (offer.edge - offer.ack).max(0) >> unit;
        let field = u16::try_from(units).unwrap_or(u16::MAX);
        (field, offer.ack + (Pos::from(field) << shift))
    }

    /// Notes what the client is being told.
    pub fn note_offer(&mut self, offer: Offer) -> u16 {
        let (field, edge) = self.window_field(offer);
        self.client.ack_out = offer.ack;
        self.client.edge_out = self.client.edge_out.max(edge);
        field
    }

    /// R6: whether a pure ACK of the original would tell the client anything. `repeats` says that the machine repeated itself: a
    /// duplicate acknowledgement, the answer to a probe. It passes unless it is clipped: then what it says about `u` would be
    /// read as if said about the clipped number.
    #[must_use]
    pub fn is_news(&self, offer: Offer, u: Pos, repeats: bool) -> bool {
        mutant::is(Mutation::FalseNews)
            || offer.ack > self.client.ack_out
            || self.window_field(offer).1 > self.client.edge_out
            || (repeats && u == offer.ack)
    }

    /// The TSval that leg `index` reaches the client with: `TSval_m + ts_off_m`, never backwards (RFC 7323 section 5).
    pub fn ts_to_client(&mut self, index: usize, val: u32) -> u32 {
        let leg = &mut self.legs[index];
        let offset = *leg.ts_offset.get_or_insert_with(|| {
            // Fixed when the machine first speaks to the client: its clock goes on where the last machine's had got to.
            self.client
                .ts_out
                .map_or(0, |out| out.wrapping_sub(leg.ts_latest.unwrap_or(val)))
        });
        let out = if mutant::is(Mutation::ClockBackwards) {
            val
        } else if mutant::is(Mutation::ClockOffsetSign) {
            ts_newer(self.client.ts_out, val.wrapping_sub(offset))
        } else {
            ts_newer(self.client.ts_out, val.wrapping_add(offset))
        };
        self.client.ts_out = Some(out);
        out
    }

    /// Remembers which TSval of the client is to be echoed on what the engine originates; never one that it has not sent.
    pub fn note_echo(&mut self, ecr: u32) {
        let latest = self.client.ts_latest.unwrap_or(ecr);
        let fresh = if ts_not_before(latest, ecr) { ecr } else { latest };
        self.client.ts_echo = ts_newer(Some(self.client.ts_echo), fresh);
    }

    /// R8: when the machine's ack `u` is clipped to `ack`, blocks at or below its own latest ack go: below the clipped number they
    /// meant "received twice" (RFC 2883), above it they would mean "received, but not what is before". The same holds for blocks
    /// at or below `ack` when it is the machine's packet that is late.
    pub fn clip_blocks(&self, ed: &mut Editor<'_>, p: &Parsed, u: Pos, ack: Pos) {
        if p.options.sack.is_empty() || u == ack || mutant::is(Mutation::BlocksNotClipped) {
            return;
        }
        let known = self.client_seq(self.original().acked().max(ack));
        ed.map_sack(|left, right| if left.le(known) { None } else { Some((left, right)) });
    }

    /// The client's blocks, sent with an acknowledgement of `v`, in leg `index`'s numbering: without what that machine has not sent,
    /// and without what it has been told as acknowledged since (there a block would mean "received twice", RFC 2883).
    pub fn map_blocks(&self, ed: &mut Editor<'_>, p: &Parsed, index: usize, v: Pos) {
        if p.options.sack.is_empty() || mutant::is(Mutation::BlocksUntranslated) {
            return;
        }
        let leg = &self.legs[index];
        let shift = leg.isn.0.wrapping_sub(self.promise.isn.0);
        let (sent, told) = (leg.seq_of(leg.sent), leg.seq_of(leg.told));
        let overtaken = leg.told > v;
        ed.map_sack(|left, right| {
            let (left, right): (Seq, Seq) = (left.add(shift), right.add(shift));
            (right.le(sent) && !(overtaken && left.lt(told))).then_some((left, right))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::leg::{LegState, Mode};
    use super::super::spec::{EngineSpec, MachineId, MaxLag, ServiceId};
    use super::super::tests::{client, psc, spec};
    use super::*;
    use crate::wire::{Flags, Options, Segment};
    use proptest::prelude::*;

    const NO_LIMIT: Pos = Pos::MAX / 4;

    fn context(max_lag: MaxLag) -> Context {
        let mut spec: EngineSpec = spec(3);
        spec.services[0].max_lag = max_lag;
        Context::new(spec)
    }

    /// A flow with an original and two replicas, all open.
    fn flow(cx: &Context) -> Flow {
        let syn = Segment {
            src: client(),
            dst: psc(),
            seq: Seq(u32::MAX),
            ack: Seq(0),
            flags: Flags::SYN,
            window: 1_000,
            urgent: 0,
            options: Options::default(),
            payload: (&[], &[]),
        };
        let mut bytes = vec![0; syn.len()];
        assert!(syn.write(&mut bytes));
        let p = Parsed::parse(&bytes).expect("what is built parses");
        let mut flow = Flow::for_syn(cx, 0, ServiceId(0), &p, client(), MachineId(0));
        for machine in 1..3 {
            let leg = Leg::new(MachineId(machine), Mode::Relayed, cx.rtt(ServiceId(0)), 0);
            flow.legs.push(leg);
        }
        flow.legs.iter_mut().for_each(|leg| leg.state = LegState::Open);
        flow
    }

    /// R4 and R5 as the design writes them: the minimum over all that count, and never backwards.
    fn by_the_book(legs: [(Pos, Pos, bool); 3], slack: Pos, told: Offer) -> Offer {
        let (mut ack, mut edge) = (legs[0].0, legs[0].1);
        for (acked, its_edge, _) in legs[1..].iter().filter(|leg| leg.2) {
            ack = ack.min(acked + slack);
            edge = edge.min(its_edge + slack);
        }
        Offer {
            ack: ack.max(told.ack),
            edge: edge.max(told.edge),
        }
    }

    #[test]
    fn the_offer_is_the_minimum_exhaustively() {
        for (max_lag, slack) in [
            (MaxLag::Bytes(0), 0),
            (MaxLag::Bytes(2), 2),
            (MaxLag::Unlimited, NO_LIMIT),
        ] {
            let cx = context(max_lag);
            // Each leg has acknowledged one to four, with a window of none or three, and counts or not; told was one to three.
            for code in 0..(8i64 * 8 * 8 * 4 * 3) {
                let leg = |at: i64| {
                    let digit = code >> (3 * at) & 7;
                    (1 + (digit & 3), 1 + (digit & 3) + 3 * (digit >> 2))
                };
                let counts = code >> 9 & 3;
                let told = 1 + (code >> 11);
                let legs = [(leg(0), true), (leg(1), counts & 1 == 0), (leg(2), counts & 2 == 0)]
                    .map(|((acked, edge), counts)| (acked, edge, counts));
                let mut flow = flow(&cx);
                for (leg, (acked, edge, counts)) in flow.legs.iter_mut().zip(legs) {
                    leg.sender.follow_ack(0, acked, edge);
                    if !counts {
                        leg.state = LegState::Gone;
                    }
                }
                let told = Offer { ack: told, edge: told };
                (flow.client.ack_out, flow.client.edge_out) = (told.ack, told.edge);
                assert_eq!(flow.offer(&cx), by_the_book(legs, slack, told), "{legs:?} {told:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_window_field_says_no_more_than_is_offered(
            shift in prop::option::of(0u8..15), ack in 0..1i64 << 40, window in -10i64..1 << 31,
        ) {
            let mut flow = flow(&context(MaxLag::Bytes(0)));
            flow.promise.wscale = shift;
            let unit = 1 << shift.unwrap_or(0);
            let (field, edge) = flow.window_field(Offer { ack, edge: ack + window });
            prop_assert_eq!(edge, ack + Pos::from(field) * unit, "what the client makes of it");
            prop_assert!(edge <= ack + window.max(0));
            prop_assert!(field == u16::MAX || ack + window.max(0) - edge < unit, "short by less than a unit");
        }

        #[test]
        fn what_the_client_is_told_never_runs_backwards(
            steps in prop::collection::vec((0usize..3, 1i64..100_000, 0i64..200_000, any::<bool>()), 1..40),
            shift in 0u8..15,
        ) {
            let cx = context(MaxLag::Bytes(0));
            let mut flow = flow(&cx);
            flow.promise.wscale = Some(shift);
            let mut told = (0, 0);
            for (leg, acked, window, gone) in steps {
                flow.legs[leg].sender.follow_ack(0, acked, acked + window);
                if gone && leg > 0 {
                    flow.legs[leg].state = LegState::Gone;
                }
                let offer = flow.offer(&cx);
                flow.note_offer(offer);
                let now = (flow.client.ack_out, flow.client.edge_out);
                prop_assert!(now.0 >= told.0 && now.1 >= told.1, "{:?} after {:?}", now, told);
                told = now;
            }
        }
    }
}
