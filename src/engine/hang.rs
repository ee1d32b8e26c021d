//! R14, `hang`: a service that stands still while its machine's kernel answers, as the replicas of its flow show it.

use super::Reason;
use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pos::{Pos, words_end};
use super::spec::Micros;
use super::watch::{is_closed, said_of_itself};
use crate::mutant::{self, Mutation};

/// How often an original is asked where it stands, at equal distances, before it is accused. One question may be lost, or its answer; a kernel
/// that has answered one need not answer the next within half a second (Linux, `tcp_invalid_ratelimit`).
const QUESTIONS: u8 = 3;

/// An original whose service stands still while a replica's goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Since when.
    pub since: Micros,
    /// How far it has come, see [`original_progress`].
    pub reached: Pos,
    /// What a replica had heard of the client (u) that went on: as long as the original has not, its service can't have done the same.
    pub needs: Pos,
    /// It has.
    pub heard: bool,
    /// What the client was last seen to repeat then ([`Flow::resent`]).
    pub resent: Pos,
    /// How often it was asked since then.
    pub asked: u8,
    /// How many of these questions it has not answered.
    pub unanswered: u8,
}

/// How much of the client's stream a machine's service has read at least, as its windows tell: what it has made room for, without the largest
/// room that it has ever had. A larger buffer is none of its service's work.
fn read_by_service(leg: &Leg) -> Pos {
    leg.sender.edge() - leg.largest_window
}

/// How far an original's service has come: what it has said, and what it has made room for. Neither ever goes back.
fn original_progress(leg: &Leg) -> Pos {
    leg.sent + leg.sender.edge()
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
        let reached = original_progress(self.original());
        let stuck = match (self.trial.stuck, self.outdone()) {
            (_, None) => None,
            (Some(stuck), _) if stuck.reached == reached => Some(self.hear_late(now, stuck)),
            (_, Some(needs)) => Some(Stuck {
                since: now,
                reached,
                needs,
                heard: self.original().acked() >= needs,
                resent: self.resent,
                asked: 0,
                unanswered: 0,
            }),
        };
        if stuck != self.trial.stuck {
            self.trial.wake().stuck = stuck;
        }
    }

    /// Where the original turns out to have heard only now what a replica has answered, because it was lost on the way and said again, its time begins
    /// now. A kernel that merely took its time to acknowledge (RFC 9293 section 3.8.6.3) has had it all the while.
    fn hear_late(&self, now: Micros, stuck: Stuck) -> Stuck {
        let original = self.original();
        if stuck.heard || original.acked() < stuck.needs {
            return stuck;
        }
        let again = original.mode == Mode::Relayed || self.resent != stuck.resent;
        Stuck {
            since: if again { now } else { stuck.since },
            asked: if again { 0 } else { stuck.asked },
            heard: true,
            ..stuck
        }
    }

    /// R14, `hang`: whether a replica's service has done what the original's has not: it has said more than the original, though the client
    /// has room for it; or it has read on, and still takes what the client wants to send, and the original does not. What was fed past
    /// causality (R23), or is not fit otherwise, is no measure. Returns how much the replica had heard of the client, as far as that matters.
    pub(super) fn outdone(&self) -> Option<Pos> {
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
        if deaf && witnesses().any(takes) {
            // Its window is closed, so that it can't hear.
            return Some(0);
        }
        let speaks = |l: &&Leg| mute && (says_more(l) || (answers(l) && all_answer()));
        let needs = witnesses().filter(speaks).map(Leg::acked).min();
        // R23: it is not given what the client asked after an answer that it has not said itself.
        let given = if original.mode == Mode::Relayed && !original.unbound {
            self.buffer.released(original.sent)
        } else {
            Pos::MAX
        };
        needs.map(|needs| needs.min(given))
    }

    /// When it is asked, or accused: `hang` after it was first seen to stand still.
    pub(super) fn hang_at(&self, cx: &Context) -> Option<Micros> {
        let stuck = self
            .trial
            .stuck
            .filter(|stuck| stuck.heard || stuck.asked < QUESTIONS)?;
        let hang = cx.service(self.service).detect.hang?;
        let parts = if mutant::is(Mutation::HangsTooSoon) { 2 } else { 1 };
        let part = Micros::from(stuck.asked.min(QUESTIONS) + 1);
        Some(stuck.since + hang / parts * part / (Micros::from(QUESTIONS) + 1))
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
        if stuck.asked < QUESTIONS {
            self.original_mut().probe_due = true;
            // It has the time that it should have had, however late the engine is.
            self.trial.wake().stuck = Some(Stuck {
                since: stuck.since + (now - at),
                asked: stuck.asked + 1,
                unanswered: stuck.unanswered.saturating_add(1),
                ..stuck
            });
            return;
        }
        // Its kernel answers whatever it is asked: what it has not done is the proof. If it is kept all the same, it is said again.
        self.trial.wake().stuck = Some(Stuck {
            since: now,
            asked: 0,
            ..stuck
        });
        cx.suspect(self.service, self.original().machine, Reason::Hang);
    }

    /// The original repeats its acknowledgement: whether that is the answer to a question of the engine's own, which says nothing to the client.
    pub(super) fn is_answer(&mut self) -> bool {
        let stuck = self.trial.awake().and_then(|trial| trial.stuck.as_mut());
        let Some(stuck) = stuck.filter(|stuck| stuck.unanswered > 0) else {
            return false;
        };
        stuck.unanswered -= 1;
        true
    }
}
