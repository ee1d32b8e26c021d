//! R12, R13, R16: a machine dies, another goes on.

use super::*;

#[test]
fn the_replicas_cached_answer_goes_out_at_once() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"GET a\n"));
    t.machine(1, words(1, 7, b"42\n"));
    assert!(t.client_heard().is_empty(), "I6");
    assert_eq!(down(&mut t, 0).switched, 1);
    let heard = t.client_heard();
    assert_eq!(short(&heard), [(1, Some(7), "42\n")]);
    assert_eq!(
        heard[0].ts,
        Some((CLOCK[0], CLIENT_CLOCK)),
        "the clock goes on where the old one stopped"
    );
    // From then on the client talks to it directly.
    t.hush();
    t.client(words(7, 4, b"GET b\n"));
    assert_eq!(short(&t.machine_heard(1)), [(7, Some(4), "GET b\n")]);
    t.machine(
        1,
        Say {
            at: 4,
            ack: Some(13),
            data: b"43\n",
            ts: Some((CLOCK[1] + 9, CLIENT_CLOCK)),
            ..Say::default()
        },
    );
    let heard = t.client_heard();
    assert_eq!(short(&heard), [(4, Some(13), "43\n")]);
    assert_eq!(heard[0].ts, Some((CLOCK[0].wrapping_add(9), CLIENT_CLOCK)));
}

#[test]
fn bytes_that_the_successor_lacks_follow_from_the_buffer() {
    let mut spec = spec(2);
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.client(words(1, 1, b"one"));
    t.machine(0, words(1, 4, b"1!"));
    assert_eq!(
        short(&t.client_heard()),
        [(1, Some(4), "1!")],
        "the client does not wait for a replica"
    );
    t.client(words(4, 3, b"two"));
    t.hush();
    down(&mut t, 0);
    assert_eq!(t.engine.status().services[0].machines[1].recovering, 1);
    t.machine(1, words(1, 4, b"1!"));
    assert!(
        t.client_heard().iter().all(|h| h.data.is_empty()),
        "the client has had that"
    );
    assert_eq!(short(&t.machine_heard(1)).last(), Some(&(4, Some(3), "two")));
    t.machine(1, words(3, 7, b"2!"));
    assert_eq!(short(&t.client_heard()), [(3, Some(7), "2!")]);
    t.client(ack(7, 5));
    assert_eq!(t.engine.status().services[0].machines[1].recovering, 0);
}

#[test]
fn the_dead_do_not_come_back() {
    let mut t = Talk::established(2);
    down(&mut t, 0);
    t.hush();
    let verdict = t.machine(0, words(1, 1, b"late"));
    assert_eq!(verdict, Verdict::Drop(DropReason::Fenced));
    assert!(t.client_heard().is_empty());
    let answer = t.machine_heard(0);
    assert_eq!((answer[0].flags, answer[0].at), (Flags::RST, 1));
}

#[test]
fn the_last_machine_stays() {
    let mut t = Talk::established(2);
    assert_eq!(down(&mut t, 1).legs_freed, 1);
    assert!(!down(&mut t, 0).applied);
    t.client(words(1, 1, b"x"));
    assert_eq!(short(&t.machine_heard(0)), [(1, Some(1), "x")]);
}

