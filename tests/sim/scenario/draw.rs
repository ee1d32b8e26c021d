//! A run drawn from one seed.

use relevo::engine::{DetectSpec, MILLISECOND, MaxLag, Micros, Original, SourceMode, Successor};

use super::{Fault, FlowSpec, Scenario, ServiceSettings, Sums, When};
use crate::app::{Odd, Oddity, Pace};
use crate::host::HostSpec;
use crate::net::LinkSpec;
use crate::rng::Rng;
use crate::script::{Dialogue, Ending, Record};

impl Scenario {
    /// Draws a run.
    pub fn from_seed(seed: u64) -> Self {
        Self::before_silence(seed).with_silence()
    }

    /// A run as seeds drew it before slow machines met silent clients: by these numbers known failures are kept.
    pub fn before_silence(seed: u64) -> Self {
        Self::before_judgement(seed).with_judgement()
    }

    /// A run as seeds drew it before hangs and crashes were judged: by these numbers known failures are kept.
    pub fn before_judgement(seed: u64) -> Self {
        Self::base(seed).with_layers()
    }

    /// A run as seeds drew it before there were layers: by these numbers known failures are kept.
    pub fn as_of_old(seed: u64) -> Self {
        let mut s = Self::base(seed);
        if let Some(stall) = s.old_stall.take() {
            s.faults.insert(0, stall);
        }
        s
    }

    /// The part of a run that is drawn from the seed's first stream.
    fn base(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let r = &mut rng;
        let mut s = Self::plain(r.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4]));
        s.seed = seed;
        s.v6 = r.chance(400);
        s.part = Rng::new(seed, 7).pick(&[usize::MAX, usize::MAX, usize::MAX, 1, 2]);
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
            ..s.service
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

    /// One replica's service says something else (R17). Nothing may make that machine the original: its clients would read it.
    fn draw_oddity(&mut self, r: &mut Rng) {
        let machine = self.machines.len() - 1;
        self.faults.clear();
        self.old_stall = None;
        self.service.original = Original::First;
        // Nor may a vote (R11) make it the original.
        self.service.detect.vote = 0;
        // However many packets are lost, no burst of so many probes is.
        self.service.detect.probes = 10;
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
        self.old_stall = r.clone().chance(150).then(|| {
            let mut r = Rng::new(self.seed, 2);
            let at = When::Time(r.log_range(200, 3_000_000));
            let micros = r.log_range(1_000, 300_000);
            (at, Fault::Stall { micros })
        });
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
        sack: true,
        scaling: true,
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
