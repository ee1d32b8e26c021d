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
fn live_machines(status: &Value, plan: &Plan) -> Vec<usize> {
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

/// How many machines are live, and what is wrong with what they hold when all is quiet. Who is live is asked anew at each look: the
/// engine may still be about to take a machine out. Where the clients have failed already there is nothing to wait for.
pub fn machines(load: &dyn Load, engine: &Engine, plan: &Plan, failed: bool) -> (usize, Vec<String>) {
    let limit = if failed { Duration::ZERO } else { QUIET };
    let start = Instant::now();
    loop {
        let live = live_machines(&engine.status(), plan);
        if live.is_empty() {
            return (0, vec!["no machine is left".to_owned()]);
        }
        let held: Vec<_> = live.iter().map(|&m| load.held_by(m)).collect();
        if held.iter().all(|h| h.is_ok() && *h == held[0]) {
            return (live.len(), Vec::new());
        }
        if start.elapsed() > limit {
            let line = |(m, held): (&usize, &Result<String, String>)| format!("m{m} holds {held:?}");
            return (live.len(), live.iter().zip(&held).map(line).collect());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A status whose books balance: 10 packets in, 4 through, 6 dropped; 5 sent, 1 not; 2 more lost before they came in.
    fn balanced() -> Value {
        serde_json::json!({
            "counters": { "packets_in": 10, "accepted": 4, "originated": 6 },
            "drops": { "no_news": 5, "replica": 1 },
            "injected": 5, "inject_errors": { "unreachable": 1, "other": 0 },
            "queues": [
                { "packets": 7, "waiting": 0, "queue_dropped": 9, "user_dropped": 2, "truncated": 0, "receive_errors": 0 },
                { "packets": 5, "waiting": 0, "queue_dropped": 0, "user_dropped": 0, "truncated": 0, "receive_errors": 0 },
            ],
        })
    }

    #[test]
    fn each_missing_packet_is_missed() {
        assert_eq!(imbalances(&balanced()), Vec::<String>::new());
        for path in [
            "/counters/accepted",
            "/drops/replica",
            "/injected",
            "/inject_errors/unreachable",
            "/queues/1/packets",
        ] {
            let mut status = balanced();
            let value = status.pointer_mut(path).expect("a path of the status");
            *value = (number(value) - 1).into();
            assert_eq!(imbalances(&status).len(), 1, "one less at {path}");
        }
    }

    #[test]
    fn a_receive_error_may_be_a_lost_packet_or_none() {
        let mut status = balanced();
        status["queues"][0]["receive_errors"] = 1.into();
        assert!(imbalances(&status).is_empty());
        status["queues"][0]["packets"] = 8.into();
        assert!(imbalances(&status).is_empty());
        status["queues"][0]["packets"] = 9.into();
        assert_eq!(imbalances(&status).len(), 1);
    }
}
