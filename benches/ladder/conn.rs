//! New connections: connect, a question of 64 bytes, its answer, close; again and again on several threads.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{ask, connect, stay_on_core};
use crate::lab::netns::Host;
use crate::meter::Meter;
use crate::record::{Column, Rows, Sample, Target};
use crate::rounds::{Bench, Length, Result};
use crate::server::{ASK, LAST};
use crate::stage::{Server, Stage};
use crate::ways::Way;

/// Connections under way at a time.
const THREADS: usize = 8;

/// The bench.
pub const BENCH: Bench = Bench {
    name: "conn",
    title: "New connections",
    what: "Connect, a question of 64 bytes, its answer, close, eight at a time",
    ways: &[
        "routed", "nat", "haproxy", "nginx", "socat", "relevo0", "relevo1", "relevo2", "relevo3",
    ],
    base: "haproxy",
    server: Server::Own,
    rounds: 5,
    columns: &[
        Column::compared("per_second", "connections a second, the client closes", 0),
        Column::compared("per_second_last", "connections a second, the service closes", 0),
        Column::plain("cpu_us_per_packet", "engine's CPU a packet, µs", 2),
        Column::plain("user_us_per_packet", "of that in user mode (coarse), µs", 2),
        Column::plain("cpu_us_per_unit", "engine's CPU a connection, µs", 1),
        Column::plain("packets_per_unit", "packets a connection", 1),
        Column::plain("trailed", "replicas that trailed", 0),
        Column::plain("ineligible", "became unfit", 0),
    ],
    shown: &["haproxy", "relevo0", "relevo3"],
    main: "per_second",
    measure,
    targets: |rows| {
        let ratio = |way| rows.quotient("per_second", way, "haproxy");
        vec![
            Target::at_least("relevo0 / haproxy", ratio("relevo0"), 1.0),
            Target::at_least("relevo3 / haproxy", ratio("relevo3"), 1.0),
        ]
    },
    beside: |_: &Rows<'_>| String::new(),
    not_shown: "TLS, HTTP, keep-alive. The client takes its share of the core that everything runs on, so what a proxy or the engine could do alone is more. Where the service closes, Relevo holds its \
        FIN until a replica says the same (R11).",
};

fn measure(stage: &Stage, way: &Way, length: Length) -> Result<Sample> {
    let (client, to) = (stage.lab(way).client(), stage.target(way));
    let length = Duration::from_secs(length.seconds);
    let meter = stage.engine(way).map(Meter::start);
    let (count, rate) = crowd(client, to, ASK, length)?;
    let mut sample = meter.map(|meter| meter.stop(count)).unwrap_or_default();
    sample.insert("per_second", rate);
    let (_, rate) = crowd(client, to, LAST, length)?;
    sample.insert("per_second_last", rate);
    Ok(sample)
}

/// Connections, and how many a second.
fn crowd(client: &Host, to: SocketAddr, what: u8, length: Duration) -> Result<(f64, f64)> {
    let start = Instant::now();
    let counts: Vec<std::io::Result<u64>> = std::thread::scope(|scope| {
        let one = |_| {
            client.enter_in(scope, move || {
                stay_on_core();
                again_and_again(to, what, start + length)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(one).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("a client's thread");
        threads.into_iter().map(join).collect()
    });
    let time = start.elapsed().as_secs_f64();
    let count = counts.into_iter().sum::<std::io::Result<u64>>();
    let count = count.map_err(|e| format!("a connection: {e}"))? as f64;
    Ok((count, count / time))
}

fn again_and_again(to: SocketAddr, what: u8, until: Instant) -> std::io::Result<u64> {
    let mut count = 0;
    while Instant::now() < until {
        let mut stream = connect(to)?;
        ask(&mut stream, what)?;
        if what == LAST && stream.read(&mut [0])? != 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "bytes after the answer",
            ));
        }
        count += 1;
    }
    Ok(count)
}
