//! Rules broken on purpose, one at a time, for `make mutants`: a simulation that does not notice proves nothing.
//!
//! Without the feature `mutants` the question [`is`] is the constant `false`, and nothing of this is left in the binary.

use crate::variants::listed_enum;

listed_enum! {
    /// One rule of the design, and how it is broken.
    Mutation {
        /// R4: the client is told one byte more than a replica allows.
        CommitOffByOne,
        /// R4: replicas don't count.
        CommitIgnoresReplicas,
        /// I5: an old number of the original takes an acknowledgement back.
        AckBackwards,
        /// R5: the window is given in bytes, whatever the scale promised.
        WindowUnscaled,
        /// R5: only the original's window counts.
        WindowIgnoresReplicas,
        /// R6: acknowledgements that say nothing new are passed on.
        FalseNews,
        /// R7: what a replica has sent is acknowledged before the client has it.
        GhostAcksTooFar,
        /// I4: what the client has acknowledged is acknowledged to machines that have not sent it.
        AcksUnsent,
        /// R7, I6: a replica's output goes to the client.
        ReplicaSpeaks,
        /// R8: blocks stay as they are when the acknowledgement is clipped.
        BlocksNotClipped,
        /// Section 4: the client's blocks reach the machine in the client's numbering.
        BlocksUntranslated,
        /// Section 4: a machine's sequence number reaches the client as it is.
        SeqUntranslated,
        /// Section 4: the client's echo reaches the machine as it is.
        EchoUntranslated,
        /// Section 4: the clock's offset is taken off instead of added.
        ClockOffsetSign,
        /// I5: no offset, and nothing keeps the clock from going back.
        ClockBackwards,
        /// R9: a takeover waits for the new original's own retransmission.
        CacheNotReplayed,
        /// R10: a FIN stands one byte early.
        FinEarly,
        /// R3: a retransmission timeout does nothing.
        NeverResends,
        /// R3: a super-packet goes past the machine's window.
        SuperPacketPastWindow,
        /// R13: a machine that has lost its flow is heard again.
        FenceOpen,
        /// R14: no proof is ever enough.
        NeverDeclaredDead,
        /// R23: bytes are released before their machine has answered.
        CausalityIgnored,
        /// R23: a replica's wait is given up although it has yet to hear what it was given.
        ReleasesUnheard,
        /// R12: a planned handover does not wait until the new original is level.
        LevelUnchecked,
        /// R12: connections at rest are not told that their machine has fallen.
        SleepersUntold,
        /// R23: an original that was beaten is fed the client's packets as they come.
        BeatenStaysDirect,
        /// R5, R16: a leg that can't keep the promises speaks to the client.
        IneligibleSpeaks,
        /// R12: a machine whose service has ended too early takes over all the same.
        EndedTakesOver,
        /// R17: differing bytes pass for the same.
        DifferencesUnseen,
        /// R17: output that ends early or goes on passes for the same.
        LengthsUnseen,
        /// RFC 1624: the TCP checksum is left as it was.
        ChecksumStale,
        /// I8: memory that is given back still counts as used.
        MemoryLeaks,
        /// R11: the original's FIN or RST is believed at once.
        NoVote,
        /// R11: who trails is no witness, even of a connection on which nobody has said anything.
        TrailingUnheard,
        /// R11: whoever is slow is taken for crashing.
        LeavesUnproven,
        /// R14: the end of one replica is enough.
        OneEndSuffices,
        /// R14: half of `hang` is enough.
        HangsTooSoon,
        /// R14: a larger buffer is taken for a service that reads.
        BufferReads,
        /// R14: a client that does not read is no excuse.
        UnreadHangs,
        /// A refused connection is passed on although another machine may accept it.
        RefusalPassed,
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Breaks one rule in this thread's engines from now on, or none.
    pub fn choose(mutation: Option<Mutation>) {
        CHOSEN.set(mutation);
    }

    /// Whether this rule is broken now.
    #[must_use]
    pub fn is(mutation: Mutation) -> bool {
        CHOSEN.get() == Some(mutation)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

/// Whether this rule is broken now.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutation) -> bool {
    false
}
