//! redis-benchmark's random SETs with one value, and one pipelined counter whose every reply is known beforehand.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use super::super::plan::Plan;
use super::{Load, per_mille, share};
use crate::lab::cluster::PATIENCE;
use crate::lab::process::Process;
use crate::lab::services::Redis;
use crate::lab::{Host, Lab};

const SETS: u64 = 30_000;
const COUNTS: u64 = 300_000;
const CONNECTIONS: &str = "30";
const KEY: &str = "counter";
/// Commands written at a time.
const CHUNK: u64 = 500;

pub struct RedisLoad {
    servers: Vec<Redis>,
    client: Host,
    psc: SocketAddr,
    dir: std::path::PathBuf,
    sets: u64,
    counts: u64,
    counted: Arc<AtomicU64>,
    counter: Option<JoinHandle<io::Result<()>>>,
    benchmark: Option<Process>,
}

impl RedisLoad {
    pub fn prepare(lab: &Lab, plan: &Plan) -> Self {
        Self {
            servers: lab
                .machines()
                .iter()
                .map(|host| Redis::start(host, lab.dir()))
                .collect(),
            client: lab.client().clone(),
            psc: lab.psc(plan.family, Redis::PORT),
            dir: lab.dir().to_owned(),
            sets: share(SETS, plan),
            counts: share(COUNTS, plan),
            counted: Arc::default(),
            counter: None,
            benchmark: None,
        }
    }
}

impl Load for RedisLoad {
    fn port(&self) -> u16 {
        Redis::PORT
    }

    fn begin(&mut self) {
        let mut benchmark = self.client.command("redis-benchmark");
        benchmark.args([
            "-h",
            &self.psc.ip().to_string(),
            "-c",
            CONNECTIONS,
            "-n",
            &self.sets.to_string(),
        ]);
        benchmark.args(["-r", "20000", "-d", "64", "-q", "SET", "key:__rand_int__", "__data__"]);
        self.benchmark = Some(Process::start("redis-benchmark", &self.dir, &mut benchmark));
        let (psc, counts, counted) = (self.psc, self.counts, Arc::clone(&self.counted));
        self.counter = Some(
            self.client
                .spawn(move || count(psc, KEY, counts, Duration::ZERO, &counted)),
        );
    }

    fn progress(&self) -> u64 {
        per_mille(self.counted.load(Ordering::Relaxed), self.counts)
    }

    fn finish(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(Err(error)) = self.counter.take().map(|t| t.join().expect("the counter's thread")) {
            wrong.push(format!("counter, after {:?} replies: {error}", self.counted));
        }
        if let Some(mut benchmark) = self.benchmark.take() {
            match benchmark.wait_up_to(PATIENCE) {
                Some(status) if status.success() => (),
                status => wrong.push(format!("redis-benchmark: {status:?}: {}", last_line(&benchmark.log()))),
            }
        }
        wrong
    }

    fn held_by(&self, machine: usize) -> Result<String, String> {
        Ok(self.servers[machine].digest())
    }

    fn knock(&self) -> Result<(), String> {
        let psc = self.psc;
        self.client.enter(move || ping(psc)).map_err(|e| format!("PING: {e}"))
    }

    fn signal(&self, machine: usize, signal: Signal) {
        self.servers[machine].signal(signal);
    }
}

fn last_line(text: &str) -> &str {
    text.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default()
}

fn connect(psc: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&psc, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One question of a connection of its own.
pub fn ping(psc: SocketAddr) -> io::Result<()> {
    let mut stream = connect(psc)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if answer == *b"+PONG\r\n" {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("answered {answer:?}"),
    ))
}

/// INCR so many times without waiting for the replies, which must be 1, 2, 3 and so on. After each five hundred it rests.
pub fn count(psc: SocketAddr, key: &str, counts: u64, rest: Duration, counted: &AtomicU64) -> io::Result<()> {
    let command = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len()).into_bytes();
    let mut stream = connect(psc)?;
    let mut out = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            for done in (0..counts).step_by(usize::try_from(CHUNK).expect("small")) {
                let n = usize::try_from(CHUNK.min(counts - done)).expect("small");
                out.write_all(&command.repeat(n))?;
                std::thread::sleep(rest); // the pace itself, no waiting for anything
            }
            out.shutdown(Shutdown::Write)
        });
        let received = expect_replies(&mut stream, counts, counted);
        if received.is_err() {
            let _ = stream.shutdown(Shutdown::Both); // so that the sender ends, too
        }
        let sent = sender.join().expect("the sender's thread");
        received.and(sent)
    })
}

fn expect_replies(stream: &mut TcpStream, counts: u64, counted: &AtomicU64) -> io::Result<()> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut buffer = vec![0; 64 << 10];
    let mut wanted = Vec::new();
    let mut next = 1;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        while wanted.len() < n && next <= counts {
            let _ = write!(wanted, ":{next}\r\n");
            next += 1;
        }
        if wanted.len() < n || wanted[..n] != buffer[..n] {
            return Err(wrong(format!("wrong replies before number {next}")));
        }
        wanted.drain(..n);
        counted.store(next - 1, Ordering::Relaxed);
    }
    if next <= counts || !wanted.is_empty() {
        return Err(wrong(format!("closed before reply {next} of {counts}")));
    }
    Ok(())
}
