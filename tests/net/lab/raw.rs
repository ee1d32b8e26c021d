//! Packets that no kernel of the lab would send: forged, broken, or a hundred thousand connections' worth from one thread.
//!
//! A [`Forger`] sends whole IP packets of the caller's making from a host, whatever source they claim; the host's kernel only finds
//! their way. An [`Ear`] hears every TCP packet that comes in on a host's `eth0`, whoever it is for. A [`Gauge`] shows the engine's packet
//! queues, so that a sender can wait for the engine instead of overrunning it: what is lost on the way proves nothing.

#![allow(
    unsafe_code,
    reason = "batches and packet sockets are known to no crate in use; each block says why it holds"
)]

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use relevo::wire::{Flags, Options, Segment, Seq};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::netns::Host;
use super::relay::packet_socket_for;
use super::wait_for;

/// Packets given to the kernel with one call.
const BATCH: usize = 64;
/// A queue with so many packets in it is left to drain: far below its length, so that nobody else's packet is lost either.
const BACKLOG: u64 = 512;
/// How long a queue may take to drain before the engine counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A segment as the tests forge them: no options, a middling window, right checksums.
pub fn segment(src: SocketAddr, dst: SocketAddr, (seq, ack): (u32, u32), flags: Flags, data: &[u8]) -> Vec<u8> {
    with_options(src, dst, (seq, ack), flags, Options::default(), data)
}

/// The same with options.
pub fn with_options(
    src: SocketAddr,
    dst: SocketAddr,
    (seq, ack): (u32, u32),
    flags: Flags,
    options: Options,
    data: &[u8],
) -> Vec<u8> {
    let segment = Segment {
        src,
        dst,
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 1_000,
        urgent: 0,
        options,
        payload: (data, &[]),
    };
    let mut bytes = vec![0; segment.len()];
    assert!(segment.write(&mut bytes), "a packet that can be written");
    bytes
}

/// Sends whole IP packets from a host.
pub struct Forger {
    v4: Socket,
    v6: Socket,
}

impl Forger {
    /// On this host.
    pub fn on(host: &Host) -> Self {
        let open = |domain| {
            // "Raw" as a protocol: the header is in the packet, for both families.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_send_buffer_size(4 << 20)?;
            Ok::<_, io::Error>(socket)
        };
        let (v4, v6) = host
            .enter(|| Ok::<_, io::Error>((open(Domain::IPV4)?, open(Domain::IPV6)?)))
            .unwrap_or_else(|e| panic!("raw sockets on {}: {e}", host.name()));
        Self { v4, v6 }
    }

    /// Sends all of them, in order. For IPv4 the kernel fills in total length and header checksum.
    pub fn send<P: AsRef<[u8]>>(&self, packets: &[P]) {
        for batch in packets.chunks(BATCH) {
            self.send_batch(batch);
        }
    }

    /// Sends all of them, and lets the engine's queues drain on the way so that none is lost in them.
    pub fn send_gently<P: AsRef<[u8]>>(&self, packets: &[P], gauge: &mut Gauge) {
        for batch in packets.chunks(BATCH) {
            gauge.wait_for_room();
            self.send_batch(batch);
        }
    }

