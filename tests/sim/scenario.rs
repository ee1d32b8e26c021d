//! What a run consists of, drawn from one seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use relevo::engine::{
    DetectSpec, DivergePolicy, EngineSpec, Limits, MILLISECOND, MachineSpec, MaxLag, Micros, Original, SECOND,
    ServiceSpec, SourceMode, Successor, UnknownPolicy,
};

use crate::app::{Dialogue, Ending, Odd, Oddity, Pace, Record};
use crate::host::HostSpec;
use crate::net::LinkSpec;
use crate::rng::Rng;

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
    /// The service's process is killed: its connections end with FIN or, where something is unread, with RST, and everything that comes
    /// later is answered with RST. It does not come back.
    Crash {
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
    /// From then on nothing is lost, doubled or overtaken, in microseconds.
    pub heal: Micros,
    pub sums: Sums,
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
                },
            },
            limits: sim_limits(),
            greeting: 0,
            clients: vec![plain_host(2_000)],
            machines: (0..=replicas).map(machine).collect(),
            flows: Vec::new(),
            faults: Vec::new(),
            heal: 0,
            sums: Sums::Complete,
        }
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
                diverge: DivergePolicy::Warn,
                unknown: UnknownPolicy::Reset,
                machines: self.machines.iter().enumerate().map(machine).collect(),
            }],
            limits: self.limits.clone(),
            shard: 0,
            shards: 1,
            hash_key: [7; 16],
        }
    }

    pub fn psc(&self) -> SocketAddr {
        SocketAddr::new(address(self.v6, 1, 100), PSC_PORT)
    }

    pub fn machine_addr(&self, i: usize) -> SocketAddr {
        SocketAddr::new(address(self.v6, 2, 2 + i as u8), MACHINE_PORT)
    }

    /// Draws a run.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let r = &mut rng;
        let mut s = Self::plain(r.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4]));
        s.seed = seed;
        s.v6 = r.chance(400);
        s.service = ServiceSettings {
            source: if r.chance(300) {
                SourceMode::Client
            } else {
                SourceMode::Psc
            },
            max_lag: r.pick(&[
                MaxLag::Bytes(0),
                MaxLag::Bytes(0),
                MaxLag::Bytes(0),
                MaxLag::Bytes(1),
                MaxLag::Bytes(5_000),
                MaxLag::Unlimited,
            ]),
            original: Rng::new(seed, 5).pick(&[Original::First, Original::First, Original::Fastest]),
            successor: Rng::new(seed, 3).pick(&Successor::ALL),
            replica_timeout: r.log_range(50, 5_000) * MILLISECOND,
            detect: DetectSpec {
                floor: r.log_range(2, 50) * MILLISECOND,
                probe_interval: r.log_range(50, 1_000) * MILLISECOND,
                probes: r.range(2, 5) as u32,
                ..s.service.detect
            },
        };
        if r.chance(300) {
            s.limits.flow_buffer = r.log_range(8 << 10, 256 << 10) as usize;
        }
        if r.chance(200) {
            s.greeting = r.log_range(1, 5_000) as u32;
        }
        if r.chance(250) {
            s.sums = Sums::Partial;
        }
        s.heal = r.log_range(1, 15_000) * MILLISECOND;
        let timestamps = r.chance(700);
        let rough = r.chance(600);
        s.clients = (0..r.pick(&[1, 1, 1, 2, 3]))
            .map(|_| draw_host(r, timestamps, rough, 20_000, false))
            .collect();
        let timestamps = r.chance(800);
        let machine_rough = rough && r.chance(500);
        s.machines = (0..s.machines.len())
            // A replica may always do less than its original accepted being offered less; here all agree or it may do more.
            .map(|i| {
                let more = i > 0 && r.chance(500);
                draw_host(r, timestamps || more, machine_rough, 2_000, true)
            })
            .collect();
        if s.machines.len() > 2 && r.chance(50) {
            let last = s.machines.len() - 1;
            s.machines[last].refuses = true;
        }
        s.draw_flows(r);
        s.draw_faults(r);
        s.plan_some();
        // A stream of its own: other schedules stay as they are.
        let r = &mut Rng::new(seed, 6);
        if s.machines.len() > 2 && r.chance(150) {
            s.draw_oddity(r);
        }
        s
    }

    /// Half of the failovers wait until the new original is level. Drawn apart: a seed's other faults stay what they were.
    fn plan_some(&mut self) {
        let mut r = Rng::new(self.seed, 4);
        for (_, fault) in &mut self.faults {
            if let Fault::Failover { to } = *fault
                && r.chance(500)
            {
                *fault = Fault::HandOver { to };
            }
        }
    }

    /// One replica's service says something else (R17). Nothing may make that machine the original, a vote neither: its clients would
    /// read it.
    fn draw_oddity(&mut self, r: &mut Rng) {
        let machine = self.machines.len() - 1;
        self.faults.clear();
        self.service.original = Original::First;
        self.service.detect.vote = 0;
        self.machines[machine].refuses = false;
        self.machines[machine].odd = Some(Odd {
            at: r.log_range(1, 20_000) as usize - 1,
            what: r.pick(&[Oddity::Other, Oddity::Other, Oddity::Shorter, Oddity::Longer]),
        });
    }

    fn draw_flows(&mut self, r: &mut Rng) {
        let same_port = r.chance(400);
        for i in 0..r.pick(&[1, 1, 1, 2, 3, 5]) {
            let client = r.below(self.clients.len() as u64) as usize;
            // With one port for all, connections of the same client follow each other on the same addresses.
            let port = if same_port { 40_000 } else { 40_000 + i as u16 };
            let late = r.chance(300);
            let start = r.below(if late { 500_000 } else { 5_000 });
            self.flows.push(FlowSpec {
                client,
                port,
                start,
                dialogue: draw_dialogue(r),
            });
        }
        self.flows.sort_by_key(|f| f.start);
    }

    fn draw_faults(&mut self, r: &mut Rng) {
        let machines = self.machines.len() as u64;
        let when = |r: &mut Rng| {
            if r.chance(600) {
                When::Packets(r.log_range(1, 600))
            } else {
                When::Time(r.log_range(200, 3_000_000))
            }
        };
        let thaw = |at: When, r: &mut Rng| match at {
            When::Packets(n) if r.chance(500) => When::Packets(n + r.log_range(1, 300)),
            When::Packets(_) => When::Time(r.log_range(50_000, 5_000_000)),
            When::Time(t) => When::Time(t + r.log_range(500, 5_000_000)),
        };
        let freeze = |r: &mut Rng, machine: usize| Fault::Freeze {
            machine,
            stop: r.chance(500),
        };
        let stall = r.clone().chance(150).then(|| {
            let mut r = Rng::new(self.seed, 2);
            (When::Time(r.log_range(200, 3_000_000)), r.log_range(1_000, 300_000))
        });
        self.faults
            .extend(stall.map(|(at, micros)| (at, Fault::Stall { micros })));
        let mut crash = Rng::new(self.seed, 7);
        if crash.chance(250) {
            let r = &mut crash;
            let (at, any) = (when(r), r.below(machines) as usize);
            let machine = if r.chance(700) { 0 } else { any };
            self.faults.push((at, Fault::Crash { machine }));
        }
        match r.below(10) {
            // Nothing.
            0 => (),
            // The original freezes, for good or not.
            1..=4 => {
                let at = when(r);
                let fault = freeze(r, 0);
                self.faults.push((at, fault));
                if r.chance(400) {
                    let at = thaw(at, r);
                    self.faults.push((at, Fault::Thaw { machine: 0 }));
                }
            }
            // Any one machine freezes, for good or not.
            5 | 6 => {
                let (at, machine) = (when(r), r.below(machines) as usize);
                let fault = freeze(r, machine);
                self.faults.push((at, fault));
                if r.chance(400) {
                    let at = thaw(at, r);
                    self.faults.push((at, Fault::Thaw { machine }));
                }
            }
            // Commands.
            7 | 8 => {
                for _ in 0..r.range(1, 3) {
                    let (at, machine) = (when(r), r.below(machines) as usize);
                    self.faults
                        .push((at, r.pick(&[Fault::Down { machine }, Fault::Failover { to: machine }])));
                    if r.chance(300) {
                        let at = thaw(at, r);
                        self.faults.push((at, Fault::Up { machine }));
                    }
                }
            }
            // Several machines freeze, one survives.
            _ => {
                let survivor = r.below(machines) as usize;
                for machine in 0..machines as usize {
                    if machine != survivor && r.chance(700) {
                        let at = when(r);
                        let fault = freeze(r, machine);
                        self.faults.push((at, fault));
                    }
                }
            }
        }
    }
}

