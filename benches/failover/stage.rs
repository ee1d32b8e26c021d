//! What can happen to the original, and the stage on which it does: four machines, the engine, a crowd of clients.
//!
//! The lab is made once. In each round the clients connect, and the original dies three times: with three, two and one replica left. Then
//! all machines are mended and enabled, which they are for new connections only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::capture::{Capture, Segment};
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Freeze, Link, Trigger, thaw};
use crate::lab::process::Process;
use crate::lab::relay::Relay;
use crate::lab::services::{addresses, wait_until_listening};
use crate::lab::{Family, Lab, counters};
use crate::service::{Clients, Work};
use crate::sight;

pub const PORT: u16 = 7_100;
pub const MACHINES: usize = 4;
/// How long a death may stay unnoticed before it counts as that.
const NOTICE: Duration = Duration::from_secs(3);
/// How long the clients may take to go on.
const GO_ON: Duration = Duration::from_secs(5);
/// Flows rest for so long before the next death: one that follows at once would be two failures at a time.
pub const REST: Duration = Duration::from_millis(150);

/// How the original fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Muted,
    LinkDown,
    Hung,
    Crashed,
    Closed,
    Deaf,
    Unheard,
}

impl Kind {
    /// All of them: clients must not notice any.
    pub const ALL: [Self; 7] = [
        Self::Muted,
        Self::LinkDown,
        Self::Hung,
        Self::Crashed,
        Self::Closed,
        Self::Deaf,
        Self::Unheard,
    ];

    /// As in `KINDS=` and in the records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Muted => "frozen",
            Self::LinkDown => "link-down",
            Self::Hung => "hung",
            Self::Crashed => "crashed",
            Self::Closed => "closed",
            Self::Deaf => "loss-to",
            Self::Unheard => "loss-from",
        }
    }

    /// For readers.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Muted => "frozen: the stack neither hears nor speaks, the link stays up",
            Self::LinkDown => "link down: the engine host loses carrier",
            Self::Hung => "hung: the service is stopped (SIGSTOP), its kernel acknowledges; `hang = \"20ms\"`",
            Self::Crashed => "crashed: the service is killed (SIGKILL), its kernel closes the connections",
            Self::Closed => "closed: the service ends every connection in order, then itself",
            Self::Deaf => "one-way loss: nothing reaches the machine",
            Self::Unheard => "one-way loss: nothing comes from the machine",
        }
    }

    const fn freeze(self) -> Option<Freeze> {
        match self {
            Self::Muted => Some(Freeze::Mute),
            Self::LinkDown => Some(Freeze::LinkDown),
            Self::Deaf => Some(Freeze::Deaf),
            Self::Unheard => Some(Freeze::Unheard),
            Self::Hung | Self::Crashed | Self::Closed => None,
        }
    }

    /// Lines of the service's section. All but the hang are tried with the defaults.
    pub const fn config(self) -> &'static str {
        match self {
            Self::Hung => "detect = { hang = \"20ms\" }",
            _ => "",
        }
    }
}

/// One death of the original, as it was seen.
#[derive(Clone, Debug)]
pub struct Death {
    pub struck: SystemTime,
    pub old: usize,
    pub replicas: usize,
    /// The takeover as `status` has it; `None` if there was none in time.
    pub takeover: Option<Value>,
    /// When the engine's log says that it was over.
    pub logged: Option<SystemTime>,
}

/// All deaths of one round.
pub struct Round {
    pub deaths: Vec<Death>,
    /// The client's interface.
    pub client: Vec<Segment>,
    /// Those of the machines, if wanted.
    pub machines: Vec<Vec<Segment>>,
    /// Connections that did not get what they should have.
    pub lost: Vec<String>,
    /// RSTs that have reached the client.
    pub resets: u64,
}

/// The lab with services on it.
pub struct Stage {
    pub lab: Lab,
    services: Vec<Process>,
    _relay: Option<Relay>,
    rounds: u16,
}

impl Stage {
    /// On plain links.
    pub fn set() -> Self {
        Self::set_with(&[], |_| None)
    }

