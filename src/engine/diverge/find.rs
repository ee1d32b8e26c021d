//! R17: where a leg differs from what the client was given.

use super::super::context::Context;
use super::super::flow::Flow;
use super::super::leg::{LegState, Mode};
use super::super::pos::{Pos, length, span, words_end};
use super::super::{Counter, Event};
use super::{Compare, Difference, First};
use crate::mutant::{self, Mutation};

/// How far a machine must have gone on past a hole in its output, acknowledged long since, before the hole counts as lost on the way
/// to the engine, and not just as overtaken, in bytes.
const OVERTAKEN: Pos = 64 << 10;

impl Flow {
    /// Compares what leg `index` has said. `rests` says that nothing is under way.
    pub(super) fn compare_leg(&mut self, cx: &mut Context, compare: &mut Compare, index: usize, rests: bool) {
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
    pub(super) fn note_difference(
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
