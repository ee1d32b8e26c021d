//! `make soak MINUTES=n [SEED=s]`: one engine under mixed load, with a fault every few seconds, for n minutes.
//!
//! What goes on: `tests/net/soak`. Every second's figures go into `bench-results/soak-<date>-<commit>.csv`, and at the end a record (`.md`) and a
//! plot (`.svg`) beside it.
//!
//! The last line is `soak: N minutes, F faults, 0 lost, 0 reset, rss A->B KiB`, A and B being the daemon's memory in the warm-up (the first fifth, three
//! minutes at most) and in the last fifth, medians of all seconds. The exit code is 0 only if nothing was lost or reset, memory has not grown beyond the bound, and the counters balance.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests; the soak uses its part"
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
#[allow(dead_code, reason = "shared with tests; the soak uses its part")]
#[path = "../../tests/net/soak/mod.rs"]
mod soak;

mod plot;
mod record;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use lab::arguments::{number, seed_of_the_clock};
use lab::program;
use record::Record;
use soak::sample::Sample;
use soak::{Plan, Progress};

const USAGE: &str = "usage: make soak MINUTES=n [SEED=s]; both are whole numbers, MINUTES from 1 up";
/// `MINUTES` without a value.
const MINUTES: u64 = 30;
/// From one fault to the next.
const CYCLE: Duration = Duration::from_secs(10);
/// How much the daemon's memory may grow after the warm-up, in KiB. In half an hour some hundred thousand connections are opened: to lose 40
/// bytes with each would be found.
const SLACK_KIB: u64 = 4_096;
/// Where there is no terminal, progress is told every so many seconds.
const TELL_EVERY: u64 = 10;

fn main() -> ExitCode {
    let (Some(minutes), Some(seed)) = (number("MINUTES", 1, || MINUTES), number("SEED", 0, seed_of_the_clock)) else {
        return program::misused(USAGE);
    };
    let length = minutes.checked_mul(60).map(Duration::from_secs);
    let Some(length) = length.filter(|_| std::env::args().len() == 1) else {
        return program::misused(USAGE);
    };
    let plan = Plan {
        length,
        seed,
        cycle: CYCLE,
        slack_kib: SLACK_KIB,
    };
    program::run("soak", || soak(&plan))
}

fn soak(plan: &Plan) -> anyhow::Result<bool> {
    println!("soak: {} minutes, SEED={}", plan.length.as_secs() / 60, plan.seed);
    let mut record = Record::open()?;
    let keep = Path::new("target/soak").join(plan.seed.to_string());
    let mut failed = Ok(());
    let outcome = soak::run(plan, &keep, |sample, progress| {
        tell(plan, sample, progress);
        if failed.is_ok() {
            failed = record.add(sample);
        }
    });
    eprintln!();
    failed?;
    for wrong in outcome.lost.1.iter().chain(&outcome.books) {
        println!("WRONG: {}", wrong.chars().take(600).collect::<String>());
    }
    if !outcome.is_good() {
        println!("logs and status: {}", keep.display());
    }
    record.finish(plan, &outcome)?;
    println!("{outcome}");
    Ok(outcome.is_good())
}

/// The progress line.
fn tell(plan: &Plan, sample: &Sample, progress: &Progress) {
    let line = format!(
        "soak: {} s of {}, {} faults, {} pieces, {} lost, {} reset, rss {} KiB, {} flows, cpu {:.0} %{}{}",
        sample.at.as_secs(),
        plan.length.as_secs(),
        progress.faults.load(std::sync::atomic::Ordering::Relaxed),
        sample.pieces,
        sample.lost,
        sample.resets,
        sample.rss_kib,
        sample.flows,
        sample.cpu,
        if sample.fault.is_empty() { "" } else { ": " },
        sample.fault
    );
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let _ = write!(out, "\r{line}\x1b[K");
    } else if sample.at.as_secs().is_multiple_of(TELL_EVERY) {
        let _ = writeln!(out, "{line}");
    }
}