#[test]
fn a_client_without_an_answer_is_rehomed() {
    let mut t = Talk::new(2);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    t.hush();
    down(&mut t, 0);
    assert_eq!(t.machine_heard(1)[0].flags, Flags::SYN);
    // Its SYN/ACK becomes the promise; the client hears this machine's own numbers.
    t.machine(
        1,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    let syn_ack = t.client_heard();
    assert_eq!(syn_ack[0].flags, Flags::SYN | Flags::ACK);
    assert_eq!(pos::seq_of(ISN[0], syn_ack[0].at), ISN[1]);
}

/// R13: what a machine was asked before it fell is another attempt.
#[test]
fn an_answer_to_the_first_try_is_fenced_until_the_machine_is_asked_again() {
    let mut t = Talk::new(2);
    let syn_ack = Say {
        flags: Flags::SYN,
        ack: Some(1),
        ..Say::default()
    };
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    down(&mut t, 0);
    let (first, second) = (machine_ref(0), machine_ref(1));
    t.engine.command(t.now, Command::Up { machine: first });
    t.hush();
    // Not polled yet: the second machine's end is known, and the first one is not asked again.
    t.engine.command(t.now, Command::Down { machine: second });
    assert_eq!(t.machine(0, syn_ack), Verdict::Drop(DropReason::Fenced));
    assert!(t.client_heard().is_empty());
    assert_eq!(t.machine_heard(0)[0].flags, Flags::SYN, "now it is");
    t.machine(0, syn_ack);
    assert_eq!(t.client_heard()[0].flags, Flags::SYN | Flags::ACK);
}

#[test]
fn a_planned_handover_keeps_the_old_original_as_a_replica() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    for i in 0..2 {
        t.machine(i, words(1, 4, b"ok"));
    }
    t.client(ack(4, 3));
    t.hush();
    let to = MachineRef {
        service: ServiceId(0),
        machine: MachineId(1),
    };
    assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 1);
    t.poll();
    t.hush();
    t.client(words(4, 3, b"def"));
    for i in 0..2 {
        assert_eq!(short(&t.machine_heard(i)), [(4, Some(3), "def")]);
    }
    t.machine(0, words(3, 7, b"ok"));
    assert!(t.client_heard().is_empty());
    t.machine(1, words(3, 7, b"ok"));
    assert_eq!(short(&t.client_heard()), [(3, Some(7), "ok")]);
}

#[test]
fn what_was_lost_before_a_handover_is_kept_when_it_is_said_again() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    t.machine(1, ack(1, 4));
    // Its answer is lost on the way to the engine; what comes after that tells only how far it has sent.
    t.machine(0, ack(3, 4));
    let to = machine_ref(1);
    assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 1);
    t.poll();
    t.machine(0, words(1, 4, b"ok"));
    t.hush();
    // Nobody waits for the old original to say it a third time (R9).
    down(&mut t, 1);
    assert_eq!(short(&t.client_heard()), [(1, Some(4), "ok")]);
}

#[test]
fn a_last_byte_that_comes_with_the_fin_is_kept() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    t.machine(
        1,
        Say {
            flags: Flags::FIN,
            ..words(1, 4, b"x")
        },
    );
    t.hush();
    down(&mut t, 0);
    assert_eq!(short(&t.client_heard()).first(), Some(&(1, Some(4), "x")));
}

#[test]
fn a_silent_original_is_suspected() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    t.machine(1, ack(1, 4));
    t.wait(4 * MS);
    assert_eq!(t.engine.take_event(), None);
    t.wait(2 * MS);
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    assert_eq!(
        t.engine.take_event(),
        Some(Event::Suspect {
            machine,
            reason: Reason::Silence
        })
    );
}

