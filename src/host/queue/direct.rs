//! The backend over a netlink socket of our own: no allocation, no copy and no needless syscall on the way of a packet.
//!
//! A packet is judged in the buffer that it was received into, and the verdict is written around it ([`super::message`]). Verdicts
//! "drop" wait for the next packet that is let through, or for [`PacketQueue::flush`], and travel in one datagram with it.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use super::message::{self, Described, VERDICT_LEN};
use super::{PacketQueue, QUEUE_LENGTH, QueueCounters, RECEIVE_BUFFER, Ready, Waker, explain_bind, wait_for};
use crate::engine::{Meta, Verdict};
use crate::host::netlink::{Socket, messages};

/// The most of a packet that the kernel is asked for; it gives 65531 bytes (an attribute's length is 16 bits).
const COPY_RANGE: u32 = 65_535;
/// Room for that and for the attributes before it, some 200 bytes.
const BUFFER: usize = 72 << 10;
/// Verdicts "drop" that may wait.
const DROPS: usize = 64;

/// One queue, and the socket that owns it.
pub struct DirectQueue {
    number: u16,
    socket: OwnedFd,
    buffer: Box<[u8]>,
    /// Whole verdict messages, one after the other.
    drops: Vec<u8>,
    counters: QueueCounters,
}

impl DirectQueue {
    /// Opens and configures queue `number` completely. To be done before the rules are loaded: from then on packets come.
    pub fn open(number: u16) -> io::Result<Self> {
        let socket = Socket::open(mnl::Bus::Netfilter)?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        // A full socket buffer is counted by the kernel and costs just the packets that did not fit. With ENOBUFS on, the
        // socket would refuse everything until it had been read empty.
        socket.mute_overrun()?;
        socket.send(&message::configure(number, QUEUE_LENGTH, COPY_RANGE))?;
        let mut queue = Self::on(number, socket.into_fd()?);
        queue.await_owner().map_err(|e| explain_bind(number, e))?;
        Ok(queue)
    }

    fn on(number: u16, socket: OwnedFd) -> Self {
        Self {
            number,
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            drops: Vec::with_capacity((DROPS + 1) * VERDICT_LEN),
            counters: QueueCounters::default(),
        }
    }

    /// The kernel's answer to the configuration. Where the rules of an earlier run are still loaded, packets may come before it: they are
    /// dropped, as they would have been a moment ago.
    fn await_owner(&mut self) -> io::Result<()> {
        loop {
            let len = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let received = self.buffer.get(..len).unwrap_or_default();
            let early = message::describe(received);
            let answer = messages(received).find_map(|message| message.status());
            if let Some(packet) = early {
                self.drop_later(packet.id);
            } else if let Some(answer) = answer {
                self.flush();
                return answer;
            }
        }
    }

    fn drop_later(&mut self, id: u32) {
        message::push_drop(&mut self.drops, self.number, id);
        if self.drops.len() >= DROPS * VERDICT_LEN {
            self.flush();
        }
    }

    fn accept(&mut self, packet: &Described, len: usize) {
        let len = len.min(packet.len);
        let verdict = message::accept_in_place(&mut self.buffer, packet.at, len, self.number, packet.id);
        match verdict {
            Some((start, end)) => self.send(Some((start, end))),
            None => self.drop_later(packet.id),
        }
    }

    /// The verdicts that wait, and one in the buffer, in one datagram.
    fn send(&mut self, accept: Option<(usize, usize)>) {
        let accept = accept
            .and_then(|(start, end)| self.buffer.get(start..end))
            .unwrap_or_default();
        let slices = [IoSlice::new(&self.drops), IoSlice::new(accept)];
        let first = usize::from(self.drops.is_empty());
        let verdicts = self.drops.len() / VERDICT_LEN + usize::from(!accept.is_empty());
        // The kernel carries them out before the call returns; what it thinks of them comes as a message of its own.
        let sent = loop {
            match sendmsg(
                &self.socket,
                &slices[first..],
                &mut SendAncillaryBuffer::default(),
                SendFlags::empty(),
            ) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        if sent.is_err() {
            self.counters.verdict_errors += verdicts as u64;
        }
        self.drops.clear();
    }
}

impl PacketQueue for DirectQueue {
    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<Ready> {
        wait_for(&self.socket, waker, timeout)
    }

