//! Golden packets: design section 4's table of translated fields, both directions, whole packets byte for byte.
//!
//! One conversation, over IPv4 and over IPv6: a client, the original `m0`, the replica `m1`; in the middle of it `m0` dies.
//! The expected bytes, checksums included, were worked out from the design's formulas by a program of its own; no line of
//! the engine had a part in them. All numbers start just below 2³², so that each field wraps on the way:
//!
//! | | client | m0 | m1 |
//! |---|---|---|---|
//! | ISN | 2³² - 30 | 2³² - 24 | 2³² - 60 |
//! | first TSval | 2³² - 3 | 2³² - 2 | 2³² - 50, 5 more each time |
//! | window scale | 2 | 3 (what the client is promised) | 7 |
//! | path MTU | | 1,500 | 1,400 |
//!
//! Compiled for tests only: an `unwrap` here is an expectation of the test, and no peer reaches it.

mod ipv4;
mod ipv6;

use super::*;
use ipv4::OVER_IPV4;
use ipv6::OVER_IPV6;

/// One packet, or an event, and all that comes of it.
struct Step {
    /// Which field it is about.
    about: &'static str,
    /// What arrives at the engine, in hex.
    says: &'static str,
    /// What becomes of it.
    verdict: Fate,
    /// What the engine says by itself in the next poll.
    then: &'static [&'static str],
}

