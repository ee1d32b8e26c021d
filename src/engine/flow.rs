//! One client connection to a PSC: what the client was promised, where both number lines stand, and its legs.

use super::diverge::Compare;
use super::leg::{Leg, LegState, Mode};
use super::pos::{Pos, pos_of, seq_of};
use super::rare::{Rare, Resting};
use super::sendbuf::SendBuffer;
use super::spec::{MachineId, MachineRef, Micros, ServiceId};
use super::stats::{Counter, Stats};
use super::stream::Budget;
use crate::wire::{Options, SackBlocks, Seq, Timestamps};
use std::net::SocketAddr;

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The client's SYN was sent on; no SYN/ACK yet.
    SynSent,
    /// The client was given a SYN/ACK, but has not yet proved that it is real (R1).
    SynReceived,
    /// Established.
    Open,
    /// Closed in order, both FINs acknowledged; kept for retransmissions and for replicas that are not done (R10, R24).
    Closed {
        /// Since when.
        at: Micros,
    },
    /// Ended by a RST of the client or the original; replicas still get what the client had sent (R24).
    Reset {
        /// Since when.
        at: Micros,
    },
}

/// What the client was promised in its SYN/ACK.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    /// Start of the numbering that the client knows (`ISN_0`).
    pub isn: Seq,
    /// Shift of the windows that it is given; `None` without window scaling.
    pub wscale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// The largest payload that it may send, in bytes.
    pub mss: u16,
}

/// The options of a client's SYN: what else a segment may carry has no place there.
#[derive(Clone, Copy, Debug, Default)]
pub struct SynOptions {
    /// The largest payload that it takes, in bytes.
    pub mss: Option<u16>,
    /// Shift of its own windows.
    pub wscale: Option<u8>,
    /// Selective acknowledgements.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
}

impl From<&Options> for SynOptions {
    fn from(options: &Options) -> Self {
        Self {
            mss: options.mss,
            wscale: options.wscale,
            sack_permitted: options.sack_permitted,
            timestamps: options.timestamps,
        }
    }
}

impl Resting for SackBlocks {
    const RESTING: &'static Self = &Self::EMPTY;
}

/// The client as the engine has seen and told it.
#[derive(Debug)]
pub struct ClientSide {
    /// Its address and port.
    pub addr: SocketAddr,
    /// Start of its numbering.
    pub isn: Seq,
    /// The options of its SYN that passed R2.
    pub syn: SynOptions,
    /// The window of its SYN.
    pub syn_window: u16,
    /// The end of all that it has sent (u), holes included.
    pub max: Pos,
    /// What it has acknowledged (v).
    pub acked: Pos,
    /// The right edge of its window (v).
    pub edge: Pos,
    /// The largest window that it has offered, in bytes (RFC 5961 section 5).
    pub largest_window: Pos,
    /// Its latest TSval.
    pub ts_latest: Option<u32>,
    /// The TSval of its last segment in sequence (RFC 7323's TS.Recent).
    pub ts_recent: Option<u32>,
    /// When it was last answered for sending what can't be.
    pub challenged_at: Option<Micros>,
    /// The acknowledgement that it was last given (u): never runs backwards (I5).
    pub ack_out: Pos,
    /// The right edge of the window that it was last given (u), as it was quantised.
    pub edge_out: Pos,
    /// The end of what it was sent (v).
    pub sent: Pos,
    /// The latest TSval that it was given.
    pub ts_out: Option<u32>,
    /// The TSval of its own that it is to be given back on what the engine originates.
    pub ts_echo: u32,
    /// It is owed an acknowledgement that says nothing new: it asked (probe, duplicate, misplaced segment).
    pub ack_due: bool,
    /// It repeats its SYN, although it was promised something by a machine that has died since.
    pub syn_ack_due: bool,
    /// Its address and port belong to a newer flow (R21): whatever this one has to say would be heard there, in numbers that mean nothing
    /// to it.
    pub has_left: bool,
}

/// One flow.
#[derive(Debug)]
pub struct Flow {
    /// Which service.
    pub service: ServiceId,
    /// The address that the machines see as their peer (design section 2).
    pub peer: SocketAddr,
    /// How far it has come.
    pub state: FlowState,
    /// The client.
    pub client: ClientSide,
    /// What the client was promised.
    pub promise: Promise,
    /// The client's bytes.
    pub buffer: SendBuffer,
    /// One leg per machine that was ever part of it.
    pub legs: Vec<Leg>,
    /// Index into `legs`: who is original.
    pub original: usize,
    /// Position of the service's FIN (v), once it may reach the client (R11).
    pub fin: Option<Pos>,
    /// What is held against the original, and not decided yet (R11, R14).
    pub trial: Rare<super::vote::Trial>,
    /// The client is owed the service's FIN: the original's own was held.
    pub fin_due: bool,
    /// The selective acknowledgements that the original sent last (u), for what the engine says in its stead.
    pub blocks: Rare<SackBlocks>,
    /// Since when another machine has acknowledged, or said, what the original has not, and the original is silent (R14); or since it was
    /// last suspected of that.
    pub behind_since: Option<Micros>,
    /// How often it was suspected of that in this silence, and was not dead.
    pub cleared: u8,
    /// When anything last arrived for it.
    pub seen_at: Micros,
    /// When its state was entered.
    pub since: Micros,
    /// When its memory was last looked over.
    pub shrunk_at: Micros,
    /// It is in the engine's list of flows with work to do.
    pub dirty: bool,
    /// A switch is under way: cached output and an acknowledgement are owed to the client (R12).
    pub switched: bool,
    /// Whose bytes were the last new ones for the client.
    pub lead: MachineId,
    /// The machine that is to become original as soon as it is level (planned handover).
    pub heir: Option<MachineId>,
    /// What the last original had acknowledged (u) when it lost the flow: so far the new one is recovering (R12).
    pub recover_to: Pos,
    /// R17's comparison, once there is something to compare.
    pub compare: Option<Box<Compare>>,
    /// The client was last seen to retransmit what the original has not acknowledged, at this position.
    pub resent: Pos,
    /// The earliest deadline in the timer heap.
    pub armed: Option<Micros>,
    /// Tells its timers from those of a flow that used its slot before.
    pub generation: u32,
}

