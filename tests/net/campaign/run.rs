//! One run, from a lab of its own to what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::fault::{Nuisance, Strike, bad_link};
use super::plan::Plan;
use super::{judge, load};
use crate::lab::capture::{Capture, longest_pause};
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::services::addresses;
use crate::lab::{Lab, counters};

/// How long the clients may take to come to the fault's moment.
const WORK: Duration = Duration::from_secs(60);
/// Files longer than this are no logs and not kept.
const LONGEST_KEPT: u64 = 512 << 20;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What clients or machines lack, or have and should not.
    pub lost: Vec<String>,
    /// RSTs that have reached the client.
    pub resets: u64,
    /// What does not balance in the engine's books.
    pub books: Vec<String>,
    /// Flows that were taken over.
    pub takeovers: u64,
    /// The longest time in which a connection of the client's made no progress.
    pub pause: Duration,
    /// Packets that the kernel's queues have lost.
    pub queue_lost: u64,
    /// Machines that the engine counted as up at the end.
    pub live: usize,
    /// The fault came when the clients had ended already.
    pub late: bool,
    /// How long it all took.
    pub took: Duration,
}

impl Outcome {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.resets == 0 && self.books.is_empty()
    }

    /// As a line of a record.
    pub fn to_json(&self, plan: &Plan) -> serde_json::Value {
        json!({
            "seed": plan.seed, "fault": plan.fault.to_string(), "plan": plan.to_string(), "lost": self.lost, "resets": self.resets,
            "books": self.books, "takeovers": self.takeovers, "pause_ms": self.pause.as_secs_f64() * 1e3,
            "queue_lost": self.queue_lost, "live": self.live, "late": self.late, "took_s": self.took.as_secs_f64(),
        })
    }
}

/// Carries a plan out. If anything is wrong, and `keep` names a directory, logs, status and captures are kept there.
pub fn run(plan: &Plan, keep: Option<&Path>) -> Outcome {
    let start = Instant::now();
    let relayed: Vec<_> = plan.bad.iter().map(|(link, _)| *link).collect();
    let lab = Lab::with_relays(1, plan.machines, &relayed);
    let mut outcome = Outcome::default();
    // The lab panics where a test would: here that is something wrong in this run.
    let result = catch_unwind(AssertUnwindSafe(|| story(&lab, plan, &mut outcome)));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        outcome.lost.push(format!("stopped: {}", text.unwrap_or("unknown")));
    }
    outcome.resets = counters::resets_seen(lab.client());
    outcome.took = start.elapsed();
    if let Some(keep) = keep.filter(|_| !outcome.is_good()) {
        let text = format!("{plan}\n{outcome:#?}\n");
        let kept = keep_files(lab.dir(), keep).and_then(|()| std::fs::write(keep.join("outcome"), text));
        if let Err(error) = kept {
            eprintln!("could not keep the files of {plan} in {}: {error}", keep.display());
        }
    }
    outcome
}

fn story(lab: &Lab, plan: &Plan, outcome: &mut Outcome) {
    let capture = Capture::start(lab.client(), "eth0", lab.dir());
    let others: Vec<_> = lab
        .machines()
        .iter()
        .map(|host| Capture::start(host, "eth0", lab.dir()))
        .collect();
    let relay = bad_link(lab, plan);
    let mut load = load::prepare(lab, plan);
    let machines = addresses(lab.machines(), plan.family, load.port());
    let service = ServiceConfig::new("lab", lab.psc(plan.family, load.port()), &machines);
    let service = plan.config.iter().fold(service, |service, line| service.with(line));
    let engine = Engine::start(lab, &[service]);
    let nuisance = Nuisance::start(lab, plan, &engine);
    let strike = Strike::arm(lab, plan);

    load.begin();
    if strike.has_a_moment() {
        let start = Instant::now();
        while load.progress() < plan.moment && start.elapsed() < WORK {
            std::thread::sleep(Duration::from_micros(500));
        }
        outcome.late = load.progress() >= 1_000;
        strike.strike(load.as_ref(), &engine);
    }
    outcome.lost.extend(load.finish());
    drop(nuisance);

    outcome
        .lost
        .extend(load.knock().err().map(|e| format!("a new connection afterwards: {e}")));
    let (live, wrong) = judge::machines(load.as_ref(), &engine, plan, !outcome.lost.is_empty());
    outcome.live = live;
    outcome.lost.extend(wrong);
    let (status, books) = judge::books(&engine);
    let text = format!("{status:#}\n");
    std::fs::write(lab.dir().join("status.log"), text).expect("write the status");
    outcome.books = books;
    outcome.takeovers = status["counters"]["takeovers"].as_u64().unwrap_or(0);
    outcome.queue_lost = ["queue_dropped", "user_dropped"]
        .map(|name| judge::queue_total(&status, name))
        .iter()
        .sum();
    drop((relay, others));
    outcome.pause = longest_pause(&capture.stop(), load.port());
}

/// Copies logs, captures and configurations, those in directories of services, too.
pub fn keep_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let path: PathBuf = entry.path();
        let meta = entry.metadata()?;
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if meta.is_dir() {
            keep_files(&path, &to.join(entry.file_name()))?;
        } else if ["log", "pcap", "toml", "conf"].contains(&kind) && meta.len() < LONGEST_KEPT {
            std::fs::copy(&path, to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
