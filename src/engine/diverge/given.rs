//! R17: what the client was given, kept for as long as a slow leg has yet to say the same.

use super::super::context::Context;
use super::super::flow::Flow;
use super::super::leg::{LegState, Mode};
use super::super::pos::{Pos, length, span, words_end};
use super::Compare;

impl Flow {
    /// The original says something, which goes to the client: it is what the others are compared with. This comes before the verdict:
    /// one copy, two of what one that took over says again, and the growth of a buffer that is not large enough yet, as while a
    /// flow warms up and after a rest.
    pub fn note_given(&mut self, cx: &mut Context, at: Pos, bytes: &[u8]) {
        // RFC 9293 section 3.8.4: beyond its FIN there is only the garbage byte of a keep-alive.
        let words = length(words_end(at + span(bytes.len()), self.fin) - at);
        let bytes = bytes.get(..words).unwrap_or_default();
        if bytes.is_empty() || !cx.compares(self.service) {
            return;
        }
        self.open_comparison();
        let limit = self.buffer_limit(cx);
        let Some(mut compare) = self.compare.take() else {
            return;
        };
        let end = at + span(bytes.len());
        let relayed = self.legs[self.original].mode == Mode::Relayed;
        if at < compare.own_from && relayed && !self.legs[self.original].is_garbage(at, end, bytes.len()) {
            // It took over, and says what the client has had of another: that is compared, too.
            let known = bytes.len().min(length(compare.own_from - at));
            let leg = &mut self.legs[self.original];
            leg.cache.store(at, &bytes[..known], limit, &mut cx.budget);
        }
        self.keep_given(cx, &mut compare, at, bytes);
        self.compare = Some(compare);
    }

    /// Keeps what the client is given; what a slow leg has yet to say makes room where a limit is reached. Where the shard is short of
    /// memory nothing is kept: it would close the windows of everybody (R5).
    fn keep_given(&self, cx: &mut Context, compare: &mut Compare, at: Pos, bytes: &[u8]) {
        let (end, limit) = (at + span(bytes.len()), self.buffer_limit(cx));
        if cx.budget.is_short() {
            self.give_up(cx, compare);
            self.give_up_below(cx, compare, end);
            return;
        }
        if compare.given.store(at, bytes, limit, &mut cx.budget) {
            return;
        }
        let room = span(compare.given.capacity().min(limit));
        let base = if room < span(bytes.len()) { end } else { end - room };
        self.give_up_below(cx, compare, base);
        if !compare.given.store(at, bytes, limit, &mut cx.budget) {
            self.give_up_below(cx, compare, end);
        }
    }

    /// Gives up all that has not been compared yet, and the memory.
    pub(super) fn give_up(&self, cx: &mut Context, compare: &mut Compare) {
        while compare.given.has_islands() {
            compare.given.skip_hole(Pos::MAX);
        }
        self.give_up_below(cx, compare, compare.given.next());
        compare.release(&mut cx.budget);
    }

    fn give_up_below(&self, cx: &mut Context, compare: &mut Compare, base: Pos) {
        compare.given.advance(base);
        for (index, (side, leg)) in compare.sides.iter_mut().zip(&self.legs).enumerate() {
            // One that is gone will say no more, and the original's own words are what is given.
            if index == self.original {
                side.skip_to(base.min(compare.own_from), cx);
            } else if leg.state != LegState::Gone {
                side.skip_to(base, cx);
            }
        }
    }

    /// It begins with what the client has not acknowledged: all of that is still to be said, or to be said again, by the original. How
    /// far the original has sent is not the same, for what it has said may have been lost on the way here.
    fn open_comparison(&mut self) {
        if self.compare.is_none() && self.is_comparable() {
            let start = words_end(self.client.acked, self.fin).max(1);
            self.compare = Some(Box::new(Compare::new(start, self.legs.len())));
        }
    }

    /// The client was given `[from, to)` out of the new original's cache (R12).
    pub fn note_replayed(&mut self, cx: &mut Context, from: Pos, to: Pos) {
        if to <= from || !cx.compares(self.service) {
            return;
        }
        self.open_comparison();
        let Some(mut compare) = self.compare.take() else {
            return;
        };
        let (first, second) = self.legs[self.original].cache.slices(from, length(to - from));
        self.keep_given(cx, &mut compare, from, first);
        if !second.is_empty() {
            self.keep_given(cx, &mut compare, from + span(first.len()), second);
        }
        self.compare = Some(compare);
    }
}
