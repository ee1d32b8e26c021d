//! Planned handover: `relevo failover` and `machine disable` under load, and what they refuse.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, Fuse, freeze};
use crate::lab::peers::Client;
use crate::lab::{Family, wait_for};
use crate::turn;

const SIZE: u64 = 64 * MIB;
const ROUNDS: u64 = 2_000;

/// What the status says of the last takeover.
fn last_takeover(engine: &Engine, key: &str) -> Value {
    engine.status()["services"][0]["last_takeover"][key].clone()
}

/// An upload, a download and a dialogue at once, the command at half of the upload.
fn under_load(cluster: &Cluster, engine: &Arc<Engine>, words: &'static [&'static str]) -> (Vec<String>, String) {
    let fuse = {
        let engine = engine.clone();
        Fuse::lay(move || engine.tell(words))
    };
    let half = |done| {
        if done > SIZE / 2 {
            fuse.light();
        }
    };
    let orders = cluster.transfers(Family::V4, SIZE, ROUNDS, half);
    (orders, fuse.done())
}

#[test]
fn a_failover_by_plan_costs_no_client_a_retransmission() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    cluster.lab.keep_order();
    let engine = Arc::new(cluster.engine(Family::V4, &[]));
    let began = UNIX_EPOCH.elapsed().expect("a clock that is set").as_micros();
    let (orders, _) = under_load(&cluster, &engine, &["failover", "lab", "--to", "m2"]);
    assert_eq!(engine.original(), "m2");
    assert_eq!(last_takeover(&engine, "stayed"), 0);
    // The upload is under way when the command comes; what else is, moves with it.
    assert!(engine.counter("handovers_level") >= 1, "no flow has moved");
    assert_eq!(last_takeover(&engine, "flows"), engine.counter("handovers_level"));
    assert!(last_takeover(&engine, "redirect_us").as_u64() > Some(0));
    let ended = UNIX_EPOCH.elapsed().expect("a clock that is set").as_micros();
    let decided = last_takeover(&engine, "decided_at_us").as_u64().map(u128::from);
    assert!(
        decided.is_some_and(|at| (began..ended).contains(&at)),
        "{began} {decided:?} {ended}"
    );
    cluster.assert_nothing_lost();
    cluster.assert_identical(&[0, 1, 2], &orders);
    cluster.assert_no_resets();
}

#[test]
fn a_disabled_original_hands_over_first() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    cluster.lab.keep_order();
    let engine = Arc::new(cluster.engine(Family::V4, &[]));
    let (orders, said) = under_load(&cluster, &engine, &["machine", "disable", "lab", "m0"]);
    assert!(said.contains("m0 -> m1") && said.contains("moved"), "{said}");
    assert_eq!(
        (engine.original(), engine.machine_state(0)),
        ("m1".into(), "disabled".into())
    );
    assert!(engine.counter("handovers_level") >= 1, "no flow has moved by plan");
    cluster.assert_nothing_lost();
    cluster.assert_identical(&[1, 2], &orders);
    cluster.assert_no_resets();
}

#[test]
fn a_failover_to_a_dead_or_unknown_machine_says_why_and_changes_nothing() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, &[]);
    freeze(cluster.lab.machine(2), Freeze::Mute);
    wait_for("m2 to be found out", PATIENCE, || {
        (engine.machine_state(2) == "down").then_some(())
    });
    let refused: [(&[&str], i32, &str); 4] = [
        (&["failover", "lab", "--to", "m2"], 1, "m2\" is down"),
        (&["failover", "lab", "--to", "nobody"], 1, "no machine \"nobody\""),
        (&["failover", "nothing"], 1, "no service \"nothing\""),
        (&["failover", "lab", "--within", "1h"], 2, "--within"),
    ];
    for (words, code, part) in refused {
        let output = engine.command(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
        assert!(error.contains(part), "{words:?}: {error}");
    }
    assert_eq!(engine.original(), "m0");
    assert_eq!(last_takeover(&engine, "to"), Value::Null);
}

#[test]
fn a_flow_in_which_the_target_is_not_eligible_stays_and_is_said_so() {
    let _turn = turn();
    let cluster = Cluster::new(3);
    cluster.lab.machine(2).sysctl("net/ipv4/tcp_timestamps", "0");
    let engine = Arc::new(cluster.engine(Family::V4, &[]));
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = {
        let engine = engine.clone();
        Fuse::lay(move || engine.tell(&["failover", "lab", "--to", "m2"]))
    };
    cluster.lab.client().enter(|| {
        let half = |round| {
            if round == ROUNDS / 2 {
                fuse.light();
            }
        };
        Client::connect(psc, PATIENCE)
            .expect("connect")
            .talk(1, ROUNDS, half)
            .expect("talk");
    });
    let said = fuse.done();
    assert!(said.contains("1 stayed"), "{said}");
    cluster.assert_identical(&[0, 1, 2], &[format!("TALK 1 {ROUNDS}")]);
    cluster.assert_no_resets();
}
