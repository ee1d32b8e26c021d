//! The soak: one engine, three services, mixed load that never ends, and a fault every few seconds, for as long as is wanted.
//!
//! Clients do *pieces* of work ([`load`]), each on connections of its own and done within seconds: a connection that has lost three
//! machines in a row would have none left, since machines join for new connections only. A fault ([`fault`]) hits one machine, one link or the
//! engine's time; after it whatever was taken out is mended, emptied like a machine that comes out of repair, and enabled again. A
//! checker ([`world`]) asks each machine that was in service all the time for each piece. Meanwhile the daemon's memory, time, descriptors and counters are
//! sampled every second ([`sample`]).

pub mod fault;
pub mod load;
pub mod sample;
pub mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::campaign::judge;
use crate::campaign::run::keep_files;
use crate::lab::wait_for;
use fault::{Faults, Strike};
use load::Loads;
use sample::{Sample, Sampler};
use world::{Answer, World};

/// Time between two samples.
const TICK: Duration = Duration::from_secs(1);
/// How long the engine may take to forget the last connection: those of a machine that was cut off are waited for.
const FORGET: Duration = Duration::from_secs(30);
/// The most of the run that counts as warm-up, and the most time.
const WARM_UP: (u32, Duration) = (5, Duration::from_secs(180));
/// Descriptors that may be open at the end beyond those at the start: an admin client may be on its way out.
const SPARE_DESCRIPTORS: u64 = 2;
/// KiB by which the daemon may be larger when all connections are forgotten than before the first: tables, the workers' batches, and what
/// the allocator does not give back of small blocks. The peak is tens of MiB above.
const LEFT_KIB: u64 = 12 << 10;
/// Wrong things told one by one; of the rest only the number.
const TOLD: usize = 50;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long there is load.
    pub length: Duration,
    /// Draws faults and their victims. Kernels don't replay, so it does not give the same run again.
    pub seed: u64,
    /// From one fault to the next.
    pub cycle: Duration,
    /// KiB by which the daemon's memory may be larger in the last fifth than in the warm-up, the middle of all seconds against the middle.
    pub slack_kib: u64,
}

/// What everybody counts while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pieces that the clients have finished.
    pub pieces: AtomicU64,
    /// Pieces that machines were asked for, and held.
    held: AtomicU64,
    /// Pieces that no machine could be asked for: none was in service all the time.
    nobody: AtomicU64,
    /// Pieces that leave nothing on the machines.
    nothing: AtomicU64,
    /// Faults so far.
    pub faults: AtomicU64,
    /// The load is to end.
    pub stop: AtomicBool,
    wrong: std::sync::Mutex<(u64, Vec<String>)>,
    now: std::sync::Mutex<String>,
}

impl Progress {
    /// Something was lost.
    pub fn lose(&self, what: String) {
        let mut wrong = self.wrong.lock().expect("nobody panics with it");
        wrong.0 += 1;
        if wrong.1.len() < TOLD {
            wrong.1.push(what);
        }
    }
    /// Where pieces are counted by what the machines said.
    pub fn answers(&self, answer: Answer) -> &AtomicU64 {
        match answer {
            Answer::Held => &self.held,
            Answer::NobodyToAsk => &self.nobody,
            Answer::NothingToAsk => &self.nothing,
        }
    }
    /// How much was lost.
    pub fn lost(&self) -> u64 {
        self.wrong.lock().expect("nobody panics with it").0
    }
    /// What goes wrong at the moment; empty if nothing.
    pub fn fault(&self) -> String {
        self.now.lock().expect("nobody panics with it").clone()
    }
    fn set_fault(&self, fault: &str) {
        fault.clone_into(&mut self.now.lock().expect("nobody panics with it"));
    }
    /// Whether to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// Rests, but not past the end.
    pub fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.stopped() && Instant::now() < end {
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(20)));
        }
    }
}

/// How many pieces of work there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pieces {
    /// That clients have finished, or failed in.
    pub done: u64,
    /// That machines were asked for, and held.
    pub held: u64,
    /// That no machine could be asked for.
    pub nobody: u64,
    /// That leave nothing on the machines.
    pub nothing: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Pieces lost, and their number: told one by one only up to a number.
    pub lost: (u64, Vec<String>),
    /// RSTs that have reached the client.
    pub resets: u64,
    /// What does not balance, or was left behind.
    pub books: Vec<String>,
    /// The daemon's resident memory in the warm-up, and in the last fifth: medians over the seconds, in KiB. It swings by the buffers
    /// that a slow machine needs for a moment, so the greatest value of a span is a matter of chance.
    pub memory: (u64, u64),
    /// It before the first connection.
    pub at_start_kib: u64,
    /// The warm-up's length.
    pub warm_up: Duration,
    /// Every fault.
    pub strikes: Vec<Strike>,
    /// One a second.
    pub samples: Vec<Sample>,
    /// Pieces of work.
    pub pieces: Pieces,
    slack_kib: u64,
    length: Duration,
}

