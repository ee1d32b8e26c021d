//! Dialogues with the engine: who says what, what becomes of it, what the engine says by itself. Times are explicit.
//!
//! Numbers start close to 2³², so that every dialogue crosses the wrap.
//!
//! All of this is compiled for tests only: no peer reaches an `unwrap` below this module, which stands where a test shall fail.

mod asked;
mod crash;
mod diverge;
mod fastest;
mod fuzzed;
mod golden;
mod handover;
mod hang;
mod hostile;
mod pressure;
mod probe;
mod replication;
mod rest;
mod rules;
mod supers;
mod takeover;
mod trail;
mod trial;
mod vote;

use super::*;
use crate::story::Story;
use crate::wire::{Flags, Options, Parsed, Segment, Seq, Timestamps, tcp_checksum_ok};
use std::net::SocketAddr;

/// A millisecond.
pub const MS: Micros = spec::MILLISECOND;
/// The client's first sequence number.
pub const CLIENT_ISN: Seq = Seq(u32::MAX - 2);
/// The machines' first sequence numbers.
pub const ISN: [Seq; 4] = [Seq(u32::MAX - 1), Seq(1_000), Seq(u32::MAX - 500), Seq(7)];
/// What each machine's clock shows when the dialogue begins.
pub const CLOCK: [u32; 4] = [u32::MAX - 10, 5_000, u32::MAX - 3, 90];
/// What the client's clock shows when the dialogue begins.
pub const CLIENT_CLOCK: u32 = u32::MAX - 5;

/// One side's words: positions count from its SYN, as in the design.
#[derive(Clone, Copy, Debug, Default)]
pub struct Say<'a> {
    /// Own position.
    pub at: i64,
    /// The other side's position that is acknowledged.
    pub ack: Option<i64>,
    /// Further flags.
    pub flags: Flags,
    /// Payload.
    pub data: &'a [u8],
    /// Window field; 0 means 1,000.
    pub window: u16,
    /// TSval and TSecr, as the speaker's own clock and the peer's have it.
    pub ts: Option<(u32, u32)>,
}

/// What somebody heard, in the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The speaker's position.
    pub at: i64,
    /// The acknowledged position.
    pub ack: Option<i64>,
    /// Flags.
    pub flags: Flags,
    /// Payload.
    pub data: Vec<u8>,
    /// Window field.
    pub window: u16,
    /// TSval and TSecr.
    pub ts: Option<(u32, u32)>,
}

/// A client, an engine and up to four machines around a table.
pub struct Talk {
    /// The engine.
    pub engine: Engine,
    /// Now.
    pub now: Micros,
    /// Whether SYNs carry timestamps, window scaling (shift 7) and SACK.
    pub options: bool,
    out: Outbox,
    told: Vec<(SocketAddr, SocketAddr, Heard)>,
    /// A failed dialogue is told from its beginning.
    log: Story,
}

pub fn client() -> SocketAddr {
    ([10, 0, 1, 7], 40_001).into()
}
pub fn psc() -> SocketAddr {
    ([10, 0, 1, 100], 6_379).into()
}
pub fn machine(i: usize) -> SocketAddr {
    // No more than a handful of machines sit at a table.
    ([10, 0, 2, i as u8 + 2], 6_379).into()
}
/// What the machines see as their peer.
pub fn peer() -> SocketAddr {
    ([10, 0, 1, 100], 40_001).into()
}

pub fn spec(machines: usize) -> EngineSpec {
    let detect = DetectSpec {
        floor: 5 * MS,
        probe_interval: 100 * MS,
        probes: 3,
        hang: None,
        vote: 20 * MS,
        crash_ends: 16,
    };
    let machines = (0..machines).map(|i| MachineSpec {
        name: format!("m{i}"),
        addr: machine(i),
        ifindex: None,
        path_mtu: 1500,
    });
    let service = ServiceSpec {
        name: "cache".into(),
        psc: psc(),
        source: SourceMode::Psc,
        max_lag: MaxLag::Bytes(0),
        original: Original::First,
        successor: Successor::First,
        replica_timeout: 200 * MS,
        detect,
        diverge: DivergePolicy::Warn,
        unknown: UnknownPolicy::Reset,
        machines: machines.collect(),
    };
    EngineSpec {
        services: vec![service],
        limits: Limits {
            park_after: SECOND,
            ..Limits::default()
        },
        shard: 0,
        shards: 1,
        super_packets: false,
        hash_key: [7; 16],
    }
}

