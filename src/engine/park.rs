//! A flow at rest as a few bytes (R18: what an idle flow costs is bounded).
//!
//! A flow that is open, has nothing under way and has given back what only a busy one needs is *parked*: written down without its padding and
//! its wide fields, of which most are near each other. The next packet, deadline or command that means it makes it what it was, to the
//! bit; no rule knows of the difference.

mod parts;

use super::context::Context;
use super::diverge::Compare;
use super::flow::{ClientSide, Flow, FlowState, Promise, SynOptions};
use super::leg::{Leg, LegState, Mode};
use super::pack::{Packer, Reader, Writer};
use super::rare::Rare;
use super::rtt::Rtt;
use super::sendbuf::SendBuffer;
use super::spec::{MachineId, Micros, ServiceId};
use crate::wire::Seq;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A parked flow.
#[derive(Debug, Default)]
pub struct Parked(Box<[u8]>);

/// What is asked of a parked flow, and does not wake it.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// As in [`Flow`].
    pub generation: u32,
    /// As in [`Flow`].
    pub seen_at: Micros,
    /// As in [`Flow`].
    pub armed: Option<Micros>,
}

impl Label {
    fn pack<P: Packer>(&mut self, p: &mut P) {
        p.word(&mut self.generation);
        p.whole(&mut self.seen_at);
        p.option(&mut self.armed, |p, at| p.time(at, self.seen_at));
    }
}

impl Parked {
    /// The flow's parked form. Call it only if [`Flow::can_park`]: what is busy would be forgotten.
    #[must_use]
    pub fn new(flow: &mut Flow, writer: &mut Writer) -> Self {
        flow.pack(writer);
        let parked = Self(writer.take());
        debug_assert_eq!(format!("{:?}", parked.flow()), format!("{flow:?}"), "parked");
        parked
    }
    /// The flow as it was.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let mut flow = blank();
        self.read_into(&mut flow);
        flow
    }
    /// The same into a flow that was made of another.
    pub fn read_into(&self, flow: &mut Flow) {
        flow.pack(&mut Reader(&self.0));
    }
    /// What can be said without making the flow anew.
    #[must_use]
    pub fn label(&self) -> Label {
        let mut label = Label {
            generation: 0,
            seen_at: 0,
            armed: None,
        };
        label.pack(&mut Reader(&self.0));
        label
    }
}

/// A flow for a [`Reader`] to set.
fn blank() -> Flow {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Flow {
        service: ServiceId(0),
        peer: nowhere,
        state: FlowState::Open,
        client: ClientSide {
            addr: nowhere,
            isn: Seq(0),
            syn: SynOptions::default(),
            syn_window: 0,
            max: 0,
            acked: 0,
            edge: 0,
            largest_window: 0,
            ts_latest: None,
            ts_recent: None,
            challenged_at: None,
            ack_out: 0,
            edge_out: 0,
            sent: 0,
            ts_out: None,
            ts_echo: 0,
            ack_due: false,
            syn_ack_due: false,
            has_left: false,
        },
        promise: Promise::default(),
        buffer: SendBuffer::default(),
        legs: Vec::new(),
        original: 0,
        fin: None,
        trial: Rare::new(),
        fin_due: false,
        blocks: Rare::new(),
        behind_since: None,
        cleared: 0,
        seen_at: 0,
        since: 0,
        shrunk_at: 0,
        dirty: false,
        switched: false,
        lead: MachineId(0),
        heir: None,
        recover_to: 0,
        compare: None,
        resent: 0,
        armed: None,
        generation: 0,
    }
}

fn blank_leg() -> Leg {
    Leg::new(MachineId(0), Mode::Direct, Rtt::new(0), 0)
}

impl Flow {
    /// Whether it can be parked: nothing is under way, nobody waits for anybody, and all memory has been given back that can be.
    #[must_use]
    pub fn can_park(&self) -> bool {
        let leg = |leg: &Leg| leg.state != LegState::SynSent && leg.is_at_rest();
        self.state == FlowState::Open
            && self.buffer.is_at_rest()
            && self.legs.iter().all(leg)
            && !self.trial.is_awake()
            && !self.blocks.is_awake()
            && self.compare.as_ref().is_none_or(|compare| compare.is_at_rest())
            && self.behind_since.is_none()
            && self.heir.is_none()
            && !self.dirty
    }

    /// When the flow is to be parked, if nothing comes until then: one that has only been opened at once, so that many that come together
    /// are never all awake.
    #[must_use]
    pub fn parks_at(&self, cx: &Context) -> Option<Micros> {
        let wait = if self.is_fresh() { 0 } else { cx.spec.limits.park_after };
        self.can_park().then(|| self.seen_at + wait)
    }

    /// Gives back what the handshakes took, as soon as it says nothing any more. That is not done for a flow that works: it would be taken again.
    pub fn forget_handshakes(&mut self) {
        if self.is_fresh() {
            self.legs.iter_mut().for_each(Leg::settle);
        }
    }

    /// Open, and nobody has said anything yet.
    fn is_fresh(&self) -> bool {
        self.state == FlowState::Open && self.client.max <= 1 && self.client.sent <= 1
    }

    /// All that it consists of while it can be parked.
    fn pack<P: Packer>(&mut self, p: &mut P) {
        let Self {
            service,
            peer,
            client,
            promise,
            buffer,
            legs,
            original,
            fin,
            fin_due,
            cleared,
            seen_at,
            since,
            shrunk_at,
            switched,
            lead,
            recover_to,
            compare,
            resent,
            armed,
            generation,
            // At rest, by `can_park`.
            state: _,
            trial: _,
            blocks: _,
            behind_since: _,
            dirty: _,
            heir: _,
        } = self;
        let mut label = Label {
            generation: *generation,
            seen_at: *seen_at,
            armed: *armed,
        };
        label.pack(p);
        (*generation, *seen_at, *armed) = (label.generation, label.seen_at, label.armed);
        p.small(&mut service.0);
        p.whole(since);
        p.time(shrunk_at, *seen_at);
        client.pack(p, *seen_at);
        parts::pack_peer(p, peer, client.addr);
        promise.pack(p);
        buffer.pack(p, client.max);
        p.option(fin, |p, at| p.pos(at, client.sent));
        p.flags([fin_due, switched]);
        p.small(cleared);
        p.small(&mut lead.0);
        // Not from where the client is: it goes on, and the distance would take ever more room.
        p.pos(recover_to, 0);
        p.pos(resent, 0);
        p.index(original);
        let mut count = legs.len();
        p.count(&mut count);
        legs.reserve_exact(count.saturating_sub(legs.len()));
        legs.resize_with(count, blank_leg);
        for leg in legs {
            leg.pack(p, client, *since, *seen_at);
        }
        let compared = client.sent;
        p.option(compare, |p, compare: &mut Box<Compare>| compare.pack(p, compared));
    }
}

#[cfg(test)]
mod tests;
