//! Many at once, and little room: timers, buffers, windows, segments at their bounds (R5, R18).
//!
//! Compiled for tests only: an `unwrap` here is an expectation of the test, and no peer reaches it.

use super::hostile::{from_client, raw};
use super::*;

#[test]
fn timers_do_not_pile_up() {
    let mut t = Talk::established(2);
    let mut at = 1;
    for _ in 0..500 {
        t.client(words(at, 1, b"x"));
        at += 1;
        t.machine(0, words(1, at, b""));
        t.machine(1, words(1, at, b""));
        t.wait(3_000 * MS);
    }
    let mut n = 0;
    while t.engine.timers.pop_due(Micros::MAX).is_some() {
        n += 1;
    }
    assert!(n <= 66, "{n} timers for one idle flow");
}

#[test]
fn many_small_requests_and_a_stuck_replica_do_not_block_the_client() {
    let mut s = spec(2);
    s.services[0].max_lag = MaxLag::Bytes(1 << 20);
    let mut t = Talk::with(s, true);
    t.shake_hands(2);
    let (mut u, mut v) = (1, 1);
    for i in 0..9_000 {
        let verdict = t.client(words(u, v, b"PING\n"));
        if !matches!(verdict, Verdict::Accept { .. }) {
            t.wait(60_000 * MS);
            let again = t.client(words(u, v, b"PING\n"));
            assert!(
                matches!(again, Verdict::Accept { .. }),
                "request {i}: {verdict:?}, a minute later {again:?}, events {:?}",
                t.engine.take_event()
            );
        }
        u += 5;
        t.machine(0, words(v, u, b"+OK\n"));
        v += 4;
        t.hush();
        t.log.clear();
    }
}

