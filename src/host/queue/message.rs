//! What queue and kernel say to each other (`linux/netfilter/nfnetlink_queue.h`), as bytes: no sockets here.
//!
//! A packet comes as one netlink message whose last attribute is the payload. The verdict that gives it back rewritten goes into
//! the same memory: the headers of a verdict are never longer than what stands before the payload, so the packet is not copied.

use crate::engine::{Checksum, Meta};
use crate::host::netlink::{attributes, request, u16_at, u32_at};

/// `NFNL_SUBSYS_QUEUE << 8`.
const SUBSYSTEM: u16 = 3 << 8;
/// `NFQNL_MSG_PACKET`, `NFQNL_MSG_VERDICT`, `NFQNL_MSG_CONFIG`.
pub const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;

/// `struct nlmsghdr` and `struct nfgenmsg` (family u8, version u8, queue number be16).
const HEADER: usize = 16 + 4;
/// The head of an attribute: length u16, type u16.
const ATTRIBUTE: usize = 4;
/// `NLM_F_REQUEST`, `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;

/// `NFQA_PACKET_HDR`: packet id be32, hardware protocol be16, hook u8.
const PACKET_HDR: u16 = 1;
/// `NFQA_VERDICT_HDR`: verdict be32, packet id be32.
const VERDICT_HDR: u16 = 2;
/// `NFQA_IFINDEX_INDEV` be32.
const IFINDEX: u16 = 5;
/// `NFQA_PAYLOAD`: the packet from the IP header on.
const PAYLOAD: u16 = 10;
/// `NFQA_CAP_LEN` be32: the packet's own length, where the payload is shorter.
const CAP_LEN: u16 = 13;
/// `NFQA_SKB_INFO` be32.
const SKB_INFO: u16 = 14;
/// `NFQA_SKB_CSUMNOTREADY`: the sender's kernel has left the checksum to the hardware.
const CHECKSUM_NOT_READY: u32 = 1;
/// `NFQA_SKB_GSO`: a super-packet.
const SUPER_PACKET: u32 = 2;

/// `NF_DROP`, `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Bytes of a verdict without payload.
pub const VERDICT_LEN: usize = HEADER + ATTRIBUTE + 8;
/// Bytes of a verdict before its payload.
pub const HEADROOM: usize = VERDICT_LEN + ATTRIBUTE;

/// A packet as its message describes it; offsets are from the message's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The kernel's number for the packet, in host byte order.
    pub id: u32,
    /// Interface and checksum.
    pub meta: Told,
    /// Where the payload starts.
    pub at: usize,
    /// Bytes of payload that came.
    pub len: usize,
    /// The packet was longer than what came.
    pub cut: bool,
}

/// [`Meta`], comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    ifindex: u32,
    checksum: Checksum,
}

impl From<Told> for Meta {
    fn from(told: Told) -> Self {
        Self {
            ifindex: told.ifindex,
            checksum: told.checksum,
            ..Self::default()
        }
    }
}

fn be32_at(bytes: &[u8]) -> Option<u32> {
    u32_at(bytes, 0).map(u32::from_be)
}

/// Takes a packet message apart. `None` if it is none, or has no packet in it.
#[must_use]
pub fn describe(message: &[u8]) -> Option<Described> {
    if u16_at(message, 4)? != PACKET {
        return None;
    }
    let len = usize::try_from(u32_at(message, 0)?).ok()?;
    let (mut id, mut ifindex, mut whole, mut info, mut payload) = (None, 0, 0, 0, None);
    let mut at = HEADER;
    for (kind, value) in attributes(message.get(HEADER..len)?) {
        match kind {
            PACKET_HDR => id = be32_at(value),
            IFINDEX => ifindex = be32_at(value)?,
            CAP_LEN => whole = usize::try_from(be32_at(value)?).ok()?,
            SKB_INFO => info = be32_at(value)?,
            PAYLOAD => payload = Some((at + ATTRIBUTE, value.len())),
            _ => {}
        }
        at += (ATTRIBUTE + value.len()).next_multiple_of(4);
    }
    let (at, len) = payload?;
    let checksum = match info {
        info if info & SUPER_PACKET != 0 => Checksum::Offloaded,
        info if info & CHECKSUM_NOT_READY != 0 => Checksum::Partial,
        _ => Checksum::Complete,
    };
    Some(Described {
        id: id?,
        meta: Told { ifindex, checksum },
        at,
        len,
        cut: whole > len,
    })
}

