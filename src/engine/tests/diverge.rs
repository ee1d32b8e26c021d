//! R17: what a replica says otherwise is seen, told once and counted; what becomes of it is the policy's.

mod bounds;

use super::*;

fn with(machines: usize, policy: DivergePolicy) -> Talk {
    let mut spec = spec(machines);
    spec.services[0].diverge = policy;
    let mut t = Talk::with(spec, true);
    t.shake_hands(machines);
    t
}

/// A request of seven bytes that everybody acknowledges.
fn asked(machines: usize, policy: DivergePolicy) -> Talk {
    let mut t = with(machines, policy);
    t.client(words(1, 1, b"GET a\r\n"));
    for i in 0..machines {
        t.machine(i, ack(1, 8));
    }
    t
}

fn says(t: &mut Talk, i: usize, at: i64, data: &[u8]) {
    t.machine(
        i,
        Say {
            at,
            ack: Some(8),
            data,
            ..Say::default()
        },
    );
}

fn ends(t: &mut Talk, i: usize, at: i64) {
    t.machine(
        i,
        Say {
            at,
            ack: Some(8),
            flags: Flags::FIN,
            ..Say::default()
        },
    );
}

fn client_acks(t: &mut Talk, read: i64) {
    t.client(ack(8, read));
}

fn events(t: &mut Talk) -> Vec<Event> {
    std::iter::from_fn(|| t.engine.take_event()).collect()
}

/// Machine, offset, what the client was given, what the machine said, whether the lengths differ.
fn differences(events: &[Event]) -> Vec<(u16, u64, String, String, bool)> {
    let told = |event: &Event| match event {
        Event::Diverged { machine, difference: d } => Some((
            machine.machine.0,
            d.offset,
            d.given.to_string(),
            d.said.to_string(),
            d.length,
        )),
        _ => None,
    };
    events.iter().filter_map(told).collect()
}

fn counts(t: &Talk) -> [u64; 5] {
    [
        Counter::LegsDiverged,
        Counter::LengthsDiverged,
        Counter::DivergedBytes,
        Counter::Uncompared,
        Counter::LegsIneligible,
    ]
    .map(|counter| t.engine.stats().get(counter))
}

#[test]
fn the_same_words_in_other_pieces_are_the_same() {
    let mut t = asked(3, DivergePolicy::Warn);
    says(&mut t, 1, 1, b"HT");
    says(&mut t, 0, 1, b"HTTP/1.1 ");
    says(&mut t, 1, 3, b"TP/1.1 200 OK");
    says(&mut t, 0, 10, b"200 OK");
    client_acks(&mut t, 16);
    says(&mut t, 2, 7, b".1 200 OK");
    says(&mut t, 2, 1, b"HTTP/1");
    assert_eq!(counts(&t), [0; 5]);
    assert!(events(&mut t).is_empty());
}

#[test]
fn a_replica_ahead_that_differs_is_told_once_with_both_sides_words() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 1, 1, b"Date: Monday 12:00:01");
    assert!(events(&mut t).is_empty(), "nothing to compare with yet");
    says(&mut t, 0, 1, b"Date: Monday 12:00:00");
    assert_eq!(
        differences(&events(&mut t)),
        [(1, 20, " 12:00:00".to_owned(), " 12:00:01".to_owned(), false)]
    );
    says(&mut t, 0, 22, b" 7");
    says(&mut t, 1, 22, b" 8");
    assert!(events(&mut t).is_empty(), "the second difference is only counted");
    assert_eq!(counts(&t), [1, 0, 2, 0, 0]);
    let machine = &t.engine.status().services[0].machines[1];
    assert_eq!(machine.legs_diverged, 1);
    // Equal length: it may take over.
    assert_eq!(down(&mut t, 0).switched, 1);
}

#[test]
fn a_late_replica_is_compared_with_what_the_client_has_long_had() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abcdef");
    client_acks(&mut t, 7);
    says(&mut t, 0, 7, b"ghi");
    client_acks(&mut t, 10);
    says(&mut t, 1, 1, b"abcd");
    assert!(events(&mut t).is_empty());
    says(&mut t, 1, 5, b"eXghi");
    assert_eq!(
        differences(&events(&mut t)),
        [(1, 5, "efghi".to_owned(), "eXghi".to_owned(), false)]
    );
    assert_eq!(counts(&t), [1, 0, 1, 0, 0]);
}

