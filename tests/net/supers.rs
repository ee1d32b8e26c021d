//! Super-packets: what a client sends in bulk goes to the replicas in a few large packets, which the kernel cuts; and what becomes of it where that
//! can't be.

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::peers::Client;
use crate::lab::{Family, wait_for};
use crate::turn;

/// Bytes of an upload.
const SIZE: u64 = 64 * MIB;

/// An upload, `halfway` in its middle; all machines have had the same.
fn upload(cluster: &Cluster, family: Family, order: u64, halfway: impl FnOnce() + Send) {
    let psc = cluster.lab.psc(family, PORT);
    let mut halfway = Some(halfway);
    let run = || {
        let progress = |done| {
            if done > SIZE / 2
                && let Some(act) = halfway.take()
            {
                act();
            }
        };
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .upload(order, SIZE, progress)
            .expect("upload");
    };
    std::thread::scope(|scope| {
        cluster.lab.client().enter_in(scope, run);
    });
    cluster.assert_identical(&[0, 1, 2], &[format!("PUT {order}")]);
    cluster.assert_no_resets();
}

/// What the engine has made is sent, or counted as an error.
fn assert_balanced(engine: &Engine) {
    wait_for("the books to balance", PATIENCE, || {
        let status = engine.status();
        let errors = status["inject_errors"].as_object().expect("an object");
        let errors: u64 = errors.values().filter_map(serde_json::Value::as_u64).sum();
        let made = status["counters"]["originated"].as_u64().expect("a number");
        (status["injected"].as_u64() == Some(made - errors)).then_some(())
    });
}

#[test]
fn a_bulk_upload_reaches_replicas_in_super_packets() {
    for (family, source) in [
        (Family::V4, "psc"),
        (Family::V6, "psc"),
        (Family::V4, "client"),
        (Family::V6, "client"),
    ] {
        let _turn = turn();
        let cluster = Cluster::new(3);
        let engine = cluster.engine(family, &[&format!("source = \"{source}\"")]);
        upload(&cluster, family, 1, || ());
        let [packets, segments] = ["super_packets", "super_segments"].map(|name| engine.counter(name));
        // Both replicas, in packets of several segments; where memory is short, or a window is, some are small.
        assert!(
            packets > 0 && segments > 4 * packets,
            "{family:?}, {source}: {packets} super-packets, {segments} segments"
        );
        assert!(
            segments * 1_448 > SIZE,
            "{family:?}, {source}: just {segments} segments of two uploads"
        );
        assert_eq!(engine.counter("super_packet_pauses"), 0);
        assert_balanced(&engine);
    }
}

#[test]
fn without_them_an_upload_goes_on_in_segments() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let service = cluster.config(Family::V4);
    let engine = Engine::start_with(&cluster.lab, "super_packets = false", &[service]);
    upload(&cluster, Family::V4, 1, || ());
    assert_eq!(engine.counter("super_packets"), 0);
    assert_balanced(&engine);
}

#[test]
fn where_a_firewall_stops_them_single_segments_go_on() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &["replica_timeout = \"2s\""]);
    cluster.lab.engine().nft(
        "table inet firewall {\n chain forward {\n type filter hook forward priority filter; policy accept;\n iifname \"relevo*\" counter drop\n }\n}\n",
    );
    upload(&cluster, Family::V4, 1, || ());
    assert!(engine.counter("super_packet_pauses") >= 2, "one for each replica");
    assert!(engine.log().contains("super-packets to it do not arrive"));
}

#[test]
fn when_their_device_is_taken_down_single_segments_go_on() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    let links = cluster
        .lab
        .engine()
        .command("ip")
        .args(["-o", "link"])
        .output()
        .expect("ip");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    let device = links
        .split_whitespace()
        .find_map(|word| word.strip_suffix(':').filter(|name| name.starts_with("relevo")))
        .unwrap_or_else(|| panic!("no device of the engine's in {links}"))
        .to_owned();
    upload(&cluster, Family::V4, 1, || {
        cluster.lab.engine().ip_batch(&format!("link set {device} down\n"));
    });
    let before = engine.counter("super_packets");
    upload(&cluster, Family::V4, 2, || ());
    // Each worker has to find out by itself.
    let more = engine.counter("super_packets") - before;
    assert!(more <= 8, "{more} more super-packets");
    assert!(engine.log().contains("the device for super-packets is down or gone"));
    assert_balanced(&engine);
}
