//! `make bench-failover RUNS=n`: what a failure of the original costs the clients, by kind of failure, number of replicas and number of flows.
//!
//! Each run is one round for each kind and size: the clients connect, and the original dies three times, with three, two and one replica left
//! (`stage`). Before that the engine alone is measured (`pure`), after it the removal of replicas and what must not be taken for a death (`calm`).
//! `RUNS=` (default 5); `KINDS=frozen,link-down`, `FLOWS=1,100` and `PARTS=deaths,engine,floor,removal,calm` leave the others out.
//!
//! Every line goes into `bench-results/failover-<date>-<commit>.jsonl`; the tables (`.md`) and the plot (`.svg`) beside it are made anew of all lines of
//! the day and commit, so that several short runs make one record. `PICTURE=file` draws one takeover as a time line instead, and records nothing.
//!
//! The last line is `failover: runs=… lost=… reset=… false=… switch_p99_us=… gap_p99_ms=… hung_gap_p99_ms=…`, over the whole record; the exit code
//! is 0 only if nothing was lost, reset, taken over without need, or not noticed.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and demo; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

mod calm;
mod floor;
mod picture;
mod plot;
mod pure;
mod record;
mod service;
mod sight;
mod stage;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use calm::Trouble;
use lab::arguments::{beside, list, number, text};
use lab::program;
use record::{Record, SIZES};
use stage::{Kind, Stage};

const USAGE: &str = "usage: make bench-failover [RUNS=n] [KINDS=frozen,link-down,hung,crashed,closed,loss-to,loss-from] [FLOWS=1,100,10000] \
[PARTS=engine,floor,deaths,removal,calm]; RUNS is a whole number from 1 up";
/// `RUNS` without a value.
const RUNS: u64 = 5;
/// Runs of each trouble that must not lead to a takeover, for each of RUNS.
const CALM_EACH: u64 = 5;

/// What is to be done.
struct Choice {
    runs: u64,
    kinds: Vec<Kind>,
    sizes: Vec<usize>,
    parts: Vec<String>,
}

fn main() -> ExitCode {
    if let Some(code) = program::as_service(service::serve) {
        return code;
    }
    let Some(choice) = Choice::of_environment() else {
        return program::misused(USAGE);
    };
    program::run("failover", || {
        program::raise_descriptor_limit();
        match text("PICTURE") {
            Some(file) => picture::take(file.as_ref()).map(|()| true),
            None => measure(&choice),
        }
    })
}

impl Choice {
    fn of_environment() -> Option<Self> {
        let runs = number("RUNS", 1, || RUNS)?;
        let kinds = match list("KINDS") {
            None => Kind::ALL.to_vec(),
            Some(names) => names
                .iter()
                .map(|name| Kind::ALL.into_iter().find(|k| k.name() == name))
                .collect::<Option<_>>()?,
        };
        let sizes = match list("FLOWS") {
            None => SIZES.to_vec(),
            Some(names) => names
                .iter()
                .map(|name| name.parse().ok().filter(|n| SIZES.contains(n)))
                .collect::<Option<_>>()?,
        };
        let all = ["engine", "floor", "deaths", "removal", "calm"];
        let parts = list("PARTS").unwrap_or_else(|| all.map(str::to_owned).to_vec());
        let known = parts.iter().all(|part| all.contains(&part.as_str()));
        known.then_some(Self {
            runs,
            kinds,
            sizes,
            parts,
        })
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|p| p == part)
    }
}

fn measure(choice: &Choice) -> anyhow::Result<bool> {
    println!(
        "failover: {} runs of {:?} with {:?} flows",
        choice.runs, choice.kinds, choice.sizes
    );
    let mut record = Record::open()?;
    if choice.wants("engine") {
        engine_alone(choice, &mut record)?;
    }
    if choice.wants("floor") {
        floors(choice, &mut record)?;
    }
    if choice.wants("deaths") || choice.wants("removal") {
        let mut stage = Stage::set();
        if choice.wants("deaths") {
            deaths(choice, &mut stage, &mut record)?;
        }
        if choice.wants("removal") {
            removals(choice, &mut stage, &mut record)?;
        }
    }
    if choice.wants("calm") {
        for trouble in Trouble::ALL {
            let mut done = 0;
            calm::run(trouble, CALM_EACH * choice.runs, |line| {
                done += 1;
                progress(&format!(
                    "{}: run {done} of {}, false {}",
                    trouble.name(),
                    CALM_EACH * choice.runs,
                    line["false"]
                ));
                record.add(line)
            })?;
        }
    }
    progress("");
    let (closing, good) = record.finish(&beside())?;
    println!("{closing}");
    Ok(good)
}

