//! When machines are probed, and when they are declared dead.
//!
//! Compiled for tests only: an `unwrap` here reads a constant of the test, and no peer reaches it.

use super::*;
use crate::engine::spec::{
    DetectSpec, MILLISECOND as MS, MachineSpec, MaxLag, Original, SourceMode, Successor, UnknownPolicy,
};

const A: MachineRef = MachineRef {
    service: ServiceId(0),
    machine: MachineId(0),
};

fn detector() -> Detector {
    let machine = MachineSpec {
        name: "a".into(),
        addr: ([10, 0, 0, 1], 1).into(),
        ifindex: None,
        path_mtu: 1500,
    };
    let detect = DetectSpec {
        floor: 4 * MS,
        probe_interval: 100 * MS,
        probes: 3,
        hang: None,
        vote: 0,
        crash_ends: 16,
    };
    let service = ServiceSpec {
        name: "s".into(),
        psc: ([10, 0, 0, 9], 1).into(),
        source: SourceMode::Psc,
        max_lag: MaxLag::Bytes(0),
        original: Original::First,
        successor: Successor::First,
        replica_timeout: 200 * MS,
        detect,
        diverge: crate::engine::DivergePolicy::Warn,
        unknown: UnknownPolicy::Reset,
        machines: vec![machine],
    };
    Detector::new(&[service], 0)
}

/// A detector that has measured a way of 0.1 ms.
fn measured() -> Detector {
    let mut d = detector();
    assert_eq!(d.poll(100 * MS), Some(Action::Probe { machine: A }));
    d.handle_probe_reply(100 * MS, 100 * MS + 100, A);
    assert_eq!(
        d.poll(100 * MS + 100),
        Some(Action::Probe { machine: A }),
        "once more, to be sure"
    );
    d.handle_probe_reply(100 * MS + 100, 100 * MS + 200, A);
    d
}

#[test]
fn silence_through_a_burst_is_the_proof() {
    let mut d = measured();
    d.handle_suspect(110 * MS, A, Reason::Silence);
    for at in [110, 112, 114] {
        assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }));
        assert_eq!(d.poll(at * MS), None);
    }
    let down = Action::Down {
        machine: A,
        reason: Reason::Silence,
        suspected_at: 110 * MS,
    };
    assert_eq!((d.next_deadline(), d.poll(116 * MS)), (Some(116 * MS), Some(down)));
    assert_eq!((d.poll(117 * MS), d.next_deadline()), (None, None));
}

#[test]
fn one_packet_ends_a_burst_unless_it_is_older_than_the_suspicion() {
    let mut d = measured();
    d.handle_suspect(110 * MS, A, Reason::Silence);
    d.handle_heard(110 * MS, A);
    assert_eq!(d.poll(110 * MS), Some(Action::Probe { machine: A }));
    d.handle_heard(111 * MS, A);
    assert_eq!((d.poll(150 * MS), d.next_deadline()), (None, Some(211 * MS)));
}

#[test]
fn an_idle_machine_is_probed_until_it_is_proved_dead() {
    let mut d = measured();
    for at in [201, 203, 205] {
        assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }));
    }
    assert!(matches!(
        d.poll(207 * MS),
        Some(Action::Down {
            reason: Reason::Probes,
            ..
        })
    ));
}

#[test]
fn a_machine_far_away_is_given_two_round_trips_a_probe() {
    let mut d = detector();
    assert_eq!(d.poll(100 * MS), Some(Action::Probe { machine: A }));
    d.handle_probe_reply(100 * MS, 130 * MS, A);
    assert_eq!(d.poll(130 * MS), Some(Action::Probe { machine: A }));
    d.handle_probe_reply(130 * MS, 160 * MS, A);
    d.handle_suspect(140 * MS, A, Reason::Silence);
    assert!(d.poll(140 * MS).is_some());
    assert_eq!(d.next_deadline(), Some(200 * MS));
}

#[test]
fn a_machine_that_was_never_heard_of_has_the_time_of_a_second_arp_request() {
    let mut d = detector();
    for at in [100, 500, 900] {
        assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }));
    }
    assert_eq!(d.next_deadline(), Some(1_300 * MS));
    d.handle_heard(1_100 * MS, A);
    assert_eq!(d.poll(1_199 * MS), None);
}

#[test]
fn many_flows_that_fall_silent_together_make_the_burst_shorter() {
    let dead_at = |flows: u64, again_at: u64| {
        let mut d = measured();
        (0..flows).for_each(|_| d.handle_suspect(110 * MS, A, Reason::Silence));
        (0..).map(|i| 110 * MS + i * MS).find(|now| {
            if *now == again_at {
                (0..flows).for_each(|_| d.handle_suspect(*now, A, Reason::Silence));
            }
            matches!(d.poll(*now), Some(Action::Down { .. }))
        })
    };
    assert_eq!(dead_at(1, 0), Some(116 * MS));
    assert_eq!(dead_at(15, 0), Some(116 * MS));
    assert_eq!(dead_at(16, 0), Some(114 * MS));
    assert_eq!(
        dead_at(8, 112 * MS),
        Some(114 * MS),
        "flows that come a little later count as well"
    );
    assert_eq!(dead_at(8, 115 * MS), Some(116 * MS), "but nobody counts twice");
}

