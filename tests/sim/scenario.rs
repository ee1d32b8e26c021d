//! What a run consists of. How a seed draws one is in [`draw`], and what is laid over that in [`crate::layers`].

mod draw;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use relevo::engine::{
    DetectSpec, DivergePolicy, EngineSpec, Limits, MILLISECOND, MachineSpec, MaxLag, Micros, Original, SECOND,
    ServiceSpec, SourceMode, Successor, UnknownPolicy,
};

use crate::app::Pace;
use crate::host::HostSpec;
use crate::net::LinkSpec;
use crate::script::{Dialogue, Ending, Record};

/// When a fault strikes.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// At this time in microseconds.
    Time(Micros),
    /// When the engine has been given so many packets.
    Packets(u64),
}

/// What goes wrong, or is ordered.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing gets in or out of the machine any more; with `stop` its clock stands still too.
    Freeze {
        machine: usize,
        stop: bool,
    },
    Thaw {
        machine: usize,
    },
    Down {
        machine: usize,
    },
    Up {
        machine: usize,
    },
    Failover {
        to: usize,
    },
    /// Each flow moves when the machine is level in it.
    HandOver {
        to: usize,
    },
    /// A handover to the machine is waited for no longer.
    EndHandOver {
        to: usize,
    },
    /// New flows begin with the machine.
    Serve {
        machine: usize,
    },
    /// The service ends: its connections end by FIN or RST, and it listens again at once.
    Crash {
        machine: usize,
        fin: bool,
    },
    /// The service is killed. Its kernel ends its connections one after the other, with so many microseconds between them, and takes meanwhile what
    /// clients ask of the rest. Then it listens again.
    Die {
        machine: usize,
        fin: bool,
        every: Micros,
    },
    /// The stack acknowledges, the service reads and says nothing any more.
    Hang {
        machine: usize,
    },
    Wake {
        machine: usize,
    },
    /// The machine has forgotten everything, and runs on.
    Restart {
        machine: usize,
    },
    /// The engine is not scheduled for so long, in microseconds; what arrives meanwhile waits.
    Stall {
        micros: Micros,
    },
}

/// One connection.
#[derive(Clone, Debug)]
pub struct FlowSpec {
    pub client: usize,
    pub port: u16,
    /// When the client connects; a connection from a port in use waits until that is over.
    pub start: Micros,
    pub dialogue: Dialogue,
}

/// State of the TCP checksum of packets given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    Complete,
    /// As a kernel with checksum offload delivers them: only the pseudo header's sum is there.
    Partial,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub v6: bool,
    pub service: ServiceSettings,
    pub limits: Limits,
    /// Bytes that the server says before it is asked.
    pub greeting: u32,
    pub clients: Vec<HostSpec>,
    /// The original first.
    pub machines: Vec<HostSpec>,
    pub flows: Vec<FlowSpec>,
    pub faults: Vec<(When, Fault)>,
    /// The stall of old schedules, whose chance was the kind of fault's, too.
    pub old_stall: Option<(When, Fault)>,
    /// From then on nothing is lost, doubled or overtaken, in microseconds.
    pub heal: Micros,
    pub sums: Sums,
    /// How much the engine does before it looks whether a packet has come: flows, and packets of its own.
    pub part: usize,
    pub cuts: Cuts,
}

/// What becomes of super-packets on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// There are none: each segment is a packet of its own.
    Never,
    /// They are cut as the engine says.
    AsTold,
    /// Some are cut into smaller segments on their way.
    Smaller,
}

/// The part of [`ServiceSpec`] that is drawn.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSettings {
    pub source: SourceMode,
    pub max_lag: MaxLag,
    pub original: Original,
    pub successor: Successor,
    pub replica_timeout: Micros,
    pub detect: DetectSpec,
    pub diverge: DivergePolicy,
}

/// Port of the PSC, and of the service on each machine.
pub const PSC_PORT: u16 = 6379;
pub const MACHINE_PORT: u16 = 7000;

fn address(v6: bool, net: u8, host: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)).into()
    } else {
        Ipv4Addr::new(10, 0, net, host).into()
    }
}

pub fn client_addr(v6: bool, i: usize) -> IpAddr {
    address(v6, 1, 10 + i as u8)
}

/// Interfaces of the engine host.
pub const CLIENT_IFINDEX: u32 = 1;
pub const MACHINE_IFINDEX: u32 = 2;