/// Limits with short times, so that a run is over soon.
fn sim_limits() -> Limits {
    Limits {
        max_flows: 1_000,
        half_open_timeout: 20 * SECOND,
        close_timeout: 5 * SECOND,
        time_wait: SECOND,
        ..Limits::default()
    }
}

fn draw_link(r: &mut Rng, rough: bool, delay_max: Micros) -> LinkSpec {
    let mut link = LinkSpec::clean(r.log_range(20, delay_max));
    if r.chance(300) {
        link.jitter = r.below(link.delay);
    }
    if r.chance(200) {
        link.ns_per_byte = r.log_range(8, 2_000);
    }
    if rough {
        link.loss = r.pick(&[0, 0, 1, 10, 30, 60]);
        link.dup = r.pick(&[0, 0, 0, 10, 100]);
        link.reorder = r.pick(&[0, 0, 10, 100, 300]);
        link.late = r.log_range(10, 4 * delay_max);
    }
    link
}

/// A number close to where 32 bits wrap, or anywhere.
fn draw_u32(r: &mut Rng) -> u32 {
    match r.below(3) {
        0 => r.next() as u32,
        1 => 0u32.wrapping_sub(r.log_range(1, 70_000) as u32),
        _ => 0x8000_0000u32.wrapping_sub(r.log_range(1, 70_000) as u32),
    }
}