/// Appends the verdict "drop".
pub fn push_drop(verdicts: &mut Vec<u8>, queue: u16, id: u32) {
    let start = verdicts.len();
    verdicts.resize(start + VERDICT_LEN, 0);
    write_verdict(&mut verdicts[start..], VERDICT_LEN, queue, DROP, id);
}

/// Writes the verdict "accept, as it is now" around the first `len` bytes of the payload at `at`; returns where the verdict starts and
/// ends. `None` if there is no room before the payload, which no kernel's message lacks.
pub fn accept_in_place(message: &mut [u8], at: usize, len: usize, queue: u16, id: u32) -> Option<(usize, usize)> {
    let start = at.checked_sub(HEADROOM)?;
    let end = at.checked_add(len)?;
    let bytes = message.get_mut(start..end)?;
    write_verdict(bytes, HEADROOM + len, queue, ACCEPT, id);
    let attribute = u16::try_from(ATTRIBUTE + len).ok()?;
    write_attribute(&mut bytes[VERDICT_LEN..], attribute, PAYLOAD);
    Some((start, end))
}

fn write_attribute(bytes: &mut [u8], len: u16, kind: u16) {
    bytes[..2].copy_from_slice(&len.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
}

/// Headers and `NFQA_VERDICT_HDR`; `bytes` has at least [`VERDICT_LEN`].
fn write_verdict(bytes: &mut [u8], len: usize, queue: u16, verdict: u32, id: u32) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&VERDICT.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    // Sequence number and port id: nobody asks.
    bytes[8..16].fill(0);
    bytes[16..18].fill(0);
    bytes[18..20].copy_from_slice(&queue.to_be_bytes());
    write_attribute(&mut bytes[20..24], 12, VERDICT_HDR);
    bytes[24..28].copy_from_slice(&verdict.to_be_bytes());
    bytes[28..32].copy_from_slice(&id.to_be_bytes());
}

