//! Somebody who has overheard everything, and so forges packets that are placed exactly; but he stands in the wrong place.
//!
//! Neither the interface nor the name of another machine, nor the PSC's own name, opens a way into a connection: the engine takes a
//! machine's word only on that machine's interface (R22), and nobody but the engine speaks in a PSC's name.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use relevo::host::clock;
use relevo::wire::{Flags, Parsed};

use super::{Books, assert_legs_untouched, assert_unmoved, report, watch_legs};
use crate::lab::cluster::{Cluster, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, freeze};
use crate::lab::peers::Client;
use crate::lab::raw::{Ear, Forger, Gauge, segment};
use crate::lab::{Family, Host, counters, wait_for};
use crate::turn;

/// Rounds of the dialogue that is to be disturbed, each with a volley of forgeries.
const ROUNDS: u64 = 10;

/// Where one direction of a connection stands, as heard at its receiver.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The next number that its sender will use.
    next: u32,
    /// What it has acknowledged: the next number of the other side.
    ack: u32,
}

/// Hears what comes to a host from one sender to one receiver.
struct Spy {
    ear: Ear,
    from: SocketAddr,
    to: SocketAddr,
    last: Option<Place>,
}

impl Spy {
    fn at(host: &Host, from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            ear: Ear::on(host),
            from,
            to,
            last: None,
        }
    }

    /// The place as of the last packet, once nothing more comes.
    fn place(&mut self) -> Place {
        let mut buffer = vec![0; 1 << 17];
        while let Some(packet) = self.ear.hear(&mut buffer) {
            if let Ok(p) = Parsed::parse(packet)
                && (p.src, p.dst) == (self.from, self.to)
            {
                self.last = Some(Place {
                    next: p.seq.0.wrapping_add(p.seq_len()),
                    ack: p.ack.0,
                });
            }
        }
        self.last.expect("the connection was heard")
    }
}

/// What would end or feed a connection if it came from `src`, whose next number is `place.next`, and `dst` believed it.
fn volley(src: SocketAddr, dst: SocketAddr, place: Place) -> Vec<Vec<u8>> {
    let say = |flags, data: &[u8]| segment(src, dst, (place.next, place.ack), flags, data);
    vec![
        say(Flags::ACK | Flags::PSH, b"forged!\n"),
        say(Flags::ACK | Flags::FIN, b""),
        say(Flags::RST | Flags::ACK, b""),
        say(Flags::RST, b""),
    ]
}

/// The other direction's place.
fn turned(place: Place) -> Place {
    Place {
        next: place.ack,
        ack: place.next,
    }
}

/// A dialogue; in each round `attack` gets what was overheard: the client's words as the original gets them, and the original's as the
/// client gets them.
fn disturbed(
    cluster: &Cluster,
    family: Family,
    peer_is_client: bool,
    mut attack: impl FnMut(&Ends, Place, Place) + Send,
) {
    let lab = &cluster.lab;
    let (client, original) = (lab.client(), lab.machine(0));
    client.enter(|| {
        let mut connection = Client::connect(lab.psc(family, PORT), PATIENCE).expect("connect");
        let port = connection.local_port();
        let (client_addr, psc) = (client.addr(family, port), lab.psc(family, PORT));
        let peer = if peer_is_client {
            client_addr
        } else {
            lab.psc(family, port)
        };
        let mut at_original = Spy::at(original, peer, original.addr(family, PORT));
        let mut at_client = Spy::at(client, psc, client_addr);
        let ends = Ends {
            client: client_addr,
            psc,
            peer,
        };
        connection
            .talk(1, ROUNDS, |round| {
                if round < ROUNDS {
                    attack(&ends, at_original.place(), at_client.place());
                }
            })
            .expect("the dialogue goes on");
    });
    cluster.assert_identical(&[0, 1, 2], &[format!("TALK 1 {ROUNDS}")]);
    cluster.assert_no_resets();
}

/// The addresses of a connection.
struct Ends {
    client: SocketAddr,
    psc: SocketAddr,
    /// What the machines see.
    peer: SocketAddr,
}

fn cluster() -> Cluster {
    let cluster = Cluster::with_clients(2, 3);
    watch_legs(&cluster);
    cluster
}

