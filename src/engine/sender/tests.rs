//! What a sender sends, as a dialogue with a machine whose acknowledgements are written out.
//!
//! Compiled for tests only: an `expect` here reads a constant of the test, and no peer reaches it.

use super::super::spec::Micros;
use super::timers::TAIL_FLOOR;
use super::*;

const NO_BLOCKS: [(Pos, Pos); 0] = [];

/// When the sender's timer goes off.
fn armed(s: &Sender) -> Micros {
    // No peer reaches this: acknowledgements are written out here. Each caller has something under way, and a timer that is not armed then is the fault to
    // be shown.
    s.deadline().expect("armed")
}

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
    while s.on_timer(armed(&s)) != Expiry::Resend || s.nxt() > 1 {}
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
        let at = armed(&s);
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
