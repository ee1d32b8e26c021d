//! Round trips of small requests: sockperf's TCP ping-pong, one request in flight.

use std::time::Duration;

use crate::lab::process::Process;
use crate::meter::Meter;
use crate::record::{Column, Rows, Sample, Target, percent};
use crate::rounds::{Bench, Length, Result};
use crate::stage::{CORE, Server, Stage};
use crate::ways::Way;

/// Bytes of request and answer, with the names of their figures: median, 99th percentile.
const SIZES: [(&str, &str, &str); 2] = [("64", "rtt_64_us", "p99_64_us"), ("1024", "rtt_1024_us", "p99_1024_us")];

/// Ways that are also asked for 1 KB: sockperf takes two seconds more than it measures, and all the ladder a quarter of an hour.
const LARGE_TOO: [&str; 7] = ["routed", "nat", "haproxy", "relevo0", "relevo1", "relevo2", "relevo3"];

/// Thesis, table 5.4, client to server: replicas, mean round trip in ms, degradation against none.
const THESIS_TO_SERVER: [(usize, f64, &str); 4] = [
    (0, 0.026_990, ""),
    (1, 0.048_890, "+81.16 %"),
    (2, 0.048_750, "+80.64 %"),
    (3, 0.050_710, "+87.92 %"),
];
/// Thesis, table 5.5, server to client, in ms. What the thesis prints as a degradation in per cent (388.86, 467.51, 628.76) is the quotient.
const THESIS_TO_CLIENT: [f64; 4] = [6.908_490, 26.864_44, 32.297_98, 43.437_67];

/// The bench.
pub const BENCH: Bench = Bench {
    name: "rtt",
    title: "Round-trip time",
    what: "TCP ping-pong of 64 and of 1,024 bytes (sockperf), one request in flight",
    ways: &[
        "routed",
        "queue",
        "nat",
        "dup1",
        "dup2",
        "dup3",
        "haproxy",
        "nginx",
        "socat",
        "relevo0",
        "relevo1",
        "relevo2",
        "relevo3",
        "relevo3-off",
        "relevo1s",
        "relevo2s",
        "relevo3s",
    ],
    base: "routed",
    server: Server::Sockperf,
    rounds: 5,
    columns: &[
        Column::compared("rtt_64_us", "64-byte round trip, median, µs", 1),
        Column::compared("rtt_1024_us", "1 KB round trip, median, µs", 1),
        Column::plain("p99_64_us", "64 bytes, p99, µs", 1),
        Column::plain("p99_1024_us", "1 KB, p99, µs", 1),
        Column::plain("cpu_us_per_packet", "engine's CPU a packet, µs", 2),
        Column::plain("user_us_per_packet", "of that in user mode (coarse), µs", 2),
        Column::plain("cpu_us_per_unit", "engine's CPU a round trip, µs", 2),
        Column::plain("packets_per_unit", "packets a round trip", 2),
    ],
    shown: &["routed", "nat", "haproxy", "relevo0", "relevo1", "relevo2", "relevo3"],
    main: "rtt_64_us",
    measure,
    targets,
    beside,
    not_shown: "The tail beyond p99; several requests in flight; real networks, whose latency dwarfs all of this.",
};

fn measure(stage: &Stage, way: &Way, length: Length) -> Result<Sample> {
    let mut sample = Sample::new();
    let sizes = if LARGE_TOO.contains(&way.name) {
        &SIZES[..]
    } else {
        &SIZES[..1]
    };
    for &(size, median, p99) in sizes {
        let meter = stage.engine(way).map(Meter::start);
        let said = ping_pong(stage, way, size, length.seconds)?;
        let figure = |name: &str| after(&said, name).ok_or_else(|| format!("sockperf said:\n{said}"));
        sample.insert(median, figure("percentile 50.000 =")?);
        sample.insert(p99, figure("percentile 99.000 =")?);
        // What the engine spends is that of the small ones.
        if let Some(spent) = meter.map(|meter| meter.stop(after(&said, "ReceivedMessages=").unwrap_or(f64::NAN))) {
            for (name, value) in spent {
                sample.entry(name).or_insert(value);
            }
        }
    }
    Ok(sample)
}

/// The number that follows the first `name`.
pub fn after(text: &str, name: &str) -> Option<f64> {
    let (_, rest) = text.split_once(name)?;
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}

/// What sockperf says.
pub fn ping_pong(stage: &Stage, way: &Way, size: &str, seconds: u64) -> Result<String> {
    let (lab, to) = (stage.lab(way), stage.target(way));
    let mut command = lab.client().command("taskset");
    command.args(["-c", CORE, "sockperf", "ping-pong", "--tcp", "--full-rtt", "-m", size]);
    command.args(["-i", &to.ip().to_string(), "-p", &to.port().to_string()]);
    command.args(["-t", &seconds.to_string()]);
    let mut client = Process::start("sockperf", lab.dir(), &mut command);
    let status = client
        .wait_up_to(Duration::from_secs(seconds + 15))
        .ok_or("sockperf hangs")?;
    let said = client.log();
    if status.success() {
        return Ok(said);
    }
    Err(format!("sockperf ended with {status} and said:\n{said}"))
}

fn targets(rows: &Rows<'_>) -> Vec<Target> {
    let ratio = |way, to| rows.quotient("rtt_64_us", way, to);
    vec![
        Target::at_most("relevo0 / routed", ratio("relevo0", "routed"), 1.4),
        Target::at_most("relevo3 / routed", ratio("relevo3", "routed"), 1.6),
        Target::at_most("relevo3 / relevo0", ratio("relevo3", "relevo0"), 1.1),
        Target::at_most("relevo0 / haproxy", ratio("relevo0", "haproxy"), 1.0),
        Target::at_most("relevo3 / haproxy", ratio("relevo3", "haproxy"), 1.0),
    ]
}

fn beside(rows: &Rows<'_>) -> String {
    let mut text = String::from(
        "## Beside the thesis\n\n\
         The thesis (section 5.3.5) measured the mean time from a TCP segment to its acknowledgement in a script of 500 database transactions, client and replicas on one old \
         laptop, engine and original on one server: its table 5.4 the segments from client to server, 5.5 those from server to client. Here it is the median of whole round trips of 64 \
         bytes, request and answer, against our own way without replicas.\n\n\
         | replicas | thesis, table 5.4 | | thesis, table 5.5 | | here, other core | | here, same core | |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (replicas, to_server, degradation) in THESIS_TO_SERVER {
        let to_client = THESIS_TO_CLIENT[replicas];
        let quotient = to_client / THESIS_TO_CLIENT[0];
        let here = |suffix: &str| {
            let way = if replicas == 0 {
                "relevo0".to_owned()
            } else {
                format!("relevo{replicas}{suffix}")
            };
            let us = rows.median("rtt_64_us", &way);
            let more = rows.quotient("rtt_64_us", &way, "relevo0");
            let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
            format!(
                "{} | {}",
                text(us.map(|us| format!("{us:.1} µs"))),
                text(more.map(|q| if replicas == 0 { String::new() } else { percent(q) }))
            )
        };
        let more = if replicas == 0 {
            String::new()
        } else {
            percent(quotient)
        };
        text += &format!(
            "| {replicas} | {to_server:.5} ms | {degradation} | {to_client:.2} ms | {more} | {} | {} |\n",
            here(""),
            here("s")
        );
    }
    text + "\nTable 5.5 prints the quotients 3.89, 4.68 and 6.29 as 388.86 %, 467.51 % and 628.76 %; here they are written as what is added, as in table 5.4.\n"
}
