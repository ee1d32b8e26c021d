//! Hostile traffic against the real binary: what strangers, insiders and floods must not achieve (R11, R18 to R20, R22).
//!
//! The attacker is the second client's host, or a machine's own namespace; its packets are made by hand (`lab::raw`) and claim whatever
//! source suits. Short forms run in `make test`. `HOSTILE_LONG=1` makes them long, and `HOSTILE_REPORT=FILE` gathers their figures:
//!
//!     HOSTILE_LONG=1 HOSTILE_REPORT=/tmp/figures cargo test --test net hostile -- --test-threads=1

mod blind;
mod flood;
mod garbage;
mod idle;
mod spoof;

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::Value;

use crate::lab::cluster::Cluster;
use crate::lab::counters;
use crate::lab::engine::Engine;

/// Whether the long forms are wanted.
fn long() -> bool {
    std::env::var_os("HOSTILE_LONG").is_some_and(|value| value != "0")
}

/// A figure for the record.
fn report(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("HOSTILE_REPORT") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("open HOSTILE_REPORT");
        writeln!(file, "{line}").expect("write HOSTILE_REPORT");
    }
}

/// The engine's drops and counters at one moment.
#[derive(Clone, Debug)]
struct Books(BTreeMap<String, u64>);

impl Books {
    fn of(engine: &Engine) -> Self {
        let status = engine.status();
        let all = ["counters", "drops"]
            .into_iter()
            .filter_map(|group| status[group].as_object());
        let numbers = all
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)));
        Self(numbers.collect())
    }

    /// One of them.
    fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name:?}"))
    }

    /// How much one of them has grown since.
    fn grown(&self, since: &Self, name: &str) -> u64 {
        self.get(name) - since.get(name)
    }
}

/// A number of the first service's report.
fn of_service(status: &Value, name: &str) -> u64 {
    status["services"][0][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name:?} in the status:\n{status:#}"))
}

/// Counts, on every machine, what would open a leg or end one. The engine's own probes come from port 9, and are none.
fn watch_legs(cluster: &Cluster) {
    for machine in cluster.lab.machines() {
        counters::watch(machine, "leg_syns", "tcp sport != 9 tcp flags & (syn | ack) == syn");
        counters::watch(machine, "leg_resets", "tcp sport != 9 tcp flags & rst == rst");
    }
}

/// No leg was reset, and each replica has seen the SYNs of so many legs and no other.
fn assert_legs_untouched(cluster: &Cluster, legs: u64) {
    for (i, machine) in cluster.lab.machines().iter().enumerate() {
        assert_eq!(
            counters::seen(machine, "leg_resets"),
            0,
            "RSTs have reached legs of m{i}"
        );
        // A SYN on a live connection is the original's to judge (R21); a replica never hears of it.
        if i > 0 {
            assert_eq!(counters::seen(machine, "leg_syns"), legs, "SYNs that have reached m{i}");
        }
    }
}

/// Nobody has lost anything: every machine is up, m0 is the original, no flow was taken over, lost or reset, no leg refused or evicted.
fn assert_unmoved(engine: &Engine, machines: usize) {
    let books = Books::of(engine);
    for name in [
        "takeovers",
        "flows_lost",
        "legs_evicted",
        "legs_refused",
        "legs_reset",
        "legs_ineligible",
        "resets_passed",
    ] {
        assert_eq!(books.get(name), 0, "{name}");
    }
    for machine in 0..machines {
        assert_eq!(engine.machine_state(machine), "up", "m{machine}");
    }
    assert_eq!(engine.original(), "m0");
}
