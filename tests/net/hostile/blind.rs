//! RFC 5961: somebody who knows both addresses and ports of a connection, but none of its numbers, sweeps RSTs, SYNs and data over the
//! whole space of sequence numbers, at a step below every window, while the connection is in use.

use std::net::SocketAddr;
use std::time::Instant;

use relevo::wire::Flags;

use super::{Books, assert_legs_untouched, assert_unmoved, long, report, watch_legs};
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::peers::Client;
use crate::lab::raw::{Forger, Gauge, segment};
use crate::lab::{Family, Host, counters};
use crate::turn;

/// The step of a sweep: less than the smallest window that a Linux stack offers (a little under 64 KiB at first, more later), so that one
/// packet of each kind lies in it.
const STEP: u32 = 1 << 15;
/// Bytes of the transfer that the sweeps accompany.
const SIZE: u64 = 32 * MIB;

/// Sweeps of several kinds of packets, one after the other, in step with somebody else's work.
struct Sweeps {
    forger: Forger,
    gauge: Gauge,
    src: SocketAddr,
    dst: SocketAddr,
    kinds: Vec<(Flags, &'static [u8])>,
    step: u32,
    sent: u64,
}

impl Sweeps {
    fn new(from: &Host, engine: &Host, (src, dst): (SocketAddr, SocketAddr), kinds: &[(Flags, &'static [u8])]) -> Self {
        Self {
            forger: Forger::on(from),
            gauge: Gauge::of(engine),
            src,
            dst,
            kinds: kinds.to_vec(),
            step: if long() { STEP / 4 } else { STEP },
            sent: 0,
        }
    }

    /// Packets of one kind.
    fn each(&self) -> u64 {
        (1 << 32) / u64::from(self.step)
    }
    fn all(&self) -> u64 {
        self.each() * self.kinds.len() as u64
    }

    /// Goes on until the same share is done as of somebody's work.
    fn keep_up_with(&mut self, done: u64, of: u64) {
        let (each, until) = (self.each(), self.all() * done / of);
        let packets: Vec<Vec<u8>> = (self.sent..until)
            .map(|i| {
                let (flags, data) = self.kinds[usize::try_from(i / each).expect("few kinds")];
                let place = u32::try_from(i % each).expect("32 bits").wrapping_mul(self.step);
                // An attacker knows no acknowledgement either; those of one sweep are spread, too.
                let ack = place.wrapping_mul(0x9e37_79b1);
                segment(self.src, self.dst, (place ^ 0x5a5a, ack), flags, data)
            })
            .collect();
        self.forger.send_gently(&packets, &mut self.gauge);
        self.sent = until.max(self.sent);
    }

    /// All that was forged has its verdict, and none of it was lost on the way to the engine.
    fn settle(&mut self) {
        assert_eq!(self.sent, self.all());
        self.gauge.wait_for_quiet();
        assert_eq!(self.gauge.lost(), 0, "packets lost in the queues: the sweep has holes");
    }
}

/// A client's port before it has sent anything else.
fn connected(cluster: &Cluster, family: Family) -> Client {
    Client::connect(cluster.lab.psc(family, PORT), PATIENCE).expect("connect")
}

#[test]
fn sweeps_in_the_clients_name_end_no_connection_and_reach_no_leg() {
    for family in [Family::V4, Family::V6] {
        in_the_clients_name(family);
        if !long() {
            break;
        }
    }
}

fn in_the_clients_name(family: Family) {
    let _turn = turn();
    let cluster = Cluster::with_clients(2, 3);
    let engine = cluster.engine(family, &[]);
    let lab = &cluster.lab;
    watch_legs(&cluster);
    let (client, attacker) = (lab.client(), &lab.clients()[1]);
    let kinds: [(Flags, &[u8]); 3] = [
        (Flags::RST, b""),
        (Flags::SYN, b""),
        (Flags::ACK | Flags::PSH, b"forged!\n"),
    ];
    let before = Books::of(&engine);
    let started = Instant::now();
    let mut forged = 0;
    client.enter(|| {
        let mut connection = connected(&cluster, family);
        let ends = (client.addr(family, connection.local_port()), lab.psc(family, PORT));
        let mut sweeps = Sweeps::new(attacker, lab.engine(), ends, &kinds);
        connection
            .upload(1, SIZE, |done| sweeps.keep_up_with(done, SIZE))
            .expect("the upload goes on");
        sweeps.settle();
        forged = sweeps.each();
    });
    let books = Books::of(&engine);
    assert_eq!(books.grown(&before, "misplaced_reset"), forged, "every RST was refused");
    let flooded = counters::of_rules(lab.engine(), "flooded");
    assert_eq!(
        books.grown(&before, "syns_challenged") + flooded,
        forged,
        "every SYN was challenged, or one too many"
    );
    assert!(books.grown(&before, "implausible") >= forged, "and every byte");
    report(&format!(
        "blind, client's side, {family:?}: {forged} RSTs, SYNs, data segments each in {:.1} s beside an upload of {} MiB: no harm",
        started.elapsed().as_secs_f64(),
        SIZE / MIB
    ));

    // A connection at rest: whoever is answered for a forged packet is the client, and at a limited rate (RFC 5961 section 7).
    client.enter(|| {
        let mut connection = connected(&cluster, family);
        let ends = (client.addr(family, connection.local_port()), lab.psc(family, PORT));
        connection
            .talk(2, 20, |round| {
                if round == 10 {
                    let mut sweeps = Sweeps::new(attacker, lab.engine(), ends, &kinds);
                    let (heard, start) = (counters::snmp(client, "Tcp", "InSegs"), Instant::now());
                    sweeps.keep_up_with(1, 1);
                    sweeps.settle();
                    let heard = counters::snmp(client, "Tcp", "InSegs") - heard;
                    // One in 50 ms from the engine, one in 500 ms from the original for the SYNs (Linux: tcp_invalid_ratelimit); a few more
                    // for what was still under way.
                    let limit = u64::try_from(start.elapsed().as_millis()).expect("short") / 45 + 10;
                    assert!(
                        heard <= limit,
                        "{heard} answers for {} forged packets, {limit} allowed",
                        sweeps.sent
                    );
                    report(&format!(
                        "blind, at rest, {family:?}: {heard} answers for {} forged packets",
                        sweeps.sent
                    ));
                }
            })
            .expect("the dialogue goes on");
    });
    cluster.assert_identical(&[0, 1, 2], &["PUT 1".to_owned(), "TALK 2 20".to_owned()]);
    cluster.assert_no_resets();
    assert_unmoved(&engine, 3);
    assert_legs_untouched(&cluster, 2);
}

#[test]
fn sweeps_in_the_originals_name_end_no_connection_and_reach_no_client() {
    for family in [Family::V4, Family::V6] {
        in_the_originals_name(family);
        if !long() {
            break;
        }
    }
}

fn in_the_originals_name(family: Family) {
    let _turn = turn();
    let cluster = Cluster::with_clients(2, 3);
    let engine = cluster.engine(family, &[]);
    let lab = &cluster.lab;
    watch_legs(&cluster);
    let (client, original) = (lab.client(), lab.machine(0));
    let kinds: [(Flags, &[u8]); 4] = [
        (Flags::RST, b""),
        (Flags::RST | Flags::ACK, b""),
        (Flags::SYN | Flags::ACK, b""),
        (Flags::ACK | Flags::PSH, b"forged!\n"),
    ];
    // From the original's own network: the interface is the right one, only the numbers are not.
    let before = Books::of(&engine);
    let started = Instant::now();
    let mut forged = 0;
    let mut peer = lab.psc(family, 0);
    client.enter(|| {
        let mut connection = connected(&cluster, family);
        peer.set_port(connection.local_port());
        let mut sweeps = Sweeps::new(original, lab.engine(), (original.addr(family, PORT), peer), &kinds);
        connection
            .download(3, SIZE, |done| sweeps.keep_up_with(done, SIZE))
            .expect("the download goes on");
        sweeps.settle();
        forged = sweeps.each();
    });
    let books = Books::of(&engine);
    assert!(
        books.grown(&before, "misplaced_reset") >= 2 * forged,
        "every RST was refused"
    );
    assert!(
        books.grown(&before, "implausible") >= 2 * forged,
        "and every SYN, and every byte"
    );
    report(&format!(
        "blind, original's side, {family:?}: {forged} RSTs, RSTs with ACK, SYN/ACKs, data segments each in {:.1} s beside a download of {} MiB: no harm",
        started.elapsed().as_secs_f64(),
        SIZE / MIB
    ));
    cluster.assert_identical(&[0, 1, 2], &[format!("GET 3 {SIZE}")]);
    cluster.assert_no_resets();
    assert_unmoved(&engine, 3);
    assert_legs_untouched(&cluster, 1);
}
