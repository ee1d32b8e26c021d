//! What passed a host's interface, with the kernel's time stamps: tcpdump and a reader of its files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::netns::Host;
use super::process::Process;

/// Enough of each packet for the IP and TCP headers with all options.
const SNAP_LENGTH: &str = "128";

/// A running tcpdump.
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures TCP on the host's `interface` into `<dir>/<host>-<interface>.pcap`.
    pub fn start(host: &Host, interface: &str, dir: &Path) -> Self {
        let name = format!("{}-{interface}", host.name());
        let file = dir.join(format!("{name}.pcap"));
        let mut command = host.command("tcpdump");
        command.args([
            "-i",
            interface,
            "-s",
            SNAP_LENGTH,
            "-B",
            "16384",
            "-Z",
            "root",
            "-n",
            "--nano",
            "--immediate-mode",
            "-w",
        ]);
        command.arg(&file).arg("tcp");
        let mut tcpdump = Process::start(&format!("tcpdump-{name}"), dir, &mut command);
        tcpdump.wait_for_line("listening on", Duration::from_secs(5));
        Self { tcpdump, file }
    }

    /// Captures TCP at every host of a lab into the directory that `RELEVO_PCAP` names, for people; nothing without it.
    pub fn of_all(hosts: &[&Host]) -> Vec<Self> {
        let Some(dir) = std::env::var_os("RELEVO_PCAP") else {
            return Vec::new();
        };
        let dir = Path::new(&dir).join(hosts[0].ns());
        std::fs::create_dir_all(&dir).expect("make the directory for captures");
        hosts.iter().map(|host| Self::start(host, "eth0", &dir)).collect()
    }

    /// Ends it and reads what it caught.
    pub fn stop(mut self) -> Vec<Segment> {
        self.end();
        let log = self.tcpdump.log();
        if !log.contains("\n0 packets dropped by kernel") {
            eprintln!("warning: the capture is not complete:\n{log}");
        }
        read(&std::fs::read(&self.file).expect("read the capture"))
    }

    /// Lets it write what it has caught.
    fn end(&mut self) {
        if self.tcpdump.ended().is_none() {
            self.drain();
            self.tcpdump.signal(Signal::INT);
            self.tcpdump.wait_up_to(Duration::from_secs(5));
        }
    }

    /// Waits until it has read all that the kernel has caught for it: an interrupted tcpdump leaves the rest unread. Asked by
    /// SIGUSR1, it says how much of both there is.
    fn drain(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) && self.tcpdump.ended().is_none() {
            self.tcpdump.signal(Signal::USR1);
            std::thread::sleep(Duration::from_millis(5));
            let log = self.tcpdump.log();
            let last = log.lines().rev().find(|line| line.contains("packets captured, "));
            let mut numbers = last
                .unwrap_or_default()
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|w| w.parse::<u64>().ok());
            if let (Some(read), Some(caught)) = (numbers.next(), numbers.next())
                && read >= caught
            {
                return;
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// One captured TCP segment (or super-segment: captures on veth see them whole).
#[derive(Clone, Debug)]
pub struct Segment {
    /// When it passed, since 1970.
    pub time: Duration,
    /// Time to live, or hop limit: tells who has sent it, where each host begins with a number of its own.
    pub ttl: u8,
    /// TCP source port.
    pub sport: u16,
    /// TCP destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningless without ACK.
    pub ack: u32,
    /// The flags byte (RFC 9293, 3.1).
    pub flags: u8,
    /// Bytes of payload.
    pub len: u32,
    /// The window field, unscaled.
    pub window: u16,
}

/// What machine 0's packets begin with as time to live, or hop limit; each further machine's begin ten higher. The engine's own begin with 64.
const FIRST_TTL: usize = 100;

/// The time to live, or hop limit, that a lab's machine begins with.
pub fn ttl_of(machine: usize) -> usize {
    FIRST_TTL + 10 * machine
}

/// What a time to live at the client says about the sender: a machine's number, or none if the engine itself has sent it.
pub fn sender(ttl: u8) -> Option<usize> {
    // The engine's host takes one off on the way.
    let steps = (usize::from(ttl) + 1).checked_sub(FIRST_TTL)?;
    steps.is_multiple_of(10).then_some(steps / 10)
}

/// The FIN, SYN, RST and ACK bits of [`Segment::flags`].
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Reads a pcap file of Ethernet frames with nanosecond stamps; skips what is not TCP.
fn read(file: &[u8]) -> Vec<Segment> {
    const NANOSECOND_MAGIC: u32 = 0xa1b2_3c4d;
    let word = |at: usize| {
        file.get(at..at + 4)
            .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    assert_eq!(
        word(0),
        Some(NANOSECOND_MAGIC),
        "a pcap file of this machine's byte order"
    );
    let mut segments = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(nanos), Some(kept)) = (word(at), word(at + 4), word(at + 8)) {
        let start = at + 16;
        let Some(frame) = file.get(start..start + kept as usize) else {
            break;
        };
        segments.extend(segment(frame, Duration::new(seconds.into(), nanos)));
        at = start + kept as usize;
    }
    segments
}

fn segment(frame: &[u8], time: Duration) -> Option<Segment> {
    let be16 = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let be32 = |bytes: &[u8], at: usize| Some((u32::from(be16(bytes, at)?) << 16) | u32::from(be16(bytes, at + 2)?));
    let ip = frame.get(14..)?;
    let (ttl, tcp, ip_payload) = match be16(frame, 12)? {
        0x0800 => {
            let header = usize::from(ip.first()? & 15) * 4;
            (
                *ip.get(8)?,
                ip.get(header..)?,
                usize::from(be16(ip, 2)?).checked_sub(header)?,
            )
        }
        0x86dd => (*ip.get(7)?, ip.get(40..)?, usize::from(be16(ip, 4)?)),
        _ => return None,
    };
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        time,
        ttl,
        sport: be16(tcp, 0)?,
        dport: be16(tcp, 2)?,
        seq: be32(tcp, 4)?,
        ack: be32(tcp, 8)?,
        flags: *tcp.get(13)?,
        len: u32::try_from(ip_payload.checked_sub(header)?).ok()?,
        window: be16(tcp, 14)?,
    })
}