#[test]
fn the_policy_decides_over_the_leg() {
    for (policy, ineligible, evicted) in [
        (DivergePolicy::Off, 0, false),
        (DivergePolicy::Warn, 0, false),
        (DivergePolicy::Ineligible, 1, false),
        (DivergePolicy::Evict, 0, true),
    ] {
        let mut t = asked(2, policy);
        says(&mut t, 0, 1, b"17");
        says(&mut t, 1, 1, b"71");
        let events = events(&mut t);
        let off = policy == DivergePolicy::Off;
        assert_eq!(
            counts(&t),
            [u64::from(!off), 0, if off { 0 } else { 2 }, 0, ineligible],
            "{policy:?}"
        );
        let evict = Event::Evict {
            machine: machine_ref(1),
            reason: Reason::Divergence,
        };
        assert_eq!(events.contains(&evict), evicted, "{policy:?}: {events:?}");
        assert_eq!(down(&mut t, 0).lost, usize::from(ineligible == 1), "{policy:?}");
    }
}

#[test]
fn an_end_at_another_place_makes_a_leg_unfit() {
    // Shorter.
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 1, 1, b"abc");
    ends(&mut t, 1, 4);
    says(&mut t, 0, 1, b"abcd");
    let told = differences(&events(&mut t));
    assert_eq!(told, [(1, 3, "abcd".to_owned(), "abc".to_owned(), true)]);
    assert_eq!(counts(&t), [1, 1, 0, 0, 1]);
    // Longer, where another machine agrees with the original (R11).
    let mut t = asked(3, DivergePolicy::Warn);
    for i in [2, 0] {
        says(&mut t, i, 1, b"abc");
        ends(&mut t, i, 4);
    }
    says(&mut t, 1, 1, b"abcd");
    let told = differences(&events(&mut t));
    assert_eq!(told, [(1, 3, "abc".to_owned(), "abcd".to_owned(), true)]);
    assert_eq!(counts(&t), [1, 1, 0, 0, 1]);
    // Longer, and nobody agrees: then the original is taken for broken, and it is the one that ends too early.
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abc");
    ends(&mut t, 0, 4);
    says(&mut t, 1, 1, b"abcd");
    assert_eq!(
        differences(&events(&mut t)),
        [(0, 3, "d".to_owned(), String::new(), true)]
    );
    // At the same place.
    let mut t = asked(2, DivergePolicy::Warn);
    for i in [1, 0] {
        says(&mut t, i, 1, b"abc");
        ends(&mut t, i, 4);
    }
    client_acks(&mut t, 5);
    assert_eq!(counts(&t), [0; 5]);
}

#[test]
fn a_leg_that_differs_and_has_said_more_when_the_client_asks_again_is_unfit() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"n=9\n");
    says(&mut t, 1, 1, b"n=10\n");
    assert_eq!(counts(&t)[..3], [1, 0, 2], "so far it might be a faster one");
    t.client(words(8, 5, b"GET b\r\n"));
    assert_eq!(counts(&t), [1, 1, 2, 0, 1]);
}

#[test]
fn a_leg_that_differs_and_falls_silent_at_another_place_is_unfit() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"n=10\n");
    says(&mut t, 1, 1, b"n=9\n");
    t.client(ack(8, 6));
    t.wait(3 * spec::SECOND);
    assert_eq!(counts(&t), [1, 1, 2, 0, 1]);
}