impl Outcome {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.lost.0 == 0 && self.resets == 0 && self.books.is_empty() && !self.has_grown()
    }
    /// By how much memory may grow.
    pub fn slack_kib(&self) -> u64 {
        self.slack_kib
    }
    /// Memory has grown beyond the bound.
    pub fn has_grown(&self) -> bool {
        self.memory.1 > self.memory.0 + self.slack_kib
    }
    fn weigh(&mut self, plan: &Plan) {
        self.warm_up = (plan.length / WARM_UP.0).min(WARM_UP.1);
        let median = |samples: &mut dyn Iterator<Item = &Sample>| {
            let mut all: Vec<u64> = samples.map(|s| s.rss_kib).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        // The last sample is the one without a connection. Of a span too short for a second, the nearest counts.
        let loaded = &self.samples[..self.samples.len().saturating_sub(1)];
        let end = plan.length - plan.length / 5;
        let warm = loaded.iter().take_while(|s| s.at <= self.warm_up).count().max(1);
        let rest = loaded.iter().rev().take_while(|s| s.at >= end).count().max(1);
        self.memory = (
            median(&mut loaded.iter().take(warm)),
            median(&mut loaded.iter().rev().take(rest)),
        );
    }
}

/// The closing line.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.length.as_secs_f64() / 60.0;
        let faults = self.strikes.len();
        let ((lost, _), resets, (before, after)) = (&self.lost, self.resets, self.memory);
        write!(
            f,
            "soak: {minutes:.*} minutes, {faults} faults, {lost} lost, {resets} reset, rss {before}->{after} KiB",
            usize::from(minutes < 1.0)
        )?;
        if self.has_grown() {
            write!(f, " (more than {} KiB of growth)", self.slack_kib)?;
        }
        if !self.books.is_empty() {
            write!(f, ", {} unbalanced", self.books.len())?;
        }
        Ok(())
    }
}

/// Carries it out; `watch` hears of each sample. If anything is wrong, logs and status are kept in `keep`.
pub fn run(plan: &Plan, keep: &Path, mut watch: impl FnMut(&Sample, &Progress)) -> Outcome {
    let mut outcome = Outcome {
        slack_kib: plan.slack_kib,
        length: plan.length,
        ..Outcome::default()
    };
    let world = Arc::new(World::new());
    let progress = Arc::new(Progress::default());
    // The lab panics where a test would: here that is something wrong in this run.
    let result = catch_unwind(AssertUnwindSafe(|| {
        story(plan, &world, &progress, &mut outcome, &mut watch);
    }));
    progress.stop.store(true, Ordering::Relaxed);
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        progress.lose(format!("stopped: {}", text.unwrap_or("unknown")));
    }
    outcome.lost = progress.wrong.lock().expect("nobody panics with it").clone();
    outcome.resets = world.resets();
    outcome.weigh(plan);
    if !outcome.is_good() {
        let text = format!(
            "{outcome}\n{:#?}\n{:#?}\n{:#?}\n",
            outcome.lost, outcome.books, outcome.strikes
        );
        let kept = keep_files(world.lab.dir(), keep).and_then(|()| std::fs::write(keep.join("outcome"), text));
        if let Err(error) = kept {
            eprintln!("could not keep the files in {}: {error}", keep.display());
        }
    }
    outcome
}

fn story(
    plan: &Plan,
    world: &Arc<World>,
    progress: &Arc<Progress>,
    outcome: &mut Outcome,
    watch: &mut impl FnMut(&Sample, &Progress),
) {
    let start = Instant::now();
    let mut sampler = Sampler::new(world, start);
    let first = sampler.take(progress);
    outcome.at_start_kib = first.rss_kib;
    let loads = Loads::start(world, progress);
    let faults = Faults::start(world, progress, plan, start);
    while start.elapsed() < plan.length {
        std::thread::sleep(TICK.min(plan.length.saturating_sub(start.elapsed())));
        let sample = sampler.take(progress);
        watch(&sample, progress);
        outcome.samples.push(sample);
    }
    // Faults first: the clients' last pieces need machines.
    progress.stop.store(true, Ordering::Relaxed);
    outcome.strikes = faults.join();
    loads.join();
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    outcome.pieces = Pieces {
        done: count(&progress.pieces),
        held: count(&progress.held),
        nobody: count(&progress.nobody),
        nothing: count(&progress.nothing),
    };
    for wrong in world.knock() {
        progress.lose(wrong);
    }
    wait_for("the engine to forget all connections", FORGET, || {
        world.is_at_rest().then_some(())
    });
    let (status, books) = judge::books(&world.engine);
    outcome.books = books;
    let counter = |name: &str| status["counters"][name].as_u64();
    if counter("flows_opened") != counter("flows_closed") {
        let (opened, closed) = (counter("flows_opened"), counter("flows_closed"));
        outcome
            .books
            .push(format!("{opened:?} flows opened, {closed:?} closed, none left"));
    }
    let text = format!("{status:#}\n");
    std::fs::write(world.lab.dir().join("status.log"), text).expect("write the status");
    let last = sampler.take(progress);
    watch(&last, progress);
    if last.descriptors > first.descriptors + SPARE_DESCRIPTORS {
        let (before, after) = (first.descriptors, last.descriptors);
        outcome
            .books
            .push(format!("{before} descriptors at the start, {after} at the end"));
    }
    if last.rss_kib > first.rss_kib + LEFT_KIB {
        let (before, after) = (first.rss_kib, last.rss_kib);
        outcome.books.push(format!(
            "memory {before} KiB at the start, {after} KiB without a connection"
        ));
    }
    outcome.samples.push(last);
}
