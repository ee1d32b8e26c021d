//! What an engine spends on a measurement, and whether its replicas came along.

use serde_json::Value;

use crate::lab::engine::Engine;
use crate::record::Sample;

/// What the status counts that says that fewer replicas than meant followed, and how it is called in the record.
pub const TROUBLE: [(&str, &str); 4] = [
    ("legs_trailed", "trailed"),
    ("legs_evicted", "evicted"),
    ("legs_ineligible", "ineligible"),
    ("takeovers", "takeovers"),
];

/// Of proc(5), a second (USER_HZ).
const TICKS: f64 = 100.0;

/// An engine's figures at the beginning of a measurement.
pub struct Meter<'a> {
    engine: &'a Engine,
    status: Value,
    cpu_ns: u64,
    user_ticks: u64,
}

impl<'a> Meter<'a> {
    /// Now.
    pub fn start(engine: &'a Engine) -> Self {
        let status = engine.status();
        Self {
            engine,
            status,
            cpu_ns: processor_time(engine),
            user_ticks: user_time(engine),
        }
    }

    /// Processor time since then, in microseconds: for each packet from the queues, for each of `units`, and what the engine has counted.
    /// Machines that were taken out are taken in again, for the next measurement.
    pub fn stop(self, units: f64) -> Sample {
        let us = (processor_time(self.engine) - self.cpu_ns) as f64 / 1e3;
        let user = (user_time(self.engine) - self.user_ticks) as f64 / TICKS * 1e6;
        let status = self.engine.status();
        let since = |name: &str| {
            let count = |status: &Value| status["counters"][name].as_u64().unwrap_or(0);
            (count(&status) - count(&self.status)) as f64
        };
        let mut sample = Sample::from([
            ("cpu_us_per_packet", us / since("packets_in")),
            ("user_us_per_packet", user / since("packets_in")),
            ("cpu_us_per_unit", us / units),
            ("packets_per_unit", since("packets_in") / units),
            ("engine_retransmissions", since("retransmissions")),
        ]);
        sample.extend(TROUBLE.map(|(counter, name)| (name, since(counter))));
        self.take_in_again(&status);
        sample
    }

    fn take_in_again(&self, status: &Value) {
        for service in status["services"].as_array().into_iter().flatten() {
            for machine in service["machines"].as_array().into_iter().flatten() {
                if machine["state"] != "up" {
                    let [service, machine] = [service, machine].map(|v| v["name"].as_str().unwrap_or_default());
                    self.engine.tell(&["machine", "enable", service, machine]);
                }
            }
        }
    }
}

/// utime of the process, proc(5): the 12th word after the program's name, which ends with a bracket. The kernel samples it, so it is coarse.
fn user_time(engine: &Engine) -> u64 {
    let path = format!("/proc/{}/stat", engine.pid().as_raw_nonzero());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
    let mut words = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    words.nth(11).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Of all threads of the engine, in nanoseconds (schedstat, its first word; in proc(5)'s ticks a short measurement would drown).
pub fn processor_time(engine: &Engine) -> u64 {
    let tasks = format!("/proc/{}/task", engine.pid().as_raw_nonzero());
    let entries = std::fs::read_dir(&tasks).unwrap_or_else(|e| panic!("list {tasks}: {e}"));
    let of_task = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok())
    };
    entries.flatten().filter_map(of_task).sum()
}