fn settle(cluster: &Cluster, engine: &Engine) {
    Gauge::of(cluster.lab.engine()).wait_for_quiet();
    assert_unmoved(engine, 3);
    assert_legs_untouched(cluster, 1);
}

#[test]
fn a_machines_word_counts_on_its_own_interface_only() {
    for family in [Family::V4, Family::V6] {
        let _turn = turn();
        let cluster = cluster();
        let engine = cluster.engine(family, &[]);
        let lab = &cluster.lab;
        let before = Books::of(&engine);
        let (stranger, replica) = (Forger::on(&lab.clients()[1]), Forger::on(lab.machine(1)));
        let mut forged = 0;
        disturbed(&cluster, family, false, |ends, to_original, _| {
            // The original's next words, from a stranger's network and from a replica's.
            let words = volley(lab.machine(0).addr(family, PORT), ends.peer, turned(to_original));
            // And a replica's reset, which would free its leg: the RST of a closed port, right in everything but where it comes from.
            stranger.send(&words);
            replica.send(&words);
            forged += 2 * words.len() as u64;
        });
        settle(&cluster, &engine);
        let dropped = Books::of(&engine).grown(&before, "wrong_interface");
        assert_eq!(dropped, forged, "every one was seen for what it was");
        report(&format!(
            "spoof, {family:?}: {forged} exactly placed words of the original on wrong interfaces: all dropped"
        ));
    }
}

#[test]
fn nobody_keeps_a_dead_machine_alive_by_answering_echoes_in_its_name() {
    let _turn = turn();
    let cluster = cluster();
    let engine = cluster.engine(Family::V4, &[]);
    let ip = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("the lab's first family"),
    };
    let (dead, us) = (
        ip(cluster.lab.machine(0).ip(Family::V4)),
        ip(cluster.lab.psc(Family::V4, PORT).ip()),
    );
    // What every machine has seen of its own echoes: the identifier, and how the time is written down. Whether the rest is a
    // seal, the forger can only guess.
    let identifier = engine.pid().as_raw_nonzero().get().cast_unsigned() as u16;
    let forged = |n: u16| {
        let mut payload = clock::now().to_ne_bytes().to_vec();
        payload.extend([0; 8]);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(dead, us, 64)
            .icmpv4_echo_reply(identifier, n)
            .write(&mut packet, &payload)
            .expect("a packet in memory");
        packet
    };
    let forger = Forger::on(&cluster.lab.clients()[1]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                forger.send(&[forged(n)]);
                // The pace of the flood, not a wait for anything.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        freeze(cluster.lab.machine(0), Freeze::Mute);
        let deadline = Instant::now() + PATIENCE;
        let mut found = false;
        while !found && Instant::now() < deadline {
            found = engine.machine_state(0) == "down";
        }
        over.store(true, Ordering::Relaxed);
        assert!(found, "m0 is dead, and {}", engine.machine_state(0));
    });
}

#[test]
fn a_replica_that_plays_the_client_needs_its_numbers() {
    let _turn = turn();
    let (cluster, family) = (cluster(), Family::V4);
    let engine = cluster.engine(family, &[]);
    let replica = Forger::on(cluster.lab.machine(1));
    let before = Books::of(&engine);
    let mut volleys = 0;
    disturbed(&cluster, family, false, |ends, _, to_client| {
        // It knows the client's numbers, for they are the same on every leg, and its own, but not those that the client knows the
        // original by; and a RST that is a byte off ends nothing.
        let real = turned(to_client);
        let wrong = Place {
            next: real.next.wrapping_add(1),
            ack: real.ack.wrapping_sub(0x3000_0000),
        };
        replica.send(&volley(ends.client, ends.psc, wrong));
        volleys += 1;
    });
    settle(&cluster, &engine);
    let books = Books::of(&engine);
    assert_eq!(books.grown(&before, "misplaced_reset"), 2 * volleys);
    assert!(books.grown(&before, "implausible") >= 2 * volleys);
}

