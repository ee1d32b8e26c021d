//! The parts of a flow, field by field, as they are parked. Each is taken apart by name: a new field that was forgotten here would not compile.

use crate::engine::flow::{ClientSide, Promise, SynOptions};
use crate::engine::leg::{Leg, LegState, Mode};
use crate::engine::pack::Packer;
use crate::engine::spec::Micros;
use crate::wire::Timestamps;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

fn pack_address<P: Packer>(p: &mut P, address: &mut SocketAddr) {
    let mut is_v6 = address.is_ipv6();
    p.flags([&mut is_v6]);
    let mut port = address.port();
    p.small(&mut port);
    if !is_v6 {
        let mut bits = match address.ip() {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(_) => 0,
        };
        p.word(&mut bits);
        *address = SocketAddr::new(Ipv4Addr::from_bits(bits).into(), port);
        return;
    }
    let (mut octets, mut flow, mut scope) = match address {
        SocketAddr::V6(v6) => (v6.ip().octets(), v6.flowinfo(), v6.scope_id()),
        SocketAddr::V4(_) => ([0; 16], 0, 0),
    };
    p.bytes(&mut octets);
    p.small(&mut flow);
    p.small(&mut scope);
    *address = SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope).into();
}

/// With `source = "client"` the machines see the client's own address.
pub(super) fn pack_peer<P: Packer>(p: &mut P, peer: &mut SocketAddr, client: SocketAddr) {
    let mut is_client = *peer == client;
    p.flags([&mut is_client]);
    if is_client {
        *peer = client;
    } else {
        pack_address(p, peer);
    }
}

impl ClientSide {
    pub(super) fn pack<P: Packer>(&mut self, p: &mut P, seen_at: Micros) {
        let Self {
            addr,
            isn,
            syn,
            syn_window,
            max,
            acked,
            edge,
            largest_window,
            ts_latest,
            ts_recent,
            challenged_at,
            ack_out,
            edge_out,
            sent,
            ts_out,
            ts_echo,
            ack_due,
            syn_ack_due,
            has_left,
        } = self;
        pack_address(p, addr);
        p.word(&mut isn.0);
        syn.pack(p);
        p.small(syn_window);
        p.far_pos(max);
        p.pos(ack_out, *max);
        p.pos(edge_out, *max);
        p.far_pos(sent);
        p.pos(acked, *sent);
        p.pos(edge, *sent);
        p.pos(largest_window, 0);
        p.option(ts_latest, Packer::word);
        p.option(ts_recent, Packer::word);
        p.option(ts_out, Packer::word);
        p.word(ts_echo);
        p.option(challenged_at, |p, at| p.time(at, seen_at));
        p.flags([ack_due, syn_ack_due, has_left]);
    }
}

impl SynOptions {
    fn pack<P: Packer>(&mut self, p: &mut P) {
        let Self {
            mss,
            wscale,
            sack_permitted,
            timestamps,
        } = self;
        p.option(mss, Packer::small);
        p.option(wscale, Packer::small);
        p.flags([sack_permitted]);
        let mut both = timestamps.map(|t| (t.val, t.ecr));
        p.option(&mut both, |p, (val, ecr)| {
            p.word(val);
            p.word(ecr);
        });
        *timestamps = both.map(|(val, ecr)| Timestamps { val, ecr });
    }
}

impl Promise {
    pub(super) fn pack<P: Packer>(&mut self, p: &mut P) {
        let Self {
            isn,
            wscale,
            sack,
            timestamps,
            mss,
        } = self;
        p.word(&mut isn.0);
        p.option(wscale, Packer::small);
        p.flags([sack, timestamps]);
        p.small(mss);
    }
}

impl Leg {
    /// Nobody waits for anybody, nothing is under way and nothing kept.
    pub(super) fn is_at_rest(&self) -> bool {
        self.sender.is_at_rest() && self.cache.is_at_rest() && !self.waits.is_awake()
    }

    /// All that it consists of while it is at rest.
    pub(super) fn pack<P: Packer>(&mut self, p: &mut P, client: &ClientSide, since: Micros, seen_at: Micros) {
        let Self {
            machine,
            state,
            mode,
            eligible,
            isn,
            window_shift,
            timestamps,
            sent,
            told,
            told_edge,
            mss,
            fin,
            ts_latest,
            ts_offset,
            sender,
            cache,
            largest_window,
            last_window,
            ack_due,
            work_due,
            probe_due,
            progress_at,
            unbound,
            trails,
            relapses,
            refused,
            syn_sent,
            waits: _,
        } = self;
        p.small(&mut machine.0);
        pack_kind(p, state, mode);
        p.flags([eligible, timestamps, ack_due, work_due, probe_due, unbound, trails]);
        p.flags([refused]);
        p.word(&mut isn.0);
        p.small(window_shift);
        p.pos(sent, client.sent);
        p.pos(told, *sent);
        p.pos(told_edge, client.edge);
        p.small(mss);
        p.option(fin, |p, at| p.pos(at, client.sent));
        p.option(ts_latest, Packer::word);
        p.option(ts_offset, Packer::word);
        sender.pack(p, client.max);
        cache.pack(p, client.sent);
        p.pos(largest_window, 0);
        p.small(last_window);
        p.time(progress_at, seen_at);
        p.small(relapses);
        p.option(syn_sent, |p, at| p.time(at, since));
    }
}

fn pack_kind<P: Packer>(p: &mut P, state: &mut LegState, mode: &mut Mode) {
    // Two flags for the four states.
    let (mut late, mut odd) = match state {
        LegState::SynSent => (false, false),
        LegState::Open => (false, true),
        LegState::Finished => (true, false),
        LegState::Gone => (true, true),
    };
    let mut relayed = *mode == Mode::Relayed;
    p.flags([&mut late, &mut odd, &mut relayed]);
    *state = match (late, odd) {
        (false, false) => LegState::SynSent,
        (false, true) => LegState::Open,
        (true, false) => LegState::Finished,
        (true, true) => LegState::Gone,
    };
    *mode = if relayed { Mode::Relayed } else { Mode::Direct };
}
