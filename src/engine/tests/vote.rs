//! R11: the original ends the connection, and the replicas have a say.

use super::*;

const RST: Flags = Flags::RST;
const FIN: Flags = Flags::FIN;

fn counted(t: &Talk, counters: [Counter; 4]) -> [u64; 4] {
    counters.map(|c| t.engine.stats().get(c))
}

/// Opened, confirmed, masked, moot.
fn votes(t: &Talk) -> [u64; 4] {
    use Counter::{VotesConfirmed, VotesMasked, VotesMoot, VotesOpened};
    counted(t, [VotesOpened, VotesConfirmed, VotesMasked, VotesMoot])
}

fn says(at: i64, ack: i64, flags: Flags, data: &str) -> Say<'_> {
    Say {
        at,
        ack: Some(ack),
        flags,
        data: data.as_bytes(),
        ..Say::default()
    }
}

/// What the client heard: position, flags, bytes.
fn client_heard(t: &mut Talk) -> Vec<(i64, Flags, String)> {
    let heard = t.client_heard();
    let text = |h: &Heard| String::from_utf8_lossy(&h.data).into_owned();
    heard
        .iter()
        .map(|h| (h.at, h.flags.without(Flags::PSH), text(h)))
        .collect()
}

/// A request that all machines have had: the client's position is 5.
fn asked(machines: usize) -> Talk {
    let mut t = Talk::established(machines);
    t.client(says(1, 1, Flags::default(), "GET\n"));
    for i in 0..machines {
        t.machine(i, says(1, 5, Flags::default(), ""));
    }
    t.hush();
    t
}

#[test]
fn a_rst_of_the_original_alone_is_masked_after_the_vote() {
    let mut t = asked(2);
    assert_eq!(t.machine(0, says(1, 5, RST, "")), Verdict::Drop(DropReason::Held));
    let (machine, reason) = (machine_ref(0), Reason::Vote);
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
    t.wait(19 * MS);
    assert!(t.client_heard().is_empty());
    assert_eq!(votes(&t), [1, 0, 0, 0]);
    t.wait(2 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
    t.machine(1, says(1, 5, Flags::default(), "42\n"));
    assert_eq!(client_heard(&mut t).last(), Some(&(1, Flags::ACK, "42\n".into())));
    // Whatever the old one still says, the client does not hear it.
    assert_eq!(
        t.machine(0, says(1, 5, Flags::default(), "late")),
        Verdict::Drop(DropReason::Fenced)
    );
    assert_eq!(t.engine.take_event(), None, "said once");
}

#[test]
fn an_end_that_was_a_failure_is_asked_after_although_an_everyday_end_was_just_before() {
    let mut t = asked(2);
    let (machine, reason) = (machine_ref(0), Reason::Vote);
    // Another client's connection: the probe was answered, for the service was well.
    t.engine.cx.suspect_end(t.now, None, machine.service, machine.machine);
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
    t.wait(10 * MS);
    t.machine(0, says(1, 5, RST, ""));
    assert_eq!(t.engine.take_event(), None, "within probe_interval");
    t.wait(21 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
}

#[test]
fn who_ends_a_connection_alone_is_asked_after_at_once_but_not_again_and_again() {
    let mut t = asked(2);
    let (machine, reason) = (machine_ref(0), Reason::Vote);
    t.machine(0, says(1, 5, FIN, ""));
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
    // Its kernel goes on to reset what comes for a process that has gone.
    t.machine(0, says(2, 5, RST, ""));
    assert_eq!(t.engine.take_event(), None, "within probe_interval");
    t.wait(21 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
    assert_eq!(t.engine.take_event(), None, "though it has lost the vote");
}

#[test]
fn where_both_end_nobody_is_asked_after() {
    let mut t = asked(2);
    t.machine(1, says(1, 5, FIN, ""));
    t.machine(0, says(1, 5, FIN, ""));
    assert_eq!(t.engine.take_event(), None);
}

#[test]
fn what_the_client_says_during_the_vote_is_not_lost() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, RST, ""));
    t.client(says(5, 1, Flags::default(), "MORE\n"));
    assert!(t.machine_heard(0).is_empty(), "nobody is there");
    t.wait(21 * MS);
    t.machine(1, says(1, 10, Flags::default(), "42\n"));
    let heard = t.client_heard();
    assert_eq!(heard.last().map(|h| (h.at, h.ack)), Some((1, Some(10))));
}