#[test]
fn of_three_the_majority_is_right() {
    // One replica is alone.
    let mut t = asked(3, DivergePolicy::Ineligible);
    says(&mut t, 0, 1, b"yes");
    says(&mut t, 1, 1, b"no!");
    assert_eq!(counts(&t)[4], 0, "the third has not said anything");
    says(&mut t, 2, 1, b"yes");
    assert_eq!(counts(&t)[4], 1);
    assert_eq!(t.engine.stats().get(Counter::OriginalsOutvoted), 0);
    // The original is alone: the client has its word, so this is only told.
    let mut t = asked(3, DivergePolicy::Ineligible);
    says(&mut t, 1, 1, b"no!");
    says(&mut t, 0, 1, b"yes");
    says(&mut t, 2, 1, b"no!");
    let told = events(&mut t);
    let outvoted = told.iter().filter(|e| matches!(e, Event::Outvoted { offset: 0, .. }));
    assert_eq!(outvoted.count(), 1, "{told:?}");
    assert_eq!(counts(&t)[4], 0, "the majority stays fit");
    assert_eq!(t.engine.status().services[0].machines[0].outvoted, 1);
    // Everybody says something else: the original's word holds.
    let mut t = asked(3, DivergePolicy::Ineligible);
    for (i, word) in [b"one", b"two", b"six"].into_iter().enumerate() {
        says(&mut t, i, 1, word);
    }
    assert_eq!(counts(&t)[4], 2);
}

#[test]
fn a_new_original_answers_for_its_own_words_only() {
    for next in [1, 2] {
        let mut t = asked(3, DivergePolicy::Ineligible);
        says(&mut t, 0, 1, b"no!");
        client_acks(&mut t, 4);
        let to = machine_ref(next);
        assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 1);
        t.poll();
        down(&mut t, 0);
        // Both that are left say otherwise than the dead one: that was its fault, and neither's.
        says(&mut t, 1, 1, b"yes");
        says(&mut t, 2, 1, b"yes");
        let told = events(&mut t);
        assert_eq!(counts(&t)[..3], [2, 0, 6], "to {next}: {told:?}");
        assert_eq!(counts(&t)[4], 0, "to {next}: both stay fit");
        assert_eq!(
            t.engine.stats().get(Counter::OriginalsOutvoted),
            0,
            "to {next}: {told:?}"
        );
    }
}

#[test]
fn one_whose_words_nobody_knows_has_no_vote() {
    let mut t = asked(4, DivergePolicy::Ineligible);
    says(&mut t, 0, 1, b"abcd");
    ends(&mut t, 0, 5);
    // What the second machine says of the second byte is lost on the way to the engine.
    says(&mut t, 1, 1, b"a");
    says(&mut t, 1, 3, b"cd");
    ends(&mut t, 1, 5);
    client_acks(&mut t, 6);
    assert_eq!(counts(&t), [0, 0, 0, 1, 0]);
    // The two others agree: against the original alone, they are the majority.
    says(&mut t, 2, 1, b"aXcd");
    assert_eq!(t.engine.stats().get(Counter::OriginalsOutvoted), 0, "one against one");
    says(&mut t, 3, 1, b"aXcd");
    let told = events(&mut t);
    assert_eq!(t.engine.stats().get(Counter::OriginalsOutvoted), 1, "{told:?}");
    assert_eq!(counts(&t), [2, 0, 2, 1, 0], "both stay fit");
}

#[test]
fn a_leg_that_may_not_take_over_is_compared_too() {
    let mut t = asked(2, DivergePolicy::Ineligible);
    says(&mut t, 0, 1, b"17");
    says(&mut t, 1, 1, b"71");
    says(&mut t, 1, 3, b"and more");
    says(&mut t, 0, 3, b"and MORE");
    assert_eq!(counts(&t), [1, 0, 6, 0, 1]);
}

#[test]
fn one_that_took_over_is_compared_with_its_predecessor() {
    let mut t = asked(3, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abcdef");
    client_acks(&mut t, 4);
    down(&mut t, 0);
    // The second machine has been silent so far: it says again what the client has of the first.
    says(&mut t, 1, 1, b"abcdeXgh");
    assert_eq!(
        differences(&events(&mut t)),
        [(1, 5, "abcdefgh".to_owned(), "abcdeX".to_owned(), false)]
    );
    // What the client was given decides: "f", then what the new original said.
    says(&mut t, 2, 1, b"abcdefgh");
    assert_eq!(counts(&t), [1, 0, 1, 0, 0]);
}

#[test]
fn the_byte_of_a_keep_alive_is_no_word() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abc");
    client_acks(&mut t, 4);
    // "ab" is lost on the way to the engine; then the machine only asks whether the client still lives.
    says(&mut t, 1, 3, b"c");
    says(&mut t, 1, 2, b"\0");
    assert_eq!(counts(&t)[..3], [0; 3]);
}

