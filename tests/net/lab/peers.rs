//! A service and its clients of the tests' own. What it answers depends on nothing but what it is told, so all machines say the same.
//!
//! A connection begins with one line, the order:
//!
//! | order | then |
//! |---|---|
//! | `PUT <tag>` | the client sends until its FIN; the service answers with length and SHA-256, then closes (half-close by the client) |
//! | `GET <seed> <len>` | the service sends so many bytes of the seed's pattern, then closes |
//! | `LATE <seed> <len>` | as `GET`, but the client goes on sending after the service's FIN (half-close by the service) |
//! | `TALK <seed> <rounds>` | requests and answers by turns, their lengths and bytes drawn from the seed |
//!
//! The service keeps a [`Record`] of each connection: what it received, what it sent, how it ended.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Host;
use super::pattern::{Pattern, Random, hex};
use super::program::listen;

/// How often a blocked operation looks whether it should give up.
const TICK: Duration = Duration::from_millis(100);
/// An operation of the service that makes no progress for this long ends its connection (a frozen machine's would never end).
const SERVICE_PATIENCE: Duration = Duration::from_secs(120);
/// The bytes that a bulk transfer reads and writes at a time.
const CHUNK: usize = 64 << 10;

/// What a service saw of one connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The order line.
    pub order: String,
    /// Bytes received after the order line, and their SHA-256.
    pub received: u64,
    pub digest: String,
    /// Bytes given to the kernel to be sent.
    pub sent: u64,
    /// `closed`, or the error that ended it.
    pub end: String,
    /// Who the peer seemed to be.
    pub peer: SocketAddr,
}

impl Record {
    /// Everything but the peer's address.
    pub fn content(&self) -> (&str, u64, &str, u64, &str) {
        (&self.order, self.received, &self.digest, self.sent, &self.end)
    }
}

/// The service on one machine. Its threads end with it.
pub struct Service {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    /// Listens on `host`, both families.
    pub fn start(host: &Host, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(Vec::new()));
        let listener = host
            .enter(|| listen(port))
            .and_then(|socket| socket.set_read_timeout(Some(TICK)).map(|()| socket)) // also accept's
            .unwrap_or_else(|e| panic!("listen on {}: {e}", host.name()));
        let acceptor = {
            let (stop, records) = (stop.clone(), records.clone());
            std::thread::spawn(move || accept_all(&listener, &stop, &records))
        };
        Self {
            stop,
            records,
            acceptor: Some(acceptor),
        }
    }

    /// The connections that have ended, sorted by content.
    pub fn records(&self) -> Vec<Record> {
        let mut records = self
            .records
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        records.sort();
        records
    }

    /// The connection with this order, if it has ended.
    pub fn record(&self, order: &str) -> Option<Record> {
        let records = self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        records.iter().find(|record| record.order == order).cloned()
    }

    /// Forgets the connections with this order.
    pub fn forget_order(&self, order: &str) {
        self.records
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|record| record.order != order);
    }

    /// Forgets the connections that have ended.
    pub fn forget(&self) {
        self.records
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept_all(listener: &Socket, stop: &Arc<AtomicBool>, records: &Arc<Mutex<Vec<Record>>>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((socket, peer)) = listener.accept() else {
            continue;
        };
        let peer = peer.as_socket().expect("an internet address");
        let (stop, records) = (stop.clone(), records.clone());
        std::thread::spawn(move || {
            let patience = Patience {
                limit: SERVICE_PATIENCE,
                stop: Some(stop),
            };
            let record = serve(Patient::new(TcpStream::from(socket), patience), peer);
            records
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(record);
        });
    }
}

fn serve(stream: Patient, peer: SocketAddr) -> Record {
    let mut record = Record {
        order: String::new(),
        received: 0,
        digest: String::new(),
        sent: 0,
        end: "closed".to_owned(),
        peer,
    };
    let mut hash = Sha256::new();
    if let Err(error) = obey(stream, &mut record, &mut hash) {
        record.end = error.to_string();
    }
    record.digest = hex(&hash.finalize());
    record
}

