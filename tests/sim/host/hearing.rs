//! What smoltcp must not be told as it comes.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use smoltcp::wire::{IpEndpoint, TcpPacket};

use super::Host;
use crate::packet::{ACK, Packet, SYN};

impl Host {
    /// smoltcp hands a SYN to the first socket that would have it, be it a fresh listener next to the connection that the
    /// SYN belongs to. So a doubled SYN is lost here, be it of an older connection, and one that meets an old connection ends it, as happens with other stacks (from
    /// TIME-WAIT at once, else after a challenge and the reset that answers it, RFC 9293 section 3.5.1).
    pub(super) fn syn_is_welcome(&mut self, bytes: &[u8]) -> bool {
        let Ok(p) = Packet::parse(bytes) else { return true };
        if !p.has(SYN) || p.has(ACK) {
            return true;
        }
        let from = IpEndpoint::new(p.src.into(), p.sport);
        let sockets = &self.sockets;
        let socket_of = |handle: SocketHandle| sockets.get::<tcp::Socket>(handle);
        let Some(i) = self
            .slots
            .iter()
            .position(|(h, _)| socket_of(*h).remote_endpoint() == Some(from))
        else {
            self.opened.push((from, p.seq));
            return true;
        };
        let old = socket_of(self.slots[i].0);
        let same = self.opened.contains(&(from, p.seq));
        // A reset leaves the application what it has yet to read: here the SYN waits for that instead. One that hangs would keep
        // the port until it wakes.
        let over = !same && (self.hung || !old.can_recv());
        if over {
            self.forget(i);
            self.opened.push((from, p.seq));
        }
        over
    }

    /// smoltcp 0.14 takes a third duplicate ACK while only its FIN is unacknowledged for a fast retransmission, finds no
    /// data to send, and never sends anything again. So such an ACK, which says nothing, is lost here.
    pub(super) fn stalls_fin(&self, bytes: &[u8]) -> bool {
        let Ok(p) = Packet::parse(bytes) else { return false };
        if p.flags != ACK || p.len > 0 {
            return false;
        }
        let waits = self
            .sockets_of(&p)
            .any(|s| s.send_queue() == 0 && matches!(s.state(), State::FinWait1 | State::Closing | State::LastAck));
        waits
            && self
                .quirks
                .fin_is_open(IpEndpoint::new(p.src.into(), p.sport), p.dport, p.ack)
    }

    /// Whether this may make smoltcp send more than its peer's window takes (see [`crate::quirks::Quirks::overshoots`]).
    pub(super) fn overshoots(&self, bytes: &[u8]) -> bool {
        let Ok(p) = Packet::parse(bytes) else { return false };
        let most = self.spec.mtu - if p.src.is_ipv4() { 40 } else { 60 };
        self.sockets_of(&p)
            .any(|s| self.quirks.overshoots(&p, s.send_queue(), most))
    }

    /// The connections that a packet belongs to.
    fn sockets_of(&self, p: &Packet) -> impl Iterator<Item = &tcp::Socket<'static>> {
        let (from, to) = (IpEndpoint::new(p.src.into(), p.sport), p.dport);
        let sockets = self.slots.iter().map(|(h, _)| self.sockets.get::<tcp::Socket>(*h));
        sockets.filter(move |s| s.remote_endpoint() == Some(from) && s.local_endpoint().is_some_and(|e| e.port == to))
    }

    /// smoltcp knows no switch for SACK and window scaling: a SYN loses the options that the host does not know.
    pub(super) fn without_options(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let Ok(p) = Packet::parse(&bytes) else { return bytes };
        if !p.has(SYN) || p.has(ACK) || (self.spec.sack && self.spec.scaling) {
            return bytes;
        }
        let ip = if p.src.is_ipv4() { 20 } else { 40 };
        let mut at = ip + 20;
        while at < p.data_at && bytes[at] != 0 {
            let (kind, len) = match bytes[at] {
                1 => (1, 1),
                kind => (kind, usize::from(bytes[at + 1])),
            };
            if (kind == 3 && !self.spec.scaling) || (kind == 4 && !self.spec.sack) {
                bytes[at..at + len].fill(1);
            }
            at += len;
        }
        TcpPacket::new_unchecked(&mut bytes[ip..]).fill_checksum(&p.src.into(), &p.dst.into());
        bytes
    }
}
