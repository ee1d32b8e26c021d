//! One end of one connection as this side of the table remembers it, and what may be said to it.

use arbitrary::{Result, Unstructured};
use relevo::wire::{Flags, Options, Parsed, SackBlocks, Segment, Seq, Timestamps};
use std::net::SocketAddr;

/// What payloads are cut from.
static TEXT: [u8; 4_096] = [b'r'; 4_096];

/// A speaker: a client towards the PSC, or a machine towards the peer that it sees.
#[derive(Clone, Debug)]
pub struct End {
    pub own: SocketAddr,
    pub peer: SocketAddr,
    /// What it would say next, and what it expects.
    next: Seq,
    expected: Seq,
    /// The ends of all that it has said and that was not refused, and the TSvals on it.
    said: Vec<Seq>,
    clocks: Vec<u32>,
    /// The peer's latest TSval.
    echo: u32,
    /// The highest acknowledgement and TSval that it was told.
    told: Option<(Seq, Option<u32>)>,
    /// It has heard a SYN: before that, a client may hear of a machine's old connection (RFC 9293 section 3.5.1).
    answered: bool,
}

impl End {
    pub fn new(own: SocketAddr, peer: SocketAddr, isn: Seq) -> Self {
        Self {
            own,
            peer,
            next: isn,
            expected: Seq(0),
            said: vec![],
            clocks: vec![],
            echo: 0,
            told: None,
            answered: false,
        }
    }

    /// A new connection: what was before no longer counts.
    pub fn begin_anew(&mut self) {
        self.said.clear();
        self.clocks.clear();
        self.told = None;
        self.answered = false;
    }

    pub fn set_next(&mut self, seq: Seq) {
        self.next = seq;
    }

    /// Chooses a segment: what a TCP would say next, or something beside it. Returns its bytes.
    pub fn say(&mut self, u: &mut Unstructured<'_>, flags: Flags, timestamps: bool, now: u64) -> Result<Vec<u8>> {
        let shape: u8 = u.arbitrary()?;
        let mut seq = self.next;
        let mut ack = self.expected;
        if shape & 3 == 3 {
            seq = seq.add(offset(u)?);
            ack = ack.add(offset(u)?);
        }
        let len = match shape >> 2 & 7 {
            0..4 => 0,
            4 => 1,
            5 => usize::from(u.arbitrary::<u8>()?),
            6 => 1_400,
            _ => usize::from(u.arbitrary::<u16>()?) % TEXT.len(),
        };
        let window = if shape & 0x20 == 0 { 2_000 } else { u.arbitrary()? };
        let options = self.options(u, flags, timestamps, shape, now)?;
        let segment = Segment {
            src: self.own,
            dst: self.peer,
            seq,
            ack,
            flags,
            window,
            urgent: if flags.contains(Flags::URG) { u.arbitrary()? } else { 0 },
            options,
            payload: (&TEXT[..len], &[]),
        };
        let mut bytes = vec![0; segment.len()];
        assert!(segment.write(&mut bytes));
        if shape & 3 != 3 {
            self.next = end_of(&Parsed::parse(&bytes).expect("what is built parses"));
        }
        Ok(bytes)
    }

    fn options(
        &self,
        u: &mut Unstructured<'_>,
        flags: Flags,
        timestamps: bool,
        shape: u8,
        now: u64,
    ) -> Result<Options> {
        let mut options = Options::default();
        let syn = flags.contains(Flags::SYN);
        if timestamps {
            let wild = shape & 0x80 != 0 && !syn;
            let clock = u32::try_from(now / 1_000 % (1 << 32))
                .expect("below 2^32")
                .wrapping_sub(1_000);
            options.timestamps = Some(Timestamps {
                val: clock.wrapping_add(if wild { offset(u)? } else { 0 }),
                ecr: self.echo.wrapping_add(if wild { offset(u)? } else { 0 }),
            });
        }
        if syn {
            options.mss = Some(1_460);
            options.wscale = (shape & 0x40 == 0).then_some(u.arbitrary::<u8>()? % 16);
            options.sack_permitted = shape & 0x80 == 0;
        } else if shape & 0x40 != 0 {
            let mut sack = SackBlocks::default();
            for _ in 0..u.int_in_range(1..=3)? {
                let left = self.expected.add(offset(u)?);
                sack.push(left, left.add(offset(u)?));
            }
            options.sack = sack;
        }
        Ok(options)
    }

    /// Notes what was said, unless it was refused: then nobody may act on it.
    pub fn has_said(&mut self, p: &Parsed) {
        self.said.push(end_of(p));
        self.clocks.extend(p.options.timestamps.map(|t| t.val));
    }

    /// Asserts that what it is told can be, and remembers it.
    pub fn hears(&mut self, p: &Parsed, is_client: bool) {
        if p.flags.contains(Flags::RST) {
            return;
        }
        let end = end_of(p);
        if p.flags.contains(Flags::SYN) || end.ge(self.expected) {
            self.expected = end;
        }
        if let Some(t) = p.options.timestamps {
            self.echo = t.val;
        }
        self.answered |= p.flags.contains(Flags::SYN);
        if !p.flags.contains(Flags::ACK) || !self.answered {
            return;
        }
        // I3, I4: nobody is told an acknowledgement for what it has not sent.
        assert!(
            self.said.iter().any(|said| p.ack.le(*said)),
            "ack beyond what was sent: {p:?} to {self:?}"
        );
        if let Some(t) = p.options.timestamps.filter(|_| !is_client) {
            // Section 4: no echo of what the machine has not sent.
            let known = self.clocks.iter().any(|sent| sent.wrapping_sub(t.ecr) < 1 << 31);
            assert!(known || t.ecr == 0, "echo of the future: {p:?} to {self:?}");
        }
        // I5: neither acknowledgement nor clock runs backwards.
        let val = p.options.timestamps.map(|t| t.val);
        // A repeated SYN/ACK acknowledges the SYN again, as the machine sent it.
        if let Some((ack, clock)) = self.told {
            assert!(
                p.ack.ge(ack) || p.flags.contains(Flags::SYN),
                "ack runs backwards: {p:?} to {self:?}"
            );
            if let (Some(before), Some(val)) = (clock, val) {
                let forward = val.wrapping_sub(before) < 1 << 31;
                assert!(forward || !is_client, "TSval runs backwards: {p:?} to {self:?}");
            }
        }
        if is_client {
            let before = self.told.unwrap_or((p.ack, None));
            let ack = if p.ack.ge(before.0) { p.ack } else { before.0 };
            self.told = Some((ack, val.or(before.1)));
        }
    }
}

/// Where a segment ends in sequence space.
fn end_of(p: &Parsed) -> Seq {
    p.seq.add(p.seq_len())
}

/// How far beside: mostly a little, seldom anywhere.
fn offset(u: &mut Unstructured<'_>) -> Result<u32> {
    let near = |n: i32| n.cast_unsigned();
    Ok(match u.arbitrary::<u8>()? % 8 {
        0 | 1 => 0,
        2..5 => near(i32::from(u.arbitrary::<i8>()?)),
        5 | 6 => near(i32::from(u.arbitrary::<i16>()?)),
        _ => u.arbitrary()?,
    })
}
