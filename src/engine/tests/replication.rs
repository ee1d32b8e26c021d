//! R1 to R9 and R23 on the steady path.

use super::super::Event;
use super::*;

#[test]
fn replicas_are_opened_by_the_third_packet() {
    let mut t = Talk::new(3);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    assert_eq!(short(&t.machine_heard(0)), [(0, None, "")]);
    t.machine(
        0,
        Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        },
    );
    assert_eq!(short(&t.client_heard()), [(0, Some(1), "")]);
    assert!(
        t.machine_heard(1).is_empty(),
        "R1: nothing before the client has proved itself"
    );
    t.client(ack(1, 1));
    for i in [1, 2] {
        let syn = t.machine_heard(i);
        assert_eq!(short(&syn), [(0, None, "")]);
        assert_eq!(syn[0].flags, Flags::SYN);
        t.machine(
            i,
            Say {
                flags: Flags::SYN,
                ack: Some(1),
                ..Say::default()
            },
        );
        assert_eq!(short(&t.machine_heard(i)), [(1, Some(1), "")]);
    }
}

#[test]
fn a_byte_is_acknowledged_when_every_machine_has_it() {
    let mut t = Talk::established(3);
    t.client(words(1, 1, b"SET a 1\n"));
    for i in 0..3 {
        assert_eq!(short(&t.machine_heard(i)), [(1, Some(1), "SET a 1\n")]);
    }
    // The original's answer is not delayed, only its acknowledgement is.
    t.machine(0, words(1, 9, b"OK\n"));
    assert_eq!(short(&t.client_heard()), [(1, Some(1), "OK\n")]);
    t.machine(1, words(1, 9, b"OK\n"));
    assert!(t.client_heard().is_empty());
    t.machine(2, ack(1, 9));
    assert_eq!(short(&t.client_heard()), [(4, Some(9), "")]);
    // R7: a replica hears of the client's acknowledgement, one that has sent nothing hears of none.
    t.hush();
    t.client(ack(9, 4));
    assert_eq!(short(&t.machine_heard(0)), [(9, Some(4), "")]);
    assert_eq!(short(&t.machine_heard(1)), [(9, Some(4), "")]);
    assert!(t.machine_heard(2).is_empty(), "I4: nothing to acknowledge");
    t.machine(2, words(1, 9, b"OK\n"));
    assert_eq!(short(&t.machine_heard(2)), [(9, Some(4), "")]);
}

#[test]
fn a_clipped_acknowledgement_that_says_nothing_is_no_duplicate() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    let verdict = t.machine(0, ack(1, 4));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoNews));
    t.machine(1, ack(1, 4));
    assert_eq!(short(&t.client_heard()), [(1, Some(4), "")]);
    // A real duplicate (the answer to a keepalive, say) passes.
    assert!(matches!(t.machine(0, ack(1, 4)), Verdict::Accept { .. }));
}

/// Both machines have taken "one", and the original has given its answer.
fn answered(answer: &'static [u8]) -> Talk {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"one"));
    t.machine(0, words(1, 4, answer));
    t.machine(1, ack(1, 4));
    t.hush();
    t
}

#[test]
fn the_next_request_waits_for_the_last_answer() {
    let mut t = answered(b"1!");
    t.client(words(4, 3, b"two"));
    assert_eq!(short(&t.machine_heard(0)), [(4, Some(3), "two")]);
    assert!(t.machine_heard(1).is_empty(), "R23: the replica has not said 1! yet");
    t.machine(1, words(1, 4, b"1!"));
    assert_eq!(short(&t.machine_heard(1)), [(4, Some(3), "two")]);
}

#[test]
fn a_replica_that_waits_for_itself_is_released_and_not_eligible() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"one"));
    t.machine(0, words(1, 4, b"1!"));
    t.machine(1, words(1, 4, b"1"));
    t.client(words(4, 3, b"two"));
    t.machine(0, ack(3, 7));
    t.hush();
    t.wait(50 * MS);
    assert!(!t.machine_heard(1).is_empty(), "it is asked how far it has sent");
    t.wait(151 * MS);
    assert_eq!(
        short(&t.client_heard()),
        [(3, Some(7), "")],
        "the client waits no longer (R15)"
    );
    t.wait(1_300 * MS);
    assert!(short(&t.machine_heard(1)).contains(&(4, Some(2), "two")));
    assert_eq!(t.engine.stats().get(Counter::CausalityReleases), 1);
    assert_eq!(t.engine.stats().get(Counter::LegsIneligible), 1);
}

