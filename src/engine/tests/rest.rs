//! R18: connections at rest are parked; what is asked of all machines' connections at once (R12) does not wake them all.

use super::*;

/// Whether the one flow is parked.
fn rests(t: &Talk) -> bool {
    t.engine.flows.awake(0).is_none()
}

/// Three machines; the third was down when the flow was opened, and has no leg in it.
fn without_the_third() -> Talk {
    let mut t = Talk::with(spec(3), true);
    down(&mut t, 2);
    t.shake_hands(2);
    let machine = machine_ref(2);
    t.engine.command(t.now, Command::Up { machine });
    t.wait(5 * SECOND);
    assert!(rests(&t));
    t
}

/// Many clients' flows, opened by all machines, parked. Clients have the addresses of [`client_of`].
fn many(machines: usize, flows: u16) -> (Engine, Micros) {
    let mut engine = Engine::new(spec(machines));
    let mut out = Outbox::new();
    let agreed = Options {
        mss: Some(1460),
        ..Options::default()
    };
    let says = |flags, at, ack| Say {
        at,
        ack,
        flags,
        ..Say::default()
    };
    for n in 0..flows {
        let (client, peer) = (client_of(n), peer_of(n));
        let mut hear = |src, dst, isn, say, options| {
            let mut bytes = packet((src, dst), isn, say, options);
            engine.handle_packet(0, Meta::default(), &mut bytes);
            engine.poll(0, &mut out);
        };
        hear(client, psc(), (CLIENT_ISN, ISN[0]), says(Flags::SYN, 0, None), agreed);
        for (i, isn) in ISN.iter().enumerate().take(machines) {
            hear(
                machine(i),
                peer,
                (*isn, CLIENT_ISN),
                says(Flags::SYN, 0, Some(1)),
                agreed,
            );
            if i == 0 {
                hear(client, psc(), (CLIENT_ISN, ISN[0]), ack(1, 1), Options::default());
            }
        }
    }
    let now = 5 * SECOND;
    engine.poll(now, &mut out);
    let (opened, up) = (usize::from(flows), engine.flows.len());
    assert_eq!((up, count_awake(&engine)), (opened, 0));
    (engine, now)
}

fn client_of(n: u16) -> SocketAddr {
    SocketAddr::new(client().ip(), 20_000 + n)
}
fn peer_of(n: u16) -> SocketAddr {
    SocketAddr::new(psc().ip(), 20_000 + n)
}
fn count_awake(engine: &Engine) -> usize {
    (0..engine.flows.capacity())
        .filter(|key| engine.flows.awake(*key).is_some())
        .count()
}
fn order_down(engine: &mut Engine, now: Micros, machine: u16) -> Outcome {
    engine.command(
        now,
        Command::Down {
            machine: machine_ref(machine),
        },
    )
}
fn legs(engine: &Engine) -> Vec<(usize, usize)> {
    let machines = &engine.status().services[0].machines;
    machines.iter().map(|m| (m.original_of, m.replica_of)).collect()
}

#[test]
fn a_machine_that_has_no_leg_wakes_nobody_for_good() {
    let mut t = without_the_third();
    assert_eq!(t.machine(2, ack(1, 1)), Verdict::Drop(DropReason::UnknownFlow));
    t.wait(SECOND);
    assert!(rests(&t));
}

#[test]
fn a_plan_that_comes_to_nothing_wakes_nobody_for_good() {
    let mut t = without_the_third();
    let to = machine_ref(2);
    let stuck = Outcome {
        applied: true,
        stuck: 1,
        ..Outcome::default()
    };
    assert_eq!(t.engine.command(t.now, Command::HandOver { to }), stuck);
    t.wait(SECOND);
    assert!(!rests(&t), "it has a plan");
    assert_eq!(t.engine.command(t.now, Command::EndHandOver { to }), stuck);
    t.wait(SECOND);
    assert!(rests(&t));
    // Once more, at rest: counted, and not woken.
    assert_eq!(t.engine.command(t.now, Command::EndHandOver { to }), stuck);
    assert!(rests(&t));
}

