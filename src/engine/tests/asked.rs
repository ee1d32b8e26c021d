//! R14, `hang`: before an original is accused it is asked where it stands, and it is not blamed for what it has not heard.

use super::hang::{HANG, ask, hangs, watched};
use super::*;

/// Windows without a scale, so that each byte that nobody reads can be seen; nobody waits for replicas.
fn plain(machines: usize) -> Talk {
    let mut spec = spec(machines);
    spec.services[0].detect.hang = Some(HANG);
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, false);
    t.shake_hands(machines);
    t
}

/// Time passes in which the original answers each question of the engine's.
fn wait_answering(t: &mut Talk, time: Micros, answer: Say<'_>) {
    for _ in 0..time / MS {
        t.wait(MS);
        let asked = t.machine_heard(0).into_iter();
        for _ in asked.filter(|h| h.data.is_empty() && h.flags == Flags::ACK) {
            t.machine(0, answer);
        }
    }
}

/// The answer of the original's service is lost on the way to the engine, and its stack repeats it after 200 ms at the earliest.
#[test]
fn an_original_whose_answer_was_lost_is_asked_before_it_is_accused() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    t.machine_heard(0);
    t.wait(38 * MS);
    let asked = t.machine_heard(0);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].data.is_empty() && asked[0].at < 5,
        "RFC 9293 section 3.8.6.1: {asked:?}"
    );
    // Its kernel says where it stands: behind the answer.
    assert_eq!(t.machine(0, ack(4, 5)), Verdict::Drop(DropReason::NoNews));
    t.wait(200 * MS);
    assert_eq!(hangs(&mut t), 0);
    t.machine(0, words(1, 5, b"42\n"));
    assert_eq!(t.client_heard().last().map(|h| h.data.clone()), Some(b"42\n".to_vec()));
}

#[test]
fn questions_have_their_time_however_late_the_engine_is() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    t.hush();
    // Nobody polls the engine for three times `hang`.
    t.now += 3 * HANG;
    t.wait(MS);
    assert_eq!(hangs(&mut t), 0, "it has been asked only now");
    t.machine(0, ack(4, 5));
    t.wait(3 * HANG);
    assert_eq!(hangs(&mut t), 0);
}

/// What has come before an order is to be looked at first: it may be the very answer.
#[test]
fn an_order_lets_no_time_pass() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    (0..49).for_each(|_| t.wait(MS));
    t.now += 10 * MS;
    t.engine.work_part(t.now, &mut Outbox::new(), 1);
    assert_eq!(hangs(&mut t), 0, "no timer goes off");
    t.wait(MS);
    assert_eq!(hangs(&mut t), 1);
}

/// On the way to the original the client's question is lost, and the client repeats it after a second; the replica has answered it at once.
#[test]
fn an_original_that_has_not_heard_the_question_does_not_hang() {
    let mut t = watched(2);
    t.client(words(1, 1, b"GET\n"));
    t.machine(1, words(1, 5, b"42\n"));
    wait_answering(&mut t, 900 * MS, ack(1, 1));
    assert_eq!(hangs(&mut t), 0, "it says that it waits for the question");
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, ack(1, 5));
    t.wait(40 * MS);
    assert_eq!(hangs(&mut t), 0, "it has had the question for less than `hang`");
    t.wait(20 * MS);
    assert_eq!(hangs(&mut t), 1);
}

/// RFC 9293 section 3.8.6.3: a kernel may wait with its acknowledgement for an answer that does not come.
#[test]
fn a_late_acknowledgement_gives_no_more_time() {
    let mut t = plain(2);
    t.client(words(1, 1, b"GET\n"));
    t.machine(1, words(1, 5, b"42\n"));
    (0..40).for_each(|_| t.wait(MS));
    // Nobody has read these four bytes.
    t.machine(0, with_window(996, ack(1, 5)));
    (0..12).for_each(|_| t.wait(MS));
    assert_eq!(hangs(&mut t), 1);
}

/// The client's question is lost, and perhaps its repetitions; the replica has answered it, and the original says that it waits. Then `again` arrives.
fn hears_at_last(t: &mut Talk, again: Say<'_>, taken: Say<'_>) {
    t.machine(1, with_window(996, words(1, 5, b"42\n")));
    wait_answering(t, 400 * MS, ack(1, 1));
    t.client(again);
    t.machine(0, taken);
    t.wait(5 * MS);
    assert_eq!(hangs(t), 0, "it has had the question for 5 ms");
    t.wait(50 * MS);
    assert_eq!(hangs(t), 1);
}

