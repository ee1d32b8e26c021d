//! The application: a server whose output is a function of its input alone, and clients that know what to expect.

use std::collections::VecDeque;
use std::rc::Rc;

use relevo::engine::Micros;
use smoltcp::socket::tcp;

use crate::rng::mix;

/// Bytes of a record's header on the wire: flow (u16), flags (u16), upload, reply and trailer lengths (u32 each).
pub const HEADER: usize = 16;
const ECHO: u16 = 1;
const CLOSE: u16 = 2;

/// One request of a dialogue.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Bytes that the client sends after the header.
    pub upload: u32,
    /// Bytes that the server sends when it has read them all.
    pub reply: u32,
    /// Each uploaded byte comes back, changed, as soon as it was read.
    pub echo: bool,
    /// The client first reads everything that its earlier requests are answered with.
    pub wait: bool,
    /// The client's pause before this request in microseconds.
    pub think: Micros,
}

/// Who ends a dialogue, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's FIN follows its last byte; the server answers what is left, its trailer, then its own FIN.
    HalfClose,
    /// The client reads all replies, then closes; the server sends its trailer after that.
    ClientCloses,
    /// The server closes after its last reply, the client after the server's FIN.
    ServerCloses,
    /// The client resets the connection when it has read this many bytes.
    Abort(u32),
}

/// What a client wants from the service.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// Bytes that the server sends after it has read the client's end of file.
    pub trailer: u32,
    pub records: Vec<Record>,
    pub ending: Ending,
}

/// A point of the client's stream that it does not pass before it has read `need` bytes and then paused.
#[derive(Clone, Copy, Debug)]
struct Gate {
    at: usize,
    need: usize,
    think: Micros,
}

/// A dialogue worked out: both streams byte by byte.
#[derive(Debug)]
pub struct Script {
    /// What the client sends.
    pub up: Vec<u8>,
    /// What the client must read: the run of one server.
    pub down: Vec<u8>,
    gates: Vec<Gate>,
    /// Bytes of `down` that come before the client's end of file.
    before_eof: usize,
    pub ending: Ending,
}

fn fill(out: &mut Vec<u8>, seed: u64, len: usize) {
    let end = out.len() + len;
    let mut block = 0;
    while out.len() < end {
        let word = mix(seed.wrapping_add(block)).to_be_bytes();
        out.extend_from_slice(&word[..word.len().min(end - out.len())]);
        block += 1;
    }
}

impl Script {
    /// Runs the server program over the whole client stream, without a network.
    pub fn new(seed: u64, flow: u16, greeting: u32, dialogue: &Dialogue) -> Self {
        let (mut up, mut gates) = (Vec::new(), Vec::new());
        let mut program = Program::new(greeting);
        for (i, r) in dialogue.records.iter().enumerate() {
            if r.wait || r.think > 0 {
                gates.push(Gate {
                    at: up.len(),
                    need: if r.wait { program.out.len() } else { 0 },
                    think: r.think,
                });
            }
            let start = up.len();
            let last = i + 1 == dialogue.records.len();
            let mut flags = if r.echo { ECHO } else { 0 };
            if last && dialogue.ending == Ending::ServerCloses {
                flags |= CLOSE;
            }
            up.extend_from_slice(&flow.to_be_bytes());
            up.extend_from_slice(&flags.to_be_bytes());
            for field in [r.upload, r.reply, dialogue.trailer] {
                up.extend_from_slice(&field.to_be_bytes());
            }
            fill(&mut up, mix(seed ^ u64::from(flow) << 32 ^ i as u64), r.upload as usize);
            program.feed(&up[start..]);
        }
        let before_eof = program.out.len();
        program.eof();
        Self {
            up,
            down: program.out,
            gates,
            before_eof,
            ending: dialogue.ending,
        }
    }
}

/// The server: records in, bytes out.
#[derive(Debug)]
pub struct Program {
    out: Vec<u8>,
    header: Vec<u8>,
    left: u32,
    reply: u32,
    trailer: u32,
    flags: u16,
    digest: u64,
    closed: bool,
}

