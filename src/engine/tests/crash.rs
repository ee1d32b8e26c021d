//! R11, R14: what the end of many connections says of one that has not ended yet.

use super::*;

const FIN: Flags = Flags::FIN;

/// The original has ended so many connections of other clients alone.
fn ends(t: &mut Talk, many: u32) {
    let original = machine_ref(0);
    for _ in 0..many {
        t.engine.cx.note_end(t.now, original.service, original.machine);
    }
}

fn is_crashing(t: &Talk) -> bool {
    let original = machine_ref(0);
    t.engine.cx.is_crashing(t.now, original.service, original.machine)
}

/// The client has asked; the original's kernel has taken that, and the replica has answered.
fn answered_by_the_replica(t: &mut Talk) {
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, ack(1, 5));
    t.machine(1, words(1, 5, b"42\n"));
    t.hush();
}

fn moved(t: &Talk) -> u64 {
    t.engine.stats().get(Counter::CrashesLeft)
}

fn answers(t: &mut Talk) -> Vec<Vec<u8>> {
    let heard = t.client_heard();
    heard.into_iter().map(|h| h.data).filter(|d| !d.is_empty()).collect()
}

#[test]
fn a_request_that_a_crashing_service_leaves_unanswered_moves_to_the_replica_that_has_answered() {
    let mut t = Talk::established(2);
    ends(&mut t, 16);
    answered_by_the_replica(&mut t);
    t.wait(5 * MS - 1);
    assert!(answers(&mut t).is_empty(), "not before the silence that is suspected");
    t.wait(2);
    assert_eq!(answers(&mut t), [b"42\n".to_vec()]);
    assert_eq!(moved(&t), 1);
    assert_eq!(t.engine.take_event(), None, "nothing is held against its machine");
    // It goes on there, and the old original, should it live, gets what a replica gets.
    t.hush();
    t.client(words(5, 4, b"MORE\n"));
    assert_eq!(
        t.machine_heard(1).last().map(|h| h.data.clone()),
        Some(b"MORE\n".to_vec())
    );
    t.machine(0, words(1, 5, b"42\n"));
    assert_eq!(
        t.machine_heard(0).last().map(|h| h.data.clone()),
        Some(b"MORE\n".to_vec())
    );
    assert!(answers(&mut t).is_empty());
}

#[test]
fn a_few_ends_are_an_everyday_thing() {
    let mut t = Talk::established(2);
    ends(&mut t, 15);
    answered_by_the_replica(&mut t);
    t.wait(6 * MS);
    assert!(answers(&mut t).is_empty());
    let (machine, reason) = (machine_ref(0), Reason::Silence);
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
}

#[test]
fn ends_of_long_ago_are_another_story() {
    let mut t = Talk::established(2);
    ends(&mut t, 16);
    t.wait(101 * MS);
    ends(&mut t, 1);
    answered_by_the_replica(&mut t);
    t.wait(6 * MS);
    assert_eq!(moved(&t), 0);
}

#[test]
fn a_service_that_says_a_word_works() {
    let mut t = Talk::established(2);
    ends(&mut t, 16);
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, ack(1, 5));
    assert!(is_crashing(&t), "an acknowledgement is its kernel's");
    t.machine(0, words(1, 5, b"42\n"));
    assert!(!is_crashing(&t));
}

#[test]
fn a_repetition_is_the_kernels() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, words(1, 5, b"42\n"));
    ends(&mut t, 16);
    t.machine(0, words(1, 5, b"42\n"));
    assert!(is_crashing(&t));
}

#[test]
fn a_slow_replica_is_no_reason_to_move() {
    let mut t = Talk::established(2);
    ends(&mut t, 16);
    t.client(words(1, 1, b"GET\n"));
    t.machine(1, ack(1, 5));
    t.wait(30 * MS);
    assert_eq!(moved(&t), 0, "neither has answered");
}

#[test]
fn an_end_counts_once_and_not_where_a_replica_says_the_same() {
    let mut t = Talk::established(2);
    ends(&mut t, 15);
    t.client(words(1, 1, b"QUIT"));
    for i in 0..2 {
        t.machine(i, ack(1, 5));
    }
    let fin = Say {
        flags: FIN,
        ..ack(1, 5)
    };
    t.machine(0, fin);
    assert!(is_crashing(&t));
    t.machine(1, fin);
    assert!(!is_crashing(&t), "it is the service's wish");
    ends(&mut t, 15);
    t.machine(0, fin);
    assert!(!is_crashing(&t), "said again");
}

#[test]
fn an_end_that_was_said_as_a_replica_is_no_news_when_it_takes_over() {
    let mut t = Talk::established(3);
    let heir = machine_ref(1);
    for _ in 0..15 {
        t.engine.cx.note_end(t.now, heir.service, heir.machine);
    }
    // Its service was started anew long ago, when it was a replica, and its kernel said so.
    t.client(words(1, 1, b"GET\n"));
    for i in [0, 1, 2] {
        t.machine(i, words(1, 5, b"42\n"));
    }
    t.machine(
        1,
        Say {
            flags: FIN,
            ..ack(4, 5)
        },
    );
    t.client(ack(5, 4));
    assert_eq!(t.engine.command(t.now, Command::Failover { to: heir }).switched, 1);
    t.poll();
    assert_eq!(t.engine.stats().get(Counter::VotesOpened), 1, "the others go on");
    assert!(!t.engine.cx.is_crashing(t.now, heir.service, heir.machine));
}