/// What becomes of a packet.
enum Fate {
    /// It goes on as these bytes.
    Goes(&'static str),
    /// It goes no further.
    Stays(DropReason),
    /// There is no packet: `m0` is declared dead.
    Down,
}
use Fate::{Down, Goes, Stays};

/// Time between two packets: too short for any timer to expire.
const STEP: Micros = 20;

#[test]
fn every_field_over_ipv4() {
    play(OVER_IPV4, "10.0.1.100:6379", ["10.0.2.2:6379", "10.0.2.3:6379"]);
}

#[test]
fn every_field_over_ipv6() {
    play(
        OVER_IPV6,
        "[2001:db8:1::64]:6379",
        ["[2001:db8:2::2]:6379", "[2001:db8:2::3]:6379"],
    );
}

/// An address that stands in this file: no peer's word is read here.
fn address(text: &str) -> SocketAddr {
    // No peer reaches this: it is called with what is written below and beside, never with bytes of a packet.
    text.parse().expect("an address of this test")
}

fn play(steps: &[Step], psc: &str, machines: [&str; 2]) {
    let mut spec = spec(2);
    let service = &mut spec.services[0];
    service.psc = address(psc);
    for (machine, (addr, mtu)) in service
        .machines
        .iter_mut()
        .zip(machines.into_iter().zip([1_500, 1_400]))
    {
        (machine.addr, machine.path_mtu) = (address(addr), mtu);
    }
    let mut engine = Engine::new(spec);
    let mut out = Outbox::new();
    let mut wrong = String::new();
    for (number, step) in steps.iter().enumerate() {
        let now = STEP * number as Micros;
        let mut note = |what: &str, difference: String| {
            if !difference.is_empty() {
                wrong += &format!("\nstep {number}, {}\n  {what}:\n{difference}", step.about);
            }
        };
        match (&step.verdict, hear(&mut engine, now, step)) {
            (Goes(expected), Ok(packet)) => note("forwarded", compare(&hex(expected), &packet)),
            (Stays(expected), Err(reason)) if *expected == reason => {}
            (Stays(expected), got) => note("verdict", format!("    {expected:?} was expected, not {got:?}\n")),
            (Goes(_), Err(reason)) => note("verdict", format!("    dropped: {reason:?}\n")),
            (Down, _) => {}
        }
        out.clear();
        engine.poll(now, &mut out);
        let said: Vec<&[u8]> = out.iter().map(|p| p.bytes).collect();
        for i in 0..said.len().max(step.then.len()) {
            let expected = step.then.get(i).map_or(vec![], |text| hex(text));
            let got = said.get(i).copied().unwrap_or_default();
            note(&format!("originated, packet {i}"), compare(&expected, got));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Gives the engine what arrives, and the packet that goes on or the reason why none does.
fn hear(engine: &mut Engine, now: Micros, step: &Step) -> Result<Vec<u8>, DropReason> {
    if let Down = step.verdict {
        let machine = MachineRef {
            service: ServiceId(0),
            machine: MachineId(0),
        };
        assert_eq!(engine.command(now, Command::Down { machine }).switched, 1);
        return Ok(vec![]);
    }
    let mut packet = hex(step.says);
    match engine.handle_packet(now, Meta::default(), &mut packet) {
        Verdict::Accept { len } => Ok(packet[..len].to_vec()),
        Verdict::Drop(reason) => Err(reason),
    }
}

/// Bytes of pairs of hex digits; blanks and bars are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '|')
        .map(|c| {
            let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            // No peer reaches this: the digits stand in this test's own files, and a slip of the pen ends it.
            digit.unwrap_or_else(|| panic!("{c} is no hex digit"))
        })
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The fields in which two packets differ, one a line; empty if they are the same.
fn compare(expected: &[u8], got: &[u8]) -> String {
    if expected == got {
        return String::new();
    }
    if expected.is_empty() || got.is_empty() {
        let (what, packet) = if got.is_empty() {
            ("missing", expected)
        } else {
            ("not expected", got)
        };
        return format!("    {what}: {:?}\n", fields(packet));
    }
    let (expected, got) = (fields(expected), fields(got));
    let mut lines = String::new();
    for i in 0..expected.len().max(got.len()) {
        let (e, g) = (expected.get(i), got.get(i));
        if e != g {
            let name = e.or(g).map_or("", |field| field.0);
            let value = |field: Option<&(&str, String)>| field.map_or("none".into(), |f| f.1.clone());
            lines += &format!("    {name}: expected {}, got {}\n", value(e), value(g));
        }
    }
    lines
}

/// A packet's fields by name, without any help of the code under test.
fn fields(packet: &[u8]) -> Vec<(&'static str, String)> {
    let number = |at: usize, len: usize| packet[at..at + len].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let bytes = |from: usize, to: usize| {
        let digits: Vec<String> = packet[from..to].iter().map(|b| format!("{b:02x}")).collect();
        digits.join(" ")
    };
    let v6 = packet[0] >> 4 == 6;
    let layout: &[(&'static str, usize, usize)] = if v6 {
        &[
            ("version, class, flow label", 0, 4),
            ("payload length", 4, 2),
            ("next header", 6, 1),
            ("hop limit", 7, 1),
        ]
    } else {
        &[
            ("version, IHL, TOS", 0, 2),
            ("total length", 2, 2),
            ("id", 4, 2),
            ("fragment", 6, 2),
            ("TTL", 8, 1),
            ("protocol", 9, 1),
            ("IP checksum", 10, 2),
        ]
    };
    let mut all: Vec<(&'static str, String)> = layout
        .iter()
        .map(|(name, at, len)| (*name, format!("{:#x}", number(*at, *len))))
        .collect();
    let (source, destination, tcp) = if v6 { (8, 24, 40) } else { (12, 16, 20) };
    all.push(("source", bytes(source, destination)));
    all.push(("destination", bytes(destination, tcp)));
    for (name, at, len) in [
        ("source port", 0, 2),
        ("destination port", 2, 2),
        ("seq", 4, 4),
        ("ack", 8, 4),
        ("data offset", 12, 1),
        ("flags", 13, 1),
        ("window", 14, 2),
        ("TCP checksum", 16, 2),
        ("urgent pointer", 18, 2),
    ] {
        let value = number(tcp + at, len);
        all.push((name, format!("{value} ({value:#x})")));
    }
    let payload = (tcp + usize::from(packet[tcp + 12] >> 4) * 4).min(packet.len());
    let mut at = tcp + 20;
    while at < payload {
        let len = match packet[at] {
            0 => 1,
            1 => packet[at..payload].iter().take_while(|b| **b == 1).count(),
            _ => usize::from(packet[at + 1]).clamp(2, payload - at),
        };
        let name = match packet[at] {
            1 => "NOP",
            2 => "MSS",
            3 => "window scale",
            4 => "SACK permitted",
            5 => "SACK blocks",
            8 => "TSval, TSecr",
            _ => "other option",
        };
        all.push((name, bytes(at, at + len)));
        at += len;
    }
    all.push(("payload", bytes(payload, packet.len())));
    all
}
