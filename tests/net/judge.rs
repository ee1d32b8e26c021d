//! Each kind of failure of the original, with a real redis as the service: what must be masked, and what must not be taken for a failure.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::cluster::PATIENCE;
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Freeze, Fuse, Link, freeze, lose};
use crate::lab::netns::Host;
use crate::lab::relay::{Impairment, Relay};
use crate::lab::services::{Redis, addresses};
use crate::lab::{Family, Lab, counters, wait_for};
use crate::turn;

/// Where in the dialogue the fault strikes.
const AT: u64 = 300;
/// How long the dialogue goes on after it.
const AFTER: Duration = Duration::from_millis(700);
/// The longest wait for an answer that a masked failure may cost: detection and switch, and 200 ms for scheduling on two busy cores.
const MASKED: Duration = Duration::from_millis(350);

/// Three machines with redis, and an engine before them.
struct Table {
    redis: Vec<Redis>,
    engine: Engine,
    lab: Lab,
}

impl Table {
    fn new(more: &[&str]) -> Self {
        Self::in_lab(Lab::new(3), more)
    }

    fn in_lab(lab: Lab, more: &[&str]) -> Self {
        let redis = lab
            .machines()
            .iter()
            .map(|host| Redis::start(host, lab.dir()))
            .collect();
        let machines = addresses(lab.machines(), Family::V4, Redis::PORT);
        let config = ServiceConfig::new("lab", lab.psc(Family::V4, Redis::PORT), &machines);
        let config = more.iter().fold(config, |config, line| config.with(line));
        let engine = Engine::start(&lab, &[config]);
        Self { redis, engine, lab }
    }

    fn psc(&self) -> SocketAddr {
        self.lab.psc(Family::V4, Redis::PORT)
    }

    /// A dialogue with the fault in its middle; returns the longest wait for an answer.
    fn count_through(&self, fault: impl FnOnce() + Send + 'static) -> Duration {
        let fuse = Fuse::lay(fault);
        let psc = self.psc();
        let waited = self.lab.client().enter(|| count(psc, || fuse.light()));
        fuse.done();
        counters::resets_seen(self.lab.client());
        waited.unwrap_or_else(|error| panic!("the client lost its connection: {error}"))
    }

    fn signal(&self, signal: Signal) -> impl FnOnce() + Send + use<> {
        let pid = self.redis[0].pid();
        move || rustix::process::kill_process(pid, signal).expect("signal redis")
    }

    /// The original was replaced once, for this reason, and no client was told.
    fn assert_masked(&self, waited: Duration, reasons: &[&str]) {
        assert_eq!(counters::resets_seen(self.lab.client()), 0, "resets at the client");
        assert!(waited < MASKED, "an answer took {waited:?}");
        wait_for("m0 to be taken out", PATIENCE, || {
            (self.engine.machine_state(0) == "down").then_some(())
        });
        let status = self.engine.status();
        let reason = status["services"][0]["last_takeover"]["reason"]
            .as_str()
            .unwrap_or("none");
        assert!(reasons.contains(&reason), "{reason} instead of {reasons:?}");
        assert_eq!(self.engine.original(), "m1");
        self.assert_serves();
        // A replica's stack has all that is acknowledged; its service may still be at it, on a busy host (I2: once things are quiet).
        wait_for("m1 and m2 to hold the same", PATIENCE, || {
            (self.redis[1].digest() == self.redis[2].digest()).then_some(())
        });
    }

    /// An end of the original was put to the vote and not believed: it lost, or its machine was taken out first, where its port refused a probe sooner.
    fn assert_end_was_held(&self) {
        let [masked, moot] = ["votes_masked", "votes_moot"].map(|name| self.engine.counter(name));
        assert!(masked + moot >= 1, "nothing was held");
    }

    /// The host and the device at which the original's link ends, in the direction to it, or from it.
    fn end_of_link(&self, to_machine: bool) -> (Host, &'static str) {
        if to_machine {
            (self.lab.machine(0).clone(), "eth0")
        } else {
            (self.lab.engine().clone(), "m0")
        }
    }

    /// A new connection works.
    fn assert_serves(&self) {
        let psc = self.psc();
        let answer = self.lab.client().enter(|| Counter::connect(psc)?.next());
        assert!(answer.is_ok(), "a new connection: {answer:?}");
    }

    /// Nothing was taken for a failure.
    fn assert_untouched(&self) {
        assert_eq!(self.engine.counter("takeovers"), 0, "nobody has died");
        assert_eq!(self.engine.machine_state(0), "up");
        assert_eq!(counters::resets_seen(self.lab.client()), 0, "resets at the client");
    }
}

/// A client of redis' INCR.
struct Counter {
    stream: BufReader<TcpStream>,
}

impl Counter {
    fn connect(psc: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&psc, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn next(&mut self) -> io::Result<u64> {
        self.stream.get_mut().write_all(b"INCR counter\r\n")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let number = line.trim_end().strip_prefix(':').and_then(|n| n.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("{line:?} is no number")))
    }
}

