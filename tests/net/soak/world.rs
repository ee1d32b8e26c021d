//! What a soak takes place in: lab, engine, three services on each machine, and who has been in service since when.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::campaign::load::files::digest_of;
use crate::campaign::load::redis::ping;
use crate::lab::cluster::{PATIENCE, PORT};
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Link, may_lose};
use crate::lab::peers::{Client, Service};
use crate::lab::services::{Nginx, Redis, addresses};
use crate::lab::{Family, Lab, counters};

/// Machines. A connection that lives through two faults must have two left.
pub const MACHINES: usize = 4;
/// The engine keeps a closed connection for so long: less than usual, so that the end of a run can be waited for.
const ENGINE: &str = "time_wait = \"1s\"";
/// How long the machines may take to come to the end of a piece that a client has finished.
const QUIET: Duration = Duration::from_secs(20);
/// How long a status may take: the engine may be stopped for a moment.
const ANSWER: Duration = Duration::from_secs(5);
/// The file that all machines have.
pub const FILE: &str = "download";
/// Its length.
pub const FILE_SIZE: u64 = 8 << 20;
/// All that a piece has left in redis, whatever the order of its keys.
const KEYS: &str = "local keys = redis.call('keys', ARGV[1] .. '*') table.sort(keys) local all = {} for i, key in ipairs(keys) do \
    all[i] = key .. '=' .. redis.call('get', key) end return #keys .. ' ' .. redis.sha1hex(table.concat(all, ' '))";
/// The same taken away.
const UNLINK: &str =
    "for _, key in ipairs(redis.call('keys', ARGV[1] .. '*')) do redis.call('unlink', key) end return 'OK'";

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// redis.
    Cache = 0,
    /// nginx.
    Files = 1,
    /// The tests' own.
    Own = 2,
}

impl Kind {
    /// In the order of the configuration.
    pub const ALL: [Self; 3] = [Self::Cache, Self::Files, Self::Own];

    /// The service's name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Files => "files",
            Self::Own => "own",
        }
    }
    fn port(self) -> u16 {
        match self {
            Self::Cache => Redis::PORT,
            Self::Files => Nginx::PORT,
            Self::Own => PORT,
        }
    }
}

/// What a machine has to hold of a piece.
#[derive(Clone, Debug)]
pub enum Proof {
    /// redis' keys with this prefix; what the client knows of their number or value is its own check.
    Keys(String),
    /// A file in nginx's directory, and its digest.
    File(String, String),
    /// A connection of the tests' own service with this order.
    Order(String),
    /// Nothing is left of it.
    Nothing,
}

/// What came of asking the machines for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All that could be asked hold it, and the same.
    Held,
    /// No machine was in service since before the piece was begun.
    NobodyToAsk,
    /// It leaves nothing on the machines.
    NothingToAsk,
}

/// A piece that a client has finished.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its service.
    pub kind: Kind,
    /// What is left of it.
    pub proof: Proof,
    /// When it was begun, before its first connection.
    pub begun: Instant,
    /// When it was done.
    pub done: Instant,
}

/// Everything there is.
pub struct World {
    // Fields are dropped in this order.
    /// The daemon.
    pub engine: Engine,
    redis: Vec<Redis>,
    nginx: Vec<Nginx>,
    own: Vec<Service>,
    /// Since when each machine of each service is in service without a break, should it be in service.
    since: Mutex<[[Instant; MACHINES]; 3]>,
    /// The digest of [`FILE`].
    pub file_digest: String,
    /// The network.
    pub lab: Lab,
}

