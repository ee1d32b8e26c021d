//! Clients, machines and the engine between them; every packet that the engine lets out is looked at here.

use super::super::packet::is_right;
use super::cut::cut;
use super::ends::End;
use arbitrary::{Result, Unstructured};
use relevo::engine::{
    Checksum, Command, Counter, DetectSpec, DivergePolicy, DropReason, Engine, EngineSpec, Event, Limits, MILLISECOND,
    MachineRef, MachineSpec, MaxLag, Meta, Micros, Original, Outbox, Probe, SECOND, ServiceSpec, SourceMode, Successor,
    UnknownPolicy, Verdict,
};
use relevo::wire::{Flags, Parsed, Seq};
use std::net::{IpAddr, SocketAddr};

/// How many clients there are; the first two have the same port.
pub const CLIENTS: usize = 4;
const TOTAL_BUFFER: usize = 256 << 10;
/// No script leads to more deadlines than this before all is quiet: each flow ends by its `idle_timeout` at the latest.
const MAX_DEADLINES: usize = 200_000;

/// Everybody, and the time.
pub struct Table {
    engine: Engine,
    now: Micros,
    out: Outbox,
    timestamps: bool,
    clients: Vec<End>,
    /// The machines' ends, as they come into being: by machine and the peer that it sees.
    legs: Vec<End>,
    given: u64,
    probed_at: [Option<Micros>; 8],
    last: Vec<u8>,
    /// `RELEVO_TRACE` is set: the play is printed.
    trace: bool,
}

fn ip(v6: bool, net: u8, host: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, host])
    } else {
        IpAddr::from([10, 0, net, host])
    }
}

/// The service; `choices` say who serves, and who takes over.
fn spec(shape: u8, count: u8, choices: u8) -> EngineSpec {
    let bit = |at: u8| shape >> at & 1 == 1;
    let v6 = bit(0);
    let machines = (0..count).map(|i| MachineSpec {
        name: format!("m{i}"),
        addr: SocketAddr::new(ip(v6, 2, 2 + i), 6_379),
        ifindex: bit(1).then_some(2),
        path_mtu: if i == 1 { 1_400 } else { 1_500 },
    });
    let service = ServiceSpec {
        name: "cache".into(),
        psc: SocketAddr::new(ip(v6, 1, 100), 6_379),
        source: if bit(2) { SourceMode::Client } else { SourceMode::Psc },
        max_lag: match shape >> 3 & 3 {
            0 | 1 => MaxLag::Bytes(0),
            2 => MaxLag::Bytes(1_000),
            _ => MaxLag::Unlimited,
        },
        original: if choices & 0x20 == 0 {
            Original::First
        } else {
            Original::Fastest
        },
        successor: match choices >> 1 & 3 {
            1 => Successor::LowestRtt,
            2 => Successor::LeastLag,
            _ => Successor::First,
        },
        replica_timeout: 200 * MILLISECOND,
        detect: DetectSpec {
            floor: 5 * MILLISECOND,
            probe_interval: 100 * MILLISECOND,
            probes: 3,
            hang: None,
            vote: 20 * MILLISECOND,
            crash_ends: 2,
        },
        diverge: DivergePolicy::ALL[usize::from(shape >> 6)],
        unknown: if bit(5) {
            UnknownPolicy::Drop
        } else {
            UnknownPolicy::Reset
        },
        machines: machines.collect(),
    };
    EngineSpec {
        services: vec![service],
        // Small enough that a script reaches them.
        limits: Limits {
            max_flows: 5,
            max_half_open: 3,
            flow_buffer: 64 << 10,
            total_buffer: TOTAL_BUFFER,
            ports: 20_000..=20_003,
            idle_timeout: 60 * SECOND,
            park_after: SECOND,
            ..Limits::default()
        },
        shard: 0,
        shards: 1,
        super_packets: choices & 0x40 != 0,
        hash_key: [7; 16],
    }
}

impl Table {
    /// Lays the table as the script says.
    pub fn choose(u: &mut Unstructured<'_>) -> Result<Self> {
        let (shape, count): (u8, u8) = (u.arbitrary()?, u.int_in_range(1..=4)?);
        let (isn, choices): (u8, u8) = (u.arbitrary()?, u.arbitrary()?);
        let spec = spec(shape, count, choices);
        let psc = spec.services[0].psc;
        let client = |i: usize| {
            let host = 7 + u8::try_from(i).expect("few");
            let own = SocketAddr::new(ip(psc.is_ipv6(), 1, host), if i < 2 { 40_001 } else { 40_003 });
            // Close to the wrap.
            End::new(own, psc, Seq(u32::MAX).sub(u32::from(isn)))
        };
        Ok(Self {
            engine: Engine::new(spec),
            now: 1_000_000,
            out: Outbox::new(),
            timestamps: choices & 1 == 1,
            clients: (0..CLIENTS).map(client).collect(),
            legs: vec![],
            given: 0,
            probed_at: [None; 8],
            last: vec![],
            trace: std::env::var_os("RELEVO_TRACE").is_some(),
        })
    }

