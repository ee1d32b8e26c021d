//! R14, `hang`: a service that stands still while its machine's kernel answers, as the replicas of its flow show it.

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pos::{Pos, words_end};
use super::spec::Micros;
use super::watch::{is_closed, said_of_itself};
use crate::mutant::{self, Mutation};

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
        let stuck = match self.trial.stuck {
            _ if !self.is_outdone() => None,
            Some((since, at)) if at == reached => Some((since, at)),
            _ => Some((now, reached)),
        };
        if stuck != self.trial.stuck {
            self.trial.wake().stuck = stuck;
        }
    }

    /// R14, `hang`: whether a replica's service has done what the original's has not: it has said more than the original, though the client
    /// has room for it; or it has read on, and still takes what the client wants to send, and the original does not. What was fed past
    /// causality (R23), or is not fit otherwise, is no measure.
    pub(super) fn is_outdone(&self) -> bool {
        let (original, mss) = (self.original(), Pos::from(self.promise.mss));
        // Who has said FIN, and was believed (R11), has nothing more to say.
        let ended = original.fin.is_some() || self.trial.vote.is_some();
        if self.state != FlowState::Open || !original.is_open() || ended {
            return false;
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
        witnesses().any(|l| (mute && says_more(l)) || (deaf && takes(l))) || (mute && all_answer())
    }

    /// When it is declared.
    pub(super) fn hang_at(&self, cx: &Context) -> Option<Micros> {
        let (since, _) = self.trial.stuck?;
        let hang = cx.service(self.service).detect.hang?;
        let parts = if mutant::is(Mutation::HangsTooSoon) { 2 } else { 1 };
        Some(since + hang / parts)
    }
}
