//! The TCP sender of a leg (R3): what to send when, within the machine's window and a NewReno congestion window.
//!
//! It knows positions only, no bytes and no packets. Timers, one at a time:
//!
//! - *retransmission* (RFC 6298): armed while something is unacknowledged; everything from `una` on is sent again, slowly.
//! - *tail probe* (in the spirit of RFC 8985 section 7): once before the first retransmission timeout of a flight, after two round
//!   trips, the last segment is sent again, so that the loss of a tail costs milliseconds and not the timeout's floor.
//! - *persist* (RFC 9293 section 3.8.6.1): armed while the window is closed and something waits; probes until it opens.

use super::pack::Packer;
use super::pos::Pos;
use super::ranges::Ranges;
use super::rare::{Rare, Resting};
use super::rtt::Rtt;
use super::spec::{MILLISECOND, Micros};
use crate::mutant::{self, Mutation};

/// RFC 6928: the initial window in segments.
const INITIAL_WINDOW: Pos = 10;
/// RFC 5681 section 3.2: duplicate acknowledgements that mean a loss.
const DUP_THRESHOLD: u32 = 3;
/// The least wait for a tail probe: a machine may need that long to be scheduled.
const TAIL_FLOOR: Micros = 10 * MILLISECOND;
/// A single segment may be acknowledged late on purpose (RFC 9293 section 3.8.6.3); 40 milliseconds is what Linux takes.
const DELAYED_ACK: Micros = 40 * MILLISECOND;
/// The longest wait between two window probes; the gate may hang on this window.
const PERSIST_MAX: Micros = 500 * MILLISECOND;
/// No congestion window grows past this many bytes: no buffer does either.
const CWND_MAX: Pos = 64 << 20;

/// What should go out now: one segment, or a run of new ones that the host is to cut (a super-packet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Position of its first byte (or of the FIN).
    pub from: Pos,
    /// Payload bytes; more than a segment's only as far as [`Supply::most`] allows.
    pub len: Pos,
    /// It ends with the FIN.
    pub fin: bool,
    /// It has been sent before.
    pub again: bool,
}

/// What a timer's expiry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing was due.
    None,
    /// Call [`Sender::next_segment`]: something is to be sent again.
    Resend,
    /// Send a window probe.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Retransmit(Micros),
    Tail(Micros),
    Persist(Micros),
}

/// What there is to send.
#[derive(Clone, Copy, Debug)]
pub struct Supply {
    /// End of what may be sent now, the FIN counted.
    pub end: Pos,
    /// Position of the FIN, if the client has sent it.
    pub fin: Option<Pos>,
    /// The most payload bytes that one [`Plan`] may have where more than one segment may go out; 0 if each goes by itself.
    pub most: Pos,
}

/// What a sender remembers of what is under way; nothing, once all is acknowledged.
#[derive(Clone, Debug, PartialEq)]
struct Flight {
    dup_acks: u32,
    /// Fast recovery lasts until this position is acknowledged (RFC 6582).
    recover: Option<Pos>,
    /// Duplicate acknowledgements below this are echoes of a go-back-N, not news of a loss (RFC 6582 section 3.2, step 1).
    timed_out_at: Pos,
    /// What was retransmitted in this recovery.
    high_rxt: Pos,
    hole_due: bool,
    tail_due: bool,
    tail_probed: bool,
    sacked: Ranges,
    timed: Option<(Pos, Micros)>,
    timer: Option<Timer>,
    /// The first byte of a super-packet of which it is not known whether it has arrived, and whether that byte was sent again since.
    run: Option<(Pos, bool)>,
    /// Whether the last one of which it is known has, until somebody asks.
    run_news: Option<bool>,
}

impl Resting for Flight {
    const RESTING: &'static Self = &Self {
        dup_acks: 0,
        recover: None,
        timed_out_at: 0,
        high_rxt: 0,
        hole_due: false,
        tail_due: false,
        tail_probed: false,
        sacked: Ranges::EMPTY,
        timed: None,
        timer: None,
        run: None,
        run_news: None,
    };
}

/// Sender state of one leg. Positions are u; SYN = 0.
#[derive(Debug)]
pub struct Sender {
    una: Pos,
    nxt: Pos,
    max: Pos,
    edge: Pos,
    cwnd: Pos,
    ssthresh: Pos,
    flight: Rare<Flight>,
    /// Round-trip time to the machine.
    pub rtt: Rtt,
    mss: u16,
}

