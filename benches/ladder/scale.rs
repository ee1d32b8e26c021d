//! Many connections at once: what a packet costs when it is one of ten thousand connections' turn, what a connection costs, and an idle engine.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::client::{abort, ask, connect, on_core};
use crate::figures::{Column, Row, Rows, Sample, Target};
use crate::lab::engine::Engine;
use crate::meter::{Meter, processor_time};
use crate::record::{self, Record};
use crate::rounds::{Length, Result, announce, how};
use crate::server::{ASK, proxied_connections};
use crate::stage::{Server, Stage};
use crate::ways::{self, By, Way};

const WAYS: [&str; 5] = ["routed", "nat", "haproxy", "relevo0", "relevo3"];
/// Connections at once.
const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// The size that the others are compared with, and the greatest.
const FEW: usize = 10;
const MANY: usize = 10_000;
/// How long an engine is watched doing nothing.
const IDLE: Duration = Duration::from_secs(5);
/// What belongs to an engine's start, or to what was asked, is over after this long: buffers that nobody uses are given back after a second.
const SETTLE: Duration = Duration::from_secs(2);
/// How long an engine may take to forget connections that were reset.
const FORGET: Duration = Duration::from_secs(30);
const WHAT: &str =
    "a question and an answer of 64 bytes by each of 1 to 10,000 open connections in turn, one at a time";
/// Rounds without `ROUNDS`.
pub const ROUNDS: u64 = 3;

const COLUMNS: &[Column] = &[
    Column::compared("rtt_us", "round trip, mean, µs", 1),
    Column::compared("cpu_us_per_packet", "engine's CPU a packet, µs", 2).of_engine(),
    Column::plain("user_us_per_packet", "of that in user mode (coarse), µs", 2),
    Column::plain("cpu_us_per_unit", "engine's CPU a round trip, µs", 2),
    Column::plain("packets_per_unit", "packets a round trip", 2),
    Column::plain("trailed", "replicas that trailed", 0),
    Column::plain("ineligible", "became unfit", 0),
];
const NOT_SHOWN: &str = "Many connections that speak at the same moment: here one does at a time, so that every packet meets a connection that was idle. With 10,000 connections \
the kernel's own sockets, of the client and of every machine, no longer fit in the processor's caches: how much the routed way's round trip grows shows that, and what the machine's stack does in the engine's \
context counts as the engine's. A connection whose turn comes later than 40 ms has acknowledged the last answer by itself meanwhile: with 10,000 there is one packet more a round trip, hence the figure by \
packet. Memory is resident memory of the daemon's process alone, without the kernel's.";

/// Runs it.
pub fn run(length: Length, chosen: Option<&[String]>) -> anyhow::Result<()> {
    let ways = ways::some(&WAYS, chosen);
    if ways.is_empty() {
        println!("scale: none of its ways was chosen");
        return Ok(());
    }
    announce("scale", WHAT, length, ways.len());
    let stage = Stage::open(&ways, Server::Own, "");
    let mut rows = all_rows(&stage);
    for round in 1..=length.rounds {
        for size in SIZES {
            let mut line = format!("round {round:2}, {size:5}:");
            for row in rows.iter_mut().filter(|row| is_of(row, size) && row.absent.is_none()) {
                let sample = measure(&stage, row.way, size, length).map_err(|e| anyhow!("{}: {e}", row.name))?;
                let _ = write!(line, "  {} {:.1}", row.way.name, sample["rtt_us"]);
                row.add(sample);
            }
            println!("{line}");
        }
    }
    drop(stage);
    let engines: Vec<Alone> = ways
        .iter()
        .filter(|way| way.is_relevo())
        .map(|way| alone(way))
        .collect::<Result<_>>()
        .map_err(|e| anyhow!(e))?;
    report(&Rows(&rows), &engines, length, chosen.is_some())
}

