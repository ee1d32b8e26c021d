//! What a hostile client, machine or third party, damage on the way, and unlucky timing must not achieve.
//!
//! Compiled for tests only: an `unwrap` here is an expectation of the test, and no peer reaches it.

use super::*;

/// A packet past the table's own ends: a SYN's options are those of a client that claims this MSS.
pub fn raw(src: SocketAddr, dst: SocketAddr, isn: (Seq, Seq), say: Say<'_>, mss: u16) -> Vec<u8> {
    let offer = Options {
        mss: Some(mss),
        wscale: Some(7),
        sack_permitted: true,
        ..Options::default()
    };
    let options = if say.flags.contains(Flags::SYN) {
        offer
    } else {
        Options::default()
    };
    packet((src, dst), isn, say, options)
}

/// A packet of the table's client.
pub fn from_client(say: Say<'_>) -> Vec<u8> {
    raw(
        client(),
        psc(),
        (CLIENT_ISN, ISN[0]),
        Say {
            ts: say.ts.or(Some((CLIENT_CLOCK, CLOCK[0]))),
            ..say
        },
        1460,
    )
}

#[test]
fn a_corrupted_segment_never_reaches_a_replica_with_a_fresh_checksum() {
    let mut t = Talk::established(2);
    let mut b = from_client(words(1, 1, b"SET a 1\n"));
    let n = b.len();
    b[n - 2] ^= 0x0f; // damaged on the way: the checksum is wrong now
    let _ = t.engine.handle_packet(t.now, Meta::default(), &mut b);
    t.poll();
    for h in t.machine_heard(1) {
        assert!(
            h.data.is_empty(),
            "replica was fed {:?}",
            String::from_utf8_lossy(&h.data)
        );
    }
}

#[test]
fn a_corrupted_fin_bit_does_not_end_the_stream() {
    let mut t = Talk::established(2);
    let mut b = from_client(words(1, 1, b"abc"));
    b[20 + 13] ^= 1; // FIN bit flipped on the wire
    let _ = t.engine.handle_packet(t.now, Meta::default(), &mut b);
    t.poll();
    t.hush();
    let v = t.client(words(1, 1, b"abcdef"));
    assert!(matches!(v, Verdict::Accept { .. }), "{v:?}");
}

#[test]
fn paws_is_not_laundered() {
    let mut t = Talk::established(1);
    t.client(Say {
        ts: Some((CLIENT_CLOCK.wrapping_add(5000), CLOCK[0])),
        ..words(1, 1, b"abc")
    });
    t.machine(0, words(1, 4, b""));
    t.hush();
    // An old duplicate of an earlier wrap, in window by number, 5 s old by its clock.
    t.client(Say {
        ts: Some((CLIENT_CLOCK, CLOCK[0])),
        ..words(4, 1, b"OLD")
    });
    for h in t.machine_heard(0) {
        assert!(
            h.data.is_empty() || h.ts.is_some_and(|ts| ts.0 == CLIENT_CLOCK),
            "old segment re-stamped: {h:?}"
        );
    }
}

#[test]
fn an_old_segment_does_not_poison_the_clock() {
    let mut t = Talk::established(2);
    let v = t.client(Say {
        ts: Some((CLIENT_CLOCK.wrapping_add(0x7fff_ffff), CLOCK[0])),
        at: 1 - (1 << 29),
        ack: Some(1),
        ..Say::default()
    });
    t.hush();
    t.client(Say {
        ts: Some((CLIENT_CLOCK.wrapping_add(10), CLOCK[0])),
        ..words(1, 1, b"x")
    });
    let h = t.machine_heard(0);
    assert_eq!(
        h[0].ts.map(|ts| ts.0),
        Some(CLIENT_CLOCK.wrapping_add(10)),
        "verdict on the forged one: {v:?}"
    );
}

#[test]
fn a_stale_connections_data_does_not_reach_another_client() {
    let mut t = Talk::new(1);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    t.hush();
    t.machine(0, words(77_000, 900_000, b"secret of the last client"));
    for h in t.client_heard() {
        assert!(h.data.is_empty(), "leaked {:?}", String::from_utf8_lossy(&h.data));
    }
}

#[test]
fn the_last_machine_is_asked_on() {
    let mut t = Talk::new(2);
    t.shake_hands(1); // the replica's SYN stays unanswered
    assert_eq!(down(&mut t, 0).switched, 1);
    t.wait(10_000 * MS);
    t.hush();
    t.wait(30_000 * MS);
    assert!(
        t.machine_heard(1).iter().any(|h| h.flags == Flags::SYN),
        "nobody else is left, so it is not given up"
    );
}

