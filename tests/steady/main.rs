//! The steady path allocates nothing (design section 3: nothing there may wait for an allocation).
//!
//! A client and three machines exchange requests and answers through the engine; an allocator that counts sees what
//! `handle_packet` and `poll` take. Buffers find their size while the flow warms up; from then on the count must stay at zero.
//! A takeover of many flows takes nothing for each of them, and comes bit by bit.

mod cluster;
mod counting;
#[allow(
    dead_code,
    reason = "shared with the bench, which measures what is only counted here"
)]
#[path = "../../benches/failover/pure.rs"]
mod pure;

use cluster::{Cluster, MS};
use counting::{CALLS, HELD, counted};
use pure::psc;
use relevo::engine::{Counter, MaxLag};
use relevo::wire::Parsed;

#[test]
fn nothing_is_allocated_for_a_packet_once_a_flow_is_warm() {
    let all = [
        (3, MaxLag::Bytes(0)),
        (3, MaxLag::Unlimited),
        (1, MaxLag::Bytes(0)),
        (4, MaxLag::Bytes(0)),
    ];
    for (machines, max_lag) in all {
        let mut cluster = Cluster::established(machines, max_lag);
        (0..1_000).for_each(|n| cluster.round(n));
        let warm = CALLS.replace(0);
        assert!(warm > 0, "the count works");
        for n in 1_000..11_000 {
            cluster.round(n);
            assert_eq!(
                CALLS.get(),
                0,
                "allocations in round {n}, {machines} machines, max_lag {max_lag:?}"
            );
        }
        cluster.check(11_000);
    }
}

#[test]
fn a_flow_that_pauses_again_and_again_holds_no_more_than_before() {
    let mut cluster = Cluster::established(3, MaxLag::Bytes(0));
    let pause = 2_000 * MS;
    for n in 0..100 {
        cluster.round(n);
        cluster.wait(pause);
    }
    HELD.set(0);
    for n in 100..2_100 {
        cluster.round(n);
        cluster.wait(pause);
    }
    cluster.check(2_100);
    assert!(HELD.get() <= 0, "{} bytes more after 2,000 pauses", HELD.get());
}

#[test]
fn connections_that_are_over_leave_nothing_held() {
    let mut cluster = Cluster::established(3, MaxLag::Bytes(0));
    let mut connect = |connections: u64| {
        for _ in 0..connections {
            (0..5).for_each(|n| cluster.round(n));
            cluster.close();
            let stats = cluster.engine.stats();
            assert_eq!(
                stats.get(Counter::FlowsOpened),
                stats.get(Counter::FlowsClosed),
                "forgotten"
            );
            cluster.open();
        }
    };
    connect(100);
    HELD.set(0);
    connect(5_000);
    assert!(HELD.get() <= 0, "{} bytes more after 5,000 connections", HELD.get());
}

#[test]
fn a_takeover_allocates_nothing_for_a_flow() {
    const FLOWS: u16 = 2_000;
    let mut crowd = pure::Crowd::with_answers_to_come(FLOWS, 2);
    CALLS.set(0);
    let outcome = counted(|| {
        let outcome = crowd.down(0);
        while crowd.engine.is_behind() {
            crowd.out.clear();
            crowd.engine.poll_part(crowd.now, &mut crowd.out, 64);
        }
        outcome
    });
    assert_eq!((outcome.switched, outcome.lost), (usize::from(FLOWS), 0));
    // Lists of flows and of timers double a few times.
    assert!(CALLS.get() < 20, "{} allocations for {FLOWS} flows", CALLS.get());
}

#[test]
fn what_a_takeover_owes_goes_out_in_parts_each_packet_once() {
    const FLOWS: u16 = 500;
    const PART: usize = 64;
    let mut crowd = pure::Crowd::with_answers_to_come(FLOWS, 2);
    crowd.down(0);
    let mut answered = vec![0; usize::from(u16::MAX) + 1];
    while crowd.engine.is_behind() {
        crowd.out.clear();
        crowd.engine.poll_part(crowd.now, &mut crowd.out, PART);
        // The last flow's packets are not torn apart.
        assert!(crowd.out.len() < PART + 8, "{} packets in a part", crowd.out.len());
        for packet in crowd.out.iter() {
            let p = Parsed::parse(packet.bytes).expect("what is let out parses");
            if p.src == psc() && p.payload_len() > 0 {
                assert_eq!(p.payload(packet.bytes), pure::ANSWER);
                answered[usize::from(p.dst.port())] += 1;
            }
        }
    }
    assert_eq!(answered.iter().filter(|n| **n == 1).count(), usize::from(FLOWS));
    assert_eq!(
        answered.iter().sum::<usize>(),
        usize::from(FLOWS),
        "nobody is answered twice"
    );
}