#[test]
fn nobody_but_the_engine_speaks_in_the_pscs_name() {
    for family in [Family::V4, Family::V6] {
        let _turn = turn();
        let cluster = cluster();
        let engine = cluster.engine(family, &[]);
        let lab = &cluster.lab;
        let (stranger, replica) = (Forger::on(&lab.clients()[1]), Forger::on(lab.machine(1)));
        disturbed(&cluster, family, false, |ends, to_original, to_client| {
            // To the client as the service, and to the original as its peer; each is what the other side would say next.
            let as_service = volley(ends.psc, ends.client, to_client);
            let as_peer = volley(ends.peer, lab.machine(0).addr(family, PORT), to_original);
            for forger in [&stranger, &replica] {
                forger.send(&as_service);
                forger.send(&as_peer);
            }
        });
        settle(&cluster, &engine);
    }
}

/// What the rules of the client's host see of a machine's own TCP.
fn watch_replica(cluster: &Cluster, family: Family) {
    let lab = &cluster.lab;
    let own = match family {
        Family::V4 => format!("ip saddr {}", lab.machine(1).ip(family)),
        Family::V6 => format!("ip6 saddr {} meta l4proto tcp", lab.machine(1).ip(family)),
    };
    counters::watch(lab.client(), "from_replica", &own);
}

#[test]
fn a_replica_that_answers_the_client_directly_is_stopped() {
    for family in [Family::V4, Family::V6] {
        let _turn = turn();
        let cluster = cluster();
        let engine = cluster.engine(family, &[]);
        let lab = &cluster.lab;
        let replica = Forger::on(lab.machine(1));
        watch_replica(&cluster, family);
        let mut forged = 0;
        disturbed(&cluster, family, false, |ends, _, to_client| {
            let words = volley(lab.machine(1).addr(family, PORT), ends.client, to_client);
            replica.send(&words);
            forged += words.len() as u64;
        });
        wait_for("the rules to have seen them all", PATIENCE, || {
            (counters::of_rules(lab.engine(), "direct") >= forged).then_some(())
        });
        settle(&cluster, &engine);
        assert_eq!(counters::of_rules(lab.engine(), "direct"), forged);
        assert_eq!(
            counters::seen(lab.client(), "from_replica"),
            0,
            "a replica's own packets at the client"
        );
    }
}

#[test]
fn where_machines_may_be_used_directly_a_replicas_own_answer_means_no_connection_of_the_clients() {
    // `direct = "allow"`: these packets are let through. They are none of the client's connection with the service, and the client's
    // stack refuses them.
    let _turn = turn();
    let (cluster, family) = (cluster(), Family::V4);
    let engine = cluster.engine(family, &["direct = \"allow\""]);
    let lab = &cluster.lab;
    let replica = Forger::on(lab.machine(1));
    disturbed(&cluster, family, false, |ends, _, to_client| {
        replica.send(&volley(lab.machine(1).addr(family, PORT), ends.client, to_client)[..2]);
    });
    assert_unmoved(&engine, 3);
    let refused = 2 * (ROUNDS - 1);
    wait_for("the client's own resets", PATIENCE, || {
        (counters::seen(lab.machine(1), "leg_resets") >= refused).then_some(())
    });
    assert_eq!(
        counters::seen(lab.machine(1), "leg_resets"),
        refused,
        "the client's own, for no leg"
    );
}

#[test]
fn a_replica_that_answers_the_client_itself_is_stopped_at_the_engine() {
    for family in [Family::V4, Family::V6] {
        let _turn = turn();
        let cluster = cluster();
        let engine = cluster.engine(family, &["source = \"client\""]);
        let lab = &cluster.lab;
        let (stranger, replica) = (Forger::on(&lab.clients()[1]), Forger::on(lab.machine(1)));
        watch_replica(&cluster, family);
        disturbed(&cluster, family, true, |ends, to_original, to_client| {
            // In its own name, where it has a leg and the client a port; and in the service's.
            let own = volley(lab.machine(1).addr(family, PORT), ends.client, to_client);
            replica.send(&own[..2]);
            let as_service = volley(ends.psc, ends.client, to_client);
            // Straight to the original as the client: past the engine, if it were let.
            let as_client = volley(ends.client, lab.machine(0).addr(family, PORT), to_original);
            for forger in [&stranger, &replica] {
                forger.send(&as_service);
                forger.send(&as_client);
            }
        });
        settle(&cluster, &engine);
        assert_eq!(
            counters::seen(lab.client(), "from_replica"),
            0,
            "a replica's own packets at the client"
        );
    }
}
