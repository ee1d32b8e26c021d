//! ICMP echo to the machines (R14): any answer is life, and a round-trip time. That somebody else says "unreachable" is evidence.
//!
//! The other probe, a SYN to the service port, is the engine's; its answer comes back through the packet queue.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::ip_of;
use super::queue::Waker;
use super::{MARK, clock};
use crate::engine::Micros;

/// ICMP_ECHO and ICMP_ECHOREPLY (RFC 792), and their ICMPv6 kin (RFC 4443).
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
/// Destination unreachable: its type, and the codes by which a router, or this host, says that there is no way to a network or to a host.
/// Others (a port, a prohibition) say nothing of the machine.
const UNREACHABLE_V4: (u8, [u8; 2]) = (3, [0, 1]);
const UNREACHABLE_V6: (u8, [u8; 2]) = (1, [0, 3]);
/// Bytes of an IPv6 header.
const V6_HEADER: usize = 40;
/// Bytes of type, code, checksum, identifier and sequence number; the sending time and the seal follow.
const ICMP_HEADER: usize = 8;
/// Length of our echoes: the header, a [`Micros`] and a seal.
const ECHO_LEN: usize = ICMP_HEADER + 16;
/// The longest IPv4 header, which only raw IPv4 sockets deliver; and one more in an error, with the packet that it is about.
const READ_LEN: usize = 60 + ICMP_HEADER + 60 + ECHO_LEN + 64;

/// What came of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was answered.
    Echo {
        /// Who answered.
        from: IpAddr,
        /// From sending to now, in microseconds.
        rtt: Micros,
    },
    /// Somebody says that it can't be delivered.
    Unreachable {
        /// To whom it was sent.
        to: IpAddr,
    },
}

/// Sends echoes and takes the replies; never waits.
pub struct Pinger {
    v4: Socket,
    /// `None` on a host without IPv6.
    v6: Option<Socket>,
    /// Tells our replies from those to other programs: low bits of the process id.
    identifier: u16,
    sequence: u16,
    /// Seals each echo for whom it was sent to, and when: nobody else can answer it in that machine's name (R22).
    key: RandomState,
    /// Echoes that could not be sent.
    pub send_errors: u64,
}

