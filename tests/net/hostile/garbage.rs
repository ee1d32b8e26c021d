//! What is no TCP of anybody's: noise, cut and lying headers, odd options, fragments. Each kind is dropped for its own reason, all of it is
//! accounted for, and a dialogue that has begun before goes on after each.

use std::net::{IpAddr, SocketAddr};

use relevo::wire::{Flags, Parsed, tcp_checksum_ok};

use super::{Books, assert_unmoved, long, report};
use crate::lab::cluster::{Cluster, PATIENCE, PORT};
use crate::lab::pattern::{Pattern, Random};
use crate::lab::peers::Client;
use crate::lab::raw::{Forger, Gauge, segment};
use crate::lab::{Family, counters, wait_for};
use crate::turn;

const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// From whom to whom.
#[derive(Clone, Copy)]
struct Ends {
    src: SocketAddr,
    dst: SocketAddr,
}

/// A kind of garbage: what makes one packet, and the reasons for which such packets are dropped.
struct Kind {
    name: &'static str,
    reasons: &'static [&'static str],
    make: fn(&mut Random, Ends) -> Vec<u8>,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "noise behind right ports",
        reasons: &["malformed", "checksum"],
        make: |random, ends| {
            let mut tcp = noise(random, 4, 200);
            tcp[..2].copy_from_slice(&ends.src.port().to_be_bytes());
            tcp[2..4].copy_from_slice(&ends.dst.port().to_be_bytes());
            let mut bytes = packet(ends, &[], TCP, &tcp);
            // By chance one in 65,536 has the right checksum, and would then be dropped for any reason that there is.
            if Parsed::parse(&bytes).is_ok_and(|p| tcp_checksum_ok(&bytes, &p)) {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
            bytes
        },
    },
    Kind {
        name: "headers cut short",
        reasons: &["malformed"],
        make: |random, ends| packet(ends, &[], TCP, &tcp(ends, Flags::ACK, b"")[..below(random, 4, 20)]),
    },
    Kind {
        name: "data offsets below or beyond the packet",
        reasons: &["malformed"],
        make: |random, ends| {
            let mut tcp = tcp(ends, Flags::ACK, b"");
            let words = [0, 1, 2, 3, 4, 6, 10, 15][below(random, 0, 8)];
            tcp[12] = words << 4;
            packet(ends, &[], TCP, &tcp)
        },
    },
    Kind {
        name: "options of impossible length",
        reasons: &["malformed"],
        make: |random, ends| {
            let mut tcp = tcp(ends, Flags::ACK, b"");
            // Shorter than their own head, longer than the list, and known ones of another length than theirs.
            let (kind, len) =
                [(2, 0), (8, 1), (254, 0), (30, 200), (8, 11), (2, 3), (3, 9), (5, 7)][below(random, 0, 8)];
            tcp[12] = 8 << 4;
            tcp.extend([kind, len, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
            packet(ends, &[], TCP, &tcp)
        },
    },
    Kind {
        name: "wrong checksums",
        reasons: &["checksum"],
        make: |random, ends| {
            let mut tcp = tcp(ends, Flags::SYN, b"");
            tcp[below(random, 4, 12)] ^= 1 << below(random, 0, 8);
            packet(ends, &[], TCP, &tcp)
        },
    },
    Kind {
        name: "flags that no segment has",
        reasons: &["implausible"],
        make: |random, ends| {
            let with = [Flags::FIN, Flags::RST, Flags::ACK, Flags::FIN | Flags::RST | Flags::URG][below(random, 0, 4)];
            packet(ends, &[], TCP, &tcp(ends, Flags::SYN | with, b""))
        },
    },
    Kind {
        name: "segments of no connection, with no flags or all but SYN",
        reasons: &["unknown_flow"],
        make: |random, ends| {
            let flags = [Flags::default(), Flags(0xfd), Flags::FIN, Flags::RST][below(random, 0, 4)];
            packet(ends, &[], TCP, &tcp(ends, flags, b"data"))
        },
    },
];

/// Whole packets in unusual wrappings: they belong to no connection, and are read as far as that.
const V4: &[Kind] = &[Kind {
    name: "IPv4 options",
    reasons: &["unknown_flow"],
    make: |random, ends| {
        // No-operations, and a record of the route with room for some addresses (RFC 791).
        let room = below(random, 0, 9);
        let mut options = vec![1; 40 - (3 + 4 * room + 1)];
        options.extend([7, u8::try_from(3 + 4 * room).expect("small"), 4]);
        options.resize(39, 0);
        options.push(0);
        packet(ends, &options, TCP, &tcp(ends, Flags::ACK, b""))
    },
}];

const V6: &[Kind] = &[
    Kind {
        name: "IPv6 extension headers",
        reasons: &["unknown_flow"],
        make: |random, ends| {
            let mut chain = vec![];
            if below(random, 0, 2) == 0 {
                chain.push(HOP_BY_HOP);
            }
            chain.extend(
                [DESTINATION, ROUTING, DESTINATION]
                    .into_iter()
                    .take(below(random, 1, 4)),
            );
            extended(ends, &chain)
        },
    },
    Kind {
        name: "more IPv6 extension headers than anybody needs",
        reasons: &["malformed"],
        make: |random, ends| extended(ends, &vec![DESTINATION; below(random, 9, 40)]),
    },
];

fn below(random: &mut Random, low: u64, high: u64) -> usize {
    usize::try_from(random.between(low, high)).expect("small")
}

fn noise(random: &mut Random, low: u64, high: u64) -> Vec<u8> {
    let mut bytes = vec![0; below(random, low, high)];
    Pattern::new(random.between(0, u64::MAX)).fill(&mut bytes);
    bytes
}

/// A whole segment without its IP header; its checksum is right.
fn tcp(ends: Ends, flags: Flags, data: &[u8]) -> Vec<u8> {
    let header = if ends.src.is_ipv4() { 20 } else { 40 };
    segment(ends.src, ends.dst, (1, 1), flags, data).split_off(header)
}

/// Anything in an IP header. `extra` are IPv4 options, or IPv6 extension headers of which the first is a `next`.
fn packet(ends: Ends, extra: &[u8], next: u8, tcp: &[u8]) -> Vec<u8> {
    let len = |n: usize| u16::try_from(n).expect("a short packet").to_be_bytes();
    let mut bytes = match (ends.src.ip(), ends.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0; 20];
            header[0] = 0x40 | u8::try_from((20 + extra.len()) / 4).expect("at most 15");
            header[2..4].copy_from_slice(&len(20 + extra.len() + tcp.len()));
            (header[8], header[9]) = (64, next);
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0; 8];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&len(extra.len() + tcp.len()));
            (header[6], header[7]) = (next, 64);
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        _ => panic!("two families in one packet"),
    };
    bytes.extend_from_slice(extra);
    bytes.extend_from_slice(tcp);
    bytes
}

