//! What is laid over a drawn scenario. Each layer has a stream of chance of its own, so that no draw says anything about another, and a
//! new layer leaves the schedules without it as they were.

use relevo::engine::{DivergePolicy, MILLISECOND, Micros, SECOND};

use crate::app::Pace;
use crate::rng::Rng;
use crate::scenario::{Cuts, Fault, FlowSpec, Scenario, When};
use crate::script::{Dialogue, Ending, Record};

/// The streams of the layers; those below ten are the scenario's own.
const STALL: u64 = 11;
const OPTIONS: u64 = 12;
const DEATHS: u64 = 13;
const COMMANDS: u64 = 14;
const PATIENCE: u64 = 15;
const DIVERGENCE: u64 = 16;
const CUTS: u64 = 17;
// 18 is how super-packets are cut on their way.
const JUDGEMENT: u64 = 19;
const SILENCE: u64 = 20;

fn when(r: &mut Rng) -> When {
    if r.chance(600) {
        When::Packets(r.log_range(1, 600))
    } else {
        When::Time(r.log_range(200, 3_000_000))
    }
}

fn after(at: When, r: &mut Rng) -> When {
    match at {
        When::Packets(n) if r.chance(500) => When::Packets(n + r.log_range(1, 300)),
        When::Packets(_) => When::Time(r.log_range(50_000, 5_000_000)),
        When::Time(t) => When::Time(t + r.log_range(500, 5_000_000)),
    }
}

impl Scenario {
    /// Draws the layers.
    pub fn with_layers(mut self) -> Self {
        let stream = |n| Rng::new(self.seed, n);
        let (mut stall, mut options, mut deaths) = (stream(STALL), stream(OPTIONS), stream(DEATHS));
        let (mut commands, mut patience, mut divergence) = (stream(COMMANDS), stream(PATIENCE), stream(DIVERGENCE));
        self.draw_stall(&mut stall);
        self.draw_options(&mut options);
        // Nothing may make a machine that says something else the original: its clients would read it.
        if self.machines.iter().all(|m| m.odd.is_none()) {
            self.draw_deaths(&mut deaths);
            self.draw_commands(&mut commands);
        }
        self.draw_patience(&mut patience);
        self.draw_divergence(&mut divergence);
        self.cuts = Rng::new(self.seed, CUTS).pick(&[Cuts::Never, Cuts::AsTold, Cuts::AsTold, Cuts::Smaller]);
        self
    }

    /// When a service is taken for hanging, or for crashing; and services that take their time to die.
    pub fn with_judgement(mut self) -> Self {
        let r = &mut Rng::new(self.seed, JUDGEMENT);
        let hang = r.chance(500).then(|| r.log_range(20, 1_000) * MILLISECOND);
        self.service.detect.crash_ends = r.pick(&[1, 2, 3, 16]);
        // Nothing may make a machine that says something else the original.
        if self.machines.iter().any(|m| m.odd.is_some()) {
            return self;
        }
        self.service.detect.hang = hang;
        for (_, fault) in &mut self.faults {
            if let Fault::Crash { machine, fin } = *fault
                && r.chance(500)
            {
                let every = r.log_range(200, 50_000);
                *fault = Fault::Die { machine, fin, every };
            }
        }
        // Two machines that crash in the same connection at the same place agree, and are believed (R11).
        let dies = |f: &Fault| matches!(f, Fault::Crash { .. } | Fault::Die { .. } | Fault::Restart { .. });
        if r.chance(50) && !self.faults.iter().any(|(_, f)| dies(f)) {
            self.draw_slow_death(r);
        }
        self
    }

    /// The original's service is killed in the middle of many conversations.
    fn draw_slow_death(&mut self, r: &mut Rng) {
        let asks = |r: &mut Rng| Record {
            upload: r.below(100) as u32,
            reply: r.log_range(1, 1_000) as u32,
            echo: false,
            wait: true,
            think: r.log_range(100, 20_000),
        };
        for i in 0..r.range(2, 6) {
            let records = (0..r.range(5, 20)).map(|_| asks(r)).collect();
            self.flows.push(FlowSpec {
                client: r.below(self.clients.len() as u64) as usize,
                port: 41_000 + i as u16,
                start: r.below(5_000),
                dialogue: Dialogue {
                    trailer: 0,
                    records,
                    ending: r.pick(&[Ending::HalfClose, Ending::ClientCloses, Ending::ServerCloses]),
                },
            });
        }
        self.flows.sort_by_key(|f| f.start);
        let (at, every) = (When::Time(r.log_range(5_000, 300_000)), r.log_range(200, 50_000));
        let fin = r.chance(500);
        self.faults.push((at, Fault::Die { machine: 0, fin, every }));
    }

