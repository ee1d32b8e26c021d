//! R17: with three machines or more the majority is right.

use super::super::context::Context;
use super::super::flow::Flow;
use super::super::leg::LegState;
use super::super::pos::Pos;
use super::super::spec::DivergePolicy;
use super::super::{Event, Reason};
use super::Compare;

/// Whose fault a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The leg's.
    Leg,
    /// The original's.
    Original,
    /// The others have not come as far.
    Open,
}

/// How the live machines of a flow voted on one position, as far as it can be known.
#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    all: usize,
    with_original: usize,
    with_leg: usize,
    missing: usize,
}

impl Votes {
    /// The original is right where nobody has a majority: the client has its word. One alone is no majority.
    fn fault(self) -> Fault {
        if 2 * self.with_original > self.all {
            Fault::Leg
        } else if 2 * self.with_leg > self.all.max(2) {
            Fault::Original
        } else if self.missing > 0 {
            Fault::Open
        } else {
            Fault::Leg
        }
    }
}

impl Flow {
    /// Decides on the first differences that nobody has decided on yet, and does what the policy says.
    pub(super) fn judge_differences(&mut self, cx: &mut Context, compare: &mut Compare) {
        for index in 0..self.legs.len() {
            let Some(first) = compare.sides[index].first.filter(|first| !first.judged) else {
                continue;
            };
            let fault = self.votes(compare, first.at, first.byte).fault();
            if fault == Fault::Open {
                continue;
            }
            if let Some(first) = &mut compare.sides[index].first {
                first.judged = true;
            }
            if index == self.original {
                // It goes on for one that has died, and is all that the client has.
            } else if fault == Fault::Leg {
                self.punish(cx, index);
            } else if first.at >= compare.own_from && self.is_spokesman(compare, index) {
                // Below, they are the words of one that has gone.
                self.outvote(cx, first.at);
            }
        }
    }

    fn votes(&self, compare: &Compare, at: Pos, byte: Option<u8>) -> Votes {
        let mut votes = Votes::default();
        for (index, leg) in self.legs.iter().enumerate() {
            let side = &compare.sides[index];
            if leg.state == LegState::Gone {
                continue;
            }
            let is_its_word = index == self.original && at >= compare.own_from;
            if !is_its_word && side.first.is_none() && at < side.skipped_to {
                // What it said here, nobody knows.
                continue;
            }
            votes.all += 1;
            match side.first {
                _ if is_its_word => votes.with_original += 1,
                Some(first) if first.at == at => votes.with_leg += usize::from(first.byte == byte),
                // It differed before: what it says here may stand in another place, and is no vote.
                Some(first) if first.at < at => {}
                _ if side.compared > at => votes.with_original += 1,
                _ => votes.missing += 1,
            }
        }
        votes
    }

    /// Of several legs that outvote the original on one position, the first tells.
    fn is_spokesman(&self, compare: &Compare, index: usize) -> bool {
        let at = |i: usize| compare.sides[i].first.map(|first| (first.at, first.byte));
        (0..index).all(|i| at(i) != at(index) || self.legs[i].state == LegState::Gone)
    }

    fn punish(&mut self, cx: &mut Context, index: usize) {
        match cx.service(self.service).diverge {
            DivergePolicy::Off | DivergePolicy::Warn => {}
            DivergePolicy::Ineligible => self.disqualify(index, &mut cx.stats),
            DivergePolicy::Evict => cx.evict(self.machine_ref(index), Reason::Divergence),
        }
    }

    fn outvote(&mut self, cx: &mut Context, at: Pos) {
        let machine = self.machine_ref(self.original);
        cx.note_outvoted(machine);
        cx.event(Event::Outvoted {
            machine,
            client: self.client.addr,
            offset: (at - 1).unsigned_abs(),
        });
        if cx.service(self.service).diverge == DivergePolicy::Evict {
            cx.evict(machine, Reason::Divergence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the design says, for every count of votes of up to six machines.
    #[test]
    fn a_majority_decides_and_a_tie_is_the_originals() {
        for all in 1..=6usize {
            for with_original in 0..all {
                for with_leg in 1..=all - with_original {
                    for missing in 0..=all - with_original - with_leg {
                        let votes = Votes {
                            all,
                            with_original,
                            with_leg,
                            missing,
                        };
                        let fault = votes.fault();
                        let (for_it, against) = (with_original * 2 > all, with_leg * 2 > all && with_leg > 1);
                        assert_eq!(fault == Fault::Original, against, "{votes:?}");
                        assert_eq!(fault == Fault::Open, !for_it && !against && missing > 0, "{votes:?}");
                    }
                }
            }
        }
    }
}
