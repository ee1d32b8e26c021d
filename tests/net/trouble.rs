//! Loss, replicas that fail or differ, and the engine's own end.

use std::time::{Duration, Instant};

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, Link, freeze, freeze_fuse, lose};
use crate::lab::peers::Client;
use crate::lab::upload::Upload;
use crate::lab::{Family, Host, counters, wait_for};
use crate::turn;

#[test]
fn one_percent_loss_on_the_clients_link_harms_nothing() {
    loss_harms_nothing(Link::Client(0));
}

#[test]
fn one_percent_loss_on_the_originals_link_harms_nothing() {
    loss_harms_nothing(Link::Machine(0));
}

#[test]
fn one_percent_loss_on_a_replicas_link_harms_nothing() {
    loss_harms_nothing(Link::Machine(1));
    loss_harms_nothing(Link::Machine(2));
}

fn loss_harms_nothing(link: Link) {
    const SIZE: u64 = 16 * MIB;
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    // The kernels ask for each other's link-layer addresses before anything is lost: a lost question is repeated after a second, and an upload
    // at full speed does not wait so long for a replica (R15).
    cluster.lab.client().enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(4, 1, |_| ())
            .expect("talk");
    });
    cluster.assert_identical(&[0, 1, 2], &["TALK 4 1".to_owned()]);
    lose(&cluster.lab, link, 10);
    cluster.lab.client().enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .upload(1, SIZE, |_| ())
            .expect("upload");
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .download(2, SIZE, |_| ())
            .expect("download");
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(3, 300, |_| ())
            .expect("talk");
    });
    let orders = ["PUT 1".to_owned(), format!("GET 2 {SIZE}"), "TALK 3 300".to_owned()];
    cluster.assert_identical(&[0, 1, 2], &orders);
    assert_eq!(engine.counter("takeovers"), 0, "loss is no death");
    for machine in 0..3 {
        assert_eq!(engine.machine_state(machine), "up", "m{machine}");
    }
    cluster.assert_no_resets();
}

#[test]
fn a_frozen_replica_holds_the_client_up_for_no_longer_than_its_timeout() {
    const SIZE: u64 = 64 * MIB;
    /// The default of `replica_timeout`, and what scheduling on two busy cores may add.
    const REPLICA_TIMEOUT: Duration = Duration::from_millis(200);
    const SLACK: Duration = Duration::from_millis(200);
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &["replica_timeout = \"200ms\""]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(2), Freeze::Mute);
    let longest_wait = cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE)
            .and_then(Client::with_small_send_buffer)
            .expect("connect");
        client
            .upload(1, SIZE, |done| {
                if done > SIZE / 2 {
                    fuse.light()
                }
            })
            .expect("upload");
        client.longest_wait()
    });
    fuse.done();
    assert!(
        longest_wait < REPLICA_TIMEOUT + SLACK,
        "the client waited {longest_wait:?} for a dead replica"
    );
    cluster.assert_identical(&[0, 1], &["PUT 1".to_owned()]);
    assert_eq!(engine.counter("takeovers"), 0, "the original is alive");
    assert_ne!(engine.machine_state(2), "up");
    cluster.assert_no_resets();
}

/// A replica dies in the middle of an upload that takes all it can get: the client's pace is what it was before, once the replica is out.
#[test]
fn an_upload_is_as_fast_as_before_once_a_dead_replica_is_out() {
    const SPAN: Duration = Duration::from_millis(400);
    const KEPT: f64 = 0.9;
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(2), Freeze::Mute);
    let paces = |upload: &mut Upload| {
        let mut paces = [0; 5].map(|_| upload.measure(SPAN, None).expect("upload"));
        paces.sort_by(f64::total_cmp);
        paces[2]
    };
    let (before, after) = cluster.lab.client().enter(|| {
        let mut upload = Upload::open(psc).expect("connect");
        upload.measure(SPAN, None).expect("upload");
        let before = paces(&mut upload);
        fuse.light();
        wait_for("the dead replica to be out", PATIENCE, || {
            upload.measure(SPAN / 4, None).expect("upload");
            (engine.machine_state(2) != "up").then_some(())
        });
        let after = paces(&mut upload);
        upload.finish().expect("every byte");
        (before, after)
    });
    fuse.done();
    println!("{:.1} MB/s before, {:.1} after", before / 1e6, after / 1e6);
    assert!(
        after >= KEPT * before,
        "{after:.0} bytes a second after the replica's end, {before:.0} before"
    );
    assert_eq!(engine.counter("takeovers"), 0, "the original is alive");
    cluster.assert_no_resets();
}

