//! The kernel's news of links and neighbours (R14): evidence that a machine can't be reached, sooner than any silence tells.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::netlink::{Message, Socket, attributes, ip_of, messages, u16_at, u32_at};

/// `RTNLGRP_LINK` and `RTNLGRP_NEIGH`.
const GROUPS: [libc::c_uint; 2] = [1, 3];
/// A notification is small; several come in one read.
const BUFFER: usize = 16 << 10;

/// Something went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// An interface is down, has no carrier, or is gone.
    Link {
        /// Its index.
        ifindex: u32,
    },
    /// Nobody answers for this address on the link any more (`NUD_FAILED`).
    Neighbour {
        /// Index of the interface.
        ifindex: u32,
        /// Who was asked for.
        ip: IpAddr,
    },
}

/// A subscription to the kernel's notifications; never waits.
pub struct Links {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Links {
    /// Subscribes. News that find no room are lost without an error: probes see the same a little later.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(mnl::Bus::Route)?;
        socket.mute_overrun()?;
        for group in GROUPS {
            socket.join(group)?;
        }
        Ok(Self {
            fd: socket.into_fd()?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Everything that was lost since the last call; an error of the socket is no news.
    pub fn take(&mut self, mut lost: impl FnMut(Loss)) {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => messages(self.buffer.get(..len).unwrap_or_default())
                    .filter_map(parse)
                    .for_each(&mut lost),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn parse(message: Message<'_>) -> Option<Loss> {
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => parse_link(message),
        libc::RTM_NEWNEIGH => parse_neighbour(message.payload),
        _ => None,
    }
}

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change u32.
fn parse_link(message: Message<'_>) -> Option<Loss> {
    const IFINDEX: usize = 4;
    const FLAGS: usize = 8;
    /// `IFF_UP` and `IFF_LOWER_UP`: somebody wants it up, and there is a carrier.
    const WORKS: u32 = 0x1 | 0x1_0000;
    let ifindex = u32_at(message.payload, IFINDEX)?;
    let works = u32_at(message.payload, FLAGS)? & WORKS == WORKS;
    (message.kind == libc::RTM_DELLINK || !works).then_some(Loss::Link { ifindex })
}

/// `struct ndmsg`: family u8, 3 bytes of padding, index i32, state u16, flags u8, type u8.
fn parse_neighbour(payload: &[u8]) -> Option<Loss> {
    const NDMSG: usize = 12;
    const IFINDEX: usize = 4;
    const STATE: usize = 8;
    const NUD_FAILED: u16 = 0x20;
    /// `NDA_DST`.
    const DESTINATION: u16 = 1;
    if u16_at(payload, STATE)? & NUD_FAILED == 0 {
        return None;
    }
    let mut attributes = attributes(payload.get(NDMSG..)?);
    let ip = attributes.find_map(|(kind, value)| if kind == DESTINATION { ip_of(value) } else { None })?;
    Some(Loss::Neighbour {
        ifindex: u32_at(payload, IFINDEX)?,
        ip,
    })
}

#[cfg(test)]
mod tests {
    use super::super::netlink::request;
    use super::*;

    fn read(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<Loss> {
        messages(&request(kind, 0, fixed, attributes))
            .filter_map(parse)
            .collect()
    }

    fn link(index: u32, flags: u32) -> Vec<u8> {
        [0u32, index, flags, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    fn neighbour(index: u32, state: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn a_link_is_lost_without_its_carrier_or_its_operator() {
        const UP: u32 = 0x1;
        const CARRIER: u32 = 0x1_0000;
        let lost = [Loss::Link { ifindex: 7 }];
        assert_eq!(read(libc::RTM_NEWLINK, &link(7, UP | CARRIER), &[]), []);
        assert_eq!(read(libc::RTM_NEWLINK, &link(7, UP), &[]), lost);
        assert_eq!(read(libc::RTM_NEWLINK, &link(7, CARRIER), &[]), lost);
        assert_eq!(read(libc::RTM_DELLINK, &link(7, UP | CARRIER), &[]), lost);
    }

    #[test]
    fn a_neighbour_is_lost_when_nobody_answers_for_it() {
        const REACHABLE: u16 = 0x2;
        const FAILED: u16 = 0x20;
        let v4: &[u8] = &[10, 0, 2, 2];
        let v6: &[u8] = &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let lost = |ip: &str| {
            [Loss::Neighbour {
                ifindex: 3,
                ip: ip.parse().unwrap(),
            }]
        };
        let kind = libc::RTM_NEWNEIGH;
        assert_eq!(
            read(kind, &neighbour(3, FAILED), &[(2, &[0; 6]), (1, v4)]),
            lost("10.0.2.2")
        );
        assert_eq!(read(kind, &neighbour(3, FAILED), &[(1, v6)]), lost("fd00::9"));
        assert_eq!(read(kind, &neighbour(3, REACHABLE), &[(1, v4)]), []);
        assert_eq!(read(kind, &neighbour(3, FAILED), &[(1, &[1, 2])]), [], "no address");
        assert_eq!(read(kind, &[0; 9], &[]), [], "cut");
    }
}