impl Sender {
    /// A leg whose SYN is acknowledged. `mss` is the payload of a full segment in bytes; `edge` the first window's end.
    #[must_use]
    pub fn new(rtt: Rtt) -> Self {
        Self {
            una: 0,
            nxt: 0,
            max: 0,
            edge: 1,
            cwnd: INITIAL_WINDOW * 536,
            ssthresh: CWND_MAX,
            flight: Rare::new(),
            rtt,
            mss: 536,
        }
    }

    /// The SYN was acknowledged: the stream starts.
    pub fn open(&mut self, mss: u16, edge: Pos) {
        self.mss = mss.max(1);
        self.cwnd = INITIAL_WINDOW * self.mss();
        (self.una, self.nxt, self.max) = (self.una.max(1), self.nxt.max(1), self.max.max(1));
        self.edge = self.edge.max(edge);
        self.stop_timer();
    }

    fn mss(&self) -> Pos {
        Pos::from(self.mss)
    }
    /// The payload of a full segment in bytes.
    #[must_use]
    pub fn segment(&self) -> u16 {
        self.mss
    }
    fn stop_timer(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timer = None;
        }
    }
    /// Whether [`Sender::rest`] would give memory back: all that was under way has been acknowledged.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        let flight = &self.flight;
        let busy = flight.timer.is_some() || flight.recover.is_some() || flight.hole_due || flight.tail_due;
        flight.is_awake() && self.una >= self.max && !busy
    }
    /// Gives back the memory of what was under way, once all of it has been acknowledged.
    pub fn rest(&mut self) {
        if self.can_rest() {
            self.flight.rest();
        }
    }

    /// Gives the memory back if there is nothing to remember.
    pub fn settle(&mut self) {
        self.flight.settle();
    }
    /// Nothing is under way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.flight.is_awake()
    }
    /// All that it consists of at rest (`park`). Positions are likely to be near `near`.
    pub fn pack<P: Packer>(&mut self, p: &mut P, near: Pos) {
        let Self {
            una,
            nxt,
            max,
            edge,
            cwnd,
            ssthresh,
            rtt,
            mss,
            flight: _,
        } = self;
        p.pos(una, near);
        p.pos(nxt, *una);
        p.pos(max, *una);
        p.pos(edge, *una);
        p.pos(cwnd, 0);
        p.pos(ssthresh, CWND_MAX);
        p.small(mss);
        rtt.pack(p);
    }

    /// The lowest position that the machine has not acknowledged.
    #[must_use]
    pub fn una(&self) -> Pos {
        self.una
    }
    /// The next position to send.
    #[must_use]
    pub fn nxt(&self) -> Pos {
        self.nxt
    }
    /// The end of all that was ever sent.
    #[must_use]
    pub fn max(&self) -> Pos {
        self.max
    }
    /// The right edge of the machine's window.
    #[must_use]
    pub fn edge(&self) -> Pos {
        self.edge
    }
    /// When [`Sender::on_timer`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        self.flight.timer.map(|t| match t {
            Timer::Retransmit(at) | Timer::Tail(at) | Timer::Persist(at) => at,
        })
    }

    /// Somebody else (the forwarded client) has sent up to `end`: only follow.
    pub fn follow_sent(&mut self, now: Micros, from: Pos, end: Pos) {
        if end > self.max {
            if self.flight.timed.is_none() && from >= self.max {
                self.flight.wake().timed = Some((end, now));
            }
            self.max = end;
            self.nxt = end;
        } else if end > from {
            // Karn: what was sent twice is no measure.
            self.measure_no_more();
        }
    }

    /// An acknowledgement for somebody else's segments: only follow. Returns whether it advanced.
    pub fn follow_ack(&mut self, now: Micros, ack: Pos, edge: Pos) -> bool {
        let advanced = self.advance_una(now, ack);
        self.edge = self.edge.max(edge);
        self.stop_timer();
        advanced
    }

    fn measure_no_more(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timed = None;
        }
    }

    /// The sender's own work begins where a forwarded client left off (R12).
    pub fn take_over(&mut self, now: Micros) {
        self.measure_no_more();
        self.arm(now);
    }

    /// The forwarded client sends from here on.
    pub fn hand_back(&mut self) {
        if let Some(flight) = self.flight.awake() {
            flight.timer = None;
            flight.hole_due = false;
            flight.tail_due = false;
            flight.recover = None;
        }
    }

    /// Nobody sends from here on: what was under way is of no interest any more.
    pub fn forget(&mut self) {
        self.flight.rest();
    }

    fn advance_una(&mut self, now: Micros, ack: Pos) -> bool {
        if ack <= self.una {
            return false;
        }
        self.una = ack;
        self.nxt = self.nxt.max(ack);
        self.max = self.max.max(ack);
        if let Some(flight) = self.flight.awake() {
            flight.sacked.trim(ack);
            if let Some((end, sent_at)) = flight.timed
                && ack >= end
            {
                self.rtt.sample(now.saturating_sub(sent_at));
                flight.timed = None;
            }
        }
        self.rtt.reset_backoff();
        true
    }

    /// The machine speaks, and acknowledges nothing, after the timer has expired again and again: it is back from wherever it was, and what it
    /// lacks follows at once (in the spirit of RFC 6069, which takes back what the timer was backed off by while nobody could be reached).
    /// Two expiries are needed each time, so a machine that is merely hard to reach draws no more by it than by its timer.
    pub fn on_sign_of_life(&mut self, now: Micros) {
        if matches!(self.flight.timer, Some(Timer::Retransmit(_))) && self.rtt.backoffs() > 1 {
            self.rtt.reset_backoff();
            self.flight.wake().timer = Some(Timer::Retransmit(now));
        }
    }

    fn outstanding(&self) -> Pos {
        let flight = &self.flight;
        let left_the_network = if flight.sacked.is_empty() {
            // RFC 5681 section 3.2: each duplicate acknowledgement means that a segment has left the network.
            Pos::from(flight.recover.map_or(0, |_| flight.dup_acks)) * self.mss()
        } else {
            flight.sacked.total()
        };
        (self.nxt - self.una - left_the_network).max(0)
    }

    /// An acknowledgement by the machine. `repeats` says that the segment could be a duplicate acknowledgement: no payload, no
    /// SYN or FIN (RFC 5681 section 2). Blocks are what it acknowledges selectively. Returns whether `una` or the edge advanced.
    pub fn on_ack(
        &mut self,
        now: Micros,
        ack: Pos,
        edge: Pos,
        blocks: impl Iterator<Item = (Pos, Pos)>,
        repeats: bool,
    ) -> bool {
        let moved_edge = edge > self.edge;
        self.edge = self.edge.max(edge);
        for (from, to) in blocks {
            if from >= self.una.max(ack) && to <= self.max {
                self.flight.wake().sacked.insert(from, to);
            }
        }
        let before = self.una;
        if self.advance_una(now, ack) {
            self.on_progress(now, ack - before);
        } else if repeats && ack == self.una && self.una < self.max && !moved_edge {
            self.on_duplicate();
        }
        if moved_edge && matches!(self.flight.timer, Some(Timer::Persist(_))) {
            self.stop_timer();
            // The waits between window probes say nothing of the way to the machine.
            self.rtt.reset_backoff();
        }
        ack > before || moved_edge
    }

    fn on_progress(&mut self, now: Micros, acked: Pos) {
        let (una, mss) = (self.una, self.mss());
        let flight = self.flight.wake();
        flight.tail_probed = false;
        flight.dup_acks = 0;
        flight.timer = None;
        if let Some((_, again)) = flight.run.filter(|(run, _)| una > *run) {
            (flight.run, flight.run_news) = (None, Some(!again));
        }
        match flight.recover {
            // RFC 6582 section 3.2: a full acknowledgement ends recovery ...
            Some(recover) if una >= recover => {
                flight.recover = None;
                self.cwnd = self.ssthresh.min(self.outstanding().max(mss) + mss);
            }
            // ... a partial one means that the next hole is lost, too.
            Some(_) => {
                flight.high_rxt = flight.high_rxt.max(una);
                flight.hole_due = true;
            }
            None => {
                // RFC 5681 section 3.1: slow start, then congestion avoidance, by bytes acknowledged (RFC 3465, L = 2).
                let step = if self.cwnd < self.ssthresh {
                    acked.min(2 * mss)
                } else {
                    (mss * mss / self.cwnd.max(1)).max(1)
                };
                self.cwnd = (self.cwnd + step).min(CWND_MAX);
            }
        }
        self.arm(now);
    }

    fn on_duplicate(&mut self) {
        let (una, max, mss) = (self.una, self.max, self.mss());
        let flight = self.flight.wake();
        flight.dup_acks = flight.dup_acks.saturating_add(1);
        let lost = flight.dup_acks >= DUP_THRESHOLD || flight.sacked.total() >= Pos::from(DUP_THRESHOLD) * mss;
        match flight.recover {
            Some(_) => flight.hole_due |= !flight.sacked.is_empty(),
            None if lost && una >= flight.timed_out_at => {
                self.ssthresh = (self.outstanding() / 2).max(2 * mss);
                self.cwnd = self.ssthresh;
                let flight = self.flight.wake();
                flight.recover = Some(max);
                flight.high_rxt = una;
                flight.hole_due = true;
                flight.timed = None;
            }
            None => {}
        }
    }

    /// The next segment that should go out now, if any: call until `None`.
    pub fn next_segment(&mut self, now: Micros, supply: Supply) -> Option<Plan> {
        let plan = self.due_again(supply).or_else(|| self.due_new(now, supply))?;
        self.note_run(plan);
        self.arm(now);
        Some(plan)
    }

    /// Takes note of a super-packet's beginning: that it goes out, and whether it has to be sent again.
    fn note_run(&mut self, plan: Plan) {
        let (mss, flight) = (self.mss(), self.flight.wake());
        match &mut flight.run {
            Some((run, again)) => *again |= plan.again && (plan.from..plan.from + plan.len).contains(run),
            run if !plan.again && plan.len > mss => *run = Some((plan.from, false)),
            None => {}
        }
    }

    /// Whether a super-packet has arrived, or its beginning only when it was sent again, since this was last asked. Where nothing arrives at
    /// all, that says nothing of super-packets.
    pub fn take_run_news(&mut self) -> Option<bool> {
        self.flight.awake().and_then(|flight| flight.run_news.take())
    }

    fn plan(&self, from: Pos, end: Pos, supply: Supply) -> Plan {
        let fin = supply.fin.is_some_and(|fin| from <= fin && fin < end);
        Plan {
            from,
            len: (end - from - Pos::from(fin) - Pos::from(fin && mutant::is(Mutation::FinEarly))).max(0),
            fin,
            again: from < self.max,
        }
    }

    fn due_again(&mut self, supply: Supply) -> Option<Plan> {
        let taken = |due: fn(&mut Flight) -> &mut bool, flight: &mut Rare<Flight>| {
            flight.awake().is_some_and(|flight| std::mem::take(due(flight)))
        };
        if taken(|f| &mut f.hole_due, &mut self.flight) && self.flight.recover.is_some() {
            let from = self.flight.sacked.skip(self.flight.high_rxt.max(self.una));
            let limit = self
                .flight
                .sacked
                .highest()
                .unwrap_or(self.una + 1)
                .min(self.max)
                .min(supply.end);
            if from < limit || (from == self.una && from < self.max.min(supply.end)) {
                let end = self.hole_end(from, supply);
                self.flight.wake().high_rxt = end;
                return Some(self.plan(from, end, supply));
            }
        }
        if taken(|f| &mut f.tail_due, &mut self.flight) {
            let end = self.max.min(supply.end);
            let from = (end - self.mss()).max(self.una);
            if from < end {
                return Some(self.plan(from, end, supply));
            }
        }
        None
    }

    fn hole_end(&self, from: Pos, supply: Supply) -> Pos {
        let end = (from + self.mss()).min(self.max).min(supply.end);
        self.flight.sacked.next_start(from).map_or(end, |start| end.min(start))
    }

    fn due_new(&mut self, now: Micros, supply: Supply) -> Option<Plan> {
        if self.nxt < self.max {
            self.nxt = self.flight.sacked.skip(self.nxt);
        }
        let from = self.nxt;
        let usable = self.edge.min(supply.end);
        if from >= usable {
            return None;
        }
        let mut end = (from + self.mss()).min(usable);
        if from < self.max {
            end = self.hole_end(from, supply).min(usable);
        }
        let in_flight = self.outstanding();
        // RFC 9293 section 3.8.6.2.1, sender's silly window avoidance: a small segment only if it is all there is.
        let cut_by_window = end - from < self.mss() && end < supply.end && from >= self.max;
        if in_flight > 0 && (in_flight + (end - from) > self.cwnd || cut_by_window) {
            return None;
        }
        if from >= self.max {
            end = self.run_end(from, end, usable, supply);
        }
        let plan = self.plan(from, end, supply);
        let flight = self.flight.wake();
        if plan.again {
            flight.timed = None;
        } else if flight.timed.is_none() {
            flight.timed = Some((end, now));
        }
        self.nxt = end;
        self.max = self.max.max(end);
        Some(plan)
    }

    /// The end of all that may go out after a first new segment `[from, end)`: each further one by the rules that it would be sent by alone.
    fn run_end(&self, from: Pos, mut end: Pos, usable: Pos, supply: Supply) -> Pos {
        let in_flight = self.outstanding();
        let usable = if mutant::is(Mutation::SuperPacketPastWindow) {
            supply.end
        } else {
            usable
        };
        loop {
            let next = (end + self.mss()).min(usable);
            let cut_by_window = next - end < self.mss() && next < supply.end;
            let too_much = next - from > supply.most || in_flight + (next - from) > self.cwnd;
            if next == end || (end - from) % self.mss() != 0 || cut_by_window || too_much {
                return end;
            }
            end = next;
        }
    }

    /// Arms what should run: after sending, after an acknowledgement, or when a closed window leaves something waiting.
    fn arm(&mut self, now: Micros) {
        if matches!(self.flight.timer, Some(Timer::Retransmit(_) | Timer::Tail(_))) {
            return;
        }
        if self.una >= self.max {
            return;
        }
        let timeout = now + self.rtt.timeout();
        let timer = match self.rtt.smoothed() {
            Some(smoothed) if !self.flight.tail_probed && self.rtt.backoffs() == 0 => {
                let lone = if self.max - self.una <= self.mss() {
                    DELAYED_ACK
                } else {
                    0
                };
                Timer::Tail((now + (2 * smoothed).max(TAIL_FLOOR) + lone).min(timeout))
            }
            _ => Timer::Retransmit(timeout),
        };
        self.flight.wake().timer = Some(timer);
    }

    /// Keeps the persist timer running exactly while something waits, nothing is in flight and the window is closed.
    pub fn mind_window(&mut self, now: Micros, supply: Supply) {
        let blocked = self.una >= self.max && self.edge <= self.nxt && supply.end > self.nxt;
        match self.flight.timer {
            None if blocked => {
                self.flight.wake().timer = Some(Timer::Persist(now + self.rtt.timeout().min(PERSIST_MAX)));
            }
            Some(Timer::Persist(_)) if !blocked => self.stop_timer(),
            _ => {}
        }
    }

    /// A deadline may have passed.
    pub fn on_timer(&mut self, now: Micros) -> Expiry {
        let Some(flight) = self.flight.awake() else {
            return Expiry::None;
        };
        match flight.timer {
            Some(Timer::Tail(at)) if at <= now => {
                flight.tail_probed = true;
                flight.tail_due = true;
                flight.timed = None;
                flight.timer = Some(Timer::Retransmit(now + self.rtt.timeout()));
                Expiry::Resend
            }
            Some(Timer::Retransmit(at)) if at <= now && mutant::is(Mutation::NeverResends) => {
                flight.timer = None;
                Expiry::None
            }
            Some(Timer::Retransmit(at)) if at <= now => {
                self.on_timeout(now);
                Expiry::Resend
            }
            Some(Timer::Persist(at)) if at <= now => {
                self.rtt.back_off();
                flight.timer = Some(Timer::Persist(now + self.rtt.timeout().min(PERSIST_MAX)));
                Expiry::Probe
            }
            _ => Expiry::None,
        }
    }

    fn on_timeout(&mut self, now: Micros) {
        if self.rtt.backoffs() == 0 {
            // RFC 5681 section 3.1, equation 4
            self.ssthresh = (self.outstanding() / 2).max(2 * self.mss());
        }
        self.cwnd = self.mss();
        self.nxt = self.una;
        self.rtt.back_off();
        let flight = self.flight.wake();
        flight.recover = None;
        flight.dup_acks = 0;
        flight.hole_due = false;
        flight.timed = None;
        flight.timed_out_at = self.max;
        // RFC 2018 section 8: after a timeout, what was selectively acknowledged may have been thrown away.
        flight.sacked.clear();
        flight.timer = Some(Timer::Retransmit(now + self.rtt.timeout()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_BLOCKS: [(Pos, Pos); 0] = [];

    /// A sender with 1,000-byte segments, an open window and `n` segments to send.
    fn sender(n: Pos) -> (Sender, Supply) {
        let mut s = Sender::new(Rtt::new(50_000));
        s.open(1_000, 1 << 20);
        (
            s,
            Supply {
                end: 1 + 1_000 * n,
                fin: None,
                most: 0,
            },
        )
    }

    fn drain(s: &mut Sender, now: Micros, supply: Supply) -> Vec<(Pos, Pos)> {
        std::iter::from_fn(|| s.next_segment(now, supply))
            .map(|p| (p.from, p.len))
            .collect()
    }

    #[test]
    fn ten_segments_then_two_for_each_acknowledged() {
        let (mut s, all) = sender(40);
        assert_eq!(drain(&mut s, 0, all).len(), 10);
        s.on_ack(1_000, 2_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(drain(&mut s, 1_000, all).len(), 4);
        assert_eq!(s.rtt.smoothed(), Some(1_000), "the timed segment is the first");
    }

    #[test]
    fn three_duplicates_resend_the_hole_and_recovery_ends() {
        let (mut s, all) = sender(10);
        drain(&mut s, 0, all);
        s.on_ack(1_000, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        for _ in 0..2 {
            s.on_ack(1_100, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
            assert_eq!(drain(&mut s, 1_100, all), []);
        }
        s.on_ack(1_200, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(drain(&mut s, 1_200, all), [(1_001, 1_000)]);
        // A partial acknowledgement: the next hole at once.
        s.on_ack(1_300, 4_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(drain(&mut s, 1_300, all), [(4_001, 1_000)]);
        s.on_ack(1_400, 10_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!((s.una(), s.deadline()), (10_001, None));
    }

    #[test]
    fn selective_acknowledgements_spare_what_has_arrived() {
        let (mut s, all) = sender(10);
        drain(&mut s, 0, all);
        s.on_ack(1_000, 1_001, 1 << 20, [(2_001, 5_001)].into_iter(), false);
        s.on_ack(
            1_000,
            1_001,
            1 << 20,
            [(2_001, 5_001), (6_001, 10_001)].into_iter(),
            true,
        );
        assert_eq!(drain(&mut s, 1_000, all), [(1_001, 1_000)]);
        s.on_ack(1_100, 5_001, 1 << 20, [(6_001, 10_001)].into_iter(), true);
        assert_eq!(drain(&mut s, 1_100, all), [(5_001, 1_000)]);
    }

    #[test]
    fn a_lost_tail_is_probed_then_timed_out() {
        let (mut s, all) = sender(3);
        drain(&mut s, 0, all);
        s.on_ack(1_000, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(s.deadline(), Some(1_000 + TAIL_FLOOR));
        assert_eq!(s.on_timer(11_000), Expiry::Resend);
        assert_eq!(drain(&mut s, 11_000, all), [(2_001, 1_000)]);
        assert_eq!(s.on_timer(61_000), Expiry::Resend);
        assert_eq!(drain(&mut s, 61_000, all), [(1_001, 1_000)]);
        assert_eq!(s.deadline(), Some(161_000), "backed off (RFC 6298 5.5)");
    }

    #[test]
    fn a_closed_window_is_probed_until_it_opens() {
        let (mut s, _) = sender(0);
        let more = Supply {
            end: (1 << 20) + 10,
            fin: None,
            most: 0,
        };
        s.una = 1 << 20;
        (s.nxt, s.max) = (s.una, s.una);
        assert_eq!(drain(&mut s, 0, more), []);
        s.mind_window(0, more);
        assert_eq!(s.on_timer(50_000), Expiry::Probe);
        s.on_ack(51_000, 1 << 20, (1 << 20) + 10, NO_BLOCKS.into_iter(), true);
        assert_eq!(drain(&mut s, 51_000, more), [(1 << 20, 10)]);
    }

    #[test]
    fn the_fin_is_sent_with_the_last_byte_or_alone() {
        let (mut s, _) = sender(1);
        let with_fin = Supply {
            end: 502,
            fin: Some(501),
            most: 0,
        };
        assert_eq!(
            s.next_segment(0, with_fin),
            Some(Plan {
                from: 1,
                len: 500,
                fin: true,
                again: false
            })
        );
        let (mut s, data) = sender(1);
        drain(&mut s, 0, data);
        let with_fin = Supply {
            end: 1_002,
            fin: Some(1_001),
            most: 0,
        };
        assert_eq!(
            s.next_segment(0, with_fin),
            Some(Plan {
                from: 1_001,
                len: 0,
                fin: true,
                again: false
            })
        );
    }

    /// As [`sender`], with super-packets of up to `most` bytes.
    fn in_runs(n: Pos, most: Pos, edge: Pos) -> (Sender, Supply) {
        let mut s = Sender::new(Rtt::new(50_000));
        s.open(1_000, edge);
        let (end, fin) = (1 + 1_000 * n, None);
        (s, Supply { end, fin, most })
    }

    #[test]
    fn a_run_ends_with_the_window_the_flight_or_the_packet() {
        // Silly window avoidance holds for its last segment, too.
        let (mut s, all) = in_runs(40, 64_000, 3_501);
        assert_eq!(drain(&mut s, 0, all), [(1, 3_000)]);
        let (mut s, all) = in_runs(40, 64_000, 1 << 20);
        assert_eq!(drain(&mut s, 0, all), [(1, 10_000)], "the initial window");
        s.on_ack(1_000, 4_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(drain(&mut s, 1_000, all), [(10_001, 6_000)]);
        let (mut s, all) = in_runs(40, 3_999, 1 << 20);
        let parts = [(1, 3_000), (3_001, 3_000), (6_001, 3_000), (9_001, 1_000)];
        assert_eq!(drain(&mut s, 0, all), parts);
    }

    #[test]
    fn a_run_is_what_single_segments_would_be() {
        for edge in [1, 700, 1_001, 2_500, 9_999, 1 << 20] {
            for (n, cut) in [(1, 0), (3, 400), (12, 1), (40, 999)] {
                let sums = [0, 1_500, 4_000, 64_000].map(|most| {
                    let (mut s, all) = in_runs(n, most, edge);
                    let supply = Supply {
                        end: all.end - cut,
                        fin: Some(all.end - cut - 1),
                        ..all
                    };
                    let sent = drain(&mut s, 0, supply);
                    (sent.iter().map(|p| p.1).sum::<Pos>(), s.nxt(), s.max())
                });
                assert!(sums.iter().all(|sum| *sum == sums[0]), "{edge} {n} {cut}: {sums:?}");
            }
        }
    }

    #[test]
    fn what_is_sent_again_goes_one_by_one() {
        let (mut s, all) = in_runs(10, 64_000, 1 << 20);
        assert_eq!(drain(&mut s, 0, all), [(1, 10_000)]);
        for _ in 0..3 {
            s.on_ack(1_000, 1, 1 << 20, NO_BLOCKS.into_iter(), true);
        }
        assert_eq!(drain(&mut s, 1_000, all), [(1, 1_000)]);
        while s.on_timer(s.deadline().expect("armed")) != Expiry::Resend || s.nxt() > 1 {}
        assert_eq!(drain(&mut s, 500_000, all), [(1, 1_000)]);
        s.on_ack(500_000, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert!(drain(&mut s, 500_000, all).iter().all(|p| p.1 == 1_000));
    }

    #[test]
    fn a_run_is_lost_only_where_what_was_sent_again_arrives() {
        let (mut s, all) = in_runs(10, 64_000, 1 << 20);
        drain(&mut s, 0, all);
        assert_eq!(s.take_run_news(), None);
        // Again and again, and nothing is heard: the machine may be dead.
        for _ in 0..6 {
            let at = s.deadline().expect("armed");
            s.on_timer(at);
            drain(&mut s, at, all);
            assert_eq!(s.take_run_news(), None);
        }
        s.on_ack(9_000_000, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(s.take_run_news(), Some(false));
        assert_eq!(s.take_run_news(), None, "said once");
        let (mut s, all) = in_runs(10, 64_000, 1 << 20);
        drain(&mut s, 0, all);
        s.on_ack(1_000, 1_001, 1 << 20, NO_BLOCKS.into_iter(), true);
        assert_eq!(s.take_run_news(), Some(true));
    }
}