/// The packet that says this: from and to whom, both sides' first numbers, the words, and the options of a SYN.
pub fn packet((src, dst): (SocketAddr, SocketAddr), isn: (Seq, Seq), say: Say<'_>, options: Options) -> Vec<u8> {
    let acks = if say.ack.is_some() {
        Flags::ACK
    } else {
        Flags::default()
    };
    let segment = Segment {
        src,
        dst,
        seq: pos::seq_of(isn.0, say.at),
        ack: say.ack.map_or(Seq(0), |ack| pos::seq_of(isn.1, ack)),
        flags: say.flags | acks,
        window: if say.window == 0 { 1_000 } else { say.window },
        urgent: 0,
        options: Options {
            timestamps: say.ts.map(|(val, ecr)| Timestamps { val, ecr }),
            ..options
        },
        payload: (say.data, &[]),
    };
    let mut bytes = vec![0; segment.len()];
    assert!(segment.write(&mut bytes));
    bytes
}

/// Bytes, where they stand, and what is acknowledged with them.
pub fn words(at: i64, ack: i64, data: &[u8]) -> Say<'_> {
    Say {
        at,
        ack: Some(ack),
        data,
        ..Say::default()
    }
}

/// A bare acknowledgement.
pub fn ack(at: i64, ack: i64) -> Say<'static> {
    words(at, ack, b"")
}