impl Pinger {
    /// Opens raw ICMP sockets (needs CAP_NET_RAW).
    pub fn open() -> io::Result<Self> {
        let v4 = echo_socket(Domain::IPV4, Protocol::ICMPV4)?;
        let v6 = match echo_socket(Domain::IPV6, Protocol::ICMPV6) {
            Ok(socket) => Some(socket),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        let identifier = (std::process::id() & 0xffff) as u16;
        Ok(Self {
            v4,
            v6,
            identifier,
            sequence: 0,
            key: RandomState::new(),
            send_errors: 0,
        })
    }

    /// Waits for a reply, for a use of `waker`, for something to read in `other`, or for `timeout` (`None`: for ever).
    pub fn wait(&self, waker: &Waker, other: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        let v6 = self.v6.as_ref().unwrap_or(&self.v4);
        let mut fds =
            [waker.as_fd(), other, self.v4.as_fd(), v6.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, timeout.map(clock::timespec).as_ref()) {
            Ok(_) => {
                waker.take();
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends one echo. What can't be sent is counted: to the detector it is a probe that nobody answered.
    pub fn ping(&mut self, now: Micros, to: IpAddr) {
        self.sequence = self.sequence.wrapping_add(1);
        let (socket, kind) = match to {
            IpAddr::V4(_) => (Some(&self.v4), ECHO_V4.0),
            IpAddr::V6(_) => (self.v6.as_ref(), ECHO_V6.0),
        };
        let seal = self.key.hash_one((to, now));
        let echo = build_echo(kind, self.identifier, self.sequence, now, seal);
        let sent = socket.map(|s| s.send_to(&echo, &SocketAddr::new(to, 0).into()));
        if !matches!(sent, Some(Ok(_))) {
            self.send_errors += 1;
        }
    }

    /// The next reply that has arrived, if any.
    pub fn take_reply(&mut self, now: Micros) -> Option<News> {
        let read = |socket, with_ip_header| read_replies(socket, with_ip_header, self.identifier, &self.key, now);
        read(&self.v4, true).or_else(|| self.v6.as_ref().and_then(|s| read(s, false)))
    }
}

/// A raw ICMP socket that hears echo replies and "unreachable" only.
fn echo_socket(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
    socket.set_mark(MARK)?;
    let filtered = if domain == Domain::IPV4 {
        // linux/icmp.h: a set bit blocks that type.
        const ICMP_FILTER: libc::c_int = 1;
        set_filter(
            &socket,
            libc::SOL_RAW,
            ICMP_FILTER,
            &[!(1u32 << ECHO_V4.1 | 1 << UNREACHABLE_V4.0)],
        )
    } else {
        // linux/icmpv6.h: the same with 256 types.
        const ICMPV6_FILTER: libc::c_int = 1;
        let mut blocked = [u32::MAX; 8];
        for kind in [ECHO_V6.1, UNREACHABLE_V6.0] {
            blocked[usize::from(kind) / 32] &= !(1 << (kind % 32));
        }
        set_filter(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
    };
    filtered.map(|()| socket)
}

fn set_filter(socket: &Socket, level: libc::c_int, name: libc::c_int, words: &[u32]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let len = libc::socklen_t::try_from(size_of_val(words)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `len` bytes at the pointer, which is just what `words` is.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, words.as_ptr().cast(), len) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Big-endian fields; the time is in our own order, since only we read it. For IPv6 the kernel computes the checksum
/// (RFC 3542 section 3.1).
fn build_echo(kind: u8, identifier: u16, sequence: u16, now: Micros, seal: u64) -> [u8; ECHO_LEN] {
    let mut echo = [0; ECHO_LEN];
    echo[0] = kind;
    echo[4..6].copy_from_slice(&identifier.to_be_bytes());
    echo[6..8].copy_from_slice(&sequence.to_be_bytes());
    echo[ICMP_HEADER..ICMP_HEADER + 8].copy_from_slice(&now.to_ne_bytes());
    echo[ICMP_HEADER + 8..].copy_from_slice(&seal.to_ne_bytes());
    let sum: u32 = echo
        .as_chunks::<2>()
        .0
        .iter()
        .map(|w| u32::from(u16::from_be_bytes(*w)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "folded twice, the sum of 12 words fits in 16 bits"
    )]
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    echo[2..4].copy_from_slice(&checksum.to_be_bytes());
    echo
}

/// Reads until a reply to us, or until there is nothing left. Strangers' replies are skipped.
fn read_replies(
    socket: &Socket,
    with_ip_header: bool,
    identifier: u16,
    key: &RandomState,
    now: Micros,
) -> Option<News> {
    let mut buffer = [0u8; READ_LEN];
    loop {
        let (len, from) = receive(socket, &mut buffer)?;
        match parse_reply(buffer.get(..len)?, with_ip_header, identifier) {
            Some(Answer::Echo { sent, seal }) if seal == key.hash_one((from, sent)) => {
                // A time that lies ahead of now is not one that we sent.
                if let Some(rtt) = now.checked_sub(sent) {
                    return Some(News::Echo { from, rtt });
                }
            }
            Some(Answer::Unreachable { to }) => return Some(News::Unreachable { to }),
            // Forged, or a stranger's.
            Some(Answer::Echo { .. }) | None => {}
        }
    }
}

/// One datagram's length and sender; `None` when there is none, or on any error (the next probe will tell).
fn receive(socket: &Socket, buffer: &mut [u8]) -> Option<(usize, IpAddr)> {
    let (len, _, from) = rustix::net::recvfrom(socket, buffer, rustix::net::RecvFlags::DONTWAIT).ok()?;
    let from = SocketAddr::try_from(from?).ok()?;
    Some((len, from.ip()))
}

/// What a packet says of one of our echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The time that we wrote into it, and the seal.
    Echo { sent: Micros, seal: u64 },
    /// To whom we sent it.
    Unreachable { to: IpAddr },
}

fn parse_reply(packet: &[u8], with_ip_header: bool, identifier: u16) -> Option<Answer> {
    let (icmp, kind, (error, codes)) = if with_ip_header {
        (behind_v4(packet)?, ECHO_V4.1, UNREACHABLE_V4)
    } else {
        (packet, ECHO_V6.1, UNREACHABLE_V6)
    };
    let (header, data) = icmp.split_at_checked(ICMP_HEADER)?;
    if header[0] == kind && header[4..6] == identifier.to_be_bytes() {
        let (sent, seal) = data.split_first_chunk()?;
        let (sent, seal) = (Micros::from_ne_bytes(*sent), u64::from_ne_bytes(*seal.first_chunk()?));
        return Some(Answer::Echo { sent, seal });
    }
    if header[0] == error && codes.contains(&header[1]) {
        let to = echo_quoted(data, with_ip_header, identifier)?;
        return Some(Answer::Unreachable { to });
    }
    None
}

/// What stands behind an IPv4 header.
fn behind_v4(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(header..)
}

/// To whom the packet was sent that an error quotes (RFC 792, RFC 4443 section 3.1), if it is an echo of ours.
fn echo_quoted(packet: &[u8], v4: bool, identifier: u16) -> Option<IpAddr> {
    let (to, echo, kind) = if v4 {
        (ip_of(packet.get(16..20)?)?, behind_v4(packet)?, ECHO_V4.0)
    } else {
        (ip_of(packet.get(24..V6_HEADER)?)?, packet.get(V6_HEADER..)?, ECHO_V6.0)
    };
    (*echo.first()? == kind && *echo.get(4..6)? == identifier.to_be_bytes()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_comes_back_as_its_own_reply() {
        let mut packet = build_echo(ECHO_V6.0, 0x1234, 7, 99, 5).to_vec();
        packet[0] = ECHO_V6.1;
        assert_eq!(
            parse_reply(&packet, false, 0x1234),
            Some(Answer::Echo { sent: 99, seal: 5 })
        );
        assert_eq!(parse_reply(&packet, false, 0x1235), None, "another program's");
        packet[0] = ECHO_V6.0;
        assert_eq!(parse_reply(&packet, false, 0x1234), None, "a request");

        let mut v4 = vec![0x46; 24];
        v4.extend(build_echo(ECHO_V4.1, 0x1234, 7, 98, 5));
        assert_eq!(
            parse_reply(&v4, true, 0x1234),
            Some(Answer::Echo { sent: 98, seal: 5 }),
            "behind an IPv4 header with options"
        );
        for len in 0..v4.len() {
            assert_eq!(parse_reply(&v4[..len], true, 0x1234), None, "cut to {len}");
        }
    }

    #[test]
    fn an_error_names_whom_our_echo_did_not_reach() {
        let mut quoted = vec![0x45; 16];
        quoted.extend([10, 0, 2, 2]);
        quoted.extend(build_echo(ECHO_V4.0, 0x1234, 7, 98, 5));
        let error = |code| [&[0x45; 20][..], &[UNREACHABLE_V4.0, code, 0, 0, 0, 0, 0, 0], &quoted].concat();
        let to = IpAddr::from([10, 0, 2, 2]);
        assert_eq!(parse_reply(&error(1), true, 0x1234), Some(Answer::Unreachable { to }));
        assert_eq!(parse_reply(&error(3), true, 0x1234), None, "a port");
        assert_eq!(parse_reply(&error(1), true, 0x1235), None, "another program's");
        for len in 0..54 {
            assert_eq!(parse_reply(&error(1)[..len], true, 0x1234), None, "cut to {len}");
        }

        let machine: IpAddr = "fd00::9".parse().unwrap();
        let IpAddr::V6(v6) = machine else {
            panic!("an IPv6 address")
        };
        let mut error = vec![UNREACHABLE_V6.0, 3, 0, 0, 0, 0, 0, 0];
        error.extend([0; 24]);
        error.extend(v6.octets());
        error.extend(build_echo(ECHO_V6.0, 0x1234, 7, 98, 5));
        assert_eq!(
            parse_reply(&error, false, 0x1234),
            Some(Answer::Unreachable { to: machine })
        );
    }

    #[test]
    fn the_checksum_sums_to_zero() {
        let echo = build_echo(ECHO_V4.0, 0xffff, 0xfffe, u64::MAX, u64::MAX);
        let sum: u32 = echo
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    /// Needs CAP_NET_RAW, as `make test` has; without it there is nothing to try.
    #[test]
    fn the_loopback_answers() {
        let Ok(mut pinger) = Pinger::open() else { return };
        for to in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])] {
            let before = pinger.send_errors;
            pinger.ping(clock::now(), to);
            if pinger.send_errors > before {
                continue; // no such loopback here
            }
            let reply = (0..1_000).find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                pinger.take_reply(clock::now())
            });
            assert!(
                matches!(reply, Some(News::Echo { from, .. }) if from == to),
                "{to}: {reply:?}"
            );
        }
    }
}
