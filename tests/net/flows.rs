//! Connections of many kinds that survive the freeze of the original.

use std::net::IpAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Freeze, freeze, freeze_fuse, thaw};
use crate::lab::peers::Client;
use crate::lab::process::Process;
use crate::lab::services::{Redis, addresses};
use crate::lab::{Family, Lab, counters, wait_for};
use crate::turn;

#[test]
fn two_hundred_connections_at_once_survive() {
    const CONNECTIONS: u64 = 200;
    const ROUNDS: u64 = 100;
    let _turn = turn();
    let cluster = Cluster::new(4);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::LinkDown);
    let rounds_done = AtomicU64::new(0);
    let all_open = Barrier::new(usize::try_from(CONNECTIONS).unwrap());
    std::thread::scope(|scope| {
        for seed in 0..CONNECTIONS {
            let (fuse, rounds_done, all_open) = (&fuse, &rounds_done, &all_open);
            cluster.lab.client().enter_in(scope, move || {
                let mut client = Client::connect(psc, PATIENCE).unwrap_or_else(|e| panic!("connection {seed}: {e}"));
                all_open.wait();
                let count = |_| {
                    if rounds_done.fetch_add(1, Ordering::Relaxed) == CONNECTIONS * ROUNDS / 2 {
                        fuse.light();
                    }
                };
                client
                    .talk(seed, ROUNDS, count)
                    .unwrap_or_else(|e| panic!("connection {seed}: {e}"));
            });
        }
    });
    fuse.done();
    let orders: Vec<String> = (0..CONNECTIONS).map(|seed| format!("TALK {seed} {ROUNDS}")).collect();
    cluster.assert_identical(&[1, 2, 3], &orders);
    assert!(engine.counter("takeovers") > 0);
    assert_eq!(engine.counter("flows_lost"), 0);
    cluster.assert_no_resets();
}

#[test]
fn ipv6_survives() {
    survives(Family::V6, Seen::Psc, |cluster| cluster.engine(Family::V6, &[]));
}

#[test]
fn machines_that_see_the_clients_address_survive() {
    for family in [Family::V4, Family::V6] {
        survives(family, Seen::Client, |cluster| {
            cluster.engine(family, &["source = \"client\""])
        });
    }
}

#[test]
fn the_queue_of_the_nfq_crate_does_the_same() {
    survives(Family::V4, Seen::Psc, |cluster| {
        Engine::start_with(&cluster.lab, "queue = \"nfq\"", &[cluster.config(Family::V4)])
    });
}

/// Whom the machines see as their peer.
#[derive(Clone, Copy)]
enum Seen {
    Psc,
    Client,
}

/// An upload, a download and a dialogue at the same time, with the freeze in the middle of them; then a new connection.
fn survives(family: Family, seen: Seen, start: impl Fn(&Cluster) -> Engine) {
    const SIZE: u64 = 16 * MIB;
    const ROUNDS: u64 = 2_000;
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = start(&cluster);
    let psc = cluster.lab.psc(family, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::Mute);
    let connect = || Client::connect(psc, PATIENCE).expect("connect");
    let all_open = Barrier::new(3);
    let open = || {
        let client = connect();
        all_open.wait();
        client
    };
    std::thread::scope(|scope| {
        let client = cluster.lab.client();
        client.enter_in(scope, || {
            let half = |done| {
                if done > SIZE / 2 {
                    fuse.light();
                }
            };
            open().upload(1, SIZE, half).expect("upload");
        });
        client.enter_in(scope, || open().download(2, SIZE, |_| ()).expect("download"));
        client.enter_in(scope, || open().talk(3, ROUNDS, |_| ()).expect("talk"));
    });
    fuse.done();
    cluster.lab.client().enter(|| {
        connect()
            .talk(4, 10, |_| ())
            .expect("a new connection after the takeover")
    });
    let orders = [
        "PUT 1".to_owned(),
        format!("GET 2 {SIZE}"),
        format!("TALK 3 {ROUNDS}"),
        "TALK 4 10".to_owned(),
    ];
    let records = cluster.assert_identical(&[1, 2], &orders);
    let seen = match seen {
        Seen::Psc => psc.ip(),
        Seen::Client => cluster.lab.client().ip(family),
    };
    for record in records {
        assert_eq!(plain(record.peer.ip()), seen, "whom the machines see as their peer");
    }
    assert!(engine.counter("takeovers") > 0);
    cluster.assert_no_resets();
}

/// The services listen on `::`, so IPv4 peers come as mapped addresses.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_canonical(),
        v4 => v4,
    }
}

#[test]
fn half_closed_connections_survive() {
    const SIZE: u64 = MIB;
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let client = cluster.lab.client();

    // Without a fault: the client's half first (PUT), the service's half first (LATE).
    client.enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .upload(1, SIZE, |_| ())
            .expect("client closes first");
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .late(2, SIZE, || ())
            .expect("service closes first");
    });
    cluster.assert_identical(&[0, 1, 2], &["PUT 1".to_owned(), format!("LATE 2 {SIZE}")]);
    assert_eq!(engine.counter("takeovers"), 0);

    // The service has closed its half, the original dies, then the client sends.
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::LinkDown);
    client.enter(|| {
        let mut connection = Client::connect(psc, PATIENCE).expect("connect");
        let freeze = || {
            fuse.light();
            fuse.done();
        };
        connection.late(3, SIZE, freeze).expect("service closes first and dies");
    });
    cluster.assert_identical(&[1, 2], &[format!("LATE 3 {SIZE}")]);
    assert!(engine.counter("takeovers") > 0);
    cluster.assert_no_resets();
}

