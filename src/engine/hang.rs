//! R14, `hang`: a service that stands still while its machine's kernel answers, as the replicas of its flow show it.

use super::Reason;
use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pos::{Pos, words_end};
use super::spec::Micros;
use super::watch::{is_closed, said_of_itself};
use crate::mutant::{self, Mutation};

/// How often an original is asked where it stands before it is accused, for a question may be lost. Not earlier, and not more often: a kernel
/// that has answered one need not answer the next within half a second (Linux, `tcp_invalid_ratelimit`).
const QUESTIONS: u8 = 2;

/// What a replica's service has done, and the original's has not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outdone {
    /// It has said more, and had heard so much of the client then (u) as the original must have heard, too.
    Words { needs: Pos },
    /// It has read on.
    Room,
}

/// An original whose service stands still while a replica's goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Since when.
    pub since: Micros,
    /// What it had said by then.
    pub said: Pos,
    /// The right edge of its window then.
    pub edge: Pos,
    /// It has heard all that a replica had that went on: before that its service can't have done the same.
    pub heard: bool,
    /// The client has repeated since then what the original had not acknowledged.
    pub again: bool,
    /// How often it was asked since then.
    pub asked: u8,
    /// Its smoothed round trip then: what its kernel takes its time to acknowledge since is no measure of the way.
    pub round_trip: Micros,
}

impl Stuck {
    fn is_still(&self, original: &Leg, outdone: Outdone) -> bool {
        match outdone {
            Outdone::Words { .. } => original.sent == self.said,
            Outdone::Room => original.sender.edge() == self.edge,
        }
    }
}

/// How much of the client's stream a machine's service has read at least, as its windows tell: what it has made room for, without the largest
/// room that it has ever had. A larger buffer is none of its service's work.
fn read_by_service(leg: &Leg) -> Pos {
    leg.sender.edge() - leg.largest_window
}

/// More than that an original's service has hardly read. Half of what a full buffer holds is more than stacks differ by, which grow their windows each
/// at its own time.
fn most_read(original: &Leg) -> Pos {
    read_by_service(original) + original.largest_window / 2
}

impl Flow {
    /// The original has said that its window is closed. A replica whose window is large says nothing when its service reads on (RFC 9293 section
    /// 3.8.6.2.2): so those are asked of which it is not known.
    pub(super) fn ask_who_reads(&mut self) {
        let (original, mss) = (self.original(), Pos::from(self.promise.mss));
        let (edge, unread) = (original.sender.edge(), most_read(original));
        if self.state != FlowState::Open || !is_closed(edge - self.client.max, original.largest_window, mss) {
            return;
        }
        for leg in &mut self.legs {
            let open = leg.is_open() && leg.mode == Mode::Relayed && leg.sender.edge() > edge;
            leg.probe_due |= open && read_by_service(leg) <= unread;
        }
    }

    /// R14, `hang`: takes note of since when the original's service has stood still while a replica's has gone on.
    pub(super) fn watch_progress(&mut self, now: Micros) {
        let (original, outdone) = (self.original(), self.outdone());
        let stuck = outdone.map(|outdone| {
            let heard = match outdone {
                Outdone::Words { needs } => original.acked() >= needs,
                Outdone::Room => true,
            };
            match self.trial.stuck.filter(|stuck| stuck.is_still(original, outdone)) {
                Some(stuck) if heard && !stuck.heard => self.hear_late(now, stuck),
                Some(stuck) => stuck,
                None => Stuck {
                    since: now,
                    said: original.sent,
                    edge: original.sender.edge(),
                    heard,
                    again: false,
                    asked: 0,
                    round_trip: original.sender.rtt.smoothed().unwrap_or(0),
                },
            }
        });
        if stuck != self.trial.stuck {
            self.trial.wake().stuck = stuck;
        }
    }

    /// Where the original turns out to have heard only now what a replica has answered, because it was lost on the way and said again, its time begins
    /// now. A kernel that merely took its time to acknowledge (RFC 9293 section 3.8.6.3) has had it all the while.
    fn hear_late(&self, now: Micros, stuck: Stuck) -> Stuck {
        let again = stuck.again || self.original().mode == Mode::Relayed;
        Stuck {
            since: if again { now } else { stuck.since },
            asked: if again { 0 } else { stuck.asked },
            heard: true,
            ..stuck
        }
    }

    /// The client repeats what the original has not acknowledged.
    pub(super) fn note_repetition(&mut self) {
        if let Some(stuck) = self.trial.awake().and_then(|trial| trial.stuck.as_mut()) {
            stuck.again = true;
        }
    }

