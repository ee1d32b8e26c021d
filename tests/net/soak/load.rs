//! What the clients of a soak do: piece after piece, at a pace that leaves the two cores some time.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Progress;
use super::world::{FILE, FILE_SIZE, Kind, Piece, Proof, World};
use crate::campaign::load::{files, redis, short};
use crate::lab::cluster::PATIENCE;
use crate::lab::peers::Client;
use crate::lab::process::Process;

/// Clients that connect and do next to nothing. Each piece lasts [`IDLE`].
const IDLERS: u64 = 30;
/// Shorter than two faults and the time between them: a connection never has a machine taken away more than twice.
const IDLE: Duration = Duration::from_secs(12);
/// Clients that store and fetch small files, a connection for each.
const SHORT: u64 = 2;
/// Small files to fetch: the odd numbers below.
const FETCHED: u64 = 20;
/// Clients that talk.
const TALKERS: u64 = 3;
/// The numbers of clients leave room for each other's pieces.
const ROOM: u64 = 1 << 20;
/// How long curl may take in all.
const WORK: Duration = Duration::from_secs(60);
/// How often the checker looks at what is to be checked.
const LOOK: Duration = Duration::from_millis(200);

/// The clients, and the checker of what they did.
pub struct Loads {
    clients: Vec<JoinHandle<()>>,
    checker: JoinHandle<()>,
    queue: Arc<Queue>,
}

/// Pieces that are to be checked.
#[derive(Default)]
struct Queue {
    pieces: Mutex<VecDeque<Piece>>,
    over: std::sync::atomic::AtomicBool,
}

/// What a client does again and again: told the number of the piece, it says what is left of it.
type Work = Box<dyn FnMut(u64) -> io::Result<Proof> + Send>;

impl Loads {
    /// Starts all of them.
    pub fn start(world: &Arc<World>, progress: &Arc<Progress>) -> Self {
        for number in (0..FETCHED).filter(|n| !short::is_upload(*n)) {
            world.offer(&short::name(0, number), &short::content(0, number));
        }
        let queue = Arc::new(Queue::default());
        let mut clients = Vec::new();
        let mut client = |name: &'static str, kind: Kind, rest: u64, mut work: Work| {
            let (progress, queue) = (Arc::clone(progress), Arc::clone(&queue));
            let rest = Duration::from_millis(rest);
            clients.push(world.lab.client().spawn(move || {
                for number in 0..ROOM {
                    if progress.stopped() {
                        break;
                    }
                    let begun = Instant::now();
                    match work(number) {
                        Ok(proof) => queue.add(Piece {
                            kind,
                            proof,
                            begun,
                            done: Instant::now(),
                        }),
                        Err(error) => {
                            let (spent, fault) = (begun.elapsed(), progress.fault());
                            progress.lose(format!(
                                "{name}, piece {number}, after {spent:.1?}: {error} (fault: {fault:?})"
                            ));
                            progress.rest(Duration::from_secs(1));
                        }
                    }
                    progress.pieces.fetch_add(1, Ordering::Relaxed);
                    progress.rest(rest);
                }
            }));
        };
        client("redis-benchmark", Kind::Cache, 900, benchmark(world));
        client("counter", Kind::Cache, 100, counter(world));
        for (name, way, rate, rest) in [
            ("slow upload", files::Way::Up, "3M", 200),
            ("fast upload", files::Way::Up, "", 1_500),
            ("slow download", files::Way::Down, "3M", 200),
            ("fast download", files::Way::Down, "", 1_500),
        ] {
            client(name, Kind::Files, rest, transfer(world, name, way, rate));
        }
        for i in 0..SHORT {
            client("short connections", Kind::Files, 30, short(world, i + 1));
        }
        for i in 0..TALKERS {
            client("dialogue", Kind::Own, 50, dialogue(world, (i + 1) * ROOM));
        }
        client("upload", Kind::Own, 700, upload(world));
        client("download and late upload", Kind::Own, 700, late(world));
        for i in 0..IDLERS {
            client("idle", Kind::Own, 0, idle(world, progress, (i + 100) * ROOM));
        }
        let checker = {
            let (world, progress, queue) = (Arc::clone(world), Arc::clone(progress), Arc::clone(&queue));
            std::thread::spawn(move || queue.check_all(&world, &progress))
        };
        Self {
            clients,
            checker,
            queue,
        }
    }

    /// Waits for the clients' last pieces, and until all are checked.
    pub fn join(self) {
        for client in self.clients {
            client.join().expect("a client's thread");
        }
        self.queue.over.store(true, Ordering::Relaxed);
        self.checker.join().expect("the checker's thread");
    }
}

impl Queue {
    fn add(&self, piece: Piece) {
        self.pieces.lock().expect("nobody panics with it").push_back(piece);
    }

