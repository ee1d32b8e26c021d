//! A link that loses, delays, reorders and duplicates: what netem does where a kernel has it.
//!
//! ```text
//!   host eth0 ══ far [relay's namespace] near ══ interface, engine host
//! ```
//!
//! A relayed link is two veth pairs that end in a namespace of the relay's own, which has no addresses and answers nothing. One
//! thread for each direction takes whole frames from one packet socket and gives them to the other. The kernel's offload header
//! (`PACKET_VNET_HDR`) travels with each frame, so super-packets and unfinished checksums pass as over a plain veth pair.
//!
//! Every choice comes from a seed: frame number *n* of a direction always has the same fate. What real kernels send as
//! frame number *n* is another matter.

#![allow(
    unsafe_code,
    reason = "packet sockets are known to no crate in use; each block says why it holds"
)]

use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::netns::Host;
use super::pattern::Random;

/// The relay's interface towards the engine host.
pub const NEAR: &str = "near";
/// And the one towards the client or machine.
pub const FAR: &str = "far";

/// A super-packet of 64 KiB with the headers of every layer; none on a veth pair is longer.
const LONGEST_FRAME: usize = 70_000;
/// Bytes that may wait in a packet socket. A relay that is not scheduled for some milliseconds should lose nothing by that.
const RECEIVE_BUFFER: usize = 32 << 20;
/// How often an idle relay looks whether it should end.
const TICK: Duration = Duration::from_millis(50);
/// Frames taken before those that are due get their turn.
const BATCH: usize = 64;

/// What a link does to each frame, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Chance of a loss, in thousandths.
    pub loss: u64,
    /// What each frame waits, at least.
    pub delay: Duration,
    /// Chance that a frame waits for [`Impairment::late_by`] as well, so that later ones overtake it; in thousandths.
    pub reorder: u64,
    /// See [`Impairment::reorder`].
    pub late_by: Duration,
    /// Chance that a frame comes twice, in thousandths.
    pub duplicate: u64,
}

/// What a relay has done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames taken.
    pub frames: AtomicU64,
    /// Of them, those lost.
    pub lost: AtomicU64,
    /// Those held back while others went by.
    pub reordered: AtomicU64,
    /// Those given twice.
    pub duplicated: AtomicU64,
}

/// A running relay. Dropping it cuts the link.
pub struct Relay {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Joins [`NEAR`] and [`FAR`] of `host`.
    pub fn start(host: &Host, impairment: Impairment, seed: u64) -> Self {
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let (near, far) = host
            .enter(|| Ok::<_, io::Error>((packet_socket(NEAR)?, packet_socket(FAR)?)))
            .unwrap_or_else(|e| panic!("packet sockets on {}: {e}", host.name()));
        let mut threads = Vec::new();
        for (i, (from, to)) in (0..).zip([(&near, &far), (&far, &near)]) {
            let direction = Direction {
                from: from.try_clone().expect("dup"),
                to: to.try_clone().expect("dup"),
                impairment,
                random: Random::new(seed ^ (i << 63)),
                counts: Arc::clone(&counts),
                waiting: BinaryHeap::new(),
                taken: 0,
            };
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || direction.run(&stop)));
        }
        Self { counts, stop, threads }
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A frame that waits for its time. The greatest goes first out of a heap, so the order is turned round.
#[derive(PartialEq, Eq)]
struct Waiting {
    due: Instant,
    number: u64,
    frame: Vec<u8>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One direction of a link.
struct Direction {
    from: Socket,
    to: Socket,
    impairment: Impairment,
    random: Random,
    counts: Arc<Counts>,
    waiting: BinaryHeap<Waiting>,
    taken: u64,
}

impl Direction {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; LONGEST_FRAME];
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            for _ in 0..BATCH {
                match self.from.read(&mut buffer) {
                    Ok(n) => self.take(&buffer[..n]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => continue, // the interface is down or was: nothing to be told of more than once
                }
            }
            self.give_what_is_due();
        }
    }

    /// Sleeps until a frame comes or falls due.
    fn wait(&self) {
        let next = self
            .waiting
            .peek()
            .map(|w| w.due.saturating_duration_since(Instant::now()));
        let timeout = next.map_or(TICK, |due| due.min(TICK));
        let timeout = Timespec::try_from(timeout).expect("a short time");
        let _ = poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&timeout));
    }

    fn take(&mut self, frame: &[u8]) {
        let Impairment {
            loss,
            delay,
            reorder,
            late_by,
            duplicate,
        } = self.impairment;
        // Always the same number of draws, so that a frame's fate does not depend on which troubles are on.
        let mut hit = |chance| self.random.between(0, 1_000) < chance;
        let (lost, late, twice) = (hit(loss), hit(reorder), hit(duplicate));
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.counts.frames);
        if lost {
            count(&self.counts.lost);
            return;
        }
        let wait = if late { delay + late_by } else { delay };
        if late {
            count(&self.counts.reordered);
        }
        if twice {
            count(&self.counts.duplicated);
        }
        for _ in 0..=usize::from(twice) {
            if wait.is_zero() && self.waiting.is_empty() {
                self.give(frame);
            } else {
                self.taken += 1;
                self.waiting.push(Waiting {
                    due: Instant::now() + wait,
                    number: self.taken,
                    frame: frame.to_vec(),
                });
            }
        }
        // A frame without a wait of its own need not stand behind those that have one.
        if wait.is_zero() {
            self.give_what_is_due();
        }
    }

    fn give_what_is_due(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|w| w.due <= now) {
            if let Some(waiting) = self.waiting.pop() {
                self.give(&waiting.frame);
            }
        }
    }

    /// What the other side has no room for, or no carrier, is lost like on any wire.
    fn give(&self, frame: &[u8]) {
        let _ = (&self.to).write(frame);
    }
}

/// A socket that takes and gives whole frames of an interface of this thread's namespace, each after its offload header.
fn packet_socket(interface: &str) -> io::Result<Socket> {
    const PACKET_VNET_HDR: libc::c_int = 15;
    let socket = open_packet_socket(Type::RAW, interface, |socket| set_option(socket, PACKET_VNET_HDR))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket that takes the packets of an interface of this thread's namespace, from the network layer's header on.
pub fn packet_socket_for(interface: &str) -> io::Result<Socket> {
    open_packet_socket(Type::DGRAM, interface, |_| Ok(()))
}

fn open_packet_socket(kind: Type, interface: &str, prepare: impl Fn(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    // Without a protocol it hears nothing until it is bound.
    let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
    prepare(&socket)?;
    set_option(&socket, PACKET_IGNORE_OUTGOING)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    let all_protocols = u16::try_from(libc::ETH_P_ALL).expect("16 bits").to_be();
    // SAFETY: the storage is larger than any address, aligned for all, and zeroed; what is written is a whole sockaddr_ll, and
    // the length is its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let ll = storage.cast::<libc::sockaddr_ll>();
            (*ll).sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
            (*ll).sll_protocol = all_protocols;
            (*ll).sll_ifindex = index.cast_signed();
            *len = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("20 bytes");
            Ok(())
        })?
    };
    socket.bind(&address)?;
    Ok(socket)
}

/// Switches an option of packet sockets on.
fn set_option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = u32::try_from(size_of::<libc::c_int>()).expect("4 bytes");
    // SAFETY: the value lives for the call, and the length is its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
