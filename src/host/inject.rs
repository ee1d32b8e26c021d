//! Sends what the engine originates: whole IP packets through raw sockets, marked so that the rules let them pass.
//!
//! Super-packets go by a device of their own ([`super::cutter`]). Order is kept, batches go out by one sendmmsg, nothing is allocated once the arrays have grown, and nothing waits: a
//! packet that can't be sent is counted by kind and skipped, as a network may lose any packet. For IPv4 the kernel fills
//! the header's checksum, and its identification if that is 0 (raw(7)).

use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::MARK;
use super::cutter::Cutter;
use crate::engine::Outbox;
use crate::engine::outbox::Packet;

/// Packets per sendmmsg: enough to make the syscall cheap, few enough for the arrays to stay in the cache.
const BATCH: usize = 64;

/// Bytes that may wait in a raw socket for its interface. Beyond it packets are dropped (`no_buffer`).
const SEND_BUFFER: usize = 8 << 20;

macro_rules! error_kinds {
    ($($(#[$meta:meta])* $variant:ident $text:literal = $($errno:path)|*;)*) => {
        /// Why a packet could not be sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum InjectError {
            $($(#[$meta])* $variant,)*
            /// Anything else.
            Other,
        }

        impl InjectError {
            /// All kinds, in counter order.
            pub const ALL: &'static [InjectError] = &[$(Self::$variant,)* Self::Other];
            /// The stable name used by `relevo status --json`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Other => "other" }
            }
            fn of(errno: i32) -> Self {
                match errno { $($(| $errno)* => Self::$variant,)* _ => Self::Other }
            }
        }
    };
}

error_kinds! {
    /// No route, no neighbour, or the interface is down.
    Unreachable "unreachable" = libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::ENXIO | libc::ENODEV | libc::EIO | libc::EBADFD;
    /// A rule of this host refused it.
    Refused "refused" = libc::EPERM | libc::EACCES;
    /// The socket's or the interface's queue is full.
    NoBuffer "no_buffer" = libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM;
    /// Longer than the path's MTU.
    TooBig "too_big" = libc::EMSGSIZE;
    /// The kernel does not like the packet: a bug of ours.
    Invalid "invalid" = libc::EINVAL | libc::EFAULT | libc::EAFNOSUPPORT | libc::EDESTADDRREQ;
    /// Of an address family that this host does not have.
    NoFamily "no_family" = libc::EADDRNOTAVAIL;
}

/// Packets sent, and not sent by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InjectCounters {
    /// Handed to the kernel, a super-packet as one.
    pub sent: u64,
    errors: [u64; InjectError::ALL.len()],
}

impl InjectCounters {
    /// Packets not sent for this reason.
    #[must_use]
    pub fn errors(&self, kind: InjectError) -> u64 {
        self.errors[kind as usize]
    }
    /// Packets not sent for any reason.
    #[must_use]
    pub fn all_errors(&self) -> u64 {
        self.errors.iter().sum()
    }
    /// Adds another injector's counters.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        for (a, b) in self.errors.iter_mut().zip(other.errors) {
            *a += b;
        }
    }
    fn count(&mut self, kind: InjectError, packets: usize) {
        self.errors[kind as usize] += packets as u64;
    }
}

/// A pair of raw sockets, IPv4 and IPv6, the arrays of a batch, and what super-packets go by.
pub struct Injector {
    v4: Socket,
    /// `None` on a host without IPv6.
    v6: Option<Socket>,
    cutter: Option<Cutter>,
    arrays: Arrays,
    counters: InjectCounters,
}

