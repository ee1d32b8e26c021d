//! R17 with real services: what machines say differently is seen, and nothing else is.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::lab::cluster::PATIENCE;
use crate::lab::engine::{Engine, ServiceConfig};
use crate::lab::faults::{Freeze, freeze};
use crate::lab::netns::Host;
use crate::lab::process::Process;
use crate::lab::services::{Nginx, Redis, addresses, wait_until_listening};
use crate::lab::{Family, Lab, counters, wait_for};
use crate::turn;

/// The services of these tests listen here.
const PORT: u16 = 7100;

/// A service that answers each line it is sent by a line of its own making; `"bye"` ends the connection. It lives as long as the
/// program: its namespace goes with the lab.
fn serve(host: &Host, mut answer: impl FnMut() -> String + Send + 'static) {
    let listener = host.enter(|| TcpListener::bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT)).expect("listen"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut byte = [0; 1];
            let mut line = Vec::new();
            while let Ok(1) = stream.read(&mut byte) {
                line.push(byte[0]);
                if byte[0] == b'\n' {
                    let bye = line == b"bye\n";
                    line.clear();
                    if stream.write_all(answer().as_bytes()).is_err() || bye {
                        break;
                    }
                }
            }
        }
    });
}

/// Machines with such a service, and an engine with a policy.
fn start(lab: &Lab, policy: &str) -> Engine {
    for host in lab.machines() {
        wait_until_listening(host, PORT);
    }
    let machines = addresses(lab.machines(), Family::V4, PORT);
    let service = ServiceConfig::new("lab", lab.psc(Family::V4, PORT), &machines)
        .with(&format!("diverge = \"{policy}\""))
        .with("replica_timeout = \"2s\"");
    Engine::start(lab, &[service])
}

fn connect(lab: &Lab) -> TcpStream {
    let psc: SocketAddr = lab.psc(Family::V4, PORT);
    lab.client().enter(|| {
        let stream = TcpStream::connect_timeout(&psc, PATIENCE).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream
    })
}

/// Sends a line and reads one.
fn ask(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(line.as_bytes()).expect("send a line");
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    while !answer.ends_with(b"\n") {
        stream.read_exact(&mut byte).expect("read an answer");
        answer.push(byte[0]);
    }
    String::from_utf8(answer).expect("an answer in UTF-8")
}

/// Waits until a counter has reached a value.
fn wait_for_counter(engine: &Engine, name: &str, value: u64) {
    wait_for(&format!("{name} to reach {value}"), PATIENCE, || {
        (engine.counter(name) >= value).then_some(())
    });
}

fn last(engine: &Engine, machine: usize) -> Value {
    engine.status()["services"][0]["machines"][machine]["last_divergence"].clone()
}

