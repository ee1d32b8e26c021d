//! The questions at the end of each run.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Load;
use super::plan::{Fault, Plan};
use crate::lab::engine::Engine;

/// How long the machines may take to come to the end of what the client has finished.
const QUIET: Duration = Duration::from_secs(20);
/// How long the engine's books may take to be balanced: they are read while it works.
const BALANCE: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The machines that must be identical: all that the engine counts as up. Two kinds of fault leave a machine that is no longer
/// what it was, though its kernel answers: a crashed service, and a machine frozen for good that nobody has missed yet.
pub fn live_machines(status: &Value, plan: &Plan) -> Vec<usize> {
    let dead = match plan.fault {
        Fault::Crash(_) | Fault::Freeze(_) | Fault::BadAndFreeze(_) | Fault::ForeignTablesAndFreeze => {
            Some(plan.target)
        }
        _ => None,
    };
    (0..plan.machines)
        .filter(|m| status["services"][0]["machines"][m]["state"] == "up" && Some(*m) != dead)
        .collect()
}

/// What is wrong with what these machines hold, when all is quiet.
pub fn machines(load: &dyn Load, live: &[usize]) -> Vec<String> {
    let start = Instant::now();
    loop {
        let held: Vec<_> = live.iter().map(|&m| load.held_by(m)).collect();
        if held.iter().all(|h| h.is_ok() && *h == held[0]) {
            return Vec::new();
        }
        if start.elapsed() > QUIET {
            let line = |(m, held): (&usize, &Result<String, String>)| format!("m{m} holds {held:?}");
            return live.iter().zip(&held).map(line).collect();
        }
        std::thread::sleep(LOOK);
    }
}

/// What does not balance in the engine's books (I7): each packet that came in had one verdict, each that it wanted to send was sent or
/// counted as an error, and each that the kernel has queued came in or is known to be lost.
pub fn books(engine: &Engine) -> (Value, Vec<String>) {
    let start = Instant::now();
    loop {
        let status = engine.status();
        let wrong = imbalances(&status);
        if wrong.is_empty() || start.elapsed() > BALANCE {
            return (status, wrong);
        }
        std::thread::sleep(LOOK);
    }
}

fn imbalances(status: &Value) -> Vec<String> {
    let counter = |name: &str| number(&status["counters"][name]);
    let sum = |object: &Value| -> u64 { object.as_object().into_iter().flatten().map(|(_, n)| number(n)).sum() };
    let queues = |name: &str| queue_total(status, name);
    let mut wrong = Vec::new();
    let (packets, accepted, drops) = (counter("packets_in"), counter("accepted"), sum(&status["drops"]));
    if packets != accepted + drops {
        wrong.push(format!("packets in {packets}, accepted {accepted}, dropped {drops}"));
    }
    let (originated, sent, errors) = (
        counter("originated"),
        number(&status["injected"]),
        sum(&status["inject_errors"]),
    );
    if originated != sent + errors {
        wrong.push(format!("originated {originated}, sent {sent}, not sent {errors}"));
    }
    // Receiving fails with a packet's loss, or only tells that the packet of a verdict was gone: between none and all are losses.
    let (queued, lost, errors) = (
        queues("packets"),
        queues("waiting") + queues("user_dropped") + queues("truncated"),
        queues("receive_errors"),
    );
    if queued < packets + lost || queued > packets + lost + errors {
        wrong.push(format!(
            "queued {queued}, packets in {packets}, waiting or lost {lost}, receive errors {errors}"
        ));
    }
    wrong
}

/// The sum over all packet queues.
pub fn queue_total(status: &Value, name: &str) -> u64 {
    status["queues"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|queue| number(&queue[name]))
        .sum()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
