//! Netlink, as far as rules and routes need it: a socket, and messages taken apart without a cast.
//!
//! Everything here is in host byte order (`linux/netlink.h`), unless an attribute's own definition says otherwise.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, sockopt};
use std::net::IpAddr;

/// `struct nlmsghdr`: length u32, type u16, flags u16, sequence number u32, port id u32.
const HEADER: usize = 16;
/// Attributes and messages begin at multiples of this.
const ALIGN: usize = 4;
/// One answer is at most a page or 32 KiB (`NLMSG_GOODSIZE`), so this holds any.
const BUFFER: usize = 64 << 10;

/// `NLMSG_ERROR`, `NLMSG_DONE`: an acknowledgement or error, and the end of a dump.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// The request that it answers.
    pub seq: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// The error that the message reports: `Some(Ok)` is an acknowledgement, `None` is another kind of message.
    #[must_use]
    pub fn status(&self) -> Option<io::Result<()>> {
        if self.kind != ERROR && self.kind != DONE {
            return None;
        }
        // `DONE` may come without a number.
        let code = i32_at(self.payload, 0).unwrap_or(0);
        Some(if code == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(code.saturating_neg()))
        })
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A number in host byte order.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

/// A number in host byte order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes_at(bytes, at).map(i32::from_ne_bytes)
}

/// A counter in network byte order.
#[must_use]
pub fn be64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_be_bytes)
}

/// An address in an attribute: 4 or 16 bytes in network byte order.
#[must_use]
pub fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes_at::<4>(bytes, 0).map(IpAddr::from),
        16 => bytes_at::<16>(bytes, 0).map(IpAddr::from),
        _ => None,
    }
}

/// The messages of a datagram, up to the first that is not whole.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let payload = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            seq: u32_at(bytes, 8)?,
            payload,
        };
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a message, behind its fixed part: type without flags, and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_TYPE_MASK`: without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)? & TYPE, bytes.get(4..len)?);
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(attribute)
    })
}

/// A message to send: header, fixed part and attributes.
#[must_use]
pub fn request(kind: u16, flags: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend(fixed);
    for (kind, value) in attributes {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    // One request at a time on a socket: its number is always 1.
    bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
    bytes
}

/// A netlink socket, bound.
pub struct Socket(mnl::Socket);

impl Socket {
    /// Opens one.
    pub fn open(bus: mnl::Bus) -> io::Result<Self> {
        mnl::Socket::new(bus).map(Self)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is `self.0`'s own, open as long as that lives, and the borrow ends with `self`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }

    /// What does not fit into the receive buffer is lost without the next `recv` failing (NETLINK_NO_ENOBUFS).
    pub fn mute_overrun(&self) -> io::Result<()> {
        self.set(libc::NETLINK_NO_ENOBUFS, 1)
    }

    /// Takes part in a multicast group (`RTNLGRP_*`): its notifications come in as messages.
    pub fn join(&self, group: libc::c_uint) -> io::Result<()> {
        self.set(libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    fn set(&self, option: libc::c_int, value: libc::c_uint) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the option's value is `value`, which outlives the call, with its own size.
        let done = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const value).cast(),
                libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0),
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The socket alone, without mnl's view of it: fit to be handed to another thread.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// Room for what a large transaction needs in both directions; more than the system's limit only as root.
    pub fn make_room(&self, bytes: usize) {
        let _ = sockopt::set_socket_recv_buffer_size_force(self.fd(), bytes);
        let _ = sockopt::set_socket_send_buffer_size_force(self.fd(), bytes);
    }

    /// Sends one datagram.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.0.send_all([datagram])
    }

    /// Everything that has been answered so far. The kernel answers transactions before `send` returns, so nothing is
    /// waited for.
    pub fn drain(&self) -> io::Result<Vec<u8>> {
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match rustix::net::recv(self.fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => answers.extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(rustix::io::Errno::AGAIN) => return Ok(answers),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a request and gathers the answers up to the end of a dump, or the one answer if it is none.
    pub fn ask(&self, request: &[u8], dump: bool) -> io::Result<Vec<u8>> {
        self.send(request)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let len = match rustix::net::recv(self.fd(), &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let datagram = buffer.get(..len).unwrap_or_default();
            answers.extend_from_slice(datagram);
            if let Some(status) = messages(datagram).find_map(|message| message.status()) {
                return status.map(|()| answers);
            }
            if !dump {
                return Ok(answers);
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_taken_apart_again() {
        let bytes = request(26, 1, &[7; 12], &[(1, &[10, 0, 0, 1]), (0x8004, &[1, 2, 3]), (5, &[])]);
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].seq), (26, 1));
        let attributes: Vec<_> = attributes(&all[0].payload[12..]).collect();
        assert_eq!(attributes, [(1, &[10, 0, 0, 1][..]), (4, &[1, 2, 3]), (5, &[])]);
    }

    #[test]
    fn errors_and_acknowledgements() {
        let status = |kind, payload: &[u8]| Message { kind, seq: 1, payload }.status();
        assert!(status(ERROR, &0i32.to_ne_bytes()).unwrap().is_ok());
        let error = status(ERROR, &(-2i32).to_ne_bytes()).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2));
        assert!(status(ERROR, &i32::MIN.to_ne_bytes()).unwrap().is_err());
        assert!(status(DONE, &[]).unwrap().is_ok());
        assert!(status(26, &[]).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8..8, 0..80)) {
            for message in messages(&bytes) {
                let _ = (message.status(), attributes(message.payload).count());
            }
        }
    }
}