/// The longest time in which one of a client's connections to `server_port` made no progress: from its SYN, from what it said after a
/// rest, or from the last byte or acknowledgement that was new to it, to the next such, or to the last that it said in vain; and from a window that
/// the server closes until it opens again, since a client that may not speak asks for nothing.
/// What comes after the server's FIN does not count: the client owes the rest.
pub fn longest_pause(segments: &[Segment], server_port: u16) -> Duration {
    let mut flows: HashMap<u16, Pace> = HashMap::new();
    let mut longest = Duration::ZERO;
    for segment in segments {
        let from_server = segment.sport == server_port;
        let port = if from_server { segment.dport } else { segment.sport };
        if !from_server && segment.flags & (SYN | ACK) == SYN {
            if flows.get(&port).is_none_or(|pace| pace.isn != segment.seq) {
                flows.insert(port, Pace::new(segment));
            }
            continue;
        }
        if let Some(pace) = flows.get_mut(&port) {
            longest = longest.max(if from_server {
                pace.heard(segment)
            } else {
                pace.said(segment)
            });
        }
    }
    longest
}

/// One connection's newest positions, for [`longest_pause`].
struct Pace {
    isn: u32,
    /// When the client last heard something new.
    last: Duration,
    /// When it has asked for something since.
    asked: Option<Duration>,
    /// Since when the server's window has been closed.
    shut: Option<Duration>,
    /// Next sequence number expected, and highest acknowledgement.
    newest: Option<(u32, u32)>,
    over: bool,
}