impl Injector {
    /// Opens both sockets (needs CAP_NET_RAW and CAP_NET_ADMIN). Without a cutter there must be no super-packets.
    pub fn open(cutter: Option<Cutter>) -> io::Result<Self> {
        let v6 = match raw_socket(Domain::IPV6) {
            Ok(socket) => Some(socket),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        Ok(Self {
            v4: raw_socket(Domain::IPV4)?,
            v6,
            cutter,
            arrays: Arrays::new(),
            counters: InjectCounters::default(),
        })
    }

    /// Sends what is in `outbox`, in order. Whatever can't be sent is counted; the outbox is left for the caller to clear.
    pub fn send(&mut self, outbox: &Outbox) {
        let mut packets = outbox.iter().peekable();
        while let Some(first) = packets.peek() {
            let family_v4 = first.dst.is_ipv4();
            self.arrays.clear();
            let fits = |p: &Packet<'_>| p.cut.is_none() && p.dst.is_ipv4() == family_v4;
            while let Some(packet) = packets.next_if(|p| fits(p) && !self.arrays.is_full()) {
                self.arrays.push(packet.dst, packet.bytes);
            }
            if self.arrays.len() == 0 {
                // What does not fit an empty batch is a super-packet.
                packets.next().into_iter().for_each(|packet| self.send_uncut(&packet));
                continue;
            }
            let socket = if family_v4 { Some(&self.v4) } else { self.v6.as_ref() };
            match socket {
                Some(socket) => self.arrays.send(socket.as_raw_fd(), &mut self.counters),
                None => self.counters.count(InjectError::NoFamily, self.arrays.len()),
            }
        }
        // The batch points into the outbox: nothing of it may outlive this call.
        self.arrays.clear();
    }

    fn send_uncut(&mut self, packet: &Packet<'_>) {
        let sent = match &mut self.cutter {
            Some(cutter) => cutter.send(packet),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        };
        let Err(error) = sent else {
            self.counters.sent += 1;
            return;
        };
        let kind = InjectError::of(error.raw_os_error().unwrap_or(libc::EINVAL));
        self.counters.count(kind, 1);
        if kind != InjectError::NoBuffer {
            // It will not come back by itself: what is lost here, the engine sends again, in segments.
            self.cutter = None;
        }
    }

    /// Whether super-packets can be sent: a device that somebody takes down is not used again.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.cutter.is_some()
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> &InjectCounters {
        &self.counters
    }
}

/// IPPROTO_RAW means "the header is mine" for both families, and "receives nothing".
fn raw_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
    if domain == Domain::IPV4 {
        socket.set_header_included_v4(true)?;
    } else {
        socket.set_header_included_v6(true)?;
    }
    socket.set_mark(MARK)?;
    rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)?;
    Ok(socket)
}

/// What sendmmsg takes: parallel arrays, wired up just before the call.
struct Arrays {
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    addrs: Vec<SockAddr>,
}

// SAFETY: the raw pointers in `headers` and `iovecs` live from `push` to the `clear` that `Injector::send` ends with, in one
// call on one thread; between calls the arrays are empty.
unsafe impl Send for Arrays {}

impl Arrays {
    fn new() -> Self {
        Self {
            headers: Vec::with_capacity(BATCH),
            iovecs: Vec::with_capacity(BATCH),
            addrs: Vec::with_capacity(BATCH),
        }
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.iovecs.clear();
        self.addrs.clear();
    }

    fn len(&self) -> usize {
        self.addrs.len()
    }

    fn is_full(&self) -> bool {
        self.len() == BATCH
    }

