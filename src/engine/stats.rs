//! Counters: every drop has a reason, every reason a counter (I7).

use crate::variants::named_enum;

named_enum! {
    /// Why a packet was not let through.
    DropReason {
        /// Not a whole, consistent IPv4/IPv6 + TCP packet.
        Malformed => "malformed",
        /// Its TCP checksum is wrong.
        Checksum => "checksum",
        /// A fragment of PSC traffic (R20).
        Fragment => "fragment",
        /// Neither to a PSC nor from a machine of one.
        NotOurs => "not_ours",
        /// From a machine, but on an interface that is not its own (R22).
        WrongInterface => "wrong_interface",
        /// A packet without SYN that belongs to no flow (R19).
        UnknownFlow => "unknown_flow",
        /// Flow table, half-open table or port pool full (R18).
        TableFull => "table_full",
        /// No machine of the service is alive.
        NoMachine => "no_machine",
        /// Sequence or acknowledgement number, or flags, that can't be (R22).
        Implausible => "implausible",
        /// A RST that is not exactly placed (RFC 5961).
        MisplacedReset => "misplaced_reset",
        /// Client data beyond what may be buffered (R18).
        BufferFull => "buffer_full",
        /// A pure ACK that says nothing new after clipping (R6).
        NoNews => "no_news",
        /// Absorbed: a replica's packet, answered by the ghost client (R7).
        Replica => "replica",
        /// Absorbed: taken into the send buffer and sent on by the engine itself (recovering original).
        Relayed => "relayed",
        /// From a machine that lost this flow (R13).
        Fenced => "fenced",
        /// The answer to a probe of our own.
        ProbeReply => "probe_reply",
        /// The answer to a probe of our own by a host whose service does not listen.
        ProbeRefused => "probe_refused",
        /// The original's end, until a replica confirms it (R11).
        Held => "held",
    }
}

named_enum! {
    /// Things worth counting that are not drops.
    Counter {
        /// Packets given to the engine.
        PacketsIn => "packets_in",
        /// Packets accepted as rewritten.
        Accepted => "accepted",
        /// Packets that the engine originated.
        Originated => "originated",
        /// Of these, super-packets: each counts as one, and is cut into segments by the host.
        SuperPackets => "super_packets",
        /// The segments that those are cut into.
        SuperSegments => "super_segments",
        /// How often a machine got none for a while, since they did not arrive.
        SuperPacketPauses => "super_packet_pauses",
        /// Flows opened by a client's SYN.
        FlowsOpened => "flows_opened",
        /// Flows forgotten, for whatever reason.
        FlowsClosed => "flows_closed",
        /// Flows that could not go on: no eligible leg was left.
        FlowsLost => "flows_lost",
        /// Replica legs opened.
        LegsOpened => "legs_opened",
        /// Replica legs whose machine refused the connection.
        LegsRefused => "legs_refused",
        /// Times that a client no longer waited for a replica that was behind (R15).
        LegsTrailed => "legs_trailed",
        /// Replica legs evicted (R15).
        LegsEvicted => "legs_evicted",
        /// Legs that may not take over: they answered with other options than promised, were released past causality, or said something
        /// of another length or, by policy, anything else (R5, R17, R23).
        LegsIneligible => "legs_ineligible",
        /// Legs reset because they did not finish in time (R10).
        LegsReset => "legs_reset",
        /// Flows taken over (R12).
        Takeovers => "takeovers",
        /// Of those, flows that moved by plan, to a machine that was level.
        HandoversLevel => "handovers_level",
        /// Segments retransmitted to legs.
        Retransmissions => "retransmissions",
        /// Retransmission timeouts of legs.
        Timeouts => "timeouts",
        /// Waits of a leg for its own machine's output that were given up (R23).
        CausalityReleases => "causality_releases",
        /// Acknowledgements sent to clients on a replica's behalf (R6).
        ClientAcks => "client_acks",
        /// Acknowledgements sent to legs as the ghost client (R7).
        GhostAcks => "ghost_acks",
        /// Resets sent.
        ResetsSent => "resets_sent",
        /// Resets of the original or the client passed on.
        ResetsPassed => "resets_passed",
        /// SYNs on live connections: passed to the original, or challenged in its stead (R21, RFC 5961 section 4).
        SynsChallenged => "syns_challenged",
        /// Probes answered.
        ProbeReplies => "probe_replies",
        /// Replica output that was not cached because a limit was reached (R9, R18).
        CacheSkipped => "cache_skipped",
        /// Legs whose output differed from what the client was given (R17).
        LegsDiverged => "legs_diverged",
        /// Those whose output is of another length (R17).
        LengthsDiverged => "lengths_diverged",
        /// Bytes of legs that differed (R17).
        DivergedBytes => "diverged_bytes",
        /// Bytes of legs that were not compared: lost on the way to the engine, or too late for the buffers (R17, R18).
        Uncompared => "uncompared",
        /// Differences in which a majority agreed against the original (R17).
        OriginalsOutvoted => "originals_outvoted",
        /// FINs and RSTs of originals that needed, or were held for, a replica's confirmation (R11).
        VotesOpened => "votes_opened",
        /// Of these, confirmed by a replica.
        VotesConfirmed => "votes_confirmed",
        /// Of these, taken for the original's own failure: the flow moved to a replica.
        VotesMasked => "votes_masked",
        /// Of these, ended by something else: nobody was left to vote, the client went, the original was replaced.
        VotesMoot => "votes_moot",
        /// Flows that moved because their original's service, which has ended many others alone, did not answer (R11).
        CrashesLeft => "crashes_left",
        /// FINs that reached their client late because of a vote that the original won.
        FinsDelayed => "fins_delayed",
        /// By how much, in microseconds, all together.
        FinDelay => "fin_delay_us",
        /// The longest of these delays in microseconds.
        FinDelayMax => "fin_delay_max_us",
        /// Connections that a machine refused and that were tried on another.
        RefusalsMasked => "refusals_masked",
    }
}

/// One shard's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    drops: [u64; DropReason::ALL.len()],
    counters: [u64; Counter::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            drops: [0; DropReason::ALL.len()],
            counters: [0; Counter::ALL.len()],
        }
    }
}

impl Stats {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
    /// Counts one event.
    pub fn count(&mut self, counter: Counter) {
        self.counters[counter as usize] += 1;
    }
    /// Counts several at once.
    pub fn add_to(&mut self, counter: Counter, n: u64) {
        self.counters[counter as usize] += n;
    }
    /// Notes a new maximum.
    pub fn raise(&mut self, counter: Counter, to: u64) {
        let value = &mut self.counters[counter as usize];
        *value = to.max(*value);
    }
    /// Drops for a reason so far.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
    /// A counter's value.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
    /// All drops together.
    #[must_use]
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().sum()
    }
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &Stats) {
        for (a, b) in self.drops.iter_mut().zip(other.drops) {
            *a += b;
        }
        for (counter, b) in Counter::ALL.iter().zip(other.counters) {
            match counter {
                Counter::FinDelayMax => self.raise(*counter, b),
                _ => self.add_to(*counter, b),
            }
        }
    }
}