impl Pace {
    fn new(syn: &Segment) -> Self {
        Self {
            isn: syn.seq,
            last: syn.time,
            asked: None,
            shut: None,
            newest: None,
            over: false,
        }
    }

    /// From the server: the pause that it ends, if it is news.
    fn heard(&mut self, segment: &Segment) -> Duration {
        self.window(segment).max(self.news(segment))
    }

    /// How long the window had been closed that this opens, or goes on being closed.
    fn window(&mut self, segment: &Segment) -> Duration {
        if self.over || segment.flags & RST != 0 {
            return Duration::ZERO;
        }
        let shut = self.shut.or((segment.window == 0).then_some(segment.time));
        self.shut = shut.filter(|_| segment.window == 0);
        shut.map_or(Duration::ZERO, |since| segment.time.saturating_sub(since))
    }

    fn news(&mut self, segment: &Segment) -> Duration {
        let newer = |a: u32, b: u32| a.wrapping_sub(b).cast_signed() > 0;
        let end = segment.seq.wrapping_add(segment.len);
        let (seq, ack) = self.newest.unwrap_or((end.wrapping_sub(1), segment.ack));
        if self.over || segment.flags & RST != 0 || (!newer(end, seq) && !newer(segment.ack, ack)) {
            self.over |= segment.flags & (RST | FIN) != 0;
            return Duration::ZERO;
        }
        self.newest = Some((
            if newer(end, seq) { end } else { seq },
            if newer(segment.ack, ack) { segment.ack } else { ack },
        ));
        self.over = segment.flags & FIN != 0;
        let pause = segment.time.saturating_sub(self.asked.take().unwrap_or(self.last));
        self.last = segment.time;
        pause
    }

    /// From the client: how long it has been speaking in vain. Only what asks for an answer counts.
    fn said(&mut self, segment: &Segment) -> Duration {
        let fin = segment.flags & FIN != 0;
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(fin.into());
        let asks = segment.len > 0 || fin;
        if self.over || !asks || self.newest.is_none_or(|(_, ack)| ack == end) {
            return Duration::ZERO;
        }
        segment.time.saturating_sub(*self.asked.get_or_insert(segment.time))
    }
}

/// How a client's connections got over a freeze.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// For each connection that made progress before and after: from the freeze to the end of the longest pause between the frozen machine's
    /// last word, which may arrive a little after the freeze, and another's first, sorted.
    ///
    /// Progress is a byte that the client had not seen, or an acknowledgement of one that it had sent. A pause that begins later has a
    /// cause of its own, and on a busy host may well be longer than the freeze's. If no other machine ever speaks, it is the longest of all. A
    /// client's own rest is no pause: it ends when the client speaks again.
    pub resumed: Vec<Duration>,
    /// Connections that were open at the freeze and have not gone on.
    pub stuck: usize,
}

impl Recovery {
    /// Looks at a client's capture, when machine number `old` was frozen. Pauses that begin later than `window` after that are not the freeze's
    /// either.
    pub fn of(segments: &[Segment], server_port: u16, freeze: SystemTime, old: usize, window: Duration) -> Self {
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let (freeze, now) = (since_1970(freeze), since_1970(SystemTime::now()));
        let mut flows: HashMap<u16, FlowProgress> = HashMap::new();
        for segment in segments.iter().filter(|s| s.flags & (SYN | RST) == 0) {
            if segment.sport == server_port {
                flows
                    .entry(segment.dport)
                    .or_default()
                    .note(segment, freeze, old, window);
            } else {
                flows.entry(segment.sport).or_default().said(segment);
            }
        }
        let mut recovery = Self::default();
        for flow in flows.values() {
            let Some((_, _, last)) = flow.newest else { continue };
            let pause = flow.longest.map_or(Duration::ZERO, |(pause, _)| pause);
            if !flow.closed && now.saturating_sub(last) > pause.max(window) {
                recovery.stuck += 1;
            } else if let Some((_, end)) = flow.longest {
                recovery.resumed.push(end.saturating_sub(freeze));
            }
        }
        recovery.resumed.sort();
        recovery
    }

