//! R17 (divergence): what each machine says, against what the client was given, by position, whatever the segmentation.
//!
//! On its way to the client the original's output is copied once, into a stream of its own; a replica's is in its output cache (R9),
//! which for this purpose keeps also what the client has acknowledged, as long as it has not been compared. The two are compared in
//! the pump, after all verdicts. Of the original's output only what the slowest live leg has yet to say is kept, within the limit
//! of a flow's buffer and the shard's budget (R18), until the flow rests, and not where the shard is short of memory: a replica may
//! acknowledge all and say nothing for ever. What is given up so is not compared, and that is counted.
//!
//! With three machines or more the majority is right. An original that is outvoted has had its bytes sent on already, for they are
//! never delayed (R4): it is counted and told; the flow can't be moved back to before them.

mod excerpt;
mod find;
mod given;
mod majority;

use super::Counter;
use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState};
use super::pack::Packer;
use super::pos::{Pos, words_end};
use super::stream::{Budget, Stream};

pub use excerpt::{Difference, Excerpt};

/// The comparison of one flow's legs, made when there is first something to compare.
#[derive(Debug, Default)]
pub struct Compare {
    /// What the client was given.
    given: Stream,
    /// Below this, `given` may hold the words of an earlier original.
    own_from: Pos,
    /// By index of the flow's legs: a leg is added only while the client has not proved itself (R1), when nothing is compared yet.
    sides: Vec<Side>,
}

/// One leg's part.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Everything below has been compared, or never will be.
    compared: Pos,
    /// Where what was last passed over without being compared ends.
    skipped_to: Pos,
    first: Option<First>,
}

/// Where a leg first differed.
#[derive(Clone, Copy, Debug, Default)]
struct First {
    at: Pos,
    /// What it said there; `None` is its end.
    byte: Option<u8>,
    /// Its output is known to be of another length.
    length: bool,
    /// It has been decided whose fault it is.
    judged: bool,
}

impl Compare {
    fn new(start: Pos, legs: usize) -> Self {
        let side = Side {
            compared: start,
            skipped_to: start,
            first: None,
        };
        Self {
            given: Stream::new(start),
            own_from: start,
            sides: vec![side; legs],
        }
    }

    /// Nothing is kept to be compared.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.given.is_at_rest()
    }
    /// All that it consists of at rest (`park`). Positions are likely to be near `near`.
    pub fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self { given, own_from, sides } = self;
        given.pack(p, near);
        p.pos(own_from, near);
        let mut count = sides.len();
        p.count(&mut count);
        sides.reserve_exact(count.saturating_sub(sides.len()));
        sides.resize_with(count, Side::default);
        for side in sides {
            side.pack(p, near);
        }
    }

    /// Bytes of memory in buffers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.given.capacity()
    }

    /// Gives the buffer's memory back.
    pub fn release(&mut self, budget: &mut Budget) {
        self.given.release(budget);
    }
}

impl Side {
    fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self {
            compared,
            skipped_to,
            first,
        } = self;
        p.pos(compared, near);
        p.pos(skipped_to, *compared);
        p.option(first, |p, first: &mut First| {
            let First {
                at,
                byte,
                length,
                judged,
            } = first;
            p.pos(at, near);
            p.option(byte, Packer::small);
            p.flags([length, judged]);
        });
    }

    fn is_of_other_length(&self) -> bool {
        self.first.is_some_and(|first| first.length)
    }

    fn skip_to(&mut self, to: Pos, cx: &mut Context) {
        if to > self.compared {
            // The positions of a leg of another length are not the client's: nothing could be compared there.
            if !self.is_of_other_length() {
                cx.stats
                    .add_to(Counter::Uncompared, (to - self.compared).unsigned_abs());
            }
            self.compared = to;
            self.skipped_to = to;
        }
    }
}

impl Flow {
    /// Another leg takes the place of leg `old` (R12): what the client has had so far were the old one's words.
    pub fn note_switch(&mut self, old: usize) {
        let given = words_end(self.client.sent, self.fin);
        // What was lost on the way here is still to be said, and compared.
        let sent = words_end(self.legs[old].sent, self.legs[old].fin).min(given);
        let Some(compare) = &mut self.compare else { return };
        let side = &mut compare.sides[old];
        // What it had yet to say of one before it will not be compared with that any more.
        let others = compare.own_from.min(sent);
        if others > side.compared {
            side.skipped_to = others;
        }
        side.compared = side.compared.max(sent);
        compare.own_from = given;
    }

    /// How far leg `index`'s output cache may be emptied when the client has acknowledged `acked`.
    #[must_use]
    pub fn cache_floor(&self, index: usize, acked: Pos) -> Pos {
        match &self.compare {
            Some(compare) => self.cache_floor_of(compare, index, acked),
            None => words_end(acked, self.fin),
        }
    }