impl World {
    /// Services first, then the engine.
    pub fn new() -> Self {
        let lab = Lab::new(MACHINES);
        for link in Self::links() {
            may_lose(&lab, link);
        }
        let hosts = || lab.machines().iter();
        let redis = hosts().map(|host| Redis::start(host, lab.dir())).collect();
        let nginx: Vec<Nginx> = hosts().map(|host| Nginx::start(host, lab.dir())).collect();
        let own = hosts().map(|host| Service::start(host, PORT)).collect();
        let file = lab.dir().join(FILE);
        let file_digest = crate::campaign::load::files::write_pattern(&file, 1, FILE_SIZE);
        for server in &nginx {
            // Hard links: the same bytes and the same Last-Modified everywhere.
            std::fs::hard_link(&file, server.root().join(FILE)).expect("link the file");
        }
        let services = Kind::ALL.map(|kind| {
            let machines = addresses(lab.machines(), Family::V4, kind.port());
            ServiceConfig::new(kind.name(), lab.psc(Family::V4, kind.port()), &machines)
        });
        Self {
            engine: Engine::start_with(&lab, ENGINE, &services),
            redis,
            nginx,
            own,
            since: Mutex::new([[Instant::now(); MACHINES]; 3]),
            file_digest,
            lab,
        }
    }

    /// All links that may be made to lose packets.
    pub fn links() -> impl Iterator<Item = Link> {
        std::iter::once(Link::Client(0)).chain((0..MACHINES).map(Link::Machine))
    }

    /// Where the clients of a service connect.
    pub fn psc(&self, kind: Kind) -> SocketAddr {
        self.lab.psc(Family::V4, kind.port())
    }

