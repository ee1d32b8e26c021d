//! What is seen of the daemon every second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Progress;
use super::world::{Kind, MACHINES, World, is_up};
use crate::campaign::judge::queue_total;

/// Counters of the status that are kept.
const COUNTERS: [&str; 15] = [
    "packets_in",
    "accepted",
    "originated",
    "flows_opened",
    "flows_closed",
    "flows_lost",
    "legs_opened",
    "legs_refused",
    "legs_evicted",
    "legs_ineligible",
    "legs_reset",
    "takeovers",
    "retransmissions",
    "timeouts",
    "causality_releases",
];
/// And losses of the packet queues.
const QUEUES: [&str; 3] = ["queue_dropped", "user_dropped", "stalls"];

/// What proc(5) counts processor time in: USER_HZ, a hundred to a second on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// One second.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From the start.
    pub at: Duration,
    /// The daemon's resident memory.
    pub rss_kib: u64,
    /// Its share of one core since the last sample, in per cent.
    pub cpu: f64,
    /// Its open descriptors.
    pub descriptors: u64,
    /// Flows of all services.
    pub flows: u64,
    /// Bytes that it holds for machines.
    pub buffered: u64,
    /// Machines in service, over all services.
    pub up: usize,
    /// [`COUNTERS`].
    pub counters: Vec<u64>,
    /// All drops together.
    pub drops: u64,
    /// [`QUEUES`].
    pub queues: Vec<u64>,
    /// RSTs at the client.
    pub resets: u64,
    /// What was lost.
    pub lost: u64,
    /// Pieces of work done.
    pub pieces: u64,
    /// What goes wrong at this moment.
    pub fault: String,
}

impl Sample {
    /// The names of [`Sample::row`]'s columns.
    pub fn header() -> String {
        let fixed = "seconds,rss_kib,cpu_percent,descriptors,flows,buffered_bytes,machines_up";
        let counters: String = COUNTERS.iter().chain(&QUEUES).map(|name| format!(",{name}")).collect();
        format!("{fixed}{counters},dropped,resets,lost,pieces,fault")
    }

    /// As a line of a CSV.
    pub fn row(&self) -> String {
        let counters: String = self
            .counters
            .iter()
            .chain(&self.queues)
            .map(|n| format!(",{n}"))
            .collect();
        format!(
            "{:.1},{},{:.1},{},{},{},{}{counters},{},{},{},{},{}",
            self.at.as_secs_f64(),
            self.rss_kib,
            self.cpu,
            self.descriptors,
            self.flows,
            self.buffered,
            self.up,
            self.drops,
            self.resets,
            self.lost,
            self.pieces,
            self.fault
        )
    }

    /// One of the counters that are kept.
    pub fn counter(&self, name: &str) -> u64 {
        let all = COUNTERS
            .iter()
            .zip(&self.counters)
            .chain(QUEUES.iter().zip(&self.queues));
        all.filter(|(n, _)| **n == name).map(|(_, value)| *value).sum()
    }
}

/// Takes samples.
pub struct Sampler {
    world: Arc<World>,
    start: Instant,
    /// When the last one was taken, and the processor time until then, in ticks.
    last: (Instant, u64),
}

impl Sampler {
    /// Times count from `start`.
    pub fn new(world: &Arc<World>, start: Instant) -> Self {
        Self {
            world: Arc::clone(world),
            start,
            last: (Instant::now(), 0),
        }
    }

    /// Panics if the daemon does not answer.
    pub fn take(&mut self, progress: &Progress) -> Sample {
        let status = self.world.status().expect("the engine's status");
        let proc = format!("/proc/{}", self.world.engine.pid().as_raw_nonzero());
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let (now, ticks) = (Instant::now(), processor_time(&proc));
        let (before, ticks_before) = std::mem::replace(&mut self.last, (now, ticks));
        let spent = ticks.saturating_sub(ticks_before) as f64 / TICKS;
        let up = |kind: Kind| (0..MACHINES).filter(|m| is_up(&status, kind, *m)).count();
        let services = || status["services"].as_array().into_iter().flatten();
        let drops = status["drops"].as_object().into_iter().flatten();
        Sample {
            at: self.start.elapsed(),
            rss_kib: self.world.engine.resident_kib(),
            cpu: spent / (now - before).as_secs_f64().max(0.001) * 100.0,
            descriptors: self.world.engine.descriptors(),
            flows: services().map(|s| number(&s["flows"])).sum(),
            buffered: number(&status["buffered_bytes"]),
            up: Kind::ALL.into_iter().map(up).sum(),
            counters: COUNTERS.iter().map(|name| number(&status["counters"][*name])).collect(),
            drops: drops.map(|(_, n)| number(n)).sum(),
            queues: QUEUES.iter().map(|name| queue_total(&status, name)).collect(),
            resets: self.world.resets(),
            lost: progress.lost(),
            pieces: progress.pieces.load(Ordering::Relaxed),
            fault: progress.fault(),
        }
    }
}

/// utime and stime, proc(5): the 12th and 13th words after the program's name, which ends with a bracket.
fn processor_time(proc: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
    let words = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}
