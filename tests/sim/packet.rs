//! What the observer reads of a packet: a parser of its own, independent of the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

/// The header fields of one TCP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub win: u16,
    /// Payload: where it starts, counted from the IP header, and its length in bytes.
    pub data_at: usize,
    pub len: usize,
    pub options: Options,
}

/// The TCP options of one packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval, TSecr.
    pub ts: Option<(u32, u32)>,
    pub sack: [Option<(u32, u32)>; 4],
    /// Kind of an option outside R2's allow-list.
    pub other: Option<u8>,
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// RFC 1071's sum of 16-bit words, not folded.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let whole: u64 = words
        .by_ref()
        .map(|w| u64::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    whole + words.remainder().first().map_or(0, |b| u64::from(*b) << 8)
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Packet {
    /// Reads a packet; an error says what is wrong with it. Extension headers do not occur in the simulation.
    pub fn parse(b: &[u8]) -> Result<Self, String> {
        if b.is_empty() {
            return Err("empty packet".into());
        }
        let (src, dst, tcp_at, total): (IpAddr, IpAddr, usize, usize) = match b[0] >> 4 {
            4 if b.len() >= 20 && b[9] == 6 => {
                let v4 = |at: usize| Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]).into();
                (v4(12), v4(16), usize::from(b[0] & 15) * 4, usize::from(u16_at(b, 2)))
            }
            6 if b.len() >= 40 && b[6] == 6 => {
                let v6 = |at: usize| {
                    let mut a = [0; 16];
                    a.copy_from_slice(&b[at..at + 16]);
                    Ipv6Addr::from(a).into()
                };
                (v6(8), v6(24), 40, 40 + usize::from(u16_at(b, 4)))
            }
            _ => {
                return Err(format!(
                    "neither IPv4 nor IPv6 with TCP: {:02x?}",
                    &b[..b.len().min(40)]
                ));
            }
        };
        if total != b.len() || b.len() < tcp_at + 20 {
            return Err(format!("IP length {total} of {} bytes", b.len()));
        }
        let t = &b[tcp_at..];
        let header = usize::from(t[12] >> 4) * 4;
        if header < 20 || header > t.len() {
            return Err(format!("TCP header of {header} bytes in {}", t.len()));
        }
        Ok(Self {
            src,
            dst,
            sport: u16_at(t, 0),
            dport: u16_at(t, 2),
            seq: u32_at(t, 4),
            ack: u32_at(t, 8),
            flags: t[13],
            win: u16_at(t, 14),
            data_at: tcp_at + header,
            len: t.len() - header,
            options: Options::parse(&t[20..header])?,
        })
    }

    /// Says which checksum of the packet is wrong, if any.
    pub fn check_sums(&self, b: &[u8]) -> Result<(), String> {
        let (tcp_at, addresses) = if b[0] >> 4 == 4 {
            let header = usize::from(b[0] & 15) * 4;
            if fold(sum(&b[..header])) != 0xffff {
                return Err("IPv4 header checksum is wrong".into());
            }
            (header, sum(&b[12..20]))
        } else {
            (40, sum(&b[8..40]))
        };
        let tcp = &b[tcp_at..];
        if fold(addresses + 6 + tcp.len() as u64 + sum(tcp)) != 0xffff {
            return Err("TCP checksum is wrong".into());
        }
        Ok(())
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
    /// Length in sequence space.
    pub fn seq_len(&self) -> u32 {
        self.len as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
    /// The flags in letters.
    pub fn flag_names(&self) -> String {
        let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, '.'), (URG, 'U')];
        names.iter().filter(|(f, _)| self.has(*f)).map(|(_, c)| *c).collect()
    }
}

impl Options {
    fn parse(mut b: &[u8]) -> Result<Self, String> {
        let mut found = Self::default();
        while let Some(&kind) = b.first() {
            match kind {
                0 => break,
                1 => {
                    b = &b[1..];
                    continue;
                }
                _ => (),
            }
            let len = usize::from(*b.get(1).ok_or("option without a length")?);
            if len < 2 || len > b.len() {
                return Err(format!("option {kind} of {len} bytes"));
            }
            match (kind, len) {
                (2, 4) => found.mss = Some(u16_at(b, 2)),
                (3, 3) => found.scale = Some(b[2]),
                (4, 2) => found.sack_permitted = true,
                (5, 10 | 18 | 26 | 34) => {
                    for (slot, block) in found.sack.iter_mut().zip(b[2..len].chunks_exact(8)) {
                        *slot = Some((u32_at(block, 0), u32_at(block, 4)));
                    }
                }
                (8, 10) => found.ts = Some((u32_at(b, 2), u32_at(b, 6))),
                _ => found.other = Some(kind),
            }
            b = &b[len..];
        }
        Ok(found)
    }
}
