//! A SYN flood from random addresses, as fast as one core can send, while established connections go on.
//!
//! What is fair on two cores: the flooder has core 1, with the kernel's work for its packets up to the engine's rules; engine, client and
//! machines share core 0. The goodput that has to be kept is that of an upload of 20 MB/s, a quarter of what core 0 can carry. An
//! upload that takes all of core 0 must lose what the SYNs that are let through cost; the long form reports how much, beside a flood of
//! a closed port on the same address, which costs core 0 nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relevo::wire::{Flags, Options};

use super::{assert_unmoved, long, of_service, report};
use crate::lab::cluster::{Cluster, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::pattern::Random;
use crate::lab::peers::Client;
use crate::lab::raw::{Forger, Gauge, with_options};
use crate::lab::upload::Upload;
use crate::lab::{Family, Host, counters};
use crate::turn;

/// The pace of the upload that must be kept, in bytes a second.
const PACE: u64 = 20_000_000;
/// What must be left of it.
const KEPT: f64 = 0.95;
/// The default of `max_half_open`.
const HALF_OPEN: u64 = 8_192;
/// Memory that the daemon may take on between two floods, in KiB: allocators are not exact.
const SLACK_KIB: u64 = 2_048;

/// New clients that come during the flood.
const NEWCOMERS: u32 = 3;
/// How long one waits for an answer before it tries again, with a new connection.
const NEWCOMER_TRY: Duration = Duration::from_secs(1);
/// How long each may take to get in, with one try after the other.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(60);

/// A flood that goes on until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    start: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// From `host` to `dst`, by a thread on core 1. The sender's core also does the kernel's work for each packet, up to the engine's queue.
    fn start(host: &Host, dst: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let forger = Forger::on(host);
        let thread = {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || {
                pin(1);
                let mut random = Random::new(1);
                while !stop.load(Ordering::Relaxed) {
                    let syns: Vec<Vec<u8>> = (0..64).map(|_| random_syn(&mut random, dst)).collect();
                    forger.send(&syns);
                    sent.fetch_add(64, Ordering::Relaxed);
                }
            })
        };
        Self {
            stop,
            sent,
            start: Instant::now(),
            thread: Some(thread),
        }
    }

    fn rate(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64 / self.start.elapsed().as_secs_f64()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn random_syn(random: &mut Random, dst: SocketAddr) -> Vec<u8> {
    let mut draw = |low, high| u32::try_from(random.between(low, high)).expect("32 bits");
    // Anywhere but in the lab's own networks.
    let src = Ipv4Addr::from(draw(0x1500_0000, 0xdfff_ffff));
    let port = u16::try_from(draw(1_024, 65_536)).expect("16 bits");
    let options = Options {
        mss: Some(1_460),
        ..Options::default()
    };
    with_options(
        SocketAddr::new(src.into(), port),
        dst,
        (draw(0, 1 << 32), 0),
        Flags::SYN,
        options,
        b"",
    )
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("pin a thread");
}

#[test]
fn established_connections_keep_their_goodput_in_a_syn_flood() {
    let _turn = turn();
    // Threads inherit where they may run: engine, client, services on core 0.
    std::thread::spawn(|| {
        pin(0);
        flooded();
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn flooded() {
    let (family, rounds) = (Family::V4, 5);
    let span = Duration::from_secs(if long() { 4 } else { 1 });
    let cluster = Cluster::with_clients(2, 3);
    let lab = &cluster.lab;
    let (client, attacker) = (lab.client(), &lab.clients()[1]);
    let engine = Engine::start_by(lab, &[cluster.config(family)], &["taskset", "-c", "0"]);
    // The rest of the world is behind the attacker, and answers nothing.
    lab.engine().ip_batch("route add default via 10.0.2.2\n");
    attacker.nft("table inet deaf {\n chain in {\n  type filter hook prerouting priority -450\n  iifname eth0 ip protocol tcp drop\n }\n}\n");
    let psc = lab.psc(family, PORT);
    let closed = lab.psc(family, PORT + 1);

    client.enter(|| {
        // A dialogue, begun before and ended after.
        let mut dialogue = Client::connect(psc, PATIENCE).expect("connect");
        dialogue
            .talk(2, 20, |round| {
                if round == 10 {
                    storm(&cluster, &engine, (psc, closed), span, rounds);
                }
            })
            .expect("the dialogue goes on");
    });
    cluster.assert_no_resets();
    cluster.assert_identical(&[0, 1, 2], &["PUT 1".to_owned(), "TALK 2 20".to_owned()]);
    assert_unmoved(&engine, 3);
    // The world goes quiet, and new clients get in again.
    let mut late = client
        .enter(|| Client::connect(psc, PATIENCE))
        .expect("a new connection after the flood");
    client
        .enter(|| late.talk(3, 10, |_| ()))
        .expect("a new dialogue after the flood");
}

fn storm(cluster: &Cluster, engine: &Engine, (psc, closed): (SocketAddr, SocketAddr), span: Duration, rounds: u32) {
    let attacker = &cluster.lab.clients()[1];
    let mut upload = Upload::open(psc).expect("connect");
    let (mut calm, mut kept, mut rate, mut memory) = (0.0, Vec::new(), 0.0, Vec::new());
    for _ in 0..rounds {
        let before = upload.measure(span, Some(PACE)).expect("the upload goes on");
        let flood = Flood::start(attacker, psc);
        let stormy = upload
            .measure(span, Some(PACE))
            .expect("the upload goes on in the flood");
        calm += before;
        kept.push(stormy / before);
        rate = flood.rate();
        let half_open = of_service(&engine.status(), "half_open");
        assert_eq!(half_open, HALF_OPEN, "the half-open table is full, and no fuller");
        memory.push(engine.resident_kib());
    }
    // Whatever else this machine does may fall on one of the spans: the median of the rounds, one beside the other.
    kept.sort_by(f64::total_cmp);
    let (worst, kept) = (kept[0], kept[kept.len() / 2]);
    if long() {
        newcomers(cluster, psc);
    }
    report(&format!(
        "flood: {:.0} thousand SYNs a second; an upload of {:.1} MB/s keeps {:.1} % (median of {rounds} rounds, at worst {:.1} %); half-open {HALF_OPEN}; memory after each flood {memory:?} KiB; dropped by the rules {}",
        rate / 1e3,
        calm / f64::from(rounds) / 1e6,
        kept * 100.0,
        worst * 100.0,
        counters::of_rules(cluster.lab.engine(), "flooded"),
    ));
    if long() {
        // No bound on these: they show what the flood costs a core that has nothing to spare.
        let full = |upload: &mut Upload, dst: Option<SocketAddr>| {
            let _flood = dst.map(|dst| Flood::start(attacker, dst));
            upload.measure(span, None).expect("the upload goes on") / 1e6
        };
        for _ in 0..3 {
            let (none, flood, past) = (
                full(&mut upload, None),
                full(&mut upload, Some(psc)),
                full(&mut upload, Some(closed)),
            );
            report(&format!(
                "flood, all of core 0: {none:.1} MB/s without, {flood:.1} in it, {past:.1} while a closed port of the same address is flooded"
            ));
        }
    }
    upload.finish().expect("the upload ends well");
    assert!(kept >= KEPT, "only {:.1} % of the goodput is left", kept * 100.0);
    let (first, last) = (memory[0], memory[memory.len() - 1]);
    assert!(
        last <= first + SLACK_KIB,
        "memory grows from flood to flood: {memory:?} KiB"
    );
    assert_eq!(Gauge::of(cluster.lab.engine()).lost(), 0, "packets lost in the queues");
}

/// A real client still gets in during the flood if it tries again: one SYN in some eight finds room under the limit of the rate, so a kernel
/// alone, which repeats a SYN less and less often, is not sure to succeed within a minute.
fn newcomers(cluster: &Cluster, psc: SocketAddr) {
    let _flood = Flood::start(&cluster.lab.clients()[1], psc);
    let waits: Vec<f64> = (0..NEWCOMERS)
        .map(|_| {
            let start = Instant::now();
            let connected = cluster.lab.client().enter(|| {
                loop {
                    let connected = Client::connect(psc, NEWCOMER_TRY);
                    if connected.is_ok() || start.elapsed() > NEWCOMER_PATIENCE {
                        return connected;
                    }
                }
            });
            drop(connected.expect("a new client gets in during the flood"));
            start.elapsed().as_secs_f64()
        })
        .collect();
    report(&format!(
        "flood, {NEWCOMERS} new clients one after the other: connected after {} s",
        waits
            .iter()
            .map(|wait| format!("{wait:.1}"))
            .collect::<Vec<_>>()
            .join(", ")
    ));
}
