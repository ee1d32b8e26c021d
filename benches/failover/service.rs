//! The service under test, a process of its own so that it can be stopped and killed, and its clients, one thread for all of them.
//!
//! A request is 32 bytes: the connection's number, the request's, and filling. The answer is 64 bytes that follow from them, so every machine says
//! the same, and the client knows each byte beforehand. A connection has one request under way at most.

use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use signal_hook::consts::SIGTERM;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::program::{listen, raise_descriptor_limit};

const REQUEST: usize = 32;
const ANSWER: usize = 64;
/// How long a service that closes in order goes on reading what clients still say.
const LINGER: Duration = Duration::from_millis(300);
/// Connections that are opened at a time.
const WAVE: usize = 64;
/// How long a client may wait for its connection, and at the end for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn answer_to(request: &[u8; REQUEST]) -> [u8; ANSWER] {
    let mut answer = [0; ANSWER];
    answer[..REQUEST].copy_from_slice(request);
    for (to, from) in answer[REQUEST..].iter_mut().zip(request) {
        *to = !from;
    }
    answer
}

fn request(connection: usize, number: u64) -> [u8; REQUEST] {
    let mut bytes = [b'.'; REQUEST];
    bytes[..8].copy_from_slice(&(connection as u64).to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Serves until it is ended. SIGTERM: it closes every connection in order first.
pub fn serve(port: u16) -> io::Result<()> {
    raise_descriptor_limit();
    let term = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&term))?;
    let listener = TcpListener::from(listen(port)?);
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &poller,
        &listener,
        epoll::EventData::new_u64(u64::MAX),
        epoll::EventFlags::IN,
    )?;
    let mut connections: Vec<Option<(TcpStream, Vec<u8>)>> = Vec::new();
    let mut closing: Option<Instant> = None;
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut events = Vec::with_capacity(256);
    loop {
        if closing.is_some_and(|since| since.elapsed() > LINGER) {
            return Ok(());
        }
        if term.load(Ordering::Relaxed) && closing.is_none() {
            closing = Some(Instant::now());
            let _ = epoll::delete(&poller, &listener);
            for (stream, _) in connections.iter().flatten() {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        match epoll::wait(&poller, spare_capacity(&mut events), Some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match usize::try_from(event.data.u64()) {
                Ok(i) if i < connections.len() => {
                    if !connections[i].as_mut().is_some_and(|c| talk(c, closing.is_none())) {
                        connections[i] = None;
                    }
                }
                _ => accept_all(&listener, &poller, &mut connections)?,
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    poller: &OwnedFd,
    connections: &mut Vec<Option<(TcpStream, Vec<u8>)>>,
) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let number = epoll::EventData::new_u64(connections.len() as u64);
        epoll::add(poller, &stream, number, epoll::EventFlags::IN)?;
        connections.push(Some((stream, Vec::with_capacity(REQUEST))));
    }
    Ok(())
}

/// Reads what there is, answers what is whole; returns whether the connection goes on.
fn talk((stream, read): &mut (TcpStream, Vec<u8>), answers: bool) -> bool {
    let mut buffer = [0; 4 * REQUEST];
    match stream.read(&mut buffer) {
        Ok(0) => return false,
        Ok(n) => read.extend_from_slice(&buffer[..n]),
        Err(e) => return e.kind() == ErrorKind::WouldBlock,
    }
    while let Some(request) = read.first_chunk::<REQUEST>() {
        // The answers of one connection never fill its buffer: the client waits for each.
        if answers && stream.write_all(&answer_to(request)).is_err() {
            return false;
        }
        read.drain(..REQUEST);
    }
    true
}

/// What the clients have seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers, each compared byte by byte.
    pub answers: AtomicU64,
    /// Requests under way.
    pub waiting: AtomicU64,
    /// What went wrong with a connection: reset, closed, wrong bytes. Each of them is a connection lost.
    pub wrong: Mutex<Vec<String>>,
}

/// A crowd of clients, in a thread of their own.
pub struct Clients {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a crowd is to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Where the service is.
    pub to: SocketAddr,
    /// Connections.
    pub connections: usize,
    /// The first of their ports; they have consecutive ones.
    pub first_port: u16,
    /// From one request of a connection to its next, or the one after if the answer is late; zero asks as soon as it is answered.
    pub pause: Duration,
}

impl Work {
    /// When connection `i` asks next, if the first asked first at `start`. The times are spread evenly and stay so: if each connection waited from its
    /// answer on, all that a takeover has answered at once would ask at once ever after, and nobody in between.
    fn asks_at(&self, i: usize, start: Instant, now: Instant) -> Instant {
        if self.pause.is_zero() {
            return now;
        }
        let part = |whole: usize| u32::try_from(whole).unwrap_or(u32::MAX);
        let first = start + self.pause / part(self.connections) * part(i);
        let past = now.saturating_duration_since(first).as_nanos() / self.pause.as_nanos();
        let next = first + self.pause * u32::try_from(past + 1).unwrap_or(u32::MAX);
        if now < first { first } else { next }
    }
}

struct Connection {
    stream: TcpStream,
    number: u64,
    read: Vec<u8>,
    alive: bool,
}

impl Clients {
    /// Opens the connections from `host`, lets each ask once, and goes on asking.
    pub fn start(host: &crate::lab::Host, work: Work) -> io::Result<Self> {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let mut connections = host.enter(|| open(&work))?;
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                if let Err(error) = ask(&mut connections, &work, &seen, &stop) {
                    note(&seen, format!("the clients: {error}"));
                }
                // A RST of the client ends every leg at once, and leaves no port waiting: the next crowd may follow soon.
                for connection in &connections {
                    let _ = socket2::SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO));
                }
            })
        };
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// What they have seen.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Lets the requests under way be answered and ends; what is not answered is lost.
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::mem::take(
            &mut *self
                .seen
                .wrong
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn note(seen: &Seen, what: String) {
    seen.wrong
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(what);
}

fn open(work: &Work) -> io::Result<Vec<Connection>> {
    let mut all = Vec::with_capacity(work.connections);
    for first in (0..work.connections).step_by(WAVE) {
        let wave = first..(first + WAVE).min(work.connections);
        let mut opening = Vec::new();
        for i in wave {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            let port = work.first_port + u16::try_from(i).map_err(io::Error::other)?;
            socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into())?;
            socket.set_nonblocking(true)?;
            match socket.connect(&work.to.into()) {
                Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
                _ => opening.push(TcpStream::from(socket)),
            }
        }
        for stream in opening {
            let start = Instant::now();
            while stream.peer_addr().is_err() {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                if start.elapsed() > PATIENCE {
                    return Err(io::Error::new(ErrorKind::TimedOut, "a connection does not open"));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            stream.set_nodelay(true)?;
            all.push(Connection {
                stream,
                number: 0,
                read: Vec::with_capacity(ANSWER),
                alive: true,
            });
        }
    }
    Ok(all)
}

fn ask(connections: &mut [Connection], work: &Work, seen: &Seen, stop: &AtomicBool) -> io::Result<()> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let start = Instant::now();
    let mut due = BinaryHeap::new();
    for (i, connection) in connections.iter().enumerate() {
        let number = epoll::EventData::new_u64(i as u64);
        epoll::add(&poller, &connection.stream, number, epoll::EventFlags::IN)?;
        due.push(std::cmp::Reverse((work.asks_at(i, start, start), i)));
    }
    let mut events = Vec::with_capacity(256);
    let mut stopped: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            let since = *stopped.get_or_insert(now);
            let waiting = seen.waiting.load(Ordering::Relaxed);
            if waiting == 0 {
                return Ok(());
            }
            if now - since > PATIENCE {
                note(seen, format!("{waiting} requests are not answered"));
                return Ok(());
            }
            due.clear();
        }
        while let Some(&std::cmp::Reverse((_, i))) = due.peek().filter(|next| next.0.0 <= now) {
            due.pop();
            let connection = &mut connections[i];
            if connection.alive {
                seen.waiting.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = connection.stream.write_all(&request(i, connection.number)) {
                    lose(connection, i, seen, &error.to_string());
                }
            }
        }
        let wait = due.peek().map_or(Duration::from_millis(10), |next| {
            next.0
                .0
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(10))
        });
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().into(),
        };
        match epoll::wait(&poller, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let Ok(i) = usize::try_from(event.data.u64()) else {
                continue;
            };
            if hear(&mut connections[i], i, seen) {
                due.push(std::cmp::Reverse((work.asks_at(i, start, Instant::now()), i)));
            }
            if !connections[i].alive {
                let _ = epoll::delete(&poller, &connections[i].stream);
            }
        }
    }
}

fn lose(connection: &mut Connection, i: usize, seen: &Seen, why: &str) {
    if std::mem::take(&mut connection.alive) {
        seen.waiting.fetch_sub(1, Ordering::Relaxed);
        note(seen, format!("connection {i}, request {}: {why}", connection.number));
    }
}

/// Returns whether an answer is whole.
fn hear(connection: &mut Connection, i: usize, seen: &Seen) -> bool {
    let mut buffer = [0; ANSWER];
    let room = ANSWER - connection.read.len();
    match connection.stream.read(&mut buffer[..room]) {
        Ok(n) if n > 0 => connection.read.extend_from_slice(&buffer[..n]),
        Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
        Ok(_) => {
            lose(connection, i, seen, "closed by the other side");
            return false;
        }
        Err(error) => {
            lose(connection, i, seen, &error.to_string());
            return false;
        }
    }
    if connection.read.len() < ANSWER {
        return false;
    }
    if connection.read != answer_to(&request(i, connection.number)) {
        lose(connection, i, seen, "wrong bytes");
        return false;
    }
    connection.read.clear();
    connection.number += 1;
    seen.waiting.fetch_sub(1, Ordering::Relaxed);
    seen.answers.fetch_add(1, Ordering::Relaxed);
    true
}