/// A whole segment behind these extension headers, each of 8 bytes: of options it has padding only, of routes none is left.
fn extended(ends: Ends, chain: &[u8]) -> Vec<u8> {
    let mut extra = vec![];
    for following in chain.iter().skip(1).chain([&TCP]) {
        extra.extend([*following, 0, 1, 4, 0, 0, 0, 0]);
    }
    // A routing header's bytes 2 and 3 are its type and how many hops are left.
    for (i, _) in chain.iter().enumerate().filter(|(_, kind)| **kind == ROUTING) {
        extra[8 * i + 2..8 * i + 4].copy_from_slice(&[4, 0]);
    }
    packet(
        ends,
        &extra,
        *chain.first().unwrap_or(&TCP),
        &tcp(ends, Flags::ACK, b""),
    )
}

/// The first or a later part of something longer.
fn fragment(random: &mut Random, ends: Ends) -> Vec<u8> {
    let offset = u16::try_from(random.between(0, 3) * 64).expect("small");
    if ends.src.is_ipv4() {
        let mut bytes = packet(ends, &[], TCP, &tcp(ends, Flags::ACK, b"a part of"));
        // In units of 8 bytes, with "more fragments".
        bytes[6..8].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
        bytes[4..6].copy_from_slice(&[0x12, 0x34]);
        bytes
    } else {
        let [high, low] = (offset | 1).to_be_bytes();
        packet(
            ends,
            &[TCP, 0, high, low, 0, 0, 0x12, 0x34],
            FRAGMENT,
            &tcp(ends, Flags::ACK, b"a part of"),
        )
    }
}

