//! R11 under attack: what else may happen while a vote runs.

use super::*;

const RST: Flags = Flags::RST;
const FIN: Flags = Flags::FIN;

/// Opened, confirmed, masked, moot.
fn votes(t: &Talk) -> [u64; 4] {
    use Counter::{VotesConfirmed, VotesMasked, VotesMoot, VotesOpened};
    [VotesOpened, VotesConfirmed, VotesMasked, VotesMoot].map(|c| t.engine.stats().get(c))
}

fn says(at: i64, ack: i64, flags: Flags, data: &[u8]) -> Say<'_> {
    Say {
        flags,
        ..words(at, ack, data)
    }
}

fn talk(machines: usize, change: impl FnOnce(&mut ServiceSpec)) -> Talk {
    let mut spec = spec(machines);
    change(&mut spec.services[0]);
    let mut t = Talk::with(spec, true);
    t.shake_hands(machines);
    t
}

/// A request that all machines have had: the client's position is 5.
fn asked_with(machines: usize, change: impl FnOnce(&mut ServiceSpec)) -> Talk {
    let mut t = talk(machines, change);
    t.client(words(1, 1, b"GET\n"));
    for i in 0..machines {
        t.machine(i, ack(1, 5));
    }
    t.hush();
    t
}

fn asked(machines: usize) -> Talk {
    asked_with(machines, |_| ())
}

/// Whether the client was told that it is over.
fn ended(heard: &[Heard]) -> bool {
    heard.iter().any(|h| h.flags.intersects(FIN | RST))
}

fn bytes(heard: &[Heard]) -> Vec<u8> {
    heard.iter().flat_map(|h| h.data.clone()).collect()
}

#[test]
fn two_that_crash_at_once_at_different_places_leave_it_to_the_third() {
    for order in [[0, 1], [1, 0]] {
        let mut t = asked(3);
        t.machine(0, words(1, 5, b"4"));
        t.client(ack(5, 2));
        for i in order {
            t.machine(i, says(if i == 0 { 2 } else { 1 }, 5, RST, b""));
        }
        t.machine(2, words(1, 5, b"42\n"));
        t.wait(25 * MS);
        let heard = t.client_heard();
        assert!(!ended(&heard), "{order:?}: {heard:?}");
        assert_eq!(bytes(&heard), b"42\n");
        assert_eq!(votes(&t), [1, 0, 1, 0]);
    }
}

/// A known limit: two that fall silent alike in the same moment can't be told from a service that ends.
#[test]
fn two_that_crash_at_once_at_the_same_place_are_believed() {
    let mut t = asked(3);
    t.machine(0, says(1, 5, RST, b""));
    t.machine(1, says(1, 5, RST, b""));
    assert!(ended(&t.client_heard()));
    assert_eq!(votes(&t), [1, 1, 0, 0]);
}

#[test]
fn the_heir_that_crashes_during_the_vote_leaves_it_to_the_next() {
    let mut t = asked(3);
    t.machine(0, says(1, 5, FIN, b"4"));
    t.client(ack(5, 2));
    t.wait(5 * MS);
    t.machine(1, says(1, 5, RST, b""));
    t.wait(20 * MS);
    t.machine(2, words(1, 5, b"42\n"));
    t.client(ack(5, 4));
    let heard = t.client_heard();
    assert!(!ended(&heard), "{heard:?}");
    assert_eq!(bytes(&heard), b"42\n");
    assert_eq!(votes(&t), [1, 0, 1, 0]);
}

#[test]
fn data_said_again_with_the_fin_passes_without_it() {
    let mut t = asked(2);
    t.machine(0, says(1, 5, FIN, b"bye"));
    t.hush();
    // The client has not acknowledged, and the original says all of it again.
    t.machine(0, says(1, 5, FIN, b"bye"));
    let heard = t.client_heard();
    assert!(!ended(&heard) && bytes(&heard) == b"bye", "{heard:?}");
    assert_eq!(votes(&t), [1, 0, 0, 0], "one vote");
    t.machine(1, says(1, 5, FIN, b"bye"));
    let heard = t.client_heard();
    assert_eq!(heard.iter().filter(|h| h.flags.contains(FIN)).count(), 1);
    // From now on the FIN passes whenever it is said again.
    t.machine(0, says(1, 5, FIN, b"bye"));
    assert!(ended(&t.client_heard()));
}

#[test]
fn an_original_that_dies_during_a_vote_is_replaced_at_once() {
    for flags in [FIN, RST] {
        let mut t = asked(2);
        t.machine(0, says(1, 5, flags, b""));
        t.wait(5 * MS);
        assert_eq!(down(&mut t, 0).switched, 1, "{flags:?}");
        t.machine(1, words(1, 5, b"42\n"));
        t.wait(30 * MS);
        let heard = t.client_heard();
        assert!(!ended(&heard) && bytes(&heard) == b"42\n", "{heard:?}");
        assert_eq!(t.engine.stats().get(Counter::Takeovers), 1);
        assert_eq!(votes(&t)[2] + votes(&t)[3], 1);
    }
}

#[test]
fn where_the_only_replica_dies_during_the_vote_the_original_is_believed() {
    for flags in [FIN, RST] {
        let mut t = asked(2);
        t.machine(0, says(1, 5, flags, b""));
        assert!(!ended(&t.client_heard()));
        down(&mut t, 1);
        assert!(ended(&t.client_heard()), "{flags:?}");
    }
}

