//! R11, the vote: what looks like the end of the service may be the end of one machine's process.
//!
//! A crash on Linux closes the connection in order if nothing unread was left, with a RST if something was, and answers all that comes
//! later with RSTs. So a FIN or a RST of the original is held until a replica says the same, or shows that there is more to come:
//!
//! - Its data goes on, but not its FIN bit. Once a replica has said FIN at the same position the client gets it, from the engine if
//!   the original's packet has long gone by. If none does within `vote`, the flow moves to a replica that has come so far and goes on, and the
//!   old original stays as one. Where no replica has come so far, that waits for one as long as a trailing one may be
//!   silent (R15); if none has said anything more by then, or all of them lag behind, the original is believed: they may hang. It is not fenced, for it may be right and merely early (a replica that lags by more than `vote`): then its
//!   service must still get every byte of the client's (R24), or a live machine would differ from the others from then on. As a
//!   replica it reaches the client no more, and if it has crashed it says so with a RST at the next byte.
//! - A RST fences the original at once. A replica's RST within `vote` of it, before or after, confirms it if both had said equally
//!   much. Where a replica can go on, or has ended in order, the client does not lose bytes to a RST that it need not get.
//! - Where all replicas have already said more, nobody waits.
//! - The machine is probed when a vote is opened (R14): where its service has crashed, that is often known before the vote has ended.
//!
//! Nothing is held where nobody could take over. So a FIN or a RST that all machines mean reaches the client after at most `vote` for
//! each machine that has to be asked in turn, and usually at once.

use super::Counter;
use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState};
use super::pos::Pos;
use super::rare::Resting;
use super::spec::{MaxLag, Micros};
use super::trail::TRAIL_TIMEOUTS;
use crate::mutant::{self, Mutation};

/// What the original has said that would end the flow, and nobody has confirmed yet.
#[derive(Clone, Copy, Debug)]
pub struct Vote {
    /// When it said so first.
    pub since: Micros,
    /// It has reset the connection; otherwise it has only said FIN.
    pub reset: bool,
    /// `vote` has passed, and nobody has come so far as to know.
    pub overdue: bool,
    /// Since when a replica has come so far.
    pub witnessed_at: Option<Micros>,
}

/// What is held against the original of a flow. Most flows never need it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// It has said something that would end the flow.
    pub vote: Option<Vote>,
    /// By leg: the end of what it had said when the vote was opened.
    pub said: Vec<Pos>,
    /// A replica's RST, the last one: when, and the end of what it had said by then.
    pub reset_seen: Option<(Micros, Pos)>,
    /// A replica's service is further than the original's (R14, `hang`).
    pub stuck: Option<super::hang::Stuck>,
    /// When the original was asked where it stands, while it has not answered.
    pub question: Option<Micros>,
}

impl Resting for Trial {
    const RESTING: &'static Self = &Self {
        vote: None,
        said: Vec::new(),
        reset_seen: None,
        stuck: None,
        question: None,
    };
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ruling {
    /// Not decided yet.
    Wait,
    /// A replica says the same.
    Confirmed,
    /// Nobody is left who could say otherwise.
    Uncontested,
    /// This leg goes on.
    TakeOver(usize),
}

impl Flow {
    /// Whether a leg could go on where the client stands.
    #[must_use]
    pub fn is_fit(&self, leg: &Leg) -> bool {
        leg.is_open() && leg.eligible && self.reaches(leg)
    }

    /// Not if it has said its last word before what the client has heard.
    #[must_use]
    pub fn reaches(&self, leg: &Leg) -> bool {
        mutant::is(Mutation::EndedTakesOver) || leg.fin.is_none_or(|fin| fin >= self.heard())
    }

    /// The original speaks, and has said FIN, now or when it was a replica: whether that is to be held. If so, and nobody knew, it has ended the
    /// connection now.
    pub fn hears_fin(&mut self, cx: &mut Context, now: Micros, fin: bool) -> bool {
        let on_trial = self.trial.vote.is_some();
        let held = self.holds_fin(cx, now);
        if held && fin && !on_trial {
            cx.note_end(now, self.service, self.original().machine);
        }
        held
    }

    /// The original has said FIN (now or before): whether it is to be held. If not, it passes from now on.
    pub fn holds_fin(&mut self, cx: &mut Context, now: Micros) -> bool {
        if self.original().fin.is_none() || self.fin.is_some() {
            return false;
        }
        if self.trial.vote.is_some() || self.opens(cx, now, false) {
            return true;
        }
        self.pass_fin();
        false
    }

    /// Whether an end that the original says too early would be voted on: not where the client has had the end from others already.
    pub fn is_votable(&self, cx: &Context) -> bool {
        cx.service(self.service).detect.vote > 0 && self.fin.is_none() && self.successor(cx).is_some()
    }

    fn pass_fin(&mut self) {
        if let Some(fin) = self.original().fin {
            self.note_fin(fin);
        }
    }

