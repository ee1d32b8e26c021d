//! The simulation: real TCP stacks around the pure engine, on a virtual clock, all chance drawn from one seed.
//!
//! `SIM_SEEDS=n` runs n schedules instead of 10,000, from `SIM_FIRST`: `make sim SEEDS=n FROM=seed` sets both. `SIM_SEED=n`
//! replays one; with `SIM_TRACE=1` it shows every packet of it, and with `PCAP=dir` writes what each link carried; a failing
//! seed's captures are written, too. `SIM_MINIMISE=1` takes away from a failing scenario what it does not need to fail.

mod app;
mod books;
mod cut;
mod dialogues;
mod gateway;
mod host;
mod layers;
mod minimise;
#[cfg(feature = "mutants")]
mod mutants;
mod nat;
mod net;
mod observer;
mod packet;
mod pcap;
mod quirks;
mod rng;
mod scenario;
mod script;
mod trace;
mod world;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use relevo::engine::{Counter, Engine};

use crate::books::Violation;
use crate::gateway::Gateway;
use crate::nat::Nat;
use crate::scenario::Scenario;
use crate::world::{Summary, World};

/// A failure: what was broken, and everything that helps to understand it.
pub struct Failure {
    /// What was broken.
    pub violation: Violation,
    /// The last packets, and everybody's state.
    pub report: String,
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Runs one world; a panic of the engine is a violation like any other.
fn run_world<G: Gateway>(mut world: World<G>, show: bool) -> Result<Summary, Failure> {
    world.trace.on = show;
    world.trace.whole = env("SIM_TRACE").is_some_and(|n| n > 0);
    let pcap = std::env::var_os("PCAP").filter(|dir| show && !dir.is_empty());
    if pcap.is_some() {
        world.capture();
    }
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text
            .or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Err(Violation { rule: "panic", text })
    });
    if let Some(dir) = pcap
        && let Err(error) = world.write_captures(dir.as_ref())
    {
        say(&format!("sim: captures: {error}"));
    }
    if show && world.trace.whole && result.is_ok() {
        say(&world.trace.show());
    }
    result.map_err(|violation| {
        // The state of something that panicked may be no longer fit to be described.
        let state = catch_unwind(AssertUnwindSafe(|| world.describe())).unwrap_or_default();
        Failure {
            violation,
            report: world.trace.show() + &state,
        }
    })
}

/// Runs a scenario around the engine.
pub fn run_engine(scenario: &Scenario, show: bool) -> Result<Summary, Failure> {
    let engine = Engine::new(scenario.engine_spec());
    run_world(World::new(scenario.clone(), engine, true), show)
}

/// Runs a scenario around a plain translator: it shows what the network alone does.
fn run_nat(scenario: &Scenario, show: bool) -> Result<Summary, Failure> {
    let nat = Nat::new(&scenario.engine_spec());
    run_world(World::new(scenario.clone(), nat, false), show)
}

/// Past the test harness's capture: seen also when all is well.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a scenario without a trace, and once more with one if it fails; says everything and returns the violation then.
pub fn run_shown(
    what: &str,
    scenario: &Scenario,
    run: fn(&Scenario, bool) -> Result<Summary, Failure>,
) -> Result<Summary, Violation> {
    let show_all = env("SIM_TRACE").is_some_and(|n| n > 0);
    let failure = match run(scenario, show_all) {
        Ok(summary) => return Ok(summary),
        Err(failure) => failure,
    };
    let scenario = &if env("SIM_MINIMISE").is_some() {
        minimise::minimise(scenario, failure.violation.rule, run)
    } else {
        scenario.clone()
    };
    let shown = run(scenario, true).err().unwrap_or(failure);
    say(&format!(
        "sim: {what}: {} violated: {}\n{scenario:#?}\n{}sim: {what}: {} violated: {}",
        shown.violation.rule, shown.violation.text, shown.report, shown.violation.rule, shown.violation.text
    ));
    Err(shown.violation)
}

