//! The packet queue: packets that the rules divert come here and get exactly one verdict each (I7).
//!
//! [`PacketQueue`] is what a worker needs. [`DirectQueue`] speaks to the kernel itself and is what runs unless the configuration
//! says otherwise; [`NfqQueue`] is the first backend, over the `nfq` crate. In both a packet that is let through has left before
//! [`PacketQueue::receive`] returns, so nothing can come between a packet and its verdict (design section 3, step 3).

mod direct;
mod message;
mod nfq;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::clock;
use crate::engine::{Meta, Verdict};

pub use direct::DirectQueue;
pub use nfq::NfqQueue;

/// Packets that the kernel may hold for us in one queue; beyond it drops (and counts `queue_dropped`). At 1500 bytes each
/// this is 12 MB, some milliseconds of work.
pub const QUEUE_LENGTH: u32 = 8_192;

/// Bytes of socket buffer for packets on their way to us: a GSO super-packet counts as up to twice its 64 KiB, and one
/// that finds no room is lost (`user_dropped`). Memory is used only while a backlog lasts.
const RECEIVE_BUFFER: usize = 32 << 20;

/// What is ready after a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// At least one packet.
    pub packets: bool,
    /// Somebody used the [`Waker`]; the call is taken back by telling it.
    pub woken: bool,
}

/// What happened in a queue so far that no verdict tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Packets longer than what the kernel could hand over whole (65531 bytes): dropped.
    pub truncated: u64,
    /// Errors while receiving, or reported by the kernel for an earlier verdict; the packet is gone.
    pub receive_errors: u64,
    /// Verdicts that could not be sent.
    pub verdict_errors: u64,
}

/// A source of diverted packets. One owner, one thread.
pub trait PacketQueue {
    /// Waits until there is a packet, until somebody uses `waker`, or for `timeout` (`None`: for ever).
    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<Ready>;

    /// Takes one packet, if there is one, asks `judge`, and carries the verdict out: at once if the packet may go on, at the next
    /// [`PacketQueue::flush`] at the latest if not. `judge` gets the packet from the IP header on and may rewrite it in
    /// place. Returns whether there was something to take. Never waits.
    fn receive(&mut self, judge: &mut dyn FnMut(Meta, &mut [u8]) -> Verdict) -> io::Result<bool>;

    /// Carries out the verdicts that nobody waits for. To be called before the worker turns to other things.
    fn flush(&mut self);

    /// What went wrong so far.
    fn counters(&self) -> QueueCounters;
}

impl<Q: PacketQueue + ?Sized> PacketQueue for Box<Q> {
    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<Ready> {
        (**self).wait(waker, timeout)
    }
    fn receive(&mut self, judge: &mut dyn FnMut(Meta, &mut [u8]) -> Verdict) -> io::Result<bool> {
        (**self).receive(judge)
    }
    fn flush(&mut self) {
        (**self).flush();
    }
    fn counters(&self) -> QueueCounters {
        (**self).counters()
    }
}

/// Wakes the thread that waits in [`PacketQueue::wait`], from any other; cheap, never blocks, can't be missed.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one, not yet used.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Wakes, or makes the next wait return at once.
    pub fn wake(&self) {
        // The only error is a full counter, and then the waiter is woken anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Takes all wakes back; returns whether there was one.
    pub fn take(&self) -> bool {
        rustix::io::read(&*self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The errors that an operator can do something about.
fn explain_bind(number: u16, error: io::Error) -> io::Error {
    let why = match Errno::from_io_error(&error) {
        Some(Errno::BUSY | Errno::PERM) => format!("queue {number} is another program's: is relevo running already?"),
        Some(Errno::INVAL | Errno::OPNOTSUPP) => {
            "this kernel has no packet queues: load the module nfnetlink_queue, or take a kernel with CONFIG_NETFILTER_NETLINK_QUEUE"
                .to_owned()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

/// Waits until `socket` can be read, until somebody uses `waker`, or for `timeout` (`None`: for ever).
fn wait_for(socket: &impl AsFd, waker: &Waker, timeout: Option<Duration>) -> io::Result<Ready> {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(waker, PollFlags::IN)];
    match poll(&mut fds, timeout.map(clock::timespec).as_ref()) {
        Ok(0) | Err(Errno::INTR) => Ok(Ready::default()),
        Ok(_) => {
            // POLLERR counts as ready: receiving then tells the error and clears it.
            let packets = !fds[0].revents().is_empty();
            let woken = !fds[1].revents().is_empty() && waker.take();
            Ok(Ready { packets, woken })
        }
        Err(e) => Err(e.into()),
    }
}

/// One queue's line of `/proc/net/netfilter/nfnetlink_queue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KernelQueue {
    /// Queue number.
    pub queue: u16,
    /// Packets that wait for a verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub queue_dropped: u64,
    /// Packets dropped because our socket's buffer was full.
    pub user_dropped: u64,
    /// Packets ever queued.
    pub packets: u64,
}

/// What the kernel says of its queues; those of the network namespace that this process is in.
pub fn kernel_queues() -> io::Result<Vec<KernelQueue>> {
    // Of the calling thread, as `/proc/net` would be too, but through a path that a test can't mistake.
    Ok(parse_kernel_queues(&std::fs::read_to_string(
        "/proc/thread-self/net/netfilter/nfnetlink_queue",
    )?))
}

/// Columns: queue, port id, waiting, copy mode, copy range, queue dropped, user dropped, last packet id, 1.
fn parse_kernel_queues(text: &str) -> Vec<KernelQueue> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().map(str::parse::<u64>);
            let mut column = |skip: usize| columns.nth(skip)?.ok();
            Some(KernelQueue {
                queue: u16::try_from(column(0)?).ok()?,
                waiting: u32::try_from(column(1)?).ok()?,
                queue_dropped: column(2)?,
                user_dropped: column(0)?,
                packets: column(0)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_seen_once_and_never_missed() {
        let waker = Waker::new().expect("eventfd");
        assert!(!waker.take());
        waker.wake();
        waker.clone().wake();
        assert!(waker.take());
        assert!(!waker.take());
    }

    #[test]
    fn kernel_queue_lines_are_read_by_column() {
        let text = "    3  12345    17 2 65531     5     6      999  1\n    4 -12346 0 2 65531 0 0 0 1\n";
        let queues = parse_kernel_queues(text);
        assert_eq!(
            queues[0],
            KernelQueue {
                queue: 3,
                waiting: 17,
                queue_dropped: 5,
                user_dropped: 6,
                packets: 999
            }
        );
    }

    #[test]
    fn a_stranger_of_a_line_is_left_out() {
        assert_eq!(parse_kernel_queues("queue portid\n1 2\n\n"), vec![]);
    }
}