    fn show(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9} {}", self.now, line());
        }
    }

    /// A client says something.
    pub fn client_speaks(&mut self, u: &mut Unstructured<'_>, client: usize) -> Result<()> {
        let flags = flags(u)?;
        let packet = self.clients[client].say(u, flags, self.timestamps, self.now)?;
        self.give(u, packet)
    }

    /// A client shakes hands with whoever answers.
    pub fn opens(&mut self, u: &mut Unstructured<'_>, client: usize) -> Result<()> {
        if u.arbitrary()? {
            self.clients[client].set_next(Seq(u.arbitrary::<u32>()?));
        }
        let syn = self.clients[client].say(u, Flags::SYN, self.timestamps, self.now)?;
        self.give(u, syn)?;
        let Some(leg) = self.legs.len().checked_sub(1) else {
            return Ok(());
        };
        let answer = self.legs[leg].say(u, Flags::SYN | Flags::ACK, self.timestamps, self.now)?;
        self.give(u, answer)?;
        let third = self.clients[client].say(u, Flags::ACK, self.timestamps, self.now)?;
        self.give(u, third)
    }

    /// A machine says something on one of its connections, or on another's.
    pub fn machine_speaks(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let choice: u8 = u.arbitrary()?;
        if self.legs.is_empty() {
            return Ok(());
        }
        let flags = flags(u)?;
        // Bit 7: one of the latest, which are the ones that live.
        let leg = usize::from(choice & 0x3f) % self.legs.len();
        let leg = if choice & 0x80 == 0 {
            self.legs.len() - 1 - leg
        } else {
            leg
        };
        let packet = if choice & 0x40 == 0 {
            self.legs[leg].say(u, flags, self.timestamps, self.now)?
        } else {
            let mut liar = self.legs[leg].clone();
            let machines = &self.engine.spec().services[0].machines;
            liar.own = machines[usize::from(choice) % machines.len()].addr;
            liar.say(u, flags, self.timestamps, self.now)?
        };
        self.give(u, packet)
    }

    /// The last packet again, one byte of it changed.
    pub fn damaged(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (at, value): (u16, u8) = (u.arbitrary()?, u.arbitrary()?);
        let mut packet = self.last.clone();
        if !packet.is_empty() {
            let at = usize::from(at) % packet.len();
            packet[at] ^= value;
        }
        self.give(u, packet)
    }

    /// Any bytes at all.
    pub fn raw(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
        let packet = u.bytes(len)?.to_vec();
        self.give(u, packet)
    }

    /// One packet through the engine.
    fn give(&mut self, u: &mut Unstructured<'_>, packet: Vec<u8>) -> Result<()> {
        let how: u8 = u.arbitrary()?;
        let meta = Meta {
            ifindex: [0, 0, 2, 3][usize::from(how & 3)],
            checksum: match how >> 2 & 15 {
                0 => Checksum::Partial,
                1 => Checksum::Offloaded,
                _ => Checksum::Complete,
            },
            ..Meta::default()
        };
        self.handle(meta, packet);
        if how & 0x40 == 0 {
            self.poll();
        }
        Ok(())
    }

    fn handle(&mut self, meta: Meta, mut packet: Vec<u8>) {
        self.last.clone_from(&packet);
        let spoken = Parsed::parse(&packet).ok();
        let opened = self.engine.stats().get(Counter::FlowsOpened);
        let verdict = self.engine.handle_packet(self.now, meta, &mut packet);
        self.given += 1;
        self.show(|| format!("given {meta:?} {spoken:?} -> {verdict:?}"));
        let fresh = self.engine.stats().get(Counter::FlowsOpened) > opened;
        if let Some(p) = spoken.filter(|_| !is_refused(verdict)) {
            let ends = self.clients.iter_mut().chain(&mut self.legs);
            for end in ends.filter(|end| end.own == p.src && end.peer == p.dst) {
                if fresh {
                    end.begin_anew();
                }
                end.has_said(&p);
            }
        }
        if let Verdict::Accept { len } = verdict {
            assert!(len <= packet.len());
            packet.truncate(len);
            self.deliver(&packet, meta.checksum != Checksum::Offloaded);
        }
    }

    /// What leaves the engine is a packet, with a checksum that etherparse agrees with, to somebody at the table.
    fn deliver(&mut self, packet: &[u8], complete: bool) {
        let p = Parsed::parse(packet).expect("the engine lets out only what parses");
        assert_eq!(p.len(), packet.len());
        self.show(|| format!("  out {p:?}"));
        assert!(!complete || is_right(packet, &p), "checksum of {p:?}");
        let service = &self.engine.spec().services[0];
        if p.src == service.psc && !service.machines.iter().any(|m| m.addr == p.dst) {
            if let Some(client) = self.clients.iter_mut().find(|c| c.own == p.dst) {
                client.hears(&p, true);
            }
            return;
        }
        assert!(
            service.machines.iter().any(|m| m.addr == p.dst),
            "to nobody at the table: {p:?}"
        );
        let at = self.legs.iter().position(|leg| leg.own == p.dst && leg.peer == p.src);
        let at = at.unwrap_or_else(|| {
            let isn = Seq(u32::MAX).sub(u32::try_from(self.legs.len()).expect("few") * 100);
            self.legs.push(End::new(p.dst, p.src, isn));
            self.legs.len() - 1
        });
        self.legs[at].hears(&p, false);
    }

    /// The engine's own work.
    pub fn poll(&mut self) {
        self.out.clear();
        self.engine.poll(self.now, &mut self.out);
        self.hand_out();
        let next = self.engine.next_deadline();
        assert!(next.is_none_or(|at| at > self.now), "a deadline that has passed");
        while let Some(event) = self.engine.take_event() {
            if let Event::Evict { machine, .. } = event {
                self.command(Command::Down { machine });
            }
        }
    }

    fn hand_out(&mut self) {
        let packets: Vec<Vec<u8>> = self.out.iter().flat_map(|p| cut(&p)).collect();
        for packet in packets {
            self.deliver(&packet, true);
        }
    }

    /// Time passes, timers run.
    pub fn wait(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.poll();
        }
        self.now = end;
    }

    /// Time passes, and nobody looks.
    pub fn sleep(&mut self, time: Micros) {
        self.now += time;
    }

    /// An operator or the coordinator speaks.
    pub fn command(&mut self, command: Command) {
        let outcome = self.engine.command(self.now, command);
        self.show(|| format!("{command:?} -> {outcome:?}"));
        assert!(outcome.lost + outcome.pending + outcome.stuck <= 5, "{outcome:?}");
        // Those that have moved by plan are counted over time.
        let planned = matches!(command, Command::HandOver { .. } | Command::EndHandOver { .. });
        assert!(planned || outcome.switched <= 5, "{outcome:?}");
    }

    /// A machine is probed.
    pub fn probe(&mut self, machine: MachineRef) {
        self.out.clear();
        let (at, m) = (self.now, usize::from(machine.machine.0));
        let last = self.probed_at.get_mut(m).and_then(|last| last.replace(at));
        self.engine.probe(Probe { machine, at, last }, &mut self.out);
        self.hand_out();
    }

    /// I7 and I8.
    pub fn look(&self) {
        let stats = self.engine.stats();
        assert_eq!(stats.get(Counter::PacketsIn), self.given);
        assert_eq!(
            stats.get(Counter::Accepted) + stats.all_drops(),
            self.given,
            "one verdict each"
        );
        let status = self.engine.status();
        let service = &status.services[0];
        assert!(service.flows <= 5 && service.half_open <= 3, "{service:?}");
        assert!(status.buffered_bytes <= TOTAL_BUFFER);
        let (opened, closed) = (stats.get(Counter::FlowsOpened), stats.get(Counter::FlowsClosed));
        assert_eq!(opened - closed, service.flows as u64);
    }

    /// Everybody goes, time runs on: nothing may be left behind.
    pub fn finish(&mut self) {
        self.poll();
        for _ in 0..MAX_DEADLINES {
            let Some(at) = self.engine.next_deadline() else { break };
            self.now = self.now.max(at);
            self.poll();
        }
        self.look();
        let status = self.engine.status();
        assert_eq!(self.engine.next_deadline(), None, "never quiet: {status:?}");
        assert_eq!((status.services[0].flows, status.buffered_bytes), (0, 0), "left behind");
    }
}

/// Mostly what makes sense.
fn flags(u: &mut Unstructured<'_>) -> Result<Flags> {
    Ok(match u.arbitrary::<u8>()? % 16 {
        0..8 => Flags::ACK,
        8 | 9 => Flags::ACK | Flags::PSH,
        10 => Flags::SYN,
        11 => Flags::SYN | Flags::ACK,
        12 => Flags::FIN | Flags::ACK,
        13 => Flags::RST,
        14 => Flags::RST | Flags::ACK,
        _ => Flags(u.arbitrary()?),
    })
}

/// Whether the engine may act on nothing that the packet said.
fn is_refused(verdict: Verdict) -> bool {
    use DropReason as D;
    let Verdict::Drop(reason) = verdict else { return false };
    matches!(
        reason,
        D::Malformed
            | D::Checksum
            | D::Fragment
            | D::NotOurs
            | D::WrongInterface
            | D::TableFull
            | D::NoMachine
            | D::Implausible
            | D::MisplacedReset
            | D::BufferFull
    )
}