    /// With a relay on a link.
    pub fn set_with(relayed: &[Link], relay: impl FnOnce(&Lab) -> Option<Relay>) -> Self {
        let lab = Lab::with_relays(1, MACHINES, relayed);
        let relay = relay(&lab);
        // Ten thousand connections are a host's whole life, not an attack.
        for host in lab.machines() {
            host.sysctl("net/core/somaxconn", "8192");
        }
        let services = lab.machines().iter().map(|host| start_service(&lab, host)).collect();
        Self {
            lab,
            services,
            _relay: relay,
            rounds: 0,
        }
    }

    /// An engine with the defaults and a further line.
    pub fn engine(&self, line: &str) -> Engine {
        let machines = addresses(self.lab.machines(), Family::V4, PORT);
        let service = ServiceConfig::new("lab", self.lab.psc(Family::V4, PORT), &machines);
        Engine::start(&self.lab, &[service.with(line)])
    }

    /// Clients that ask at a pace which leaves the two cores some air: alone back to back, many some thousand times a second together.
    pub fn clients(&mut self, connections: usize) -> std::io::Result<Clients> {
        self.clients_of(self.lab.psc(Family::V4, PORT), connections)
    }

    /// The same, of another address than the service's.
    pub fn clients_of(&mut self, to: SocketAddr, connections: usize) -> std::io::Result<Clients> {
        let pause = match connections {
            0..10 => Duration::ZERO,
            10..1_000 => Duration::from_millis(40),
            _ => Duration::from_millis(950) * u32::try_from(connections / 2_500).unwrap_or(1),
        };
        // A connection's ports rest for three rounds.
        let first_port = 10_000 + 12_000 * (self.rounds % 4);
        self.rounds += 1;
        let work = Work {
            to,
            connections,
            first_port,
            pause,
        };
        Clients::start(self.lab.client(), work)
    }

    /// A round: the crowd connects, the original dies three times.
    pub fn round(
        &mut self,
        engine: &Engine,
        kind: Kind,
        connections: usize,
        all_captures: bool,
    ) -> anyhow::Result<Round> {
        let resets = counters::resets_seen(self.lab.client());
        let capture = Capture::start(self.lab.client(), "eth0", self.lab.dir());
        let others: Vec<Capture> = if all_captures {
            let machines = self.lab.machines().iter();
            machines
                .map(|host| Capture::start(host, "eth0", self.lab.dir()))
                .collect()
        } else {
            Vec::new()
        };
        let clients = self.clients(connections)?;
        let wanted = connections.clamp(20, 500) as u64;
        wait_for_answers(&clients, wanted, GO_ON);
        std::thread::sleep(REST);
        let mut deaths = Vec::new();
        for replicas in (1..MACHINES).rev() {
            let death = self.strike(engine, kind, replicas);
            let before = clients.seen().answers.load(std::sync::atomic::Ordering::Relaxed);
            let noticed = death.takeover.is_some();
            deaths.push(death);
            if !noticed {
                break;
            }
            wait_for_answers(&clients, before + wanted.min(200), GO_ON);
            std::thread::sleep(REST);
        }
        let lost = clients.finish();
        let client = capture.stop();
        let machines = others.into_iter().map(Capture::stop).collect();
        let resets = self.resets_since(resets, &client);
        self.mend(engine, kind, &deaths);
        Ok(Round {
            deaths,
            client,
            machines,
            lost,
            resets,
        })
    }

    /// RSTs that have reached the client since so many had, and were not late.
    ///
    /// A client leaves by a RST. An acknowledgement that its RST has overtaken on the way through the kernel belongs to no connection any more, and is
    /// answered as a host would (R19).
    pub fn resets_since(&self, before: u64, client: &[Segment]) -> u64 {
        counters::resets_seen(self.lab.client()).saturating_sub(before + sight::late_resets(client))
    }

    fn strike(&self, engine: &Engine, kind: Kind, replicas: usize) -> Death {
        let old = machine_number(&engine.original());
        let log_before = engine.log().len();
        let trigger = kind.freeze().map(|freeze| Trigger::arm(self.lab.machine(old), freeze));
        let service = &self.services[old];
        let struck = match trigger {
            Some(trigger) => trigger.pull(),
            None => {
                let now = SystemTime::now();
                service.signal(match kind {
                    Kind::Hung => Signal::STOP,
                    Kind::Closed => Signal::TERM,
                    _ => Signal::KILL,
                });
                now
            }
        };
        // The log, not the status: asking would keep the workers from what is to be measured.
        let line = wait_for_line(engine, log_before, "takeover ");
        let last = line
            .as_ref()
            .map(|_| engine.status()["services"][0]["last_takeover"].clone());
        Death {
            struck,
            old,
            replicas,
            takeover: last.filter(|t| t["from"] == format!("m{old}")),
            logged: line.and_then(|line| time_of(&line)),
        }
    }

