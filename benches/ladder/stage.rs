//! The labs in which the ways run, all at the same time.
//!
//! What a way needs on the engine's host is a burden to all that passes that host: connection tracking, an engine's rules. So ways
//! of one kind have a lab, that is a client, an engine's host and machines, of their own; the kernel below them is one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::lab::engine::{Engine, ServiceConfig, translate_instead};
use crate::lab::netns::Host;
use crate::lab::process::Process;
use crate::lab::services::{addresses, wait_until_listening};
use crate::lab::{Family, Lab, counters};
use crate::record::Row;
use crate::ways::{By, Place, Way};
use crate::{floor, peers};

/// Where client, engine and original run.
pub const CORE: &str = "0";
/// The engine's protection against SYN floods would take the connection bench for one: by default it lets 10,000 a second pass.
const FLOOD: &str = "max_syn_rate = 1000000";
/// How long a proxy may take to answer.
const START: Duration = Duration::from_secs(5);

/// The other core, where replicas run: other machines' work is not this one's. The same one if there is no other.
pub fn other_core() -> &'static str {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 { "1" } else { CORE }
}

/// What the machines run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// sockperf's.
    Sockperf,
    /// This program's (`server`).
    Own,
}

/// Which ways share a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Queued,
    Translated,
    Relevo(Place),
}

impl Kind {
    fn of(way: &Way) -> Self {
        match way.by {
            By::Routing | By::Several { .. } | By::Proxy(_) => Self::Plain,
            By::Queue => Self::Queued,
            By::Nat { .. } => Self::Translated,
            By::Relevo { place, .. } => Self::Relevo(place),
        }
    }

