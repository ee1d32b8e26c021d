//! Bulk transfers whose original falls silent at a random byte.

use std::time::{Duration, SystemTime};

use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, freeze_fuse, thaw};
use crate::lab::pattern::Random;
use crate::lab::peers::Client;
use crate::lab::{Family, counters, wait_for};
use crate::turn;

/// Freezes per direction.
const FREEZES: usize = 20;
/// Bytes of a transfer.
const SIZE: u64 = 64 * MIB;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

#[test]
fn uploads_survive_a_freeze_at_twenty_random_offsets() {
    transfers_survive(Way::Up);
}

#[test]
fn downloads_survive_a_freeze_at_twenty_random_offsets() {
    transfers_survive(Way::Down);
}

/// The seed of a test's choices: from the clock, or `RELEVO_SEED` to choose the same again.
pub fn seed() -> u64 {
    let seed = match std::env::var("RELEVO_SEED") {
        Ok(text) => text.parse().expect("RELEVO_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |d| u64::from(d.subsec_nanos())),
    };
    println!("RELEVO_SEED={seed}");
    seed
}

fn transfers_survive(way: Way) {
    let _turn = turn();
    let mut random = Random::new(seed());
    let cluster = Cluster::new(3);
    for i in 0..FREEZES {
        let kind = Freeze::alternate(i);
        // Not in the last eighth: the freeze takes a moment, and the transfer goes on meanwhile.
        let offset = random.between(1, SIZE - SIZE / 8);
        println!("{way:?} {i}: {kind:?} at byte {offset}");
        one_transfer(&cluster, way, 1_000 + i as u64, kind, offset);
        cluster.assert_no_resets();
        thaw(cluster.lab.machine(0), kind);
    }
}

/// A fresh engine with m0 as the original, one transfer, one freeze.
fn one_transfer(cluster: &Cluster, way: Way, seed: u64, kind: Freeze, offset: u64) {
    let mut engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let fuse = freeze_fuse(cluster.lab.machine(0), kind);
    let longest_wait = cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        let at_offset = |done| {
            if done >= offset {
                fuse.light()
            }
        };
        match way {
            Way::Up => client.upload(seed, SIZE, at_offset),
            Way::Down => client.download(seed, SIZE, at_offset),
        }
        .unwrap_or_else(|e| panic!("{way:?} with {kind:?} at {offset}: {e}"));
        client.longest_wait()
    });
    fuse.done();
    let order = match way {
        Way::Up => format!("PUT {seed}"),
        Way::Down => format!("GET {seed} {SIZE}"),
    };
    cluster.assert_identical(&[1, 2], &[order]);
    assert_eq!(engine.counter("takeovers"), 1, "flows taken over");
    println!("  the client's longest wait was {longest_wait:?}");
    assert!(
        longest_wait < Duration::from_secs(2),
        "the client stood still for {longest_wait:?}"
    );
    // What the client's kernel still has to say of this connection the next engine would not know, and would answer with a RST (R19).
    wait_for("the client's connections to be closed", PATIENCE, || {
        (counters::half_closed(cluster.lab.client()) == 0).then_some(())
    });
    stop(&mut engine);
}

fn stop(engine: &mut Engine) {
    let status = engine.stop();
    assert!(status.success(), "the engine ended with {status}");
}