fn obey(stream: Patient, record: &mut Record, hash: &mut Sha256) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    reader.read_line(&mut record.order)?;
    record.order = record.order.trim_end().to_owned();
    let order = record.order.clone();
    let mut words = order.split(' ');
    let verb = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
    match verb {
        "PUT" => {
            take_all(&mut reader, record, hash)?;
            let answer = format!("{} {}\n", record.received, hex(&hash.clone().finalize()));
            give(reader.get_mut(), answer.as_bytes(), record)?;
            reader.get_mut().finish()
        }
        "GET" | "LATE" => {
            give_pattern(reader.get_mut(), number(), number(), record)?;
            reader.get_mut().finish()?;
            take_all(&mut reader, record, hash)
        }
        "TALK" => {
            let mut dialogue = Dialogue::new(number());
            for _ in 0..number() {
                let (request, answer) = dialogue.next_round();
                let mut got = vec![0; request.len()];
                reader.read_exact(&mut got)?;
                record.received += got.len() as u64;
                hash.update(&got);
                give(reader.get_mut(), &answer, record)?;
            }
            take_all(&mut reader, record, hash)?;
            reader.get_mut().finish()
        }
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("no such order: {order:?}"),
        )),
    }
}

fn take_all(from: &mut impl Read, record: &mut Record, hash: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => {
                record.received += n as u64;
                hash.update(&buffer[..n]);
            }
        }
    }
}

fn give(to: &mut Patient, bytes: &[u8], record: &mut Record) -> io::Result<()> {
    to.write_all(bytes)?;
    record.sent += bytes.len() as u64;
    Ok(())
}

fn give_pattern(to: &mut Patient, seed: u64, len: u64, record: &mut Record) -> io::Result<()> {
    each_chunk(seed, len, |chunk, _| give(to, chunk, record))
}

/// Calls `each` with every chunk of the pattern and the position of its end.
fn each_chunk(seed: u64, len: u64, mut each: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < len {
        let n = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
        pattern.fill(&mut buffer[..n]);
        done += n as u64;
        each(&buffer[..n], done)?;
    }
    Ok(())
}

/// Requests and answers of a `TALK`, the same for both sides.
struct Dialogue {
    random: Random,
    pattern: Pattern,
}

impl Dialogue {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            pattern: Pattern::new(seed),
        }
    }
    fn next_round(&mut self) -> (Vec<u8>, Vec<u8>) {
        // Mostly small, as requests are; now and then several segments.
        let longest = if self.random.between(0, 8) == 0 { 8_000 } else { 200 };
        let mut piece = || {
            let mut bytes = vec![0; usize::try_from(self.random.between(1, longest)).expect("small")];
            self.pattern.fill(&mut bytes);
            bytes
        };
        (piece(), piece())
    }
}

/// How long a [`Patient`] goes on without progress.
#[derive(Clone)]
struct Patience {
    limit: Duration,
    stop: Option<Arc<AtomicBool>>,
}

/// A stream whose blocked operations end with an error instead of never, and that knows its longest wait.
struct Patient {
    stream: TcpStream,
    patience: Patience,
    longest_wait: Duration,
}