fn report(rows: &Rows<'_>, engines: &[Alone], length: Length, shown_only: bool) -> anyhow::Result<()> {
    const AGAINST: &str = "its own 10 connections";
    if shown_only {
        println!("{}{}", record::figures(COLUMNS, rows, AGAINST), table(engines));
        return Ok(());
    }
    let mut targets: Vec<Target> = Vec::new();
    for engine in engines {
        let name = engine.way.name;
        let growth = rows.quotient("cpu_us_per_packet", &named(engine.way, MANY), &named(engine.way, FEW));
        targets.push(Target::at_most(
            &format!("{name}, CPU a packet, 10,000 / 10 connections"),
            growth,
            1.1,
        ));
        targets.push(Target::at_most(
            &format!("{name}, idle, % of a core"),
            Some(engine.idle),
            0.5,
        ));
    }
    Record {
        bench: "scale",
        title: "Many connections",
        how: how(WHAT, length),
        columns: COLUMNS,
        against: AGAINST,
        rows: *rows,
        targets,
        beside: table(engines),
        more: engines.iter().map(Alone::json).collect(),
        not_shown: NOT_SHOWN,
        closing: closing(rows, engines),
    }
    .write()
}

/// A way's name with a number of connections.
fn named(way: &Way, size: usize) -> String {
    format!("{} {size}", way.name)
}

fn is_of(row: &Row, size: usize) -> bool {
    row.name == named(row.way, size)
}

/// A row for each way and size; what a proxy can't hold says so.
fn all_rows(stage: &Stage) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in &stage.rows {
        for size in SIZES {
            let mut row = Row::new(way.way, &named(way.way, FEW));
            row.name = named(way.way, size);
            row.absent = way.absent.clone();
            let is_proxy = matches!(way.way.by, By::Proxy(_));
            if is_proxy && size as u64 > proxied_connections() {
                let why = format!(
                    "needs more than the {} descriptors that this machine gives a process",
                    2 * proxied_connections()
                );
                row.absent = row.absent.or(Some(why));
            }
            rows.push(row);
        }
    }
    rows
}

fn measure(stage: &Stage, way: &Way, size: usize, length: Length) -> Result<Sample> {
    let (client, to) = (stage.lab(way).client(), stage.target(way));
    let mut streams = on_core(client, || open(to, size))?;
    on_core(client, || ask_in_turn(&mut streams, Duration::ZERO))?;
    let meter = stage.engine(way).map(Meter::start);
    let length = Duration::from_secs(length.seconds);
    let (count, time) = on_core(client, || ask_in_turn(&mut streams, length))?;
    let mut sample = meter.map(|meter| meter.stop(count)).unwrap_or_default();
    sample.insert("rtt_us", time / count * 1e6);
    streams.into_iter().for_each(abort);
    if let Some(engine) = stage.engine(way) {
        forgotten(engine)?;
    }
    Ok(sample)
}

/// Opens so many.
fn open(to: SocketAddr, size: usize) -> Result<Vec<TcpStream>> {
    let one = |i| connect(to).map_err(|e| format!("connection {i}: {e}"));
    (0..size).map(one).collect()
}

/// Each in turn, again and again, but at least once. Questions asked, and seconds.
fn ask_in_turn(streams: &mut [TcpStream], length: Duration) -> Result<(f64, f64)> {
    let start = Instant::now();
    let mut count: u64 = 0;
    loop {
        for stream in &mut *streams {
            ask(stream, ASK).map_err(|e| format!("question {count}: {e}"))?;
            count += 1;
        }
        if start.elapsed() >= length {
            return Ok((count as f64, start.elapsed().as_secs_f64()));
        }
    }
}