#[test]
fn a_rst_that_a_replica_confirms_reaches_the_client_exactly_placed() {
    let mut t = asked(3);
    t.machine(0, says(1, 5, Flags::default(), "no\n"));
    t.hush();
    t.machine(0, says(4, 5, RST, ""));
    t.machine(1, says(1, 5, Flags::default(), "no\n"));
    t.machine(1, says(4, 5, RST, ""));
    let heard = client_heard(&mut t);
    assert_eq!(heard, [(4, RST | Flags::ACK, String::new())]);
    assert_eq!(votes(&t), [1, 1, 0, 0]);
    assert_eq!(t.engine.stats().get(Counter::FlowsLost), 0);
    // The third is told, and nothing is left.
    t.wait(100 * MS);
    assert!(t.machine_heard(2).iter().any(|h| h.flags.contains(RST)));
    assert_eq!(t.engine.status().services[0].flows, 0);
}

#[test]
fn a_replica_that_resets_first_has_confirmed() {
    let mut t = asked(3);
    t.machine(1, says(1, 5, RST, ""));
    t.wait(10 * MS);
    assert!(matches!(t.machine(0, says(1, 5, RST, "")), Verdict::Accept { .. }));
    assert_eq!(votes(&t), [1, 1, 0, 0]);
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(RST)));
}

#[test]
fn a_replica_that_reset_elsewhere_or_long_ago_has_not() {
    for (at, wait) in [(1, 30), (4, 5)] {
        let mut t = asked(3);
        if at > 1 {
            t.machine(1, says(1, 5, Flags::default(), "no\n"));
        }
        t.machine(1, says(at, 5, RST, ""));
        t.wait(wait * MS);
        assert_eq!(
            t.machine(0, says(1, 5, RST, "")),
            Verdict::Drop(DropReason::Held),
            "{at}"
        );
        assert!(client_heard(&mut t).is_empty());
    }
}

#[test]
fn a_rst_with_nobody_to_ask_passes_at_once() {
    let mut t = asked(1);
    assert!(matches!(t.machine(0, says(1, 5, RST, "")), Verdict::Accept { .. }));
    assert_eq!(votes(&t), [0; 4]);
}

#[test]
fn when_the_last_replica_goes_the_rst_stands() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, RST, ""));
    t.machine(1, says(1, 5, Flags::default(), "x"));
    t.hush();
    // It says more, so it takes over; then it resets, too, and nobody is left.
    assert!(matches!(t.machine(1, says(2, 5, RST, "")), Verdict::Accept { .. }));
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(RST)));
    assert_eq!(votes(&t), [1, 0, 1, 0]);
}

#[test]
fn a_replica_that_has_said_more_takes_over_from_a_rst_at_once() {
    let mut t = asked(2);
    t.machine(1, says(1, 5, Flags::default(), "42\n"));
    t.machine(0, says(1, 5, RST, ""));
    assert_eq!(client_heard(&mut t), [(1, Flags::ACK, "42\n".into())]);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
}

#[test]
fn a_fin_passes_without_delay_once_a_replica_has_said_it() {
    let mut t = asked(2);
    t.machine(1, says(1, 5, FIN, "bye"));
    assert!(client_heard(&mut t).is_empty());
    t.machine(0, says(1, 5, FIN, "bye"));
    assert_eq!(client_heard(&mut t), [(1, FIN | Flags::ACK, "bye".into())]);
    assert_eq!(votes(&t), [1, 1, 0, 0]);
    assert_eq!(t.engine.stats().get(Counter::FinsDelayed), 0);
}