    /// Every machine as new, in service, and no connection left.
    pub fn mend(&mut self, engine: &Engine, kind: Kind, deaths: &[Death]) {
        for death in deaths {
            if let Some(freeze) = kind.freeze() {
                thaw(self.lab.machine(death.old), freeze);
            } else if kind == Kind::Hung {
                self.services[death.old].signal(Signal::CONT);
            }
        }
        self.mend_services();
        let start = Instant::now();
        while start.elapsed() < GO_ON && engine.status()["services"][0]["flows"] != 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        for i in 0..MACHINES {
            if engine.machine_state(i) != "up" {
                engine.enable(i);
            }
        }
        std::thread::sleep(REST);
    }

    /// A machine's service gets a signal.
    pub fn signal(&self, machine: usize, signal: Signal) {
        self.services[machine].signal(signal);
    }

    /// Every service as new.
    pub fn mend_services(&mut self) {
        for i in 0..MACHINES {
            self.services[i].signal(Signal::KILL);
            self.services[i].wait(GO_ON);
            self.services[i] = start_service(&self.lab, self.lab.machine(i));
        }
    }

    /// A crowd connects, and three replicas are disabled one after the other: legs freed, and microseconds for each.
    pub fn removals(&mut self, engine: &Engine, connections: usize) -> anyhow::Result<Vec<(u64, f64)>> {
        let clients = self.clients(connections)?;
        wait_for_answers(&clients, 500.min(connections as u64), GO_ON);
        let original = machine_number(&engine.original());
        let mut found = Vec::new();
        for i in (0..MACHINES).filter(|i| *i != original) {
            let log_before = engine.log().len();
            engine.disable(i);
            let line = wait_for_line(engine, log_before, "replica taken out").unwrap_or_default();
            if let (Some(us), Some(legs)) = (field(&line, "switch_us="), field(&line, "legs_freed="))
                && legs > 0
            {
                found.push((legs, us as f64 / legs as f64));
            }
            std::thread::sleep(REST);
        }
        let lost = clients.finish();
        anyhow::ensure!(lost.is_empty(), "a connection was lost with a replica: {lost:?}");
        self.mend(engine, Kind::Crashed, &[]);
        Ok(found)
    }
}

fn start_service(lab: &Lab, host: &crate::lab::Host) -> Process {
    let program: PathBuf = std::env::current_exe().expect("this program's path");
    let mut command = host.command(program.to_str().expect("a path in UTF-8"));
    command.args(["serve", &PORT.to_string()]);
    let process = Process::start(&format!("service-{}", host.name()), lab.dir(), &mut command);
    wait_until_listening(host, PORT);
    process
}

fn machine_number(name: &str) -> usize {
    name.trim_start_matches('m').parse().unwrap_or(0)
}

pub fn wait_for_answers(clients: &Clients, wanted: u64, limit: Duration) {
    let start = Instant::now();
    while start.elapsed() < limit && clients.seen().answers.load(std::sync::atomic::Ordering::Relaxed) < wanted {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first line of the engine's log behind `from` that contains `text`.
fn wait_for_line(engine: &Engine, from: usize, text: &str) -> Option<String> {
    let start = Instant::now();
    loop {
        let log = engine.log();
        let line = log
            .get(from..)
            .unwrap_or_default()
            .lines()
            .find(|line| line.contains(text));
        if line.is_some() || start.elapsed() > NOTICE {
            return line.map(str::to_owned);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn field(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(name)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The time of a line of the log, `2026-01-31T12:00:00.123456Z`: only what is within the hour is looked at.
fn time_of(line: &str) -> Option<SystemTime> {
    let clock = line.get(14..26)?;
    let (minutes, seconds) = clock.split_once(':')?;
    let within = minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let hour = now.as_secs() / 3_600 * 3_600;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(hour) + Duration::from_secs_f64(within);
    // Written just before the hour, read just after it.
    Some(if time > SystemTime::now() {
        time - Duration::from_secs(3_600)
    } else {
        time
    })
}