    /// A replica is slow while clients connect that say nothing yet, and the original's service ends its connections later.
    pub fn with_silence(mut self) -> Self {
        let r = &mut Rng::new(self.seed, SILENCE);
        let odd = self.machines.iter().any(|m| m.odd.is_some());
        if r.chance(50) && self.machines.len() > 1 && !odd {
            self.draw_silence(r);
        }
        self
    }

    fn draw_silence(&mut self, r: &mut Rng) {
        // Slow for longer than clients wait for it, and not so long that it is taken for dead.
        let slow = r.range(1, self.machines.len() as u64 - 1) as usize;
        self.service.replica_timeout = r.log_range(50, 200) * MILLISECOND;
        self.service.detect.floor = SECOND;
        let from = r.log_range(1_000, 50_000);
        let until = from + self.service.replica_timeout + r.log_range(10_000, 400_000);
        let end = until + r.log_range(5_000, 500_000);
        let stop = r.chance(500);
        let ends = if r.chance(500) {
            Fault::Crash { machine: 0, fin: true }
        } else {
            let (fin, every) = (r.chance(800), r.log_range(200, 20_000));
            Fault::Die { machine: 0, fin, every }
        };
        self.faults = vec![
            (When::Time(from), Fault::Freeze { machine: slow, stop }),
            (When::Time(until), Fault::Thaw { machine: slow }),
            (When::Time(end), ends),
        ];
        // Now and then none is left but the one that was slow.
        if r.chance(500) {
            for machine in (1..self.machines.len()).filter(|m| *m != slow) {
                let at = When::Time(r.log_range(until, end));
                self.faults.push((at, Fault::Down { machine }));
            }
        }
        for i in 0..r.range(1, 5) {
            let flow = self.draw_silent_flow(r, 42_000 + i as u16, (from, until + 20_000));
            self.flows.push(flow);
        }
        self.flows.sort_by_key(|f| f.start);
    }

    /// A client that connects between those times, and says nothing for up to two seconds.
    fn draw_silent_flow(&self, r: &mut Rng, port: u16, times: (Micros, Micros)) -> FlowSpec {
        let later = Record {
            upload: r.below(200) as u32,
            reply: r.log_range(1, 2_000) as u32,
            echo: false,
            wait: true,
            think: 0,
        };
        let first = Record {
            think: r.log_range(1_000, 2_000_000),
            ..later
        };
        FlowSpec {
            client: r.below(self.clients.len() as u64) as usize,
            port,
            start: r.range(times.0, times.1),
            dialogue: Dialogue {
                trailer: 0,
                records: vec![first, later],
                ending: r.pick(&[Ending::HalfClose, Ending::ClientCloses, Ending::ServerCloses]),
            },
        }
    }

    /// The engine is not scheduled for a while.
    fn draw_stall(&mut self, r: &mut Rng) {
        if r.chance(150) {
            let at = When::Time(r.log_range(200, 3_000_000));
            let micros = r.log_range(1_000, 300_000);
            self.faults.push((at, Fault::Stall { micros }));
        }
    }

    /// SACK and window scaling are off on single hosts. A replica that does less than its original is not fit to take over.
    fn draw_options(&mut self, r: &mut Rng) {
        if !r.chance(300) {
            return;
        }
        for host in &mut self.clients {
            (host.sack, host.scaling) = (r.chance(700), r.chance(700));
        }
        let (sack, scaling) = (r.chance(600), r.chance(600));
        for host in &mut self.machines {
            // Mostly all agree; some do more, and a few less.
            (host.sack, host.scaling) = (sack ^ r.chance(150), scaling ^ r.chance(150));
        }
    }