#[test]
fn a_fin_waits_for_a_replica_and_its_data_does_not() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, "bye"));
    assert_eq!(client_heard(&mut t), [(1, Flags::ACK, "bye".into())]);
    t.client(says(5, 4, Flags::default(), ""));
    assert_eq!(
        t.machine_heard(0).last().and_then(|h| h.ack),
        Some(4),
        "I4: not its FIN"
    );
    t.hush();
    t.wait(7 * MS);
    // It says it again, and acknowledges from beyond it: the client must not notice either.
    assert_eq!(t.machine(0, says(4, 5, FIN, "")), Verdict::Drop(DropReason::Held));
    t.machine(0, says(5, 5, Flags::default(), ""));
    assert!(t.client_heard().iter().all(|h| h.at == 4 && h.flags == Flags::ACK));
    t.machine(1, says(1, 5, FIN, "bye"));
    let heard = t.client_heard();
    assert_eq!(
        (heard[0].at, heard[0].ack, heard[0].flags),
        (4, Some(5), FIN | Flags::ACK)
    );
    let stats = t.engine.stats();
    let delays = [Counter::FinsDelayed, Counter::FinDelay, Counter::FinDelayMax].map(|c| stats.get(c));
    assert_eq!(delays, [1, 7_000, 7_000]);
    assert_eq!(votes(&t), [1, 1, 0, 0]);
    // Both are closed in order.
    t.client(says(5, 5, FIN, ""));
    for i in 0..2 {
        t.machine(i, says(5, 6, Flags::default(), ""));
        let heard = t.machine_heard(i);
        assert!(
            heard.iter().any(|h| h.flags.contains(FIN) && h.ack == Some(5)),
            "{i}: {heard:?}"
        );
    }
    t.wait(6 * spec::SECOND);
    assert_eq!(t.engine.status().services[0].flows, 0);
}

#[test]
fn a_fin_of_the_original_alone_is_masked_after_the_vote() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, ""));
    t.wait(21 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
    assert!(client_heard(&mut t).iter().all(|h| !h.1.contains(FIN)));
    t.machine(1, says(1, 5, Flags::default(), "42\n"));
    assert_eq!(client_heard(&mut t).last(), Some(&(1, Flags::ACK, "42\n".into())));
    // The old one was killed: the next byte shows it. Nobody cares.
    t.client(says(5, 4, Flags::default(), "GET\n"));
    t.machine(0, says(2, 5, RST, ""));
    t.machine(1, says(4, 9, Flags::default(), "43\n"));
    assert_eq!(client_heard(&mut t).last(), Some(&(4, Flags::ACK, "43\n".into())));
    assert_eq!(t.engine.stats().get(Counter::FinsDelayed), 0);
}

#[test]
fn a_fin_short_of_what_a_replica_has_said_is_masked_at_once() {
    let mut t = asked(2);
    t.machine(1, says(1, 5, Flags::default(), "whole answer"));
    t.machine(0, says(1, 5, FIN, "whole"));
    assert_eq!(
        client_heard(&mut t),
        [(1, Flags::ACK, "whole".into()), (6, Flags::ACK, " answer".into())]
    );
    assert_eq!(votes(&t), [1, 0, 1, 0]);
}

#[test]
fn a_crash_between_the_clients_fin_and_the_end_of_the_answer_is_masked() {
    let mut t = Talk::established(2);
    t.client(says(1, 1, FIN, "GET\n"));
    for i in 0..2 {
        t.machine(i, says(1, 6, Flags::default(), ""));
    }
    t.hush();
    t.machine(0, says(1, 6, FIN, "who"));
    t.wait(5 * MS);
    t.machine(1, says(1, 6, FIN, "whole"));
    let heard = client_heard(&mut t);
    assert_eq!(heard[0], (1, Flags::ACK, "who".into()));
    assert_eq!(heard[1], (4, Flags::ACK, "le".into()));
    assert_eq!(votes(&t)[2], 1);
    // Its own end is uncontested: the old original has ended where the client has more.
    assert!(heard[2].1.contains(FIN));
    t.client(says(6, 7, Flags::default(), ""));
    t.wait(6 * spec::SECOND);
    t.wait(6 * spec::SECOND);
    assert_eq!(t.engine.status().services[0].flows, 0);
}

#[test]
fn a_fin_and_then_a_rst_is_a_crash() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, ""));
    t.client(says(5, 1, Flags::default(), "GET\n"));
    assert_eq!(t.machine(0, says(2, 5, RST, "")), Verdict::Drop(DropReason::Held));
    t.wait(21 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0], "one vote");
    t.machine(1, says(1, 9, Flags::default(), "42\n43\n"));
    let heard = t.client_heard();
    assert_eq!(heard.last().map(|h| (h.at, h.ack)), Some((1, Some(9))));
    assert!(heard.iter().all(|h| !h.flags.intersects(FIN | RST)));
}