/// The same with another window field.
pub fn with_window(window: u16, say: Say<'_>) -> Say<'_> {
    Say { window, ..say }
}

/// The same as the speaker's last words.
pub fn fin(say: Say<'_>) -> Say<'_> {
    Say {
        flags: Flags::FIN,
        ..say
    }
}

/// Machine `i` of the one service.
pub fn machine_ref(i: u16) -> MachineRef {
    MachineRef {
        service: ServiceId(0),
        machine: MachineId(i),
    }
}

/// Machine `i` is declared dead; the engine works.
pub fn down(t: &mut Talk, i: u16) -> Outcome {
    let outcome = t.engine.command(
        t.now,
        Command::Down {
            machine: machine_ref(i),
        },
    );
    t.poll();
    outcome
}

impl Talk {
    pub fn new(machines: usize) -> Self {
        Self::with(spec(machines), true)
    }
    pub fn with(spec: EngineSpec, options: bool) -> Self {
        Self {
            engine: Engine::new(spec),
            now: 0,
            options,
            out: Outbox::new(),
            told: vec![],
            log: Story::default(),
        }
    }

    /// Time passes; timers run.
    pub fn wait(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.poll();
        }
        self.now = end;
        self.poll();
    }

    /// The engine's own work, and what it says by it.
    pub fn poll(&mut self) {
        self.engine.poll(self.now, &mut self.out);
        let packets: Vec<(Vec<u8>, bool)> = self
            .out
            .iter()
            .map(|p| ([p.bytes, p.more].concat(), p.cut.is_some()))
            .collect();
        self.out.clear();
        for (bytes, uncut) in packets {
            self.hear(&bytes, if uncut { "uncut" } else { "engine" });
        }
    }

    /// A super-packet's checksum is the kernel's work.
    fn hear(&mut self, bytes: &[u8], by: &str) {
        // No peer reaches this, for a test plays all of them, and these bytes are what the engine has made or let through. If they do not parse, the test is
        // to fail.
        let p = Parsed::parse(bytes).expect("the engine lets out only what parses");
        assert!(by == "uncut" || tcp_checksum_ok(bytes, &p), "checksum of {p:?}");
        let (own, other) = if p.dst == client() {
            (ISN[0], CLIENT_ISN)
        } else {
            let at_table = (0..ISN.len()).find(|i| machine(*i) == p.dst);
            // No peer reaches this: the engine chose the address. One that is nobody's is a fault that the test is to show.
            let i = at_table.expect("to somebody at the table");
            (CLIENT_ISN, ISN[i])
        };
        let heard = Heard {
            at: pos::pos_of(0, own, p.seq),
            ack: p.flags.contains(Flags::ACK).then(|| pos::pos_of(0, other, p.ack)),
            flags: p.flags,
            data: p.payload(bytes).to_vec(),
            window: p.window,
            ts: p.options.timestamps.map(|t| (t.val, t.ecr)),
        };
        self.log
            .tell(format!("{:>9} µs  {by:>8} -> {}  {heard:?}", self.now, p.dst));
        self.told.push((p.src, p.dst, heard));
    }

    fn say(&mut self, who: &str, src: SocketAddr, dst: SocketAddr, isn: (Seq, Seq), say: Say<'_>) -> Verdict {
        let syn = say.flags.contains(Flags::SYN) && self.options;
        let agreed = Options {
            mss: say.flags.contains(Flags::SYN).then_some(1460),
            wscale: syn.then_some(7),
            sack_permitted: syn,
            ..Options::default()
        };
        let mut bytes = packet((src, dst), isn, say, agreed);
        let verdict = self.engine.handle_packet(self.now, Meta::default(), &mut bytes);
        self.log
            .tell(format!("{:>9} µs  {who:>8} says {say:?}: {verdict:?}", self.now));
        if let Verdict::Accept { len } = verdict {
            self.hear(&bytes[..len], who);
        }
        verdict
    }

    /// The client speaks; the engine works.
    pub fn client(&mut self, say: Say<'_>) -> Verdict {
        let say = Say {
            ts: say.ts.or(self.options.then_some((CLIENT_CLOCK, CLOCK[0]))),
            ..say
        };
        let verdict = self.say("client", client(), psc(), (CLIENT_ISN, ISN[0]), say);
        self.poll();
        verdict
    }
    /// A machine speaks; the engine works.
    pub fn machine(&mut self, i: usize, say: Say<'_>) -> Verdict {
        let say = Say {
            ts: say.ts.or(self.options.then_some((CLOCK[i], CLIENT_CLOCK))),
            ..say
        };
        let verdict = self.say(&format!("m{i}"), machine(i), peer(), (ISN[i], CLIENT_ISN), say);
        self.poll();
        verdict
    }

    /// What was said to somebody since the last call.
    pub fn told(&mut self, whom: SocketAddr) -> Vec<Heard> {
        let (mine, rest) = std::mem::take(&mut self.told)
            .into_iter()
            .partition(|(_, dst, _)| *dst == whom);
        self.told = rest;
        let mine: Vec<(SocketAddr, SocketAddr, Heard)> = mine;
        mine.into_iter().map(|t| t.2).collect()
    }
    /// What the client was told.
    pub fn client_heard(&mut self) -> Vec<Heard> {
        self.told(client())
    }
    /// What a machine was told.
    pub fn machine_heard(&mut self, i: usize) -> Vec<Heard> {
        self.told(machine(i))
    }
    /// Forgets what was said.
    pub fn hush(&mut self) {
        self.told.clear();
    }

    /// Handshakes with the original and all replicas; then silence.
    pub fn established(machines: usize) -> Self {
        let mut t = Self::new(machines);
        t.shake_hands(machines);
        t
    }
    /// The same with machines whose end is believed at once: votes (R11) have dialogues of their own.
    pub fn established_without_votes(machines: usize) -> Self {
        let mut spec = spec(machines);
        spec.services[0].detect.vote = 0;
        let mut t = Self::with(spec, true);
        t.shake_hands(machines);
        t
    }
    /// Handshakes with the original and `machines - 1` replicas.
    pub fn shake_hands(&mut self, machines: usize) {
        let ts = self.options.then_some((CLOCK[0], CLIENT_CLOCK));
        self.client(Say {
            flags: Flags::SYN,
            ts: ts.map(|_| (CLIENT_CLOCK, 0)),
            ..Say::default()
        });
        self.machine(
            0,
            Say {
                flags: Flags::SYN,
                ack: Some(1),
                ts,
                ..Say::default()
            },
        );
        self.client(ack(1, 1));
        for i in 1..machines {
            self.machine(
                i,
                Say {
                    flags: Flags::SYN,
                    ack: Some(1),
                    ..Say::default()
                },
            );
        }
        self.hush();
    }
}

/// Just the positions, flags and bytes: what most dialogues are about.
pub fn short(heard: &[Heard]) -> Vec<(i64, Option<i64>, &str)> {
    heard
        .iter()
        .map(|h| (h.at, h.ack, std::str::from_utf8(&h.data).unwrap_or("?")))
        .collect()
}
