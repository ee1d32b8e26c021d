//! Rewriting a packet in place. The checksum follows from what changed (RFC 1624), so that the cost does not grow with the
//! payload and damage done on the way here is not covered up.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{self, add, negate, shift_to_odd};
use super::field::{array, be16, be32, ipv4, ipv6, kind, tcp};
use super::options::{item_at, sack_option_len};
use super::packet::{Layout, Parsed};
use super::{Flags, Seq, Timestamps};
use crate::mutant::{self, Mutation};

/// How [`Editor::finish`] comes to the TCP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumMode {
    /// It is complete: update it by what changed (RFC 1624 equation 3), so that corruption stays visible to the receiver.
    Complete,
    /// It was not computed yet: compute it over the whole packet.
    Partial,
    /// The kernel computes it anew for each segment (GSO): leave the pseudo header's sum there, which is what it starts from.
    Offloaded,
}

/// Which options of a SYN stay (R2); all others become NOPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each option, none depends on another"
)]
pub struct SynKeep {
    /// Maximum segment size.
    pub mss: bool,
    /// Window scale.
    pub wscale: bool,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: bool,
}

/// Edits a parsed packet in place. Nothing is valid until [`Editor::finish`] has mended the checksums.
#[derive(Debug)]
pub struct Editor<'a> {
    bytes: &'a mut [u8],
    layout: Layout,
    /// The end before any truncation.
    original_end: usize,
    /// Sum of what all edits so far have added to the words under the TCP checksum: old ones negated, new ones as they are.
    delta: u64,
}

impl<'a> Editor<'a> {
    /// Starts on `bytes`, of which `parsed` is what they parse to.
    pub fn new(bytes: &'a mut [u8], parsed: &Parsed) -> Self {
        Self {
            bytes,
            layout: parsed.layout,
            original_end: parsed.layout.end,
            delta: 0,
        }
    }

    /// Sets source address and port. False, and no change, if the address is of the other family.
    pub fn set_src(&mut self, src: SocketAddr) -> bool {
        self.set_address(src.ip(), ipv4::SRC, ipv6::SRC) && {
            self.put16(self.layout.tcp + tcp::SRC_PORT, src.port());
            true
        }
    }

    /// Sets destination address and port. False, and no change, if the address is of the other family.
    pub fn set_dst(&mut self, dst: SocketAddr) -> bool {
        self.set_address(dst.ip(), ipv4::DST, ipv6::DST) && {
            self.put16(self.layout.tcp + tcp::DST_PORT, dst.port());
            true
        }
    }

    /// Sets the sequence number.
    pub fn set_seq(&mut self, seq: Seq) {
        self.put32(self.layout.tcp + tcp::SEQ, seq.0);
    }

    /// Sets the acknowledgement number.
    pub fn set_ack(&mut self, ack: Seq) {
        self.put32(self.layout.tcp + tcp::ACK, ack.0);
    }

    /// Sets the window as it stands on the wire: scaled already.
    pub fn set_window(&mut self, window: u16) {
        self.put16(self.layout.tcp + tcp::WINDOW, window);
    }