/// What many runs amount to.
#[derive(Default)]
struct Total {
    runs: u64,
    packets: u64,
    takeovers: u64,
    excused: u64,
    limits: u64,
    evictions: u64,
    false_alarms: u64,
    super_packets: u64,
    crashes_left: u64,
    hung: u64,
    violations: Vec<(u64, &'static str)>,
}

fn run_seeds(
    first: u64,
    count: u64,
    draw: fn(u64) -> Scenario,
    run: fn(&Scenario, bool) -> Result<Summary, Failure>,
) -> Total {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Total::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let wanted = count == 1 && std::env::var_os("PCAP").is_some_and(|dir| !dir.is_empty());
            let result = run(&draw(seed), wanted);
            let mut total = total.lock().expect("no run panics while it holds the lock");
            total.runs += 1;
            match result {
                Ok(summary) => {
                    total.packets += summary.packets;
                    total.takeovers += summary.takeovers;
                    total.excused += summary.excused;
                    total.limits += summary.limits;
                    total.evictions += summary.evictions;
                    total.false_alarms += summary.false_alarms;
                    total.super_packets += summary.stats.get(Counter::SuperPackets);
                    total.crashes_left += summary.stats.get(Counter::CrashesLeft);
                    total.hung += summary.hung;
                }
                Err(failure) => total.violations.push((seed, failure.violation.rule)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut total = total.into_inner().expect("no run panics while it holds the lock");
    total.violations.sort_unstable();
    total
}

fn check_seeds(
    draw: fn(u64) -> Scenario,
    run: fn(&Scenario, bool) -> Result<Summary, Failure>,
    name: &str,
    count: u64,
) {
    if let Some(seed) = env("SIM_SEED") {
        let result = run_shown(&format!("seed {seed}"), &draw(seed), run);
        say(&format!("{name}: seed {seed}: {result:?}"));
        assert!(result.is_ok());
        return;
    }
    let began = std::time::Instant::now();
    let total = run_seeds(
        env("SIM_FIRST").unwrap_or(1),
        env("SIM_SEEDS").unwrap_or(count),
        draw,
        run,
    );
    // The first of each kind is shown whole.
    let mut kinds: Vec<&str> = Vec::new();
    for (seed, rule) in &total.violations {
        if !kinds.contains(rule) {
            kinds.push(rule);
            let _ = run_shown(&format!("seed {seed}"), &draw(*seed), run);
            say(&format!(
                "{name}: replay with SIM_SEED={seed} cargo test --test sim {name}, or make sim FROM={seed} SEEDS=1"
            ));
        }
    }
    say(&format!(
        "{name}: {} packets, {} super-packets, {} takeovers, {} of them out of a crash, {} machines found hung, {} evictions, {} false alarms, {} flows without a survivor, {} at a known limit, {:.1} s",
        total.packets,
        total.super_packets,
        total.takeovers,
        total.crashes_left,
        total.hung,
        total.evictions,
        total.false_alarms,
        total.excused,
        total.limits,
        began.elapsed().as_secs_f64()
    ));
    for (seed, rule) in &total.violations {
        say(&format!("{name}: failed: seed {seed}: {rule}"));
    }
    say(&format!(
        "{name}: {} schedules, {} violations",
        total.runs,
        total.violations.len()
    ));
    assert!(
        total.violations.is_empty(),
        "seeds {:?}",
        total.violations.iter().take(20).collect::<Vec<_>>()
    );
}

#[test]
fn sim() {
    check_seeds(Scenario::from_seed, run_engine, "sim", 10_000);
}

/// The same network around a plain translator, without machines that fail: what goes wrong here is not the engine's.
#[test]
fn nat() {
    let draw = |seed| {
        let mut s = Scenario::from_seed(seed);
        s.faults.clear();
        s.machines.truncate(1);
        // Without an engine nobody ends a machine's old connection when the client reuses its port.
        s.flows
            .iter_mut()
            .zip(50_000..)
            .for_each(|(flow, port)| flow.port = port);
        s.service.source = relevo::engine::SourceMode::Psc;
        s
    };
    check_seeds(draw, run_nat, "nat", 300);
}
