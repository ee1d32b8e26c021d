//! Many short connections to nginx, each with one small file, up or down by turns, from several clients at once.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::super::plan::Plan;
use super::{Load, per_mille, share};
use crate::lab::cluster::PATIENCE;
use crate::lab::pattern::{Pattern, Random, hex};
use crate::lab::services::Nginx;
use crate::lab::{Host, Lab};

/// Clients at once.
const CLIENTS: u64 = 8;
/// Connections of each, one after the other.
const CONNECTIONS: u64 = 150;
/// The longest file.
const LONGEST: u64 = 30_000;

pub struct Short {
    servers: Vec<Nginx>,
    client: Host,
    psc: SocketAddr,
    each: u64,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Short {
    pub fn prepare(lab: &Lab, plan: &Plan) -> Self {
        let short = Self {
            servers: lab
                .machines()
                .iter()
                .map(|host| Nginx::start(host, lab.dir()))
                .collect(),
            client: lab.client().clone(),
            psc: lab.psc(plan.family, Nginx::PORT),
            each: share(CONNECTIONS, plan),
            done: Arc::default(),
            clients: Vec::new(),
        };
        // One file under several names: the same bytes and the same Last-Modified everywhere.
        for number in (0..short.each).filter(|n| !is_upload(*n)) {
            let first = short.servers[0].root().join(name(0, number));
            std::fs::write(&first, content(0, number)).expect("write a file");
            for server in &short.servers[1..] {
                std::fs::hard_link(&first, server.root().join(name(0, number))).expect("link a file");
            }
        }
        short
    }
}

impl Load for Short {
    fn port(&self) -> u16 {
        Nginx::PORT
    }

    fn begin(&mut self) {
        for client in 0..CLIENTS {
            let (psc, each, done) = (self.psc, self.each, Arc::clone(&self.done));
            self.clients.push(self.client.spawn(move || {
                for number in 0..each {
                    one(psc, client, number).map_err(|e| format!("client {client}, connection {number}: {e}"))?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
    }

    fn progress(&self) -> u64 {
        per_mille(self.done.load(Ordering::Relaxed), CLIENTS * self.each)
    }

    fn finish(&mut self) -> Vec<String> {
        let ended = self.clients.drain(..).map(|c| c.join().expect("a client's thread"));
        ended.filter_map(Result::err).collect()
    }

    fn held_by(&self, machine: usize) -> Result<String, String> {
        let mut hash = Sha256::new();
        for client in 0..CLIENTS {
            for number in (0..self.each).filter(|n| is_upload(*n)) {
                let name = name(client, number);
                match std::fs::read(self.servers[machine].root().join(&name)) {
                    Ok(bytes) if bytes == content(client, number) => hash.update(&bytes),
                    Ok(bytes) => return Err(format!("{name}: {} bytes, not the client's", bytes.len())),
                    Err(error) => return Err(format!("{name}: {error}")),
                }
            }
        }
        Ok(hex(&hash.finalize()))
    }

    fn knock(&self) -> Result<(), String> {
        let psc = self.psc;
        self.client
            .enter(move || one(psc, 0, 1))
            .map_err(|e| format!("GET: {e}"))
    }

    fn signal(&self, machine: usize, signal: Signal) {
        self.servers[machine].signal(signal);
    }
}

pub fn is_upload(number: u64) -> bool {
    number.is_multiple_of(2)
}

pub fn name(client: u64, number: u64) -> String {
    format!("file-{client}-{number}")
}

pub fn content(client: u64, number: u64) -> Vec<u8> {
    let seed = client << 32 | number;
    let mut bytes = vec![0; usize::try_from(Random::new(seed).between(1, LONGEST)).expect("small")];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

/// One connection. Files that are fetched are the same for all clients, files that are stored are each client's own.
pub fn one(psc: SocketAddr, client: u64, number: u64) -> io::Result<()> {
    let (verb, name, body) = if is_upload(number) {
        ("PUT", name(client, number), content(client, number))
    } else {
        ("GET", name(0, number), Vec::new())
    };
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let mut request = format!("{verb} /{name} HTTP/1.1\r\nHost: psc\r\n{length}Connection: close\r\n\r\n").into_bytes();
    request.extend(body);
    let mut stream = TcpStream::connect_timeout(&psc, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let (status, wanted): (&[u8], _) = if is_upload(number) {
        (b"HTTP/1.1 201 ", Vec::new())
    } else {
        (b"HTTP/1.1 200 ", content(0, number))
    };
    let body = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| &answer[at + 4..]);
    if answer.starts_with(status) && body == Some(&wanted[..]) {
        return Ok(());
    }
    let start = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{verb} /{name}: wrong answer of {} bytes: {start:?}", answer.len()),
    ))
}
