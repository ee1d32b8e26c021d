//! `original = "fastest"`: the machine that would be the original freezes, and clients don't wait for anybody to find out.

use std::time::Duration;

use crate::lab::Family;
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::faults::{Freeze, freeze_fuse};
use crate::lab::peers::Client;
use crate::turn;

/// A client's retransmission timeout is 200 ms at least; what waits for less has not waited for one.
const NO_TIMEOUT: Duration = Duration::from_millis(200);

/// Freezes m0 at half of the work.
fn freeze_at_half(order: &str, whole: u64, work: impl Fn(&mut Client, &mut dyn FnMut(u64)) + Sync) {
    let _turn = turn();
    for kind in [Freeze::LinkDown, Freeze::Mute] {
        let cluster = Cluster::new(3);
        let engine = cluster.engine(Family::V4, &["original = \"fastest\""]);
        let psc = cluster.lab.psc(Family::V4, PORT);
        let fuse = freeze_fuse(cluster.lab.machine(0), kind);
        let longest_wait = cluster.lab.client().enter(|| {
            let mut client = Client::connect(psc, PATIENCE).expect("connect");
            work(&mut client, &mut |done| {
                if done >= whole / 2 {
                    fuse.light();
                }
            });
            client.longest_wait()
        });
        fuse.done();
        assert!(longest_wait < NO_TIMEOUT, "{kind:?}: a wait of {longest_wait:?}");
        cluster.assert_identical(&[1, 2], &[order.to_owned()]);
        assert_eq!(engine.counter("flows_lost"), 0);
        cluster.assert_no_resets();
    }
}

#[test]
fn a_dialogue_goes_on() {
    const ROUNDS: u64 = 2_000;
    freeze_at_half("TALK 1 2000", ROUNDS, |client, step| {
        client.talk(1, ROUNDS, step).expect("talk");
    });
}

#[test]
fn a_download_goes_on() {
    const SIZE: u64 = 32 * MIB;
    freeze_at_half("GET 2 33554432", SIZE, |client, step| {
        client.download(2, SIZE, step).expect("download");
    });
}

#[test]
fn an_upload_goes_on() {
    const SIZE: u64 = 32 * MIB;
    freeze_at_half("PUT 3", SIZE, |client, step| {
        client.upload(3, SIZE, step).expect("upload");
    });
}