#[test]
fn garbage_is_dropped_and_counted_by_reason() {
    for (family, wrapped) in [(Family::V4, V4), (Family::V6, V6)] {
        let _turn = turn();
        let cluster = Cluster::with_clients(2, 3);
        let engine = cluster.engine(family, &[]);
        let lab = &cluster.lab;
        let (client, attacker) = (lab.client(), &lab.clients()[1]);
        let (forger, mut gauge) = (Forger::on(attacker), Gauge::of(lab.engine()));
        let count = if long() { 50_000 } else { 1_000 };
        let mut random = Random::new(1);
        let mut kinds = KINDS.iter().chain(wrapped);
        let psc = lab.psc(family, PORT);
        let (mut sent_in_all, mut by_rules) = (0, 0);
        client.enter(|| {
            let mut dialogue = Client::connect(psc, PATIENCE).expect("connect");
            let real = client.addr(family, dialogue.local_port());
            dialogue
                .talk(1, 30, |_| {
                    let Some(kind) = kinds.next() else { return };
                    let before = Books::of(&engine);
                    let flooded = counters::of_rules(lab.engine(), "flooded");
                    let mut packets = Vec::new();
                    for i in 0..count {
                        // From a stranger; what can't be a segment of any connection, now and then in the real client's name.
                        let src = if i % 8 == 0 && kind.reasons != ["unknown_flow"] && kind.reasons != ["implausible"] {
                            real
                        } else {
                            attacker.addr(family, u16::try_from(random.between(2_000, 60_000)).expect("16 bits"))
                        };
                        packets.push((kind.make)(&mut random, Ends { src, dst: psc }));
                    }
                    forger.send_gently(&packets, &mut gauge);
                    gauge.wait_for_quiet();
                    let after = Books::of(&engine);
                    let dropped: u64 = kind.reasons.iter().map(|reason| after.grown(&before, reason)).sum();
                    // Whatever has a SYN flag counts for `max_syn_rate`, and beyond it never gets as far as the queue.
                    let flooded = counters::of_rules(lab.engine(), "flooded") - flooded;
                    assert_eq!(dropped + flooded, count, "{}, {family:?}", kind.name);
                    (sent_in_all, by_rules) = (sent_in_all + count, by_rules + flooded);
                })
                .expect("the dialogue goes on");
        });
        // The rules' own part.
        let fragments: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                fragment(
                    &mut random,
                    Ends {
                        src: attacker.addr(family, 5_000),
                        dst: psc,
                    },
                )
            })
            .collect();
        forger.send(&fragments);
        wait_for("the rules to have seen every fragment", PATIENCE, || {
            (counters::of_rules(lab.engine(), "fragments") >= count).then_some(())
        });
        assert_eq!(counters::of_rules(lab.engine(), "fragments"), count);

        gauge.wait_for_quiet();
        let status = engine.status();
        let drops = status["drops"].as_object().expect("drops").values();
        let drops: u64 = drops.filter_map(serde_json::Value::as_u64).sum();
        let counter = |name: &str| status["counters"][name].as_u64().expect("a counter");
        assert_eq!(
            counter("packets_in"),
            counter("accepted") + drops,
            "every packet has one verdict"
        );
        assert_eq!(gauge.lost(), 0);
        assert_eq!(counters::resets_seen(client), 0);
        cluster.assert_identical(&[0, 1, 2], &["TALK 1 30".to_owned()]);
        assert_unmoved(&engine, 3);
        report(&format!(
            "garbage, {family:?}: {sent_in_all} packets and {count} fragments, each kind counted for its own reason, {by_rules} of them as SYNs beyond the limit"
        ));
    }
}
