//! The applications: servers that run the script's program, and clients that know what to expect.

use std::collections::VecDeque;
use std::rc::Rc;

use relevo::engine::Micros;
use smoltcp::socket::tcp;

use crate::script::{Ending, Program, Script};

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
    /// What its stack keeps for a service that hangs, where smoltcp would forget it; and whether the client has ended.
    kept: Vec<u8>,
    end_kept: bool,
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
            kept: Vec::new(),
            end_kept: false,
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

    /// It hangs: other stacks than smoltcp let it read later what has come before TIME-WAIT was over, and that the client has ended, though it has reset
    /// the connection since.
    pub fn keep(&mut self, socket: &mut tcp::Socket<'_>) {
        if socket.state() == tcp::State::TimeWait {
            read_paced(socket, 0, &Pace::FAST, &mut 0, |b| self.kept.extend_from_slice(b));
        }
        self.end_kept |= at_eof(socket);
    }

    /// Whether its stack keeps anything for it.
    pub fn has_kept(&self) -> bool {
        !self.kept.is_empty() || (self.end_kept && !self.eof)
    }

    /// Reads and writes what it can; true if it did anything. An error is a byte that the client never sent (I2).
    pub fn step(&mut self, now: Micros, socket: &mut tcp::Socket<'_>) -> Result<bool, String> {
        let mut fresh = std::mem::take(&mut self.kept);
        let mut busy = !fresh.is_empty();
        busy |= read_paced(socket, now, &self.pace, &mut self.next_read, |b| {
            fresh.extend_from_slice(b)
        });
        if busy {
            self.take_in(&fresh)?;
        }
        if !self.eof && (self.end_kept || at_eof(socket)) {
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