/// A host without whims: fast, clean links of `delay` microseconds each way.
pub const fn plain_host(delay: Micros) -> HostSpec {
    HostSpec {
        mtu: 1500,
        rx: 65_535,
        tx: 65_535,
        ts_base: 1_000_000,
        timestamps: true,
        sack: true,
        scaling: true,
        first_isn: 12_345,
        ack_delay: 10,
        nagle: true,
        reno: false,
        keep_alive: 0,
        pace: Pace::FAST,
        refuses: false,
        odd: None,
        up: LinkSpec::clean(delay),
        down: LinkSpec::clean(delay),
    }
}

impl Scenario {
    /// One client, an original and `replicas`, without whims or faults; dialogues are to be added.
    pub fn plain(replicas: usize) -> Self {
        let machine = |i: usize| HostSpec {
            first_isn: 700_000_000 * (i as u32 + 1),
            ts_base: 77_000_000 * i as u32,
            ..plain_host(200 + 50 * i as Micros)
        };
        Self {
            seed: 0,
            v6: false,
            service: ServiceSettings {
                source: SourceMode::Psc,
                max_lag: MaxLag::Bytes(0),
                original: Original::First,
                successor: Successor::First,
                replica_timeout: 200 * MILLISECOND,
                detect: DetectSpec {
                    floor: 5 * MILLISECOND,
                    probe_interval: 100 * MILLISECOND,
                    probes: 3,
                    hang: None,
                    vote: 20 * MILLISECOND,
                    crash_ends: 16,
                },
                diverge: DivergePolicy::Warn,
            },
            limits: sim_limits(),
            greeting: 0,
            clients: vec![plain_host(2_000)],
            machines: (0..=replicas).map(machine).collect(),
            flows: Vec::new(),
            faults: Vec::new(),
            old_stall: None,
            heal: 0,
            sums: Sums::Complete,
            part: usize::MAX,
            cuts: Cuts::Never,
        }
    }

    /// Segments leave together, and are cut so.
    pub fn cut(mut self, cuts: Cuts) -> Self {
        self.cuts = cuts;
        self
    }

    /// Adds a connection of client 0 with one request.
    pub fn request(self, upload: u32, reply: u32, ending: Ending) -> Self {
        let record = Record {
            upload,
            reply,
            echo: false,
            wait: false,
            think: 0,
        };
        self.dialogue(Dialogue {
            trailer: 0,
            records: vec![record],
            ending,
        })
    }

    /// Adds a connection of client 0.
    pub fn dialogue(mut self, dialogue: Dialogue) -> Self {
        let port = 40_000 + self.flows.len() as u16;
        self.flows.push(FlowSpec {
            client: 0,
            port,
            start: 1_000,
            dialogue,
        });
        self
    }

    pub fn fault(mut self, when: When, fault: Fault) -> Self {
        self.faults.push((when, fault));
        self
    }

    /// What the engine is told.
    pub fn engine_spec(&self) -> EngineSpec {
        let machine = |(i, host): (usize, &HostSpec)| MachineSpec {
            name: format!("machine-{i}"),
            addr: self.machine_addr(i),
            ifindex: Some(MACHINE_IFINDEX),
            path_mtu: host.mtu as u16,
        };
        EngineSpec {
            services: vec![ServiceSpec {
                name: "service".into(),
                psc: self.psc(),
                source: self.service.source,
                max_lag: self.service.max_lag,
                original: self.service.original,
                successor: self.service.successor,
                replica_timeout: self.service.replica_timeout,
                detect: self.service.detect,
                diverge: self.service.diverge,
                unknown: UnknownPolicy::Reset,
                machines: self.machines.iter().enumerate().map(machine).collect(),
            }],
            limits: self.limits.clone(),
            shard: 0,
            shards: 1,
            super_packets: self.cuts != Cuts::Never,
            hash_key: [7; 16],
        }
    }

    pub fn psc(&self) -> SocketAddr {
        SocketAddr::new(address(self.v6, 1, 100), PSC_PORT)
    }

    pub fn machine_addr(&self, i: usize) -> SocketAddr {
        SocketAddr::new(address(self.v6, 2, 2 + i as u8), MACHINE_PORT)
    }
}

/// Limits with short times, so that a run is over soon.
fn sim_limits() -> Limits {
    Limits {
        max_flows: 1_000,
        half_open_timeout: 20 * SECOND,
        close_timeout: 5 * SECOND,
        time_wait: SECOND,
        park_after: SECOND,
        ..Limits::default()
    }
}