/// The original dies while both replicas are being opened: whoever answers first goes on, not whoever is first in the list and silent.
#[test]
fn the_heir_that_answers_overtakes_the_one_that_is_silent() {
    let mut t = Talk::new(3);
    t.shake_hands(1);
    t.client(words(1, 1, b"GET\n"));
    assert_eq!(down(&mut t, 0).switched, 1);
    t.hush();
    t.machine(
        2,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    assert_eq!(short(&t.machine_heard(2)), [(1, Some(1), "GET\n")]);
    t.machine(2, words(1, 5, b"42\n"));
    let heard = t.client_heard();
    assert_eq!(heard.last().map(|h| (h.at, h.data.as_slice())), Some((1, &b"42\n"[..])));
}

/// R13 guards what a client has heard of a machine. One that never answered may be asked again when it is back.
#[test]
fn a_machine_that_never_answered_is_asked_again_when_it_is_back() {
    let mut t = Talk::new(2);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    assert_eq!(down(&mut t, 0).switched, 1);
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    t.engine.command(t.now, Command::Up { machine });
    t.hush();
    let outcome = down(&mut t, 1);
    assert_eq!((outcome.switched, outcome.lost), (1, 0));
    assert_eq!(t.machine_heard(0).first().map(|h| h.flags), Some(Flags::SYN));
    assert!(t.client_heard().is_empty());
}

/// The FIN that the client got was replayed from a replica's cache, and the same FIN of the last machine was lost: the flow ends all the same.
#[test]
fn a_fin_that_was_lost_behind_a_replayed_one_is_known() {
    let mut t = Talk::established_without_votes(3);
    t.client(words(1, 1, b"QUIT"));
    let bye = words(1, 5, b"+OK");
    t.machine(
        1,
        Say {
            flags: Flags::FIN,
            ..bye
        },
    );
    t.machine(2, bye);
    t.machine(
        2,
        Say {
            at: 5,
            data: b"",
            ..bye
        },
    );
    assert_eq!(down(&mut t, 0).switched, 1);
    let heard = t.client_heard();
    assert!(heard.iter().any(|h| h.flags.contains(Flags::FIN)), "{heard:?}");
    t.client(Say {
        at: 5,
        ack: Some(5),
        flags: Flags::FIN,
        ..Say::default()
    });
    t.machine(2, ack(5, 6));
    assert_eq!(down(&mut t, 1).switched, 1);
    t.wait(20_000 * MS);
    assert_eq!(t.engine.status().services[0].flows, 0);
}

/// What the engine suspects m0 of, and when, while `time` passes in steps of a millisecond.
fn suspicions(t: &mut Talk, time: Micros) -> Vec<(Micros, Reason)> {
    let start = t.now;
    let mut all = vec![];
    while t.now < start + time {
        t.wait(MS);
        while let Some(event) = t.engine.take_event() {
            match event {
                Event::Suspect { machine, reason } if machine == machine_ref(0) => all.push((t.now - start, reason)),
                other => panic!("{other:?}"),
            }
        }
    }
    all
}

#[test]
fn an_original_that_says_nothing_while_a_replica_speaks_is_suspected() {
    let mut t = Talk::established(2);
    t.machine(0, words(1, 1, b"one"));
    t.machine(1, words(1, 1, b"one"));
    assert_eq!(suspicions(&mut t, 50 * MS), [], "level");
    t.machine(1, words(4, 1, b"two"));
    let silence = (5 * MS, Reason::Silence);
    assert_eq!(
        suspicions(&mut t, 9 * MS),
        [silence],
        "all is acknowledged, as in a download"
    );
    t.machine(0, words(4, 1, b"t"));
    assert_eq!(suspicions(&mut t, 4 * MS), [], "it speaks, if slowly");
    assert_eq!(suspicions(&mut t, MS), [(MS, Reason::Silence)]);
}

#[test]
fn an_original_that_was_cleared_is_suspected_again_after_longer_and_longer() {
    let mut t = Talk::established(2);
    t.machine(1, words(1, 1, b"one"));
    let at: Vec<Micros> = suspicions(&mut t, 400 * MS).iter().map(|s| s.0 / MS).collect();
    assert_eq!(at, [5, 15, 35, 75, 155, 255, 355], "in milliseconds");
}

#[test]
fn a_machine_whose_service_has_ended_too_early_takes_nothing_over() {
    let mut t = Talk::established(3);
    t.client(words(1, 1, b"GET a\n"));
    // Replica 1 has crashed: its FIN stands where the answer begins.
    let fin = Say {
        flags: Flags::FIN,
        ..words(1, 7, b"")
    };
    t.machine(1, fin);
    t.machine(2, words(1, 7, b"42\n"));
    t.machine(0, words(1, 7, b"42\n"));
    t.client_heard();
    let to = machine_ref(1);
    assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 0);
    assert_eq!(down(&mut t, 0).switched, 1);
    assert_eq!(t.engine.status().services[0].machines[2].original_of, 1);
}