    fn send_batch<P: AsRef<[u8]>>(&self, packets: &[P]) {
        let Some(first) = packets.first() else { return };
        let v6 = first.as_ref()[0] >> 4 == 6;
        let socket = if v6 { &self.v6 } else { &self.v4 };
        let to: Vec<SockAddr> = packets.iter().map(|p| destination(p.as_ref())).collect();
        let mut parts: Vec<libc::iovec> = packets
            .iter()
            .map(|p| libc::iovec {
                iov_base: p.as_ref().as_ptr().cast_mut().cast(),
                iov_len: p.as_ref().len(),
            })
            .collect();
        // SAFETY: a header of zeros is one with no address, no parts and no control data.
        let mut headers: Vec<libc::mmsghdr> = vec![unsafe { std::mem::zeroed() }; packets.len()];
        for ((header, part), to) in headers.iter_mut().zip(&mut parts).zip(&to) {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        let mut rest = &mut headers[..];
        while !rest.is_empty() {
            let count = u32::try_from(rest.len()).expect("a small batch");
            // SAFETY: `rest` has `count` headers, whose pointers lead into `to`, `parts` and `packets`, which all outlive the call; the
            // kernel only reads what they lead to.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, 0) };
            match usize::try_from(sent) {
                Ok(sent) => rest = &mut rest[sent..],
                // Dropped at this host's own exit, by a rule or for want of a buffer: like any loss, and the next may pass.
                Err(_)
                    if matches!(
                        io::Error::last_os_error().raw_os_error(),
                        Some(libc::EPERM | libc::ENOBUFS)
                    ) =>
                {
                    rest = &mut rest[1..];
                }
                Err(_) => panic!("sendmmsg: {}", io::Error::last_os_error()),
            }
        }
    }
}

/// Where a packet says that it wants to go. The port is nothing that a raw socket may be told.
fn destination(packet: &[u8]) -> SockAddr {
    let ip: IpAddr = match packet[0] >> 4 {
        6 => <[u8; 16]>::try_from(&packet[24..40]).expect("16 bytes").into(),
        _ => <[u8; 4]>::try_from(&packet[16..20]).expect("4 bytes").into(),
    };
    SocketAddr::new(ip, 0).into()
}

/// Hears every packet that comes in on a host's `eth0`, from the IP header on.
pub struct Ear(Socket);

impl Ear {
    /// On this host.
    pub fn on(host: &Host) -> Self {
        let socket = host
            .enter(|| {
                let socket = packet_socket_for("eth0")?;
                socket.set_read_timeout(Some(Duration::from_millis(20)))?;
                Ok::<_, io::Error>(socket)
            })
            .unwrap_or_else(|e| panic!("a packet socket on {}: {e}", host.name()));
        Self(socket)
    }

    /// The next packet, or `None` if none comes within 20 ms.
    pub fn hear<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        loop {
            match self.0.read(buffer) {
                Ok(n) => return Some(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("a packet socket: {e}"),
            }
        }
    }
}

/// The packet queues of a host, as its kernel counts them.
pub struct Gauge(File);

impl Gauge {
    /// Of this host.
    pub fn of(host: &Host) -> Self {
        // The file shows the queues of the namespace that it was opened in.
        let file = host.enter(|| File::open("/proc/thread-self/net/netfilter/nfnetlink_queue"));
        Self(file.expect("open the list of queues"))
    }

    /// The columns of all queues, added up (kernel: `seq_show` of nfnetlink_queue).
    fn sum(&mut self, columns: &[usize]) -> u64 {
        let mut text = String::new();
        self.0.seek(SeekFrom::Start(0)).expect("rewind");
        self.0.read_to_string(&mut text).expect("read the list of queues");
        text.lines()
            .flat_map(|line| {
                line.split_whitespace()
                    .enumerate()
                    .filter(|(i, _)| columns.contains(i))
                    .filter_map(|(_, word)| word.parse::<u64>().ok())
            })
            .sum()
    }

    /// Packets that wait for a verdict.
    pub fn waiting(&mut self) -> u64 {
        self.sum(&[2])
    }

    /// Packets that found no room.
    pub fn lost(&mut self) -> u64 {
        self.sum(&[5, 6])
    }

    /// Waits until there is room for another batch.
    pub fn wait_for_room(&mut self) {
        if self.waiting() > BACKLOG {
            wait_for("the packet queues to drain", PATIENCE, || {
                (self.waiting() <= BACKLOG).then_some(())
            });
        }
    }

    /// Waits until every packet has its verdict.
    pub fn wait_for_quiet(&mut self) {
        wait_for("the packet queues to be empty", PATIENCE, || {
            (self.waiting() == 0).then_some(())
        });
    }
}

/// Bytes of a TCP socket that the kernel has, and the peer has not acknowledged.
pub fn unacknowledged(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (tcp(7): SIOCOUTQ) writes one int, and `bytes` is one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}