#[test]
fn a_replica_that_lags_may_take_over_from_a_service_that_has_closed() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, "bye"));
    t.wait(21 * MS);
    assert_eq!(votes(&t)[2], 0, "it has not come so far as to know");
    t.machine(1, says(1, 5, Flags::default(), "b"));
    t.client(says(5, 4, Flags::default(), ""));
    t.wait(1_980 * MS);
    assert_eq!(votes(&t)[2], 1, "it is at work");
    t.hush();
    // It says the same, late: what the old original has said confirms it, and the client's end is in order.
    t.machine(1, says(2, 5, FIN, "ye"));
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(FIN)));
    t.client(says(5, 5, FIN, ""));
    for i in 0..2 {
        t.machine(i, says(5, 6, Flags::default(), ""));
    }
    t.wait(6 * spec::SECOND);
    assert_eq!(
        (
            t.engine.status().services[0].flows,
            t.engine.stats().get(Counter::LegsReset)
        ),
        (0, 0)
    );
}

#[test]
fn a_fin_that_a_silent_replica_never_confirms_is_believed_in_the_end() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, "bye"));
    // The replica's kernel has the question, its service hangs.
    t.machine(1, says(1, 5, Flags::default(), ""));
    t.client(says(5, 4, Flags::default(), ""));
    t.wait(1_999 * MS);
    assert!(!client_heard(&mut t).iter().any(|h| h.1.contains(FIN)));
    t.wait(2 * MS);
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(FIN)));
    assert_eq!(votes(&t)[2], 0);
    assert_eq!(t.engine.stats().get(Counter::Takeovers), 0);
}

#[test]
fn who_has_said_something_since_takes_over_not_who_hangs() {
    let mut t = asked(3);
    t.machine(0, says(1, 5, FIN, "bye"));
    t.client(says(5, 4, Flags::default(), ""));
    t.wait(21 * MS);
    // m1 has the question and says nothing; m2 is at work.
    t.machine(2, says(1, 5, Flags::default(), "b"));
    t.wait(2 * spec::SECOND);
    assert_eq!(t.engine.status().services[0].machines[2].original_of, 1);
}

#[test]
fn who_comes_so_far_late_has_time_to_say_that_it_ends_too() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, "bye"));
    t.client(says(5, 4, Flags::default(), ""));
    t.wait(500 * MS);
    t.machine(1, says(1, 5, Flags::default(), "bye"));
    t.wait(19 * MS);
    assert_eq!(votes(&t)[2], 0);
    t.machine(1, says(4, 5, FIN, ""));
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(FIN)));
    assert_eq!(t.engine.stats().get(Counter::Takeovers), 0);
}

#[test]
fn who_trails_and_has_said_more_knows_better() {
    let mut t = asked(2);
    // The replica has not heard the second question, and trails; it has answered the first one.
    t.client(says(5, 1, Flags::default(), "GET\n"));
    t.machine(0, says(1, 9, Flags::default(), ""));
    t.wait(201 * MS);
    t.machine(1, says(1, 5, Flags::default(), "whole"));
    t.hush();
    t.machine(0, says(1, 9, FIN, "who"));
    t.wait(MS);
    assert_eq!(votes(&t)[2], 1, "a crash in the middle of an answer");
    let heard = client_heard(&mut t);
    assert!(heard.iter().any(|h| h.2 == "le"), "{heard:?}");
    assert!(!heard.iter().any(|h| h.1.contains(FIN)));
}

#[test]
fn a_client_does_not_wait_long_for_a_hung_replica_while_an_end_is_voted_on() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, "bye"));
    t.client(says(5, 4, Flags::default(), "and?"));
    t.machine(0, says(5, 9, Flags::default(), ""));
    t.hush();
    // The replica takes nothing more (R23: it has not said what the client has read). The client waits for the vote, and then as for any.
    t.wait(221 * MS);
    assert!(
        client_heard(&mut t).iter().any(|h| h.1.contains(FIN)),
        "who trails is no witness"
    );
    assert_eq!(t.engine.stats().get(Counter::LegsTrailed), 1);
}

#[test]
fn a_fin_of_a_replica_that_crashed_makes_it_no_heir() {
    let mut t = asked(3);
    t.machine(1, says(1, 5, FIN, ""));
    t.machine(0, says(1, 5, Flags::default(), "4"));
    t.client(says(5, 2, Flags::default(), ""));
    t.machine(2, says(1, 5, Flags::default(), "42\n"));
    t.hush();
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    t.engine.command(t.now, Command::Down { machine });
    t.poll();
    assert_eq!(client_heard(&mut t), [(2, Flags::ACK, "2\n".into())]);
}