    fn push(&mut self, dst: IpAddr, packet: &[u8]) {
        // Port 0: for raw IPv6 sockets the field is a protocol number, which must be 0 or the socket's own.
        self.addrs.push(SockAddr::from(std::net::SocketAddr::new(dst, 0)));
        self.iovecs.push(libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        });
    }

    /// Sends all that was pushed; a packet that fails is counted and skipped.
    fn send(&mut self, fd: RawFd, counters: &mut InjectCounters) {
        for (addr, iovec) in self.addrs.iter().zip(&mut self.iovecs) {
            // SAFETY: mmsghdr is a plain C struct for which all zeroes is a valid value (no name, no data, no flags).
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = addr.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = addr.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
        let mut waiting = &mut self.headers[..];
        while !waiting.is_empty() {
            let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            // SAFETY: `waiting` is `count` initialised headers; each points at one address in `addrs` and one element of
            // `iovecs`, neither of which changes until `clear`, and that at bytes which the caller borrows for the whole
            // of `Injector::send`. The kernel writes only `msg_len` of the headers.
            let sent = unsafe { libc::sendmmsg(fd, waiting.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
            // sendmmsg stops at the first packet that fails, and tells its error when that is the first one given.
            let done = match usize::try_from(sent) {
                Ok(sent) if sent > 0 => {
                    counters.sent += sent as u64;
                    sent
                }
                _ => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => 0,
                    errno => {
                        counters.count(InjectError::of(errno.unwrap_or(0)), 1);
                        1
                    }
                },
            };
            waiting = &mut waiting[done.min(count as usize)..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_counter_and_name() {
        let mut counters = InjectCounters::default();
        for (i, &kind) in InjectError::ALL.iter().enumerate() {
            counters.count(kind, i + 1);
            assert_eq!(counters.errors(kind), i as u64 + 1, "{}", kind.name());
        }
        assert_eq!(counters.all_errors(), (1..=InjectError::ALL.len() as u64).sum::<u64>());
        let mut sum = counters;
        sum.add(&counters);
        assert_eq!(sum.all_errors(), 2 * counters.all_errors());
    }

    #[test]
    fn errors_of_one_packet_are_told_apart() {
        assert_eq!(InjectError::of(libc::EHOSTUNREACH), InjectError::Unreachable);
        assert_eq!(InjectError::of(libc::EPERM), InjectError::Refused);
        assert_eq!(InjectError::of(libc::ENOBUFS), InjectError::NoBuffer);
        assert_eq!(InjectError::of(libc::EMSGSIZE), InjectError::TooBig);
        assert_eq!(InjectError::of(12_345), InjectError::Other);
    }

    /// A UDP datagram in an IP packet, which a plain socket can receive: what is injected is what arrives.
    fn datagram(v4: bool, port: u16, payload: u8) -> Vec<u8> {
        let udp = [&[0x30, 0x39], &port.to_be_bytes()[..], &[0, 9, 0, 0, payload]].concat();
        if v4 {
            let header = [0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
            return [&header[..], &udp].concat();
        }
        let mut packet = [&[0x60, 0, 0, 0, 0, 9, 17, 64][..], &[0; 32], &udp].concat();
        packet[23] = 1;
        packet[39] = 1;
        // Checksums must be right in IPv6; that of the pseudo header: both addresses, length, protocol.
        let sum: u32 = [1, 1, 9, 17, 0x3039, u32::from(port), 9, u32::from(payload) << 8]
            .iter()
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[46..48].copy_from_slice(&(!u16::try_from(folded).expect("folded")).to_be_bytes());
        packet
    }

    fn stay_on_one_processor() {
        use crate::config::{Threads, WorkerCpus};
        use crate::host::schedule::{allowed, plans};
        let threads = Threads {
            cpus: WorkerCpus::Auto,
            realtime: None,
            busy_poll: 0,
        };
        for plan in plans(&threads, 1, &allowed()) {
            assert_eq!(plan.carry_out(), Vec::<String>::new());
        }
    }

    /// Needs CAP_NET_ADMIN and CAP_NET_RAW, as `make test` has; without them there is nothing to try.
    #[test]
    fn what_is_injected_arrives_in_order_and_what_fails_is_skipped() {
        // What a thread sends over the loopback waits in its processor's backlog: packets of one that moves between them may overtake each other.
        stay_on_one_processor();
        let Ok(mut injector) = Injector::open(None) else { return };
        for v4 in [true, false] {
            let address = if v4 {
                IpAddr::from([127, 0, 0, 1])
            } else {
                IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
            };
            let Ok(receiver) = std::net::UdpSocket::bind((address, 0)) else {
                continue;
            };
            receiver
                .set_read_timeout(Some(std::time::Duration::from_secs(2)))
                .expect("timeout");
            let port = receiver.local_addr().expect("bound").port();
            let mut outbox = Outbox::new();
            for n in 0..150u8 {
                let packet = datagram(v4, port, n);
                outbox.push(address, packet.len()).copy_from_slice(&packet);
                if n % 50 == 7 {
                    // Longer than the loopback's MTU can be.
                    outbox.push(address, 70_000)[0] = packet[0];
                }
            }
            let before = *injector.counters();
            injector.send(&outbox);
            assert_eq!(injector.counters().sent - before.sent, 150);
            assert_eq!(
                injector.counters().errors(InjectError::TooBig) - before.errors(InjectError::TooBig),
                3
            );
            for n in 0..150u8 {
                let mut buffer = [0; 8];
                let (len, _) = receiver.recv_from(&mut buffer).expect("arrives");
                assert_eq!((len, buffer[0]), (1, n));
            }
        }
    }
}
