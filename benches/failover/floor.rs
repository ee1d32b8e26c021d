//! What a killed process looks like without Relevo: how long its kernel takes to end ten thousand connections. A client that waits for one
//! of them knows nothing before its turn has come, so that is what a crash costs here whoever stands between.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::Family;
use crate::lab::capture::{Capture, FIN, RST, Segment};
use crate::lab::services::addresses;
use crate::sight::since_1970;
use crate::stage::{PORT, REST, Stage, wait_for_answers};

/// How long the ends may take to arrive.
const ENDS: Duration = Duration::from_millis(1_000);

/// Clients connect to a machine itself, by plain routing, and its service is killed: milliseconds from the kill to the first and to the last end that
/// a client saw, and how many saw one.
pub fn crash(stage: &mut Stage, connections: usize) -> anyhow::Result<Value> {
    let to = addresses(stage.lab.machines(), Family::V4, PORT)[0];
    let clients = stage.clients_of(to, connections)?;
    wait_for_answers(&clients, connections.clamp(20, 500) as u64, ENDS);
    let capture = Capture::start(stage.lab.client(), "eth0", stage.lab.dir());
    std::thread::sleep(REST);
    let struck = SystemTime::now();
    stage.signal(0, Signal::KILL);
    std::thread::sleep(ENDS);
    let seen = capture.stop();
    // They are lost, all of them: that is what Relevo is for.
    drop(clients.finish());
    let struck = since_1970(struck);
    // Each connection's first: what its client says later is refused again.
    let mut first_of = HashMap::new();
    let is_end = |s: &&Segment| s.sport == PORT && s.flags & (FIN | RST) != 0 && s.time > struck;
    for end in seen.iter().filter(is_end) {
        let ms = end.time.saturating_sub(struck).as_secs_f64() * 1e3;
        first_of.entry(end.dport).or_insert(ms);
    }
    let first = first_of.values().copied().reduce(f64::min);
    let last = first_of.values().copied().reduce(f64::max);
    stage.mend_services();
    Ok(json!({ "what": "floor", "flows": connections, "first_ms": first, "last_ms": last, "ended": first_of.len() }))
}
