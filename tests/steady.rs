//! The steady path allocates nothing (design section 3: nothing there may wait for an allocation).
//!
//! A client and three machines exchange requests and answers through the engine; an allocator that counts sees what
//! `handle_packet` and `poll` take. Buffers find their size while the flow warms up; from then on the count must stay at zero.
//! A takeover of many flows takes nothing for each of them, and comes bit by bit.
#![allow(
    unsafe_code,
    reason = "a global allocator is unsafe by its trait; the one here only counts and hands on to the system's"
)]

#[allow(
    dead_code,
    reason = "shared with the bench, which measures what is only counted here"
)]
#[path = "../benches/failover/pure.rs"]
mod pure;

use pure::psc;
use relevo::engine::{Counter, Engine, MaxLag, Meta, Micros, Outbox, Verdict};
use relevo::wire::{Flags, Options, Parsed, Segment, Seq, Timestamps};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

thread_local! {
    /// Whether this thread's allocations are being counted.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    /// Calls of `alloc` and `realloc` while counting.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated less bytes freed while counting.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread: tests run side by side.
struct Counting;

fn note(calls: u64, taken: usize, freed: usize) {
    // A thread that is ending has no count any more.
    let _ = COUNTING.try_with(|counting| {
        if counting.get() {
            CALLS.set(CALLS.get() + calls);
            let size = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
            HELD.set(HELD.get() + size(taken) - size(freed));
        }
    });
}

// SAFETY: every call is handed to `System` unchanged, which keeps the trait's contract; the counters are constant-initialised
// thread-locals without destructors, so that touching them never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size(), 0);
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, 0, layout.size());
        // SAFETY: `at` came from `System` by `alloc` or `realloc`, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size, layout.size());
        // SAFETY: as for `dealloc`; `size` is the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` and adds what it allocates to the counts.
fn counted<T>(f: impl FnOnce() -> T) -> T {
    COUNTING.set(true);
    let result = f();
    COUNTING.set(false);
    result
}

const MS: Micros = 1_000;
const MACHINES: usize = 3;
/// Way between two hosts: a round takes some 200 microseconds, as in one data centre.
const HOP: Micros = 20;
const REQUEST: [u8; 100] =
    *b"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
const ANSWER: [u8; 1_000] = [b'a'; 1_000];
/// Numbers start below 2³² and wrap on the way.
const CLIENT_ISN: Seq = Seq(u32::MAX - 20_000);
const ISN: [Seq; MACHINES] = [Seq(u32::MAX - 200_000), Seq(7), Seq(u32::MAX - 1_000_000)];

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
struct Cluster {
    engine: Engine,
    out: Outbox,
    now: Micros,
    packet: [u8; 2_048],
    client: Ends,
    machines: [Ends; MACHINES],
}

impl Cluster {
    fn established(max_lag: MaxLag) -> Self {
        let mut cluster = Self {
            engine: pure::engine(MACHINES, max_lag, 200 * MS),
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
        };
        cluster.open();
        cluster
    }

    /// The handshakes of a connection.
    fn open(&mut self) {
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
        for (i, isn) in ISN.into_iter().enumerate() {
            self.machine_says(i, Flags::SYN | Flags::ACK, &[]);
            self.machines[i].seq = isn.add(1);
            if i == 0 {
                self.client_says(Flags::ACK, &[]);
            }
        }
    }

