//! The backend over the `nfq` crate: one blocking netlink socket, the verdict of each packet in a message of its own, written by a copy.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, netlink, sockopt};

use super::{PacketQueue, QUEUE_LENGTH, QueueCounters, RECEIVE_BUFFER, Ready, Waker, explain_bind, wait_for};
use crate::engine::{Checksum, Meta, Verdict};

/// The backend over the `nfq` crate: one netlink socket, one syscall per packet and per verdict.
pub struct NfqQueue {
    queue: nfq::Queue,
    /// A second descriptor of the queue's socket, for `poll` and socket options; the crate keeps its own to itself.
    socket: OwnedFd,
    counters: QueueCounters,
}

impl NfqQueue {
    /// Opens and configures queue `number` completely. Configuration after binding loses packets that arrive meanwhile, so
    /// do this before the rules are loaded; and while the process has one thread (see `open_with_fd`).
    pub fn open(number: u16) -> io::Result<Self> {
        let (mut queue, socket) = open_with_fd()?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        // A full socket buffer is counted by the kernel and costs just the packets that did not fit. With ENOBUFS on, the
        // socket would refuse everything until it had been read empty.
        queue.set_recv_enobufs(false)?;
        // Binding also sets the copy range to 65535, of which the kernel can use 65531 (an attribute's length is 16 bits).
        queue.bind(number).map_err(|e| explain_bind(number, e))?;
        queue.set_queue_max_len(number, QUEUE_LENGTH)?;
        queue.set_fail_open(number, false)?;
        queue.set_recv_gso(number, true)?;
        queue.set_nonblocking(true);
        Ok(Self {
            queue,
            socket,
            counters: QueueCounters::default(),
        })
    }
}

/// Opens a queue socket and finds its descriptor, which the crate does not tell: it is the lowest free one. True only while
/// no other thread opens or closes anything, so the result is checked to be what it must be.
fn open_with_fd() -> io::Result<(nfq::Queue, OwnedFd)> {
    let lowest_free =
        rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?.as_raw_fd();
    let queue = nfq::Queue::open()?;
    let socket = duplicate(lowest_free)?;
    let is_queue = sockopt::socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::NETLINK)
        && sockopt::socket_protocol(&socket).is_ok_and(|protocol| protocol == Some(netlink::NETFILTER));
    if !is_queue {
        return Err(io::Error::other(
            "the queue's descriptor was not found: another thread opened a file meanwhile",
        ));
    }
    Ok((queue, socket))
}

/// A descriptor of our own for whatever `fd` is. EBADF if it is nothing.
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for this one call only; a number that is not open (any more) makes the call fail with EBADF, and the
    // caller checks what the copy is before using it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

impl PacketQueue for NfqQueue {
    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<Ready> {
        wait_for(&self.socket, waker, timeout)
    }

    fn receive(&mut self, judge: &mut dyn FnMut(Meta, &mut [u8]) -> Verdict) -> io::Result<bool> {
        let mut message = match self.queue.recv() {
            Ok(message) => message,
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::AGAIN) => return Ok(false),
                // EBADF and ENOTSOCK can't get better; anything else belongs to one packet (ENOENT: the kernel no longer
                // knows the packet of a verdict, as after a flush; ENOSPC: a message too long for the buffer).
                Some(Errno::BADF | Errno::NOTSOCK) | None => return Err(e),
                Some(_) => {
                    self.counters.receive_errors += 1;
                    return Ok(true);
                }
            },
        };
        let meta = Meta {
            ifindex: message.get_indev(),
            checksum: checksum_state(&message),
            ..Meta::default()
        };
        let verdict = if message.get_original_len() > message.get_payload().len() {
            self.counters.truncated += 1;
            None
        } else {
            Some(judge(meta, message.get_payload_mut()))
        };
        match verdict {
            Some(Verdict::Accept { len }) => {
                // Cut packets are rare (the engine trims what a machine may not see yet); only they cost a copy.
                if let Some(cut) = message
                    .get_payload()
                    .get(..len)
                    .filter(|cut| cut.len() < message.get_payload().len())
                {
                    let cut = cut.to_vec();
                    message.set_payload(cut);
                }
                message.set_verdict(nfq::Verdict::Accept);
            }
            Some(Verdict::Drop(_)) | None => message.set_verdict(nfq::Verdict::Drop),
        }
        if self.queue.verdict(message).is_err() {
            self.counters.verdict_errors += 1;
        }
        Ok(true)
    }

    fn flush(&mut self) {}

    fn counters(&self) -> QueueCounters {
        self.counters
    }
}

/// What the kernel says of the packet's checksum (NFQA_SKB_INFO).
fn checksum_state(message: &nfq::Message) -> Checksum {
    if message.is_seg_offloaded() {
        Checksum::Offloaded
    } else if message.is_checksum_ready() {
        Checksum::Complete
    } else {
        Checksum::Partial
    }
}