fn engine_alone(choice: &Choice, record: &mut Record) -> anyhow::Result<()> {
    for _ in 0..choice.runs.min(5) {
        for replicas in 1..=3u16 {
            for flows in choice.sizes.iter().filter_map(|n| u16::try_from(*n).ok()) {
                let pass = pure::takeover(flows, replicas);
                let us = |time: std::time::Duration| time.as_secs_f64() * 1e6;
                progress(&format!(
                    "the engine alone, {replicas} replicas: {} flows in {:.0} us, {} packets made in {:.0} us",
                    pass.flows,
                    us(pass.command),
                    pass.packets,
                    us(pass.poll)
                ));
                record.add(&json!({
                    "what": "engine-takeover", "replicas": replicas, "flows": flows, "pass_us": us(pass.command),
                    "made_us": us(pass.command + pass.poll), "packets": pass.packets,
                }))?;
            }
        }
        let pass = pure::removal(10_000, 3);
        let each = (pass.command + pass.poll).as_secs_f64() * 1e6 / pass.flows as f64;
        progress(&format!("the engine alone: a replica removed, {each:.2} us a flow"));
        record.add(&json!({ "what": "engine-removal", "flows": pass.flows, "us_a_flow": each }))?;
    }
    Ok(())
}

fn deaths(choice: &Choice, stage: &mut Stage, record: &mut Record) -> anyhow::Result<()> {
    for &kind in &choice.kinds {
        let mut engine = stage.engine(kind.config());
        for &flows in &choice.sizes {
            for run in 1..=choice.runs {
                let log_before = engine.log().len();
                let round = stage.round(&engine, kind, flows, false)?;
                let unnoticed = round.deaths.iter().any(|death| death.takeover.is_none());
                if !round.lost.is_empty() || round.resets > 0 || unnoticed {
                    // What went wrong is worth more than a number.
                    eprintln!("{}", engine.log().get(log_before..).unwrap_or_default());
                    let began = round.deaths.first().map_or(std::time::UNIX_EPOCH, |death| death.struck);
                    eprint!("{}", sight::resets(&round.client, began));
                }
                for (i, death) in round.deaths.iter().enumerate() {
                    let sight = sight::of(&round.client, death, round.deaths.get(i + 1).map(|next| next.struck));
                    let mut line = record::death(kind, flows, death, sight, &round.client);
                    if i == 0 {
                        // A round's losses are seen at its end.
                        line["lost"] = (line["lost"].as_u64().unwrap_or(0) + round.lost.len() as u64).into();
                        line["resets"] = round.resets.into();
                        line["wrong"] = json!(round.lost.first());
                    }
                    record.add(&line)?;
                    let ms = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
                    progress(&format!(
                        "{} {flows} flows, run {run} of {}, {} replicas: detect {} us, redirect {} us, all sent {} us, gap {:.1} ms, {:.1} of it unasked, wait {:.1}, worst {:.1}{}",
                        kind.name(),
                        choice.runs,
                        death.replicas,
                        line["detect_us"],
                        line["redirect_us"],
                        line["switch_us"],
                        ms("gap_ms"),
                        ms("unasked_ms"),
                        ms("wait_ms"),
                        ms("worst_wait_ms"),
                        if round.lost.is_empty() {
                            ""
                        } else {
                            ", CONNECTIONS LOST"
                        },
                    ));
                }
            }
        }
        engine.stop();
    }
    Ok(())
}

fn floors(choice: &Choice, record: &mut Record) -> anyhow::Result<()> {
    let mut stage = Stage::set();
    for &flows in &choice.sizes {
        for _ in 0..choice.runs.min(10) {
            let line = floor::crash(&mut stage, flows)?;
            progress(&format!(
                "no Relevo, {flows} connections of a killed process: their ends after {:.1} to {:.1} ms",
                line["first_ms"].as_f64().unwrap_or(f64::NAN),
                line["last_ms"].as_f64().unwrap_or(f64::NAN)
            ));
            record.add(&line)?;
        }
    }
    Ok(())
}

fn removals(choice: &Choice, stage: &mut Stage, record: &mut Record) -> anyhow::Result<()> {
    let most = choice.sizes.iter().copied().max().context("some size")?;
    let mut engine = stage.engine("");
    for _ in 0..choice.runs.min(10) {
        for (legs, us) in stage.removals(&engine, most)? {
            progress(&format!("a replica removed from {legs} flows: {us:.2} us a flow"));
            record.add(&json!({ "what": "removal", "flows": legs, "us_a_flow": us }))?;
        }
    }
    engine.stop();
    Ok(())
}

/// One line that is written over; lines where there is no terminal.
fn progress(line: &str) {
    let mut out = std::io::stderr();
    let _ = if out.is_terminal() {
        write!(out, "\r{line}\x1b[K")
    } else {
        writeln!(out, "{line}")
    };
}
