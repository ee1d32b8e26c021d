//! R16 (who follows) and planned handovers (R12).

use super::*;

fn choosing(successor: Successor) -> Talk {
    let mut spec = spec(3);
    spec.services[0].successor = successor;
    spec.services[0].max_lag = MaxLag::Unlimited;
    Talk::with(spec, true)
}

/// Who serves the one flow.
fn original(t: &Talk) -> Option<usize> {
    let status = t.engine.status();
    status.services[0].machines.iter().position(|m| m.original_of == 1)
}

fn hand_over(t: &mut Talk, to: u16) -> Outcome {
    let to = machine_ref(to);
    let outcome = t.engine.command(t.now, Command::HandOver { to });
    t.poll();
    outcome
}

fn end_hand_over(t: &mut Talk, to: u16) -> Outcome {
    let to = machine_ref(to);
    let outcome = t.engine.command(t.now, Command::EndHandOver { to });
    t.poll();
    outcome
}

/// The client asks, and machines answer after so many milliseconds each.
fn ask(t: &mut Talk, answers: [(usize, Micros); 3]) {
    let ask = words(1, 1, b"GET\n");
    t.client(ask);
    for (i, after) in answers {
        t.wait(after * MS);
        t.machine(i, words(1, 5, b"42\n"));
    }
}

#[test]
fn first_is_the_first_in_the_list_whoever_is_nearer() {
    let mut t = choosing(Successor::First);
    t.shake_hands(3);
    ask(&mut t, [(0, 0), (2, 1), (1, 3)]);
    t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(0),
        },
    );
    assert_eq!(original(&t), Some(1));
}

#[test]
fn one_that_stands_where_the_client_does_goes_before_the_first_in_the_list() {
    for successor in [Successor::First, Successor::LowestRtt] {
        let mut t = choosing(successor);
        t.shake_hands(3);
        t.client(words(1, 1, b"GET\n"));
        // m1 is the nearest, and its service is slow: it has said half of what the client has heard.
        t.machine(1, words(1, 5, b"4"));
        t.wait(MS);
        t.machine(0, words(1, 5, b"42\n"));
        t.wait(3 * MS);
        t.machine(2, words(1, 5, b"42\n"));
        down(&mut t, 0);
        assert_eq!(original(&t), Some(2), "{successor:?}");
    }
}

#[test]
fn lowest_rtt_is_the_machine_that_has_answered_soonest() {
    let mut t = choosing(Successor::LowestRtt);
    // The replicas' SYN/ACKs take their time, too: m2 is nearer in all.
    let syn_ack = |i| {
        (
            i,
            Say {
                flags: Flags::SYN,
                ack: Some(1),
                ..Say::default()
            },
        )
    };
    t.shake_hands(1);
    for (i, say) in [syn_ack(2), syn_ack(1)] {
        t.wait(2 * MS);
        t.machine(i, say);
    }
    ask(&mut t, [(0, 0), (2, 1), (1, 3)]);
    t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(0),
        },
    );
    assert_eq!(original(&t), Some(2));
}

#[test]
fn least_lag_is_the_machine_that_lacks_the_fewest_bytes_of_both_directions() {
    for (behind, ahead) in [(1, 2), (2, 1)] {
        let mut t = choosing(Successor::LeastLag);
        t.shake_hands(3);
        let say = |data: &'static [u8]| Say {
            at: 1,
            ack: Some(5),
            data,
            ..Say::default()
        };
        t.client(words(1, 1, b"GET\n"));
        // Both have taken the question; one has answered no more than half.
        t.machine(0, say(b"42\n"));
        t.machine(ahead, say(b"42\n"));
        t.machine(behind, say(b"4"));
        t.engine.command(
            t.now,
            Command::Down {
                machine: machine_ref(0),
            },
        );
        assert_eq!(original(&t), Some(ahead));
    }
}

#[test]
fn a_leg_that_is_not_eligible_is_no_successor_by_any_choice() {
    for successor in Successor::ALL {
        let mut t = choosing(successor);
        t.shake_hands(1);
        // m1 has no timestamps, and answers first; m2 keeps what was promised.
        let plain = Say {
            flags: Flags::SYN,
            ack: Some(1),
            ..Say::default()
        };
        t.options = false;
        t.machine(1, plain);
        t.options = true;
        t.wait(MS);
        t.machine(2, plain);
        down(&mut t, 0);
        assert_eq!(original(&t), Some(2), "{successor:?}");
    }
}

#[test]
fn new_flows_go_to_whom_the_coordinator_says() {
    let mut t = Talk::new(3);
    assert!(
        t.engine
            .command(
                t.now,
                Command::Serve {
                    machine: machine_ref(2)
                }
            )
            .applied
    );
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    assert_eq!(t.machine_heard(2).len(), 1);
    t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(2),
        },
    );
    let refused = t.engine.command(
        t.now,
        Command::Serve {
            machine: machine_ref(2),
        },
    );
    assert!(!refused.applied, "it is down");
    assert_eq!(t.engine.status().services[0].original, Some(MachineId(0)));
}

