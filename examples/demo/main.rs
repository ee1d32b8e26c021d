//! `make demo`: three loads, each with the original frozen in the middle, and what became of them.
//!
//! Client, engine host, the original m0 and the replicas m1 to m3 are network namespaces, each with its own TCP stack; redis-server and
//! nginx on the machines and redis-benchmark, redis-cli and curl on the client are Debian's. The freeze is "link set down" on
//! the original. Every act has a lab, an engine and services of its own.
//!
//! The last line is `demo: ok` (exit code 0) only if nothing at all was wrong; otherwise `demo: FAILED: why` (exit code 1).
//! `--through nat` puts plain address translation in the engine's place, to show that the demo finds out.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and bench; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

mod acts;
mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lab::program;
use report::Report;

/// One part of the demo, from a lab of its own to a column of the table.
type Act = fn(Through) -> Report;

/// What stands between client and machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    Relevo,
    Nat,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let through = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--through", "relevo"] => Through::Relevo,
        ["--through", "nat"] => Through::Nat,
        _ => {
            return program::misused("usage: demo [--through relevo|nat]");
        }
    };
    program::run("demo", || {
        let result = run(through);
        match &result {
            Ok(()) => println!("demo: ok"),
            Err(why) => println!("demo: FAILED: {why}"),
        }
        Ok(result.is_ok())
    })
}

fn run(through: Through) -> Result<(), String> {
    let start = Instant::now();
    println!(
        "Relevo's main job: a client, an engine host, four machines (m0 is the original, m1 to m3 are live replicas)."
    );
    println!("In each act the original's link is set down in the middle of the client's work.\n");
    let acts: [(&str, Act); 3] = [
        ("1 of 3: a redis load", acts::redis_load),
        ("2 of 3: an upload of 256 MiB to nginx (curl -T)", acts::upload),
        ("3 of 3: a download of 256 MiB from nginx (curl)", acts::download),
    ];
    let mut reports = Vec::new();
    for (title, act) in acts {
        println!("act {title}");
        let report = caught(|| act(through))?;
        println!();
        reports.push(report);
    }
    report::print_table(&reports);
    println!(
        "\n{:.0} s in all. How each figure is measured: docs/testing.md",
        Duration::as_secs_f64(&start.elapsed())
    );
    let problems: Vec<String> = reports
        .iter()
        .flat_map(|r| r.problems.iter().map(move |p| format!("{}: {p}", r.title)))
        .collect();
    match &problems[..] {
        [] => Ok(()),
        [only] => Err(only.clone()),
        [first, rest @ ..] => Err(format!("{first} (and {} more above)", rest.len())),
    }
}

/// The lab panics where a test would; here that is the reason why the demo failed.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static MESSAGE: Mutex<String> = Mutex::new(String::new());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("unknown").to_owned();
        if let Ok(mut message) = MESSAGE.lock() {
            *message = text;
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(usual);
    result.map_err(|_| MESSAGE.lock().map(|m| m.clone()).unwrap_or_default())
}