    /// A machine's service crashes or hangs, or the machine starts anew.
    fn draw_deaths(&mut self, r: &mut Rng) {
        if !r.chance(200) {
            return;
        }
        let machines = self.machines.len() as u64;
        // The original's misfortune is a known limit until it is judged (R11, R14): mostly it is a replica's.
        let machine = if machines > 1 && r.chance(750) {
            r.range(1, machines - 1) as usize
        } else {
            0
        };
        let at = when(r);
        match r.below(4) {
            0 => self.faults.push((at, Fault::Crash { machine, fin: false })),
            1 => self.faults.push((at, Fault::Crash { machine, fin: true })),
            2 => self.faults.push((at, Fault::Restart { machine })),
            _ => {
                self.faults.push((at, Fault::Hang { machine }));
                if r.chance(600) {
                    self.faults.push((after(at, r), Fault::Wake { machine }));
                }
            }
        }
    }

    /// What is done about a machine that says something else; where one does, it must be seen.
    fn draw_divergence(&mut self, r: &mut Rng) {
        let policies = [
            DivergePolicy::Warn,
            DivergePolicy::Ineligible,
            DivergePolicy::Evict,
            DivergePolicy::Off,
        ];
        let seen = self.machines.iter().any(|m| m.odd.is_some());
        if r.chance(400) {
            self.service.diverge = r.pick(&policies[..policies.len() - usize::from(seen)]);
        }
    }

    /// Commands next to whatever else happens, and to each other.
    fn draw_commands(&mut self, r: &mut Rng) {
        if !r.chance(150) {
            return;
        }
        let machines = self.machines.len() as u64;
        for _ in 0..r.range(1, 4) {
            let (at, machine) = (when(r), r.below(machines) as usize);
            let fault = match r.below(5) {
                0 => Fault::Failover { to: machine },
                1 => Fault::HandOver { to: machine },
                2 => Fault::Down { machine },
                3 => Fault::Up { machine },
                _ => Fault::Serve { machine },
            };
            self.faults.push((at, fault));
            let end = match fault {
                Fault::Down { machine } => Fault::Up { machine },
                Fault::HandOver { to } => Fault::EndHandOver { to },
                _ => continue,
            };
            if r.chance(500) {
                self.faults.push((after(at, r), end));
            }
        }
    }

    /// Long zero windows, and connections that are idle but for their keep-alives.
    fn draw_patience(&mut self, r: &mut Rng) {
        if !r.chance(80) {
            return;
        }
        // The pace is the host's: another flow's long transfer would not be over in time.
        self.flows.truncate(1);
        let flow = &mut self.flows[0];
        let record = |upload, reply, think| Record {
            upload,
            reply,
            echo: false,
            wait: true,
            think,
        };
        let keep_alive = r.log_range(100, 2_000);
        let client = &mut self.clients[flow.client];
        let every: Micros = r.range(500, 4_000) * MILLISECOND;
        let reads_late = Pace {
            chunk: client.rx.min(30_000),
            every,
            think: 0,
        };
        let records = match r.below(3) {
            // The client's window stays closed, the machines', or nobody says anything. A few windows are over before patience is.
            0 => {
                client.pace = reads_late;
                vec![record(100, 4_000.max(4 * client.rx.min(20_000)) as u32, 0)]
            }
            1 => {
                let least = self.machines.iter().map(|m| m.rx).min().unwrap_or(0).min(20_000);
                for machine in &mut self.machines {
                    (machine.pace.chunk, machine.pace.every) = (machine.rx.min(30_000), every);
                }
                vec![record(4 * least as u32, 100, 0)]
            }
            _ => {
                client.keep_alive = keep_alive;
                if r.chance(500) {
                    self.machines.iter_mut().for_each(|m| m.keep_alive = keep_alive);
                }
                let think = |r: &mut Rng| r.log_range(1, 8) * SECOND;
                (0..3).map(|_| record(50, 500, think(r))).collect()
            }
        };
        flow.dialogue = Dialogue {
            trailer: 0,
            records,
            ending: r.pick(&[Ending::HalfClose, Ending::ClientCloses, Ending::ServerCloses]),
        };
    }
}
