//! What time does to a flow: evidence against machines (R14), eviction of replicas (R15), waits that are given up (R23).
//!
//! All deadlines of a flow, by leg: the sender's timer; the repetition of a SYN; the eviction of a leg that holds the client up;
//! the question to, and the release of, a leg that waits for its machine's output; the reset of a leg that does not finish. And for the
//! flow: suspicion against an original that is behind, or whose service hangs; the end of a half-open, closed or idle flow; the return of unused memory.

use super::context::Context;
use super::flow::{Flow, FlowState};
use super::leg::{Leg, LegState, Mode};
use super::pos::{Pos, words_end};
use super::sender::Expiry;
use super::spec::{MILLISECOND, MaxLag, Micros, SECOND};
use super::{Counter, Reason};
use crate::mutant::{self, Mutation};

/// The least wait before a machine is asked how far it has sent (R23): its answer may just be under way.
const ASK_FLOOR: Micros = 5 * MILLISECOND;
/// The longest wait between two such questions.
const ASK_CEILING: Micros = 500 * MILLISECOND;
/// Memory that nobody uses for this long is given back.
const SHRINK_AFTER: Micros = SECOND;

/// When a machine is asked (again) where it stands that has been waited for since `since`: each wait is as long as all that went before,
/// for a machine that does not answer soon may not answer for long.
fn asks_at(leg: &Leg, since: Micros) -> Micros {
    let first = leg.sender.rtt.smoothed().map_or(ASK_FLOOR, |s| (2 * s).max(ASK_FLOOR));
    let last = since.max(leg.waits.asked_at);
    last + first.max(last - since).min(ASK_CEILING.max(first))
}

/// Closed is a window that takes neither a segment nor half of what it has ever taken (RFC 9293 section 3.8.6.2.2): jumbo frames may be larger
/// than a window is.
pub(super) fn is_closed(room: Pos, largest: Pos, mss: Pos) -> bool {
    room < mss.min(largest / 2)
}

/// What a replica's service has said, as evidence against an original that has not. A FIN is no word, for kernels say it, too, of services that crash
/// or are started anew; but for the answer to the client's own FIN, at `end`.
pub(super) fn said_of_itself(leg: &Leg, end: Option<Pos>) -> Pos {
    let answers = end.is_some_and(|end| leg.acked() > end);
    if answers {
        leg.sent
    } else {
        words_end(leg.sent, leg.fin)
    }
}

impl Flow {
    /// Takes note of who waits for whom, after the flow's work is done.
    pub fn watch(&mut self, cx: &mut Context, now: Micros) {
        let measure = self.measure(cx);
        let said = self.original().sent;
        let (client_edge, client_largest, index_of_original) =
            (self.client.edge, self.client.largest_window, self.original);
        let (mss, over, end) = (Pos::from(self.promise.mss), self.is_over(), self.buffer.fin());
        // An original on trial (R11) is no measure for others; but where that takes long, the client does not wait for both.
        let on_trial = self.trial.vote.is_some_and(|vote| !vote.overdue);
        let mut ahead = false;
        for index in 0..self.legs.len() {
            self.end_trailing(cx, &measure, index);
            let leg = &mut self.legs[index];
            let holds = measure.is_held_up_by(leg);
            if index == index_of_original || !leg.counts() || over || on_trial {
                leg.set_holding(None);
                continue;
            }
            // R14: it has taken, or said, what the original has not. The second is all that there is to see in a download.
            ahead |= leg.acked() > measure.acked || said_of_itself(leg, end) > said;
            // R24: its window is closed because it can't say what it has to say; the client does not read. No fault of its own.
            let excused = is_closed(client_edge - leg.sent, client_largest, mss)
                && is_closed(leg.sender.edge() - leg.acked(), leg.largest_window, mss);
            let since = leg.waits.holding_since.or(Some(now));
            leg.set_holding(since.filter(|_| holds && !excused));
        }
        // Where it has reset the connection, it is not silence that is held against it. And where nobody has said anything for long, be it because
        // a replica's answers are longer for ever (R17), nobody is in need of a verdict: the flow sleeps until somebody speaks.
        ahead &= self.original().counts() && now < self.seen_at + cx.spec.limits.park_after;
        if self.behind_since.is_none() {
            self.cleared = 0;
        }
        self.behind_since = if ahead { self.behind_since.or(Some(now)) } else { None };
        if cx.service(self.service).detect.hang.is_some() {
            self.watch_progress(now);
        }
    }