/// Counts one by one, and demands each number in turn; returns the longest wait.
fn count(psc: SocketAddr, strike: impl Fn()) -> io::Result<Duration> {
    let mut counter = Counter::connect(psc)?;
    let (mut longest, mut struck) = (Duration::ZERO, None::<Instant>);
    for expected in 1.. {
        let asked = Instant::now();
        let number = counter.next()?;
        longest = longest.max(asked.elapsed());
        if number != expected {
            return Err(io::Error::other(format!("{number} instead of {expected}")));
        }
        if expected == AT {
            strike();
            struck = Some(Instant::now());
        }
        if struck.is_some_and(|at| at.elapsed() > AFTER) {
            break;
        }
    }
    Ok(longest)
}

#[test]
fn a_crashed_service_is_masked() {
    let _turn = turn();
    let table = Table::new(&[]);
    let waited = table.count_through(table.signal(Signal::KILL));
    table.assert_end_was_held();
    table.assert_masked(waited, &["refused"]);
}

#[test]
fn a_service_closed_in_order_on_one_machine_is_masked() {
    let _turn = turn();
    let table = Table::new(&[]);
    let waited = table.count_through(table.signal(Signal::TERM));
    table.assert_end_was_held();
    table.assert_masked(waited, &["refused"]);
}

#[test]
fn a_hung_service_is_masked() {
    let _turn = turn();
    let table = Table::new(&["detect = { hang = \"50ms\" }"]);
    let waited = table.count_through(table.signal(Signal::STOP));
    table.assert_masked(waited, &["hang"]);
    table.redis[0].signal(Signal::CONT);
}

/// The service's own wish: all machines say it, so it passes, later than the original said it by at most `vote`.
#[test]
fn a_close_that_all_machines_mean_passes() {
    const TIMES: u64 = 100;
    let _turn = turn();
    let table = Table::new(&[]);
    let psc = table.psc();
    table.lab.client().enter(|| {
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect_timeout(&psc, PATIENCE).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(b"QUIT\r\n").expect("write");
            let mut words = String::new();
            stream.read_to_string(&mut words).expect("an end in order");
            assert_eq!(words, "+OK\r\n");
        }
    });
    table.assert_untouched();
    let [confirmed, masked, delayed, sum, max] = [
        "votes_confirmed",
        "votes_masked",
        "fins_delayed",
        "fin_delay_us",
        "fin_delay_max_us",
    ]
    .map(|name| table.engine.counter(name));
    println!("votes: of {TIMES} closes {confirmed} confirmed, {delayed} delayed by {sum} us in all, {max} us at most");
    assert_eq!((confirmed, masked), (TIMES, 0));
    // A vote that time decides is masked, so what is late was confirmed.
    assert!(max <= 20_000, "a FIN was held for {max} us");
}

#[test]
fn a_machine_that_refuses_is_passed_over() {
    let _turn = turn();
    // So far apart that it is not a probe which finds out first; those by which the engine learns the way come at its start.
    let table = Table::new(&["detect = { probe_interval = \"10s\" }"]);
    std::thread::sleep(Duration::from_millis(300));
    let kill = |i: usize| {
        rustix::process::kill_process(table.redis[i].pid(), Signal::KILL).expect("kill redis");
        let machine = table.lab.machine(i);
        let own = machine.addr(Family::V4, Redis::PORT);
        wait_for("the machine to refuse", PATIENCE, || {
            let answer = machine.enter(|| TcpStream::connect_timeout(&own, PATIENCE));
            answer.is_err().then_some(())
        });
    };
    kill(0);
    table.assert_serves();
    assert_eq!(counters::resets_seen(table.lab.client()), 0, "resets at the client");
    assert!(table.engine.counter("refusals_masked") >= 1);
    wait_for("m0 to be taken out", PATIENCE, || {
        (table.engine.machine_state(0) == "down").then_some(())
    });
    // Where nobody listens any more, the client is told so.
    kill(1);
    kill(2);
    let psc = table.psc();
    let refused = table.lab.client().enter(|| TcpStream::connect_timeout(&psc, PATIENCE));
    assert_eq!(
        refused.map_err(|e| e.kind()).err(),
        Some(io::ErrorKind::ConnectionRefused)
    );
}

#[test]
fn a_frozen_machine_and_one_whose_link_is_down_are_masked() {
    let _turn = turn();
    for kind in [Freeze::Mute, Freeze::LinkDown] {
        let table = Table::new(&[]);
        let host = table.lab.machine(0).clone();
        let waited = table.count_through(move || {
            freeze(&host, kind);
        });
        table.assert_masked(waited, &["silence", "probes", "retransmission", "link_down"]);
    }
}

#[test]
fn a_link_that_works_in_one_direction_only_is_masked() {
    let _turn = turn();
    for to_machine in [true, false] {
        let table = Table::new(&[]);
        let (host, device) = table.end_of_link(to_machine);
        let waited = table.count_through(move || {
            host.nft(&format!(
                "table netdev lab_deaf {{\n chain in {{\n  type filter hook ingress device \"{device}\" priority 0;\n  drop\n }}\n}}\n"
            ));
        });
        table.assert_masked(waited, &["silence", "probes", "retransmission", "link_down"]);
    }
}