    /// Of all these ways, each once.
    fn all(ways: &[&'static Way]) -> Vec<Self> {
        let mut kinds: Vec<Self> = Vec::new();
        for kind in ways.iter().map(|way| Self::of(way)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

/// A lab with what runs in it. What is dropped first stands first.
struct Site {
    kind: Kind,
    engine: Option<Engine>,
    _floor: Option<floor::Floor>,
    _processes: Vec<Process>,
    lab: Lab,
}

/// All labs, and the ways through them.
pub struct Stage {
    sites: Vec<Site>,
    /// With what was measured so far.
    pub rows: Vec<Row>,
}

impl Stage {
    /// Makes the labs, starts everything, and sees that each way leads to a server. What can't be had gets a row that says why.
    pub fn open(ways: &[&'static Way], server: Server, base: &str) -> Self {
        let mut stage = Self {
            sites: Vec::new(),
            rows: Vec::new(),
        };
        for kind in Kind::all(ways) {
            let of_kind: Vec<_> = ways.iter().copied().filter(|way| Kind::of(way) == kind).collect();
            let (site, rows) = Site::open(kind, &of_kind, server, base);
            stage.sites.push(site);
            stage.rows.extend(rows);
        }
        // In the order of the list, not of the labs.
        let place = |row: &Row| ways.iter().position(|way| *way == row.way);
        stage.rows.sort_by_key(place);
        for row in &stage.rows {
            if let Some(why) = &row.absent {
                println!("{}: {why}", row.name);
            }
        }
        stage
    }

    fn site(&self, way: &Way) -> &Site {
        let kind = Kind::of(way);
        self.sites
            .iter()
            .find(|site| site.kind == kind)
            .expect("a way that was opened")
    }

    /// Where its client runs.
    pub fn lab(&self, way: &Way) -> &Lab {
        &self.site(way).lab
    }

    /// Its engine, if it has one.
    pub fn engine(&self, way: &Way) -> Option<&Engine> {
        self.site(way).engine.as_ref()
    }

    /// Where its client connects.
    pub fn target(&self, way: &Way) -> SocketAddr {
        target(self.lab(way), way)
    }
}

fn target(lab: &Lab, way: &Way) -> SocketAddr {
    match way.by {
        By::Routing | By::Several { .. } | By::Queue => lab.machine(0).addr(Family::V4, way.port()),
        // What is otherwise the PSC is the host's own address, too: there a proxy listens, or the kernel translates.
        By::Nat { .. } | By::Proxy(_) | By::Relevo { .. } => lab.psc(Family::V4, way.port()),
    }
}

impl Site {
    fn open(kind: Kind, ways: &[&'static Way], server: Server, base: &str) -> (Self, Vec<Row>) {
        let machines = ways.iter().map(|way| way.machines()).max().unwrap_or(1);
        let lab = Lab::new(machines);
        tune(&lab, kind);
        let mut site = Self {
            kind,
            engine: None,
            _floor: None,
            _processes: start_servers(&lab, ways, server),
            lab,
        };
        let mut rows: Vec<Row> = ways.iter().map(|way| Row::new(way, base)).collect();
        match kind {
            Kind::Plain => site.proxies(&mut rows),
            Kind::Queued => {
                site._floor = Some(floor::let_pass(&site.lab, ways[0].port(), CORE));
            }
            Kind::Translated => site.translations(ways, &mut rows),
            Kind::Relevo(place) => site.engine = Some(start_engine(&site.lab, place, ways)),
        }
        for row in rows.iter().filter(|row| row.absent.is_none()) {
            let reached = reach(&site.lab, row.way, None);
            assert!(reached.is_ok(), "{}: {reached:?}", row.way.name);
        }
        (site, rows)
    }

    fn proxies(&mut self, rows: &mut [Row]) {
        for row in rows {
            let By::Proxy(peer) = row.way.by else { continue };
            let (from, to) = (
                target(&self.lab, row.way),
                self.lab.machine(0).addr(Family::V4, row.way.port()),
            );
            let started =
                peers::start(peer, self.lab.engine(), self.lab.dir(), CORE, from, to).and_then(|mut process| {
                    reach(&self.lab, row.way, Some(&mut process))?;
                    Ok(process)
                });
            match started {
                Ok(process) => self._processes.push(process),
                Err(why) => row.absent = Some(why),
            }
        }
    }

    fn translations(&mut self, ways: &[&'static Way], rows: &mut [Row]) {
        translate_instead(&self.lab, &services(&self.lab, ways));
        for row in rows {
            let By::Nat { copies } = row.way.by else { continue };
            if copies > 0 {
                row.absent = self.copies(row.way, copies).err();
            }
        }
    }

    /// Has copies made, and sees that they come.
    fn copies(&self, way: &Way, copies: usize) -> Result<(), String> {
        let (last, port) = (self.lab.machine(copies), way.port());
        peers::copy(self.lab.engine(), port, copies)?;
        counters::watch(last, way.name, &format!("tcp dport {port}"));
        reach(&self.lab, way, None)?;
        match counters::seen(last, way.name) {
            0 => Err("no copy came to the last machine".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Sees that a connection opens; with a proxy, as soon as it listens.
fn reach(lab: &Lab, way: &Way, mut proxy: Option<&mut Process>) -> Result<(), String> {
    let (to, start) = (target(lab, way), Instant::now());
    loop {
        let connect = || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(500));
        let Err(error) = lab.client().enter(connect) else {
            return Ok(());
        };
        let ended = proxy.as_mut().and_then(|process| process.ended());
        if ended.is_some() || start.elapsed() > START {
            let log = proxy.map(|process| process.log()).unwrap_or_default();
            let said = log.lines().last().unwrap_or_default();
            return Err(format!("did not start: {error}; {said}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn services(lab: &Lab, ways: &[&'static Way]) -> Vec<ServiceConfig> {
    let service = |way: &&Way| {
        let machines = addresses(&lab.machines()[..way.machines()], Family::V4, way.port());
        let service = ServiceConfig::new(way.name, target(lab, way), &machines);
        match way.by {
            By::Relevo { more, .. } => service.with(more),
            _ => service,
        }
    };
    ways.iter().map(service).collect()
}

fn start_engine(lab: &Lab, place: Place, ways: &[&'static Way]) -> Engine {
    let services = services(lab, ways);
    match place {
        Place::Apart | Place::Together => Engine::start_with_by(lab, FLOOD, &services, &["taskset", "-c", CORE]),
        Place::Alone { engine, .. } => Engine::start_with(lab, &format!("{FLOOD}\n{engine}"), &services),
    }
}

/// A server for each way on the original, and on each replica.
fn start_servers(lab: &Lab, ways: &[&'static Way], server: Server) -> Vec<Process> {
    let mut processes = Vec::new();
    for way in ways {
        let (machines, core) = match way.by {
            By::Relevo {
                place: Place::Together, ..
            } => (way.machines(), CORE),
            By::Relevo { .. } | By::Several { .. } => (way.machines(), other_core()),
            _ => (1, CORE),
        };
        for (i, host) in lab.machines()[..machines].iter().enumerate() {
            processes.push(start_server(
                lab,
                host,
                way.port(),
                if i == 0 { CORE } else { core },
                server,
            ));
        }
    }
    processes
}

fn start_server(lab: &Lab, host: &Host, port: u16, core: &str, server: Server) -> Process {
    let mut command = host.command("taskset");
    command.args(["-c", core]);
    match server {
        Server::Sockperf => {
            command.args(["sockperf", "server", "--tcp", "-i", "0.0.0.0", "-p"]);
        }
        Server::Own => {
            command
                .arg(std::env::current_exe().expect("this program's path"))
                .arg("serve");
        }
    }
    command.arg(port.to_string());
    let process = Process::start(&format!("server-{}-{port}", host.name()), lab.dir(), &mut command);
    wait_until_listening(host, port);
    process
}

/// What hosts are told beyond the lab's usual.
fn tune(lab: &Lab, kind: Kind) {
    // Who connects thousands of times a second must not run out of ports: one may be used again a second after its last end.
    let proxies = (kind == Kind::Plain).then(|| lab.engine());
    for host in std::iter::once(lab.client()).chain(proxies) {
        host.sysctl("net/ipv4/tcp_tw_reuse", "1");
        host.sysctl("net/ipv4/ip_local_port_range", "12000 65000");
    }
    if kind == Kind::Relevo(Place::Together) || other_core() == CORE {
        return;
    }
    let other = other_core().parse().expect("a core's number");
    // A replica is another machine: its stack's work is not the engine host's. Receive packet steering lets the other core do it.
    for replica in &lab.machines()[1..] {
        if let Err(why) = replica.take_up_on("eth0", other) {
            println!(
                "note: receive packet steering can't be set, so the engine's core works for this stack, too: {why}"
            );
        }
    }
}