#[test]
fn a_link_that_is_down_needs_one_probe_less_and_gives_its_name_to_the_burst() {
    let mut d = measured();
    assert_eq!(d.poll(201 * MS), Some(Action::Probe { machine: A }), "its turn");
    d.handle_suspect(201 * MS, A, Reason::LinkDown);
    assert_eq!(d.poll(203 * MS), Some(Action::Probe { machine: A }));
    let down = Action::Down {
        machine: A,
        reason: Reason::LinkDown,
        suspected_at: 201 * MS,
    };
    assert_eq!(d.poll(205 * MS), Some(down));
}

/// Of a link that is lost at 110 ms, while packets of the machine are taken from a queue every millisecond up to a time: when it is declared
/// dead, before it would be its turn to be probed.
fn dead_after_backlog(until: u64) -> Option<(u64, Action)> {
    let mut d = measured();
    d.handle_heard(109 * MS, A);
    d.handle_suspect(110 * MS, A, Reason::LinkDown);
    (110..until + 100).find_map(|now| {
        if (111..=until).contains(&now) {
            d.handle_heard(now * MS, A);
        }
        let action = d.poll(now * MS)?;
        matches!(action, Action::Down { .. }).then_some((now, action))
    })
}

#[test]
fn what_a_lost_link_had_brought_before_is_no_sign_of_life() {
    let down = |since: u64| Action::Down {
        machine: A,
        reason: Reason::LinkDown,
        suspected_at: since * MS,
    };
    assert_eq!(dead_after_backlog(110), Some((114, down(110))), "nothing had waited");
    assert_eq!(
        dead_after_backlog(118),
        Some((122, down(118))),
        "a whole burst without a packet"
    );
    assert_eq!(dead_after_backlog(215), None, "nothing waits for so long: it lives");
}

#[test]
fn an_answer_through_a_lost_link_shows_that_it_is_back() {
    let mut d = measured();
    d.handle_suspect(110 * MS, A, Reason::LinkDown);
    assert_eq!(d.poll(110 * MS), Some(Action::Probe { machine: A }));
    d.handle_probe_reply(109 * MS, 111 * MS, A);
    assert_eq!(
        d.poll(112 * MS),
        Some(Action::Probe { machine: A }),
        "to an older question"
    );
    d.handle_probe_reply(112 * MS, 112 * MS + 100, A);
    d.handle_heard(114 * MS, A);
    assert_eq!(d.poll(150 * MS), None);
}

#[test]
fn a_machine_that_speaks_all_the_time_is_measured_now_and_then() {
    let mut d = measured();
    let asked_at = (101..).find(|at| {
        d.handle_heard(at * MS, A);
        d.poll(at * MS).is_some()
    });
    assert_eq!(asked_at, Some(1_101));
    d.handle_heard(1_102 * MS, A);
    assert_eq!(d.poll(1_110 * MS), None, "nothing is suspected");
}

#[test]
fn a_stall_of_ones_own_starts_the_burst_again() {
    let mut d = measured();
    d.handle_suspect(101 * MS, A, Reason::Silence);
    (0..3).for_each(|i| assert!(d.poll((101 + i * 2) * MS).is_some()));
    d.handle_stall(160 * MS);
    assert_eq!(d.poll(160 * MS), Some(Action::Probe { machine: A }));
}

/// Two machines, both measured, the second of which has been heard of.
fn pair() -> (Detector, MachineRef) {
    let mut d = detector();
    let b = MachineRef {
        machine: MachineId(1),
        ..A
    };
    let twin = detector().watches.remove(0);
    d.watches.push(Watch { machine: b, ..twin });
    // Twice, to be sure of the way.
    for at in [100 * MS, 100 * MS + 100] {
        for machine in [A, b] {
            assert_eq!(d.poll(at), Some(Action::Probe { machine }));
        }
        for machine in [A, b] {
            d.handle_probe_reply(at, at + 100, machine);
        }
    }
    (d, b)
}

#[test]
fn a_service_that_refuses_while_another_accepts_is_down() {
    let (mut d, b) = pair();
    d.handle_service(110 * MS, 110 * MS, A, false);
    // The other one is asked at once; the one that refused, again and again.
    assert_eq!(d.poll(110 * MS), Some(Action::Probe { machine: b }));
    d.handle_service(110 * MS + 100, 110 * MS + 100, b, true);
    for at in [112, 114] {
        assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }), "at {at} ms");
        assert_eq!(d.poll(at * MS), None);
        d.handle_heard(at * MS, A);
        d.handle_service(at * MS, at * MS, A, false);
    }
    let down = Action::Down {
        machine: A,
        reason: Reason::Refused,
        suspected_at: 110 * MS,
    };
    assert_eq!((d.poll(114 * MS), d.poll(114 * MS)), (Some(down), None));
}

