//! `make campaign RUNS=n [SEED=s]`: the fault campaign; `make campaign-death RUNS=n [SEED=s]`: the engine killed under load.
//!
//! What a run is: `tests/net/campaign`. Run number i is drawn from the seed s + i, so `SEED=s+i RUNS=1` draws it again. Each run's line goes into
//! `bench-results/campaign-<date>-<commit>.jsonl`, and the table beside it is made anew of all its lines.
//!
//! The last line is `campaign: N runs, 0 lost, 0 reset` (exit code 0) only if nothing at all was wrong; with books that do not balance it
//! says so, and the exit code is 1 in any case.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests; the campaign uses its part"
)]
#[path = "../../tests/net/campaign/mod.rs"]
mod campaign;
#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and bench; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

mod record;

use std::path::PathBuf;
use std::process::ExitCode;

use campaign::death;
use campaign::plan::Plan;
use campaign::run::{Outcome, run};
use lab::arguments::{number, seed_of_the_clock};
use lab::program;
use record::Record;

const USAGE: &str = "usage: make campaign RUNS=n [SEED=s] or make campaign-death RUNS=n [SEED=s]; both are whole numbers, RUNS from 1 up";

/// `RUNS` without a value.
const RUNS: u64 = 20;

fn main() -> ExitCode {
    let (Some(runs), Some(seed)) = (number("RUNS", 1, || RUNS), number("SEED", 0, seed_of_the_clock)) else {
        return program::misused(USAGE);
    };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let death = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["death"] => true,
        _ => {
            return program::misused(USAGE);
        }
    };
    if seed.checked_add(runs).is_none() {
        return program::misused(USAGE);
    }
    program::run(
        "campaign",
        || if death { deaths(runs, seed) } else { faults(runs, seed) },
    )
}

fn faults(runs: u64, seed: u64) -> anyhow::Result<bool> {
    println!("campaign: {runs} runs, SEED={seed}");
    let mut record = Record::open("campaign")?;
    let (mut lost, mut reset, mut unbalanced) = (0, 0, 0);
    for i in 0..runs {
        let outcome = one(&Plan::masked(seed + i), &mut record)?;
        lost += u64::from(!outcome.lost.is_empty());
        reset += u64::from(outcome.resets > 0);
        unbalanced += u64::from(!outcome.books.is_empty());
    }
    println!("{}", record.write_table()?);
    let books = if unbalanced > 0 {
        format!(", {unbalanced} unbalanced")
    } else {
        String::new()
    };
    println!("campaign: {runs} runs, {lost} lost, {reset} reset{books}");
    Ok(lost + reset + unbalanced == 0)
}

fn one(plan: &Plan, record: &mut Record) -> anyhow::Result<Outcome> {
    println!("{plan}");
    let keep = PathBuf::from(format!("target/campaign/seed-{}", plan.seed));
    let outcome = run(plan, Some(&keep));
    println!(
        "  {}: {} flows taken over, longest pause {:.0} ms, {} machines live{}{}; {:.1} s",
        if outcome.is_good() { "good" } else { "WRONG" },
        outcome.takeovers,
        outcome.pause.as_secs_f64() * 1e3,
        outcome.live,
        if outcome.queue_lost > 0 {
            format!(", {} lost in the queues", outcome.queue_lost)
        } else {
            String::new()
        },
        if outcome.late { ", the fault came too late" } else { "" },
        outcome.took.as_secs_f64(),
    );
    for wrong in outcome.lost.iter().chain(&outcome.books) {
        println!("  WRONG: {}", wrong.chars().take(600).collect::<String>());
    }
    if outcome.resets > 0 {
        println!("  WRONG: {} resets have reached the client", outcome.resets);
    }
    if !outcome.is_good() {
        println!("  seed {}; logs, status and captures: {}", plan.seed, keep.display());
    }
    record.add(plan, &outcome)?;
    Ok(outcome)
}

fn deaths(runs: u64, seed: u64) -> anyhow::Result<bool> {
    println!("campaign-death: {runs} deaths, SEED={seed}");
    let deaths = death::run(runs, seed, |death| println!("  {death}"));
    let summary = death::Summary::of(&deaths);
    println!("{summary}");
    record::write_deaths(&deaths, &summary, seed)?;
    println!("campaign-death: {runs} deaths, {} wrong", summary.wrong);
    Ok(summary.wrong == 0)
}
