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

#[test]
fn what_a_finished_flow_owed_is_not_said_to_the_flow_that_follows_on_its_addresses() {
    let mut t = Talk::established(2);
    let say = |at, ack, flags| Say {
        at,
        ack: Some(ack),
        flags,
        ..Say::default()
    };
    t.client(say(1, 1, Flags::FIN));
    t.machine(0, say(1, 2, Flags::FIN));
    t.client(say(2, 2, Flags::default()));
    // The replica is not done: the old flow is still played to its end (R24).
    t.machine(1, say(1, 2, Flags::default()));
    t.hush();
    let ends = (CLIENT_ISN, ISN[0]);
    let ts = Some((CLIENT_CLOCK, CLOCK[0]));
    // The client asks something that is owed an answer, and begins anew before the engine gets round to it.
    let misplaced = t.say(
        "client",
        client(),
        psc(),
        ends,
        Say {
            ts,
            data: b"late",
            ..say(2_000_000, 2, Flags::default())
        },
    );
    assert_eq!(misplaced, Verdict::Drop(DropReason::Implausible));
    let syn = Say {
        at: 70_000,
        flags: Flags::SYN,
        ts,
        ..Say::default()
    };
    assert!(matches!(
        t.say("client", client(), psc(), ends, syn),
        Verdict::Accept { .. }
    ));
    t.hush();
    t.poll();
    assert_eq!(t.client_heard(), []);
}