/// Makes this socket the queue's owner; packets come whole, GSO packets as they are, and a full queue drops. All in one message, so no
/// packet comes in between.
#[must_use]
pub fn configure(queue: u16, length: u32, copy_range: u32) -> Vec<u8> {
    /// `NFQA_CFG_CMD`, `_PARAMS`, `_QUEUE_MAXLEN`, `_MASK`, `_FLAGS`.
    const COMMAND: u16 = 1;
    const PARAMS: u16 = 2;
    const QUEUE_MAXLEN: u16 = 3;
    const MASK: u16 = 4;
    const FLAGS: u16 = 5;
    /// `NFQNL_CFG_CMD_BIND`, then a pad byte and a protocol family that kernels since 3.8 ignore.
    const BIND: [u8; 4] = [1, 0, 0, 0];
    const COPY_PACKET: u8 = 2;
    /// `NFQA_CFG_F_FAIL_OPEN` (to be off) and `NFQA_CFG_F_GSO` (to be on).
    const FAIL_OPEN: u32 = 1;
    const GSO: u32 = 4;
    let [a, b] = queue.to_be_bytes();
    let range = copy_range.to_be_bytes();
    let params = [range[0], range[1], range[2], range[3], COPY_PACKET];
    request(
        CONFIG,
        REQUEST | ACKNOWLEDGE,
        &[0, 0, a, b],
        &[
            (COMMAND, &BIND),
            (PARAMS, &params),
            (QUEUE_MAXLEN, &length.to_be_bytes()),
            (MASK, &(FAIL_OPEN | GSO).to_be_bytes()),
            (FLAGS, &GSO.to_be_bytes()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::messages;

    /// What the kernel sends for a packet, with an attribute that nobody here knows.
    fn packet_message(payload: &[u8], info: u32, whole: Option<u32>) -> Vec<u8> {
        let header = [0, 0, 0x12, 0x34, 8, 0, 0];
        let info = info.to_be_bytes();
        let whole = whole.map(u32::to_be_bytes);
        let mut attributes: Vec<(u16, &[u8])> = vec![
            (PACKET_HDR, &header),
            (IFINDEX, &[0, 0, 0, 7]),
            (9, &[0; 12]),
            (SKB_INFO, &info),
        ];
        attributes.extend(whole.as_ref().map(|bytes| (CAP_LEN, &bytes[..])));
        attributes.push((PAYLOAD, payload));
        request(PACKET, 0, &[2, 0, 0, 3], &attributes)
    }

    #[test]
    fn a_packet_is_found_in_its_message() {
        for (info, checksum) in [
            (0, Checksum::Complete),
            (1, Checksum::Partial),
            (2, Checksum::Offloaded),
            (3, Checksum::Offloaded),
            (4, Checksum::Complete),
        ] {
            let message = packet_message(b"hello", info, None);
            let found = describe(&message).expect("a packet");
            assert_eq!((found.id, found.len, found.cut), (0x1234, 5, false));
            assert_eq!(found.meta, Told { ifindex: 7, checksum });
            assert_eq!(&message[found.at..found.at + found.len], b"hello");
        }
        assert!(describe(&packet_message(b"hel", 0, Some(5))).expect("a packet").cut);
        assert!(!describe(&packet_message(b"hel", 0, Some(3))).expect("a packet").cut);
    }

    #[test]
    fn the_verdict_is_written_around_the_packet() {
        let mut message = packet_message(b"hello", 0, None);
        let found = describe(&message).expect("a packet");
        message[found.at..found.at + 5].copy_from_slice(b"HELLO");
        let (start, end) = accept_in_place(&mut message, found.at, 4, 3, found.id).expect("room");
        let verdict = &message[start..end];
        let parsed: Vec<_> = messages(verdict).collect();
        assert_eq!((parsed.len(), parsed[0].kind), (1, VERDICT));
        assert_eq!(&parsed[0].payload[..4], &[0, 0, 0, 3]);
        let attributes: Vec<_> = attributes(&parsed[0].payload[4..]).collect();
        assert_eq!(
            attributes,
            [(VERDICT_HDR, &[0, 0, 0, 1, 0, 0, 0x12, 0x34][..]), (PAYLOAD, b"HELL")]
        );
    }

    /// The kernel's shortest message: packet header and payload only.
    #[test]
    fn there_is_room_for_the_verdict_in_the_shortest_message() {
        let mut message = request(
            PACKET,
            0,
            &[2, 0, 0, 3],
            &[(PACKET_HDR, &[0, 0, 0, 1, 8, 0, 0]), (PAYLOAD, &[1, 2, 3, 4])],
        );
        let found = describe(&message).expect("a packet");
        assert_eq!(
            accept_in_place(&mut message, found.at, 4, 0, 1),
            Some((0, HEADROOM + 4))
        );
    }

    #[test]
    fn drops_follow_each_other_in_one_datagram() {
        let mut verdicts = Vec::new();
        push_drop(&mut verdicts, 258, 5);
        push_drop(&mut verdicts, 258, 6);
        let parsed: Vec<_> = messages(&verdicts).collect();
        assert_eq!(parsed.len(), 2);
        for (message, id) in parsed.iter().zip([5, 6]) {
            assert_eq!(&message.payload[..4], &[0, 0, 1, 2]);
            let attributes: Vec<_> = attributes(&message.payload[4..]).collect();
            assert_eq!(attributes, [(VERDICT_HDR, &[0, 0, 0, 0, 0, 0, 0, id][..])]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8..12, 0..90), kind in 0u16..2) {
            let mut bytes = bytes;
            if bytes.len() >= 6 {
                bytes[4..6].copy_from_slice(&(PACKET + kind).to_ne_bytes());
                let len = u32::try_from(bytes.len()).unwrap();
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
            }
            if let Some(found) = describe(&bytes) {
                assert!(found.at + found.len <= bytes.len());
                let _ = accept_in_place(&mut bytes, found.at, found.len, 1, found.id);
            }
        }
    }
}
