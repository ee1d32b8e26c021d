//! A client, an engine and its machines on a clock; nothing but the engine's part is counted and timed.

use crate::counting::counted;
use crate::pure::{self, psc};
use relevo::engine::{Counter, Engine, MaxLag, Meta, Micros, Outbox, Verdict};
use relevo::wire::{Flags, Options, Parsed, Segment, Seq, Timestamps};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A millisecond.
pub const MS: Micros = 1_000;
/// Machines at most, the original among them.
pub const MACHINES: usize = 4;
/// Way between two hosts: a round takes some 200 microseconds, as in one data centre.
const HOP: Micros = 20;
const REQUEST: [u8; 100] =
    *b"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
const ANSWER: [u8; 1_000] = [b'a'; 1_000];
/// Numbers start below 2³² and wrap on the way.
const CLIENT_ISN: Seq = Seq(u32::MAX - 20_000);
const ISN: [Seq; MACHINES] = [Seq(u32::MAX - 200_000), Seq(7), Seq(u32::MAX - 1_000_000), Seq(1 << 31)];

fn client() -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 7], 40_001))
}
fn peer() -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 100], 40_001))
}
fn machine(i: usize) -> SocketAddr {
    pure::machine(u16::try_from(i).expect("few machines"))
}

/// What a speaker has sent and heard: the next sequence number, and the one that it expects.
#[derive(Clone, Copy)]
struct Ends {
    seq: Seq,
    ack: Seq,
}

/// A client, an engine and three machines on a clock.
pub struct Cluster {
    /// The engine between them.
    pub engine: Engine,
    out: Outbox,
    now: Micros,
    packet: [u8; 2_048],
    client: Ends,
    machines: [Ends; MACHINES],
    /// How many of them there are.
    size: usize,
    /// The time that the engine has taken, in all.
    pub spent: Duration,
    /// The packets that it was given.
    pub packets: u32,
}

impl Cluster {
    /// A connection to an original and `size` - 1 replicas.
    pub fn established(size: usize, max_lag: MaxLag) -> Self {
        let mut cluster = Self {
            engine: pure::engine(size, max_lag, 200 * MS),
            out: Outbox::new(),
            now: 0,
            packet: [0; 2_048],
            client: Ends {
                seq: CLIENT_ISN,
                ack: Seq(0),
            },
            machines: ISN.map(|seq| Ends {
                seq,
                ack: CLIENT_ISN.add(1),
            }),
            size,
            spent: Duration::ZERO,
            packets: 0,
        };
        cluster.open();
        cluster
    }

    /// The handshakes of a connection.
    pub fn open(&mut self) {
        (self.client.seq, self.client.ack) = (CLIENT_ISN, Seq(0));
        self.machines = ISN.map(|seq| Ends {
            seq,
            ack: CLIENT_ISN.add(1),
        });
        self.client_says(Flags::SYN, &[]);
        self.client = Ends {
            seq: CLIENT_ISN.add(1),
            ack: ISN[0].add(1),
        };
        for (i, isn) in ISN.into_iter().enumerate().take(self.size) {
            self.machine_says(i, Flags::SYN | Flags::ACK, &[]);
            self.machines[i].seq = isn.add(1);
            if i == 0 {
                self.client_says(Flags::ACK, &[]);
            }
        }
    }

    /// Its end, client first, and the time until the engine has forgotten it.
    pub fn close(&mut self) {
        assert!(self.client_says(Flags::FIN | Flags::ACK, &[]));
        self.client.seq = self.client.seq.add(1);
        for i in 0..self.size {
            self.machine_says(i, Flags::FIN | Flags::ACK, &[]);
            self.machines[i].seq = self.machines[i].seq.add(1);
        }
        assert!(self.client_says(Flags::ACK, &[]));
        self.wait(60_000 * MS);
    }

    /// One packet through the engine, and the engine's own work; only the engine's part is counted. Whether it was let on.
    fn hear(&mut self, segment: &Segment<'_>) -> bool {
        self.now += HOP;
        let len = segment.len();
        assert!(segment.write(&mut self.packet));
        let (engine, out, now) = (&mut self.engine, &mut self.out, self.now);
        let packet = &mut self.packet[..len];
        out.clear();
        let start = Instant::now();
        let verdict = counted(|| {
            let verdict = engine.handle_packet(now, Meta::default(), packet);
            engine.poll(now, out);
            verdict
        });
        self.spent += start.elapsed();
        self.packets += 1;
        // As the worker does; a connection that ends raises a suspicion, once in a while (R14).
        while self.engine.take_event().is_some() {}
        if let Verdict::Accept { len } = verdict {
            let p = Parsed::parse(&self.packet[..len]).expect("what is let out parses");
            Self::arrive(&mut self.client, &mut self.machines, &p);
        }
        for packet in self.out.iter() {
            let p = Parsed::parse(packet.bytes).expect("what is let out parses");
            Self::arrive(&mut self.client, &mut self.machines, &p);
        }
        matches!(verdict, Verdict::Accept { .. })
    }