fn draw_host(r: &mut Rng, timestamps: bool, rough: bool, delay_max: Micros, machine: bool) -> HostSpec {
    let mtu = r.pick(&[1500, 1500, 1500, 1400, 1280, 9000]);
    let slow = r.chance(200);
    let every = if r.chance(200) { r.log_range(100, 50_000) } else { 0 };
    let rx = r.pick(&[2_000, 8_192, 30_000, 65_535, 65_535, 65_535, 100_000, 262_144]);
    HostSpec {
        mtu,
        rx,
        tx: r.pick(&[4_096, 16_384, 65_535, 131_072]),
        ts_base: draw_u32(r),
        timestamps,
        first_isn: draw_u32(r),
        ack_delay: r.pick(&[0, 1, 10, 10, 40]),
        nagle: r.chance(500),
        reno: r.chance(500),
        keep_alive: if r.chance(150) { r.log_range(20, 2_000) } else { 0 },
        pace: Pace {
            // Twenty bytes a millisecond at least, so that a large transfer is over before patience is.
            chunk: if slow {
                r.log_range(100, 10_000).max(every / 50) as usize
            } else {
                usize::MAX
            },
            every,
            think: if machine && r.chance(300) {
                r.log_range(10, 30_000)
            } else {
                0
            },
        },
        refuses: false,
        odd: None,
        up: draw_link(r, rough, delay_max),
        down: draw_link(r, rough, delay_max),
    }
}

fn draw_dialogue(r: &mut Rng) -> Dialogue {
    let big = |r: &mut Rng| {
        let huge = r.chance(100);
        r.log_range(1, if huge { 400_000 } else { 40_000 }) as u32
    };
    let small = |r: &mut Rng| r.below(200) as u32;
    let record = |upload, reply| Record {
        upload,
        reply,
        echo: false,
        wait: false,
        think: 0,
    };
    let mut records = match r.below(7) {
        // Upload, download, both, echo.
        0 | 1 => vec![record(big(r), small(r))],
        2 | 3 => vec![record(small(r), big(r))],
        4 => vec![Record {
            echo: true,
            ..record(big(r), small(r))
        }],
        // Requests and replies, one by one or pipelined.
        5 => (0..r.range(2, 12))
            .map(|_| Record {
                wait: true,
                ..record(small(r), r.log_range(1, 3_000) as u32)
            })
            .collect(),
        _ => (0..r.range(2, 12))
            .map(|_| record(small(r), r.log_range(1, 3_000) as u32))
            .collect::<Vec<_>>(),
    };
    if r.chance(200) {
        for record in &mut records {
            record.think = r.log_range(100, 300_000);
        }
    }
    let ending = match r.below(10) {
        0..=3 => Ending::HalfClose,
        4..=6 => Ending::ClientCloses,
        7 | 8 => Ending::ServerCloses,
        _ if r.chance(300) => Ending::Abort(r.below(5_000) as u32),
        _ => Ending::HalfClose,
    };
    Dialogue {
        trailer: if r.chance(400) {
            r.log_range(1, 20_000) as u32
        } else {
            0
        },
        records,
        ending,
    }
}
