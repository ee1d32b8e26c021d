//! A crowd of connections without a socket anywhere: their clients are one thread with a raw socket, and so is each machine.
//!
//! Neither side remembers anything but which connection has come how far. Every number follows from the design of the crowd: all clients
//! begin with one sequence number, machine number *m* with one of its own, requests and answers have one length. So a hundred thousand
//! connections cost the lab a byte each, and whatever memory is seen is the engine's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use relevo::wire::{Flags, Options, Parsed, Timestamps};

use super::Lab;
use super::netns::Host;
use super::raw::{Ear, Forger, with_options};

/// Connections that may be waiting for an answer at one time.
const AT_ONCE: u32 = 128;
/// How often a step is tried for each of them.
const TRIES: u32 = 100;
/// Different client addresses; each may have several ports.
const ADDRESSES: u32 = 60_000;
/// The lowest client port. Four in a row meet every worker.
const FIRST_PORT: u16 = 10_000;
/// Every client's first number.
const CLIENT_ISN: u32 = 0x5000_0000;
/// Every client's clock.
const CLIENT_CLOCK: u32 = 1_000;
const REQUEST: &[u8] = &[b'?'; 32];
const ANSWER: &[u8] = &[b'!'; 32];

const fn len(bytes: &[u8]) -> u32 {
    bytes.len() as u32
}

/// Machine number `m`'s first number and its clock.
fn numbers(m: usize) -> (u32, u32) {
    let m = u32::try_from(m).expect("few machines");
    (0x1000_0000 * (m + 1) + 77, 5_000 * (m + 1))
}

fn options(syn: bool, val: u32, ecr: u32) -> Options {
    Options {
        mss: syn.then_some(1_460),
        wscale: syn.then_some(7),
        sack_permitted: syn,
        timestamps: Some(Timestamps { val, ecr }),
        ..Options::default()
    }
}

/// A machine that serves the crowd. Its own kernel hears nothing of it.
struct Machine {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    fn start(host: &Host, number: usize, port: u16) -> Self {
        host.nft(&format!(
            "table inet lab_crowd {{\n chain in {{\n  type filter hook prerouting priority -450\n  tcp dport {port} drop\n }}\n}}\n"
        ));
        let (mut ear, forger) = (Ear::on(host), Forger::on(host));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 17];
                while !stop.load(Ordering::Relaxed) {
                    let heard = ear
                        .hear(&mut buffer)
                        .and_then(|packet| Parsed::parse(packet).ok().map(|p| (p, p.payload_len())));
                    if let Some(answer) = heard
                        .filter(|(p, _)| p.dst.port() == port)
                        .and_then(|(p, data)| answer(number, &p, data))
                    {
                        forger.send(&[answer]);
                    }
                }
            })
        };
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a machine says to a packet: SYN/ACK, the answer, its own FIN, or nothing.
fn answer(number: usize, p: &Parsed, data: usize) -> Option<Vec<u8>> {
    let (isn, clock) = numbers(number);
    let echo = p.options.timestamps.map_or(0, |ts| ts.val);
    let ack = p.seq.0.wrapping_add(p.seq_len());
    let asked = p.seq.0.wrapping_sub(CLIENT_ISN) > 1;
    let (flags, seq, payload): (_, _, &[u8]) = match () {
        () if p.flags.contains(Flags::RST) => return None,
        () if p.flags.contains(Flags::SYN) => (Flags::SYN | Flags::ACK, isn, b""),
        () if data > 0 => (Flags::PSH | Flags::ACK, isn + 1, ANSWER),
        () if p.flags.contains(Flags::FIN) => {
            let said = if asked { len(ANSWER) } else { 0 };
            (Flags::FIN | Flags::ACK, isn + 1 + said, b"")
        }
        () => return None,
    };
    let options = options(flags.contains(Flags::SYN), clock, echo);
    Some(with_options(p.dst, p.src, (seq, ack), flags, options, payload))
}

/// What all connections of a crowd do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Shake hands.
    Open,
    /// Send a request, and take the answer.
    Ask,
    /// Close, client first.
    Close,
}

/// The crowd's clients, and its machines.
pub struct Crowd {
    _machines: Vec<Machine>,
    forger: Forger,
    ear: Ear,
    buffer: Vec<u8>,
    psc: SocketAddr,
    size: u32,
    asked: bool,
}