    /// Its end, client first, and the time until the engine has forgotten it.
    fn close(&mut self) {
        assert!(self.client_says(Flags::FIN | Flags::ACK, &[]));
        self.client.seq = self.client.seq.add(1);
        for i in 0..MACHINES {
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
        let verdict = counted(|| {
            let verdict = engine.handle_packet(now, Meta::default(), packet);
            engine.poll(now, out);
            verdict
        });
        if let Verdict::Accept { len } = verdict {
            let p = Parsed::parse(&self.packet[..len]).expect("what is let out parses");
            Self::arrive(&mut self.client, &mut self.machines, &p);
        }
        for (_, bytes) in self.out.iter() {
            let p = Parsed::parse(bytes).expect("what is let out parses");
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
    fn round(&mut self, number: usize) {
        assert!(self.client_says(Flags::ACK | Flags::PSH, &REQUEST));
        let order = if number.is_multiple_of(2) { [0, 1, 2] } else { [2, 0, 1] };
        for i in order {
            let let_on = self.machine_says(i, Flags::ACK | Flags::PSH, &ANSWER);
            assert_eq!(let_on, i == 0, "machine {i} in round {number}");
        }
        assert!(self.client_says(Flags::ACK, &[]));
    }

    /// Time passes, timers run.
    fn wait(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.out.clear();
            counted(|| self.engine.poll(self.now, &mut self.out));
            for (_, bytes) in self.out.iter() {
                let p = Parsed::parse(bytes).expect("what is let out parses");
                Self::arrive(&mut self.client, &mut self.machines, &p);
            }
        }
        self.now = end;
    }

    /// That the conversation was the one that is meant: everybody has everything, and nothing was said twice.
    fn check(&self, rounds: usize) {
        let sent = u32::try_from(rounds * REQUEST.len()).expect("short");
        let answered = u32::try_from(rounds * ANSWER.len()).expect("short");
        assert_eq!(self.client.ack, ISN[0].add(1).add(answered));
        for (i, ends) in self.machines.iter().enumerate() {
            assert_eq!(ends.ack, CLIENT_ISN.add(1).add(sent), "machine {i} has every request");
        }
        let stats = self.engine.stats();
        assert_eq!(
            (stats.get(Counter::Retransmissions), stats.get(Counter::LegsEvicted)),
            (0, 0)
        );
        assert_eq!(stats.get(Counter::LegsOpened), 2);
        assert!(stats.get(Counter::GhostAcks) > 0, "replicas are acknowledged");
    }
}

#[test]
fn nothing_is_allocated_for_a_packet_once_a_flow_is_warm() {
    for max_lag in [MaxLag::Bytes(0), MaxLag::Unlimited] {
        let mut cluster = Cluster::established(max_lag);
        (0..1_000).for_each(|n| cluster.round(n));
        let warm = CALLS.replace(0);
        assert!(warm > 0, "the count works");
        for n in 1_000..11_000 {
            cluster.round(n);
            assert_eq!(CALLS.get(), 0, "allocations in round {n}, max_lag {max_lag:?}");
        }
        cluster.check(11_000);
    }
}

#[test]
fn a_flow_that_pauses_again_and_again_holds_no_more_than_before() {
    let mut cluster = Cluster::established(MaxLag::Bytes(0));
    let pause = 2_000 * MS;
    for n in 0..100 {
        cluster.round(n);
        cluster.wait(pause);
    }
    HELD.set(0);
    for n in 100..2_100 {
        cluster.round(n);
        cluster.wait(pause);
    }
    cluster.check(2_100);
    assert!(HELD.get() <= 0, "{} bytes more after 2,000 pauses", HELD.get());
}

#[test]
fn connections_that_are_over_leave_nothing_held() {
    let mut cluster = Cluster::established(MaxLag::Bytes(0));
    let mut connect = |connections: u64| {
        for _ in 0..connections {
            (0..5).for_each(|n| cluster.round(n));
            cluster.close();
            let stats = cluster.engine.stats();
            assert_eq!(
                stats.get(Counter::FlowsOpened),
                stats.get(Counter::FlowsClosed),
                "forgotten"
            );
            cluster.open();
        }
    };
    connect(100);
    HELD.set(0);
    connect(5_000);
    assert!(HELD.get() <= 0, "{} bytes more after 5,000 connections", HELD.get());
}

#[test]
fn a_takeover_allocates_nothing_for_a_flow() {
    const FLOWS: u16 = 2_000;
    let mut crowd = pure::Crowd::with_answers_to_come(FLOWS, 2);
    CALLS.set(0);
    let outcome = counted(|| {
        let outcome = crowd.down(0);
        while crowd.engine.is_behind() {
            crowd.out.clear();
            crowd.engine.poll_part(crowd.now, &mut crowd.out, 64);
        }
        outcome
    });
    assert_eq!((outcome.switched, outcome.lost), (usize::from(FLOWS), 0));
    // Lists of flows and of timers double a few times.
    assert!(CALLS.get() < 20, "{} allocations for {FLOWS} flows", CALLS.get());
}

#[test]
fn what_a_takeover_owes_goes_out_in_parts_each_packet_once() {
    const FLOWS: u16 = 500;
    const PART: usize = 64;
    let mut crowd = pure::Crowd::with_answers_to_come(FLOWS, 2);
    crowd.down(0);
    let mut answered = vec![0; usize::from(u16::MAX) + 1];
    while crowd.engine.is_behind() {
        crowd.out.clear();
        crowd.engine.poll_part(crowd.now, &mut crowd.out, PART);
        // The last flow's packets are not torn apart.
        assert!(crowd.out.len() < PART + 8, "{} packets in a part", crowd.out.len());
        for (_, bytes) in crowd.out.iter() {
            let p = Parsed::parse(bytes).expect("what is let out parses");
            if p.src == psc() && p.payload_len() > 0 {
                assert_eq!(p.payload(bytes), pure::ANSWER);
                answered[usize::from(p.dst.port())] += 1;
            }
        }
    }
    assert_eq!(answered.iter().filter(|n| **n == 1).count(), usize::from(FLOWS));
    assert_eq!(
        answered.iter().sum::<usize>(),
        usize::from(FLOWS),
        "nobody is answered twice"
    );
}
