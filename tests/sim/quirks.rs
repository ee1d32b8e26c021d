//! Work-arounds for faults of smoltcp 0.14, so that a schedule fails for the engine's faults only. Each names the fault.

use relevo::engine::{Micros, SECOND};
use smoltcp::wire::{IpEndpoint, TcpPacket, TcpSeqNumber};

use crate::packet::{ACK, FIN, Options, PSH, Packet, RST, SYN};

/// A stack that has sent nothing of what it owes for this long has forgotten its timer: longer than its backed-off timeouts get in a
/// schedule, short against the time that a schedule has.
const FORGOTTEN: Micros = 10 * SECOND;

/// How far a connection has sent, and what it has heard.
#[derive(Debug)]
struct Sent {
    /// Its peer, and its own port.
    to: IpEndpoint,
    from: u16,
    /// The end of what was sent in sequence space, and whether a FIN is in it.
    end: u32,
    fin: bool,
    /// The right edge of the window that the peer was told last, unless it is closed, and the window's scale.
    edge: Option<u32>,
    scale: u8,
    /// The same as the stack itself remembers it.
    known_edge: Option<u32>,
    /// The last packet of the peer that the stack looked into, and what it acknowledges.
    heard: Vec<u8>,
    acked: u32,
    /// What the peer was told last to be expected next.
    told: Option<u32>,
    /// When something unacknowledged was sent last.
    busy_at: Micros,
}

impl Sent {
    fn is(&self, to: IpEndpoint, from: u16) -> bool {
        (self.to, self.from) == (to, from)
    }
    /// Whether all of a packet was acknowledged before, as of a keep-alive: the stack does not look at what it acknowledges (RFC 9293 section
    /// 3.10.7.4: it is not acceptable).
    fn is_old(&self, p: &Packet) -> bool {
        let before = |told: u32| p.seq.wrapping_sub(told) as i32;
        self.told
            .is_some_and(|told| before(told) < 0 && before(told) + p.seq_len() as i32 <= 0)
    }
}

/// What one host's connections have sent and heard.
#[derive(Debug, Default)]
pub struct Quirks {
    sent: Vec<Sent>,
    /// What each peer's SYN has offered, by own port.
    offers: Vec<(IpEndpoint, u16, Options)>,
}

impl Quirks {
    /// smoltcp sends again at once, after three duplicate acknowledgements, a whole segment from the first byte that is not acknowledged, whatever of it
    /// was sent before, and whatever the peer's window takes of it: but RFC 9293 (section 3.8.6) wants a sender to keep to the window. So where that
    /// does not fit in there, it must not hear a duplicate (RFC 5681 section 2). `queued` are the bytes that it has to send, `most` its own largest segment.
    /// (It may still do so when it is reminded, see [`Quirks::reminders`]: nothing else would make it speak.)
    pub fn overshoots(&self, p: &Packet, queued: usize, most: usize) -> bool {
        let of = IpEndpoint::new(p.src.into(), p.sport);
        let sent = self.sent.iter().find(|s| s.is(of, p.dport));
        let offer = self.offers.iter().find(|(peer, own, _)| (*peer, *own) == (of, p.dport));
        let (Some(sent), Some((.., offer))) = (sent, offer) else {
            return false;
        };
        let same_window = || Packet::parse(&sent.heard).is_ok_and(|before| before.win == p.win);
        let under_way = sent.end.wrapping_sub(p.ack) as i32 > 0;
        let bare = p.flags == ACK && p.len == 0;
        let duplicate = bare && p.ack == sent.acked && under_way && !sent.is_old(p) && same_window();
        let segment = queued.min(most).min(offer.mss.unwrap_or(536).into());
        duplicate && usize::from(p.win) << offer.scale.unwrap_or(0) < segment
    }

    /// Whether a FIN of this connection is unacknowledged by `ack`.
    pub fn fin_is_open(&self, to: IpEndpoint, from: u16, ack: u32) -> bool {
        let unacknowledged = |s: &Sent| s.fin && s.is(to, from) && s.end.wrapping_sub(ack) as i32 > 0;
        self.sent.iter().any(unacknowledged)
    }

    /// smoltcp takes each acknowledgement in LAST-ACK that acknowledges nothing new for a duplicate and does not look at its window. So a window
    /// that closes there stays closed for ever, but RFC 9293 (section 3.10.7.4) wants it updated whatever the state. So nobody enters that state with
    /// more queued than this, its peer's window by the field, without its scale.
    pub fn room_to_close(&self, to: IpEndpoint, from: u16) -> usize {
        let sent = self.sent.iter().find(|s| s.is(to, from));
        sent.map_or(0, |s| Packet::parse(&s.heard).map_or(0, |p| p.win.into()))
    }