    /// Whoever a packet is for expects what is behind it, if it is what was expected.
    fn arrive(at_client: &mut Ends, machines: &mut [Ends; MACHINES], p: &Parsed) {
        if p.flags.contains(Flags::SYN) {
            return;
        }
        let to = if p.dst == client() {
            at_client
        } else {
            let i = (0..MACHINES).find(|i| machine(*i) == p.dst).expect("to somebody here");
            &mut machines[i]
        };
        if to.ack == p.seq {
            to.ack = p.seq.add(p.seq_len());
        }
    }

    fn segment<'a>(&self, from: Ends, flags: Flags, payload: &'a [u8]) -> Segment<'a> {
        let syn = flags.contains(Flags::SYN);
        #[expect(clippy::cast_possible_truncation, reason = "a clock modulo 2³² is meant")]
        let clock = (self.now / MS) as u32;
        Segment {
            src: client(),
            dst: psc(),
            seq: from.seq,
            ack: from.ack,
            flags,
            window: 60_000,
            urgent: 0,
            options: Options {
                mss: syn.then_some(1_460),
                wscale: syn.then_some(7),
                sack_permitted: syn,
                timestamps: Some(Timestamps {
                    val: clock.wrapping_sub(100),
                    ecr: if flags == Flags::SYN {
                        0
                    } else {
                        clock.wrapping_sub(100)
                    },
                }),
                ..Options::default()
            },
            payload: (payload, &[]),
        }
    }

    fn client_says(&mut self, flags: Flags, payload: &[u8]) -> bool {
        let segment = self.segment(self.client, flags, payload);
        self.client.seq = self.client.seq.add(u32::try_from(payload.len()).expect("short"));
        self.hear(&segment)
    }

    fn machine_says(&mut self, i: usize, flags: Flags, payload: &[u8]) -> bool {
        let segment = Segment {
            src: machine(i),
            dst: peer(),
            ..self.segment(self.machines[i], flags, payload)
        };
        self.machines[i].seq = self.machines[i].seq.add(u32::try_from(payload.len()).expect("short"));
        self.hear(&segment)
    }

    /// A request, the machines' answers, the client's acknowledgement. The replicas take turns in being ahead of the original.
    pub fn round(&mut self, number: usize) {
        assert!(self.client_says(Flags::ACK | Flags::PSH, &REQUEST));
        let order = if number.is_multiple_of(2) {
            [0, 1, 2, 3]
        } else {
            [2, 0, 1, 3]
        };
        let size = self.size;
        for i in order.into_iter().filter(|i| *i < size) {
            let let_on = self.machine_says(i, Flags::ACK | Flags::PSH, &ANSWER);
            assert_eq!(let_on, i == 0, "machine {i} in round {number}");
        }
        assert!(self.client_says(Flags::ACK, &[]));
    }

    /// Time passes, timers run.
    pub fn wait(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.out.clear();
            counted(|| self.engine.poll(self.now, &mut self.out));
            for packet in self.out.iter() {
                let p = Parsed::parse(packet.bytes).expect("what is let out parses");
                Self::arrive(&mut self.client, &mut self.machines, &p);
            }
        }
        self.now = end;
    }

    /// That the conversation was the one that is meant: everybody has everything, and nothing was said twice.
    pub fn check(&self, rounds: usize) {
        let sent = u32::try_from(rounds * REQUEST.len()).expect("short");
        let answered = u32::try_from(rounds * ANSWER.len()).expect("short");
        assert_eq!(self.client.ack, ISN[0].add(1).add(answered));
        for (i, ends) in self.machines.iter().enumerate().take(self.size) {
            assert_eq!(ends.ack, CLIENT_ISN.add(1).add(sent), "machine {i} has every request");
        }
        let stats = self.engine.stats();
        assert_eq!(
            (stats.get(Counter::Retransmissions), stats.get(Counter::LegsEvicted)),
            (0, 0)
        );
        assert_eq!(stats.get(Counter::LegsOpened), self.size as u64 - 1);
        assert!(
            self.size == 1 || stats.get(Counter::GhostAcks) > 0,
            "replicas are acknowledged"
        );
    }
}