/// The client has been told "1!" and asks "two", and the last machine has not even acknowledged "one".
fn one_that_stands_still() -> Talk {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"one"));
    t.machine(0, words(1, 4, b"1!"));
    t.wait(201 * MS);
    t.client(words(4, 3, b"two"));
    t.hush();
    t
}

fn was_told_two(t: &mut Talk) -> bool {
    short(&t.machine_heard(1)).iter().any(|s| s.2.ends_with("two"))
}

#[test]
fn a_replica_that_has_yet_to_hear_is_not_released() {
    let mut t = one_that_stands_still();
    t.machine(0, words(3, 7, b"2!"));
    t.wait(1_700 * MS);
    assert!(!was_told_two(&mut t), "R23");
    t.machine(1, words(1, 4, b"1!"));
    assert!(was_told_two(&mut t));
    t.machine(1, words(3, 7, b"2!"));
    assert_eq!(t.engine.stats().get(Counter::CausalityReleases), 0);
    assert_eq!(t.engine.stats().get(Counter::LegsIneligible), 0, "it may take over");
}

#[test]
fn a_replica_s_wait_counts_from_when_it_has_heard() {
    let mut t = one_that_stands_still();
    t.machine(0, words(3, 7, b"2!"));
    t.wait(1_700 * MS);
    t.machine(1, ack(1, 4));
    t.wait(1_490 * MS);
    assert!(!was_told_two(&mut t), "R23");
    t.wait(20 * MS);
    assert!(was_told_two(&mut t), "its service is silent, and R15 would be next");
    assert_eq!(t.engine.stats().get(Counter::LegsIneligible), 1);
}

#[test]
fn a_trailing_replica_that_says_its_answer_slowly_makes_progress() {
    let mut t = answered(b"a long answer");
    t.client(words(4, 14, b"two"));
    t.machine(0, ack(14, 7));
    t.hush();
    for at in 1..14 {
        t.wait(1_000 * MS);
        assert!(!was_told_two(&mut t), "R23: {at} of its bytes are to come");
        t.machine(1, words(at, 4, &b"a long answer"[at as usize - 1..][..1]));
    }
    assert!(was_told_two(&mut t));
    let evicts = |e: Event| matches!(e, Event::Evict { .. });
    assert!(!std::iter::from_fn(|| t.engine.take_event()).any(evicts), "R15");
    assert_eq!(t.engine.stats().get(Counter::CausalityReleases), 0);
}

#[test]
fn a_new_original_that_has_yet_to_hear_is_not_released_either() {
    let mut t = one_that_stands_still();
    down(&mut t, 0);
    t.wait(1_000 * MS);
    assert!(!was_told_two(&mut t), "R23");
    t.machine(1, words(1, 4, b"1!"));
    assert!(was_told_two(&mut t));
    assert_eq!(t.engine.stats().get(Counter::CausalityReleases), 0);
}

#[test]
fn a_lost_segment_is_sent_again_to_the_replica_alone() {
    let mut t = Talk::established(2);
    t.client(words(1, 1, b"abc"));
    t.machine(0, ack(1, 4));
    t.hush();
    t.wait(60 * MS);
    assert!(t.machine_heard(0).is_empty());
    assert!(short(&t.machine_heard(1)).iter().all(|s| *s == (1, Some(1), "abc")));
    t.machine(1, ack(1, 4));
    assert_eq!(short(&t.client_heard()), [(1, Some(4), "")]);
}