    /// smoltcp takes a bare acknowledgement at the right edge of its window for one beyond it. By the letter it is (RFC 9293 section 3.10.7.4), but a
    /// sender that has filled the window, and lost a segment in it, has no other number for its acknowledgements. When both sides are so far,
    /// each is deaf to the other, and a hole is mended with one segment a timeout. Other stacks take it (Linux: beyond means after the
    /// edge). So it gets the number before.
    pub fn within_window(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let Ok(p) = Packet::parse(&bytes) else { return bytes };
        let of = IpEndpoint::new(p.src.into(), p.sport);
        let sent = self.sent.iter().find(|s| s.is(of, p.dport));
        if p.flags == ACK && p.len == 0 && sent.is_some_and(|s| s.edge == Some(p.seq)) {
            let ip = if p.src.is_ipv4() { 20 } else { 40 };
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[ip..]);
            tcp.set_seq_number(TcpSeqNumber(p.seq.wrapping_sub(1) as i32));
            tcp.fill_checksum(&p.src.into(), &p.dst.into());
        }
        bytes
    }

    /// smoltcp cuts off what lies beyond its window, but takes the FIN behind it, and so the end of the stream for where it has cut (RFC 9293 section
    /// 3.10.7.4: what lies beyond is not processed). That comes to pass where its peer keeps to the window: smoltcp forgets what it has told
    /// in a keep-alive, or in a window probe, and cuts where the window was before. So such a segment loses its FIN, which will be said again.
    pub fn without_early_fin(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let Ok(p) = Packet::parse(&bytes) else { return bytes };
        let of = IpEndpoint::new(p.src.into(), p.sport);
        let edge = self.sent.iter().find(|s| s.is(of, p.dport)).and_then(|s| s.known_edge);
        let end = p.seq.wrapping_add(p.len as u32);
        if p.has(FIN) && p.len > 0 && edge.is_some_and(|edge| end.wrapping_sub(edge) as i32 > 0) {
            let ip = if p.src.is_ipv4() { 20 } else { 40 };
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[ip..]);
            tcp.set_fin(false);
            tcp.fill_checksum(&p.src.into(), &p.dst.into());
        }
        bytes
    }

    /// A packet comes in.
    pub fn note_heard(&mut self, bytes: &[u8]) {
        let Ok(p) = Packet::parse(bytes) else { return };
        let of = IpEndpoint::new(p.src.into(), p.sport);
        if p.has(SYN) {
            self.offers.retain(|(peer, port, _)| (*peer, *port) != (of, p.dport));
            self.offers.push((of, p.dport, p.options));
        }
        if p.has(SYN) && p.has(ACK) && p.options.scale.is_none() {
            // RFC 7323 section 2.2: windows are scaled only if both sides have said so.
            self.sent
                .iter_mut()
                .filter(|s| s.is(of, p.dport))
                .for_each(|s| s.scale = 0);
        }
        if p.has(RST) || p.has(SYN) || !p.has(ACK) {
            return;
        }
        if let Some(sent) = self.sent.iter_mut().find(|s| s.is(of, p.dport))
            && sent.acked.wrapping_sub(p.ack) as i32 <= 0
            && !sent.is_old(&p)
        {
            sent.acked = p.ack;
            sent.heard.clear();
            sent.heard.extend_from_slice(bytes);
        }
    }

    /// smoltcp sends keep-alives with a byte of garbage whenever no timer of retransmission runs, and where it has forgotten that timer (see
    /// [`Quirks::reminders`]) the garbage comes to lie on its FIN, which the peer may not have: there it is the next byte of the stream. RFC 9293
    /// (section 3.8.4) allows a keep-alive only while nothing is outstanding. No byte of a stream has the number of its FIN.
    fn is_instead_of_fin(&self, p: &Packet) -> bool {
        let to = IpEndpoint::new(p.dst.into(), p.dport);
        let sent = self.sent.iter().find(|s| s.is(to, p.sport));
        p.len == 1 && !p.has(FIN) && sent.is_some_and(|s| s.fin && s.end == p.seq.wrapping_add(1) && s.acked == p.seq)
    }

    /// A packet goes out. smoltcp goes back to its first unacknowledged byte after a retransmission timeout, and gives its
    /// acknowledgements that number. When both sides do so, each finds the other's acknowledgements out of its window, for ever. So an
    /// acknowledgement gets the end of what was sent, as RFC 9293 (section 3.10.7.4) wants it.
    pub fn note_sent(&mut self, now: Micros, bytes: &mut Vec<u8>) {
        let Ok(mut p) = Packet::parse(bytes) else { return };
        if p.has(RST) {
            return;
        }
        if self.is_instead_of_fin(&p) {
            *bytes = bare_ack(bytes, &p, p.seq.wrapping_add(1), p.win);
            let Ok(bare) = Packet::parse(bytes) else { return };
            p = bare;
        }
        let (to, from) = (IpEndpoint::new(p.dst.into(), p.dport), p.sport);
        let end = p.seq.wrapping_add(p.seq_len());
        let at = self.sent.iter().position(|s| s.is(to, from) && !p.has(SYN));
        let Some(sent) = at.and_then(|at| self.sent.get_mut(at)) else {
            self.sent.retain(|s| !s.is(to, from));
            self.sent.push(Sent {
                to,
                from,
                end,
                fin: p.has(FIN),
                edge: None,
                known_edge: None,
                scale: p.options.scale.unwrap_or(0),
                heard: Vec::new(),
                acked: p.seq,
                told: None,
                busy_at: now,
            });
            return;
        };
        let new = end.wrapping_sub(sent.end) as i32 > 0;
        if new {
            sent.end = end;
        } else if p.flags == ACK && p.len == 0 {
            let ip = if p.src.is_ipv4() { 20 } else { 40 };
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[ip..]);
            tcp.set_seq_number(TcpSeqNumber(sent.end as i32));
            tcp.fill_checksum(&p.src.into(), &p.dst.into());
        }
        sent.fin |= p.has(FIN);
        sent.told = Some(p.ack);
        let edge = p.ack.wrapping_add(u32::from(p.win) << sent.scale);
        sent.edge = (p.win > 0).then_some(edge);
        // A single byte may be a keep-alive or a probe.
        if p.len != 1 {
            sent.known_edge = Some(edge);
        }
        // A keep-alive (smoltcp gives it the last byte before what it would send next) carries nothing that is owed, or not what is owed first.
        let first = p.seq.wrapping_sub(sent.acked) as i32 <= 0 && end.wrapping_sub(sent.acked) as i32 > 0;
        if p.seq_len() > 0 && (new || first) {
            sent.busy_at = now;
        }
    }

    /// When [`Quirks::reminders`] should be asked again.
    pub fn next_deadline(&self) -> Option<Micros> {
        self.sent
            .iter()
            .filter(|s| !s.heard.is_empty())
            .map(|s| s.busy_at + FORGOTTEN)
            .min()
    }

    /// smoltcp forgets its retransmission timer when the peer's window closes while something is under way: the timer of the window probes
    /// takes its place, and when the window opens there is none any more. If what was under way is lost, and nothing else may be sent, it
    /// is silent for ever. The same when the timer runs out while the window is closed: nothing may be sent then, and no timer of probes begins
    /// before the peer says something new, which in a keep-alive it does not. RFC 6298 (5.1) wants a timer to run as long as something is
    /// unacknowledged, RFC 9293 (section 3.8.6.1) probes of a closed window. So it is reminded by its peer's last acknowledgement,
    /// repeated as often as makes it send again (RFC 5681 section 3.2); the first two, with another window and the same again, end
    /// the count of earlier ones, and the first lets one byte out where the window is closed.
    /// `waits` says of a connection, by peer and own port, whether it has bytes that are not acknowledged.
    pub fn reminders(&mut self, now: Micros, waits: impl Fn(IpEndpoint, u16) -> bool) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for sent in self.sent.iter_mut().filter(|s| !s.heard.is_empty()) {
            if now < sent.busy_at + FORGOTTEN {
                continue;
            }
            sent.busy_at = now;
            if !waits(sent.to, sent.from) {
                sent.heard.clear();
            } else if let Ok(p) = Packet::parse(&sent.heard) {
                let windows = [p.win ^ 1, p.win, p.win, p.win, p.win];
                let seq = sent.told.unwrap_or(p.seq.wrapping_add(p.seq_len()));
                packets.extend(windows.map(|win| bare_ack(&sent.heard, &p, seq, win)));
            }
        }
        packets
    }

    /// The host has forgotten this connection.
    pub fn forget(&mut self, to: IpEndpoint, from: u16) {
        self.sent.retain(|s| !s.is(to, from));
        self.offers.retain(|(peer, port, _)| (*peer, *port) != (to, from));
    }
}

/// The acknowledgement in a packet, alone, with another number and window.
fn bare_ack(bytes: &[u8], p: &Packet, seq: u32, win: u16) -> Vec<u8> {
    let mut ack = bytes[..p.data_at].to_vec();
    let ip = if p.src.is_ipv4() { 20 } else { 40 };
    let total = ack.len();
    if p.src.is_ipv4() {
        let mut header = smoltcp::wire::Ipv4Packet::new_unchecked(&mut ack[..]);
        header.set_total_len(total as u16);
        header.fill_checksum();
    } else {
        let mut header = smoltcp::wire::Ipv6Packet::new_unchecked(&mut ack[..]);
        header.set_payload_len((total - ip) as u16);
    }
    let mut tcp = TcpPacket::new_unchecked(&mut ack[ip..]);
    tcp.set_seq_number(TcpSeqNumber(seq as i32));
    tcp.set_fin(false);
    tcp.set_psh(p.has(PSH) && p.len == 0);
    tcp.set_window_len(win);
    tcp.fill_checksum(&p.src.into(), &p.dst.into());
    ack
}