impl Program {
    fn new(greeting: u32) -> Self {
        let mut out = Vec::new();
        fill(&mut out, 1, greeting as usize);
        Self {
            out,
            header: Vec::new(),
            left: 0,
            reply: 0,
            trailer: 0,
            flags: 0,
            digest: 0,
            closed: false,
        }
    }

    fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() && !self.closed {
            if self.left == 0 {
                let take = input.len().min(HEADER - self.header.len());
                self.header.extend_from_slice(&input[..take]);
                input = &input[take..];
                if self.header.len() < HEADER {
                    return;
                }
                let word = |at: usize| u32::from_be_bytes(self.header[at..at + 4].try_into().expect("four bytes"));
                self.flags = u16::from_be_bytes([self.header[2], self.header[3]]);
                (self.left, self.reply, self.trailer) = (word(4), word(8), word(12));
                self.header.clear();
            } else {
                let take = input.len().min(self.left as usize);
                for b in &input[..take] {
                    self.digest = self.digest.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*b);
                    if self.flags & ECHO != 0 {
                        self.out.push(*b ^ 0x55);
                    }
                }
                input = &input[take..];
                self.left -= take as u32;
            }
            if self.left == 0 && self.header.is_empty() {
                fill(&mut self.out, mix(self.digest), self.reply as usize);
                self.closed = self.flags & CLOSE != 0;
            }
        }
    }

    fn eof(&mut self) {
        if !self.closed {
            fill(&mut self.out, mix(!self.digest), self.trailer as usize);
            self.closed = true;
        }
    }
}

/// A service whose output differs by a byte (R17).
#[derive(Clone, Copy, Debug)]
pub struct Odd {
    /// Bytes of output before it.
    pub at: usize,
    pub what: Oddity,
}

/// By which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    Other,
    /// It is left out.
    Shorter,
    /// It comes twice.
    Longer,
}

/// How fast an application reads and answers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Reads at most this many bytes at a time ...
    pub chunk: usize,
    /// ... this often, in microseconds; 0 reads all there is at once.
    pub every: Micros,
    /// Between a request read and its reply written.
    pub think: Micros,
}

impl Pace {
    pub const FAST: Self = Self {
        chunk: usize::MAX,
        every: 0,
        think: 0,
    };
}

/// Reads what the pace allows; true if anything was read.
fn read_paced(
    socket: &mut tcp::Socket<'_>,
    now: Micros,
    pace: &Pace,
    next_read: &mut Micros,
    mut take: impl FnMut(&[u8]),
) -> bool {
    if !socket.can_recv() || (now < *next_read && socket.state() != tcp::State::TimeWait) {
        return false;
    }
    // The end of TIME-WAIT would take from a slow reader what it has not read.
    let hurry = socket.state() == tcp::State::TimeWait;
    let mut left = if hurry { usize::MAX } else { pace.chunk };
    while left > 0 && socket.can_recv() {
        let read = socket.recv(|bytes| {
            let n = bytes.len().min(left);
            take(&bytes[..n]);
            (n, n)
        });
        left -= read.unwrap_or(left);
    }
    *next_read = now + pace.every;
    true
}

/// The far end's orderly end of file, all data read.
fn at_eof(socket: &mut tcp::Socket<'_>) -> bool {
    matches!(socket.recv(|_| (0, ())), Err(tcp::RecvError::Finished))
}

/// One accepted connection of the service.
#[derive(Debug)]
pub struct ServerApp {
    program: Program,
    pace: Pace,
    odd: Option<Odd>,
    releases: VecDeque<(Micros, usize)>,
    planned: usize,
    written: usize,
    next_read: Micros,
    scripts: Rc<Vec<Script>>,
    flow_bytes: Vec<u8>,
    /// Bytes of the client's stream read so far.
    pub read: usize,
    /// The client's end of file was read.
    pub eof: bool,
    /// So much may be queued when its stack is told that it says no more.
    pub room_to_close: usize,
    closed: bool,
}

