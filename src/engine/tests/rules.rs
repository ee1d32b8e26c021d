//! R11, R18, R19, R20 to R22: what is let through, what is not, and what is said to it.

use super::*;

#[test]
fn strangers_are_reset() {
    let mut t = Talk::new(2);
    assert_eq!(t.client(words(5, 9, b"x")), Verdict::Drop(DropReason::UnknownFlow));
    let rst = t.client_heard();
    assert_eq!((rst[0].flags, rst[0].at), (Flags::RST, 9));
    // Never a RST for a RST.
    t.client(Say {
        at: 5,
        flags: Flags::RST,
        ..Say::default()
    });
    assert!(t.client_heard().is_empty());
}

#[test]
fn a_reset_counts_only_at_its_place() {
    let mut t = Talk::established(2);
    let verdict = t.client(Say {
        at: 77,
        flags: Flags::RST,
        ..Say::default()
    });
    assert_eq!(verdict, Verdict::Drop(DropReason::MisplacedReset));
    assert_eq!(
        short(&t.client_heard()),
        [(1, Some(1), "")],
        "a challenge ACK (RFC 5961 3.2)"
    );
    t.hush();
    t.client(Say {
        at: 1,
        flags: Flags::RST,
        ..Say::default()
    });
    for i in 0..2 {
        let heard = t.machine_heard(i);
        assert!(heard[0].flags.contains(Flags::RST) && heard[0].at == 1, "{heard:?}");
    }
    assert_eq!(t.engine.status().services[0].flows, 0);
}

#[test]
fn a_replica_gets_everything_before_the_reset() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    t.hush();
    t.client(Say {
        at: 4,
        flags: Flags::RST,
        ..Say::default()
    });
    assert!(t.machine_heard(0)[0].flags.contains(Flags::RST));
    assert!(t.machine_heard(1).is_empty(), "R24: not before it has the bytes");
    t.machine(1, ack(1, 4));
    let heard = t.machine_heard(1);
    assert!(heard[0].flags.contains(Flags::RST) && heard[0].at == 4);
}

#[test]
fn what_cannot_be_changes_nothing() {
    let mut t = Talk::established(2);
    let far = 1_000 << 7;
    for (at, ack, data) in [(1, 2, &b""[..]), (far + 500, 1, b"x"), (1, -5_000_000, b"x")] {
        let verdict = t.client(Say {
            at,
            ack: Some(ack),
            data,
            ..Say::default()
        });
        assert_eq!(verdict, Verdict::Drop(DropReason::Implausible), "{at} {ack}");
    }
    assert!(t.machine_heard(1).is_empty());
    // A machine that acknowledges what nobody sent.
    assert_eq!(t.machine(0, ack(1, 2)), Verdict::Drop(DropReason::Implausible));
}

#[test]
fn a_reply_on_a_foreign_interface_is_not_believed() {
    let mut s = spec(2);
    s.services[0].machines[0].ifindex = Some(3);
    let mut engine = Engine::new(s);
    let segment = Segment {
        src: machine(0),
        dst: peer(),
        seq: Seq(1),
        ack: Seq(1),
        flags: Flags::ACK,
        window: 1,
        urgent: 0,
        options: Options::default(),
        payload: (&[], &[]),
    };
    let mut bytes = vec![0; segment.len()];
    assert!(segment.write(&mut bytes));
    let meta = Meta {
        ifindex: 4,
        ..Meta::default()
    };
    assert_eq!(
        engine.handle_packet(0, meta, &mut bytes),
        Verdict::Drop(DropReason::WrongInterface)
    );
    assert_eq!(engine.heard(), None, "and it is no sign of life");
}