#[test]
fn the_stale_machine_is_told_before_it_is_asked_again() {
    let mut t = Talk::new(3);
    t.shake_hands(1);
    t.hush();
    t.machine(2, words(77_000, 900_000, b""));
    let to2 = t.machine_heard(2);
    let to1 = t.machine_heard(1);
    assert!(to1.is_empty(), "the other replica was asked again: {to1:?}");
    assert!(
        to2.len() == 2 && to2[0].flags.contains(Flags::RST) && to2[1].flags.contains(Flags::SYN),
        "{to2:?}"
    );
}

#[test]
fn a_refused_successor_does_not_send_the_client_raw_numbers() {
    let mut t = Talk::new(3);
    t.shake_hands(1);
    t.machine(2, Say::default());
    t.hush();
    down(&mut t, 0);
    t.hush();
    // machine 1 (now original, still opening) refuses; machine 2 is still opening and could carry on.
    t.machine(
        1,
        Say {
            at: -1000,
            flags: Flags::RST,
            ack: Some(1),
            ts: None,
            ..Say::default()
        },
    );
    let h = t.client_heard();
    let f = t.engine.flows.awake(0).map(|f| f.state);
    assert!(h.is_empty(), "client heard {h:?}, flow {f:?}");
}

#[test]
fn what_a_machine_sends_beyond_the_window_is_cut_off_and_taken_when_it_comes_again() {
    let mut t = Talk::with(spec(2), false);
    t.shake_hands(2);
    t.client(Say {
        at: 1,
        ack: Some(1),
        data: b"GET",
        window: 10,
        ..Say::default()
    });
    t.hush();
    // The client has told an edge of 1,001 before (its SYN); what it tells now does not take that back.
    let page = [b'x'; 1_200];
    let all = Say {
        at: 1,
        ack: Some(4),
        data: &page,
        flags: Flags::FIN | Flags::PSH,
        ..Say::default()
    };
    for i in [0, 1] {
        assert_ne!(t.machine(i, all), Verdict::Drop(DropReason::Implausible));
    }
    let heard = t.client_heard();
    assert_eq!(
        (heard[0].at, heard[0].data.len(), heard[0].flags),
        (1, 1_000, Flags::ACK)
    );
    // The client makes room, and the rest comes.
    t.client(ack(4, 1_001));
    t.hush();
    for i in [1, 0] {
        t.machine(
            i,
            Say {
                at: 1_001,
                data: &page[1_000..],
                ..all
            },
        );
    }
    let heard = t.client_heard();
    assert_eq!((heard[0].at, heard[0].data.len()), (1_001, 200));
    assert!(heard[0].flags.contains(Flags::FIN));
}

/// RFC 9293 section 3.10.7.4. Some stacks send more than they may when they repeat a segment that was lost (smoltcp), and machines that are
/// spoken to by such a client take what they have promised to take.
#[test]
fn what_a_client_sends_beyond_the_window_is_cut_off_and_taken_when_it_comes_again() {
    let mut t = Talk::with(spec(2), false);
    t.shake_hands(2);
    let upload = [b'x'; 1_200];
    let all = Say {
        flags: Flags::FIN | Flags::PSH,
        ..words(1, 1, &upload)
    };
    // Both machines have room up to 1,001.
    assert!(matches!(t.client(all), Verdict::Accept { .. }));
    for i in [0, 1] {
        let heard = t.machine_heard(i);
        assert!(!heard.iter().any(|h| h.flags.contains(Flags::FIN)), "{i}: {heard:?}");
        assert_eq!((heard[0].at, heard[0].data.len()), (1, 1_000), "{i}");
    }
    t.machine(1, ack(1, 1_001));
    t.machine(0, ack(1, 1_001));
    t.hush();
    // From within what is acknowledged by now.
    let rest = Say {
        at: 901,
        data: &upload[900..],
        ..all
    };
    assert!(matches!(t.client(rest), Verdict::Accept { .. }));
    for i in [0, 1] {
        let heard = t.machine_heard(i);
        let ends = |last: &Heard| last.at + pos::span(last.data.len()) == 1_201 && last.flags.contains(Flags::FIN);
        assert!(heard.last().is_some_and(ends), "{i}: {heard:?}");
    }
}

#[test]
fn a_window_probe_is_one_byte_and_no_more() {
    // Without a scale there is nothing to be rounded.
    let mut t = Talk::with(spec(1), false);
    t.shake_hands(1);
    let probe = |at| words(at, 1, b"?");
    assert!(matches!(t.client(probe(1_001)), Verdict::Accept { .. }));
    assert_eq!(t.client(probe(1_002)), Verdict::Drop(DropReason::Implausible));
}
