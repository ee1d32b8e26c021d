//! The engine itself dies: SIGKILL under load and a new engine, again and again.
//!
//! While it is down nobody may be told anything. Then the flows of the old engine, which the new one does not know, get the answer
//! that a host would give (R19): the next packet that a client says in one meets a RST. And new connections work.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::run::keep_files;
use crate::lab::capture::{Capture, RST, Segment};
use crate::lab::cluster::{Cluster, MIB, PATIENCE, PORT};
use crate::lab::engine::Engine;
use crate::lab::pattern::Random;
use crate::lab::peers::{Client, Service};
use crate::lab::quantile::quantile;
use crate::lab::{Family, Host, counters, wait_for};

/// A new connection has to work within this after the new engine has said "ready".
const NEW_CONNECTION: Duration = Duration::from_secs(1);
/// A RST that comes later than this after the packet that it answers is not "at once". Two busy cores need some milliseconds.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Each client of the old engine must have been told within this after "ready": a client in backoff speaks seldom.
const TOLD: Duration = PATIENCE;
/// How long a silent client goes on waiting. Longer than a busy machine may hold up the whole story: once it was twenty seconds.
const SILENCE: Duration = Duration::from_secs(120);
/// Dialogues of each death's load; an upload, a download and an idle connection come to them.
const DIALOGUES: u64 = 3;
/// So often the services are started anew: connections of dead engines are nobody's any more and would pile up on the machines.
const FRESH_SERVICES: u64 = 10;

/// What a reader must not conclude.
pub const NOT_SHOWN: &str = "One engine host; its rules stay loaded while it is down, and the host itself lives. A client that only receives \
says nothing and is told nothing until it speaks; nor does one whose whole question was acknowledged before the engine died: here each silent client \
speaks as soon as the new engine is ready.";

/// One death.
#[derive(Clone, Debug, Default)]
pub struct Death {
    pub number: u64,
    /// From SIGKILL to the start of the new engine.
    pub down: Duration,
    /// From the new engine's start to its "ready".
    pub start: Duration,
    /// RSTs that have reached the client while no engine was there.
    pub resets_while_down: u64,
    /// From a client's packet in a flow of the old engine to its RST, by the client's capture; one for each flow.
    pub answers: Vec<Duration>,
    /// From "ready" to the error that each client of the old engine gets.
    pub told: Vec<Duration>,
    /// From "ready" to the end of a new client's dialogue.
    pub new_connection: Duration,
    /// What was not as it has to be.
    pub wrong: Vec<String>,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
        write!(
            f,
            "death {}: down {:.0?}, ready after {:.1?}; worst answer {:.1?}, last flow told after {:.0?}, new connection {:.1?}",
            self.number,
            self.down,
            self.start,
            worst(&self.answers),
            worst(&self.told),
            self.new_connection
        )?;
        self.wrong
            .iter()
            .try_for_each(|wrong| write!(f, "\n    WRONG: {wrong}"))
    }
}

/// Kills the engine so many times; `each` hears of every death.
pub fn run(deaths: u64, seed: u64, mut each: impl FnMut(&Death)) -> Vec<Death> {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::new(3);
    let mut engine = cluster.engine(Family::V4, &[]);
    let mut all = Vec::new();
    for number in 0..deaths {
        let load = Duration::from_millis(random.between(20, 200));
        let down = Duration::from_millis(random.between(5, 400));
        let (death, next) = one(&cluster, engine, number, load, down);
        engine = next;
        each(&death);
        all.push(death);
        if number % FRESH_SERVICES == FRESH_SERVICES - 1 {
            cluster.services.clear();
            cluster.services = cluster
                .lab
                .machines()
                .iter()
                .map(|host| Service::start(host, PORT))
                .collect();
        }
    }
    all
}

