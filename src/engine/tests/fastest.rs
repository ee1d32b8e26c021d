//! R16, `original = "fastest"`: each byte from whoever says it first.

use super::*;

fn racing(machines: usize) -> Talk {
    let mut spec = spec(machines);
    spec.services[0].original = Original::Fastest;
    let mut t = Talk::with(spec, true);
    t.shake_hands(machines);
    t
}

fn question() -> Say<'static> {
    words(1, 1, b"GET\n")
}

fn answer(data: &[u8]) -> Say<'_> {
    words(1, 5, data)
}

#[test]
fn the_first_answer_is_the_clients_and_the_others_are_absorbed() {
    let mut t = racing(3);
    t.client(question());
    t.machine(2, answer(b"42\n"));
    let heard = t.client_heard();
    assert_eq!(
        short(&heard),
        [(1, Some(1), "42\n")],
        "R4: nobody else has the question yet"
    );
    assert_eq!(
        heard[0].ts.map(|ts| ts.0),
        Some(CLOCK[0]),
        "the clock goes on where the promise left it"
    );
    for late in [0, 1] {
        assert_eq!(t.machine(late, answer(b"42\n")), Verdict::Drop(DropReason::Replica));
    }
    let heard = t.client_heard();
    assert_eq!(
        short(&heard),
        [(4, Some(5), "")],
        "once all have it the client is told, once"
    );
    // All three are acknowledged as far as the client has got.
    t.hush();
    t.client(ack(5, 4));
    for i in 0..3 {
        let told = t.machine_heard(i);
        assert_eq!(told.last().and_then(|h| h.ack), Some(4), "m{i}");
    }
}

#[test]
fn a_beaten_original_is_asked_the_next_question_when_it_has_answered_the_last() {
    let mut t = racing(2);
    t.client(question());
    t.machine(1, answer(b"42\n"));
    t.hush();
    let next = words(5, 4, b"PUT\n");
    t.client(next);
    assert_eq!(short(&t.machine_heard(1)), [(5, Some(4), "PUT\n")]);
    assert!(
        t.machine_heard(0).iter().all(|h| h.data.is_empty() && h.ack <= Some(1)),
        "R23, I4: it has not answered"
    );
    t.machine(0, answer(b"42\n"));
    assert_eq!(short(&t.machine_heard(0)).last(), Some(&(5, Some(4), "PUT\n")));
}

#[test]
fn what_is_partly_new_passes_whole() {
    let mut t = racing(2);
    t.client(question());
    t.machine(1, answer(b"4"));
    t.machine(0, answer(b"42\n"));
    assert_eq!(
        short(&t.client_heard()).iter().map(|h| (h.0, h.2)).collect::<Vec<_>>(),
        [(1, "4"), (1, "42\n")]
    );
    t.machine(
        1,
        Say {
            at: 2,
            ..answer(b"2\n")
        },
    );
    assert!(t.client_heard().iter().all(|h| h.data.is_empty()));
}

#[test]
fn what_was_lost_is_said_again_by_the_lead_and_nobody_else() {
    let mut t = racing(3);
    t.client(question());
    t.machine(2, answer(b"42\n"));
    t.machine(1, answer(b"42\n"));
    t.hush();
    t.machine(1, answer(b"42\n"));
    assert!(t.client_heard().iter().all(|h| h.data.is_empty()), "not the lead");
    t.machine(2, answer(b"42\n"));
    assert_eq!(t.client_heard().last().map(|h| h.data.clone()), Some(b"42\n".to_vec()));
    // Once the client has it, nobody need say it.
    t.client(ack(5, 4));
    t.hush();
    t.machine(2, answer(b"42\n"));
    assert!(t.client_heard().iter().all(|h| h.data.is_empty()));
}

#[test]
fn the_death_of_the_lead_or_of_the_original_loses_nothing() {
    for dead in [0, 2] {
        let mut t = racing(3);
        t.client(question());
        t.machine(2, answer(b"42\n"));
        let machine = MachineRef {
            service: ServiceId(0),
            machine: MachineId(dead),
        };
        let outcome = t.engine.command(t.now, Command::Down { machine });
        assert_eq!((outcome.applied, outcome.lost), (true, 0));
        t.poll();
        t.hush();
        let alive = if dead == 0 { [1, 2] } else { [0, 1] };
        for i in alive {
            t.machine(i, answer(b"42\n"));
        }
        t.client(words(5, 4, b"PUT\n"));
        t.hush();
        t.machine(1, words(4, 9, b"ok\n"));
        assert_eq!(
            short(&t.client_heard()).first().map(|h| (h.0, h.2)),
            Some((4, "ok\n")),
            "{dead} died"
        );
    }
}

#[test]
fn a_replicas_fin_waits_for_another_machines() {
    let mut t = racing(3);
    t.client(question());
    let last = Say {
        flags: Flags::FIN,
        ..answer(b"bye")
    };
    t.machine(2, last);
    let heard = t.client_heard();
    assert_eq!(
        (heard[0].flags.contains(Flags::FIN), heard[0].data.as_slice()),
        (false, &b"bye"[..])
    );
    t.machine(1, last);
    let heard = t.client_heard();
    assert!(heard[0].flags.contains(Flags::FIN), "two are agreed: {heard:?}");
    t.machine(0, last);
    assert!(
        t.client_heard()
            .iter()
            .all(|h| h.data.is_empty() && !h.flags.contains(Flags::FIN))
    );
}