#[test]
fn two_clients_with_the_same_port_are_kept_apart() {
    const SAME_PORT: u16 = 40_000;
    const ROUNDS: u64 = 2_000;
    let _turn = turn();
    let cluster = Cluster::with_clients(2, 3);
    let engine = cluster.engine(Family::V4, &["source = \"psc\""]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::LinkDown);
    let both_open = Barrier::new(2);
    std::thread::scope(|scope| {
        for (seed, host) in (1..).zip(cluster.lab.clients()) {
            let (fuse, both_open) = (&fuse, &both_open);
            host.enter_in(scope, move || {
                let mut client = Client::connect_from(SAME_PORT, psc, PATIENCE).expect("connect");
                both_open.wait();
                let half = |round| {
                    if round == ROUNDS / 2 {
                        fuse.light()
                    }
                };
                client
                    .talk(seed, ROUNDS, half)
                    .unwrap_or_else(|e| panic!("client {seed}: {e}"));
            });
        }
    });
    fuse.done();
    let orders: Vec<String> = (1..=2).map(|seed| format!("TALK {seed} {ROUNDS}")).collect();
    let records = cluster.assert_identical(&[1, 2], &orders);
    assert_ne!(records[0].peer.port(), records[1].peer.port(), "server-side ports");
    assert!(
        records.iter().any(|r| r.peer.port() == SAME_PORT),
        "the first client keeps its port: {records:?}"
    );
    assert!(engine.counter("takeovers") > 0);
    cluster.assert_no_resets();
}

#[test]
fn a_mended_machine_rejoins_for_new_connections() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let talk = |seed, rounds: u64, half: &(dyn Fn() + Sync)| {
        cluster.lab.client().enter(|| {
            let mut client = Client::connect(psc, PATIENCE).expect("connect");
            let at_half = |round| {
                if round == rounds / 2 {
                    half()
                }
            };
            client
                .talk(seed, rounds, at_half)
                .unwrap_or_else(|e| panic!("talk {seed}: {e}"));
        });
    };
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::Mute);
    talk(1, 1_000, &|| fuse.light());
    fuse.done();
    assert_eq!(engine.machine_state(0), "down");
    assert_eq!(engine.original(), "m1");

    thaw(cluster.lab.machine(0), Freeze::Mute);
    talk(2, 100, &|| ());
    cluster.assert_identical(&[1, 2], &["TALK 2 100".to_owned()]);
    engine.tell(&["machine", "enable", "lab", "m0"]);
    talk(3, 100, &|| ());
    cluster.assert_identical(&[0, 1, 2], &["TALK 3 100".to_owned()]);

    // And it can take over again.
    let fuse = freeze_fuse(cluster.lab.machine(1), Freeze::Mute);
    talk(4, 1_000, &|| fuse.light());
    fuse.done();
    cluster.assert_identical(&[0, 2], &["TALK 4 1000".to_owned()]);
    cluster.assert_no_resets();
}

#[test]
fn a_real_redis_under_load_survives() {
    const REQUESTS: u64 = 60_000;
    let _turn = turn();
    let lab = Lab::new(4);
    let redis: Vec<Redis> = lab
        .machines()
        .iter()
        .map(|host| Redis::start(host, lab.dir()))
        .collect();
    let service = ServiceConfig::new(
        "cache",
        lab.psc(Family::V4, Redis::PORT),
        &addresses(lab.machines(), Family::V4, Redis::PORT),
    );
    let engine = Engine::start(&lab, &[service]);
    let psc = lab.psc(Family::V4, Redis::PORT).ip().to_string();
    let mut benchmark = lab.client().command("redis-benchmark");
    benchmark.args(["-h", &psc, "-c", "50", "-n", &REQUESTS.to_string(), "-r", "5000", "-q"]);
    benchmark.args(["SET", "key:__rand_int__", "__data__"]);
    let mut benchmark = Process::start("redis-benchmark", lab.dir(), &mut benchmark);
    wait_for("a third of the load", PATIENCE, || {
        (redis[0].commands_processed() > REQUESTS / 3).then_some(())
    });
    freeze(lab.machine(0), Freeze::LinkDown);
    let status = benchmark.wait(PATIENCE * 2);
    assert!(status.success(), "redis-benchmark: {status}\n{}", benchmark.log());
    wait_for("the live machines' digests to be the same", PATIENCE, || {
        let digests: Vec<String> = redis[1..].iter().map(Redis::digest).collect();
        (digests.iter().all(|digest| *digest == digests[0])).then_some(())
    });
    assert!(engine.counter("takeovers") > 0);
    assert_eq!(counters::resets_seen(lab.client()), 0);
}