/// Waits until an engine has no connection.
fn forgotten(engine: &Engine) -> Result<()> {
    let start = Instant::now();
    while flows(engine) > 0 {
        if start.elapsed() > FORGET {
            return Err(format!(
                "{} connections are not forgotten after {FORGET:?}",
                flows(engine)
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn flows(engine: &Engine) -> u64 {
    let status = engine.status();
    let services = status["services"].as_array().into_iter().flatten();
    services.filter_map(|service| service["flows"].as_u64()).sum()
}

/// What an engine of one service needs that has served nobody else.
struct Alone {
    way: &'static Way,
    /// Resident memory in KiB: before; with [`MANY`] connections, all of them open; when each has asked once; after seconds of silence.
    resident_kib: [u64; 4],
    /// Processor time without a connection, and with all of them open and silent, in per cent of a core.
    idle: f64,
    idle_many: f64,
}

fn alone(way: &'static Way) -> Result<Alone> {
    let stage = Stage::open(&[way], Server::Own, "");
    let engine = stage.engine(way).ok_or("no engine")?;
    let (client, to) = (stage.lab(way).client(), stage.target(way));
    std::thread::sleep(SETTLE);
    let idle = idleness(engine);
    let before = engine.resident_kib();
    let mut streams = on_core(client, || open(to, MANY))?;
    std::thread::sleep(SETTLE);
    let opened = engine.resident_kib();
    on_core(client, || ask_in_turn(&mut streams, Duration::ZERO))?;
    let asked = engine.resident_kib();
    std::thread::sleep(SETTLE);
    let idle_many = idleness(engine);
    let rested = engine.resident_kib();
    streams.into_iter().for_each(abort);
    Ok(Alone {
        way,
        resident_kib: [before, opened, asked, rested],
        idle,
        idle_many,
    })
}

/// Per cent of a core that an engine takes by itself.
fn idleness(engine: &Engine) -> f64 {
    let (before, start) = (processor_time(engine), Instant::now());
    std::thread::sleep(IDLE);
    (processor_time(engine) - before) as f64 / 1e9 / start.elapsed().as_secs_f64() * 100.0
}

impl Alone {
    /// Bytes for each connection: open, when it has asked once, and after silence.
    fn bytes_a_connection(&self) -> [f64; 3] {
        let [before, later @ ..] = self.resident_kib;
        later.map(|kib| kib.saturating_sub(before) as f64 * 1024.0 / MANY as f64)
    }

    fn json(&self) -> Value {
        json!({
            "way": self.way.name, "connections": MANY, "resident_kib_before_opened_asked_rested": self.resident_kib,
            "bytes_a_connection_opened_asked_rested": self.bytes_a_connection(),
            "idle_cpu_percent": self.idle, "idle_cpu_percent_with_all_open": self.idle_many,
        })
    }
}

fn table(engines: &[Alone]) -> String {
    let mut text = String::from(
        "## Memory, and an idle engine\n\nA fresh engine each, 10,000 connections, opened, then each asks once; processor time over five seconds.\n\n\
         | way | bytes a connection, open | when each has asked once | after seven seconds of silence | idle CPU, no connection | with 10,000 silent ones |\n|---|---|---|---|---|---|\n",
    );
    for engine in engines {
        let [opened, asked, rested] = engine.bytes_a_connection();
        let _ = writeln!(
            text,
            "| {} | {opened:.0} | {asked:.0} | {rested:.0} | {:.2} % | {:.2} % |",
            engine.way.name, engine.idle, engine.idle_many
        );
    }
    text
}

/// Of `relevo3`, whose work is all that there is.
fn closing(rows: &Rows<'_>, engines: &[Alone]) -> String {
    let of = |size: usize| rows.median("cpu_us_per_packet", &format!("relevo3 {size}"));
    let text = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.2}"));
    let (few, many) = (of(FEW), of(MANY));
    let idle = engines.iter().find(|engine| engine.way.name == "relevo3");
    format!(
        "scale: cpu_per_packet_us flows10={} flows10000={} ratio={} idle_cpu={}%",
        text(few),
        text(many),
        text(few.zip(many).map(|(few, many)| many / few)),
        idle.map_or("none".to_owned(), |engine| format!("{:.1}", engine.idle))
    )
}