#[test]
fn a_replica_that_trails_is_heard_with_its_own_window_once_it_is_level() {
    let mut t = racing(3);
    t.client(words(1, 1, b"abc"));
    t.machine(0, ack(1, 4));
    t.machine(2, ack(1, 4));
    t.wait(201 * MS);
    assert_eq!(t.engine.status().services[0].machines[1].trailing, 1, "R15");
    // More room, of which the client is not told: first a third machine has less, and then it is not there any more.
    let roomier = Say {
        window: 1_001,
        ..ack(1, 4)
    };
    t.machine(0, roomier);
    down(&mut t, 2);
    t.hush();
    // All that it lacked, and the answer, in one segment: R5 asks for the least window, its own, but for what was told before.
    let tight = Say {
        window: 900,
        ..words(1, 4, b"42\n")
    };
    t.machine(1, tight);
    let heard = t.client_heard();
    assert_eq!(short(&heard), [(1, Some(4), "42\n")]);
    assert_eq!(heard[0].window, 1_000);
}

#[test]
fn a_leg_that_is_not_eligible_never_speaks() {
    let mut spec = spec(2);
    spec.services[0].original = Original::Fastest;
    let mut t = Talk::with(spec, true);
    t.shake_hands(1);
    t.options = false;
    t.machine(
        1,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    t.options = true;
    t.client(question());
    t.hush();
    t.options = false;
    assert_eq!(t.machine(1, answer(b"42\n")), Verdict::Drop(DropReason::Replica));
    t.options = true;
    assert!(t.client_heard().is_empty());
}

#[test]
fn what_a_dead_lead_has_said_the_new_original_may_say_for_the_first_time() {
    let mut t = racing(3);
    t.client(question());
    t.machine(0, answer(b"42\n"));
    t.machine(
        0,
        Say {
            at: 4,
            ..answer(b"43\n")
        },
    );
    assert_eq!(t.client_heard().len(), 2, "and none of it arrives");
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    assert_eq!(t.engine.command(t.now, Command::Down { machine }).switched, 1);
    t.poll();
    let verdict = t.machine(1, answer(b"42\n"));
    assert!(matches!(verdict, Verdict::Accept { .. }), "{verdict:?}");
    assert_eq!(
        t.machine(2, answer(b"42\n")),
        Verdict::Drop(DropReason::Replica),
        "of the others it is no news"
    );
}

/// RFC 9293 section 3.8.4: a keep-alive repeats the last position, here the FIN's, and may carry a byte of garbage there.
#[test]
fn the_garbage_byte_of_a_keep_alive_is_no_word() {
    let mut t = racing(3);
    t.client(question());
    t.machine(
        2,
        Say {
            flags: Flags::FIN,
            ..answer(b"bye")
        },
    );
    t.hush();
    assert_eq!(t.machine(2, words(4, 5, b"\0")), Verdict::Drop(DropReason::Replica));
    assert!(t.client_heard().is_empty());
}

#[test]
fn an_original_that_ends_before_what_the_client_has_of_others_is_none_any_more() {
    let mut t = racing(3);
    t.client(question());
    t.machine(1, answer(b"42\n"));
    assert_eq!(t.client_heard().len(), 1);
    let fin = Say {
        flags: Flags::FIN,
        ..answer(b"")
    };
    t.machine(0, fin);
    assert!(t.client_heard().iter().all(|h| !h.flags.contains(Flags::FIN)));
    assert_eq!(t.engine.status().services[0].machines[1].original_of, 1);
    // The conversation is not over, and the new original's word is its end.
    t.client(words(5, 4, b"QUIT\n"));
    let bye = Say {
        flags: Flags::FIN,
        ..words(4, 10, b"+OK")
    };
    t.machine(1, bye);
    // Once another machine has said it, too (R11).
    t.machine(2, answer(b"42\n"));
    t.machine(2, bye);
    assert!(t.client_heard().iter().any(|h| h.flags.contains(Flags::FIN)));
}

#[test]
fn an_original_that_ends_before_the_end_that_two_others_have_told_is_none_any_more() {
    let mut t = racing(3);
    t.client(question());
    let end = fin(answer(b"42\n"));
    t.machine(1, end);
    t.machine(2, end);
    let heard = t.client_heard();
    assert!(heard.iter().any(|h| h.flags.contains(Flags::FIN)), "{heard:?}");
    // Of which only the words arrive. The original's process dies after its first byte: nobody votes on an end that is known.
    t.machine(0, fin(answer(b"4")));
    assert_eq!(t.engine.status().services[0].machines[1].original_of, 1);
    t.client(ack(5, 4));
    t.hush();
    let verdict = t.machine(1, fin(words(4, 5, b"")));
    assert!(matches!(verdict, Verdict::Accept { .. }), "{verdict:?}");
    assert!(t.client_heard().iter().any(|h| h.flags.contains(Flags::FIN)));
}
