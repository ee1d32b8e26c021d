//! Super-packets on their way out: a TUN device, from which the kernel takes them as if received, routes them, and cuts them into segments where
//! the outgoing link can't do that itself.
//!
//! The device has no address and nobody reads from it. It is there as long as its queues are open, one for each worker, which share no lock. Only
//! who holds such a queue can put packets in; the rules know them by the device's name, and an existing device of that name is never joined.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::engine::outbox::Packet;

/// Where the kernel gives out TUN devices.
const CLONE: &str = "/dev/net/tun";

/// The name of an instance's device: instances on one host have different queues.
#[must_use]
pub fn device_name(first_queue: u16) -> String {
    format!("relevo{first_queue}")
}

/// Whether this process may open what devices are made from; makes none.
pub fn probe() -> io::Result<()> {
    open_clone().map(|_| ())
}

fn open_clone() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CLONE)
}

/// One queue of the device.
#[derive(Debug)]
pub struct Cutter {
    queue: File,
}

impl Cutter {
    /// Makes the device with so many queues, sets its own sysctls, and brings it up. Whatever fails, nothing is left.
    pub fn open_all(name: &str, queues: u16, (v4, v6): (bool, bool)) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for number in 0..queues {
            // A device that is there already is somebody else's.
            let first = if number == 0 { libc::IFF_TUN_EXCL } else { 0 };
            let queue = open_clone().context(CLONE)?;
            attach(&queue, name, first).with_context(|| format!("queue {number} of the TUN device {name}"))?;
            all.push(Self { queue });
        }
        settle(name, v4, v6)?;
        bring_up(name).with_context(|| format!("can't bring up the TUN device {name}"))?;
        Ok(all)
    }

    /// Hands a super-packet to the kernel. Never waits.
    pub fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let header = Header::of(packet).ok_or(io::ErrorKind::InvalidInput)?;
        let parts = [&header.0, packet.bytes, packet.more].map(IoSlice::new);
        // A device takes a packet whole or not at all.
        self.queue.write_vectored(&parts).map(|_| ())
    }
}

/// `struct virtio_net_hdr`, in the host's byte order as TUN has it.
#[derive(Debug, PartialEq, Eq)]
struct Header([u8; 10]);

impl Header {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: what stands in the checksum's field is the pseudo header's sum.
    const NEEDS_CSUM: u8 = 1;
    /// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`.
    const GSO_TCP: [u8; 2] = [1, 4];
    /// Of the checksum in a TCP header.
    const CHECKSUM_AT: u16 = 16;

    /// `None` if it is no super-packet that the engine has written.
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let v6 = packet.bytes.first()? >> 4 == 6;
        let tcp: u16 = if v6 { 40 } else { 20 };
        let tcp_header = u16::from(packet.bytes.get(usize::from(tcp) + 12)? >> 4) * 4;
        let words = [tcp + tcp_header, packet.cut?.get(), tcp, Self::CHECKSUM_AT];
        let mut header = [0; 10];
        header[0] = Self::NEEDS_CSUM;
        header[1] = Self::GSO_TCP[usize::from(v6)];
        for (to, word) in header[2..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *to = word.to_ne_bytes();
        }
        Some(Self(header))
    }
}

/// An interface's request, with its name in place.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a plain C struct for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn attach(queue: &File, name: &str, more: libc::c_int) -> io::Result<()> {
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE | more;
    let mut request = request(name)?;
    // The flags of a device fill 16 bits, of which the highest is TUN's "exclusive".
    request.ifr_ifru.ifru_flags = u16::try_from(flags).map_err(io::Error::other)?.cast_signed();
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    done(result)
}

/// Sysctls of the device alone, which go with it: packets with addresses of this host come from it, and it asks for no address of its own.
fn settle(name: &str, v4: bool, v6: bool) -> anyhow::Result<()> {
    let set = |family: &str, key: &str, value: &str| {
        let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
        fs::write(&path, value).with_context(|| format!("can't write {path}"))
    };
    if v4 {
        for (key, value) in [("rp_filter", "0"), ("accept_local", "1"), ("forwarding", "1")] {
            set("ipv4", key, value)?;
        }
    }
    if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        // `none`: no link-local address, so the host has nothing to say there.
        set("ipv6", "addr_gen_mode", "1")?;
        if v6 {
            set("ipv6", "disable_ipv6", "0")?;
            set("ipv6", "forwarding", "1")?;
        }
    }
    Ok(())
}

fn bring_up(name: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    done(result)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    #[test]
    fn the_header_says_where_to_cut_and_what_to_sum() {
        for (first, tcp, kind) in [(0x45, 20, 1), (0x60, 40, 4)] {
            let mut bytes = vec![0; 3_000];
            (bytes[0], bytes[tcp + 12]) = (first, 8 << 4);
            let packet = Packet {
                dst: [10, 0, 0, 1].into(),
                bytes: &bytes,
                more: &[],
                cut: NonZeroU16::new(1_448),
            };
            let Header(header) = Header::of(&packet).expect("a super-packet");
            assert_eq!(header[..2], [1, kind]);
            let words: Vec<u16> = header[2..]
                .as_chunks()
                .0
                .iter()
                .map(|w| u16::from_ne_bytes(*w))
                .collect();
            let tcp = u16::try_from(tcp).expect("small");
            assert_eq!(words, [tcp + 32, 1_448, tcp, 16]);
            assert_eq!(Header::of(&Packet { cut: None, ..packet }), None);
            assert_eq!(
                Header::of(&Packet {
                    bytes: &bytes[..20],
                    ..packet
                }),
                None
            );
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!(request("relevo0").is_ok());
        assert!(request("sixteen-letters-").is_err());
        assert!(device_name(u16::MAX).len() < 16);
    }
}