    pub(super) fn silence(&self, cx: &Context) -> Micros {
        let floor = cx.service(self.service).detect.floor;
        self.original()
            .sender
            .rtt
            .smoothed()
            .map_or(floor, |s| (4 * s).max(floor))
    }

    /// When the original is suspected (again) that has been behind and silent since `since`. Each time that probes have cleared it, the flow
    /// gives it twice as long, until its silence is no more than an idle machine's.
    fn suspects_at(&self, cx: &Context, since: Micros) -> Micros {
        let silence = self.silence(cx);
        let idle = cx.service(self.service).detect.probe_interval.max(silence);
        since + (silence << self.cleared.min(16)).min(idle)
    }

    fn leg_deadline(&self, cx: &Context, leg: &Leg) -> Option<Micros> {
        if !leg.counts() || leg.mode != Mode::Relayed {
            return None;
        }
        let own = match leg.state {
            LegState::SynSent => leg.syn_sent.map(|at| at + leg.sender.rtt.timeout()),
            _ => leg.sender.deadline(),
        };
        let holding = leg
            .waits
            .holding_since
            .map(|at| at.max(leg.progress_at) + self.patience_with(cx, leg));
        let asking = leg.waits.blocked_since.map(|since| asks_at(leg, since));
        let release = self.release_at(cx, leg);
        let closing = self.is_over().then(|| leg.progress_at + cx.spec.limits.close_timeout);
        [own, holding, asking, release, closing].into_iter().flatten().min()
    }

    /// R23: when a leg is fed although its machine has not said what the client had read. Not before that has acknowledged all that it may be given:
    /// until then it is slow or cut off, and may say nothing for want of input, which R14 and R15 judge. From then on, and from its last progress, a
    /// replica's wait is given up when the client has waited for it, or it has trailed, well before it would be out; while the original is no further,
    /// nothing would be gained. An original that recovers holds up everything; a replica that may lag without bounds holds up nobody. When the
    /// conversation is over nobody is held up either, but what is left is to be heard before the leg is reset (R24).
    fn release_at(&self, cx: &Context, leg: &Leg) -> Option<Micros> {
        let blocked = leg.waits.blocked_since?;
        if leg.sender.una() < leg.waits.blocked_at && !mutant::is(Mutation::ReleasesUnheard) {
            return None;
        }
        let (service, close_timeout) = (cx.service(self.service), cx.spec.limits.close_timeout);
        let since = blocked.max(leg.progress_at);
        if leg.machine == self.original().machine {
            return Some(since + service.replica_timeout);
        }
        if self.is_over() {
            return Some(since + close_timeout / 2);
        }
        match service.max_lag {
            MaxLag::Bytes(_) => leg
                .waits
                .holding_since
                .map(|held| held.max(since) + self.patience_in_all(cx) / 4 * 3),
            MaxLag::Unlimited => Some(since + close_timeout),
        }
    }

    /// When the flow next wants to be asked.
    #[must_use]
    pub fn deadline(&self, cx: &Context) -> Option<Micros> {
        let limits = &cx.spec.limits;
        let own = match self.state {
            FlowState::SynSent | FlowState::SynReceived => Some(self.since + limits.half_open_timeout),
            FlowState::Open => Some(self.seen_at + limits.idle_timeout),
            // While legs are being played to the end, their deadlines count.
            FlowState::Closed { .. } | FlowState::Reset { .. } if self.has_followers() => None,
            FlowState::Closed { at } => Some(at + limits.time_wait),
            FlowState::Reset { at } => Some(at),
        };
        let legs = self.legs.iter().filter_map(|leg| self.leg_deadline(cx, leg)).min();
        let behind = self.behind_since.map(|since| self.suspects_at(cx, since));
        let shrink = self
            .can_shrink()
            .then(|| self.seen_at.max(self.shrunk_at) + SHRINK_AFTER);
        let vote = self.vote_ends_at(cx);
        let hang = self.hang_at(cx);
        [own, legs, behind, shrink, vote, hang].into_iter().flatten().min()
    }

