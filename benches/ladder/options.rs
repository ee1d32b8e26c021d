//! What the settings of the workers' threads bring to a round trip: `worker_cpus`, `busy_poll`, `realtime_priority`.
//!
//! Without `worker_cpus` the kernel chooses; with it the engine is on the client's core, or else client and original have the first core, the engine the other one for itself, as on a host with processors to spare: one that looks for packets where
//! everybody else runs would only take their time. With load, a program that never sleeps shares the engine's core.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::meter::Meter;
use crate::record::{Column, Sample};
use crate::rounds::{Bench, Length, Result};
use crate::rtt::{after, ping_pong};
use crate::stage::{Server, Stage, other_core};
use crate::ways::{By, Place, Way};

/// Bytes of request and answer.
const SIZE: &str = "64";

/// The bench.
pub const BENCH: Bench = Bench {
    name: "options",
    title: "How workers run",
    what: "TCP ping-pong of 64 bytes (sockperf), one request in flight, client and original on core 0, no replicas",
    ways: &[
        "routed",
        "relevo0-free",
        "relevo0-near",
        "relevo0-own",
        "relevo0-poll",
        "relevo0-rt",
        "relevo0-load",
        "relevo0-load-rt",
    ],
    base: "relevo0-own",
    server: Server::Sockperf,
    rounds: 5,
    columns: &[
        Column::compared("rtt_64_us", "64-byte round trip, median, µs", 1),
        Column::compared("p99_64_us", "64 bytes, p99, µs", 1),
        Column::compared("p999_64_us", "64 bytes, p99.9, µs", 1),
        Column::plain("cpu_us_per_packet", "engine's CPU a packet, µs", 2),
        Column::plain("user_us_per_packet", "of that in user mode (coarse), µs", 2),
    ],
    shown: &[
        "relevo0-own",
        "relevo0-free",
        "relevo0-near",
        "relevo0-poll",
        "relevo0-rt",
        "relevo0-load",
        "relevo0-load-rt",
    ],
    main: "rtt_64_us",
    measure,
    targets: |_| Vec::new(),
    beside: |_| String::new(),
    not_shown: "Many cores, where workers would be moved about more. Idle cores poll here, which makes a wake-up cheap: where they sleep, busy polling saves more.",
};

fn measure(stage: &Stage, way: &Way, length: Length) -> Result<Sample> {
    let meter = stage.engine(way).map(Meter::start);
    let said = beside_load(way, || ping_pong(stage, way, SIZE, length.seconds))?;
    let mut sample = meter.map_or_else(Sample::new, |meter| {
        meter.stop(after(&said, "ReceivedMessages=").unwrap_or(f64::NAN))
    });
    for (column, name) in [
        ("rtt_64_us", "percentile 50.000 ="),
        ("p99_64_us", "percentile 99.000 ="),
        ("p999_64_us", "percentile 99.900 ="),
    ] {
        let figure = after(&said, name).ok_or_else(|| format!("sockperf said:\n{said}"))?;
        sample.insert(column, figure);
    }
    Ok(sample)
}

/// With the program that never sleeps, if the way has one.
fn beside_load<T>(way: &Way, measure: impl FnOnce() -> T) -> T {
    let By::Relevo {
        place: Place::Alone { load: true, .. },
        ..
    } = way.by
    else {
        return measure();
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut cores = CpuSet::new();
            cores.set(other_core().parse().expect("a core's number"));
            sched_setaffinity(None, &cores).expect("stay on one core");
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        measured
    })
}