#[test]
fn a_machine_without_timestamps_is_not_eligible() {
    option_is_missing("net/ipv4/tcp_timestamps");
}

#[test]
fn a_machine_without_window_scaling_is_not_eligible() {
    option_is_missing("net/ipv4/tcp_window_scaling");
}

/// m1 would be next in the list, but can't keep what the client was promised: m2 takes over.
fn option_is_missing(sysctl: &str) {
    const ROUNDS: u64 = 2_000;
    let _turn = turn();
    let cluster = Cluster::new(3);
    cluster.lab.machine(1).sysctl(sysctl, "0");
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), Freeze::LinkDown);
    cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        client
            .talk(1, ROUNDS, |round| {
                if round == ROUNDS / 2 {
                    fuse.light()
                }
            })
            .expect("talk");
    });
    fuse.done();
    assert!(engine.counter("legs_ineligible") > 0);
    assert_eq!(engine.counter("flows_lost"), 0);
    cluster.assert_identical(&[2], &[format!("TALK 1 {ROUNDS}")]);
    cluster.assert_no_resets();
}

#[test]
fn no_reset_leaves_the_host_when_the_engine_is_stopped() {
    no_reset_leaves(|engine| assert!(engine.stop().success()));
}

#[test]
fn no_reset_leaves_the_host_when_the_engine_is_killed() {
    no_reset_leaves(Engine::kill);
}

/// Both ends go on sending into the void, and new clients knock; nobody is told anything. Then an engine is back.
fn no_reset_leaves(end: impl FnOnce(&mut Engine)) {
    const DOWN: Duration = Duration::from_millis(1_500);
    let _turn = turn();
    let cluster = Cluster::new(2);
    let mut engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let client = cluster.lab.client();
    let hosts: Vec<&Host> = cluster.lab.clients().iter().chain(cluster.lab.machines()).collect();
    let mut before = Vec::new();
    std::thread::scope(|scope| {
        let (up_runs, is_up) = std::sync::mpsc::channel();
        let (down_runs, is_down) = std::sync::mpsc::channel();
        let up = client.enter_in(scope, move || {
            Client::connect(psc, DOWN)
                .expect("connect")
                .upload(1, 10_000 * MIB, |_| {
                    let _ = up_runs.send(());
                })
        });
        let down = client.enter_in(scope, move || {
            Client::connect(psc, DOWN)
                .expect("connect")
                .download(2, 10_000 * MIB, |_| {
                    let _ = down_runs.send(());
                })
        });
        for transfer in [is_up, is_down] {
            transfer.recv().expect("a transfer that runs");
        }
        end(&mut engine);
        // The machines have been told resets before: those that answer the engine's probes' SYN/ACKs.
        before = hosts.iter().map(|host| counters::resets_seen(host)).collect();
        let knock = client.enter(|| Client::connect(psc, DOWN).err().expect("nobody is there"));
        assert_eq!(knock.kind(), std::io::ErrorKind::TimedOut, "a knock at the door");
        for (name, transfer) in [("upload", up), ("download", down)] {
            let error = transfer
                .join()
                .expect("a transfer's thread")
                .expect_err("it can't have ended well");
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{name}: {error}");
        }
    });
    for (host, before) in hosts.iter().zip(before) {
        assert_eq!(counters::resets_seen(host), before, "RSTs have reached {}", host.name());
    }
    cluster.assert_no_resets();

    let _engine = cluster.engine(Family::V4, &[]);
    let ready = Instant::now();
    client.enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(3, 10, |_| ())
            .expect("talk")
    });
    assert!(
        ready.elapsed() < Duration::from_secs(1),
        "a new connection took {:?}",
        ready.elapsed()
    );
}

#[test]
fn the_original_may_be_dead_before_the_client_comes() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    freeze(cluster.lab.machine(0), Freeze::Mute);
    cluster.lab.client().enter(|| {
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(1, 10, |_| ())
            .expect("talk");
    });
    assert_eq!(engine.original(), "m1");
    cluster.assert_identical(&[1, 2], &["TALK 1 10".to_owned()]);
    cluster.assert_no_resets();
}
