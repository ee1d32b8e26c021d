//! `make bench-engine`: the pure engine, without kernel or network: processor time for each packet, and for each flow of a takeover.
//!
//! - `forward`: one machine, no replicas: a request of 100 bytes, an answer of 1,000, an acknowledgement; time for each packet;
//! - `replicate`: the same with three replicas, whose packets count as well;
//! - `takeover`: the original of 1,000 flows dies, each with an answer to come that the replicas have given; time for each flow, the packets made.
//!
//! Only the engine's part is timed. criterion compares with the last run on this machine; a median that is more than [`TOLERATED`] slower is an
//! error, as is any allocation in `forward` or `replicate`. The last line is
//! `engine: forward_ns=… replicate3_ns=… takeover_ns=… allocations=0`.

#[allow(dead_code, reason = "shared with the test; each uses its part")]
#[path = "../tests/steady/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with the test; each uses its part")]
#[path = "../tests/steady/counting.rs"]
mod counting;
#[allow(
    dead_code,
    reason = "shared with the test and the failover bench; each uses its part"
)]
#[path = "failover/pure.rs"]
mod pure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster::Cluster;
use counting::CALLS;
use criterion::Criterion;
use relevo::engine::MaxLag;

/// The rounds after which buffers have found their size.
const WARM: usize = 1_000;
/// Flows of a takeover.
const FLOWS: u16 = 1_000;
/// How much slower than last time the median may be: noise of a machine that does other things as well.
const TOLERATED: f64 = 0.25;

fn main() -> ExitCode {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .without_plots()
        .configure_from_args();
    let allocations = packets(&mut criterion, "forward", 1) + packets(&mut criterion, "replicate", 4);
    takeovers(&mut criterion);
    criterion.final_summary();
    match closing(allocations) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Time for each packet with so many machines; returns the allocations.
fn packets(criterion: &mut Criterion, name: &str, machines: usize) -> u64 {
    let mut cluster = Cluster::established(machines, MaxLag::Bytes(0));
    (0..WARM).for_each(|n| cluster.round(n));
    CALLS.set(0);
    let mut number = WARM;
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|packets| {
            // Whole rounds are played; their time is scaled to the packets asked for.
            (cluster.spent, cluster.packets) = (Duration::ZERO, 0);
            while u64::from(cluster.packets) < packets {
                cluster.round(number);
                number += 1;
            }
            cluster.spent.mul_f64(packets as f64 / f64::from(cluster.packets))
        });
    });
    CALLS.get()
}

/// Time for each flow of a takeover.
fn takeovers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("takeover");
    group.sample_size(10);
    group.bench_function("flow", |bencher| {
        bencher.iter_custom(|flows| {
            let passes = flows.div_ceil(u64::from(FLOWS)).max(1);
            let spent: Duration = (0..passes)
                .map(|_| pure::takeover(FLOWS, 3))
                .map(|pass| pass.command + pass.poll)
                .sum();
            spent.mul_f64(flows as f64 / (passes * u64::from(FLOWS)) as f64)
        });
    });
    group.finish();
}

/// The last line, and whether all is as it should be.
fn closing(allocations: u64) -> Result<bool> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let results = target.join("criterion");
    let mut good = allocations == 0;
    let mut medians = Vec::new();
    for name in ["forward", "replicate", "takeover/flow"] {
        medians.push(median(&results.join(name).join("new")).with_context(|| format!("the result of {name}"))?);
        // There is no change yet after the first run.
        if let Ok(change) = median(&results.join(name).join("change"))
            && change > TOLERATED
        {
            eprintln!("engine: {name} takes {:.0} % longer than last time", change * 100.0);
            good = false;
        }
    }
    let [forward, replicate, takeover] = medians[..] else {
        anyhow::bail!("three results");
    };
    println!(
        "engine: forward_ns={forward:.0} replicate3_ns={replicate:.0} takeover_ns={takeover:.0} allocations={allocations}"
    );
    Ok(good)
}

/// What criterion has estimated: nanoseconds, or for a change the part by which it is slower.
fn median(folder: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(folder.join("estimates.json"))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"]
        .as_f64()
        .context("no median in it")
}
