//! A parked flow comes back as it was.
//!
//! Compiled for tests only: an `unwrap` here reads a constant of the test, and no peer reaches it.

use super::super::pos::Pos;
use super::super::stream::Budget;
use super::*;
use proptest::prelude::*;
use std::net::Ipv6Addr;

fn parked(flow: &mut Flow) -> Parked {
    Parked::new(flow, &mut Writer::default())
}

/// A flow with `legs` legs that has nothing under way, made of bytes: every field may be anything.
fn drawn(legs: usize, bytes: &[u8]) -> Flow {
    let mut flow = blank();
    flow.legs.resize_with(legs, blank_leg);
    // What is read beyond the end is 0: the shorter the bytes, the more fields are.
    flow.pack(&mut Drawer {
        reader: Reader(bytes),
        legs,
    });
    flow
}

/// Reads drawn bytes, but for the number of legs.
struct Drawer<'a> {
    reader: Reader<'a>,
    legs: usize,
}

impl Packer for Drawer<'_> {
    fn number(&mut self, value: &mut u64) {
        self.reader.number(value);
    }
    fn bytes<const N: usize>(&mut self, value: &mut [u8; N]) {
        self.reader.bytes(value);
    }
    fn count(&mut self, value: &mut usize) {
        *value = self.legs;
    }
}

/// What a flow reads as.
fn face(flow: &Flow) -> String {
    format!("{flow:?}")
}

/// An ordinary flow: four machines, timestamps, some megabytes in each direction.
fn ordinary() -> Flow {
    let mut flow = drawn(4, &[]);
    let (u, v, now) = (3_000_000, 40_000_000, 3_600_000_000);
    let random = |n: u32| n.wrapping_mul(2_654_435_761);
    flow.peer = ([10, 0, 1, 100], 40_001).into();
    flow.client.addr = ([10, 0, 1, 7], 40_001).into();
    (flow.client.isn, flow.promise.isn) = (Seq(random(1)), Seq(random(2)));
    flow.client.syn = SynOptions {
        mss: Some(1_460),
        wscale: Some(7),
        sack_permitted: true,
        timestamps: Some(crate::wire::Timestamps { val: random(3), ecr: 0 }),
    };
    (flow.client.max, flow.client.ack_out, flow.client.edge_out) = (u, u, u + (1 << 20));
    (flow.client.sent, flow.client.acked, flow.client.edge) = (v, v, v + (1 << 20));
    flow.client.ts_latest = Some(random(4));
    flow.client.ts_out = Some(random(5));
    (flow.seen_at, flow.shrunk_at, flow.since) = (now, now + 1_000_000, now - 60_000_000);
    flow.armed = Some(now + 7_200_000_000);
    for (leg, n) in flow.legs.iter_mut().zip(6..) {
        (leg.state, leg.mode, leg.eligible) = (LegState::Open, Mode::Relayed, true);
        leg.isn = Seq(random(n));
        (leg.sent, leg.told, leg.told_edge) = (v, v, v + (1 << 20));
        (leg.ts_latest, leg.ts_offset) = (Some(random(n + 10)), Some(random(n + 20)));
        leg.sender.open(1_448, u + (1 << 20));
        leg.sender.follow_ack(now, u, u + (1 << 20));
        leg.cache.advance(v);
        (leg.largest_window, leg.progress_at, leg.mss) = (1 << 20, now, 1_460);
    }
    flow.buffer.pass(
        super::super::sendbuf::Piece {
            at: u,
            ..Default::default()
        },
        0,
    );
    flow
}

#[test]
fn an_ordinary_flow_takes_less_parked_than_a_leg_takes_awake_for_each_machine() {
    let mut flow = ordinary();
    assert!(flow.can_park());
    let bytes = parked(&mut flow).0.len();
    assert!(bytes <= 400, "{bytes} bytes");
}

#[test]
fn what_is_busy_is_not_parked() {
    let busy: [fn(&mut Flow); 10] = [
        |f| f.state = FlowState::SynReceived,
        |f| f.legs[2].state = LegState::SynSent,
        |f| f.legs[1].set_holding(Some(1)),
        |f| f.legs[3].sender.follow_sent(1, 3_000_000, 3_000_001),
        |f| assert!(f.legs[1].cache.store(40_000_000, b"x", 100, &mut Budget::new(1 << 20))),
        |f| f.heir = Some(MachineId(1)),
        |f| f.behind_since = Some(1),
        |f| f.trial.wake().stuck = None,
        |f| _ = f.blocks.wake(),
        |f| f.dirty = true,
    ];
    for (i, make) in busy.into_iter().enumerate() {
        let mut flow = ordinary();
        assert!(flow.can_park());
        make(&mut flow);
        assert!(!flow.can_park(), "number {i}");
    }
}

#[test]
fn a_parked_flow_says_what_it_has_armed() {
    let mut flow = ordinary();
    flow.generation = 77;
    let label = parked(&mut flow).label();
    assert_eq!((label.generation, label.armed), (77, flow.armed));
}

#[test]
fn addresses_of_both_families_come_back_whole() {
    let v6 = |scope| std::net::SocketAddrV6::new(Ipv6Addr::from([0xfe80, 0, 0, 0, 1, 2, 3, 0xffff]), 6_379, 5, scope);
    for address in [v6(0).into(), v6(9).into(), ([255, 1, 2, 3], 65_535).into()] {
        let mut flow = ordinary();
        flow.client.addr = address;
        let back = parked(&mut flow).flow();
        assert_eq!(
            (back.client.addr, back.peer),
            (address, ([10, 0, 1, 100], 40_001).into())
        );
        flow.peer = address;
        assert_eq!(parked(&mut flow).flow().peer, address);
    }
}

#[test]
fn a_comparison_comes_back_whole() {
    let mut flow = ordinary();
    flow.compare = Some(Box::default());
    let before = face(&flow);
    assert_eq!(face(&parked(&mut flow).flow()), before);
}

proptest! {
    #[test]
    fn a_flow_comes_back_as_it_was(legs in 0usize..6, bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let mut flow = drawn(legs, &bytes);
        let before = face(&flow);
        let parked = parked(&mut flow);
        prop_assert_eq!(face(&flow), &before[..], "written down, not changed");
        prop_assert_eq!(face(&parked.flow()), before);
    }

    #[test]
    fn positions_far_apart_come_back(far: Pos, other: Pos, time: Micros) {
        let mut flow = ordinary();
        flow.legs[1].sent = far;
        flow.legs[1].told_edge = other;
        flow.client.acked = other;
        flow.legs[2].progress_at = time;
        let before = face(&flow);
        prop_assert_eq!(face(&parked(&mut flow).flow()), before);
    }
}