impl ServerApp {
    pub fn new(greeting: u32, pace: Pace, odd: Option<Odd>, scripts: Rc<Vec<Script>>) -> Self {
        Self {
            program: Program::new(greeting),
            pace,
            odd,
            releases: VecDeque::new(),
            planned: 0,
            written: 0,
            next_read: 0,
            scripts,
            flow_bytes: Vec::new(),
            read: 0,
            eof: false,
            room_to_close: usize::MAX,
            closed: false,
        }
    }

    /// Which flow this is, as its first two bytes say.
    pub fn flow(&self) -> Option<usize> {
        self.flow_bytes
            .get(..2)
            .map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))
    }

    /// Reads and writes what it can; true if it did anything. An error is a byte that the client never sent (I2).
    pub fn step(&mut self, now: Micros, socket: &mut tcp::Socket<'_>) -> Result<bool, String> {
        let mut fresh = Vec::new();
        let mut busy = read_paced(socket, now, &self.pace, &mut self.next_read, |b| {
            fresh.extend_from_slice(b)
        });
        if busy {
            self.take_in(&fresh)?;
        }
        if !self.eof && at_eof(socket) {
            self.eof = true;
            self.program.eof();
            busy = true;
        }
        self.be_odd();
        if self.program.out.len() > self.planned {
            self.planned = self.program.out.len();
            let ready = self.releases.back().map_or(0, |r| r.0).max(now + self.pace.think);
            self.releases.push_back((ready, self.planned));
        }
        while let Some(&(ready, upto)) = self.releases.front() {
            if ready > now || !socket.can_send() {
                return Ok(busy);
            }
            let sent = socket.send_slice(&self.program.out[self.written..upto]).unwrap_or(0);
            self.written += sent;
            busy |= sent > 0;
            if self.written < upto {
                return Ok(busy);
            }
            self.releases.pop_front();
        }
        if self.program.closed && !self.closed && socket.send_queue() <= self.room_to_close {
            self.closed = true;
            socket.close();
            busy = true;
        }
        Ok(busy)
    }

    /// Nothing of the byte in question has been written yet: it is changed as soon as it is there.
    fn be_odd(&mut self) {
        let Some(odd) = self.odd.filter(|odd| odd.at < self.program.out.len()) else {
            return;
        };
        self.odd = None;
        match odd.what {
            Oddity::Other => self.program.out[odd.at] ^= 1,
            Oddity::Shorter => {
                self.program.out.remove(odd.at);
            }
            Oddity::Longer => self.program.out.insert(odd.at, !self.program.out[odd.at]),
        }
    }

    fn take_in(&mut self, fresh: &[u8]) -> Result<(), String> {
        self.flow_bytes
            .extend(fresh.iter().take(2_usize.saturating_sub(self.flow_bytes.len())));
        if let Some(flow) = self.flow() {
            // The first byte, should it have come alone, is part of the flow's number and so already compared.
            let expected = self
                .scripts
                .get(flow)
                .and_then(|s| s.up.get(self.read..self.read + fresh.len()));
            if expected != Some(fresh) {
                return Err(format!(
                    "flow {flow}: {} bytes at {} are not the client's",
                    fresh.len(),
                    self.read
                ));
            }
        }
        self.read += fresh.len();
        self.program.feed(fresh);
        Ok(())
    }

    /// When it wants to be run again without a packet.
    pub fn next_deadline(&self, socket: &tcp::Socket<'_>, now: Micros) -> Option<Micros> {
        let write = self.releases.front().map(|r| r.0).filter(|at| *at > now);
        let read = Some(self.next_read).filter(|at| *at > now && socket.can_recv());
        write.into_iter().chain(read).min()
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct ClientApp {
    scripts: Rc<Vec<Script>>,
    pub flow: usize,
    pace: Pace,
    pub written: usize,
    pub read: usize,
    gate: usize,
    gate_opens: Option<Micros>,
    next_read: Micros,
    eof: bool,
    closed: bool,
    pub aborted: bool,
    /// All that it wanted has happened.
    pub done: bool,
}

impl ClientApp {
    pub fn new(scripts: Rc<Vec<Script>>, flow: usize, pace: Pace) -> Self {
        Self {
            scripts,
            flow,
            pace,
            written: 0,
            read: 0,
            gate: 0,
            gate_opens: None,
            next_read: 0,
            eof: false,
            closed: false,
            aborted: false,
            done: false,
        }
    }

    /// Reads and writes what it can; true if it did anything. An error is what an application would see go wrong (I1).
    pub fn step(&mut self, now: Micros, socket: &mut tcp::Socket<'_>) -> Result<bool, String> {
        let result = self.try_step(now, socket);
        self.done |= result.is_err();
        result
    }

    fn try_step(&mut self, now: Micros, socket: &mut tcp::Socket<'_>) -> Result<bool, String> {
        use tcp::State::{Closed, SynSent, TimeWait};
        if self.done || socket.state() == SynSent {
            return Ok(false);
        }
        let scripts = Rc::clone(&self.scripts);
        let script = &scripts[self.flow];
        let mut wrong = None;
        let (read, flow) = (&mut self.read, self.flow);
        let mut busy = read_paced(socket, now, &self.pace, &mut self.next_read, |b| {
            if script.down.get(*read..*read + b.len()) != Some(b) {
                wrong.get_or_insert(format!(
                    "flow {flow}: {} bytes at {} are not the service's",
                    b.len(),
                    *read
                ));
            }
            *read += b.len();
        });
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if let Ending::Abort(after) = script.ending
            && self.read >= (after as usize).min(script.before_eof)
            && self.written > 0
        {
            socket.abort();
            (self.aborted, self.done) = (true, true);
            return Ok(true);
        }
        if !self.eof && at_eof(socket) {
            if self.read != script.down.len() {
                return Err(format!(
                    "flow {flow}: end of file after {} of {} bytes",
                    self.read,
                    script.down.len()
                ));
            }
            self.eof = true;
            busy = true;
        }
        busy |= self.write(now, socket, script);
        let may_close = match script.ending {
            Ending::HalfClose => true,
            Ending::ClientCloses => self.read >= script.before_eof,
            Ending::ServerCloses => self.eof,
            Ending::Abort(_) => false,
        };
        if may_close && !self.closed && self.written == script.up.len() {
            self.closed = true;
            socket.close();
            busy = true;
        }
        if matches!(socket.state(), Closed | TimeWait) && self.eof && self.closed {
            self.done = true;
        } else if socket.state() == Closed && !socket.can_recv() && !busy {
            return Err(format!(
                "flow {flow}: reset after {} of {} bytes",
                self.read,
                script.down.len()
            ));
        }
        Ok(busy)
    }

    fn write(&mut self, now: Micros, socket: &mut tcp::Socket<'_>, script: &Script) -> bool {
        let mut busy = false;
        loop {
            let gate = script.gates.get(self.gate);
            if let Some(gate) = gate
                && gate.at == self.written
            {
                if self.read < gate.need {
                    return busy;
                }
                if now < *self.gate_opens.get_or_insert(now + gate.think) {
                    return busy;
                }
                (self.gate, self.gate_opens) = (self.gate + 1, None);
                continue;
            }
            let upto = gate.map_or(script.up.len(), |g| g.at);
            if self.written >= upto || !socket.can_send() {
                return busy;
            }
            let sent = socket.send_slice(&script.up[self.written..upto]).unwrap_or(0);
            if sent == 0 {
                return busy;
            }
            self.written += sent;
            busy = true;
        }
    }

    /// When it wants to be run again without a packet.
    pub fn next_deadline(&self, socket: &tcp::Socket<'_>, now: Micros) -> Option<Micros> {
        let gate = self.gate_opens.filter(|at| *at > now);
        let read = Some(self.next_read).filter(|at| *at > now && socket.can_recv());
        gate.into_iter().chain(read).min()
    }
}