    /// The worst connection's.
    pub fn worst(&self) -> Option<Duration> {
        self.resumed.last().copied()
    }
    /// The middle connection's.
    pub fn median(&self) -> Option<Duration> {
        self.resumed.get(self.resumed.len() / 2).copied()
    }
}

/// Whether it shows that the connection has a new original: another machine says something, or the engine a word by itself, which is another
/// machine's out of its cache. Its acknowledgements are everyday.
fn is_of_another(segment: &Segment, old: usize) -> bool {
    sender(segment.ttl).map_or(segment.len > 0, |machine| machine != old)
}

/// One connection's newest positions and longest pause.
#[derive(Default)]
struct FlowProgress {
    /// Next sequence number expected, highest acknowledgement, and when either last moved.
    newest: Option<(u32, u32, Duration)>,
    /// When the client has asked for something since.
    asked: Option<Duration>,
    /// Length of the longest pause that ended after the freeze, and its end.
    longest: Option<(Duration, Duration)>,
    /// The same since the frozen machine's last word.
    silence: Option<(Duration, Duration)>,
    /// Another machine than the frozen one has spoken.
    moved: bool,
    /// A FIN has passed in either direction.
    closed: bool,
}

impl FlowProgress {
    fn said(&mut self, segment: &Segment) {
        let fin = segment.flags & FIN != 0;
        self.closed |= fin;
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(fin.into());
        if (segment.len > 0 || fin) && self.newest.is_some_and(|(_, ack, _)| ack != end) {
            self.asked.get_or_insert(segment.time);
        }
    }