    /// The daemon's status, asked without a program.
    pub fn status(&self) -> io::Result<Value> {
        let mut socket = UnixStream::connect(self.lab.dir().join("admin.sock"))?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.write_all(b"{\"cmd\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line)?;
        Ok(answer["status"].take())
    }

    /// RSTs that have reached the client so far.
    pub fn resets(&self) -> u64 {
        counters::resets_seen(self.lab.client())
    }

    /// Nothing is left of any connection.
    pub fn is_at_rest(&self) -> bool {
        self.status().is_ok_and(|status| {
            let services = status["services"].as_array().into_iter().flatten();
            services.map(|s| s["flows"].as_u64()).all(|flows| flows == Some(0)) && status["buffered_bytes"] == 0
        })
    }

    /// One more connection for each service, after all; says what is wrong.
    pub fn knock(&self) -> Vec<String> {
        let client = self.lab.client();
        let [cache, files, own] = Kind::ALL.map(|kind| self.psc(kind));
        let get = || {
            let mut stream = std::net::TcpStream::connect_timeout(&files, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /none HTTP/1.0\r\n\r\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            let ok = line.starts_with("HTTP/1.1 404");
            ok.then_some(()).ok_or_else(|| io::Error::other(line))
        };
        let talk = || Client::connect(own, PATIENCE)?.talk(1, 3, |_| ());
        [
            ("redis", client.enter(|| ping(cache))),
            ("nginx", client.enter(get)),
            ("own", client.enter(talk)),
        ]
        .into_iter()
        .filter_map(|(name, result)| Some(format!("a new connection afterwards, {name}: {}", result.err()?)))
        .collect()
    }

    /// Takes in again whatever machine is out of service for a service, emptied. Returns whether there was any.
    pub fn mend(&self) -> io::Result<bool> {
        let status = self.status()?;
        let mut any = false;
        for kind in Kind::ALL {
            for machine in (0..MACHINES).filter(|m| !is_up(&status, kind, *m)) {
                any = true;
                self.empty(kind, machine);
                let name = format!("m{machine}");
                let output = self.engine.command(&["machine", "enable", kind.name(), &name]);
                if !output.status.success() {
                    return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
                }
                // Only what begins from now on is sure to find it.
                self.since.lock().expect("nobody panics with it")[kind as usize][machine] = Instant::now();
            }
        }
        Ok(any)
    }

    /// A machine that comes back knows nothing of what it has missed, and nobody asks it for that: what it holds goes.
    fn empty(&self, kind: Kind, machine: usize) {
        match kind {
            Kind::Cache => {
                self.redis[machine].local(&["FLUSHALL"]);
            }
            Kind::Files => {
                let files = std::fs::read_dir(self.nginx[machine].root());
                let files = files.into_iter().flatten().flatten().map(|entry| entry.path());
                for file in files.filter(|path| !path.ends_with(FILE) && !is_short_download(path)) {
                    let _ = std::fs::remove_file(file);
                }
            }
            Kind::Own => self.own[machine].forget(),
        }
    }

    /// Puts a file for short downloads on all machines.
    pub fn offer(&self, name: &str, content: &[u8]) {
        let first = self.nginx[0].root().join(name);
        std::fs::write(&first, content).expect("write a file");
        for server in &self.nginx[1..] {
            std::fs::hard_link(&first, server.root().join(name)).expect("link a file");
        }
    }

    /// Asks all machines that were in service all the time whether they hold the piece, and makes all forget it then. `None`: not yet.
    pub fn check(&self, piece: &Piece) -> Option<Result<Answer, String>> {
        if matches!(piece.proof, Proof::Nothing) {
            return Some(Ok(Answer::NothingToAsk));
        }
        let status = self.status().ok()?;
        let since = *self.since.lock().expect("nobody panics with it");
        let held: Vec<(usize, Result<String, String>)> = (0..MACHINES)
            .filter(|m| is_up(&status, piece.kind, *m) && since[piece.kind as usize][*m] < piece.begun)
            .map(|m| (m, self.held_by(&piece.proof, m)))
            .collect();
        if held.iter().all(|(_, h)| h.is_ok() && *h == held[0].1) {
            (0..MACHINES).for_each(|m| self.forget(&piece.proof, m));
            let asked = !held.is_empty();
            return Some(Ok(if asked { Answer::Held } else { Answer::NobodyToAsk }));
        }
        (piece.done.elapsed() > QUIET).then(|| Err(format!("{:?}: {held:?}", piece.proof)))
    }

    fn held_by(&self, proof: &Proof, machine: usize) -> Result<String, String> {
        match proof {
            Proof::Keys(prefix) => {
                let held = self.redis[machine].local(&["EVAL", KEYS, "0", prefix]);
                let keys = held.split(' ').next().and_then(|word| word.parse::<u64>().ok());
                // Machines that hold nothing agree, too.
                if keys.is_some_and(|keys| keys > 0) {
                    Ok(held)
                } else {
                    Err(held)
                }
            }
            Proof::File(name, digest) => match digest_of(&self.nginx[machine].root().join(name)) {
                found if found == *digest => Ok(found),
                other => Err(other),
            },
            Proof::Order(order) => match self.own[machine].record(order) {
                Some(record) if record.end == "closed" => Ok(format!("{:?}", record.content())),
                other => Err(format!("{other:?}")),
            },
            Proof::Nothing => Ok(String::new()),
        }
    }

    fn forget(&self, proof: &Proof, machine: usize) {
        match proof {
            Proof::Keys(prefix) => {
                self.redis[machine].local(&["EVAL", UNLINK, "0", prefix]);
            }
            Proof::File(name, _) => {
                let _ = std::fs::remove_file(self.nginx[machine].root().join(name));
            }
            Proof::Order(order) => self.own[machine].forget_order(order),
            Proof::Nothing => (),
        }
    }
}

/// What [`super::load`] calls the files for short downloads.
fn is_short_download(path: &std::path::Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("file-0-"))
}

/// Whether the engine counts on the machine.
pub fn is_up(status: &Value, kind: Kind, machine: usize) -> bool {
    status["services"][kind as usize]["machines"][machine]["state"] == "up"
}

/// The number of a service's original.
pub fn original(status: &Value, kind: Kind) -> Option<usize> {
    let name = status["services"][kind as usize]["original"].as_str()?;
    name.strip_prefix('m')?.parse().ok()
}