    /// A replica has reset the connection. One that was original before, and spoke early, does not count twice: the position tells.
    pub fn note_reset(&mut self, now: Micros, index: usize) {
        if self.legs[index].is_open() {
            self.trial.wake().reset_seen = Some((now, self.legs[index].sent));
        }
    }

    /// The original has reset the connection: whether that is to be held. If so, the original takes no part in the flow any more.
    pub fn holds_reset(&mut self, cx: &mut Context, now: Micros) -> bool {
        let on_trial = self.trial.vote.is_some();
        if self.state != FlowState::Open || !self.opens(cx, now, true) {
            return false;
        }
        if !on_trial {
            cx.note_end(now, self.service, self.original().machine);
        }
        let original = self.original;
        self.drop_leg(original, &mut cx.budget);
        true
    }

    /// Opens a vote, or turns one on a FIN into one on a RST, unless it is decided already that the original is right.
    fn opens(&mut self, cx: &mut Context, now: Micros, reset: bool) -> bool {
        if cx.service(self.service).detect.vote == 0 || mutant::is(Mutation::NoVote) {
            return false;
        }
        let vote = Vote {
            since: self.trial.vote.map_or(now, |v| v.since),
            reset,
            overdue: self.trial.vote.is_some_and(|v| v.overdue),
            witnessed_at: self.trial.vote.and_then(|v| v.witnessed_at),
        };
        let vote = self.with_witness(now, vote);
        let ruling = self.ruling(cx, now, vote);
        if ruling == Ruling::Uncontested {
            return false;
        }
        if self.trial.wake().vote.replace(vote).is_none() {
            cx.stats.count(Counter::VotesOpened);
            self.trial.wake().said = self.legs.iter().map(|l| l.sent.max(1)).collect();
        }
        if ruling == Ruling::Confirmed {
            self.take_vote();
            cx.note_word(self.service, self.original().machine);
            cx.stats.count(Counter::VotesConfirmed);
            return false;
        }
        cx.suspect_end(now, None, self.service, self.original().machine);
        true
    }

    fn ruling(&self, cx: &Context, now: Micros, vote: Vote) -> Ruling {
        let Some(heir) = self.successor(cx) else {
            return Ruling::Uncontested;
        };
        let patience = cx.service(self.service).detect.vote;
        let end = self.end_on_trial(vote);
        let others = || self.legs.iter().enumerate().filter(|(i, _)| *i != self.original);
        let says_more = |l: &Leg| l.cache.next() > end || l.fin.is_some_and(|fin| fin > end);
        let ended = |l: &Leg| {
            vote.reset && l.fin.is_some() && (self.is_fit(l) || l.state == LegState::Finished && self.reaches(l))
        };
        if vote.reset {
            let alike = |(at, v): (Micros, Pos)| at + patience >= vote.since && v == self.original().sent;
            if self.trial.reset_seen.is_some_and(alike) {
                return Ruling::Confirmed;
            }
        } else if others().any(|(_, l)| l.fin == Some(end) && l.state != LegState::Gone) {
            return Ruling::Confirmed;
        }
        // One alone may be the odd one (R17), so that all must be of this opinion before the time has come.
        let decided = |l: &Leg| ended(l) || (self.is_fit(l) && says_more(l));
        let undecided = |l: &Leg| l.counts() && (l.eligible || l.state == LegState::SynSent) && !decided(l);
        // Where the fastest speaks, the client may have had more already.
        let overtaken = !vote.reset && self.heard() > end;
        if overtaken || !others().any(|(_, l)| undecided(l)) {
            return Ruling::TakeOver(heir);
        }
        let mut able = others().filter(|(_, l)| self.is_fit(l) || l.state == LegState::SynSent);
        if !vote.reset && able.all(|(_, l)| self.lags(l, end) && !says_more(l)) {
            // Who lags far behind, or hangs (R15), is no witness: an end in order is commoner than a crash that leaves nothing unread.
            return Ruling::Uncontested;
        }
        if now < self.vote_ends(cx, vote) {
            return Ruling::Wait;
        }
        if vote.reset || says_more(&self.legs[heir]) {
            return Ruling::TakeOver(heir);
        }
        let best = self.witness(vote).or_else(|| self.worker());
        best.map_or(Ruling::Uncontested, Ruling::TakeOver)
    }

    /// The end of what the original has said, by which others are measured.
    fn end_on_trial(&self, vote: Vote) -> Pos {
        match self.original().fin {
            Some(fin) if !vote.reset => fin,
            _ => self.original().sent.max(self.client.sent),
        }
    }

    /// A leg that trails (R15), and lacks something of what the original has had or said. One whose machine is slow with others trails from the beginning,
    /// but lacks nothing where nothing was said.
    fn lags(&self, leg: &Leg, end: Pos) -> bool {
        let lacks = leg.acked() < self.original().acked() || leg.sent < end;
        leg.trails && (lacks || mutant::is(Mutation::TrailingUnheard))
    }