    fn note(&mut self, segment: &Segment, freeze: Duration, old: usize, window: Duration) {
        let fin = segment.flags & FIN != 0;
        self.closed |= fin;
        let end = segment.seq.wrapping_add(segment.len).wrapping_add(fin.into());
        let Some((seq, ack, last)) = self.newest else {
            self.newest = Some((end, segment.ack, segment.time));
            return;
        };
        let newer = |a: u32, b: u32| a.wrapping_sub(b).cast_signed() > 0;
        if !newer(end, seq) && !newer(segment.ack, ack) {
            return;
        }
        let since = self.asked.take().unwrap_or(last);
        let pause = segment.time.saturating_sub(since);
        if segment.time > freeze && since < freeze + window && !self.moved {
            let unless_longer = |known: Option<(Duration, Duration)>| known.filter(|(known, _)| pause <= *known);
            self.longest = unless_longer(self.longest).or(Some((pause, segment.time)));
            self.silence = unless_longer(self.silence).or(Some((pause, segment.time)));
            if sender(segment.ttl) == Some(old) {
                self.silence = None;
            } else if is_of_another(segment, old) {
                (self.longest, self.moved) = (self.silence, true);
            }
        }
        self.newest = Some((
            if newer(end, seq) { end } else { seq },
            if newer(segment.ack, ack) { segment.ack } else { ack },
            segment.time,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 80;
    const MS: Duration = Duration::from_millis(1);

    /// The client, 100 bytes or none, or its FIN.
    fn client(at: u32, flags: u8, (seq, ack): (u32, u32), len: u32) -> Segment {
        let (time, window) = (at * MS, 100);
        Segment {
            time,
            sport: 5_000,
            dport: PORT,
            seq,
            ack,
            flags,
            len,
            window,
            ttl: 64,
        }
    }

    /// The server, machine 0, likewise, with a window.
    fn server(at: u32, flags: u8, place: (u32, u32), len: u32, window: u16) -> Segment {
        Segment {
            sport: PORT,
            dport: 5_000,
            window,
            ttl: 99,
            ..client(at, flags, place, len)
        }
    }

    /// Handshake, a request, its answer within 7 ms, all acknowledged; then the client rests until 500 ms and closes.
    fn a_client_that_rests() -> Vec<Segment> {
        vec![
            client(0, SYN, (0, 0), 0),
            server(1, SYN | ACK, (0, 1), 0, 100),
            client(2, ACK, (1, 1), 100),
            server(3, ACK, (1, 101), 0, 100),
            server(10, ACK, (1, 101), 50, 100),
            client(11, ACK, (101, 51), 0),
            client(500, FIN | ACK, (101, 51), 0),
            server(504, FIN | ACK, (51, 102), 0, 100),
        ]
    }

    #[test]
    fn a_clients_own_rest_is_no_pause() {
        let story = a_client_that_rests();
        assert_eq!(longest_pause(&story, PORT), 7 * MS);
        let freeze = UNIX_EPOCH + 9 * MS;
        let recovery = Recovery::of(&story, PORT, freeze, 0, Duration::from_secs(1));
        assert_eq!(
            (recovery.worst(), recovery.stuck),
            (Some(MS), 0),
            "the answer ended the wait"
        );
    }

    #[test]
    fn a_wait_for_an_answer_is_a_pause_to_its_end() {
        let mut story = a_client_that_rests();
        story[4].time = 300 * MS;
        let recovery = Recovery::of(&story, PORT, UNIX_EPOCH + 9 * MS, 0, Duration::from_secs(1));
        assert_eq!(recovery.worst(), Some(291 * MS));
        assert_eq!(longest_pause(&story, PORT), 297 * MS);
    }

    #[test]
    fn what_comes_after_another_machine_has_spoken_is_not_the_freezes() {
        let by = |ttl: u8, segment: Segment| Segment { ttl, ..segment };
        let mut story = a_client_that_rests();
        story.truncate(4);
        story.extend([
            // The frozen machine's last word is still on its way; the engine acknowledges on behalf of the slower replica.
            server(12, ACK, (1, 101), 50, 100),
            client(13, ACK, (101, 51), 100),
            by(64, server(14, ACK, (51, 201), 0, 100)),
            by(64, server(30, ACK, (51, 201), 50, 100)),
            // A pause of its own, longer than the freeze's.
            client(31, ACK, (201, 101), 100),
            by(109, server(170, ACK, (101, 301), 50, 100)),
            client(171, FIN | ACK, (301, 151), 0),
        ]);
        let of = |story: &[Segment]| Recovery::of(story, PORT, UNIX_EPOCH + 11 * MS, 0, Duration::from_secs(1));
        assert_eq!(of(&story).worst(), Some(19 * MS), "its word out of the engine's cache");
        for segment in story.iter_mut().filter(|s| s.ttl == 64 && s.sport == PORT) {
            segment.ttl = 109;
        }
        assert_eq!(of(&story).worst(), Some(3 * MS), "the successor's own");
        for segment in story.iter_mut().filter(|s| s.sport == PORT) {
            segment.ttl = 99;
        }
        assert_eq!(of(&story).worst(), Some(159 * MS), "nobody else ever spoke");
    }

    #[test]
    fn senders_are_told_by_their_time_to_live() {
        let ttls = [64, 98, 99, 109, 110, 129].map(sender);
        assert_eq!(ttls, [None, None, Some(0), Some(1), None, Some(3)]);
    }

    #[test]
    fn a_closed_window_is_a_wait() {
        let mut story = a_client_that_rests();
        story.splice(
            4..,
            [
                server(5, ACK, (1, 101), 0, 0),
                client(205, ACK, (100, 1), 0),
                server(206, ACK, (1, 101), 0, 0),
                server(1_005, ACK, (1, 101), 0, 100),
                client(1_006, ACK, (101, 1), 100),
                server(1_007, ACK, (1, 201), 0, 100),
            ],
        );
        assert_eq!(longest_pause(&story, PORT), 1_000 * MS);
    }
}
