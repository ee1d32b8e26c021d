//! R17 within R18's bounds: what is compared takes no more memory than it may, and what it tells no more room.

use super::*;

#[test]
fn beyond_its_bound_a_late_leg_is_not_compared_and_that_is_counted() {
    let mut spec = spec(2);
    spec.limits.flow_buffer = 4_096;
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.client(words(1, 1, b"GET a\r\n"));
    for piece in 0..10 {
        says(&mut t, 0, 1 + 1_000 * piece, &[b'a'; 1_000]);
        client_acks(&mut t, 1_001 + 1_000 * piece);
    }
    let skipped = counts(&t)[3];
    assert_eq!(skipped, 10_000 - 4_096);
    for piece in 0..10 {
        let word = if piece == 8 { b'b' } else { b'a' };
        says(&mut t, 1, 1 + 1_000 * piece, &[word; 1_000]);
    }
    assert_eq!(counts(&t), [1, 0, 1_000, skipped, 0]);
    assert!(t.engine.status().buffered_bytes <= 3 * 4_096);
}

#[test]
fn what_a_dead_machine_has_not_said_is_not_counted() {
    let mut spec = spec(3);
    spec.limits.flow_buffer = 4_096;
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(3);
    t.client(words(1, 1, b"GET a\r\n"));
    down(&mut t, 2);
    for piece in 0..10 {
        says(&mut t, 0, 1 + 1_000 * piece, &[b'a'; 1_000]);
        client_acks(&mut t, 1_001 + 1_000 * piece);
    }
    assert_eq!(counts(&t)[3], 10_000 - 4_096, "of the one that lives");
}

#[test]
fn a_silent_replica_takes_no_memory_from_others() {
    let mut spec = spec(2);
    spec.limits.total_buffer = 40_000;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.client(words(1, 1, b"GET a\r\n"));
    // The replica's TCP acknowledges what its application never answers.
    t.machine(0, ack(1, 8));
    t.machine(1, ack(1, 8));
    for piece in 0..40 {
        says(&mut t, 0, 1 + 1_000 * piece, &[b'a'; 1_000]);
        client_acks(&mut t, 1_001 + 1_000 * piece);
        let held = t.engine.status().buffered_bytes;
        assert!(
            held <= 30_000,
            "piece {piece}: {held} bytes, and everybody's window closes"
        );
    }
    assert!(counts(&t)[3] > 0);
    t.wait(3 * spec::SECOND);
    assert_eq!(t.engine.status().buffered_bytes, 0);
    assert_eq!(counts(&t), [0, 0, 0, 40_000, 0]);
    // What it says from here on is compared again.
    says(&mut t, 0, 40_001, b"abc");
    says(&mut t, 1, 40_000, b"aaXc");
    assert_eq!(counts(&t), [1, 0, 1, 40_000, 0]);
}

#[test]
fn a_leg_of_another_length_holds_nothing_up() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 1, 1, b"abc");
    ends(&mut t, 1, 4);
    for piece in 0..10 {
        says(&mut t, 0, 1 + 1_000 * piece, &[b'a'; 1_000]);
        client_acks(&mut t, 1_001 + 1_000 * piece);
    }
    let held = t.engine.status().buffered_bytes;
    assert!(held < 10_000, "{held} bytes: less than what the client was given");
    assert_eq!(counts(&t), [1, 1, 2, 0, 1]);
}

#[test]
fn idle_flows_hold_no_memory_for_it() {
    let mut t = asked(2, DivergePolicy::Warn);
    for i in [1, 0] {
        says(&mut t, i, 1, b"abc");
    }
    client_acks(&mut t, 4);
    assert!(t.engine.status().buffered_bytes > 0);
    t.wait(3 * spec::SECOND);
    assert_eq!(t.engine.status().buffered_bytes, 0);
    // What has not been said after a rest is not waited for.
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abc");
    client_acks(&mut t, 4);
    says(&mut t, 1, 1, b"a");
    t.wait(3 * spec::SECOND);
    assert_eq!(t.engine.status().buffered_bytes, 0);
    assert_eq!(counts(&t), [0, 0, 0, 2, 0]);
    // And it goes on where it was.
    says(&mut t, 1, 2, b"bc");
    says(&mut t, 0, 4, b"def");
    says(&mut t, 1, 4, b"dEf");
    assert_eq!(
        differences(&events(&mut t)),
        [(1, 4, "def".to_owned(), "dEf".to_owned(), false)]
    );
}

#[test]
fn what_is_for_people_leaves_room_for_what_is_said_once() {
    let mut cx = context::Context::new(spec(2));
    let outvoted = Event::Outvoted {
        machine: machine_ref(0),
        client: client(),
        offset: 0,
    };
    for _ in 0..2_000 {
        cx.event(outvoted);
    }
    let evict = Event::Evict {
        machine: machine_ref(1),
        reason: Reason::Divergence,
    };
    cx.event(evict);
    assert_eq!(cx.events.back(), Some(&evict));
}