    /// A leg that has said all that the original had, and so would have ended with it.
    fn witness(&self, vote: Vote) -> Option<usize> {
        let end = self.end_on_trial(vote);
        let knows = |l: &Leg| self.is_fit(l) && !self.lags(l, end) && l.sent >= end;
        (0..self.legs.len()).find(|i| *i != self.original && knows(&self.legs[*i]))
    }

    /// Where nobody has: who has said most, of those that have said anything since the vote was opened.
    fn worker(&self) -> Option<usize> {
        let said = |i: usize| self.trial.said.get(i).copied().unwrap_or(1);
        let works = |i: &usize| *i != self.original && self.is_fit(&self.legs[*i]) && self.legs[*i].sent > said(*i);
        (0..self.legs.len()).filter(works).max_by_key(|i| self.legs[*i].sent)
    }

    fn with_witness(&self, now: Micros, vote: Vote) -> Vote {
        let witnessed_at = self.witness(vote).and(vote.witnessed_at.or(Some(now)));
        Vote { witnessed_at, ..vote }
    }

    /// Where nobody has come so far as the original, nobody can say yet whether its FIN is right; for so long as a trailing replica may make no
    /// progress (R15), which gives a stack several tries to send what was lost. Who has said nothing at all by then may hang, and the original
    /// is believed. Where clients wait for no replica at all, that is not waited for, either.
    fn vote_ends(&self, cx: &Context, vote: Vote) -> Micros {
        let service = cx.service(self.service);
        let asked = service.detect.vote;
        let all = match service.max_lag {
            MaxLag::Bytes(_) => service.replica_timeout.saturating_mul(TRAIL_TIMEOUTS),
            MaxLag::Unlimited => service.replica_timeout,
        };
        match vote.witnessed_at {
            _ if vote.reset => vote.since + asked,
            Some(at) => at + asked,
            None => vote.since + asked.max(all),
        }
    }

    /// When an open vote is to be looked at, whatever anybody says.
    #[must_use]
    pub fn vote_ends_at(&self, cx: &Context) -> Option<Micros> {
        let asked = |vote: Vote| vote.since + cx.service(self.service).detect.vote;
        let ends = |vote: Vote| {
            if vote.overdue || vote.witnessed_at.is_some() {
                self.vote_ends(cx, vote)
            } else {
                asked(vote)
            }
        };
        self.trial.vote.map(ends)
    }

    /// Looks whether an open vote is decided: by what a replica has said, by time, or because nobody is left.
    pub fn judge(&mut self, cx: &mut Context, now: Micros) {
        let Some(vote) = self.trial.vote else { return };
        if self.is_over() || self.client.has_left {
            self.close_vote(cx);
            return;
        }
        let vote = self.with_witness(now, vote);
        match self.ruling(cx, now, vote) {
            Ruling::Wait => {
                let overdue = vote.overdue || now >= vote.since + cx.service(self.service).detect.vote;
                self.trial.wake().vote = Some(Vote { overdue, ..vote });
            }
            Ruling::TakeOver(next) => self.mask(cx, now, next),
            ruling => {
                if ruling == Ruling::Confirmed {
                    self.take_vote();
                    cx.note_word(self.service, self.original().machine);
                    cx.stats.count(Counter::VotesConfirmed);
                }
                self.close_vote(cx);
                if vote.reset {
                    cx.stats.count(Counter::ResetsPassed);
                    self.reset_client(cx);
                    self.end_by_reset(cx, now);
                } else if !self.reaches(self.original()) {
                    // R16: the client has more than that from others.
                    self.replace_original(cx, now);
                } else {
                    self.note_delay(cx, now, vote);
                    self.pass_fin();
                    self.fin_due = true;
                }
            }
        }
    }

    /// The original's end was its own failure: leg `next` goes on.
    pub fn mask(&mut self, cx: &mut Context, now: Micros, next: usize) {
        if let Some(vote) = self.take_vote() {
            cx.stats.count(Counter::VotesMasked);
            cx.suspect_end(now, Some(vote.since), self.service, self.original().machine);
        }
        self.switch(cx, now, next);
    }

    fn take_vote(&mut self) -> Option<Vote> {
        self.trial.awake()?.vote.take()
    }

    /// Something else has ended the vote.
    pub fn close_vote(&mut self, cx: &mut Context) {
        if self.take_vote().is_some() {
            cx.stats.count(Counter::VotesMoot);
        }
    }

    fn note_delay(&self, cx: &mut Context, now: Micros, vote: Vote) {
        let delay = now.saturating_sub(vote.since);
        cx.stats.count(Counter::FinsDelayed);
        cx.stats.add_to(Counter::FinDelay, delay);
        cx.stats.raise(Counter::FinDelayMax, delay);
    }
}