#[test]
fn a_flow_moves_when_the_new_original_is_level_and_not_before() {
    let mut t = Talk::established(3);
    t.client(words(1, 1, b"GET\n"));
    let answer = words(1, 5, b"42\n");
    t.machine(0, answer);
    let outcome = hand_over(&mut t, 2);
    assert_eq!((outcome.switched, outcome.pending, outcome.stuck), (0, 1, 0));
    // It has taken the question, and not answered yet.
    t.machine(2, Say { data: b"", ..answer });
    assert_eq!(hand_over(&mut t, 2).pending, 1);
    assert_eq!(original(&t), Some(0));
    t.hush();
    t.machine(2, answer);
    assert_eq!(original(&t), Some(2));
    assert!(
        t.client_heard().iter().all(|h| h.data.is_empty()),
        "the client has had that"
    );
    let outcome = hand_over(&mut t, 2);
    assert_eq!((outcome.switched, outcome.pending, outcome.stuck), (1, 0, 0));
    assert_eq!(t.engine.stats().get(Counter::HandoversLevel), 1);
    let ended = end_hand_over(&mut t, 2);
    assert_eq!((ended.switched, ended.pending, ended.stuck), (0, 0, 0), "told once");
}

#[test]
fn what_is_not_level_in_time_stays() {
    let mut t = Talk::established(2);
    ask(&mut t, [(0, 0), (0, 0), (0, 0)]);
    assert_eq!(hand_over(&mut t, 1).pending, 1);
    assert_eq!(end_hand_over(&mut t, 1).pending, 1);
    t.machine(1, words(1, 5, b"42\n"));
    assert_eq!(original(&t), Some(0), "level, but nobody waits any more");
}

#[test]
fn a_flow_without_a_fit_leg_is_stuck_and_said_so() {
    let mut t = Talk::established(2);
    t.machine(
        1,
        Say {
            at: 1,
            ack: Some(1),
            flags: Flags::RST,
            ..Say::default()
        },
    );
    let outcome = hand_over(&mut t, 1);
    assert_eq!((outcome.switched, outcome.pending, outcome.stuck), (0, 0, 1));
    assert_eq!(original(&t), Some(0));
}

#[test]
fn the_original_dies_while_a_handover_waits() {
    let mut t = Talk::established(3);
    ask(&mut t, [(0, 0), (0, 0), (0, 0)]);
    hand_over(&mut t, 2);
    let outcome = t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(0),
        },
    );
    t.poll();
    assert_eq!((outcome.switched, outcome.lost), (1, 0));
    // The list decides; the plan is still followed.
    assert_eq!(original(&t), Some(1));
    let answer = |i| (i, words(1, 5, b"42\n"));
    for (i, say) in [answer(2), answer(1)] {
        t.machine(i, say);
    }
    assert_eq!(original(&t), Some(2));
}

#[test]
fn recovery_says_what_is_missing() {
    let mut spec = spec(2);
    spec.services[0].max_lag = MaxLag::Unlimited;
    let mut t = Talk::with(spec, true);
    t.shake_hands(2);
    ask(&mut t, [(0, 0), (0, 0), (0, 0)]);
    t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(0),
        },
    );
    let m1 = |t: &Talk| t.engine.status().services[0].machines[1].clone();
    let missing = m1(&t);
    assert_eq!(
        (missing.recovering, missing.missing_input, missing.missing_output),
        (1, 4, 3)
    );
    t.machine(1, ack(1, 5));
    assert_eq!((m1(&t).missing_input, m1(&t).missing_output), (0, 3));
    t.machine(1, words(1, 5, b"42\n"));
    assert_eq!(
        m1(&t).recovering,
        0,
        "it has acknowledged and sent as much as the old one had"
    );
}

#[test]
fn a_plan_ends_with_the_machine_that_it_was_made_for() {
    let mut t = Talk::with(spec(2), true);
    let syn = Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    };
    t.client(syn);
    // The flow has asked that machine nothing yet (R1).
    hand_over(&mut t, 1);
    let machine = machine_ref(1);
    t.engine.command(t.now, Command::Down { machine });
    t.engine.command(t.now, Command::Up { machine });
    let syn_ack = |ts| Say {
        flags: Flags::SYN,
        ack: Some(1),
        ts,
        ..Say::default()
    };
    t.machine(0, syn_ack(Some((CLOCK[0], CLIENT_CLOCK))));
    t.client(ack(1, 1));
    t.machine(1, syn_ack(None));
    t.wait(MS);
    assert_eq!(original(&t), Some(0));
}
