//! What makes the engine suspect a machine (R14), one sign at a time; and what must not.

use std::time::Duration;

use serde_json::Value;

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, freeze, freeze_fuse};
use crate::lab::peers::Client;
use crate::lab::{Family, wait_for};
use crate::turn;

/// The first service's last takeover, once there is one.
fn takeover(engine: &Engine) -> Value {
    wait_for("a takeover", PATIENCE, || {
        let status = engine.status();
        let last = &status["services"][0]["last_takeover"];
        (!last.is_null()).then(|| last.clone())
    })
}

/// An idle machine is looked at every `probe_interval`; its lost carrier is seen at once.
#[test]
fn a_link_that_goes_down_is_seen_while_nobody_speaks() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &["detect = { probe_interval = \"60s\" }"]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        client
            .talk(1, 3, |round| {
                if round == 2 {
                    freeze(cluster.lab.machine(0), Freeze::LinkDown);
                    let takeover = takeover(&engine);
                    assert_eq!(takeover["reason"], "link_down", "{takeover:#}");
                    assert_eq!(
                        (&takeover["flows"], &takeover["lost"]),
                        (&1.into(), &0.into()),
                        "{takeover:#}"
                    );
                }
            })
            .expect("talk");
    });
    cluster.assert_identical(&[1, 2], &["TALK 1 3".to_owned()]);
    cluster.assert_no_resets();
}

/// Nothing of the client's is unacknowledged in a download: that replicas have said more is all that there is to see, and soon enough.
#[test]
fn an_original_that_falls_silent_in_a_download_is_seen_by_what_replicas_say() {
    const SIZE: u64 = 64 * MIB;
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &["detect = { probe_interval = \"60s\" }"]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::Mute);
    let longest_wait = cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        client
            .download(1, SIZE, |done| {
                if done >= SIZE / 2 {
                    fuse.light()
                }
            })
            .expect("download");
        client.longest_wait()
    });
    fuse.done();
    let takeover = takeover(&engine);
    assert_eq!(takeover["reason"], "silence", "{takeover:#}");
    println!("the client's longest wait was {longest_wait:?}");
    assert!(
        longest_wait < Duration::from_secs(1),
        "the client waited {longest_wait:?}"
    );
    cluster.assert_identical(&[1, 2], &[format!("GET 1 {SIZE}")]);
    cluster.assert_no_resets();
}

/// A question for a link-layer address that is lost is asked again after a second. That is no death, though no probe gets through.
#[test]
fn a_lost_question_for_a_link_layer_address_is_no_death() {
    const DEAF_TO_ARP: &str = "table arp lab_arp {\n chain in { type filter hook input priority 0; policy drop; }\n}\n";
    let _turn = turn();
    let cluster = Cluster::new(3);
    let m0 = cluster.lab.machine(0);
    m0.nft(DEAF_TO_ARP);
    cluster.lab.engine().output("ip", &["neigh", "flush", "dev", "m0"]);
    let engine = cluster.engine(Family::V4, &[]);
    wait_for("the engine host to ask for m0's address in vain", PATIENCE, || {
        let neighbours = cluster.lab.engine().output("ip", &["neigh", "show", "dev", "m0"]);
        neighbours.contains("INCOMPLETE").then_some(())
    });
    m0.nft("delete table arp lab_arp\n");
    let psc = cluster.lab.psc(Family::V4, PORT);
    cluster.lab.client().enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(1, 10, |_| ())
            .expect("talk");
    });
    cluster.assert_identical(&[0, 1, 2], &["TALK 1 10".to_owned()]);
    assert_eq!(
        (engine.original(), engine.machine_state(0)),
        ("m0".to_owned(), "up".to_owned())
    );
    cluster.assert_no_resets();
}