fn one(cluster: &Cluster, mut engine: Engine, number: u64, load: Duration, down: Duration) -> (Death, Engine) {
    let client = cluster.lab.client();
    let psc = cluster.lab.psc(Family::V4, PORT);
    let mut death = Death {
        number,
        down,
        ..Death::default()
    };
    let capture = Capture::start(client, "eth0", cluster.lab.dir());
    let mut flows = Flows::open(client, psc, number);
    std::thread::sleep(load); // how long they have been going on, drawn

    let before = counters::resets_seen(client);
    engine.kill();
    std::thread::sleep(down); // the length of the fault
    death.resets_while_down = counters::resets_seen(client) - before;
    if death.resets_while_down > 0 {
        death
            .wrong
            .push(format!("{} RSTs while the engine was down", death.resets_while_down));
    }
    drop(engine);
    let start = Instant::now();
    let engine = cluster.engine(Family::V4, &[]);
    let (ready, ready_by_clock) = (Instant::now(), SystemTime::now());
    death.start = ready - start;

    let newcomer = client.spawn(move || {
        let talk = Client::connect(psc, PATIENCE).and_then(|mut client| client.talk(number, 5, |_| ()));
        (talk, Instant::now())
    });
    flows.speak(client);
    for (name, ended) in flows.join() {
        match ended {
            Ok((error, at)) if error.kind() == ErrorKind::ConnectionReset || error.kind() == ErrorKind::BrokenPipe => {
                let told = at.saturating_duration_since(ready);
                death.told.push(told);
                if told > TOLD {
                    death.wrong.push(format!("{name}: told after {told:?}"));
                }
            }
            Ok((error, _)) => death.wrong.push(format!("{name}: {error} instead of a reset")),
            Err(()) => death.wrong.push(format!("{name}: ended well, though its engine died")),
        }
    }
    let (talk, done) = newcomer.join().expect("the newcomer's thread");
    death.new_connection = done - ready;
    if let Err(error) = talk {
        death.wrong.push(format!("a new connection: {error}"));
    } else if death.new_connection > NEW_CONNECTION {
        death
            .wrong
            .push(format!("a new connection took {:?}", death.new_connection));
    }
    death.answers = answers(&capture.stop(), ready_by_clock);
    if death.answers.len() != flows.ports.len() {
        death.wrong.push(format!(
            "{} flows of {} got a RST",
            death.answers.len(),
            flows.ports.len()
        ));
    }
    for late in death.answers.iter().filter(|answer| **answer > AT_ONCE) {
        death.wrong.push(format!("an answer came after {late:?}"));
    }
    let (seen, sent) = (counters::resets_seen(client) - before, engine.counter("resets_sent"));
    if seen > sent {
        death.wrong.push(format!(
            "{seen} RSTs have reached the client, but the engine has sent {sent}"
        ));
    }
    if !death.wrong.is_empty() {
        // The engine's log is the new one's; the capture is the whole story.
        let keep = PathBuf::from(format!("target/campaign/death-{number}"));
        match keep_files(cluster.lab.dir(), &keep) {
            Ok(()) => death.wrong.push(format!("capture and logs: {}", keep.display())),
            Err(error) => death.wrong.push(format!("capture and logs are not kept: {error}")),
        }
    }
    (death, engine)
}

/// For each connection that was reset: from the client's packet that meets the new engine to the RST. That is the first packet after
/// "ready", or, since the engine works a little before it says so, the last before the RST.
fn answers(segments: &[Segment], ready: SystemTime) -> Vec<Duration> {
    let ready = ready.duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let mut told = std::collections::BTreeMap::new();
    for rst in segments.iter().filter(|s| s.sport == PORT && s.flags & RST != 0) {
        told.entry(rst.dport).or_insert(rst.time);
    }
    let answer = |(port, at): (u16, Duration)| {
        let said = || {
            segments
                .iter()
                .filter(move |s| s.sport == port && s.time <= at)
                .map(|s| s.time)
        };
        let asked = said().find(|time| *time >= ready).or_else(|| said().next_back());
        at - asked.unwrap_or(at)
    };
    told.into_iter().map(answer).collect()
}

/// How a client ended: with an error, as it should, and when.
type End = Result<(io::Error, Instant), ()>;

/// The connections of one engine's life.
struct Flows {
    threads: Vec<(String, std::thread::JoinHandle<End>)>,
    /// Those that may have nothing to say, and what makes them speak.
    silent: Vec<TcpStream>,
    ports: Vec<u16>,
}

