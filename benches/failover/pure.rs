//! The engine alone: what a takeover of many flows, and the removal of a replica, take in processor time. No kernel, no network.
//!
//! All clients have one address, one first number and say the same; so do the machines. A flow is its port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relevo::config::defaults::DETECT;
use relevo::engine::{
    Command, DivergePolicy, Engine, EngineSpec, Limits, MILLISECOND, MachineId, MachineRef, MachineSpec, MaxLag, Meta,
    Micros, Original, Outbox, Outcome, ServiceId, ServiceSpec, SourceMode, Successor, UnknownPolicy, Verdict,
};
use relevo::wire::{Flags, Options, Parsed, Segment, Seq, Timestamps};

const REQUEST: &[u8] = &[b'?'; 32];
/// What each request is answered.
pub const ANSWER: &[u8] = &[b'!'; 64];
const CLIENT_ISN: u32 = u32::MAX - 20;
const FIRST_PORT: u16 = 10_000;
/// Way between two hosts.
const HOP: Micros = 20;

/// What one pass over all flows took.
pub struct Pass {
    /// The command itself: all flows have another original, or one leg less.
    pub command: Duration,
    /// The poll that follows: what is owed to clients and machines is in the outbox.
    pub poll: Duration,
    /// Flows that switched, or legs that were freed.
    pub flows: usize,
    /// Packets in the outbox.
    pub packets: usize,
}

/// The original dies while each flow has an answer of it to come, which the replicas have given.
pub fn takeover(flows: u16, replicas: u16) -> Pass {
    Crowd::with_answers_to_come(flows, replicas).measure_down(0)
}

/// A replica is taken out of all flows.
pub fn removal(flows: u16, replicas: u16) -> Pass {
    Crowd::established(flows, replicas).measure_down(1)
}

/// Clients, an engine, and machines that say what they should.
pub struct Crowd {
    /// The engine between them.
    pub engine: Engine,
    /// What it has to say.
    pub out: Outbox,
    /// Now.
    pub now: Micros,
    flows: u16,
    asked: u32,
    original_is_mute: bool,
}

impl Crowd {
    /// Every client has asked twice and was answered.
    pub fn established(flows: u16, replicas: u16) -> Self {
        let mut crowd = Self {
            engine: engine(usize::from(replicas) + 1, MaxLag::Bytes(0), 60_000 * MILLISECOND),
            out: Outbox::new(),
            now: 0,
            flows,
            asked: 0,
            original_is_mute: false,
        };
        for i in 0..flows {
            crowd.play(client_says(i, (CLIENT_ISN, 0), Flags::SYN, &[]));
        }
        // Twice, so that buffers have found their size.
        crowd.all_ask();
        crowd.all_ask();
        crowd
    }

    /// And a third time; the replicas have answered, the original has not.
    pub fn with_answers_to_come(flows: u16, replicas: u16) -> Self {
        let mut crowd = Self::established(flows, replicas);
        crowd.original_is_mute = true;
        crowd.all_ask();
        crowd
    }

    fn all_ask(&mut self) {
        let (seq, ack) = (
            CLIENT_ISN.wrapping_add(1 + self.asked * len(REQUEST)),
            isn(0).wrapping_add(1 + self.asked * len(ANSWER)),
        );
        self.asked += 1;
        for i in 0..self.flows {
            self.play(client_says(i, (seq, ack), Flags::ACK | Flags::PSH, REQUEST));
        }
        self.out.clear();
    }

    /// A packet, and all that follows from it.
    fn play(&mut self, packet: Vec<u8>) {
        let mut waiting = VecDeque::from([packet]);
        while let Some(mut packet) = waiting.pop_front() {
            self.now += HOP;
            let verdict = self.engine.handle_packet(self.now, Meta::default(), &mut packet);
            if let Verdict::Accept { len } = verdict {
                waiting.extend(self.answer(&packet[..len]));
            }
            self.out.clear();
            self.engine.poll(self.now, &mut self.out);
            let answers = self.out.iter().filter_map(|packet| self.answer(packet.bytes));
            waiting.extend(answers.collect::<Vec<_>>());
        }
    }