/// Stacks that resend from SND.UNA take new data with it.
#[test]
fn a_repetition_with_more_in_it_is_one() {
    let mut t = plain(2);
    t.client(words(1, 1, b"GET\n"));
    hears_at_last(&mut t, words(1, 1, b"GET\nGET\n"), with_window(992, ack(1, 9)));
}

#[test]
fn a_second_repetition_is_one_too() {
    let mut t = plain(2);
    t.client(words(1, 1, b"GET\n"));
    t.wait(200 * MS);
    t.client(words(1, 1, b"GET\n"));
    t.wait(10 * MS);
    hears_at_last(&mut t, words(1, 1, b"GET\n"), with_window(996, ack(1, 5)));
}

/// Linux's `tcp_invalid_ratelimit`: a kernel answers one question in half a second. So it is not asked before its time is nearly over.
#[test]
fn a_slow_answer_that_is_lost_is_found_by_one_question() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    t.hush();
    let mut answered = 0;
    for elapsed in 1..200 {
        t.wait(MS);
        // After 30 ms its service says "42\n", which is lost, and repeated after 200 ms.
        let at = if elapsed > 30 { 4 } else { 1 };
        let asked = t.machine_heard(0).iter().any(|h| h.data.is_empty() && h.at == 4);
        if asked && answered == 0 {
            answered += 1;
            t.machine(0, ack(at, 5));
        }
    }
    assert_eq!((answered, hangs(&mut t)), (1, 0));
}

/// The service hangs, and its kernel has no memory for what lies within the window that it has told (Linux: TCPRcvQDrop).
#[test]
fn a_kernel_that_drops_within_its_window_can_not_hear() {
    let mut t = plain(2);
    for i in 0..2 {
        t.machine(i, with_window(10_000, ack(1, 1)));
    }
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, with_window(1, ack(1, 1)));
    t.machine(1, with_window(10_000, words(1, 5, b"42\n")));
    wait_answering(&mut t, 100 * MS, with_window(1, ack(1, 1)));
    assert!(hangs(&mut t) > 0);
}

/// What the replica has heard lies beyond the heir's window.
#[test]
fn an_heir_whose_window_is_closed_can_not_hear() {
    let mut t = plain(3);
    for i in [0, 2] {
        t.machine(i, with_window(10_000, ack(1, 1)));
    }
    let page = vec![b'x'; 1_000];
    for (at, room) in [
        (1, 9_000),
        (1_001, 8_000),
        (2_001, 7_000),
        (3_001, 6_000),
        (4_001, 5_000),
    ] {
        t.client(words(at, 1, &page));
        for i in [0, 2] {
            t.machine(i, with_window(room, ack(1, at + 1_000)));
        }
    }
    t.machine(1, with_window(1, ack(1, 1_001)));
    assert_eq!(down(&mut t, 0).switched, 1);
    t.machine(2, with_window(5_000, words(1, 5_001, b"42\n")));
    t.wait(60 * MS);
    let (machine, reason) = (machine_ref(1), Reason::Hang);
    assert!(std::iter::from_fn(|| t.engine.take_event()).any(|e| e == Event::Suspect { machine, reason }));
}

/// Its kernel takes one request after the other, with the same window, which moves its right edge: nobody has read them.
#[test]
fn a_kernel_that_takes_requests_is_no_service_that_answers() {
    let mut t = watched(2);
    let (mut asked, mut answered) = (1, 1);
    for _ in 0..6 {
        t.client(words(asked, 1, b"GET\n"));
        asked += 4;
        t.machine(0, ack(1, asked));
        t.machine(1, words(answered, asked, b"42\n"));
        answered += 3;
        t.wait(10 * MS);
    }
    assert_eq!(hangs(&mut t), 1, "60 ms, and `hang` is 50");
}

/// R6: what the engine wants to know is not the client's business.
#[test]
fn the_answer_to_a_question_is_no_duplicate_to_the_client() {
    let mut t = watched(2);
    ask(&mut t, 2);
    t.machine(1, words(1, 5, b"42\n"));
    t.hush();
    t.wait(38 * MS);
    assert_eq!(t.machine(0, ack(1, 5)), Verdict::Drop(DropReason::NoNews));
    // But what it says by itself is.
    assert!(matches!(t.machine(0, ack(1, 5)), Verdict::Accept { .. }));
    // An answer that crosses with its words is swallowed, too.
    t.wait(6 * MS);
    t.machine(0, words(1, 5, b"42\n"));
    t.client(words(5, 4, b"GET\n"));
    assert_eq!(t.machine(0, ack(4, 5)), Verdict::Drop(DropReason::NoNews));
    // Nor is one awaited for ever.
    t.wait(20 * MS);
    assert!(matches!(t.machine(0, ack(4, 5)), Verdict::Accept { .. }));
}
