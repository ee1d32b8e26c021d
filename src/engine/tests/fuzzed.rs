//! What the fuzzer found (`make fuzz`), told as dialogues. The inputs themselves are in `fuzz/seeds/engine`.

use super::*;

#[test]
fn a_repeated_syn_ack_acknowledges_nothing_but_the_syn() {
    let mut t = Talk::established(1);
    let again = |ack| Say {
        flags: Flags::SYN,
        ack: Some(ack),
        ..Say::default()
    };
    for beyond in [2, 70_000, 0, -5] {
        assert_eq!(t.machine(0, again(beyond)), Verdict::Drop(DropReason::Implausible));
    }
    assert!(t.client_heard().is_empty());
    assert!(matches!(t.machine(0, again(1)), Verdict::Accept { .. }));
}

fn say(at: i64, ack: i64, flags: Flags) -> Say<'static> {
    Say {
        at,
        ack: Some(ack),
        flags,
        ..Say::default()
    }
}

/// Both sides have closed, the replicas have acknowledged everything, but have not closed: the flow is played to its end (R24).
fn closed_but_for_the_replicas(replicas: usize) -> Talk {
    let mut t = Talk::established_without_votes(1 + replicas);
    t.client(say(1, 1, Flags::FIN));
    t.machine(0, say(1, 2, Flags::FIN));
    t.client(say(2, 2, Flags::default()));
    for i in 1..=replicas {
        t.machine(i, say(1, 2, Flags::default()));
    }
    t.hush();
    t
}

/// The client speaks, and the engine does not get round to its own work.
fn hasty_client(t: &mut Talk, say: Say<'_>) -> Verdict {
    let ts = Some((CLIENT_CLOCK, CLOCK[0]));
    t.say("client", client(), psc(), (CLIENT_ISN, ISN[0]), Say { ts, ..say })
}

/// A SYN with a number of its own.
fn anew() -> Say<'static> {
    Say {
        at: 70_000,
        flags: Flags::SYN,
        ..Say::default()
    }
}

#[test]
fn what_a_finished_flow_owed_is_not_said_to_the_flow_that_follows_on_its_addresses() {
    let mut t = closed_but_for_the_replicas(1);
    // The client asks something that is owed an answer, and begins anew at once.
    let misplaced = Say {
        data: b"late",
        ..say(2_000_000, 2, Flags::default())
    };
    assert_eq!(hasty_client(&mut t, misplaced), Verdict::Drop(DropReason::Implausible));
    assert!(matches!(hasty_client(&mut t, anew()), Verdict::Accept { .. }));
    t.poll();
    assert_eq!(t.client_heard(), []);
}

#[test]
fn whoever_takes_over_a_finished_flow_is_not_heard_by_the_flow_that_follows_on_its_addresses() {
    let mut t = closed_but_for_the_replicas(2);
    assert!(matches!(t.client(anew()), Verdict::Accept { .. }));
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    t.engine.command(t.now, Command::Down { machine });
    t.poll();
    // It repeats itself, as a machine may that has missed something.
    for _ in 0..2 {
        assert!(matches!(t.machine(1, say(1, 2, Flags::default())), Verdict::Drop(_)));
        assert!(matches!(t.machine(1, say(1, 2, Flags::RST)), Verdict::Drop(_)));
    }
    assert_eq!(t.client_heard(), []);
}

#[test]
fn an_unproved_client_that_begins_anew_hears_nothing_of_its_first_attempt() {
    let mut t = Talk::new(2);
    let syn = Say {
        flags: Flags::SYN,
        ..Say::default()
    };
    t.client(syn);
    // The original dies before it answers: the engine asks the next machine in the client's name.
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    t.engine.command(t.now, Command::Down { machine });
    t.poll();
    assert!(matches!(t.client(anew()), Verdict::Accept { .. }));
    t.hush();
    assert!(matches!(t.machine(1, say(0, 1, Flags::SYN)), Verdict::Drop(_)));
    assert_eq!(t.client_heard(), []);
}