#[test]
fn a_machine_that_refuses_is_passed_over_and_the_last_ones_word_counts() {
    let mut t = Talk::new(2);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    t.hush();
    assert_eq!(t.machine(0, says(0, 1, RST, "")), Verdict::Drop(DropReason::Relayed));
    assert_eq!(t.machine_heard(1).first().map(|h| h.flags), Some(Flags::SYN));
    assert!(t.client_heard().is_empty());
    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    let reason = Reason::Refused;
    assert_eq!(t.engine.take_event(), Some(Event::Suspect { machine, reason }));
    assert!(matches!(t.machine(1, says(0, 1, RST, "")), Verdict::Accept { .. }));
    let heard = t.client_heard();
    assert_eq!(
        heard.iter().map(|h| (h.flags, h.ack)).collect::<Vec<_>>(),
        [(RST | Flags::ACK, Some(1))]
    );
    t.wait(MS);
    assert_eq!(t.engine.status().services[0].flows, 0);
    assert_eq!(t.engine.stats().get(Counter::RefusalsMasked), 1);
}

#[test]
fn a_client_that_was_refused_once_is_served_by_the_next_machine() {
    let mut t = Talk::new(3);
    t.client(Say {
        flags: Flags::SYN,
        ts: Some((CLIENT_CLOCK, 0)),
        ..Say::default()
    });
    t.machine(0, says(0, 1, RST, ""));
    t.hush();
    t.machine(1, says(0, 1, Flags::SYN, ""));
    let heard = t.client_heard();
    assert_eq!(heard[0].flags, Flags::SYN | Flags::ACK);
    let isn = heard[0].at;
    t.client(says(1, isn + 1, Flags::default(), "GET\n"));
    assert!(t.machine_heard(1).iter().any(|h| h.data == b"GET\n"));
    assert_eq!(
        t.machine_heard(2).first().map(|h| h.flags),
        Some(Flags::SYN),
        "and is replicated"
    );
    assert!(t.machine_heard(0).is_empty());
}

#[test]
fn a_replicas_lost_fin_is_no_byte_beyond_the_originals_end() {
    let mut t = asked(2);
    // "42\n" and the FIN of the first original are lost on the way here.
    t.machine(0, says(5, 5, Flags::default(), ""));
    let to = machine_ref(1);
    assert_eq!(t.engine.command(t.now, Command::Failover { to }).switched, 1);
    t.poll();
    t.machine(1, says(1, 5, FIN, "42\n"));
    assert_eq!(votes(&t), [1, 0, 0, 0], "the first original has not been heard");
    t.machine(0, says(1, 5, FIN, "42\n"));
    assert_eq!(votes(&t), [1, 1, 0, 0]);
    let fin = (4, Flags::ACK | FIN, String::new());
    assert_eq!(client_heard(&mut t).last(), Some(&fin));
}

/// A connection on which nobody has said anything yet, while machine 1 is slow: its leg trails from the beginning.
fn quiet() -> Talk {
    let mut t = Talk::new(2);
    t.engine.cx.set_slow(machine_ref(1), 60 * SECOND);
    t.shake_hands(2);
    assert_eq!(t.engine.status().services[0].machines[1].trailing, 1);
    t.hush();
    t
}

#[test]
fn who_trails_and_lacks_nothing_is_a_witness() {
    let mut t = quiet();
    t.machine(0, says(1, 1, FIN, ""));
    t.wait(19 * MS);
    assert_eq!(votes(&t), [1, 0, 0, 0]);
    t.wait(2 * MS);
    assert_eq!(
        votes(&t),
        [1, 0, 1, 0],
        "it stands where the original ended, and has not ended"
    );
    assert!(!client_heard(&mut t).iter().any(|h| h.1.contains(FIN)));
    t.client(says(1, 1, Flags::default(), "GET\n"));
    t.machine(1, says(1, 5, Flags::default(), "42\n"));
    assert!(client_heard(&mut t).iter().any(|h| h.2 == "42\n"));
}

#[test]
fn who_trails_and_lacks_what_the_original_has_read_is_none() {
    let mut t = quiet();
    t.client(says(1, 1, Flags::default(), "QUIT\n"));
    t.machine(0, says(1, 6, FIN, ""));
    t.wait(MS);
    assert!(client_heard(&mut t).iter().any(|h| h.1.contains(FIN)), "it can't know");
    assert_eq!(votes(&t)[2], 0);
}