    fn cache_floor_of(&self, compare: &Compare, index: usize, acked: Pos) -> Pos {
        let acked = words_end(acked, self.fin);
        let compared = compare.sides[index].compared;
        if index == self.original && compared >= compare.own_from {
            acked
        } else {
            acked.min(compared)
        }
    }

    /// Whether output of the replica `index` in a segment from `at` up to `end` is to be cached: for a takeover (R9), or to be compared.
    #[must_use]
    pub fn keeps_output(&self, cx: &Context, index: usize, (at, end): (Pos, Pos), len: usize) -> bool {
        let leg = &self.legs[index];
        if len == 0 || leg.is_garbage(at, end, len) {
            return false;
        }
        let compared = cx.compares(self.service) && self.is_comparable() && (self.compare.is_some() || !self.is_over());
        (leg.eligible && !self.is_over()) || compared
    }

    fn is_comparable(&self) -> bool {
        let others = |(i, leg): (usize, &Leg)| i != self.original && leg.state != LegState::Gone;
        !self.client.has_left
            && !matches!(self.state, FlowState::Reset { .. })
            && self.legs.iter().enumerate().any(others)
    }

    /// Compares what has come since the last time.
    pub fn compare(&mut self, cx: &mut Context) {
        let Some(mut compare) = self.compare.take() else {
            return;
        };
        if !self.is_comparable() {
            compare.release(&mut cx.budget);
            return;
        }
        for index in 0..self.legs.len() {
            self.compare_leg(cx, &mut compare, index, false);
        }
        self.judge_differences(cx, &mut compare);
        self.drop_compared(&mut compare);
        if cx.budget.is_short() {
            self.give_up(cx, &mut compare);
        }
        self.compare = Some(compare);
    }

    /// What all have been compared with is needed no more. One of another length will not say it.
    fn drop_compared(&self, compare: &mut Compare) {
        let given = compare.given.next();
        let live = self.legs.iter().zip(&compare.sides);
        let live = live.filter(|(leg, side)| leg.counts() && !side.is_of_other_length());
        let needed = live.map(|(_, side)| side.compared).min().unwrap_or(given);
        compare.given.advance(needed.min(given));
    }

    /// The client asks for more at `u`, having read all that it was given, up to `v`: if a leg that differs has said more than
    /// that before it was asked, its answers have another length. Pipelining clients don't wait for the end of an answer: there the
    /// rule may take a leg for longer that is merely faster, and has differed already.
    pub fn note_turn(&mut self, cx: &mut Context, u: Pos, v: Pos) {
        let Some(mut compare) = self.compare.take() else {
            return;
        };
        if v == self.client.sent && self.original().acked() == u {
            for index in 0..self.legs.len() {
                let leg = &self.legs[index];
                let open = compare.sides[index].first.filter(|first| !first.length);
                if let Some(first) = open
                    && index != self.original
                    && leg.is_open()
                    && leg.sent > v
                    && leg.acked() <= u
                {
                    self.note_difference(cx, &mut compare, index, (first.at, first.byte), true);
                }
            }
        }
        self.compare = Some(compare);
    }

    /// Nothing was said for a while: what has not come by now will not come, and what is not needed is given back.
    pub fn rest_comparison(&mut self, cx: &mut Context) {
        let Some(mut compare) = self.compare.take() else {
            return;
        };
        let given = compare.given.next();
        // Of what the client has not acknowledged, the original may say anything again: that must find its place.
        let mut level = self.client.acked >= words_end(self.client.sent, self.fin);
        for index in 0..self.legs.len() {
            if index == self.original || !self.legs[index].counts() {
                continue;
            }
            self.compare_leg(cx, &mut compare, index, true);
            let leg = &self.legs[index];
            let other_length = leg.is_open() && leg.acked() >= self.buffer.end() && leg.sent != self.client.sent;
            let first = compare.sides[index].first;
            level &= compare.sides[index].compared == given && leg.cache.next() <= given && first.is_none();
            if let Some(first) = first.filter(|first| other_length && !first.length) {
                // It has heard all that the original has, and has said more or less.
                self.note_difference(cx, &mut compare, index, (first.at, first.byte), true);
            }
            compare.sides[index].skip_to(given, cx);
            let floor = self.cache_floor_of(&compare, index, self.client.acked);
            self.legs[index].cache.advance(floor);
        }
        if cx.budget.is_short() {
            self.give_up(cx, &mut compare);
        }
        self.drop_compared(&mut compare);
        if compare.given.base() == given && !compare.given.has_islands() {
            compare.release(&mut cx.budget);
            if level {
                return;
            }
        }
        self.compare = Some(compare);
    }
}