#[test]
fn the_window_is_the_least_of_all() {
    let mut t = Talk::established(2);
    // Shift 7: the original offers 2,000 units, the replica 1,500.
    t.client(words(1, 1, b"abc"));
    t.machine(
        1,
        Say {
            at: 1,
            ack: Some(4),
            window: 1_500,
            ..Say::default()
        },
    );
    t.hush();
    t.machine(
        0,
        Say {
            at: 1,
            ack: Some(4),
            window: 2_000,
            ..Say::default()
        },
    );
    assert_eq!(t.client_heard().iter().map(|h| h.window).collect::<Vec<_>>(), [1_500]);
}

#[test]
fn a_half_closed_connection_goes_on_and_ends_in_order() {
    let mut t = Talk::established(2);
    t.client(Say {
        at: 1,
        ack: Some(1),
        data: b"bye",
        flags: Flags::FIN,
        ..Say::default()
    });
    for i in 0..2 {
        assert!(t.machine_heard(i)[0].flags.contains(Flags::FIN));
        t.machine(
            i,
            Say {
                at: 1,
                ack: Some(5),
                data: b"last",
                flags: Flags::FIN,
                ..Say::default()
            },
        );
    }
    t.client(ack(5, 6));
    assert_eq!(short(&t.machine_heard(1)), [(5, Some(6), "")]);
    assert_eq!(
        t.engine.status().services[0].flows,
        1,
        "it answers retransmissions for a while"
    );
    t.wait(6_000 * MS);
    let status = t.engine.status();
    assert_eq!((status.services[0].flows, status.buffered_bytes), (0, 0));
}

#[test]
fn a_machine_that_is_back_gets_what_it_lacks_at_once() {
    let mut spec = spec(2);
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.client(words(1, 1, b"SET a 1\n"));
    t.machine(0, ack(1, 9));
    // Machine 1 is away for some seconds; the waits between repetitions grow.
    t.wait(3_000 * MS);
    t.hush();
    t.machine(1, ack(1, 1));
    t.wait(MS);
    assert_eq!(short(&t.machine_heard(1)), [(1, Some(1), "SET a 1\n")]);
    // Whatever else it says, this is not done for each of its packets.
    t.machine(1, ack(1, 1));
    t.wait(MS);
    assert!(t.machine_heard(1).is_empty());
}

#[test]
fn a_machine_that_does_not_answer_is_asked_less_and_less_often() {
    let mut spec = spec(2);
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.machine(0, words(1, 1, b"+ready\n"));
    // R23: the client had read the greeting, so machine 1 must have sent it before it is told this.
    t.client(words(1, 8, b"SET a 1\n"));
    t.hush();
    t.wait(10_000 * MS);
    let asked = t.machine_heard(1).len();
    assert!((5..40).contains(&asked), "asked {asked} times");
}

#[test]
fn what_an_old_segment_acknowledges_is_not_passed_on_either() {
    let mut t = Talk::established(2);
    let request = words(1, 1, b"GET /");
    t.client(request);
    t.client(Say {
        at: 6,
        data: b"index",
        ..request
    });
    for i in [0, 1] {
        t.machine(i, words(1, 11, b"200 OK"));
    }
    t.hush();
    // The client has read the answer, but neither its acknowledgement nor the machines' came through: it begins again.
    t.client(Say {
        ack: Some(7),
        ..request
    });
    assert_eq!(short(&t.machine_heard(0)), [(1, Some(1), "GET /")]);
    // A segment that belongs here is believed, and then all machines are told.
    t.client(ack(11, 7));
    assert_eq!(short(&t.machine_heard(0)), [(11, Some(7), "")]);
    assert_eq!(short(&t.machine_heard(1)), [(11, Some(7), "")]);
}

#[test]
fn windows_smaller_than_a_segment_excuse_no_replica_from_holding_up_the_client() {
    // No window scaling: nobody's window, of 1,000 bytes, takes a segment of 1,460.
    let mut t = Talk::with(spec(2), false);
    t.shake_hands(2);
    t.client(words(1, 1, b"one"));
    t.machine(0, words(1, 4, b"1!"));
    t.machine(1, words(1, 4, b"1"));
    t.client(words(4, 3, b"two"));
    t.machine(0, ack(3, 7));
    t.hush();
    // R23: it has not said what the client has read, and never will.
    t.wait(1_510 * MS);
    assert!(t.machine_heard(1).iter().any(|h| h.data == b"two"));
}
