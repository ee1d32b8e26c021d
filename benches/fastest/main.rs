//! `make bench-fastest [SECONDS=n]`: what `original = "fastest"` brings where machines are slow now and then.
//!
//! Three machines with two redis servers each, one behind a service with a fixed original, one behind `original = "fastest"`. Every tenth of a
//! second or so both servers of one machine, drawn by chance, are stopped for 5 to 40 ms: a pause of its garbage collector, a snapshot, a
//! neighbour. Clients of both services ask GET at the same moments, a thousand times a second each. A latency counts from the moment at
//! which the question was due, so that the questions that a pause kept from being asked count, too.
//!
//! The result goes into `bench-results/fastest-<date>-<commit>.md`; the last line is
//! `fastest: fixed p50_us=… p99_us=… p999_us=… fastest p50_us=… p99_us=… p999_us=…`.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and demo; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use lab::arguments::{beside, number};
use lab::engine::{Engine, ServiceConfig};
use lab::pattern::Random;
use lab::program;
use lab::quantile::quantile;
use lab::services::{Redis, addresses};
use lab::surroundings::Surroundings;
use lab::{Family, Lab};

const USAGE: &str = "usage: make bench-fastest [SECONDS=n], n from 1 up";
/// `SECONDS` without a value.
const SECONDS: u64 = 60;
/// Connections of each service.
const CONNECTIONS: usize = 2;
/// Between two questions of a connection.
const PACE: Duration = Duration::from_millis(1);
/// Between the beginnings of two pauses of any machine, in milliseconds: from, to.
const EVERY: (u64, u64) = (50, 150);
/// How long one lasts.
const PAUSE: (u64, u64) = (5, 40);
/// The services: name, port, further line of the configuration.
const SERVICES: [(&str, u16, &str); 2] = [("fixed", 6379, ""), ("fastest", 6380, "original = \"fastest\"")];

fn main() -> ExitCode {
    let Some(seconds) = number("SECONDS", 1, || SECONDS) else {
        return program::misused(USAGE);
    };
    program::run("fastest", || {
        println!("{}", measure(Duration::from_secs(seconds))?);
        Ok(true)
    })
}

/// Latencies of one service in microseconds, sorted.
struct Latencies(Vec<u64>);

impl Latencies {
    fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// The latency that so many of a thousand do not exceed.
    fn at(&self, per_mille: usize) -> u64 {
        quantile(&self.0, per_mille).unwrap_or_default()
    }

    fn row(&self) -> [u64; 4] {
        [self.at(500), self.at(990), self.at(999), self.at(1_000)]
    }
}

fn measure(length: Duration) -> anyhow::Result<String> {
    let lab = Lab::new(3);
    let redis: Vec<Vec<Redis>> = lab
        .machines()
        .iter()
        .map(|host| {
            SERVICES
                .map(|(_, port, _)| Redis::start_on(host, lab.dir(), port))
                .into()
        })
        .collect();
    let services = SERVICES.map(|(name, port, more)| {
        let machines = addresses(lab.machines(), Family::V4, port);
        ServiceConfig::new(name, lab.psc(Family::V4, port), &machines).with(more)
    });
    let mut engine = Engine::start(&lab, &services);
    let over = AtomicBool::new(false);
    let (latencies, pauses) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let clients: Vec<Vec<_>> = SERVICES
            .iter()
            .map(|(_, port, _)| {
                let psc = lab.psc(Family::V4, *port);
                let over = &over;
                let client = |_| lab.client().enter_in(scope, move || ask(psc, over));
                (0..CONNECTIONS).map(client).collect()
            })
            .collect();
        let pauses = disturb(&redis, length);
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for service in clients {
            let mut of_service = Vec::new();
            for client in service {
                of_service.extend(client.join().ok().context("a client's thread")??);
            }
            all.push(Latencies::of(of_service));
        }
        Ok((all, pauses))
    })?;
    let takeovers = engine.counter("takeovers");
    engine.stop();
    record(&latencies, pauses, takeovers, length)
}

/// Asks until it is over.
fn ask(psc: SocketAddr, over: &AtomicBool) -> anyhow::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(psc).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut latencies = Vec::new();
    let mut answer = [0; 5];
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(b"GET key\r\n")?;
        stream.read_exact(&mut answer).context("read an answer")?;
        ensure!(&answer == b"$-1\r\n", "another answer: {answer:?}");
        latencies.push(u64::try_from(due.elapsed().as_micros())?);
    }
    Ok(latencies)
}

/// Stops one machine's servers after the other, by chance. Returns how often each was.
fn disturb(redis: &[Vec<Redis>], length: Duration) -> Vec<u32> {
    let mut random = Random::new(1);
    let mut pauses = vec![0; redis.len()];
    let start = Instant::now();
    let mut at = start;
    while start.elapsed() < length {
        let machine = random.between(0, redis.len() as u64) as usize;
        let pause = Duration::from_millis(random.between(PAUSE.0, PAUSE.1));
        redis[machine].iter().for_each(|server| server.signal(Signal::STOP));
        std::thread::sleep(pause);
        redis[machine].iter().for_each(|server| server.signal(Signal::CONT));
        pauses[machine] += 1;
        at += Duration::from_millis(random.between(EVERY.0, EVERY.1));
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
    }
    pauses
}

fn record(latencies: &[Latencies], pauses: Vec<u32>, takeovers: u64, length: Duration) -> anyhow::Result<String> {
    let surroundings = Surroundings::read();
    let mut text = format!(
        "{}\n\n{surroundings} Beside it: {}.\n\n{} seconds; {CONNECTIONS} connections of each service, a GET every {} ms on each, both services at the same time. \
         One machine of three is stopped (SIGSTOP of its two redis servers) for {} to {} ms, every {} to {} ms: {pauses:?} times. Takeovers: {takeovers}.\n\n\
         | `original` | questions | p50 | p99 | p99.9 | worst |\n|---|---|---|---|---|---|\n",
        surroundings.title("GETs with one machine now and then slow: fixed original against the fastest"),
        beside(),
        length.as_secs(),
        PACE.as_millis(),
        PAUSE.0,
        PAUSE.1,
        EVERY.0,
        EVERY.1,
    );
    let mut closing = "fastest:".to_owned();
    for ((name, _, _), of_service) in SERVICES.iter().zip(latencies) {
        ensure!(!of_service.0.is_empty(), "{name}: no answers");
        let [p50, p99, p999, worst] = of_service.row();
        text += &format!(
            "| {name} | {} | {p50} µs | {p99} µs | {p999} µs | {worst} µs |\n",
            of_service.0.len()
        );
        closing += &format!(" {name} p50_us={p50} p99_us={p99} p999_us={p999}");
    }
    text += "\nWhat it does not show: pauses of two machines at once; machines whose kernel is slow, too: what a client sends waits for every machine's acknowledgement (R4), whoever \
             speaks. Two cores carry everything, so the microseconds say little; the ratio does.\n";
    let path = surroundings.file("fastest", "md")?;
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(closing)
}
