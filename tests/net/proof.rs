//! The lab itself, with plain address translation in the engine's place: what works works, and what is to be found is found.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::lab::capture::{Capture, Recovery, longest_pause};
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::{ServiceConfig, translate_instead};
use crate::lab::faults::{Freeze, Link, freeze, lose, thaw};
use crate::lab::peers::{Client, Service};
use crate::lab::relay::{Impairment, Relay};
use crate::lab::services::addresses;
use crate::lab::{Family, Lab, counters};
use crate::turn;

#[test]
fn transfers_through_plain_translation_arrive_whole() {
    let _turn = turn();
    let cluster = Cluster::new(2);
    for family in [Family::V4, Family::V6] {
        translate_instead(&cluster.lab, &[cluster.config(family)]);
        let psc = cluster.lab.psc(family, PORT);
        cluster.lab.client().enter(|| {
            Client::connect(psc, PATIENCE)
                .unwrap()
                .upload(1, 8 * MIB, |_| ())
                .unwrap();
            Client::connect(psc, PATIENCE)
                .unwrap()
                .download(2, 8 * MIB, |_| ())
                .unwrap();
            Client::connect(psc, PATIENCE).unwrap().late(3, MIB, || ()).unwrap();
            Client::connect(psc, PATIENCE).unwrap().talk(4, 100, |_| ()).unwrap();
        });
        let orders = ["PUT 1", "GET 2 8388608", "LATE 3 1048576", "TALK 4 100"].map(str::to_owned);
        let records = cluster.assert_identical(&[0], &orders);
        assert!(
            records.iter().any(|r| r.order == "PUT 1" && r.received == 8 * MIB),
            "{records:#?}"
        );
        cluster.services[0].forget();
    }
    assert!(
        cluster.services[1].records().is_empty(),
        "translation replicates nothing"
    );
    cluster.assert_no_resets();
}

#[test]
fn a_lab_that_keeps_order_loses_nothing_of_its_own() {
    let _turn = turn();
    let cluster = Cluster::new(1);
    cluster.lab.keep_order();
    translate_instead(&cluster.lab, &[cluster.config(Family::V4)]);
    // Without order, this often has the client send a hundred segments again that were not lost.
    for _ in 0..3 {
        cluster.transfers(Family::V4, 64 * MIB, 500, |_| ());
    }
    cluster.assert_nothing_lost();
}

#[test]
fn a_frozen_machine_is_silent_until_it_thaws() {
    let _turn = turn();
    let cluster = Cluster::new(1);
    translate_instead(&cluster.lab, &[cluster.config(Family::V4)]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let client = cluster.lab.client();
    for kind in [Freeze::LinkDown, Freeze::Mute] {
        let capture = Capture::start(client, "eth0", cluster.lab.dir());
        let mut frozen = SystemTime::UNIX_EPOCH;
        client.enter(|| {
            let mut connection = Client::connect(psc, PATIENCE).unwrap();
            let mut thawing = None;
            let result = connection.talk(5, 400, |round| {
                if round == 200 {
                    frozen = freeze(cluster.lab.machine(0), kind);
                    let machine = cluster.lab.machine(0).clone();
                    thawing = Some(std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(700)); // the length of the fault, not a wait for readiness
                        thaw(&machine, kind);
                    }));
                }
            });
            result.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            thawing.unwrap().join().unwrap();
            assert!(
                connection.longest_wait() > Duration::from_millis(650),
                "{kind:?} was not silent"
            );
        });
        let segments = capture.stop();
        let pause = longest_pause(&segments, PORT);
        assert!(
            pause > Duration::from_millis(650) && pause < PATIENCE,
            "{kind:?}: a pause of {pause:?}"
        );
        let recovery = Recovery::of(&segments, PORT, frozen, 0, Duration::from_secs(5));
        let resumed = recovery.worst().expect("a connection that went on");
        assert!(
            resumed > Duration::from_millis(650) && resumed < PATIENCE,
            "{kind:?}: resumed after {resumed:?}"
        );
    }
    cluster.assert_no_resets();
}

#[test]
fn a_lossy_link_loses_and_tcp_mends_it() {
    let _turn = turn();
    let cluster = Cluster::new(1);
    translate_instead(&cluster.lab, &[cluster.config(Family::V4)]);
    lose(&cluster.lab, Link::Machine(0), 10);
    let psc = cluster.lab.psc(Family::V4, PORT);
    cluster.lab.client().enter(|| {
        Client::connect(psc, PATIENCE)
            .unwrap()
            .upload(6, 32 * MIB, |_| ())
            .unwrap();
        Client::connect(psc, PATIENCE)
            .unwrap()
            .download(7, 32 * MIB, |_| ())
            .unwrap();
    });
    assert!(
        counters::retransmissions(cluster.lab.client()) > 0,
        "the upload lost nothing"
    );
    assert!(
        counters::retransmissions(cluster.lab.machine(0)) > 0,
        "the download lost nothing"
    );
}

#[test]
fn a_relayed_link_does_what_it_is_told_and_tcp_mends_it() {
    const CHANCE: u64 = 50;
    const WAIT: Duration = Duration::from_millis(5);
    let _turn = turn();
    let none = Impairment::default();
    let troubles = [
        none,
        Impairment { loss: CHANCE, ..none },
        Impairment { delay: WAIT, ..none },
        Impairment {
            reorder: CHANCE,
            late_by: WAIT,
            ..none
        },
        Impairment {
            duplicate: CHANCE,
            ..none
        },
    ];
    for (link, impairment) in [Link::Client(0), Link::Machine(0)]
        .into_iter()
        .flat_map(|link| troubles.map(|trouble| (link, trouble)))
    {
        let lab = Lab::with_relays(1, 1, &[link]);
        let relay = Relay::start(lab.relay(link), impairment, 1);
        let service = Service::start(lab.machine(0), PORT);
        let config = ServiceConfig::new(
            "lab",
            lab.psc(Family::V4, PORT),
            &addresses(lab.machines(), Family::V4, PORT),
        );
        translate_instead(&lab, std::slice::from_ref(&config));
        let talked = lab.client().enter(|| {
            let connect = || Client::connect(config.psc, PATIENCE).expect("connect");
            connect().upload(1, 2 * MIB, |_| ()).expect("upload");
            connect().download(2, 2 * MIB, |_| ()).expect("download");
            let start = Instant::now();
            connect().talk(3, 20, |_| ()).expect("talk");
            start.elapsed()
        });
        let counts = relay.counts();
        let seen = [&counts.lost, &counts.reordered, &counts.duplicated].map(|n| n.load(Ordering::Relaxed) > 0);
        let told = [impairment.loss, impairment.reorder, impairment.duplicate].map(|chance| chance > 0);
        assert_eq!(seen, told, "{link:?} {impairment:?}: {counts:?}");
        assert!(
            talked > 40 * impairment.delay,
            "{link:?}: 20 rounds took {talked:?} with {impairment:?}"
        );
        drop(service);
    }
}

#[test]
fn a_reset_is_seen() {
    let _turn = turn();
    let cluster = Cluster::new(1);
    translate_instead(&cluster.lab, &[cluster.config(Family::V4)]);
    let psc = cluster.lab.psc(Family::V4, PORT + 1); // where nobody listens
    let refused = cluster
        .lab
        .client()
        .enter(|| TcpStream::connect(psc).map(|s| s.shutdown(Shutdown::Both)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(counters::resets_seen(cluster.lab.client()), 1);
}