    /// A deadline may have passed. What is to be sent follows from the next pump.
    pub fn on_timer(&mut self, cx: &mut Context, now: Micros) {
        for index in 0..self.legs.len() {
            self.on_leg_timer(cx, now, index);
        }
        if let Some(since) = self.behind_since
            && now >= self.suspects_at(cx, since)
            && !self.leaves_crash(cx, now)
        {
            self.behind_since = Some(now);
            self.cleared = self.cleared.saturating_add(1);
            cx.suspect(self.service, self.original().machine, Reason::Silence);
        }
        self.judge_hang(cx, now);
        if now >= self.seen_at + SHRINK_AFTER && self.can_shrink() {
            self.shrink(cx);
            self.shrunk_at = now;
        }
    }

    fn can_shrink(&self) -> bool {
        let leg = |leg: &Leg| (leg.cache.capacity() > 0 && leg.keeps_nothing()) || leg.can_rest();
        let compared = self.compare.as_ref().is_some_and(|compare| compare.capacity() > 0);
        let blocks = self.blocks.is_awake() && self.blocks.is_empty();
        let tried = self.trial.is_awake() && self.trial.vote.is_none() && self.trial.stuck.is_none();
        compared || blocks || tried || self.buffer.can_shrink() || self.legs.iter().any(leg)
    }

    fn shrink(&mut self, cx: &mut Context) {
        self.buffer.shrink(&mut cx.budget);
        self.rest_comparison(cx);
        for leg in &mut self.legs {
            if leg.keeps_nothing() {
                leg.cache.release(&mut cx.budget);
            }
            leg.rest();
        }
        if self.blocks.is_empty() {
            self.blocks.rest();
        }
        if self.trial.vote.is_none() && self.trial.stuck.is_none() {
            self.trial.rest();
        }
    }

    fn on_leg_timer(&mut self, cx: &mut Context, now: Micros, index: usize) {
        let release = self.release_at(cx, &self.legs[index]);
        let leg = &mut self.legs[index];
        if !leg.counts() || leg.mode != Mode::Relayed {
            return;
        }
        if leg.state == LegState::SynSent {
            if leg.syn_sent.is_some_and(|at| now >= at + leg.sender.rtt.timeout()) {
                leg.sender.rtt.back_off();
                leg.work_due = true;
            }
        } else {
            let backoffs = leg.sender.rtt.backoffs();
            match leg.sender.on_timer(now) {
                Expiry::Resend if leg.sender.rtt.backoffs() > backoffs => cx.stats.count(Counter::Timeouts),
                Expiry::Probe => leg.probe_due = true,
                Expiry::Resend | Expiry::None => {}
            }
        }
        if let Some(since) = leg.waits.blocked_since {
            if release.is_some_and(|at| now >= at) {
                // R23: a replica whose output is shorter by divergence would wait for ever.
                leg.unbound = true;
                // What it makes of that has a time of its own (R15).
                leg.progress_at = now;
                leg.set_blocked(None, 0);
                cx.stats.count(Counter::CausalityReleases);
                self.disqualify(index, &mut cx.stats);
            } else if now >= asks_at(leg, since) {
                leg.waits.wake().asked_at = now;
                leg.probe_due = leg.is_open();
            }
        }
        let leg = &self.legs[index];
        let held = leg.waits.holding_since.map(|at| at.max(leg.progress_at));
        if held.is_some_and(|at| now >= at + self.patience_with(cx, leg)) {
            self.lose_patience(cx, now, index);
        }
    }
}
