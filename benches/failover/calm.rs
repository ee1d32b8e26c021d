//! What must not be taken for a death: a slow original, loss on its link, an engine that was not scheduled for a while.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::capture::Capture;
use crate::lab::counters;
use crate::lab::engine::Engine;
use crate::lab::faults::Link;
use crate::lab::relay::{Impairment, Relay};
use crate::sight;
use crate::stage::{MACHINES, Stage};

/// How long the load of one run lasts after its first answer.
const LENGTH: Duration = Duration::from_millis(800);
/// Connections.
const FLOWS: usize = 20;

/// The trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Slow,
    Lossy,
    Stopped,
}

impl Trouble {
    pub const ALL: [Self; 3] = [Self::Slow, Self::Lossy, Self::Stopped];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Lossy => "loss",
            Self::Stopped => "stopped",
        }
    }

    /// For readers.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Slow => "slow but alive: the original's link delays each packet by 100 ms, either way",
            Self::Lossy => "the original's link loses 5 % of its packets, either way",
            Self::Stopped => "the engine is stopped for 50 ms (SIGSTOP)",
        }
    }

    const fn impairment(self) -> Impairment {
        let (loss, delay) = match self {
            Self::Slow => (0, Duration::from_millis(100)),
            Self::Lossy => (50, Duration::ZERO),
            Self::Stopped => (0, Duration::ZERO),
        };
        Impairment {
            loss,
            delay,
            reorder: 0,
            late_by: Duration::ZERO,
            duplicate: 0,
        }
    }
}

/// So many runs of one trouble; `each` hears of every one.
pub fn run(trouble: Trouble, runs: u64, mut each: impl FnMut(&Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let link = Link::Machine(0);
    let mut stage = Stage::set_with(&[link], |lab| {
        Some(Relay::start(lab.relay(link), trouble.impairment(), 7))
    });
    let engine = stage.engine("");
    for _ in 0..runs {
        each(&one(&mut stage, &engine, trouble)?)?;
    }
    Ok(())
}

fn one(stage: &mut Stage, engine: &Engine, trouble: Trouble) -> anyhow::Result<Value> {
    let (began, resets) = (SystemTime::now(), counters::resets_seen(stage.lab.client()));
    let capture = Capture::start(stage.lab.client(), "eth0", stage.lab.dir());
    let clients = stage.clients(FLOWS)?;
    let start = Instant::now();
    if trouble == Trouble::Stopped {
        std::thread::sleep(LENGTH / 2);
        engine.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(50));
        engine.signal(Signal::CONT);
    }
    std::thread::sleep(LENGTH.saturating_sub(start.elapsed()));
    let lost = clients.finish();
    let states: Vec<String> = (0..MACHINES).map(|i| engine.machine_state(i)).collect();
    let wrong = engine.original() != "m0" || states[0] != "up";
    let evicted = states[1..].iter().filter(|state| *state != "up").count();
    for (i, state) in states.iter().enumerate() {
        if state != "up" {
            engine.enable(i);
        }
    }
    if wrong {
        engine.tell(&["failover", "lab", "--to", "m0"]);
    }
    let client = capture.stop();
    let resets = stage.resets_since(resets, &client);
    if resets > 0 {
        eprint!("{}", sight::resets(&client, began));
    }
    Ok(json!({
        "what": "calm", "trouble": trouble.name(), "false": u64::from(wrong), "evicted": evicted, "lost": lost.len(), "resets": resets,
        "wrong": lost.first(),
    }))
}