#[test]
fn a_fin_that_the_original_lost_on_the_way_is_not_taken_for_a_byte() {
    let mut t = Talk::established(2);
    t.client(Say {
        flags: Flags::FIN,
        ..words(1, 1, b"QUIT")
    });
    let bye = words(1, 6, b"+OK");
    t.machine(
        1,
        Say {
            flags: Flags::FIN,
            ..bye
        },
    );
    t.machine(0, bye);
    // Its FIN is lost; what comes next stands behind it.
    t.machine(0, words(5, 6, b""));
    t.hush();
    assert_eq!(down(&mut t, 0).switched, 1);
    let heard = t.client_heard();
    assert!(heard.iter().any(|h| h.flags.contains(Flags::FIN)), "{heard:?}");
}

#[test]
fn an_heir_that_lost_the_clients_third_packet_gets_it_from_the_engine() {
    let mut t = Talk::new(2);
    let syn = Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    };
    let syn_ack = Say {
        flags: Flags::SYN,
        ack: Some(1),
        ..Say::default()
    };
    t.client(syn);
    t.machine(0, syn_ack);
    down(&mut t, 0);
    t.machine(1, syn_ack);
    // The client has machine 0's answer and proves itself; that is lost on the way to machine 1.
    t.client(ack(1, 1));
    t.hush();
    t.wait(1_000 * MS);
    t.machine(1, syn_ack);
    assert!(t.machine_heard(1).iter().any(|h| h.ack == Some(1) && h.data.is_empty()));
}

/// R2: nobody else follows, so nothing of the client's is kept. What the engine has not kept it must not try to say again.
#[test]
fn an_original_that_took_over_an_unproved_client_and_lost_its_words_hears_them_from_the_client() {
    let mut t = Talk::new(2);
    let syn = Say {
        flags: Flags::SYN,
        ..Say::default()
    };
    let syn_ack = Say { ack: Some(1), ..syn };
    t.client(syn);
    t.machine(0, syn_ack);
    // The client has m0's SYN/ACK; m1 answers later, and is all that is left.
    down(&mut t, 0);
    t.machine(1, syn_ack);
    let last = Say {
        flags: Flags::FIN,
        ..words(1, 1, b"GET\n")
    };
    t.client(ack(1, 1));
    t.client(last);
    assert_eq!(t.machine_heard(1).last().unwrap().at, 1);
    // Both packets were lost on the way to m1.
    t.wait(SECOND);
    t.machine(1, syn_ack);
    t.wait(SECOND);
    let heard = t.machine_heard(1);
    assert!(heard.iter().all(|h| !h.flags.contains(Flags::FIN)), "{heard:?}");
    t.client(last);
    let heard = t.machine_heard(1);
    assert_eq!(short(&heard), [(1, Some(1), "GET\n")]);
    assert!(heard[0].flags.contains(Flags::FIN));
}

/// Among thousands of flows it may be some time before the pump comes to this one.
#[test]
fn a_client_that_speaks_before_the_cached_answer_is_out_still_gets_it() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, ack(1, 5));
    t.machine(1, words(1, 5, b"42\n"));
    t.hush();
    let machine = machine_ref(0);
    assert_eq!(t.engine.command(t.now, Command::Down { machine }).switched, 1);
    // Not polled yet.
    t.client(words(5, 1, b"PUT\n"));
    let heard = t.client_heard();
    assert!(short(&heard).contains(&(1, Some(5), "42\n")), "{heard:?}");
}

/// It is acknowledged all the same once the client has had it of the original, so it is never said again.
#[test]
fn what_a_heir_said_long_ago_and_was_lost_keeps_back_nothing_that_it_said_since() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, words(1, 5, b"abc"));
    // Its "a" was lost on the way here.
    t.machine(1, words(2, 5, b"bc"));
    t.client(ack(5, 4));
    t.machine(1, words(4, 5, b"d"));
    t.hush();
    down(&mut t, 0);
    let heard = t.client_heard();
    assert!(short(&heard).contains(&(4, Some(5), "d")), "{heard:?}");
}