    /// R14, `hang`: whether a replica's service has done what the original's has not: it has said more than the original, though the client
    /// has room for it; or it has read on, and still takes what the client wants to send, and the original does not. What was fed past
    /// causality (R23), or is not fit otherwise, is no measure.
    pub(super) fn outdone(&self) -> Option<Outdone> {
        let (original, mss) = (self.original(), Pos::from(self.promise.mss));
        // Who has said FIN, and was believed (R11), has nothing more to say.
        let ended = original.fin.is_some() || self.trial.vote.is_some();
        if self.state != FlowState::Open || !original.is_open() || ended {
            return None;
        }
        let mute = !is_closed(self.client.edge - original.sent, self.client.largest_window, mss)
            || mutant::is(Mutation::UnreadHangs);
        let room = original.sender.edge() - self.client.max;
        let deaf = is_closed(room, original.largest_window, mss);
        let unread = most_read(original);
        let takes = |l: &Leg| {
            l.sender.edge() > original.sender.edge()
                && (read_by_service(l) > unread || mutant::is(Mutation::BufferReads))
        };
        let others = || self.legs.iter().enumerate().filter(|(i, _)| *i != self.original);
        // One that has heard and said everything has done so by itself, and can take over, too.
        let knows = |l: &Leg| self.is_fit(l) || (l.state == LegState::Finished && l.eligible && self.reaches(l));
        let witnesses = || others().map(|(_, l)| l).filter(|l| knows(l) && !l.unbound);
        let says_more = |l: &Leg| words_end(l.sent, l.fin) > original.sent;
        let answers = |l: &Leg| said_of_itself(l, self.buffer.fin()) > original.sent;
        // One that ends alone may have been killed while all others still work on the client's last request (R17: the majority is right). Where there is
        // but one other, its word is not better than the original's silence.
        let enough = if mutant::is(Mutation::OneEndSuffices) { 1 } else { 2 };
        let all_answer =
            || witnesses().filter(|l| answers(l)).count() >= enough && witnesses().all(|l| answers(l) || l.trails);
        let speaks = |l: &&Leg| mute && (says_more(l) || (answers(l) && all_answer()));
        let heard = witnesses().filter(speaks).map(Leg::acked).min();
        let reads = || (deaf && witnesses().any(takes)).then_some(Outdone::Room);
        heard
            .map(|heard| Outdone::Words {
                needs: heard.min(self.given_to_original()),
            })
            .or_else(reads)
    }

    /// How much of the client's stream (u) the original can be expected to have heard.
    fn given_to_original(&self) -> Pos {
        let original = self.original();
        let window = Pos::from(original.last_window) << original.window_shift;
        if is_closed(window, original.largest_window, self.promise.mss.into()) {
            // Nothing: whose buffer is full can't hear, and does not read.
            0
        } else if original.mode == Mode::Relayed && !original.unbound {
            // R23: it is not given what the client asked after an answer that it has not said itself.
            self.buffer.released(original.sent)
        } else {
            Pos::MAX
        }
    }

    /// When it is asked, or accused: `hang` after it was first seen to stand still.
    pub(super) fn hang_at(&self, cx: &Context) -> Option<Micros> {
        let stuck = self
            .trial
            .stuck
            .filter(|stuck| stuck.heard || stuck.asked < QUESTIONS)?;
        let hang = cx.service(self.service).detect.hang?;
        let hang = if mutant::is(Mutation::HangsTooSoon) {
            hang / 2
        } else {
            hang
        };
        // There must be time for an answer.
        let last = (hang / 4).max(2 * stuck.round_trip).min(hang);
        let before = match stuck.asked {
            0 => last,
            1 => last / 2,
            _ => 0,
        };
        Some(stuck.since + hang - before)
    }

    /// Asks an original that stands still where it stands, or accuses it if it was asked often enough. What it has said may have been lost on
    /// the way here, and its stack may wait for longer than `hang` before it says it again; but its answer to a question bears the number after
    /// all that it has said (RFC 9293 section 3.10.7.4).
    pub(super) fn judge_hang(&mut self, cx: &mut Context, now: Micros) {
        if self.hang_at(cx).is_none_or(|at| now < at) {
            return;
        }
        // What has come just now has not been looked at: an answer may have waited in the queue while the engine was not scheduled.
        self.watch_progress(now);
        let (Some(stuck), Some(at)) = (self.trial.stuck, self.hang_at(cx).filter(|at| now >= *at)) else {
            return;
        };
        let trial = self.trial.wake();
        if stuck.asked < QUESTIONS {
            trial.question = Some(now);
            // It has the time that it should have had, however late the engine is.
            trial.stuck = Some(Stuck {
                since: stuck.since + (now - at),
                asked: stuck.asked + 1,
                ..stuck
            });
            self.original_mut().probe_due = true;
            return;
        }
        // Its kernel answers whatever it is asked: what it has not done is the proof. If it is kept all the same, it is said again.
        trial.stuck = Some(Stuck {
            since: now,
            asked: 0,
            ..stuck
        });
        cx.suspect(self.service, self.original().machine, Reason::Hang);
    }

    /// The original acknowledges, and says nothing else: whether that is the answer to a question of the engine's own, which would be a duplicate
    /// to the client. An answer that comes late, or two for one question, may pass: a single duplicate does no harm (RFC 5681 section 3.2).
    pub(super) fn is_answer(&mut self, cx: &Context, now: Micros) -> bool {
        let question = self.trial.awake().and_then(|trial| trial.question.take());
        question.is_some_and(|asked| now <= asked + self.silence(cx))
    }
}
