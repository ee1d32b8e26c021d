//! `make bench-rtt`: what the engine adds to the round trip of a 64-byte request and answer.
//!
//! sockperf's TCP ping-pong from the client to the same server program on the original, by five ways that take turns in one run:
//!
//! - `routed`: straight to the machine's own address, through the same host, past the engine;
//! - `queue`: straight to the machine, but each packet passes a packet queue and comes back unread: what the queue itself costs;
//! - `relevo0`: through a PSC without replicas;
//! - `relevo3`: through a PSC with three replicas, whose servers run on the other core;
//! - `relevo3-off`: the same with `diverge = "off"`: what comparing the machines' words costs (R17);
//! - `relevo3-same`: as relevo3, with the replicas' servers on the one core, too.
//!
//! Client, engine and the original's server are pinned to core 0. One engine process serves all the PSCs.
//! Each round measures every way once; the result is the median over the rounds of each round's median, as a ratio to `routed`.
//!
//! `ROUNDS` (default 11) and `SECONDS` (default 1, of each measurement) may be set in the environment. `WAYS=routed,relevo0` leaves the
//! others out; such a run shows its figures and records none.

#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with tests and demo; each uses its part"
)]
#[path = "../../tests/net/lab/mod.rs"]
mod lab;

mod awake;
mod floor;
mod record;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use lab::arguments::{list, number};
use lab::engine::{Engine, ServiceConfig};
use lab::process::Process;
use lab::services::{addresses, wait_until_listening};
use lab::{Family, Lab};

const USAGE: &str = "usage: make bench-rtt [ROUNDS=n] [SECONDS=n] [WAYS=routed,queue,relevo0,relevo3,relevo3-off,relevo3-same]; ROUNDS is a whole number \
from 3 up, SECONDS from 1 up";
/// Bytes of a request and of its answer, as in the thesis.
pub const MESSAGE: &str = "64";
/// Each way has servers and a port of its own, since a machine's port belongs to one service.
const ROUTED_PORT: u16 = 11110;
/// `relevo0`.
const ALONE_PORT: u16 = 11111;
/// `relevo3`: the replicas' servers run on the other core.
const REPLICAS_PORT: u16 = 11112;
/// `relevo3-same`: they run on the same core.
const SAME_CORE_PORT: u16 = 11113;
/// `queue`: past the engine, through a queue.
const QUEUE_PORT: u16 = 11114;
/// `relevo3-off`: nothing is compared.
const UNCOMPARED_PORT: u16 = 11115;
/// Where client, engine and original run.
const CORE: &str = "0";

/// One way from the client to a server.
pub struct Way {
    /// As in the closing line.
    pub name: &'static str,
    /// What it means.
    pub what: &'static str,
    /// Where the client connects.
    to: SocketAddr,
    /// Each round's median round-trip time in microseconds.
    pub rtt_us: Vec<f64>,
}

