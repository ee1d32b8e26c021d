//! What the client saw of a death, out of the capture of its interface, by the kernel's time stamps.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::lab::capture::{RST, Segment, sender};
use crate::stage::{Death, PORT};

/// What a death did to the clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// The first byte that is not the old original's, since 1970.
    pub first: Duration,
    /// From the old original's last byte to the first that is not its own: of any connection.
    pub gap: Duration,
    /// How much of that had passed when the first request was asked that the old original did not answer: until then nobody waited.
    pub unasked: Duration,
    /// The longest that a request has waited for its answer, of those that had been asked before that first byte and were answered after the old
    /// original's last.
    pub longest_wait: Duration,
    /// Requests of that kind.
    pub waited: usize,
    /// The longest wait of all requests that were under way at the old original's last byte, or were asked after it and before the next death.
    pub worst_wait: Duration,
}

/// Looks at a death, and what followed `until` the next. `None` if the clients were never answered by anybody else, or not at all before.
pub fn of(segments: &[Segment], death: &Death, until: Option<SystemTime>) -> Option<Sight> {
    let struck = since_1970(death.struck);
    let until = until.map_or(Duration::MAX, since_1970);
    let (last, first) = gap(segments, death.old, struck)?;
    // The request that each connection waits on: where it ends, and when it was first said. One that is said again, answered or not, is no
    // new one; a new one means that the last was answered, whatever the capture has missed.
    let mut asked: HashMap<u16, (u32, Option<Duration>)> = HashMap::new();
    let (mut waits, mut asked_at, mut worst_wait) = (Vec::new(), first, Duration::ZERO);
    for segment in segments.iter().filter(|s| s.len > 0) {
        if segment.dport == PORT {
            let end = segment.seq.wrapping_add(segment.len);
            let last = asked.entry(segment.sport).or_insert((segment.seq, None));
            if end.wrapping_sub(last.0).cast_signed() > 0 {
                *last = (end, Some(segment.time));
            }
        } else if let Some(since) = asked.get_mut(&segment.dport).and_then(|(_, since)| since.take())
            && segment.time > last
            && since < until
        {
            let wait = segment.time.saturating_sub(since);
            worst_wait = worst_wait.max(wait);
            asked_at = asked_at.min(since);
            if since < first && segment.time >= first {
                waits.push(wait);
            }
        }
    }
    Some(Sight {
        first,
        gap: first.saturating_sub(last),
        unasked: asked_at.saturating_sub(last),
        worst_wait,
        longest_wait: waits.iter().max().copied().unwrap_or_default(),
        waited: waits.len(),
    })
}

/// RSTs that reached clients which had reset the connection themselves before.
pub fn late_resets(segments: &[Segment]) -> u64 {
    let mut left = HashSet::new();
    let mut late = 0;
    for segment in segments.iter().filter(|s| s.flags & RST != 0) {
        if segment.dport == PORT {
            left.insert(segment.sport);
        } else {
            late += u64::from(left.contains(&segment.dport));
        }
    }
    late
}

/// What went before each RST that reached a client, in its connection, and how long after `began` it was.
pub fn resets(client: &[Segment], began: SystemTime) -> String {
    let mut text = String::new();
    let began = since_1970(began);
    for (i, rst) in client.iter().enumerate() {
        if rst.sport != PORT || rst.flags & RST == 0 {
            continue;
        }
        let of_it = |s: &&Segment| s.sport == rst.dport || s.dport == rst.dport;
        let story: Vec<&Segment> = client[..=i].iter().filter(of_it).collect();
        for s in &story[story.len().saturating_sub(12)..] {
            let after = s.time.as_secs_f64() - began.as_secs_f64();
            let _ = writeln!(
                text,
                "{:.6} s: {} > {} flags {:#04x} seq {} ack {} len {} ttl {}",
                after, s.sport, s.dport, s.flags, s.seq, s.ack, s.len, s.ttl
            );
        }
    }
    text
}

/// When the old original's last byte came, and the next of anybody else in a connection that was the old original's.
pub fn gap(segments: &[Segment], old: usize, struck: Duration) -> Option<(Duration, Duration)> {
    // Nobody lives on for longer than that unnoticed; what the machine says when it is mended is the fence's matter.
    let end = struck + Duration::from_secs(4);
    let begin = struck.saturating_sub(Duration::from_secs(4));
    let answers = || {
        segments
            .iter()
            .filter(|s| s.sport == PORT && s.len > 0 && s.time > begin && s.time < end)
    };
    let last = answers().filter(|s| sender(s.ttl) == Some(old)).map(|s| s.time).max()?;
    // Each flow chooses its successor (R16): others than the service's original may have served some before.
    let mut served = HashMap::new();
    for segment in answers().filter(|s| s.time <= struck) {
        served.insert(segment.dport, sender(segment.ttl));
    }
    let was_old_s = |s: &&Segment| served.get(&s.dport).is_none_or(|by| by.is_none_or(|by| by == old));
    let first = answers()
        .filter(was_old_s)
        .filter(|s| sender(s.ttl) != Some(old) && s.time > struck)
        .map(|s| s.time)
        .min()?;
    Some((last, first))
}

/// The first packet at the client since the takeover was `decided`, with or without a byte, that is not the old original's; no later than the `first`
/// byte. Where there are several connections it may be what the engine says of itself in another.
pub fn redirected(segments: &[Segment], old: usize, decided: Duration, first: Duration) -> Option<Duration> {
    let since = |s: &&Segment| s.sport == PORT && (decided..=first).contains(&s.time);
    let packets = segments.iter().filter(since);
    packets.filter(|s| sender(s.ttl) != Some(old)).map(|s| s.time).min()
}

/// A time as captures have it.
pub fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