impl Flows {
    /// Opens them and waits until all are at work.
    fn open(client: &Host, psc: SocketAddr, number: u64) -> Self {
        let mut flows = Self {
            threads: Vec::new(),
            silent: Vec::new(),
            ports: Vec::new(),
        };
        let progress: Arc<Vec<AtomicU64>> = Arc::new((0..DIALOGUES + 2).map(|_| AtomicU64::new(0)).collect());
        let noting = |i: u64| {
            let progress = Arc::clone(&progress);
            move |n| progress[usize::try_from(i).expect("few")].store(n, Ordering::Relaxed)
        };
        let connect = || {
            client
                .enter(|| connect(psc))
                .expect("connect through the engine that is to die")
        };

        let (mut up, note) = (connect(), noting(0));
        flows.ports.push(port(&up));
        flows.start(client, "upload".to_owned(), move || -> io::Result<()> {
            let chunk = vec![7; 64 << 10];
            up.write_all(b"PUT 1\n")?;
            for done in 1.. {
                up.write_all(&chunk)?;
                note(done);
            }
            Ok(())
        });
        let (mut down, note) = (connect(), noting(1));
        flows.ports.push(port(&down));
        flows.silent.push(down.try_clone().expect("dup"));
        flows.start(client, "download".to_owned(), move || {
            let mut buffer = vec![0; 64 << 10];
            writeln!(down, "GET 2 {}", 100_000 * MIB)?;
            for done in 1.. {
                if down.read(&mut buffer)? == 0 {
                    break;
                }
                note(done);
            }
            Ok(())
        });
        let mut idle = connect();
        flows.ports.push(port(&idle));
        flows.silent.push(idle.try_clone().expect("dup"));
        flows.start(client, "idle connection".to_owned(), move || {
            idle.write_all(b"PUT 3\nwaiting")?;
            idle.read(&mut [0]).map(drop)
        });
        for i in 0..DIALOGUES {
            let note = noting(2 + i);
            let mut talker = client
                .enter(|| Client::connect(psc, PATIENCE))
                .expect("connect through the engine that is to die");
            flows.ports.push(talker.local_port());
            flows.silent.push(talker.handle().expect("dup"));
            flows.start(client, format!("dialogue {i}"), move || {
                talker.talk(number * DIALOGUES + i, u64::MAX, note)
            });
        }
        wait_for("all connections to be at work", PATIENCE, || {
            progress.iter().all(|n| n.load(Ordering::Relaxed) > 0).then_some(())
        });
        flows
    }

    fn start(&mut self, client: &Host, name: String, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        let thread = client.spawn(move || match work() {
            Ok(()) => Err(()),
            Err(error) => Ok((error, Instant::now())),
        });
        self.threads.push((name, thread));
    }

    /// Makes the silent ones say something: their FIN. A client with something unacknowledged speaks by itself, by its retransmissions.
    fn speak(&self, client: &Host) {
        let is_silent = |stream: &&TcpStream| counters::unacknowledged(client, port(stream)) == Some(0);
        for stream in self.silent.iter().filter(is_silent) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Waits for all of them.
    fn join(&mut self) -> Vec<(String, End)> {
        let threads = self.threads.drain(..);
        threads
            .map(|(name, thread)| (name, thread.join().expect("a client's thread")))
            .collect()
    }
}

fn connect(psc: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&psc, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().map_or(0, |addr| addr.port())
}

/// The figures of all deaths.
#[derive(Clone, Debug)]
pub struct Summary {
    pub deaths: usize,
    /// Deaths with something wrong.
    pub wrong: usize,
    resets_while_down: u64,
    rows: Vec<(&'static str, Spread)>,
}

/// Median, 99th percentile and worst.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: usize,
    median: Duration,
    high: Duration,
    worst: Duration,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |per_mille| quantile(&times, per_mille).unwrap_or_default();
        Self {
            count: times.len(),
            median: at(500),
            high: at(990),
            worst: at(1_000),
        }
    }
}

impl Summary {
    /// Sums up.
    pub fn of(deaths: &[Death]) -> Self {
        let each = |time: fn(&Death) -> Duration| Spread::of(deaths.iter().map(time).collect());
        let every = |times: fn(&Death) -> &Vec<Duration>| Spread::of(deaths.iter().flat_map(times).copied().collect());
        Self {
            deaths: deaths.len(),
            wrong: deaths.iter().filter(|death| !death.wrong.is_empty()).count(),
            resets_while_down: deaths.iter().map(|death| death.resets_while_down).sum(),
            rows: vec![
                ("down: from SIGKILL to the new engine's start", each(|d| d.down)),
                ("from the new engine's start to its \"ready\"", each(|d| d.start)),
                ("from an old flow's next packet to its RST", every(|d| &d.answers)),
                (
                    "from \"ready\" to the error in an old flow's client",
                    every(|d| &d.told),
                ),
                (
                    "from \"ready\" to the end of a new client's first dialogue",
                    each(|d| d.new_connection),
                ),
            ],
        }
    }

    /// As a table.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| time | count | median | 99 % | worst |\n|---|---|---|---|---|\n");
        let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        for (name, spread) in &self.rows {
            let Spread {
                count,
                median,
                high,
                worst,
            } = *spread;
            text += &format!("| {name} | {count} | {} | {} | {} |\n", ms(median), ms(high), ms(worst));
        }
        text + &format!(
            "\nRSTs that have reached the client while no engine was there: {}. Deaths with anything wrong: {} of {}.\n",
            self.resets_while_down, self.wrong, self.deaths
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.markdown())
    }
}
