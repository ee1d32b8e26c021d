//! R14: what a probe says, and whose answers are believed.

use super::*;
use crate::engine::ports::PROBE_PORT;

fn us() -> SocketAddr {
    SocketAddr::new(psc().ip(), PROBE_PORT)
}

/// What a probe to the original consists of.
fn probe(engine: &mut Engine, at: Micros, last: Option<Micros>) -> Vec<Parsed> {
    let mut out = Outbox::new();
    let machine = machine_ref(0);
    engine.probe(Probe { machine, at, last }, &mut out);
    // No peer reaches this: it is the engine's own probe. If it does not parse, the test is to fail.
    let parsed = out.iter().map(|p| Parsed::parse(p.bytes).unwrap());
    parsed
        .inspect(|p| assert_eq!((p.src, p.dst), (us(), machine_addr())))
        .collect()
}

fn machine_addr() -> SocketAddr {
    super::machine(0)
}

/// The machine answers a SYN; the verdict, and how old the engine takes the answer for.
fn answer(engine: &mut Engine, now: Micros, behind: Micros, syn: Seq, flags: Flags) -> (Verdict, Option<Micros>) {
    let say = Say {
        ack: Some(0),
        flags,
        ..Say::default()
    };
    let mut bytes = packet((machine_addr(), us()), (Seq(77), syn.add(1)), say, Options::default());
    let meta = Meta {
        behind,
        ..Meta::default()
    };
    (engine.handle_packet(now, meta, &mut bytes), engine.probe_age())
}

/// Linux 6 challenges any other RST, and resets a SYN that meets a half-open connection: three such answers would be a service that is gone.
#[test]
fn a_probe_ends_what_the_one_before_has_left_with_the_very_number_that_is_expected() {
    let mut engine = Engine::new(spec(2));
    let first = probe(&mut engine, 1_000 * MS, None);
    assert_eq!(first.iter().map(|p| p.flags).collect::<Vec<_>>(), [Flags::SYN]);
    let second = probe(&mut engine, 1_002 * MS, Some(1_000 * MS));
    assert_eq!(
        second.iter().map(|p| p.flags).collect::<Vec<_>>(),
        [Flags::RST, Flags::SYN]
    );
    assert_eq!(second[0].seq, first[0].seq.add(1), "RFC 5961 section 3.2");
    assert_ne!(second[1].seq, first[0].seq);
}

#[test]
fn an_answer_is_as_old_as_its_probe_by_the_one_clock_of_all_shards() {
    let mut engine = Engine::new(spec(2));
    let syn = probe(&mut engine, 1_000 * MS, None)[0].seq;
    // This shard has slept for 60 ms, and its own time has stood still meanwhile.
    let (verdict, age) = answer(&mut engine, 945 * MS, 60 * MS, syn, Flags::SYN);
    assert_eq!(verdict, Verdict::Drop(DropReason::ProbeReply));
    assert!(age.is_some_and(|age| age.abs_diff(5 * MS) <= 64), "{age:?}");
    let (verdict, age) = answer(&mut engine, 946 * MS, 60 * MS, syn, Flags::RST);
    assert_eq!(verdict, Verdict::Drop(DropReason::ProbeRefused));
    assert!(age.is_some_and(|age| age.abs_diff(6 * MS) <= 64), "{age:?}");
    // R22: nobody has asked for this.
    let (verdict, age) = answer(&mut engine, 947 * MS, 60 * MS, syn.add(1_000), Flags::RST);
    assert_eq!((verdict, age), (Verdict::Drop(DropReason::MisplacedReset), None));
}