    /// Sets all eight control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        let at = self.layout.tcp + tcp::OFFSET_FLAGS;
        if let Some([offset, _]) = array(self.bytes, at) {
            self.put16(at, u16::from_be_bytes([offset, flags.0]));
        }
    }

    /// Sets the timestamps, if the packet has any.
    pub fn set_timestamps(&mut self, timestamps: Timestamps) {
        if let Some(at) = self.option(self.layout.options.timestamps) {
            self.put32(at + 2, timestamps.val);
            self.put32(at + 6, timestamps.ecr);
        }
    }

    /// Sets the maximum segment size, if the packet has one.
    pub fn set_mss(&mut self, mss: u16) {
        if let Some(at) = self.option(self.layout.options.mss) {
            self.put16(at + 2, mss);
        }
    }

    /// Replaces each SACK block by what `f` makes of its edges; `None` takes the block out. What is left moves together, the
    /// option's length shrinks with it, and the freed bytes become NOPs: all of them, if no block is left.
    pub fn map_sack(&mut self, mut f: impl FnMut(Seq, Seq) -> Option<(Seq, Seq)>) {
        let Some(start) = self.option(self.layout.options.sack) else {
            return;
        };
        let Some([_, len]) = array(self.bytes, start) else {
            return;
        };
        let end = (start + usize::from(len)).min(self.layout.payload);
        let mut kept = 0;
        for at in (start + 2..end).step_by(8) {
            let Some((left, right)) = be32(self.bytes, at).zip(be32(self.bytes, at + 4)) else {
                break;
            };
            if let Some((left, right)) = f(Seq(left), Seq(right)) {
                let to = start + 2 + 8 * kept;
                self.put32(to, left.0);
                self.put32(to + 4, right.0);
                kept += 1;
            }
        }
        if kept == 0 {
            self.fill_nop(start, end);
            self.layout.options.sack = None;
        } else {
            self.put8(start + 1, sack_option_len(kept));
            self.fill_nop(start + 2 + 8 * kept, end);
        }
    }

    /// Turns every option that is not kept into NOPs, and all that follows an end-of-list option (R2's allow-list).
    pub fn keep_syn_options(&mut self, keep: SynKeep) {
        let (start, end) = (self.layout.tcp + tcp::MIN_HEADER, self.layout.payload);
        let mut at = 0;
        while let Some(Ok(Some(item))) = self.bytes.get(start..end).map(|list| item_at(list, at)) {
            let kept = match item.kind {
                kind::NOP => true,
                kind::MSS => keep.mss,
                kind::WSCALE => keep.wscale,
                kind::SACK_PERMITTED => keep.sack_permitted,
                kind::TIMESTAMPS => keep.timestamps,
                _ => false,
            };
            at = item.start + item.len;
            if !kept {
                self.fill_nop(start + item.start, start + at);
            }
        }
        self.fill_nop(start + at, end);
        let options = &mut self.layout.options;
        options.sack = None;
        options.mss = options.mss.filter(|_| keep.mss);
        options.timestamps = options.timestamps.filter(|_| keep.timestamps);
    }

    /// Clears the bits by which a SYN negotiates ECN: ECE, CWR (RFC 3168) and AE (RFC 9768: the last reserved bit).
    pub fn clear_ecn_setup(&mut self) {
        const AE_CWR_ECE: u16 = 0x01c0;
        let at = self.layout.tcp + tcp::OFFSET_FLAGS;
        if let Some(word) = be16(self.bytes, at) {
            self.put16(at, word & !AE_CWR_ECE);
        }
    }

    /// Cuts the payload to its first `keep` bytes; no change if it has no more. FIN and PSH are the caller's business.
    pub fn truncate_payload(&mut self, keep: usize) {
        if keep < self.layout.end.saturating_sub(self.layout.payload) {
            self.layout.end = self.layout.payload + keep;
            self.set_ip_length();
        }
    }

    /// Mends the checksums (TCP's as `mode` says, IPv4's header in full) and returns the packet's length in bytes.
    pub fn finish(mut self, mode: ChecksumMode) -> usize {
        let field = match mode {
            ChecksumMode::Complete => self.updated_checksum(),
            ChecksumMode::Partial => self.computed_checksum(),
            ChecksumMode::Offloaded => {
                checksum::pseudo_header_sum(self.bytes, &self.layout, self.layout.end).map(checksum::fold)
            }
        };
        if let Some(field) = field {
            self.store(self.layout.tcp + tcp::CHECKSUM, field.to_be_bytes());
        }
        if !self.layout.v6 {
            self.store(ipv4::CHECKSUM, [0; 2]);
            if let Some(header) = self.bytes.get(..self.layout.tcp) {
                let field = checksum::finish(checksum::sum(header, 0));
                self.store(ipv4::CHECKSUM, field.to_be_bytes());
            }
        }
        self.layout.end
    }

    /// The old checksum field with all edits and the truncation worked in; `None` if nothing under it changed.
    fn updated_checksum(&self) -> Option<u16> {
        let Layout { tcp, end, .. } = self.layout;
        let mut delta = self.delta;
        if end < self.original_end {
            let removed = checksum::sum(self.bytes.get(end..self.original_end)?, 0);
            let removed = if (end - tcp) % 2 == 1 {
                shift_to_odd(removed)
            } else {
                removed
            };
            delta = add(delta, negate(removed));
            // The pseudo header holds the length too.
            delta = add(delta, add(negate((self.original_end - tcp) as u64), (end - tcp) as u64));
        }
        let field = be16(self.bytes, tcp + tcp::CHECKSUM)?;
        (delta != 0 && !mutant::is(Mutation::ChecksumStale)).then(|| checksum::update(field, delta))
    }

    /// The checksum computed over pseudo header, header and payload. It leaves the field zeroed.
    fn computed_checksum(&mut self) -> Option<u16> {
        self.store(self.layout.tcp + tcp::CHECKSUM, [0; 2]);
        checksum::tcp_sum(self.bytes, &self.layout, self.layout.end).map(checksum::finish)
    }

    /// Makes the IP header's length fit `layout.end`. A super-packet's stays 0 for as long as the length does not fit its field.
    fn set_ip_length(&mut self) {
        let end = self.layout.end;
        if !self.layout.v6 {
            self.store(ipv4::TOTAL_LENGTH, u16::try_from(end).unwrap_or(0).to_be_bytes());
            return;
        }
        let payload = end - ipv6::HEADER;
        self.store(ipv6::PAYLOAD_LENGTH, u16::try_from(payload).unwrap_or(0).to_be_bytes());
        // Older kernels also put the length of a super-packet in a hop-by-hop option of its own (RFC 2675), which is
        // forbidden beside a length that fits; then four bytes of padding take its place.
        const HOP_BY_HOP: u8 = 0;
        const JUMBO_LENGTH: [u8; 2] = [0xc2, 4];
        const PAD_N: [u8; 6] = [1, 4, 0, 0, 0, 0];
        if self.bytes.get(ipv6::NEXT_HEADER) == Some(&HOP_BY_HOP)
            && array(self.bytes, ipv6::HEADER + 2) == Some(JUMBO_LENGTH)
        {
            match u32::try_from(payload) {
                Ok(length) if length > u32::from(u16::MAX) => self.store(ipv6::HEADER + 4, length.to_be_bytes()),
                _ => self.store(ipv6::HEADER + 2, PAD_N),
            }
        }
    }

    /// Writes an address at its place in the IP header of its family; false if the packet is of the other one.
    fn set_address(&mut self, address: IpAddr, at_v4: usize, at_v6: usize) -> bool {
        let old = match address {
            IpAddr::V4(new) if !self.layout.v6 => self.exchange(at_v4, new.octets()).map(IpAddr::from),
            IpAddr::V6(new) if self.layout.v6 => self.exchange(at_v6, new.octets()).map(IpAddr::from),
            _ => None,
        };
        if let Some(old) = old {
            self.account(checksum::address(old), checksum::address(address));
        }
        old.is_some()
    }

    /// Where an option starts in the packet, if it has that option.
    fn option(&self, offset: Option<u8>) -> Option<usize> {
        offset.map(|offset| self.layout.tcp + usize::from(offset))
    }

    fn fill_nop(&mut self, start: usize, end: usize) {
        for at in start..end {
            self.put8(at, kind::NOP);
        }
    }

    fn put8(&mut self, at: usize, value: u8) {
        if let Some(old) = self.exchange(at, [value]) {
            self.account_at(at + 1, u8::from_be_bytes(old).into(), value.into());
        }
    }

    fn put16(&mut self, at: usize, value: u16) {
        if let Some(old) = self.exchange(at, value.to_be_bytes()) {
            self.account_at(at + 2, u16::from_be_bytes(old).into(), value.into());
        }
    }

    fn put32(&mut self, at: usize, value: u32) {
        if let Some(old) = self.exchange(at, value.to_be_bytes()) {
            self.account_at(at + 4, u32::from_be_bytes(old), value);
        }
    }

    /// Accounts for a number that ends at `end`. Behind an odd number of NOPs that is the middle of a 16-bit word.
    fn account_at(&mut self, end: usize, old: u32, new: u32) {
        let shift = if (end ^ self.layout.tcp) & 1 == 1 { 8 } else { 0 };
        self.account(u64::from(old) << shift, u64::from(new) << shift);
    }

    fn account(&mut self, old: u64, new: u64) {
        if old != new {
            self.delta = add(self.delta, add(negate(old), new));
        }
    }

    /// Writes bytes that no checksum covers, or a checksum itself.
    fn store<const N: usize>(&mut self, at: usize, new: [u8; N]) {
        self.exchange(at, new);
    }

    /// Writes `new` at `at` and returns what was there; `None`, and no change, if that is outside the buffer.
    fn exchange<const N: usize>(&mut self, at: usize, new: [u8; N]) -> Option<[u8; N]> {
        let field = self.bytes.get_mut(at..)?.first_chunk_mut()?;
        Some(std::mem::replace(field, new))
    }
}