    fn check_all(&self, world: &World, progress: &Progress) {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            let batch = std::mem::take(&mut *self.pieces.lock().expect("nobody panics with it"));
            if batch.is_empty() && over {
                return;
            }
            for piece in batch {
                match world.check(&piece) {
                    None => self.add(piece),
                    Some(Ok(answer)) => {
                        progress.answers(answer).fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Err(wrong)) => progress.lose(format!("on the machines, {wrong}")),
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn benchmark(world: &Arc<World>) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        let psc = world.psc(Kind::Cache);
        let prefix = format!("bench:{number}:");
        let mut command = world.lab.client().command("redis-benchmark");
        command.args([
            "-h",
            &psc.ip().to_string(),
            "-c",
            "20",
            "-n",
            "3000",
            "-r",
            "300",
            "-d",
            "64",
        ]);
        command.args(["-q", "SET", &format!("{prefix}__rand_int__"), "__data__"]);
        finish(Process::start("redis-benchmark", world.lab.dir(), &mut command))?;
        Ok(Proof::Keys(prefix))
    })
}

fn counter(world: &Arc<World>) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        let key = format!("count:{number}:");
        let (psc, rest) = (world.psc(Kind::Cache), Duration::from_millis(15));
        redis::count(psc, &key, 50_000, rest, &AtomicU64::new(0))?;
        Ok(Proof::Keys(key))
    })
}

/// curl, at a rate of its own choice or as fast as it goes.
fn transfer(world: &Arc<World>, name: &'static str, way: files::Way, rate: &'static str) -> Work {
    let world = Arc::clone(world);
    let name = name.replace(' ', "-");
    let source = world.lab.dir().join(format!("source-{name}"));
    let digest = match way {
        files::Way::Up => files::write_pattern(&source, 2, FILE_SIZE),
        files::Way::Down => world.file_digest.clone(),
    };
    Box::new(move |number| {
        let mut curl = world.lab.client().command("curl");
        curl.args([
            "-sS",
            "--fail",
            "--connect-timeout",
            "10",
            "--speed-time",
            "10",
            "--speed-limit",
            "1",
        ]);
        if !rate.is_empty() {
            curl.args(["--limit-rate", rate]);
        }
        let url = |file: &str| format!("http://{}/{file}", world.psc(Kind::Files));
        let file = format!("{name}-{number}");
        let got = world.lab.dir().join(format!("got-{name}"));
        match way {
            files::Way::Up => curl.arg("-T").arg(&source).arg(url(&file)),
            files::Way::Down => curl.arg("-o").arg(&got).arg(url(FILE)),
        };
        finish(Process::start(&format!("curl-{name}"), world.lab.dir(), &mut curl))?;
        match way {
            files::Way::Up => Ok(Proof::File(file, digest.clone())),
            files::Way::Down if files::digest_of(&got) == digest => Ok(Proof::Nothing),
            files::Way::Down => Err(io::Error::other("another file than the server's")),
        }
    })
}

fn finish(mut process: Process) -> io::Result<()> {
    match process.wait_up_to(WORK) {
        Some(status) if status.success() => Ok(()),
        status => {
            let log = process.log();
            let line = log.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
            Err(io::Error::other(format!("{status:?}: {line}")))
        }
    }
}

/// By turns a file of its own stored, and one of all fetched.
fn short(world: &Arc<World>, client: u64) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        let psc = world.psc(Kind::Files);
        if !short::is_upload(number) {
            short::one(psc, client, number % FETCHED)?;
            return Ok(Proof::Nothing);
        }
        short::one(psc, client, number)?;
        let digest = files::hash(&short::content(client, number));
        Ok(Proof::File(short::name(client, number), digest))
    })
}

fn dialogue(world: &Arc<World>, first: u64) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        let seed = first + number;
        let pace = |_| std::thread::sleep(Duration::from_millis(3));
        Client::connect(world.psc(Kind::Own), PATIENCE)?.talk(seed, 300, pace)?;
        Ok(Proof::Order(format!("TALK {seed} 300")))
    })
}

fn upload(world: &Arc<World>) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        Client::connect(world.psc(Kind::Own), PATIENCE)?.upload(number, 4 << 20, |_| ())?;
        Ok(Proof::Order(format!("PUT {number}")))
    })
}

fn late(world: &Arc<World>) -> Work {
    let world = Arc::clone(world);
    Box::new(move |number| {
        let len = 2 << 20;
        Client::connect(world.psc(Kind::Own), PATIENCE)?.late(number, len, || ())?;
        Ok(Proof::Order(format!("LATE {number} {len}")))
    })
}

/// A round, a long rest, another round.
fn idle(world: &Arc<World>, progress: &Arc<Progress>, first: u64) -> Work {
    let (world, progress) = (Arc::clone(world), Arc::clone(progress));
    Box::new(move |number| {
        let seed = first + number;
        let rest = |round| {
            if round == 1 {
                progress.rest(IDLE);
            }
        };
        Client::connect(world.psc(Kind::Own), PATIENCE)?.talk(seed, 2, rest)?;
        Ok(Proof::Order(format!("TALK {seed} 2")))
    })
}