#[test]
fn a_syn_on_a_finished_flow_starts_anew() {
    let mut t = Talk::established_without_votes(2);
    t.client(Say {
        at: 1,
        ack: Some(1),
        flags: Flags::FIN,
        ..Say::default()
    });
    t.machine(
        0,
        Say {
            at: 1,
            ack: Some(2),
            flags: Flags::FIN,
            ..Say::default()
        },
    );
    t.machine(1, ack(1, 2));
    t.client(ack(2, 2));
    t.hush();
    t.client(Say {
        at: 100_000,
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    assert!(
        t.machine_heard(1).is_empty(),
        "R24: the replica that is not done is left to finish"
    );
    assert_eq!(t.machine_heard(0)[0].flags, Flags::SYN);
    assert_eq!(t.engine.stats().get(Counter::FlowsOpened), 2);
}

#[test]
fn the_half_open_table_has_a_cap_and_forgets() {
    let mut s = spec(2);
    s.limits.max_half_open = 1;
    let mut t = Talk::with(s, true);
    t.client(Say {
        flags: Flags::SYN,
        ..Say::default()
    });
    let mut other = t.client_packet("10.0.1.8:5");
    let verdict = t.engine.handle_packet(0, Meta::default(), &mut other);
    assert!(matches!(verdict, Verdict::Accept { .. }), "the oldest makes room");
    assert_eq!(t.engine.status().services[0].half_open, 1);
    t.wait(31_000 * MS);
    assert_eq!(t.engine.status().services[0].flows, 0);
}

#[test]
fn two_clients_with_one_port_are_told_apart() {
    let mut t = Talk::new(2);
    t.client(Say {
        flags: Flags::SYN,
        ..Say::default()
    });
    let mut other = t.client_packet("10.0.1.8:40001");
    let Verdict::Accept { len } = t.engine.handle_packet(0, Meta::default(), &mut other) else {
        panic!("dropped")
    };
    let seen = Parsed::parse(&other[..len]).unwrap();
    assert_eq!(seen.src, "10.0.1.100:20000".parse().unwrap());
}

/// RFC 9293 section 3.6.1: what is still under way to a machine when its connection ends must not end or spoil another client's.
#[test]
fn what_a_client_has_just_left_is_not_given_to_another() {
    let mut t = Talk::established(1);
    let port = |t: &mut Talk, host: &str| {
        let mut syn = t.client_packet(host);
        let Verdict::Accept { len } = t.engine.handle_packet(0, Meta::default(), &mut syn) else {
            panic!("dropped")
        };
        Parsed::parse(&syn[..len]).unwrap().src.port()
    };
    t.client(Say {
        at: 1,
        flags: Flags::RST,
        ..Say::default()
    });
    assert_eq!(t.engine.status().services[0].flows, 0);
    assert_eq!(port(&mut t, "10.0.1.8:40001"), 20_000);
    assert_eq!(port(&mut t, "10.0.1.7:40001"), 40_001, "whose it was");
}

impl Talk {
    fn client_packet(&self, src: &str) -> Vec<u8> {
        let segment = Segment {
            src: src.parse().unwrap(),
            dst: psc(),
            seq: Seq(9),
            ack: Seq(0),
            flags: Flags::SYN,
            window: 1_000,
            urgent: 0,
            options: Options {
                mss: Some(1460),
                ..Options::default()
            },
            payload: (&[], &[]),
        };
        let mut bytes = vec![0; segment.len()];
        assert!(segment.write(&mut bytes));
        bytes
    }
}

/// RFC 9293 section 3.10.7.4, LAST-ACK: the last acknowledgement ends the machine's connection. A copy of it, doubled on the way and taken
/// before the engine's own work is done, would meet a machine that has forgotten, and the client its RST.
#[test]
fn a_doubled_last_acknowledgement_does_not_reach_a_machine_that_may_have_forgotten() {
    let mut t = Talk::established(1);
    t.client(Say {
        at: 1,
        ack: Some(1),
        flags: Flags::FIN,
        ..Say::default()
    });
    t.machine(
        0,
        Say {
            at: 1,
            ack: Some(2),
            flags: Flags::FIN,
            ..Say::default()
        },
    );
    t.hush();
    let last = Say {
        at: 2,
        ack: Some(2),
        ts: Some((CLIENT_CLOCK, CLOCK[0])),
        ..Say::default()
    };
    let numbers = (CLIENT_ISN, ISN[0]);
    let first = t.say("client", client(), psc(), numbers, last);
    assert!(matches!(first, Verdict::Accept { .. }), "{first:?}");
    let copy = t.say("client", client(), psc(), numbers, last);
    assert_eq!(copy, Verdict::Drop(DropReason::Relayed));
    // What the machine might say to the first copy's twin, had it been lost and sent again by another way.
    let reset = Say {
        at: 2,
        flags: Flags::RST,
        ts: None,
        ..Say::default()
    };
    let verdict = t.say("m0", machine(0), peer(), (ISN[0], CLIENT_ISN), reset);
    assert_eq!(verdict, Verdict::Drop(DropReason::Replica));
    t.poll();
    assert_eq!(t.client_heard(), []);
}

/// RFC 9293 section 3.8.6.1: a probe lies one byte beyond the window, and a client may take it. The next probe lies beyond that, even where
/// the client has said so only by repeating itself.
#[test]
fn a_probe_that_the_client_has_taken_moves_its_window() {
    let mut t = Talk::with(spec(1), false);
    t.shake_hands(1);
    t.client(Say {
        at: 1,
        ack: Some(1),
        data: b"x",
        window: 900,
        ..Say::default()
    });
    // The first window, of the SYN, was 1,000: up to position 1,001.
    let probe = |at, data| Say {
        at,
        ack: Some(2),
        data,
        ..Say::default()
    };
    assert!(matches!(t.machine(0, probe(1, &[7; 1_000])), Verdict::Accept { .. }));
    assert!(matches!(t.machine(0, probe(1_001, b"?")), Verdict::Accept { .. }));
    t.client(Say {
        at: 1,
        ack: Some(1_002),
        data: b"x",
        window: 1,
        ..Say::default()
    });
    assert!(matches!(t.machine(0, probe(1_002, b"?")), Verdict::Accept { .. }));
    assert_eq!(t.machine(0, probe(1_003, b"!")), Verdict::Drop(DropReason::Implausible));
}

/// R6, RFC 5681 section 2: a duplicate says the same window again. The engine gives the client the highest edge that there was (I5), so a window
/// that was overtaken on the way would look like one, and the client would repeat what was never lost.
#[test]
fn a_window_that_was_overtaken_is_no_duplicate() {
    let mut t = Talk::established(1);
    t.client(words(1, 1, b"abc"));
    let says = |t: &mut Talk, window| matches!(t.machine(0, Say { window, ..ack(1, 4) }), Verdict::Accept { .. });
    assert!(says(&mut t, 2_000), "it acknowledges");
    assert!(says(&mut t, 3_000), "more room");
    assert!(!says(&mut t, 2_500), "overtaken");
    assert!(
        says(&mut t, 3_000),
        "the same again: a duplicate, or the answer to a probe"
    );
    assert!(!says(&mut t, 1), "overtaken");
    assert!(says(&mut t, 1), "one that has taken its window back may answer, too");
}