#[test]
fn a_fall_is_counted_at_once_and_told_bit_by_bit() {
    let (mut engine, now) = many(3, 100);
    let mut out = Outbox::new();
    let outcome = Outcome {
        applied: true,
        switched: 100,
        legs_freed: 100,
        ..Outcome::default()
    };
    assert_eq!(order_down(&mut engine, now, 0), outcome);
    assert_eq!((count_awake(&engine), engine.is_behind()), (0, true));
    let mut parts = 0;
    while engine.is_behind() {
        engine.poll_part(now, &mut out, 8);
        parts += 1;
        assert!(count_awake(&engine) <= 8, "part {parts}");
        // What is owed to the new original: an acknowledgement that says where the client stands.
        assert!(out.iter().all(|packet| packet.dst == machine(1).ip()));
        out.clear();
    }
    assert!((12..=14).contains(&parts), "{parts}");
    assert_eq!(legs(&engine), [(0, 0), (100, 0), (0, 100)]);
    assert_eq!(engine.stats().get(Counter::Takeovers), 100);
}

#[test]
fn who_speaks_after_a_fall_is_told_of_it_first() {
    let (mut engine, now) = many(3, 3);
    order_down(&mut engine, now, 0);
    let mut says = |src, dst, isn, say| {
        let mut bytes = packet((src, dst), isn, say, Options::default());
        let verdict = engine.handle_packet(now, Meta::default(), &mut bytes);
        (verdict, Parsed::parse(&bytes).unwrap().dst)
    };
    // The client's words go to the heir, in the heir's numbering.
    let (verdict, to) = says(client_of(0), psc(), (CLIENT_ISN, ISN[0]), words(1, 1, b"GET\n"));
    assert!(matches!(verdict, Verdict::Accept { .. }), "{verdict:?}");
    assert_eq!(to, machine(1));
    // The fallen one is not heard, the heir is.
    let (verdict, _) = says(machine(0), peer_of(1), (ISN[0], CLIENT_ISN), words(1, 1, b"old"));
    assert_eq!(verdict, Verdict::Drop(DropReason::Fenced));
    let (verdict, to) = says(machine(1), peer_of(2), (ISN[1], CLIENT_ISN), words(1, 1, b"new"));
    assert!(matches!(verdict, Verdict::Accept { .. }), "{verdict:?}");
    assert_eq!(to, client_of(2));
    let mut out = Outbox::new();
    engine.poll(now, &mut out);
    assert_eq!(legs(&engine), [(0, 0), (3, 0), (0, 3)]);
}

#[test]
fn a_second_fall_waits_for_the_first() {
    let (mut engine, now) = many(3, 100);
    let mut out = Outbox::new();
    order_down(&mut engine, now, 0);
    engine.poll_part(now, &mut out, 8);
    let outcome = order_down(&mut engine, now, 1);
    assert_eq!((outcome.switched, outcome.legs_freed, outcome.lost), (100, 100, 0));
    // A machine that is back has no leg in any of them.
    engine.command(
        now,
        Command::Up {
            machine: machine_ref(0),
        },
    );
    engine.poll(now, &mut out);
    assert_eq!(legs(&engine), [(0, 0), (0, 0), (100, 0)]);
}

#[test]
fn those_that_nobody_can_take_over_are_reset_at_once() {
    let mut t = without_the_third();
    down(&mut t, 1);
    t.wait(SECOND);
    assert!(rests(&t));
    let outcome = t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(0),
        },
    );
    assert_eq!((outcome.switched, outcome.lost), (0, 1));
    t.poll();
    assert!(t.client_heard().iter().any(|h| h.flags.contains(Flags::RST)));
}

#[test]
fn a_flow_in_which_a_replica_is_ahead_for_ever_sleeps() {
    for policy in [DivergePolicy::Warn, DivergePolicy::Ineligible, DivergePolicy::Off] {
        let mut spec = spec(2);
        spec.services[0].diverge = policy;
        let mut t = Talk::with(spec, true);
        t.shake_hands(2);
        t.client(words(1, 1, b"GET\n"));
        t.machine(0, words(1, 5, b"41\n"));
        // Its answer is longer than the original's, which has said all that it has to say.
        t.machine(1, words(1, 5, b"no 42\n"));
        t.client(ack(5, 4));
        t.wait(5 * SECOND);
        let next = t.engine.next_deadline();
        assert!(next.is_none_or(|at| at > t.now + 20 * SECOND), "{policy:?}: {next:?}");
        // What is asked later is watched as ever.
        while t.engine.take_event().is_some() {}
        t.client(words(5, 4, b"GET\n"));
        t.machine(1, ack(7, 9));
        t.wait(10 * MS);
        let (machine, reason) = (machine_ref(0), Reason::Silence);
        let suspicion = Event::Suspect { machine, reason };
        assert_eq!(t.engine.take_event(), Some(suspicion), "{policy:?}");
    }
}