#[test]
fn replay_fits_a_packet_whatever_mss_the_client_claims() {
    let mut t = Talk::new(2);
    let mut syn = raw(
        client(),
        psc(),
        (CLIENT_ISN, ISN[0]),
        Say {
            flags: Flags::SYN,
            window: 65535,
            ts: Some((CLIENT_CLOCK, 0)),
            ..Say::default()
        },
        65535,
    );
    t.engine.handle_packet(0, Meta::default(), &mut syn);
    t.poll();
    t.machine(
        0,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    t.client(Say {
        window: 2_000,
        ..words(1, 1, b"")
    });
    t.machine(
        1,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    let chunk = [7u8; 1400];
    for i in 0..60 {
        t.machine(1, words(1 + 1400 * i, 1, &chunk));
    }
    t.hush();
    down(&mut t, 0);
    let h = t.client_heard();
    let longest = h.iter().map(|h| h.data.len()).max();
    assert!(
        longest.is_some_and(|l| l <= 1448),
        "longest replayed segment {longest:?}"
    );
}

#[test]
fn replay_respects_the_path() {
    let mut t = Talk::new(2);
    let mut syn = raw(
        client(),
        psc(),
        (CLIENT_ISN, ISN[0]),
        Say {
            flags: Flags::SYN,
            window: 65535,
            ts: Some((CLIENT_CLOCK, 0)),
            ..Say::default()
        },
        8960,
    );
    t.engine.handle_packet(0, Meta::default(), &mut syn);
    t.poll();
    t.machine(
        0,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    t.client(Say {
        window: 2_000,
        ..words(1, 1, b"")
    });
    t.machine(
        1,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    let chunk = [7u8; 1400];
    for i in 0..20 {
        t.machine(1, words(1 + 1400 * i, 1, &chunk));
    }
    t.hush();
    down(&mut t, 0);
    let longest = t.client_heard().iter().map(|h| h.data.len()).max();
    assert!(
        longest.is_some_and(|l| l <= 1448),
        "longest replayed segment {longest:?}"
    );
}

#[test]
fn equal_backpressure_evicts_nobody() {
    // Original's window is one unit larger than the replica's. Both services pause for half a second.
    let mut t = Talk::established(2);
    t.machine(
        0,
        Say {
            window: 81,
            ..words(1, 1, b"")
        },
    );
    t.machine(
        1,
        Say {
            window: 80,
            ..words(1, 1, b"")
        },
    );
    // SYN/ACK windows were 1,000 bytes (unscaled); now edges are 1+10368 and 1+10240.
    let data = vec![b'x'; 1024];
    let mut at = 1;
    while at < 1 + 10_240 {
        let v = t.client(words(at, 1, &data));
        assert!(matches!(v, Verdict::Accept { .. }), "{v:?} at {at}");
        at += 1024;
        // No peer reaches this: it is made of this loop's own numbers, at most 81 units, and `at` stays below the edge.
        let left = |w: i64| u16::try_from((1 + w * 128 - at) / 128).unwrap();
        for i in 0..2 {
            let w = left(81 - i);
            let seg = raw(
                machine(i as usize),
                peer(),
                (ISN[i as usize], CLIENT_ISN),
                Say {
                    ts: Some((CLOCK[i as usize], CLIENT_CLOCK)),
                    window: 1,
                    ..words(1, at, b"")
                },
                0,
            );
            let mut seg = seg;
            // A window of 0 must be written by hand; the checksum is then to be made by the engine.
            seg[34..36].copy_from_slice(&w.to_be_bytes());
            let meta = Meta {
                checksum: Checksum::Partial,
                ..Meta::default()
            };
            t.engine.handle_packet(t.now, meta, &mut seg);
        }
        let now = t.now;
        let mut out = Outbox::new();
        t.engine.poll(now, &mut out);
    }
    for _ in 0..10 {
        t.now += 50 * MS;
        let mut out = Outbox::new();
        t.engine.poll(t.now, &mut out);
    }
    let mut ev = vec![];
    while let Some(e) = t.engine.take_event() {
        ev.push(e);
    }
    assert!(!ev.iter().any(|e| matches!(e, Event::Evict { .. })), "{ev:?}");
}

/// The original dies, the other says `pieces` of four bytes, and the second is lost on the way to the client: the machine hears of it.
fn hears_of_loss_after_a_takeover(t: &mut Talk, window: u16, pieces: std::ops::Range<i64>) {
    t.client(ack(5, 5));
    down(t, 0);
    for i in pieces {
        t.machine(1, with_window(window, words(1 + 4 * i, 5, b"aaaa")));
    }
    t.client(ack(5, 9));
    t.hush();
    for _ in 0..4 {
        t.client(ack(5, 9));
    }
    let heard = t.machine_heard(1);
    // No peer reaches this: it is the test that looks. The only flow has just spoken, and if it were parked or gone, the test is to fail.
    let flow = t.engine.flows.awake(0).unwrap();
    assert!(
        heard.len() >= 3,
        "duplicate acknowledgements that reached the machine: {heard:?}; edge_out {} leg edge {} mode {:?}",
        flow.client.edge_out,
        flow.original().sender.edge(),
        flow.original().mode
    );
}

#[test]
fn a_recovering_original_hears_of_loss() {
    let mut t = Talk::established(2);
    // The old original has opened a large window, the new one has not.
    for i in [0, 1] {
        t.machine(i, with_window(2_000, ack(1, 1)));
    }
    t.client(words(1, 1, b"GET\n"));
    t.machine(1, with_window(1_990, ack(1, 5)));
    t.machine(0, with_window(2_000, words(1, 5, b"aaaa")));
    hears_of_loss_after_a_takeover(&mut t, 1_990, 0..6);
}

#[test]
fn a_lesser_window_keeps_relaying() {
    let mut s = spec(2);
    s.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(s, true);
    t.shake_hands(2);
    t.machine(0, with_window(2_000, ack(1, 1)));
    t.machine(1, with_window(500, ack(1, 1)));
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, with_window(2_000, words(1, 5, b"aaaa")));
    t.machine(1, with_window(500, words(1, 5, b"aaaa")));
    hears_of_loss_after_a_takeover(&mut t, 500, 1..6);
}

#[test]
fn a_syn_flood_does_not_lock_out_real_clients() {
    let mut s = spec(1);
    s.limits.max_half_open = 64;
    let mut t = Talk::with(s, true);
    for i in 0..64u16 {
        let src = SocketAddr::from(([10, 9, i.to_be_bytes()[1], 1], 1_000 + i));
        let mut b = raw(
            src,
            psc(),
            (CLIENT_ISN, ISN[0]),
            Say {
                flags: Flags::SYN,
                ..Say::default()
            },
            1460,
        );
        t.engine.handle_packet(t.now, Meta::default(), &mut b);
    }
    let mut out = Outbox::new();
    t.now += 5_000 * MS;
    t.engine.poll(t.now, &mut out);
    let mut b = from_client(Say {
        flags: Flags::SYN,
        ..Say::default()
    });
    let v = t.engine.handle_packet(t.now, Meta::default(), &mut b);
    assert!(matches!(v, Verdict::Accept { .. }), "{v:?}");
}

#[test]
fn persist_does_not_leave_a_huge_timeout() {
    use super::super::{
        rtt::Rtt,
        sender::{Sender, Supply},
    };
    let mut s = Sender::new(Rtt::new(50_000));
    s.open(1000, 1001);
    let supply = Supply {
        end: 10_001,
        fin: None,
        most: 0,
    };
    while s.next_segment(0, supply).is_some() {}
    s.on_ack(1000, 1001, 1001, std::iter::empty(), true);
    s.mind_window(1000, supply);
    let mut now = 1000;
    for _ in 0..12 {
        // No peer reaches this: there is none. Data waits behind a window that this test keeps closed, and a timer that did not run would be the fault to be
        // shown.
        now = s.deadline().unwrap();
        s.on_timer(now);
        s.mind_window(now, supply);
    }
    s.on_ack(now, 1001, 2001, std::iter::empty(), true); // the window opens by one segment
    assert!(s.next_segment(now, supply).is_some());
    // No peer reaches this either: a segment has just been taken two lines above, so its timer runs.
    let wait = s.deadline().unwrap() - now;
    assert!(wait <= 1_000_000, "lost now, it is sent again after {wait} µs");
}

#[test]
fn all_clients_of_lost_flows_are_told() {
    let mut s = spec(2);
    s.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(s, true);
    let n = 600u16;
    for i in 0..n {
        let src = SocketAddr::from(([10, 9, 1, 1], 10_000 + i));
        let peer = SocketAddr::from(([10, 0, 1, 100], 10_000 + i));
        for mut b in [
            raw(
                src,
                psc(),
                (CLIENT_ISN, ISN[0]),
                Say {
                    flags: Flags::SYN,
                    ..Say::default()
                },
                1460,
            ),
            raw(
                machine(0),
                peer,
                (ISN[0], CLIENT_ISN),
                Say {
                    flags: Flags::SYN,
                    ack: Some(1),
                    ..Say::default()
                },
                1460,
            ),
            raw(src, psc(), (CLIENT_ISN, ISN[0]), words(1, 1, b""), 1460),
            raw(
                machine(1),
                peer,
                (ISN[1], CLIENT_ISN),
                Say {
                    flags: Flags::RST,
                    ack: Some(1),
                    ..Say::default()
                },
                1460,
            ),
        ] {
            t.engine.handle_packet(t.now, Meta::default(), &mut b);
            let mut out = Outbox::new();
            t.engine.poll(t.now, &mut out);
        }
    }
    let mref = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    let o = t.engine.command(t.now, Command::Down { machine: mref });
    let mut out = Outbox::new();
    t.engine.poll(t.now, &mut out);
    let mut resets = 0;
    for packet in out.iter() {
        // No peer reaches this: it is the engine's own packet. If it does not parse, the test is to fail.
        let p = Parsed::parse(packet.bytes).unwrap();
        if packet.dst.to_string() == "10.9.1.1" && p.flags.contains(Flags::RST) {
            resets += 1;
        }
    }
    assert_eq!(resets, o.lost, "of {} lost", o.lost);
}

#[test]
fn the_room_of_many_connections_is_given_back_when_the_last_has_gone() {
    let mut t = Talk::new(2);
    let syns = 2 * KEPT_FLOWS;
    for i in 0..syns {
        // No peer reaches this: it counts this loop's turns.
        let [_, _, high, low] = u32::try_from(i).unwrap().to_be_bytes();
        let who = SocketAddr::new([10, 9, high, low].into(), 40_001);
        let syn = Say {
            flags: Flags::SYN,
            ..Say::default()
        };
        let mut bytes = raw(who, psc(), (CLIENT_ISN, ISN[0]), syn, 1_460);
        assert_ne!(
            t.engine.handle_packet(t.now, Meta::default(), &mut bytes),
            Verdict::Drop(DropReason::TableFull)
        );
        t.engine.poll(t.now, &mut t.out);
        t.out.clear();
    }
    assert!(!t.engine.give_back(), "connections are there");
    while let Some(at) = t.engine.next_deadline() {
        t.now = t.now.max(at);
        t.engine.poll(t.now, &mut t.out);
        t.out.clear();
    }
    assert_eq!(t.engine.status().services[0].flows, 0);
    let room = |t: &Talk| t.engine.flows.capacity();
    assert!(room(&t) >= syns);
    assert!(t.engine.give_back());
    assert!(room(&t) <= KEPT_FLOWS, "room for {} connections is kept", room(&t));
    assert!(!t.engine.give_back(), "once is enough");
    assert_eq!(t.engine.next_deadline(), None);

    // And new connections find all in order.
    t.shake_hands(2);
    t.client(words(1, 1, b"SET a 1\n"));
    assert!(
        t.machine_heard(1).iter().any(|h| h.data == b"SET a 1\n"),
        "the replica's bytes"
    );
}
