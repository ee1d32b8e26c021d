//! `make bench`, and its rungs `make bench-rtt`, `bench-bulk`, `bench-conn`, `bench-scale`, `bench-options`: what Relevo costs, against what else could stand in its place.
//!
//! Every way from a client to a server (`ways`) is set up in network namespaces (`stage`, `peers`), and measured once in each round (`rounds`):
//!
//! - `rtt`: round trips of 64 bytes and of 1 KB;
//! - `bulk`: one stream up and down, and what is retransmitted;
//! - `conn`: new connections a second;
//! - `scale`: 1 to 10,000 connections at once, memory a connection, an idle engine;
//! - `options`: what the workers' settings bring (only where it is asked for).
//!
//! Client, engine or proxy, and the original's server are pinned to core 0, replicas to the other one: across cores each wake-up costs more than
//! what is to be measured. Ratios of medians are what counts; `record` keeps them with every round, `plot` draws them.
//!
//! `WHAT=rtt,bulk` (default: all but `options`), `ROUNDS` (from 3), `SECONDS` (default 1, of each figure of each round) and `WAYS=routed,relevo0` may be set in the
//! environment. A run of some ways only shows its figures and records none.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and demo; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

mod awake;
mod bulk;
mod client;
mod conn;
mod figures;
mod floor;
mod meter;
mod options;
mod peers;
mod plot;
mod record;
mod rounds;
mod rtt;
mod scale;
mod server;
mod several;
mod stage;
mod ways;

use std::process::ExitCode;

use anyhow::Context as _;
use lab::arguments::{list, number};
use lab::program;
use rounds::Length;

/// A rung: its name, its rounds without `ROUNDS`, and what runs it.
type Rung = (&'static str, u64, fn(Length, Option<&[String]>) -> anyhow::Result<()>);

/// The last one only runs where it is asked for: what it compares are settings, not ways that anybody would choose from.
const RUNGS: [Rung; 5] = [
    (rtt::BENCH.name, rtt::BENCH.rounds, |length, ways| {
        rtt::BENCH.run(length, ways)
    }),
    (bulk::BENCH.name, bulk::BENCH.rounds, |length, ways| {
        bulk::BENCH.run(length, ways)
    }),
    (conn::BENCH.name, conn::BENCH.rounds, |length, ways| {
        conn::BENCH.run(length, ways)
    }),
    ("scale", scale::ROUNDS, scale::run),
    (options::BENCH.name, options::BENCH.rounds, |length, ways| {
        options::BENCH.run(length, ways)
    }),
];

fn main() -> ExitCode {
    if let Some(code) = program::as_service(server::serve) {
        return code;
    }
    let Some(choice) = Choice::of_environment() else {
        return program::misused(&usage());
    };
    program::run("bench", || choice.climb())
}

fn usage() -> String {
    format!(
        "usage: make bench [WHAT={}] [ROUNDS=n] [SECONDS=n] [WAYS={}]; ROUNDS is a whole number from 3 up, SECONDS from 1 up",
        RUNGS.map(|(name, ..)| name).join(","),
        ways::ALL.map(|way| way.name).join(",")
    )
}

/// What is to be run.
struct Choice {
    rungs: Vec<Rung>,
    rounds: Option<u64>,
    seconds: u64,
    ways: Option<Vec<String>>,
}

impl Choice {
    fn climb(&self) -> anyhow::Result<bool> {
        program::raise_descriptor_limit();
        let _awake = awake::keep_cores_awake();
        for &(name, rounds, run) in &self.rungs {
            let length = Length {
                rounds: self.rounds.unwrap_or(rounds),
                seconds: self.seconds,
            };
            run(length, self.ways.as_deref()).context(name)?;
        }
        Ok(true)
    }

    /// `None` if something makes no sense.
    fn of_environment() -> Option<Self> {
        let rounds = number("ROUNDS", 3, || 0)?;
        let rungs = match list("WHAT") {
            None => RUNGS[..RUNGS.len() - 1].to_vec(),
            Some(names) => {
                let named = |name: &String| RUNGS.into_iter().find(|rung| rung.0 == name);
                names.iter().map(named).collect::<Option<_>>()?
            }
        };
        let ways = list("WAYS");
        let known = |name: &String| ways::ALL.iter().any(|way| way.name == name);
        ways.iter().flatten().all(known).then_some(Self {
            rungs,
            rounds: (rounds > 0).then_some(rounds),
            seconds: number("SECONDS", 1, || 1)?,
            ways,
        })
    }
}