    fn receive(&mut self, judge: &mut dyn FnMut(Meta, &mut [u8]) -> Verdict) -> io::Result<bool> {
        let received = match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => self.buffer.get(..len).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // Those can't get better.
            Err(error @ (Errno::BADF | Errno::NOTSOCK)) => return Err(error.into()),
            Err(_) => {
                self.counters.receive_errors += 1;
                return Ok(true);
            }
        };
        let Some(packet) = message::describe(received) else {
            // An error about an earlier verdict: ENOENT, the kernel no longer knows the packet, as after a flush.
            self.counters.receive_errors += 1;
            return Ok(true);
        };
        if packet.cut {
            self.counters.truncated += 1;
            self.drop_later(packet.id);
            return Ok(true);
        }
        let bytes = self
            .buffer
            .get_mut(packet.at..packet.at + packet.len)
            .unwrap_or_default();
        match judge(packet.meta.into(), bytes) {
            Verdict::Accept { len } => self.accept(&packet, len),
            Verdict::Drop(_) => self.drop_later(packet.id),
        }
        Ok(true)
    }

    fn flush(&mut self) {
        if !self.drops.is_empty() {
            self.send(None);
        }
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::{attributes, request};
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    /// `NLMSG_ERROR`: 0 is an acknowledgement.
    const ERROR: u16 = 2;
    const QUEUE: u16 = 7;

    /// A queue, and the end that plays the kernel: datagrams, as by netlink.
    fn queue() -> (DirectQueue, OwnedFd) {
        let (ours, kernel) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)
            .expect("a pair of sockets");
        (DirectQueue::on(QUEUE, ours), kernel)
    }

    fn says(kernel: &OwnedFd, message: &[u8]) {
        assert_eq!(send(kernel, message, SendFlags::empty()), Ok(message.len()));
    }
    fn packet(id: u32) -> Vec<u8> {
        let [a, b, c, d] = id.to_be_bytes();
        request(
            message::PACKET,
            0,
            &[2, 0, 0, 7],
            &[(1, &[a, b, c, d, 8, 0, 0]), (10, b"early")],
        )
    }
    fn answer(code: i32) -> Vec<u8> {
        // The code, then the header of what was asked.
        let mut payload = code.to_ne_bytes().to_vec();
        payload.resize(20, 0);
        request(ERROR, 0, &payload, &[])
    }

    /// What the kernel was told: verdict and packet of each message of each datagram.
    fn heard(kernel: &OwnedFd) -> Vec<Vec<(u32, u32)>> {
        let mut datagrams = vec![];
        let mut buffer = [0; 64 << 10];
        while let Ok((len, _)) = recv(kernel, &mut buffer[..], RecvFlags::DONTWAIT) {
            let verdicts = messages(&buffer[..len]).map(|message| {
                assert_eq!(message.payload[..4], [0, 0, 0, 7], "for this queue");
                let (_, value) = attributes(&message.payload[4..]).next().expect("a verdict");
                let number = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().expect("4 bytes"));
                (number(0), number(4))
            });
            datagrams.push(verdicts.collect());
        }
        datagrams
    }

    #[test]
    fn packets_that_come_before_the_kernels_answer_are_dropped() {
        let (mut queue, kernel) = queue();
        for id in [5, 6, 9] {
            says(&kernel, &packet(id));
        }
        says(&kernel, &answer(0));
        says(&kernel, &packet(10));
        queue.await_owner().expect("the queue is ours");
        assert_eq!(heard(&kernel), [[(0, 5), (0, 6), (0, 9)]], "dropped, in one datagram");
        // What comes after the answer is the worker's.
        let mut seen = vec![];
        let more = queue.receive(&mut |_, bytes| {
            seen.extend_from_slice(bytes);
            Verdict::Accept { len: bytes.len() }
        });
        assert!(more.expect("a packet"));
        assert_eq!(seen, b"early");
        assert_eq!(heard(&kernel), [[(1, 10)]]);
    }

    #[test]
    fn more_early_packets_than_may_wait_are_dropped_on_the_way() {
        let (mut queue, kernel) = queue();
        let count = 2 * u32::try_from(DROPS).expect("few") + 1;
        (0..count).for_each(|id| says(&kernel, &packet(id)));
        says(&kernel, &answer(0));
        queue.await_owner().expect("the queue is ours");
        let datagrams = heard(&kernel);
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [DROPS, DROPS, 1]);
        assert!(
            datagrams.concat().into_iter().eq((0..count).map(|id| (0, id))),
            "each once"
        );
    }

    #[test]
    fn a_refusal_is_passed_on_after_early_packets_too() {
        let (mut queue, kernel) = queue();
        says(&kernel, &packet(1));
        says(&kernel, &answer(-libc::EBUSY));
        let error = queue.await_owner().expect_err("another program's queue");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }
}