impl Crowd {
    /// `size` connections to be, by IPv4, with all machines of the lab. The engine host learns the way to the clients.
    pub fn gather(lab: &Lab, psc: SocketAddr, size: u32) -> Self {
        lab.engine().ip_batch(&format!(
            "route replace 10.200.0.0/16 via {}\n",
            lab.client().ip(super::Family::V4)
        ));
        let machines = lab.machines().iter().enumerate();
        Self {
            _machines: machines.map(|(i, host)| Machine::start(host, i, psc.port())).collect(),
            forger: Forger::on(lab.client()),
            ear: Ear::on(lab.client()),
            buffer: vec![0; 1 << 17],
            psc,
            size,
            asked: false,
        }
    }

    /// Every connection takes a step, some at a time; what is lost is sent again. Panics if a connection does not get there.
    pub fn all(&mut self, step: Step) {
        for first in (0..self.size).step_by(AT_ONCE as usize) {
            let last = (first + AT_ONCE).min(self.size);
            let mut waiting: Vec<u32> = (first..last).collect();
            for _ in 0..TRIES {
                let words: Vec<Vec<u8>> = waiting.iter().map(|i| self.word(*i, step)).collect();
                self.forger.send(&words);
                self.hear(step, &mut waiting);
                if waiting.is_empty() {
                    break;
                }
            }
            assert!(waiting.is_empty(), "{step:?}: no answer for {waiting:?}");
        }
        self.asked = match step {
            Step::Open => false,
            Step::Ask => true,
            Step::Close => self.asked,
        };
    }

    /// Takes and acknowledges answers until nobody waits, or nothing comes any more.
    fn hear(&mut self, step: Step, waiting: &mut Vec<u32>) {
        let wanted = |p: &Parsed| match step {
            Step::Open => p.flags.contains(Flags::SYN | Flags::ACK),
            Step::Ask => p.payload_len() > 0,
            Step::Close => p.flags.contains(Flags::FIN),
        };
        // What it has sent by now, whatever of it the other side has acknowledged yet (R4 may hold that back).
        let asked = match step {
            Step::Open => 0,
            Step::Ask => len(REQUEST),
            Step::Close if self.asked => len(REQUEST),
            Step::Close => 0,
        };
        let seq = CLIENT_ISN + 1 + asked + u32::from(step == Step::Close);
        while !waiting.is_empty() {
            let Some(packet) = self.ear.hear(&mut self.buffer) else {
                return;
            };
            let Ok(p) = Parsed::parse(packet) else { continue };
            if p.src != self.psc {
                continue;
            }
            assert!(!p.flags.contains(Flags::RST), "{step:?}: a reset for {}", p.dst);
            if wanted(&p)
                && let Some(i) = index(p.dst)
            {
                waiting.retain(|other| *other != i);
                let ack = p.seq.0.wrapping_add(p.seq_len());
                let thanks = with_options(
                    p.dst,
                    p.src,
                    (seq, ack),
                    Flags::ACK,
                    options(false, CLIENT_CLOCK, numbers(0).1),
                    b"",
                );
                self.forger.send(&[thanks]);
            }
        }
    }

    /// What client number `i` says to begin a step.
    fn word(&self, i: u32, step: Step) -> Vec<u8> {
        let (isn, clock) = numbers(0);
        let (sent, got) = if self.asked {
            (len(REQUEST), len(ANSWER))
        } else {
            (0, 0)
        };
        let here = (CLIENT_ISN + 1 + sent, isn + 1 + got);
        let (place, flags, data): (_, _, &[u8]) = match step {
            Step::Open => ((CLIENT_ISN, 0), Flags::SYN, b""),
            Step::Ask => (here, Flags::PSH | Flags::ACK, REQUEST),
            Step::Close => (here, Flags::FIN | Flags::ACK, b""),
        };
        let syn = step == Step::Open;
        let options = options(syn, CLIENT_CLOCK, if syn { 0 } else { clock });
        with_options(address(i), self.psc, place, flags, options, data)
    }
}

fn address(i: u32) -> SocketAddr {
    let [_, _, high, low] = (i % ADDRESSES).to_be_bytes();
    let port = FIRST_PORT + u16::try_from(i % 4 + 4 * (i / ADDRESSES)).expect("a small crowd");
    SocketAddr::new(Ipv4Addr::new(10, 200, high, low).into(), port)
}

fn index(address: SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let [10, 200, high, low] = ip.octets() else { return None };
    let place = u32::from_be_bytes([0, 0, high, low]);
    Some(place + ADDRESSES * (u32::from(address.port().checked_sub(FIRST_PORT)?) / 4))
}
