//! `original = "fastest"`: the machine that would be the original falls silent, and clients don't wait for anybody to find out.
//!
//! Nobody finds out before a second is over: so slow a detection is configured, and the silent machine's link stays up. Only a second speaker
//! can keep the wait short; with `original = "first"` all tests but the last fail. A silent machine acknowledges nothing, though, and what the
//! client sends waits for that (R4), whoever speaks: so it has no more to say then than fits into its first window. A long upload has to
//! wait until the death is found, with "fastest" as with "first".

use std::time::Duration;

use crate::lab::Family;
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::faults::{Freeze, freeze};
use crate::lab::peers::Client;
use crate::turn;

/// A client's retransmission timeout is 200 ms at least; what waits for less has not waited for one.
const NO_TIMEOUT: Duration = Duration::from_millis(200);
/// Whose output the client sees.
const FASTEST: &str = "original = \"fastest\"";
/// No death is found in time.
const SLOW: &str = "detect = { floor = \"1s\", probe_interval = \"10s\" }";

/// A client works; m0 falls silent where it calls what it is given.
fn silence(order: &str, more: &[&str], kind: Freeze, work: impl Fn(&mut Client, &mut dyn FnMut()) + Sync) {
    let cluster = Cluster::new(3);
    let engine = cluster.engine(Family::V4, more);
    let psc = cluster.lab.psc(Family::V4, PORT);
    let longest_wait = cluster.lab.client().enter(|| {
        let mut client = Client::connect(psc, PATIENCE).expect("connect");
        let mut silenced = false;
        work(&mut client, &mut || {
            if !std::mem::replace(&mut silenced, true) {
                freeze(cluster.lab.machine(0), kind);
            }
        });
        assert!(silenced, "the work was over before");
        client.longest_wait()
    });
    assert!(longest_wait < NO_TIMEOUT, "{kind:?}: a wait of {longest_wait:?}");
    cluster.assert_identical(&[1, 2], &[order.to_owned()]);
    assert_eq!(engine.counter("flows_lost"), 0);
    cluster.assert_no_resets();
}

#[test]
fn a_dialogue_goes_on() {
    const ROUNDS: u64 = 500;
    let _turn = turn();
    silence("TALK 1 500", &[FASTEST, SLOW], Freeze::Mute, |client, now| {
        let last = |done| {
            if done == ROUNDS - 5 {
                now()
            }
        };
        client.talk(1, ROUNDS, last).expect("talk");
    });
}

#[test]
fn a_download_goes_on() {
    const SIZE: u64 = 32 * MIB;
    let _turn = turn();
    silence("GET 2 33554432", &[FASTEST, SLOW], Freeze::Mute, |client, now| {
        let half = |done| {
            if done >= SIZE / 2 {
                now()
            }
        };
        client.download(2, SIZE, half).expect("download");
    });
}

#[test]
fn a_short_upload_is_answered() {
    let _turn = turn();
    silence("PUT 3", &[FASTEST, SLOW], Freeze::Mute, |client, now| {
        now();
        client.upload(3, 8 << 10, |_| ()).expect("upload");
    });
}

/// This one would hold with "first", too: it waits for the detection, which is as quick as ever.
#[test]
fn a_long_upload_goes_on_when_the_death_is_found() {
    const SIZE: u64 = 32 * MIB;
    let _turn = turn();
    for kind in [Freeze::LinkDown, Freeze::Mute] {
        silence("PUT 4", &[FASTEST], kind, |client, now| {
            let half = |done| {
                if done >= SIZE / 2 {
                    now()
                }
            };
            client.upload(4, SIZE, half).expect("upload");
        });
    }
}
