//! Medians, the closing line, and the files in bench-results.

use anyhow::{Context as _, Result};

use crate::Way;
use crate::lab::surroundings::Surroundings;

/// What a reader must not conclude from the figures.
const NOT_SHOWN: &str = "Namespaces on one machine with veth links, everything that matters on one core: the figures compare the cost of \
the ways in processor time and wake-ups, under one client with one request in flight. They say nothing of real networks' latency, of \
throughput, of many connections, or of the tail. Absolute times drift with the machine's speed; only the ratios count. The routed way \
passes the same host with the engine's rules loaded, which do not match it. The queue way has no engine at all: the packet goes to a program that \
gives it back unread, by the engine's own queue code. It is what that code can come down to, not a proof that no other could do better. Both cores poll when idle \
(/dev/cpu_dma_latency), since this virtual machine takes some 50 µs to wake a halted one.";

/// A way's figures against the routed way's.
struct Row<'a> {
    way: &'a Way,
    median_us: f64,
    ratio: f64,
    /// Least and greatest ratio of one round to the routed way's figure in the same round.
    spread: (f64, f64),
}

/// Writes `bench-results/rtt-<date>-<commit>.{md,json}`; returns the closing line.
pub fn write(ways: &[Way], rounds: u64, seconds: u64, other_core: &str) -> Result<String> {
    let routed = &ways[0];
    let rows: Vec<Row> = ways
        .iter()
        .map(|way| {
            let ratios = || way.rtt_us.iter().zip(&routed.rtt_us).map(|(rtt, base)| rtt / base);
            Row {
                way,
                median_us: median(&way.rtt_us),
                ratio: median(&way.rtt_us) / median(&routed.rtt_us),
                spread: (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max)),
            }
        })
        .collect();
    let surroundings = Surroundings::read();
    let closing = closing_line(&rows);
    let how = format!(
        "{}-byte TCP ping-pong (sockperf), {rounds} rounds of {seconds} s a way, the ways taking turns; client, engine and \
         original on core 0, replicas' servers on core {other_core} (relevo3-same: on core 0).",
        crate::MESSAGE
    );
    let json = serde_json::to_string_pretty(&json(&rows, &surroundings, &how))?;
    for (extension, text) in [
        ("md", markdown(&rows, &surroundings, &how, &closing)),
        ("json", json + "\n"),
    ] {
        let path = surroundings.file("rtt", extension).context("make bench-results")?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(closing)
}

/// `rtt: routed=1.00 relevo0=... relevo3=...`
fn closing_line(rows: &[Row]) -> String {
    let shown = rows
        .iter()
        .filter(|row| !matches!(row.way.name, "relevo3-same" | "relevo3-off" | "queue"));
    let ratios: Vec<String> = shown.map(|row| format!("{}={:.2}", row.way.name, row.ratio)).collect();
    format!("rtt: {}", ratios.join(" "))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn markdown(rows: &[Row], surroundings: &Surroundings, how: &str, closing: &str) -> String {
    let mut text = format!(
        "{}\n\n{how}\n\n{surroundings}\n\n\
         | way | median RTT, µs | ratio of medians | rounds' ratios, least to greatest |\n|---|---|---|---|\n",
        surroundings.title("Round-trip time")
    );
    for Row {
        way,
        median_us,
        ratio,
        spread,
    } in rows
    {
        text += &format!(
            "| {}: {} | {median_us:.1} | {ratio:.2} | {:.2} to {:.2} |\n",
            way.name, way.what, spread.0, spread.1
        );
    }
    text + &format!("\nWhat it does not show: {NOT_SHOWN}\n\n    {closing}\n")
}

fn json(rows: &[Row], surroundings: &Surroundings, how: &str) -> serde_json::Value {
    let Surroundings {
        date,
        commit,
        kernel,
        processor,
    } = surroundings;
    let ways: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "way": row.way.name, "what": row.way.what, "median_us": row.median_us, "ratio": row.ratio,
                "least_ratio": row.spread.0, "greatest_ratio": row.spread.1, "rounds_us": row.way.rtt_us,
            })
        })
        .collect();
    serde_json::json!({
        "bench": "rtt", "date": date, "commit": commit, "kernel": kernel, "processor": processor, "how": how, "ways": ways,
        "not_shown": NOT_SHOWN,
    })
}
