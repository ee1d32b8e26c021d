//! R14, `hang`: a service that stands still while its machine's kernel answers, and a replica that shows it.

use super::*;

pub(super) const HANG: Micros = 50 * MS;

/// A conversation with `hang` set.
pub(super) fn watched(machines: usize) -> Talk {
    watched_with(machines, |_| ())
}

pub(super) fn watched_with(machines: usize, change: impl FnOnce(&mut ServiceSpec)) -> Talk {
    let mut spec = spec(machines);
    spec.services[0].detect.hang = Some(HANG);
    change(&mut spec.services[0]);
    let mut t = Talk::with(spec, true);
    t.shake_hands(machines);
    t
}

/// The client asks, and every kernel has taken the question.
pub(super) fn ask(t: &mut Talk, machines: usize) {
    t.client(words(1, 1, b"GET\n"));
    for i in 0..machines {
        t.machine(i, ack(1, 5));
    }
}

pub(super) fn hangs(t: &mut Talk) -> usize {
    let machine = machine_ref(0);
    let wanted = Event::Suspect {
        machine,
        reason: Reason::Hang,
    };
    std::iter::from_fn(|| t.engine.take_event())
        .filter(|e| *e == wanted)
        .count()
}

/// Time passes in which the original's kernel acknowledges now and then, as an answer to keep-alives would.
fn wait(t: &mut Talk, time: Micros) {
    for _ in 0..time / MS {
        t.wait(MS);
        t.machine(0, ack(1, 5));
    }
}

#[test]
fn a_service_that_is_silent_while_a_replicas_answers_hangs() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    wait(&mut t, 49 * MS);
    assert_eq!(hangs(&mut t), 0);
    wait(&mut t, 2 * MS);
    assert_eq!(hangs(&mut t), 1);
    // It is taken out for that: the replica's answer, kept until now, goes to the client.
    t.hush();
    assert_eq!(down(&mut t, 0).switched, 1);
    assert_eq!(t.client_heard().last().map(|h| h.data.clone()), Some(b"42\n".to_vec()));
}

#[test]
fn nobody_hangs_where_it_is_off_or_where_all_are_silent() {
    let mut t = watched_with(2, |service| service.detect.hang = None);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    wait(&mut t, 500 * MS);
    assert_eq!(hangs(&mut t), 0);

    let mut t = watched(2);
    ask(&mut t, 2);
    wait(&mut t, 500 * MS);
    assert_eq!(hangs(&mut t), 0, "a slow service");
}

#[test]
fn whatever_the_original_says_begins_the_time_anew() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n43\n"));
    wait(&mut t, 40 * MS);
    t.machine(0, words(1, 5, b"4"));
    wait(&mut t, 40 * MS);
    assert_eq!(hangs(&mut t), 0, "slow, but it goes on");
    t.machine(0, words(2, 5, b"2\n43\n"));
    wait(&mut t, 500 * MS);
    assert_eq!(hangs(&mut t), 0, "level");
}

#[test]
fn a_client_that_does_not_read_is_no_sign() {
    // Windows without a scale: 1,000 bytes, less than a segment.
    let mut spec = spec(2);
    spec.services[0].detect.hang = Some(HANG);
    let page = [b'x'; 900];
    for (kept_back, expected) in [(100, 0), (850, 1)] {
        let mut t = Talk::with(spec.clone(), false);
        t.shake_hands(2);
        ask(&mut t, 2);
        t.machine(1, words(1, 5, &page));
        // What is left of the client's window is not worth a segment to the one, but a good part of it to the other.
        t.machine(0, words(1, 5, &page[kept_back..]));
        t.wait(60 * MS);
        assert_eq!(hangs(&mut t), expected, "{kept_back}");
    }
}

#[test]
fn a_service_that_no_longer_reads_while_a_replicas_does_hangs() {
    let mut t = watched_with(2, |service| service.max_lag = MaxLag::Unlimited);
    let page = vec![b'x'; 1_000];
    t.client(words(1, 1, &page));
    t.machine(
        0,
        Say {
            window: 1,
            ..ack(1, 1_001)
        },
    );
    t.machine(1, ack(1, 1_001));
    t.wait(60 * MS);
    assert_eq!(hangs(&mut t), 1);
}

#[test]
fn a_replica_that_may_not_take_over_is_no_measure() {
    let mut t = watched_with(2, |service| service.diverge = DivergePolicy::Ineligible);
    ask(&mut t, 2);
    t.machine(0, words(1, 5, b"41\n"));
    t.machine(1, words(1, 5, b"42\n"));
    t.machine(1, words(4, 5, b"43\n"));
    wait(&mut t, 500 * MS);
    assert_eq!(hangs(&mut t), 0);
}

#[test]
fn a_fin_is_no_word_for_kernels_say_it_of_what_crashes() {
    // A replica is started anew: its kernel ends the connection, which is idle.
    let mut t = watched(2);
    t.machine(1, fin(ack(1, 1)));
    t.wait(500 * MS);
    assert_eq!(hangs(&mut t), 0, "of the original, which has nothing to say");
}

#[test]
fn an_answer_that_has_waited_in_the_queue_while_the_engine_was_not_scheduled_counts() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    // Nobody polls the engine for longer than `hang`; the first that it sees then is what had come long before.
    t.now += 60 * MS;
    t.machine(0, words(1, 5, b"42\n"));
    t.wait(MS);
    assert_eq!(hangs(&mut t), 0);
}

