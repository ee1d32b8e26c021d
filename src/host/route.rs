//! The host's own addresses, and its ways to others: interface and path MTU (R5, R22), asked of the kernel by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, bail};
use rustix::net::sockopt;

use super::netlink::{Message, Socket, attributes, ip_of, messages, request, u32_at};
use crate::config::HostPath;

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface that they leave by.
    pub ifindex: u32,
    /// Whether the address is this host's own.
    pub local: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// Index of the interface that holds it.
    pub ifindex: u32,
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `NLM_F_REQUEST`, and with `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x301;
/// `RTM_NEWROUTE`, `RTM_NEWADDR`: the kinds of the answers.
const NEW_ROUTE: u16 = 24;
const NEW_ADDRESS: u16 = 20;
/// Bytes of `struct rtmsg` and `struct ifaddrmsg`, which stand before the attributes.
const RTMSG: usize = 12;
const IFADDRMSG: usize = 8;

/// The interface and path MTU towards an address; nothing is sent to it.
pub fn path(ip: IpAddr) -> anyhow::Result<HostPath> {
    let route = route(ip)?;
    let mtu = path_mtu(ip).with_context(|| format!("cannot ask for the path MTU to {ip}"))?;
    Ok(HostPath {
        ifindex: Some(route.ifindex),
        mtu,
    })
}

/// What a socket connected to the address would use (`IP_MTU`); the loopback's 65,536 is cut to what a u16 holds.
fn path_mtu(ip: IpAddr) -> std::io::Result<u16> {
    let (any, discard) = match ip {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9),
        IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 9),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(ip, discard))?;
    let mtu = match ip {
        IpAddr::V4(_) => sockopt::ip_mtu(&socket)?,
        IpAddr::V6(_) => sockopt::ipv6_mtu(&socket)?,
    };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// The route that the host would take to an address.
pub fn route(ip: IpAddr) -> anyhow::Result<Route> {
    /// `RTA_DST`.
    const DESTINATION: u16 = 1;
    let (family, bytes) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let mut fixed = [0; RTMSG];
    fixed[..2].copy_from_slice(&[family, bits]);
    let ask = request(libc::RTM_GETROUTE, REQUEST, &fixed, &[(DESTINATION, &bytes)]);
    let socket = Socket::open(mnl::Bus::Route).context("cannot open a netlink socket for routes")?;
    let answers = socket
        .ask(&ask, false)
        .with_context(|| format!("there is no route to {ip}"))?;
    let Some(found) = messages(&answers).find_map(parse_route) else {
        bail!("the kernel's answer about the route to {ip} names no interface");
    };
    match found {
        (route, libc::RTN_UNICAST | libc::RTN_LOCAL) => Ok(route),
        (_, kind) => bail!("the route to {ip} leads nowhere (route type {kind})"),
    }
}

/// The route and its type, `RTN_*`.
fn parse_route(message: Message<'_>) -> Option<(Route, u8)> {
    /// Offset of `rtm_type` in `struct rtmsg`.
    const TYPE: usize = 7;
    if message.kind != NEW_ROUTE {
        return None;
    }
    let kind = *message.payload.get(TYPE)?;
    let attributes = attributes(message.payload.get(RTMSG..)?);
    let ifindex = attributes
        .filter(|(kind, _)| *kind == libc::RTA_OIF)
        .find_map(|(_, value)| u32_at(value, 0))?;
    Some((
        Route {
            ifindex,
            local: kind == libc::RTN_LOCAL,
        },
        kind,
    ))
}

/// Every address of this host.
pub fn addresses() -> anyhow::Result<Vec<LocalAddress>> {
    let socket = Socket::open(mnl::Bus::Route).context("cannot open a netlink socket for addresses")?;
    let ask = request(libc::RTM_GETADDR, DUMP, &[0; IFADDRMSG], &[]);
    let answers = socket.ask(&ask, true).context("cannot list the host's addresses")?;
    Ok(messages(&answers).filter_map(parse_address).collect())
}

fn parse_address(message: Message<'_>) -> Option<LocalAddress> {
    /// `IFA_ADDRESS`, `IFA_LOCAL`: they differ on point-to-point interfaces, where the second is the host's own.
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    /// Offset of `ifa_index` in `struct ifaddrmsg`.
    const IFINDEX: usize = 4;
    if message.kind != NEW_ADDRESS {
        return None;
    }
    let rest = message.payload.get(IFADDRMSG..)?;
    let get = |wanted| {
        attributes(rest)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let bytes = get(LOCAL).or_else(|| get(ADDRESS))?;
    Some(LocalAddress {
        ip: ip_of(bytes)?,
        ifindex: u32_at(message.payload, IFINDEX)?,
    })
}

/// An interface's name.
pub fn interface_name(ifindex: u32) -> anyhow::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    rustix::net::netdevice::index_to_name(&socket, ifindex).with_context(|| format!("there is no interface {ifindex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_local_and_has_its_address() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let route = route(ip).unwrap();
        assert!(route.local);
        assert_eq!(interface_name(route.ifindex).unwrap(), "lo");
        assert!(addresses().unwrap().contains(&LocalAddress {
            ip,
            ifindex: route.ifindex
        }));
        assert_eq!(
            path(ip).unwrap(),
            HostPath {
                ifindex: Some(route.ifindex),
                mtu: u16::MAX
            }
        );
    }

    #[test]
    fn a_multicast_address_is_no_machine() {
        assert!(route("224.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn answers_that_make_no_sense_are_passed_over() {
        for payload in [&[][..], &[0; 11], &[0; 12], &[255; 40]] {
            let message = |kind| Message { kind, seq: 1, payload };
            assert_eq!(parse_route(message(NEW_ROUTE)), None);
            assert_eq!(parse_address(message(NEW_ADDRESS)), None);
        }
    }
}
