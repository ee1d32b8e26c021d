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
mod majority;

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pack::Packer;
use super::pos::{Pos, length, span, words_end};
use super::stream::{Budget, Stream};
use super::{Counter, Event};
use crate::mutant::{self, Mutation};

pub use excerpt::{Difference, Excerpt};

/// How far a machine must have gone on past a hole in its output, acknowledged long since, before the hole counts as lost on the way
/// to the engine, and not just as overtaken, in bytes.
const OVERTAKEN: Pos = 64 << 10;

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
    fn give_up(&self, cx: &mut Context, compare: &mut Compare) {
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

    /// Compares what leg `index` has said. `rests` says that nothing is under way.
    fn compare_leg(&mut self, cx: &mut Context, compare: &mut Compare, index: usize, rests: bool) {
        let is_original = index == self.original;
        let leg = &self.legs[index];
        if !matches!(leg.state, LegState::Open | LegState::Finished) {
            return;
        }
        let side = &mut compare.sides[index];
        if is_original && (leg.mode == Mode::Direct || side.compared >= compare.own_from) {
            // From here on its words are what the others are compared with.
            side.skip_to(compare.own_from, cx);
            side.compared = side.compared.max(compare.given.next());
            return;
        }
        let mut found = self.compare_words(cx, compare, index);
        while self.skip_lost(index, rests) {
            let more = self.compare_words(cx, compare, index);
            found = found.or(more);
        }
        let ends = if is_original {
            None
        } else {
            self.other_end(compare, index)
        };
        if let Some((at, byte)) = found.or(ends) {
            self.note_difference(cx, compare, index, (at, byte), ends.is_some());
        }
        let floor = self.cache_floor_of(compare, index, self.client.acked);
        self.legs[index].cache.advance(floor);
    }

    /// Compares what is whole, and returns where it first differs, and by which byte.
    fn compare_words(&self, cx: &mut Context, compare: &mut Compare, index: usize) -> Option<(Pos, Option<u8>)> {
        let (leg, side) = (&self.legs[index], &mut compare.sides[index]);
        // Of a leg that is finished, what is missing may have been forgotten on both sides.
        let kept = leg.cache.base().min(compare.given.next()).max(compare.given.base());
        side.skip_to(kept, cx);
        let limit = if index == self.original {
            compare.own_from
        } else {
            Pos::MAX
        };
        let from = side.compared;
        let end = compare.given.next().min(leg.cache.next()).min(limit);
        if end <= from {
            return None;
        }
        side.compared = end;
        let len = length(end - from);
        let (count, first) = differing(compare.given.slices(from, len), leg.cache.slices(from, len));
        if count == 0 || mutant::is(Mutation::DifferencesUnseen) {
            return None;
        }
        cx.stats.add_to(Counter::DivergedBytes, count);
        first.map(|(at, byte)| (from + span(at), Some(byte)))
    }

    /// A machine does not repeat what it knows to have arrived: what the engine misses of it was lost on the way here, unless it was just
    /// overtaken. False if there is nothing to give up.
    fn skip_lost(&mut self, index: usize, rests: bool) -> bool {
        let leg = &mut self.legs[index];
        let known = words_end(leg.told, leg.fin);
        let said_all = leg.fin.is_some_and(|fin| leg.told > fin);
        let lost = rests || said_all || leg.sent - leg.cache.next() > OVERTAKEN;
        lost && leg.cache.skip_hole(known)
    }

    /// Where the output of leg `index` ends before the original's, or goes on after its end, and what it says there.
    fn other_end(&self, compare: &Compare, index: usize) -> Option<(Pos, Option<u8>)> {
        let (leg, side) = (&self.legs[index], &compare.sides[index]);
        if side.is_of_other_length() || mutant::is(Mutation::LengthsUnseen) {
            return None;
        }
        let shorter = leg.fin.filter(|fin| *fin < compare.given.next());
        let longer = self
            .fin
            .filter(|fin| side.compared <= *fin && (leg.cache.next() > *fin || leg.sent > *fin + 1));
        let byte = |at| leg.cache.slices(at, 1).0.first().copied();
        shorter.map(|at| (at, None)).or_else(|| longer.map(|at| (at, byte(at))))
    }

    /// Leg `index` differs. The first time this is told, with both sides' words; later differences are only counted. Output of
    /// another length is of no use to the client, whatever the policy: the leg's positions are not the client's.
    fn note_difference(
        &mut self,
        cx: &mut Context,
        compare: &mut Compare,
        index: usize,
        (at, byte): (Pos, Option<u8>),
        length: bool,
    ) {
        if length {
            cx.stats.count(Counter::LengthsDiverged);
            self.disqualify(index, &mut cx.stats);
        }
        if let Some(first) = &mut compare.sides[index].first {
            first.length |= length;
            return;
        }
        compare.sides[index].first = Some(First {
            at,
            byte,
            length,
            judged: false,
        });
        let machine = self.machine_ref(index);
        cx.note_diverged(machine);
        let difference = Difference::between(
            self.client.addr,
            self.legs[self.original].machine,
            at,
            &compare.given,
            &self.legs[index].cache,
            length,
        );
        cx.event(Event::Diverged { machine, difference });
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

/// How many bytes differ, and the first of them: its place and the second side's byte.
fn differing(a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> (u64, Option<(usize, u8)>) {
    let (mut a, mut b) = ([a.0, a.1], [b.0, b.1]);
    let (mut count, mut first, mut at) = (0, None, 0);
    loop {
        for side in [&mut a, &mut b] {
            if side[0].is_empty() {
                *side = [side[1], &[]];
            }
        }
        let len = a[0].len().min(b[0].len());
        if len == 0 {
            return (count, first);
        }
        let (x, y) = (&a[0][..len], &b[0][..len]);
        if x != y {
            let differs = |(_, (x, y)): &(usize, (&u8, &u8))| x != y;
            let pairs = || x.iter().zip(y).enumerate();
            first = first.or_else(|| pairs().find(differs).map(|(i, (_, y))| (at + i, *y)));
            count += pairs().filter(differs).count() as u64;
        }
        a[0] = &a[0][len..];
        b[0] = &b[0][len..];
        at += len;
    }
}
