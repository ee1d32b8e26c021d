//! Parsing: every length of a packet is checked once, here, and what was found is remembered by value.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{Ipv4Flags, Ipv4Packet};
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::tcp::TcpPacket;

use super::field::{array, ipv4, ipv6, tcp};
use super::options::{OptionOffsets, Options};
use super::{Flags, Seq};

/// How many extension headers of an IPv6 packet are looked at before it counts as malformed.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Why bytes are not a TCP packet that the engine can work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A length, version or option is impossible, or the packet is cut short.
    #[error("malformed packet")]
    Malformed,
    /// An IP fragment, also an IPv6 atomic one (R20).
    #[error("fragment")]
    Fragment,
    /// Another protocol than TCP, or TCP behind a header that hides it.
    #[error("not TCP")]
    NotTcp,
}

/// What a TCP packet says, and where its parts are. It owns no bytes: the caller keeps the two together.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// Source address and port (IPv6: flow label and scope are 0).
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Sequence number of the first octet, or of SYN.
    pub seq: Seq,
    /// Acknowledgement number; means something only with ACK set.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window as on the wire: not scaled.
    pub window: u16,
    /// Urgent pointer; means something only with URG set.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    pub(super) layout: Layout,
}

/// Where the parts of a packet are: byte offsets from the start of the IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// IPv6, or else IPv4.
    pub v6: bool,
    /// Start of the TCP header.
    pub tcp: usize,
    /// Start of the payload.
    pub payload: usize,
    /// End of the packet.
    pub end: usize,
    pub options: OptionOffsets,
}

impl Parsed {
    /// Parses a packet that starts at its IP header. Bytes behind the end that the IP header gives are not part of it.
    ///
    /// The IPv4 header checksum is the receiving kernel's to verify; for TCP's see [`super::tcp_checksum_ok`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            _ => Err(ParseError::Malformed),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, ParseError> {
        let ip = Ipv4Packet::new(bytes).ok_or(ParseError::Malformed)?;
        let header = usize::from(ip.get_header_length()) * 4;
        let end = match usize::from(ip.get_total_length()) {
            0 => super_packet_end(bytes)?,
            total => total,
        };
        if header < ipv4::MIN_HEADER || header > end || end > bytes.len() {
            return Err(ParseError::Malformed);
        }
        if ip.get_flags() & Ipv4Flags::MoreFragments != 0 || ip.get_fragment_offset() != 0 {
            return Err(ParseError::Fragment);
        }
        if ip.get_next_level_protocol() != IpNextHeaderProtocols::Tcp {
            return Err(ParseError::NotTcp);
        }
        Self::parse_tcp(bytes, header, end, |src, dst| {
            let (src, dst) = (
                SocketAddrV4::new(ip.get_source(), src),
                SocketAddrV4::new(ip.get_destination(), dst),
            );
            (src.into(), dst.into())
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, ParseError> {
        let ip = Ipv6Packet::new(bytes).ok_or(ParseError::Malformed)?;
        let end = match usize::from(ip.get_payload_length()) {
            0 => super_packet_end(bytes)?,
            payload => ipv6::HEADER + payload,
        };
        let packet = bytes.get(..end).ok_or(ParseError::Malformed)?;
        let header = skip_extension_headers(packet, ip.get_next_header())?;
        Self::parse_tcp(bytes, header, end, |src, dst| {
            let src = SocketAddrV6::new(ip.get_source(), src, 0, 0);
            let dst = SocketAddrV6::new(ip.get_destination(), dst, 0, 0);
            (src.into(), dst.into())
        })
    }

    /// The TCP half: `start..end` of `bytes`, with the two ports joined to their addresses by `addresses`.
    fn parse_tcp(
        bytes: &[u8],
        start: usize,
        end: usize,
        addresses: impl FnOnce(u16, u16) -> (SocketAddr, SocketAddr),
    ) -> Result<Self, ParseError> {
        let segment = bytes.get(start..end).ok_or(ParseError::Malformed)?;
        let header = TcpPacket::new(segment).ok_or(ParseError::Malformed)?;
        let header_len = usize::from(header.get_data_offset()) * 4;
        let list = segment.get(tcp::MIN_HEADER..header_len).ok_or(ParseError::Malformed)?;
        let (options, offsets) = Options::parse(list)?;
        let (src, dst) = addresses(header.get_source(), header.get_destination());
        Ok(Self {
            src,
            dst,
            seq: Seq(header.get_sequence()),
            ack: Seq(header.get_acknowledgement()),
            flags: Flags(header.get_flags()),
            window: header.get_window(),
            urgent: header.get_urgent_ptr(),
            options,
            layout: Layout {
                v6: src.is_ipv6(),
                tcp: start,
                payload: start + header_len,
                end,
                options: offsets,
            },
        })
    }

    /// Bytes of payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.layout.end - self.layout.payload
    }

    /// Octets of sequence space: payload, SYN and FIN (RFC 9293 section 3.4, SEG.LEN).
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a packet that the kernel hands over is far shorter than 4 GiB"
    )]
    pub fn seq_len(&self) -> u32 {
        let controls = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        (self.payload_len() as u32).wrapping_add(controls)
    }

    /// The payload, given the bytes that were parsed.
    #[must_use]
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.layout.payload..self.layout.end).unwrap_or(&[])
    }

    /// Length of the whole packet in bytes, IP header included: what its IP header says.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub const fn len(&self) -> usize {
        self.layout.end
    }
}

/// The end of a packet whose IP length field is 0: Linux does so (BIG TCP) for segmentation-offload packets too long for the field.
fn super_packet_end(bytes: &[u8]) -> Result<usize, ParseError> {
    if bytes.len() > usize::from(u16::MAX) {
        Ok(bytes.len())
    } else {
        Err(ParseError::Malformed)
    }
}

/// Walks from the end of the IPv6 header to the TCP header (RFC 8200 section 4) and returns where that starts.
fn skip_extension_headers(packet: &[u8], first: IpNextHeaderProtocol) -> Result<usize, ParseError> {
    let mut next = first;
    let mut at = ipv6::HEADER;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            IpNextHeaderProtocols::Tcp => return Ok(at),
            IpNextHeaderProtocols::Ipv6Frag => return Err(ParseError::Fragment),
            IpNextHeaderProtocols::Ipv6Opts | IpNextHeaderProtocols::Ipv6Route => {}
            // Only ever right behind the fixed header (RFC 8200 section 4.1).
            IpNextHeaderProtocols::Hopopt if at == ipv6::HEADER => {}
            IpNextHeaderProtocols::Hopopt => return Err(ParseError::Malformed),
            _ => return Err(ParseError::NotTcp),
        }
        let [following, units, _, segments_left] = array(packet, at).ok_or(ParseError::Malformed)?;
        if next == IpNextHeaderProtocols::Ipv6Route && segments_left != 0 {
            // The destination in the header is not the last one, and the pseudo header wants the last one.
            return Err(ParseError::Malformed);
        }
        next = IpNextHeaderProtocol(following);
        at += (usize::from(units) + 1) * 8;
    }
    Err(ParseError::Malformed)
}