#[test]
fn the_byte_of_a_keep_alive_may_lie_where_the_end_was() {
    for acks in [4, 5] {
        for asking in [0, 1] {
            let mut t = asked(2, DivergePolicy::Warn);
            for i in [1, 0] {
                says(&mut t, i, 1, b"abc");
                ends(&mut t, i, 4);
            }
            client_acks(&mut t, acks);
            says(&mut t, asking, 4, b"\0");
            t.wait(3 * spec::SECOND);
            says(&mut t, asking, 4, b"\0");
            assert_eq!(
                differences(&events(&mut t)),
                [],
                "{acks} acknowledged, machine {asking} asks"
            );
            assert_eq!(counts(&t), [0; 5]);
        }
    }
}

#[test]
fn after_a_rest_an_end_said_again_is_the_same_end() {
    let mut t = asked(2, DivergePolicy::Warn);
    for i in [1, 0] {
        says(&mut t, i, 1, b"abc");
        ends(&mut t, i, 4);
    }
    // The rest is lost on the way to the client.
    client_acks(&mut t, 2);
    t.wait(3 * spec::SECOND);
    says(&mut t, 0, 2, b"bc");
    assert_eq!(differences(&events(&mut t)), []);
    assert_eq!(counts(&t), [0; 5]);
}

#[test]
fn a_handover_at_the_end_counts_no_end_as_a_word() {
    let mut t = asked(2, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"abc");
    ends(&mut t, 0, 4);
    says(&mut t, 1, 1, b"abc");
    ends(&mut t, 1, 4);
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(1),
    };
    let outcome = t.engine.command(t.now, Command::Failover { to: machine });
    assert_eq!(outcome.switched, 1);
    t.poll();
    client_acks(&mut t, 5);
    t.wait(3 * spec::SECOND);
    assert_eq!(counts(&t), [0; 5]);
}

#[test]
fn a_shorter_one_hears_the_clients_end_all_the_same() {
    for max_lag in [MaxLag::Bytes(0), MaxLag::Bytes(1_000), MaxLag::Unlimited] {
        let mut spec = spec(2);
        spec.services[0].max_lag = max_lag;
        spec.limits.close_timeout = 5 * spec::SECOND;
        let mut t = Talk::with(spec, true);
        t.shake_hands(2);
        t.client(words(1, 1, b"GET a\r\n"));
        says(&mut t, 1, 1, b"ab");
        says(&mut t, 0, 1, b"abc");
        // The client ends having read three bytes. The replica will never have said a third, so its copy of that waits (R23).
        t.client(Say {
            at: 8,
            ack: Some(4),
            flags: Flags::FIN,
            ..Say::default()
        });
        t.machine(
            0,
            Say {
                at: 4,
                ack: Some(9),
                flags: Flags::FIN,
                ..Say::default()
            },
        );
        // The vote ends (R11), and with it the wait of a client that can't be told that its end was heard.
        t.wait(3 * spec::SECOND);
        t.client(ack(9, 5));
        t.wait(4 * spec::SECOND);
        let heard = t.machine_heard(1);
        let said = |flag| heard.iter().any(|h| h.flags.contains(flag));
        assert!(said(Flags::FIN) && !said(Flags::RST), "R24: {max_lag:?}: {heard:?}");
    }
}

#[test]
fn what_was_lost_on_the_way_here_hides_nothing_but_itself() {
    // Both ends have arrived, and nobody will say anything again: at once, for the flow may soon be forgotten.
    let ended = |words: &[(i64, &[u8])]| {
        let mut t = asked(2, DivergePolicy::Warn);
        says(&mut t, 0, 1, b"abcdefgh");
        ends(&mut t, 0, 9);
        for (at, word) in words {
            says(&mut t, 1, *at, word);
        }
        ends(&mut t, 1, 9);
        client_acks(&mut t, 10);
        (counts(&t), differences(&events(&mut t)).len())
    };
    assert_eq!(ended(&[(1, b"abcdefgh")]), ([0; 5], 0));
    assert_eq!(ended(&[(1, b"ab"), (5, b"eXg"), (8, b"h")]), ([1, 0, 1, 2, 0], 1));
    assert_eq!(ended(&[(2, b"b"), (4, b"d"), (6, b"X")]), ([1, 0, 1, 5, 0], 1));
    assert_eq!(ended(&[]), ([0, 0, 0, 8, 0], 0));
}