impl Patient {
    fn new(stream: TcpStream, patience: Patience) -> Self {
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(TICK)).expect("a timeout that is not zero");
        stream
            .set_write_timeout(Some(TICK))
            .expect("a timeout that is not zero");
        Self {
            stream,
            patience,
            longest_wait: Duration::ZERO,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn insist<T>(&mut self, mut operation: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        let result = loop {
            match operation(&mut self.stream) {
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    // The kernel's own ETIMEDOUT has the same kind, but ends the connection: it is not EAGAIN.
                    if e.raw_os_error() == Some(libc::ETIMEDOUT) {
                        break Err(e);
                    }
                    let stopped = self
                        .patience
                        .stop
                        .as_ref()
                        .is_some_and(|stop| stop.load(Ordering::Relaxed));
                    if stopped || start.elapsed() > self.patience.limit {
                        break Err(io::Error::new(ErrorKind::TimedOut, "stuck"));
                    }
                }
                other => break other,
            }
        };
        self.longest_wait = self.longest_wait.max(start.elapsed());
        result
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.insist(|stream| stream.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.insist(|stream| stream.write(buffer))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client's connection to the service. To be made in a thread that has moved into a client host.
pub struct Client {
    stream: Patient,
}

impl Client {
    /// Connects from any port. An operation without progress for `patience` is an error.
    pub fn connect(to: SocketAddr, patience: Duration) -> io::Result<Self> {
        Self::connect_from(0, to, patience)
    }

    /// Connects from a certain port.
    pub fn connect_from(port: u16, to: SocketAddr, patience: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if port != 0 {
            socket.set_reuse_address(true)?;
            let any: IpAddr = if to.is_ipv4() {
                [0; 4].into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            socket.bind(&SocketAddr::new(any, port).into())?;
        }
        socket.connect_timeout(&to.into(), patience)?;
        Ok(Self {
            stream: Patient::new(
                socket.into(),
                Patience {
                    limit: patience,
                    stop: None,
                },
            ),
        })
    }

    /// Keeps the socket's send buffer small, so that a write waits as soon as acknowledgements fail to come.
    pub fn with_small_send_buffer(self) -> io::Result<Self> {
        socket2::SockRef::from(&self.stream.stream).set_send_buffer_size(64 << 10)?;
        Ok(self)
    }

    /// The connection itself, as a second handle.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.stream.stream.try_clone()
    }

    /// The port that it uses.
    pub fn local_port(&self) -> u16 {
        self.stream.stream.local_addr().map_or(0, |addr| addr.port())
    }

    /// The longest time that one read or write has waited.
    pub fn longest_wait(&self) -> Duration {
        self.stream.longest_wait
    }

    /// Sends `len` bytes of the seed's pattern; `progress` hears how many have been given to the kernel.
    /// An error says what differs if the service received anything else.
    pub fn upload(&mut self, seed: u64, len: u64, mut progress: impl FnMut(u64)) -> io::Result<()> {
        writeln!(self.stream, "PUT {seed}")?;
        let mut hash = Sha256::new();
        each_chunk(seed, len, |chunk, done| {
            hash.update(chunk);
            self.stream.write_all(chunk)?;
            progress(done);
            Ok(())
        })?;
        self.stream.finish()?;
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer)?;
        expect(answer.trim_end(), &format!("{len} {}", hex(&hash.finalize())))
    }

    /// Receives `len` bytes of the seed's pattern; `progress` hears how many have come.
    /// An error says what differs if they are anything else.
    pub fn download(&mut self, seed: u64, len: u64, mut progress: impl FnMut(u64)) -> io::Result<()> {
        writeln!(self.stream, "GET {seed} {len}")?;
        let (got, digest) = self.read_to_end(&mut progress)?;
        expect(
            &format!("{got} {digest}"),
            &format!("{len} {}", Pattern::digest(seed, len)),
        )
    }

    /// Receives `len` bytes and the service's FIN, calls `between`, then sends as many bytes and closes.
    pub fn late(&mut self, seed: u64, len: u64, between: impl FnOnce()) -> io::Result<()> {
        writeln!(self.stream, "LATE {seed} {len}")?;
        let (got, digest) = self.read_to_end(&mut |_| ())?;
        expect(
            &format!("{got} {digest}"),
            &format!("{len} {}", Pattern::digest(seed, len)),
        )?;
        between();
        each_chunk(seed, len, |chunk, _| self.stream.write_all(chunk))?;
        self.stream.finish()
    }

    /// Requests and answers by turns; `progress` hears how many rounds are done. Each answer is compared byte by byte.
    pub fn talk(&mut self, seed: u64, rounds: u64, mut progress: impl FnMut(u64)) -> io::Result<()> {
        writeln!(self.stream, "TALK {seed} {rounds}")?;
        let mut dialogue = Dialogue::new(seed);
        for round in 0..rounds {
            let (request, answer) = dialogue.next_round();
            self.stream.write_all(&request)?;
            let mut got = vec![0; answer.len()];
            self.stream.read_exact(&mut got)?;
            if got != answer {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    format!("wrong answer in round {round}"),
                ));
            }
            progress(round + 1);
        }
        self.stream.finish()?;
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "bytes after the last answer")),
        }
    }

    fn read_to_end(&mut self, progress: &mut impl FnMut(u64)) -> io::Result<(u64, String)> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut got = 0;
        loop {
            match self.stream.read(&mut buffer)? {
                0 => return Ok((got, hex(&hash.finalize()))),
                n => {
                    got += n as u64;
                    hash.update(&buffer[..n]);
                    progress(got);
                }
            }
        }
    }
}

fn expect(got: &str, wanted: &str) -> io::Result<()> {
    if got == wanted {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("got {got:?} instead of {wanted:?}"),
    ))
}