#[test]
fn a_slow_original_is_no_dead_one() {
    let _turn = turn();
    let link = Link::Machine(0);
    let lab = Lab::with_relays(1, 3, &[link]);
    let slow = Impairment {
        delay: Duration::from_millis(50),
        ..Impairment::default()
    };
    // 100 ms there and back.
    let _relay = Relay::start(lab.relay(link), slow, 1);
    let table = Table::in_lab(lab, &[]);
    let psc = table.psc();
    table.lab.client().enter(|| {
        let mut counter = Counter::connect(psc).expect("connect");
        for expected in 1..=15 {
            assert_eq!(counter.next().expect("an answer"), expected);
        }
    });
    table.assert_untouched();
}

#[test]
fn five_percent_loss_is_no_death() {
    let _turn = turn();
    let lab = Lab::new(3);
    lose(&lab, Link::Machine(0), 50);
    let table = Table::in_lab(lab, &[]);
    table.count_through(|| ());
    table.assert_untouched();
}

/// A stack repeats what was lost after 200 ms, four times `hang`: the question, which the client's does, or the answer, which the original's does.
#[test]
fn what_is_lost_on_the_way_is_no_hang() {
    let _turn = turn();
    for to_machine in [true, false] {
        let table = Table::new(&["detect = { hang = \"50ms\" }"]);
        let (host, device) = table.end_of_link(to_machine);
        let waited = table.count_through(move || {
            // Words, and no bare acknowledgement.
            host.nft(&format!(
                "table netdev lab_lossy {{\n chain words {{\n  type filter hook ingress device \"{device}\" priority 0;\n  \
                 meta l4proto tcp ip length > 52 drop\n }}\n}}\n"
            ));
            std::thread::sleep(Duration::from_millis(120));
            // The chain stays: without it the kernel would drop what is in the packet queue.
            host.nft("flush table netdev lab_lossy\n");
        });
        let lost = waited >= Duration::from_millis(120);
        assert!(
            lost,
            "to the machine: {to_machine}; nothing was lost for long: {waited:?}"
        );
        table.assert_untouched();
    }
}

#[test]
fn an_engine_that_stands_still_blames_nobody() {
    let _turn = turn();
    let table = Table::new(&[]);
    let pid = table.engine.pid();
    table.count_through(move || {
        for _ in 0..4 {
            let signal = |signal| rustix::process::kill_process(pid, signal).expect("signal the engine");
            signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(50));
            signal(Signal::CONT);
            std::thread::sleep(Duration::from_millis(70));
        }
    });
    table.assert_untouched();
}

/// An order that has to wait, since the replicas' services stand still and so are never level; in the middle of it a host goes. Returns the exit
/// code and what was printed. The connection goes on.
fn struck_in_the_middle(table: &Table, order: &[&str], victim: usize) -> (Option<i32>, String) {
    let psc = table.psc();
    let client = table.lab.client();
    let mut counter = client.enter(|| Counter::connect(psc)).expect("connect");
    assert_eq!(counter.next().expect("an answer"), 1);
    table.redis[1..].iter().for_each(|redis| redis.signal(Signal::STOP));
    assert_eq!(counter.next().expect("m0's answer"), 2);
    let output = std::thread::scope(|scope| {
        let order = scope.spawn(|| table.engine.command(order));
        wait_for("the order to be under way", PATIENCE, || {
            (table.engine.original() == "m1").then_some(())
        });
        freeze(table.lab.machine(victim), Freeze::LinkDown);
        wait_for("the host to be missed", PATIENCE, || {
            (table.engine.machine_state(victim) != "up").then_some(())
        });
        order.join().expect("the order's thread")
    });
    table.redis[1..].iter().for_each(|redis| redis.signal(Signal::CONT));
    assert_eq!(counter.next().expect("another machine's answer"), 3);
    assert_eq!(counters::resets_seen(client), 0, "resets at the client");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_disable_is_answered_though_its_machine_dies_in_the_middle() {
    let _turn = turn();
    let table = Table::new(&["replica_timeout = \"5s\""]);
    let (code, said) = struck_in_the_middle(&table, &["machine", "disable", "lab", "m0"], 0);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("m0 is disabled"), "{said}");
    assert_eq!(table.engine.machine_state(0), "disabled");
    // What moved the connection was the death, not the order.
    let reason = table.engine.status()["services"][0]["last_takeover"]["reason"].clone();
    assert_ne!(reason, "command");
}

#[test]
fn a_failover_says_so_when_its_target_dies_in_the_middle() {
    let _turn = turn();
    let table = Table::new(&["replica_timeout = \"5s\""]);
    let order = ["failover", "lab", "--to", "m1", "--within", "10s"];
    let (code, said) = struck_in_the_middle(&table, &order, 1);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has failed before all was over"), "{said}");
}