impl Flow {
    /// The original's leg. The index is kept valid by construction: a flow always has at least one leg.
    #[must_use]
    pub fn original(&self) -> &Leg {
        &self.legs[self.original]
    }
    /// The end of the bytes that the client was sent (v), the FIN not counted.
    #[must_use]
    pub fn heard(&self) -> Pos {
        self.fin.map_or(self.client.sent, |fin| self.client.sent.min(fin))
    }
    /// The original's leg.
    pub fn original_mut(&mut self) -> &mut Leg {
        &mut self.legs[self.original]
    }
    /// Index of a machine's leg.
    #[must_use]
    pub fn leg_of(&self, machine: MachineId) -> Option<usize> {
        self.legs.iter().position(|l| l.machine == machine)
    }
    /// The position (u) of a sequence number of the client.
    #[must_use]
    pub fn u_of(&self, seq: Seq) -> Pos {
        pos_of(self.buffer.end(), self.client.isn, seq)
    }
    /// The client's sequence number of a position (u): the same on every leg.
    #[must_use]
    pub fn client_seq(&self, u: Pos) -> Seq {
        seq_of(self.client.isn, u)
    }
    /// The position (v) that an acknowledgement of the client means.
    #[must_use]
    pub fn v_of_ack(&self, ack: Seq) -> Pos {
        pos_of(self.client.acked, self.promise.isn, ack)
    }
    /// The sequence number that the client knows for a position (v).
    #[must_use]
    pub fn promised_seq(&self, v: Pos) -> Seq {
        seq_of(self.promise.isn, v)
    }
    /// The shift of the client's own windows: in use only if both sides sent the option (RFC 7323 section 2.2).
    #[must_use]
    pub fn client_shift(&self) -> u8 {
        match (self.client.syn.wscale, self.promise.wscale) {
            (Some(shift), Some(_)) => shift,
            _ => 0,
        }
    }
    /// Whether somebody besides a directly fed original may want the client's bytes.
    #[must_use]
    pub fn must_keep(&self) -> bool {
        self.has_followers()
    }
    /// Both sides are done, in order or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, FlowState::Closed { .. } | FlowState::Reset { .. })
    }
    /// The client has not proved itself yet.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        matches!(self.state, FlowState::SynSent | FlowState::SynReceived)
    }
    /// An original that has taken over and has not yet acknowledged and sent as much as the old one had (R12, thesis role 4).
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        let leg = self.original();
        let behind = !leg.is_open() || leg.acked() < self.recover_to || leg.sent < self.client.sent;
        leg.mode == Mode::Relayed && behind && !self.is_over() && !self.is_half_open()
    }
    /// The machine whose leg is `index`.
    #[must_use]
    pub fn machine_ref(&self, index: usize) -> MachineRef {
        MachineRef {
            service: self.service,
            machine: self.legs[index].machine,
        }
    }
    /// Leg `index` must not take over, from now on.
    pub fn disqualify(&mut self, index: usize, stats: &mut Stats) {
        if std::mem::take(&mut self.legs[index].eligible) {
            stats.count(Counter::LegsIneligible);
        }
    }
    /// Takes a leg out of the flow and frees what it held.
    pub fn drop_leg(&mut self, index: usize, budget: &mut Budget) {
        let leg = &mut self.legs[index];
        leg.state = LegState::Gone;
        leg.cache.release(budget);
        leg.sender.forget();
        leg.waits.rest();
        leg.ack_due = false;
        leg.work_due = false;
        leg.probe_due = false;
    }
    /// Gives all memory back.
    pub fn release(&mut self, budget: &mut Budget) {
        self.buffer.release(budget);
        for leg in &mut self.legs {
            leg.cache.release(budget);
        }
        if let Some(compare) = &mut self.compare {
            compare.release(budget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    /// What an idle flow takes, beside its places in the tables and in the heap of timers. `tests/net/hostile/idle.rs` measures the whole.
    #[test]
    fn an_idle_flow_is_small() {
        let (flow, leg) = (size_of::<Flow>(), size_of::<Leg>());
        assert!(flow <= 440, "{flow} bytes a flow");
        assert!(leg <= 224, "{leg} bytes a leg");
    }
}