/// Ten thousand connections of a crashed service end, and the answers to probes wait behind all that: what was asked counts, not when it was heard.
#[test]
fn answers_that_come_late_say_when_they_were_asked_for() {
    let (mut d, b) = pair();
    d.handle_suspect(110 * MS, A, Reason::Vote);
    let asked: Vec<_> = std::iter::from_fn(|| d.poll(110 * MS)).collect();
    assert_eq!(asked, [A, b].map(|machine| Action::Probe { machine }), "both, together");
    // Connections go on to end.
    for at in 111..160 {
        for machine in [A, b] {
            d.handle_heard(at * MS, machine);
        }
        while d.poll(at * MS).is_some() {}
    }
    // The other one's answer to the first probe says nothing about later.
    d.handle_service(109 * MS, 160 * MS, b, true);
    for sent in [110, 112, 115] {
        d.handle_service(sent * MS, 161 * MS, A, false);
    }
    assert!(!matches!(d.poll(161 * MS), Some(Action::Down { .. })));
    d.handle_service(110 * MS, 162 * MS, b, true);
    let down = Action::Down {
        machine: A,
        reason: Reason::Refused,
        suspected_at: 110 * MS,
    };
    assert!(std::iter::from_fn(|| d.poll(162 * MS)).any(|action| action == down));
}

#[test]
fn an_answer_that_was_overtaken_by_a_refusal_is_no_service() {
    let (mut d, b) = pair();
    d.handle_service(110 * MS, 111 * MS, A, false);
    d.handle_service(109 * MS, 112 * MS, A, true);
    d.handle_service(112 * MS, 112 * MS, b, true);
    for sent in [113, 116] {
        d.handle_service(sent * MS, sent * MS, A, false);
    }
    assert!(matches!(d.poll(116 * MS), Some(Action::Down { machine: A, .. })));
}

#[test]
fn a_service_that_is_closed_everywhere_is_nobodys_fault() {
    let (mut d, b) = pair();
    for at in [110, 112, 114, 116, 118] {
        for machine in [A, b] {
            d.handle_heard(at * MS, machine);
            d.handle_service(at * MS, at * MS, machine, false);
        }
        let asked: Vec<_> = std::iter::from_fn(|| d.poll(at * MS)).collect();
        assert!(asked.iter().all(|a| matches!(a, Action::Probe { .. })), "{asked:?}");
    }
    // When one is back, the other one is not.
    d.handle_service(120 * MS, 120 * MS, b, true);
    assert!(matches!(
        d.poll(120 * MS),
        Some(Action::Down {
            machine: A,
            reason: Reason::Refused,
            ..
        })
    ));
}

#[test]
fn one_acceptance_ends_the_suspicion() {
    let (mut d, b) = pair();
    d.handle_service(110 * MS, 110 * MS, A, false);
    d.handle_service(110 * MS, 110 * MS, b, true);
    d.handle_service(111 * MS, 111 * MS, A, true);
    d.handle_service(112 * MS, 112 * MS, A, false);
    d.handle_service(113 * MS, 113 * MS, A, false);
    d.handle_service(113 * MS, 113 * MS, b, true);
    let asked: Vec<_> = std::iter::from_fn(|| d.poll(113 * MS)).collect();
    assert!(asked.iter().all(|a| matches!(a, Action::Probe { .. })), "{asked:?}");
}

#[test]
fn whether_the_others_accept_is_asked_until_one_has_answered() {
    let (mut d, b) = pair();
    let asked = |d: &mut Detector, at| std::iter::from_fn(|| d.poll(at)).collect::<Vec<_>>();
    for at in [110, 112, 114].map(|at| at * MS) {
        d.handle_heard(at, A);
        d.handle_heard(at, b);
        d.handle_service(at, at, A, false);
        assert!(
            asked(&mut d, at).contains(&Action::Probe { machine: b }),
            "the last answer was lost"
        );
    }
    d.handle_service(115 * MS, 115 * MS, b, true);
    assert!(matches!(
        d.poll(115 * MS),
        Some(Action::Down {
            machine: A,
            reason: Reason::Refused,
            ..
        })
    ));
}

#[test]
fn who_is_measured_by_a_machine_that_hangs_itself_is_not_taken_out_with_it() {
    let (mut d, b) = pair();
    d.handle_suspect(10 * MS, A, Reason::Hang);
    d.handle_suspect(10 * MS, b, Reason::Hang);
    let down = |machine, now: u64| Action::Down {
        machine,
        reason: Reason::Hang,
        suspected_at: now * MS,
    };
    assert_eq!(d.poll(10 * MS), Some(down(A, 10)));
    d.handle_down(A);
    assert!(
        !matches!(d.poll(10 * MS), Some(Action::Down { .. })),
        "each by the other"
    );
    // If others show it, the flows say it again.
    d.handle_suspect(60 * MS, b, Reason::Hang);
    assert_eq!(d.poll(60 * MS), Some(down(b, 60)));
}