#[test]
fn a_service_that_does_not_answer_the_clients_end_while_all_replicas_do_hangs() {
    for (machines, expected) in [(2, 0), (3, 1)] {
        let mut t = watched(machines);
        t.client(fin(ack(1, 1)));
        t.machine(0, ack(1, 2));
        for i in 1..machines {
            t.machine(i, fin(ack(1, 2)));
        }
        t.wait(60 * MS);
        assert_eq!(
            hangs(&mut t),
            expected,
            "a single one may have been killed; {machines} machines"
        );
    }
}

#[test]
fn a_small_window_is_no_closed_one() {
    // Half a segment is all that its machine ever takes, and the replica's takes more.
    let mut t = watched(2);
    t.client(words(1, 1, b"GET\n"));
    for (i, window) in [(0, 700), (1, 30_000)] {
        t.machine(
            i,
            Say {
                window,
                ..words(1, 5, b"42\n")
            },
        );
    }
    t.client(ack(5, 4));
    t.wait(500 * MS);
    assert_eq!(hangs(&mut t), 0, "nobody has anything to say");
}

/// Windows without a scale: a page of 1,000 bytes fills the original's buffer, and an eighth of the replica's. Neither service reads.
#[test]
fn a_larger_buffer_is_no_sign_of_a_service_that_reads() {
    let mut spec = spec(2);
    spec.services[0].detect.hang = Some(HANG);
    for (read_by_replica, expected) in [(0, 0), (1_000, 1)] {
        let mut t = Talk::with(spec.clone(), false);
        t.shake_hands(2);
        let room = |window| Say { window, ..ack(1, 1) };
        t.machine(1, room(8_000));
        let page = vec![b'x'; 990];
        t.client(words(1, 1, &page));
        let taken = |window| Say { window, ..ack(1, 991) };
        t.machine(0, taken(10));
        t.machine(1, taken(7_010 + read_by_replica));
        t.wait(60 * MS);
        assert_eq!(hangs(&mut t), expected, "{read_by_replica}");
    }
}

#[test]
fn an_original_that_has_said_its_last_word_does_not_hang() {
    let mut t = watched_with(2, |service| {
        service.detect.vote = 0;
        service.diverge = DivergePolicy::Off;
    });
    ask(&mut t, 2);
    t.machine(
        0,
        Say {
            flags: Flags::FIN,
            ..words(1, 5, b"42\n")
        },
    );
    t.client(ack(5, 5));
    t.machine(1, words(1, 5, b"42\n43\n"));
    t.wait(500 * MS);
    assert_eq!(hangs(&mut t), 0, "its end was believed");
}

#[test]
fn the_end_of_one_replica_alone_is_no_answer_to_the_clients() {
    // The client has asked, and will say no more. While all compute, a replica's service is started anew: its kernel ends the connection.
    let mut t = watched(3);
    t.client(fin(words(1, 1, b"GET\n")));
    for i in 0..3 {
        t.machine(i, ack(1, 6));
    }
    t.machine(1, fin(ack(1, 6)));
    t.wait(500 * MS);
    assert_eq!(hangs(&mut t), 0, "two of three say otherwise");
    t.machine(2, fin(ack(1, 6)));
    t.wait(60 * MS);
    assert_eq!(hangs(&mut t), 1, "two of three say so");
}

#[test]
fn a_replica_with_a_large_buffer_is_asked_whether_its_service_reads() {
    let mut spec = spec(2);
    spec.services[0].detect.hang = Some(HANG);
    let mut t = Talk::with(spec, false);
    t.shake_hands(2);
    t.machine(
        1,
        Say {
            window: 30_000,
            ..ack(1, 1)
        },
    );
    let page = vec![b'x'; 990];
    t.client(words(1, 1, &page));
    t.machine(
        1,
        Say {
            window: 29_010,
            ..ack(1, 991)
        },
    );
    t.hush();
    t.machine(
        0,
        Say {
            window: 10,
            ..ack(1, 991)
        },
    );
    let asked = t.machine_heard(1);
    assert!(asked.iter().any(|h| h.data.is_empty() && h.at < 991), "{asked:?}");
    // The original goes on sending, with its window closed: each of its packets says so, and nobody is asked again for that.
    for at in [1, 5, 9] {
        t.machine(
            0,
            Say {
                window: 10,
                ..words(at, 991, b"42\n.")
            },
        );
    }
    assert_eq!(t.machine_heard(1), [], "one answer to a probe is one question");
    // Its service had read the page at once; its stack had no reason to say so.
    t.machine(
        1,
        Say {
            window: 30_000,
            ..ack(1, 991)
        },
    );
    t.wait(60 * MS);
    assert_eq!(hangs(&mut t), 1);
}

#[test]
fn a_replica_that_has_finished_knows_what_a_hung_heir_has_not_done() {
    let mut t = watched(3);
    ask(&mut t, 3);
    for i in [1, 0] {
        t.machine(i, fin(words(1, 5, b"42\n")));
    }
    t.client(fin(ack(5, 5)));
    t.machine(1, ack(5, 6));
    // The original dies before it has acknowledged the client's end, and the one that has not answered takes over.
    assert_eq!(down(&mut t, 0).switched, 1);
    t.wait(60 * MS);
    let (machine, reason) = (machine_ref(2), Reason::Hang);
    let found = std::iter::from_fn(|| t.engine.take_event()).any(|e| e == Event::Suspect { machine, reason });
    assert!(found, "m1 has said and heard everything");
}
