//! Dialogues worked out: what a client says, and what a server whose output is a function of its input alone answers.

use relevo::engine::Micros;

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
pub struct Gate {
    pub at: usize,
    pub need: usize,
    pub think: Micros,
}

/// A dialogue worked out: both streams byte by byte.
#[derive(Debug)]
pub struct Script {
    /// What the client sends.
    pub up: Vec<u8>,
    /// What the client must read: the run of one server.
    pub down: Vec<u8>,
    pub gates: Vec<Gate>,
    /// Bytes of `down` that come before the client's end of file.
    pub before_eof: usize,
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
    pub out: Vec<u8>,
    header: Vec<u8>,
    left: u32,
    reply: u32,
    trailer: u32,
    flags: u16,
    digest: u64,
    pub closed: bool,
}

impl Program {
    pub fn new(greeting: u32) -> Self {
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

    pub fn feed(&mut self, mut input: &[u8]) {
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

    pub fn eof(&mut self) {
        if !self.closed {
            fill(&mut self.out, mix(!self.digest), self.trailer as usize);
            self.closed = true;
        }
    }
}