#[test]
fn a_header_that_names_the_host_is_told_and_stops_no_takeover() {
    let _turn = turn();
    let lab = Lab::new(2);
    let nginx: Vec<Nginx> = lab
        .machines()
        .iter()
        .map(|host| Nginx::start(host, lab.dir()))
        .collect();
    for (i, nginx) in nginx.iter().enumerate() {
        std::fs::write(
            nginx.root().join("host"),
            format!("this is machine m{i}, as everybody knows\n"),
        )
        .expect("write");
        std::fs::write(nginx.root().join("same"), "the same everywhere\n".repeat(10_000)).expect("write");
        // What nginx makes its ETag and Last-Modified of.
        let day = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        for name in ["host", "same"] {
            let file = std::fs::File::options().append(true).open(nginx.root().join(name));
            file.and_then(|file| file.set_times(day)).expect("set its time");
        }
    }
    let psc = lab.psc(Family::V4, Nginx::PORT);
    let machines = addresses(lab.machines(), Family::V4, Nginx::PORT);
    let engine = Engine::start(&lab, &[ServiceConfig::new("lab", psc, &machines)]);
    let get = |name: &str| {
        let url = format!("http://{}/{name}", psc.ip());
        lab.client().output("curl", &["-sS", "--fail", "-m", "10", &url])
    };
    assert_eq!(get("host"), "this is machine m0, as everybody knows\n");
    wait_for_counter(&engine, "legs_diverged", 1);
    let told = last(&engine, 1);
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    // Around midnight of a second the Date header differs first.
    if !text("said").contains("GMT") {
        assert!(text("given").contains("m0, as"), "{told:#}");
        assert!(text("said").contains("m1, as"), "{told:#}");
    }
    assert_eq!((text("service").as_str(), text("original").as_str()), ("lab", "m0"));
    assert!(engine.log().contains("divergence"), "{}", engine.log());
    assert_eq!(engine.counter("lengths_diverged"), 0);
    assert_eq!(engine.counter("legs_ineligible"), 0);
    // The default is to warn: the flow is taken over all the same.
    let mut stream = lab
        .client()
        .enter(|| TcpStream::connect_timeout(&psc, PATIENCE).expect("connect"));
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let request = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let read_until = |stream: &mut TcpStream, text: &str| {
        let (mut got, mut piece) = (String::new(), [0; 4_096]);
        while !got.contains(text) {
            let n = stream.read(&mut piece).expect("read");
            assert!(n > 0, "the end came before {text:?}: {got:?}");
            got.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    stream.write_all(request("host").as_bytes()).expect("send");
    read_until(&mut stream, "m0, as everybody knows\n");
    wait_for_counter(&engine, "legs_diverged", 2);
    freeze(lab.machine(0), Freeze::LinkDown);
    stream.write_all(request("host").as_bytes()).expect("send");
    read_until(&mut stream, "m1, as everybody knows\n");
    assert_eq!(counters::resets_seen(lab.client()), 0);
}

#[test]
fn redis_says_the_same_everywhere() {
    let _turn = turn();
    let lab = Lab::new(3);
    let redis: Vec<Redis> = lab
        .machines()
        .iter()
        .map(|host| Redis::start(host, lab.dir()))
        .collect();
    let psc = lab.psc(Family::V4, Redis::PORT);
    let machines = addresses(lab.machines(), Family::V4, Redis::PORT);
    let service = ServiceConfig::new("cache", psc, &machines).with("diverge = \"evict\"");
    let engine = Engine::start(&lab, &[service]);
    let host = psc.ip().to_string();
    let mut command = lab.client().command("redis-benchmark");
    command.args([
        "-h",
        &host,
        "-c",
        "20",
        "-n",
        "10000",
        "-P",
        "4",
        "-q",
        "-t",
        "set,get,ping_mbulk",
    ]);
    let mut benchmark = Process::start("redis-benchmark", lab.dir(), &mut command);
    let status = benchmark.wait(PATIENCE * 3);
    assert!(status.success(), "redis-benchmark: {status}\n{}", benchmark.log());
    wait_for("the digests to be the same", PATIENCE, || {
        let digests: Vec<String> = redis.iter().map(Redis::digest).collect();
        digests.iter().all(|digest| *digest == digests[0]).then_some(())
    });
    assert_eq!(engine.counter("legs_diverged"), 0, "{}", engine.log());
    assert!((0..3).all(|m| engine.machine_state(m) == "up"));
    // And the comparison was awake: one machine's data is changed behind everybody's back.
    redis[2].local(&["SET", "colour", "red"]);
    redis[0].local(&["SET", "colour", "tan"]);
    redis[1].local(&["SET", "colour", "tan"]);
    let got = lab.client().output("redis-cli", &["-h", &host, "GET", "colour"]);
    assert_eq!(got.trim_end(), "tan");
    wait_for("the one that is alone to be evicted", PATIENCE, || {
        (engine.machine_state(2) == "evicted").then_some(())
    });
    assert_eq!(engine.machine_state(1), "up");
    assert_eq!(counters::resets_seen(lab.client()), 0);
}

#[test]
fn random_numbers_differ_in_every_connection() {
    let _turn = turn();
    let lab = Lab::new(3);
    for (i, host) in lab.machines().iter().enumerate() {
        // Random to whoever looks: no two machines ever say the same.
        let mut n = 10_000 * (i as u64 + 1);
        serve(host, move || {
            n = (n * 31 + 7) % 9_000 + 10_000 * (i as u64 + 1);
            format!("{n}\n")
        });
    }
    let engine = start(&lab, "warn");
    for round in 1..=10 {
        let mut stream = connect(&lab);
        assert!(ask(&mut stream, "roll\n").starts_with('1'), "the original's word holds");
        assert!(ask(&mut stream, "bye\n").starts_with('1'));
        wait_for_counter(&engine, "legs_diverged", 2 * round);
    }
    assert_eq!(engine.counter("legs_diverged"), 20);
    assert_eq!(engine.counter("originals_outvoted"), 0, "nobody agrees with anybody");
    assert_eq!(engine.counter("lengths_diverged"), 0);
    let lines = engine.log().lines().filter(|line| line.contains("divergence")).count();
    assert!(
        (1..=10).contains(&lines),
        "{lines} lines about 20 differences: the rate is limited"
    );
}

#[test]
fn answers_of_other_lengths_make_a_machine_unfit() {
    let _turn = turn();
    let lab = Lab::new(3);
    for (i, host) in lab.machines().iter().enumerate() {
        serve(host, move || ["nine\n", "nineteen\n", "nine\n"][i].to_owned());
    }
    let engine = start(&lab, "warn");
    let mut stream = connect(&lab);
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, "how many?\n"), "nine\n");
    }
    wait_for_counter(&engine, "lengths_diverged", 1);
    assert_eq!(engine.counter("legs_ineligible"), 1);
    assert_eq!(
        engine.counter("legs_diverged"),
        1,
        "the third says the same as the first"
    );
    let told = last(&engine, 1);
    assert_eq!(told["offset"], 4, "{told:#}");
    // It is passed over.
    freeze(lab.machine(0), Freeze::LinkDown);
    assert_eq!(ask(&mut stream, "how many?\n"), "nine\n");
    assert_eq!(ask(&mut stream, "how many?\n"), "nine\n");
    assert_eq!(counters::resets_seen(lab.client()), 0);
}

#[test]
fn an_original_that_is_alone_is_told() {
    let _turn = turn();
    let lab = Lab::new(3);
    for (i, host) in lab.machines().iter().enumerate() {
        serve(host, move || ["tan\n", "red\n", "red\n"][i].to_owned());
    }
    let engine = start(&lab, "ineligible");
    let mut stream = connect(&lab);
    assert_eq!(ask(&mut stream, "which?\n"), "tan\n");
    wait_for_counter(&engine, "originals_outvoted", 1);
    assert_eq!(engine.counter("legs_ineligible"), 0, "the majority stays fit");
    assert_eq!(engine.status()["services"][0]["machines"][0]["outvoted"], 1);
}
