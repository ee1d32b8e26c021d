//! R15 told as dialogues: the client stops waiting for a replica that is behind; the replica trails, is level again, or is out.

use super::super::{Command, Counter, Event, Reason};
use super::spec::SECOND;
use super::*;

/// The client has said "abc" (1 to 4); the original has taken it, the last machine has not, and the client waits no longer.
fn trailing(machines: usize) -> Talk {
    let mut t = Talk::established(machines);
    t.client(words(1, 1, b"abc"));
    for i in 0..machines - 1 {
        t.machine(i, ack(1, 4));
    }
    t.wait(199 * MS);
    assert!(t.client_heard().is_empty(), "R4: not before the replica has it");
    t.wait(2 * MS);
    assert_eq!(short(&t.client_heard()), [(1, Some(4), "")], "R15: no longer than that");
    assert_eq!(t.engine.stats().get(Counter::LegsTrailed), 1);
    t.hush();
    t
}

/// Takes out what is no business of R15.
fn evictions(t: &mut Talk) -> Vec<Event> {
    std::iter::from_fn(|| t.engine.take_event())
        .filter(|e| matches!(e, Event::Evict { .. }))
        .collect()
}

#[test]
fn a_client_does_not_wait_for_a_replica_that_trails() {
    let mut t = trailing(2);
    t.client(words(4, 1, b"def"));
    t.hush();
    t.machine(0, ack(1, 7));
    // The original's word goes on at once.
    assert_eq!(short(&t.client_heard()), [(1, Some(7), "")]);
    assert_eq!(evictions(&mut t), []);
    assert_eq!(t.engine.status().services[0].machines[1].trailing, 1);
}

#[test]
fn a_replica_that_is_level_again_counts_again() {
    let mut t = trailing(2);
    t.machine(1, ack(1, 4));
    assert_eq!(t.engine.status().services[0].machines[1].trailing, 0);
    t.client(words(4, 1, b"def"));
    t.hush();
    t.machine(0, ack(1, 7));
    assert!(t.client_heard().is_empty(), "R4: m1 lacks it");
    t.machine(1, ack(1, 7));
    assert_eq!(short(&t.client_heard()), [(1, Some(7), "")]);
    t.wait(SECOND * 3);
    assert_eq!(evictions(&mut t), []);
}

#[test]
fn a_replica_that_is_late_again_and_again_is_out() {
    let mut t = trailing(2);
    for round in 1..4 {
        t.machine(1, ack(1, 1 + 3 * round));
        assert_eq!(evictions(&mut t), [], "round {round}");
        t.client(words(1 + 3 * round, 1, b"def"));
        t.hush();
        t.machine(0, ack(1, 4 + 3 * round));
        t.wait(201 * MS);
        assert_eq!(
            short(&t.client_heard()),
            [(1, Some(4 + 3 * round), "")],
            "round {round}"
        );
    }
    assert!(matches!(evictions(&mut t)[..], [Event::Evict { .. }]));
}

#[test]
fn a_replica_that_makes_no_progress_is_out_in_the_end() {
    let mut t = trailing(2);
    t.wait(1_798 * MS);
    assert_eq!(evictions(&mut t), [], "ten times as long, from its last progress on");
    t.wait(2 * MS);
    let evict = Event::Evict {
        machine: machine_ref(1),
        reason: Reason::ReplicaTimeout,
    };
    assert_eq!(evictions(&mut t), [evict]);
}

#[test]
fn a_replica_for_which_the_buffer_has_no_room_left_is_out_at_once() {
    let mut spec = spec(2);
    spec.limits.flow_buffer = 4_000;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    let (first, second) = ([b'x'; 1_400], [b'y'; 1_400]);
    // Windows in a SYN are not scaled; these are.
    for i in 0..2 {
        t.machine(i, ack(1, 1));
    }
    t.client(words(1, 1, &first));
    t.machine(0, ack(1, 1_401));
    t.wait(201 * MS);
    assert_eq!(t.engine.stats().get(Counter::LegsTrailed), 1);
    t.hush();
    // What is kept for m1 leaves less than a segment's room.
    t.client(words(1_401, 1, &second));
    t.machine(0, ack(1, 2_801));
    t.wait(MS);
    assert!(matches!(evictions(&mut t)[..], [Event::Evict { .. }]));
    assert_eq!(t.engine.stats().get(Counter::LegsEvicted), 1);
}

#[test]
fn a_replica_that_trails_can_take_over_and_gets_what_it_lacks() {
    let mut t = trailing(2);
    t.client(words(4, 1, b"def"));
    t.machine(0, ack(1, 7));
    t.hush();
    assert_eq!(down(&mut t, 0).switched, 1);
    t.wait(SECOND);
    assert!(short(&t.machine_heard(1)).contains(&(1, Some(1), "abcdef")));
    t.hush();
    t.machine(1, ack(1, 7));
    t.machine(1, words(1, 7, b"ok"));
    assert_eq!(
        short(&t.client_heard()),
        [(1, Some(7), "ok")],
        "nothing that the client was told is taken back"
    );
}

#[test]
fn a_replica_that_is_level_takes_over_before_one_that_trails() {
    let mut spec = spec(3);
    spec.services[0].machines.swap(1, 2);
    let mut t = Talk::established(3);
    t.client(words(1, 1, b"abc"));
    t.machine(0, ack(1, 4));
    t.machine(2, ack(1, 4));
    t.wait(201 * MS);
    t.hush();
    down(&mut t, 0);
    t.machine(2, words(1, 4, b"ok"));
    assert_eq!(
        short(&t.client_heard()).last(),
        Some(&(1, Some(4), "ok")),
        "m1 is first in the list, but behind"
    );
}

#[test]
fn new_clients_do_not_wait_for_a_slow_machine_until_it_is_level_once() {
    let mut t = Talk::new(2);
    t.engine.cx.set_slow(machine_ref(1), SECOND);
    t.shake_hands(1);
    t.client(words(1, 1, b"abc"));
    t.hush();
    t.machine(0, ack(1, 4));
    assert_eq!(short(&t.client_heard()), [(1, Some(4), "")], "at once");
    t.machine(
        1,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    assert!(
        t.engine.cx.is_slow(t.now, machine_ref(1)),
        "it has not said that it has anything"
    );
    t.machine(1, ack(1, 4));
    assert!(!t.engine.cx.is_slow(t.now, machine_ref(1)));
}

#[test]
fn a_machine_that_is_enabled_again_is_slow_no_more() {
    let mut t = trailing(2);
    let machine = machine_ref(1);
    assert!(t.engine.cx.is_slow(t.now, machine));
    down(&mut t, 1);
    t.engine.command(t.now, Command::Up { machine });
    assert!(!t.engine.cx.is_slow(t.now, machine));
}