fn main() -> ExitCode {
    // `cargo bench` and `cargo test --benches` pass flags of their own; there is nothing to choose here.
    let (Some(rounds), Some(seconds)) = (number("ROUNDS", 3, || 11), number("SECONDS", 1, || 1)) else {
        return fail(USAGE);
    };
    lab::clean_up_on_interrupt();
    let other_core = if std::thread::available_parallelism().map_or(1, usize::from) > 1 {
        "1"
    } else {
        "0"
    };

    let _awake = awake::keep_cores_awake();
    let lab = Lab::new(4);
    // A replica is another machine: its stack's work is not the engine host's. Receive packet steering lets the other core do it.
    if other_core != CORE {
        for replica in &lab.machines()[1..] {
            steer_to_other_core(replica);
        }
    }
    let _servers = start_servers(&lab, other_core);
    let service = |name, port, machines: usize| {
        let machines = addresses(&lab.machines()[..machines], Family::V4, port);
        ServiceConfig::new(name, lab.psc(Family::V4, port), &machines)
    };
    let services = [
        service("alone", ALONE_PORT, 1),
        service("replicas", REPLICAS_PORT, 4),
        service("uncompared", UNCOMPARED_PORT, 4).with("diverge = \"off\""),
        service("same-core", SAME_CORE_PORT, 4),
    ];
    let engine = Engine::start_by(&lab, &services, &["taskset", "-c", CORE]);
    let _floor = floor::let_pass(&lab, QUEUE_PORT, CORE);
    let mut ways = ways(&lab, &services);
    let chosen = list("WAYS");
    if let Some(chosen) = &chosen {
        ways.retain(|way| chosen.iter().any(|name| name == way.name));
    }
    if ways.is_empty() {
        return fail(USAGE);
    }
    println!(
        "{MESSAGE}-byte TCP ping-pong, {rounds} rounds of {seconds} s for each of {} ways",
        ways.len()
    );
    println!(
        "client, engine and original on core {CORE}, replicas on core {other_core} (and, as relevo3-same, on {CORE})"
    );
    for round in 1..=rounds {
        let mut line = format!("round {round:2}:");
        for way in &mut ways {
            match ping_pong(&lab, way.to, seconds) {
                Ok(rtt) => {
                    line.push_str(&format!("  {} {rtt:.1} us", way.name));
                    way.rtt_us.push(rtt);
                }
                Err(error) => {
                    eprintln!("{}\n{:#}", engine.log(), engine.status());
                    return fail(&format!("rtt: {}: {error}", way.name));
                }
            }
        }
        println!("{line}");
    }
    if chosen.is_some() {
        return ExitCode::SUCCESS;
    }
    match record::write(&ways, rounds, seconds, other_core) {
        Ok(closing_line) => {
            println!("{closing_line}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("rtt: {error:#}")),
    }
}

fn ways(lab: &Lab, services: &[ServiceConfig; 4]) -> Vec<Way> {
    let way = |name, what, to| Way {
        name,
        what,
        to,
        rtt_us: Vec::new(),
    };
    let direct = lab.machine(0).addr(Family::V4, ROUTED_PORT);
    let queued = lab.machine(0).addr(Family::V4, QUEUE_PORT);
    let [alone, replicas, uncompared, same_core] = services.each_ref().map(|service| service.psc);
    let replicas_where = [
        "Relevo, 3 replicas, servers on the other core",
        "Relevo, 3 replicas, servers on the same core",
    ];
    vec![
        way("routed", "plain routing to the machine's own address", direct),
        way("queue", "a packet queue that lets everything pass unread", queued),
        way("relevo0", "Relevo, no replica", alone),
        way("relevo3", replicas_where[0], replicas),
        way("relevo3-off", "the same, nothing compared (R17)", uncompared),
        way("relevo3-same", replicas_where[1], same_core),
    ]
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(if why.starts_with("usage") { 2 } else { 1 })
}

/// sockperf servers: on the original one for each way, on the replicas one for each way that has them.
fn start_servers(lab: &Lab, other_core: &str) -> Vec<Process> {
    let of_original = [
        ROUTED_PORT,
        QUEUE_PORT,
        ALONE_PORT,
        REPLICAS_PORT,
        UNCOMPARED_PORT,
        SAME_CORE_PORT,
    ];
    let of_original = of_original.map(|port| (port, CORE));
    let of_replica = [
        (REPLICAS_PORT, other_core),
        (UNCOMPARED_PORT, other_core),
        (SAME_CORE_PORT, CORE),
    ];
    let mut servers = Vec::new();
    for (i, host) in lab.machines().iter().enumerate() {
        let ports: &[(u16, &str)] = if i == 0 { &of_original } else { &of_replica };
        for &(port, core) in ports {
            let mut command = host.command("taskset");
            command.args([
                "-c",
                core,
                "sockperf",
                "server",
                "--tcp",
                "-i",
                "0.0.0.0",
                "-p",
                &port.to_string(),
            ]);
            let name = format!("sockperf-{}-{port}", host.name());
            servers.push(Process::start(&name, lab.dir(), &mut command));
            wait_until_listening(host, port);
        }
    }
    servers
}

/// One measurement: the median round-trip time in microseconds.
fn ping_pong(lab: &Lab, to: SocketAddr, seconds: u64) -> Result<f64, String> {
    let mut command = lab.client().command("taskset");
    command.args([
        "-c",
        CORE,
        "sockperf",
        "ping-pong",
        "--tcp",
        "--full-rtt",
        "-m",
        MESSAGE,
    ]);
    command.args([
        "-i",
        &to.ip().to_string(),
        "-p",
        &to.port().to_string(),
        "-t",
        &seconds.to_string(),
    ]);
    let mut client = Process::start("sockperf", lab.dir(), &mut command);
    let status = client
        .wait_up_to(Duration::from_secs(seconds + 15))
        .ok_or("sockperf hangs")?;
    let said = client.log();
    let median = said
        .lines()
        .find_map(|line| line.split_once("percentile 50.000 ="))
        .map(|(_, n)| n.trim());
    match median.and_then(|n| n.parse().ok()) {
        Some(rtt) if status.success() => Ok(rtt),
        _ => Err(format!("sockperf ended with {status} and said:\n{said}")),
    }
}

/// Lets core 1 do what a machine's stack has to do for the packets that arrive.
fn steer_to_other_core(host: &lab::netns::Host) {
    let set = "echo 2 > /sys/class/net/eth0/queues/rx-0/rps_cpus";
    let status = host.command("sh").args(["-c", set]).status();
    if !status.is_ok_and(|s| s.success()) {
        println!(
            "note: {}: receive packet steering can't be set, so the engine's core works for its stack, too",
            host.name()
        );
    }
}
