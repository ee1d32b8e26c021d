//! One stream, as fast as it goes, up and down.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use crate::client::{abort, connect, on_core};
use crate::lab::Host;
use crate::lab::counters::{lost_to, retransmissions};
use crate::meter::Meter;
use crate::record::{Column, Rows, Sample, Target};
use crate::rounds::{Bench, Length, Result};
use crate::server::{CHUNK, DOWNLOAD, UPLOAD, order};
use crate::several;
use crate::stage::{Server, Stage};
use crate::ways::{By, Way};

/// Bytes to gigabits.
pub const GIGABIT: f64 = 8.0 / 1e9;

/// The bench.
pub const BENCH: Bench = Bench {
    name: "bulk",
    title: "Bulk transfer",
    what: "One TCP stream up to a plain sink, then one down from a plain source",
    ways: &[
        "routed", "four", "queue", "nat", "dup1", "dup2", "dup3", "haproxy", "nginx", "socat", "relevo0", "relevo1",
        "relevo2", "relevo3",
    ],
    base: "routed",
    server: Server::Own,
    rounds: 5,
    columns: &[
        Column::compared("up_gbps", "upload, Gb/s", 2),
        Column::compared("down_gbps", "download, Gb/s", 2),
        Column::plain("up_retransmissions", "retransmissions of the client, a GB up", 2),
        Column::plain("up_lost", "times that something was taken for lost, a GB", 2),
        Column::plain("down_retransmissions", "of the original, a GB down", 2),
        Column::plain("down_lost", "taken for lost, a GB down", 2),
        Column::plain("cpu_us_per_packet", "engine's CPU a packet up, µs", 2),
        Column::plain("user_us_per_packet", "of that in user mode (coarse), µs", 2),
        Column::plain("cpu_us_per_unit", "engine's CPU a MB up, µs", 1),
        Column::plain("packets_per_unit", "packets a MB up", 2),
        Column::plain("engine_retransmissions", "engine's own retransmissions, up", 0),
        Column::plain("trailed", "replicas that trailed, up", 0),
        Column::plain("evicted", "evicted, up", 0),
    ],
    shown: &["routed", "nat", "haproxy", "relevo0", "relevo3", "dup3"],
    main: "up_gbps",
    measure,
    targets,
    beside: |_| String::new(),
    not_shown: "Several streams at once; loss, delay and real network cards, whose offloads differ; a machine that can't keep up. Packets are as \
        large as veth carries them: super-packets of up to 64 KB, each of which counts as one.",
};

fn measure(stage: &Stage, way: &Way, length: Length) -> Result<Sample> {
    let (lab, to) = (stage.lab(way), stage.target(way));
    if let By::Several { .. } = way.by {
        return several::measure(lab, way, length);
    }
    let mut sample = Sample::new();
    let (client, original) = (lab.client(), lab.machine(0));
    let length = Duration::from_secs(length.seconds);

    let books = Books::of(client);
    let meter = stage.engine(way).map(Meter::start);
    let (bytes, time) = on_core(client, || upload(to, length)).map_err(|e| format!("upload: {e}"))?;
    sample.extend(meter.map(|meter| meter.stop(bytes / 1e6)).unwrap_or_default());
    sample.insert("up_gbps", bytes * GIGABIT / time);
    let (repeated, lost) = books.a_gigabyte(client, bytes);
    sample.extend([("up_retransmissions", repeated), ("up_lost", lost)]);

    let books = Books::of(original);
    let (bytes, time) = on_core(client, || download(to, length)).map_err(|e| format!("download: {e}"))?;
    sample.insert("down_gbps", bytes * GIGABIT / time);
    let (repeated, lost) = books.a_gigabyte(original, bytes);
    sample.extend([("down_retransmissions", repeated), ("down_lost", lost)]);
    Ok(sample)
}

/// What a host has retransmitted, and how often it took something for lost. The rest are tail loss probes, which any late acknowledgement draws.
struct Books(u64, u64);

impl Books {
    fn of(host: &Host) -> Self {
        Self(retransmissions(host), lost_to(host))
    }

    /// Both since then, for each GB.
    fn a_gigabyte(&self, host: &Host, bytes: f64) -> (f64, f64) {
        let Self(repeated, lost) = Self::of(host);
        let of_gigabyte = |count: u64| count as f64 / (bytes / 1e9);
        (of_gigabyte(repeated - self.0), of_gigabyte(lost - self.1))
    }
}

/// Bytes, and seconds from the first to the answer that all have come.
fn upload(to: SocketAddr, length: Duration) -> std::io::Result<(f64, f64)> {
    let mut stream = connect(to)?;
    let chunk = vec![b'.'; CHUNK];
    stream.write_all(&order(UPLOAD))?;
    let start = Instant::now();
    let mut sent: u64 = 0;
    while start.elapsed() < length {
        stream.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let time = start.elapsed().as_secs_f64();
    if u64::from_be_bytes(count) == sent {
        return Ok((sent as f64, time));
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        "bytes are missing",
    ))
}

/// Bytes, and seconds from the order on. The client ends it by a RST.
fn download(to: SocketAddr, length: Duration) -> std::io::Result<(f64, f64)> {
    let mut stream = connect(to)?;
    let mut buffer = vec![0; CHUNK];
    stream.write_all(&order(DOWNLOAD))?;
    let start = Instant::now();
    let mut got: u64 = 0;
    while start.elapsed() < length {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => got += n as u64,
        }
    }
    let time = start.elapsed().as_secs_f64();
    abort(stream);
    Ok((got as f64, time))
}

fn targets(rows: &Rows<'_>) -> Vec<Target> {
    let ratio = |way, to| rows.quotient("up_gbps", way, to);
    let mut targets = vec![
        Target::at_least("upload, relevo0 / haproxy", ratio("relevo0", "haproxy"), 1.0),
        Target::at_least("upload, relevo3 / dup3", ratio("relevo3", "dup3"), 0.5),
        Target::to_know(
            "upload, four / dup3: what four machines that read it leave of it on these cores, without an engine",
            ratio("four", "dup3"),
        ),
        Target::to_know("upload, relevo3 / four", ratio("relevo3", "four")),
    ];
    for (column, what) in [
        ("up_retransmissions", "retransmissions of an upload"),
        ("down_retransmissions", "of a download"),
    ] {
        let nat = rows.mean(column, "nat");
        for way in ["relevo0", "relevo3"] {
            targets.push(Target::no_more(
                format!("{what}, a GB, {way} against nat"),
                rows.mean(column, way),
                nat,
            ));
        }
    }
    targets
}