#[test]
fn a_client_that_goes_during_the_vote_ends_it() {
    for flags in [FIN, RST] {
        let mut t = asked(2);
        t.machine(0, says(1, 5, flags, b""));
        t.client(says(5, 1, RST, b""));
        t.wait(spec::SECOND);
        assert_eq!(votes(&t), [1, 0, 0, 1], "{flags:?}");
        assert_eq!(t.engine.status().services[0].flows, 0);
        assert!(!ended(&t.client_heard()));
    }
}

#[test]
fn a_client_that_has_closed_its_half_hears_the_end_when_two_say_so() {
    let mut t = talk(2, |_| ());
    t.client(says(1, 1, FIN, b"GET\n"));
    for i in 0..2 {
        t.machine(i, ack(1, 6));
    }
    t.hush();
    t.machine(0, says(1, 6, FIN, b"42\n"));
    assert!(!ended(&t.client_heard()));
    t.wait(3 * MS);
    t.machine(1, says(1, 6, FIN, b"42\n"));
    assert!(ended(&t.client_heard()));
    t.client(ack(6, 5));
    t.wait(12 * spec::SECOND);
    assert_eq!(t.engine.status().services[0].flows, 0);
    assert_eq!(votes(&t), [1, 1, 0, 0]);
}

#[test]
fn a_replica_that_lags_without_bounds_gets_what_it_lacks_after_the_vote() {
    let mut t = talk(2, |service| service.max_lag = MaxLag::Unlimited);
    t.client(words(1, 1, b"GET\n"));
    t.machine(0, ack(1, 5));
    assert_eq!(t.client_heard().last().and_then(|h| h.ack), Some(5), "told at once");
    t.machine(0, says(1, 5, RST, b""));
    t.wait(21 * MS);
    assert_eq!(votes(&t), [1, 0, 1, 0]);
    t.hush();
    // Its own retransmission timer brings the bytes at the latest.
    t.wait(spec::SECOND);
    assert_eq!(bytes(&t.machine_heard(1))[..4], b"GET\n"[..]);
    t.machine(1, words(1, 5, b"42\n"));
    let heard = t.client_heard();
    assert!(!ended(&heard) && bytes(&heard) == b"42\n", "{heard:?}");
}

#[test]
fn where_the_only_replica_differs_the_original_is_believed_at_once() {
    for diverge in [DivergePolicy::Ineligible, DivergePolicy::Evict] {
        let mut t = asked_with(2, |service| service.diverge = diverge);
        t.machine(0, words(1, 5, b"41\n"));
        t.machine(1, words(1, 5, b"42\n"));
        t.hush();
        // As whoever runs the engine does.
        while let Some(event) = t.engine.take_event() {
            if let Event::Evict { machine, .. } = event {
                down(&mut t, machine.machine.0);
            }
        }
        t.machine(0, says(4, 5, RST, b""));
        assert!(ended(&t.client_heard()), "{diverge:?}");
        assert_eq!(votes(&t), [0; 4]);
    }
}

#[test]
fn the_fastest_is_not_believed_alone_either() {
    let fastest = |service: &mut ServiceSpec| service.original = Original::Fastest;
    // The original's word, then the replica's, and the other way round.
    for order in [[0, 1], [1, 0]] {
        let mut t = asked_with(2, fastest);
        t.machine(order[0], says(1, 5, FIN, b"bye"));
        let heard = t.client_heard();
        assert!(!ended(&heard) && bytes(&heard) == b"bye", "{order:?}: {heard:?}");
        t.client(ack(5, 4));
        t.machine(order[1], says(1, 5, FIN, b"bye"));
        assert!(ended(&t.client_heard()), "{order:?}");
    }
    // A crash of the original behind the lead.
    let mut t = asked_with(2, fastest);
    t.machine(1, words(1, 5, b"42\n"));
    t.machine(0, says(1, 5, RST, b""));
    t.wait(25 * MS);
    t.client(ack(5, 4));
    t.machine(1, words(4, 5, b"43\n"));
    let heard = t.client_heard();
    assert!(!ended(&heard) && bytes(&heard) == b"42\n43\n", "{heard:?}");
}

/// The end was confirmed, and lost on the way; whoever confirmed it is gone, and the original, which crashed, has ended elsewhere.
#[test]
fn an_end_that_was_confirmed_stands_when_whoever_confirmed_it_has_gone() {
    let mut t = asked_with(3, |service| service.original = Original::Fastest);
    t.machine(1, says(1, 5, FIN, b"42\n"));
    t.machine(2, says(1, 5, FIN, b"42\n"));
    assert!(ended(&t.client_heard()), "and it does not arrive");
    t.machine(0, says(1, 5, FIN, b"42"));
    t.client(ack(5, 4));
    down(&mut t, 1);
    t.hush();
    t.wait(MS);
    t.machine(2, says(4, 5, FIN, b""));
    assert!(ended(&t.client_heard()), "the lead says it again");
    // Nor does the flow hang on the original, which has nothing more to say.
    t.client(says(5, 4, FIN, b""));
    t.machine(0, ack(4, 6));
    down(&mut t, 0);
    t.hush();
    t.machine(2, says(4, 6, FIN, b""));
    assert!(ended(&t.client_heard()), "the new original says it again");
    t.client(ack(6, 5));
    t.machine(2, ack(5, 6));
    t.wait(12 * spec::SECOND);
    assert_eq!(t.engine.status().services[0].flows, 0);
}
