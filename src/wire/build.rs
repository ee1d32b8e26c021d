//! Packets that the engine originates, written whole: IP header, TCP header, options, payload and checksums.

use std::net::{IpAddr, SocketAddr};

use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{Ipv4Flags, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::MutableTcpPacket;

use super::field::{ipv4, ipv6, tcp};
use super::options::Options;
use super::{Flags, Seq, checksum};

/// Time to live, or hop limit, of what the engine originates (the value that RFC 1700 recommends and Linux uses).
const TTL: u8 = 64;

/// A TCP segment to be sent. Both addresses must be of one family.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window as on the wire: scaled already.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options. SACK blocks that find no room in 40 bytes are left out, the last ones first.
    pub options: Options,
    /// The payload: both slices, one behind the other (the two halves of a ring).
    pub payload: (&'a [u8], &'a [u8]),
}

/// Bytes of IP and TCP header, with these options, in front of a payload sent from `src`.
#[must_use]
pub fn header_len(src: IpAddr, options: &Options) -> usize {
    let ip = if src.is_ipv4() { ipv4::MIN_HEADER } else { ipv6::HEADER };
    ip + tcp::MIN_HEADER + options.encoded_len()
}

impl Segment<'_> {
    /// Length of the whole packet in bytes, IP header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        header_len(self.src.ip(), &self.options) + self.payload.0.len() + self.payload.1.len()
    }

    /// Writes the packet to the first [`Segment::len`] bytes of `out`.
    ///
    /// False, and nothing written, if `out` is shorter, the addresses are of different families, or the packet is too
    /// long for the length field of its IP header.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> bool {
        self.write_with(out, 0, Self::sum_all)
    }

    /// As [`Segment::write`], for a super-packet that the kernel cuts and that has `more` bytes behind what is written: the TCP checksum field gets
    /// the pseudo header's sum, which is what the kernel starts from for each segment.
    #[must_use]
    pub fn write_uncut(&self, out: &mut [u8], more: usize) -> bool {
        self.write_with(out, more, |pseudo_header, _| checksum::fold(pseudo_header))
    }

    fn sum_all(pseudo_header: u64, segment: &[u8]) -> u16 {
        checksum::finish(checksum::sum(segment, pseudo_header))
    }

    fn write_with(&self, out: &mut [u8], more: usize, field: fn(u64, &[u8]) -> u16) -> bool {
        let Some(out) = out.get_mut(..self.len()) else {
            return false;
        };
        let ip_header = if self.src.is_ipv4() {
            ipv4::MIN_HEADER
        } else {
            ipv6::HEADER
        };
        let (ip, segment) = out.split_at_mut(ip_header);
        let Ok(segment_len) = u16::try_from(segment.len() + more) else {
            return false;
        };
        let written = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => write_ipv4(ip, src, dst, segment_len),
            (IpAddr::V6(src), IpAddr::V6(dst)) => write_ipv6(ip, src, dst, segment_len),
            _ => None,
        };
        written
            .and_then(|()| self.write_tcp(segment, segment_len, field))
            .is_some()
    }

    fn write_tcp(&self, segment: &mut [u8], segment_len: u16, field: fn(u64, &[u8]) -> u16) -> Option<()> {
        let options_len = self.options.encoded_len();
        let header_len = tcp::MIN_HEADER + options_len;
        let (header, payload) = segment.split_at_mut_checked(header_len)?;
        header.fill(0);
        header
            .get_mut(tcp::MIN_HEADER..)?
            .copy_from_slice(self.options.write().get(..options_len)?);
        let (first, second) = payload.split_at_mut_checked(self.payload.0.len())?;
        first.copy_from_slice(self.payload.0);
        second.copy_from_slice(self.payload.1);

        let mut view = MutableTcpPacket::new(header)?;
        view.set_source(self.src.port());
        view.set_destination(self.dst.port());
        view.set_sequence(self.seq.0);
        view.set_acknowledgement(self.ack.0);
        view.set_data_offset(u8::try_from(header_len / 4).ok()?);
        view.set_flags(self.flags.0);
        view.set_window(self.window);
        view.set_urgent_ptr(self.urgent);

        let pseudo_header = checksum::pseudo_header(self.src.ip(), self.dst.ip(), u32::from(segment_len));
        let field = field(pseudo_header, segment);
        MutableTcpPacket::new(segment)?.set_checksum(field);
        Some(())
    }
}

/// An IPv4 header without options: never to be fragmented, so its id need not be unique (RFC 6864 section 4.1).
fn write_ipv4(header: &mut [u8], src: std::net::Ipv4Addr, dst: std::net::Ipv4Addr, segment_len: u16) -> Option<()> {
    let total = u16::try_from(header.len()).ok()?.checked_add(segment_len)?;
    header.fill(0);
    let mut view = MutableIpv4Packet::new(header)?;
    view.set_version(4);
    view.set_header_length(5);
    view.set_total_length(total);
    view.set_flags(Ipv4Flags::DontFragment);
    view.set_ttl(TTL);
    view.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
    view.set_source(src);
    view.set_destination(dst);
    let field = checksum::finish(checksum::sum(header, 0));
    MutableIpv4Packet::new(header)?.set_checksum(field);
    Some(())
}

fn write_ipv6(header: &mut [u8], src: std::net::Ipv6Addr, dst: std::net::Ipv6Addr, segment_len: u16) -> Option<()> {
    header.fill(0);
    let mut view = MutableIpv6Packet::new(header)?;
    view.set_version(6);
    view.set_payload_length(segment_len);
    view.set_next_header(IpNextHeaderProtocols::Tcp);
    view.set_hop_limit(TTL);
    view.set_source(src);
    view.set_destination(dst);
    Some(())
}