#[test]
fn what_the_original_has_sent_counts_when_it_arrives() {
    let mut t = asked(2, DivergePolicy::Warn);
    // "abcdef" and the FIN are lost on the way to the engine; then the original acknowledges something.
    says(&mut t, 0, 8, b"");
    says(&mut t, 1, 1, b"aXcdef");
    ends(&mut t, 1, 7);
    says(&mut t, 0, 4, b"def");
    ends(&mut t, 0, 7);
    says(&mut t, 0, 1, b"abc");
    assert_eq!(
        differences(&events(&mut t)),
        [(1, 1, "abcdef".to_owned(), "aXcdef".to_owned(), false)]
    );
    client_acks(&mut t, 8);
    assert_eq!(counts(&t), [1, 0, 1, 0, 0]);
}

#[test]
fn what_is_given_out_of_a_cache_after_a_rest_is_compared() {
    let mut t = asked(3, DivergePolicy::Warn);
    says(&mut t, 1, 1, b"abc");
    t.wait(3 * spec::SECOND);
    // The original dies without a word.
    down(&mut t, 0);
    says(&mut t, 1, 4, b"def");
    says(&mut t, 2, 1, b"aXcdef");
    assert_eq!(
        differences(&events(&mut t)),
        [(2, 1, "abcdef".to_owned(), "aXcdef".to_owned(), false)]
    );
    assert_eq!(counts(&t), [1, 0, 1, 0, 0]);
}

#[test]
fn a_fin_that_was_lost_on_the_way_here_is_no_byte_too_many() {
    let mut spec = spec(2);
    spec.services[0].detect.vote = 0;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    t.client(words(1, 1, b"GET a\r\n"));
    // "abc" and the FIN are lost; what comes after them tells only how far the original has sent.
    says(&mut t, 0, 5, b"");
    let to = machine_ref(1);
    assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 1);
    t.poll();
    says(&mut t, 1, 1, b"abc");
    ends(&mut t, 1, 4);
    says(&mut t, 0, 1, b"abc");
    ends(&mut t, 0, 4);
    client_acks(&mut t, 5);
    assert_eq!((counts(&t), events(&mut t)), ([0; 5], vec![]));
}

#[test]
fn one_that_says_more_is_heard_though_its_words_were_lost() {
    // "abcd" and the FIN in one piece, or the last byte alone, and what comes after it.
    for words_of_its_own in [&b""[..], b"d"] {
        let mut spec = spec(2);
        spec.services[0].detect.vote = 0;
        let mut t = Talk::with(spec, true);
        t.shake_hands(2);
        t.client(words(1, 1, b"GET a\r\n"));
        says(&mut t, 0, 1, b"abc");
        ends(&mut t, 0, 4);
        says(&mut t, 1, 4, words_of_its_own);
        says(&mut t, 1, 6, b"");
        t.client(Say {
            flags: Flags::FIN,
            ..ack(8, 5)
        });
        t.hush();
        assert_eq!(t.machine(1, ack(6, 9)), Verdict::Drop(DropReason::Replica));
        t.machine(0, ack(5, 9));
        assert_eq!(
            short(&t.client_heard()),
            [(5, Some(9), "")],
            "nobody is waited for (R4)"
        );
    }
}

#[test]
fn the_keep_alive_of_a_new_original_is_no_word() {
    let mut t = asked(3, DivergePolicy::Warn);
    says(&mut t, 0, 1, b"ab");
    says(&mut t, 2, 1, b"ab");
    client_acks(&mut t, 3);
    // The replica has said the same, whose last byte was lost, and has heard that it arrived.
    says(&mut t, 1, 1, b"a");
    says(&mut t, 1, 3, b"");
    down(&mut t, 0);
    assert_eq!(t.machine_heard(1).last().and_then(|h| h.ack), Some(3));
    says(&mut t, 1, 2, b"\0");
    assert_eq!((counts(&t)[..3].to_vec(), events(&mut t)), (vec![0; 3], vec![]));
}