    /// What whoever gets a packet says to it.
    fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let p = Parsed::parse(packet).ok()?;
        let syn = p.flags.contains(Flags::SYN);
        let ack = p.seq.0.wrapping_add(p.seq_len());
        if p.src == psc() && p.dst.ip() == client(0).ip() {
            let answers = syn || p.payload_len() > 0;
            return answers.then(|| client_says(p.dst.port() - FIRST_PORT, (p.ack.0, ack), Flags::ACK, &[]));
        }
        let m = (0..16).find(|m| machine(*m) == p.dst)?;
        if m == 0 && self.original_is_mute {
            return None;
        }
        let asked = p.seq.0.wrapping_sub(CLIENT_ISN.wrapping_add(1)) / len(REQUEST);
        let at = isn(m).wrapping_add(asked.wrapping_mul(len(ANSWER)).wrapping_add(1));
        let say = |flags, seq, data| Some(segment(p.dst, p.src, (seq, ack), flags, data));
        if syn {
            say(Flags::SYN | Flags::ACK, isn(m), b"")
        } else if p.payload_len() > 0 {
            say(Flags::ACK | Flags::PSH, at, ANSWER)
        } else {
            None
        }
    }

    /// The machine is dead.
    pub fn down(&mut self, machine: u16) -> Outcome {
        let machine = MachineRef {
            service: ServiceId(0),
            machine: MachineId(machine),
        };
        self.engine.command(self.now, Command::Down { machine })
    }

    fn measure_down(&mut self, machine: u16) -> Pass {
        self.out.clear();
        let start = Instant::now();
        let outcome = self.down(machine);
        let command = start.elapsed();
        self.engine.poll(self.now, &mut self.out);
        Pass {
            command,
            poll: start.elapsed() - command,
            flows: outcome.switched.max(outcome.legs_freed),
            packets: self.out.len(),
        }
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn isn(machine: u16) -> u32 {
    u32::from(machine) * 0x1000_0000 + 77
}

/// Where clients connect.
pub fn psc() -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 100], 6_379))
}

fn client(i: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 7], FIRST_PORT + i))
}

/// Where a machine's service is.
pub fn machine(i: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 2 + i.to_be_bytes()[1]], 6_379))
}

fn client_says(i: u16, place: (u32, u32), flags: Flags, data: &[u8]) -> Vec<u8> {
    segment(client(i), psc(), place, flags, data)
}

fn segment(src: SocketAddr, dst: SocketAddr, (seq, ack): (u32, u32), flags: Flags, data: &[u8]) -> Vec<u8> {
    let syn = flags.contains(Flags::SYN);
    let segment = Segment {
        src,
        dst,
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 60_000,
        urgent: 0,
        options: Options {
            mss: syn.then_some(1_460),
            wscale: syn.then_some(7),
            sack_permitted: syn,
            timestamps: Some(Timestamps {
                val: 1_000,
                ecr: if flags == Flags::SYN { 0 } else { 1_000 },
            }),
            ..Options::default()
        },
        payload: (data, &[]),
    };
    let mut bytes = vec![0; segment.len()];
    assert!(segment.write(&mut bytes), "a packet that can be written");
    bytes
}

/// An engine with one service, all of it as by default but for what is given.
pub fn engine(machines: usize, max_lag: MaxLag, replica_timeout: Micros) -> Engine {
    let machines = (0..).take(machines).map(|i| MachineSpec {
        name: format!("m{i}"),
        addr: machine(i),
        ifindex: None,
        path_mtu: 1_500,
    });
    let service = ServiceSpec {
        name: "cache".into(),
        psc: psc(),
        source: SourceMode::Psc,
        max_lag,
        original: Original::First,
        diverge: DivergePolicy::Warn,
        successor: Successor::First,
        replica_timeout,
        detect: DETECT,
        unknown: UnknownPolicy::Reset,
        machines: machines.collect(),
    };
    Engine::new(EngineSpec {
        services: vec![service],
        limits: Limits::default(),
        shard: 0,
        shards: 1,
        super_packets: false,
        hash_key: [7; 16],
    })
}
