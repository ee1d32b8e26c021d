//! The three acts.

use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::Through;
use crate::lab::capture::{Capture, Recovery};
use crate::lab::engine::{Engine, ServiceConfig, translate_instead};
use crate::lab::faults::{Freeze, Trigger};
use crate::lab::pattern::{Pattern, hex};
use crate::lab::process::Process;
use crate::lab::services::{Nginx, Redis, addresses};
use crate::lab::{Family, Lab, wait_for};
use crate::report::Report;

/// The original and three replicas.
const MACHINES: usize = 4;
/// Size of the file that is uploaded and downloaded.
const FILE: u64 = 256 << 20;
/// How long a client may take for its work. Each takes a few seconds.
const WORK: Duration = Duration::from_secs(20);
/// How long the replicas may take to come to the end of what the client has finished.
const QUIET: Duration = Duration::from_secs(10);
/// A pause that begins later than this after the freeze is not the freeze's.
const WINDOW: Duration = Duration::from_secs(1);

/// What is on the way from client to machines for the length of an act.
struct Way {
    engine: Option<Engine>,
    port: u16,
}

impl Way {
    fn open(lab: &Lab, through: Through, name: &str, port: u16) -> Self {
        let machines = addresses(lab.machines(), Family::V4, port);
        let service = ServiceConfig::new(name, lab.psc(Family::V4, port), &machines);
        let engine = match through {
            Through::Relevo => Some(Engine::start(lab, &[service])),
            Through::Nat => {
                translate_instead(lab, &[service]);
                None
            }
        };
        Self { engine, port }
    }

    /// What the client saw of the freeze, and whether the engine says that it took over.
    fn conclude(&self, lab: &Lab, capture: Capture, frozen: SystemTime, report: &mut Report) {
        report.count_at_the_client(lab, Recovery::of(&capture.stop(), self.port, frozen, 0, WINDOW));
        if let Some(engine) = &self.engine {
            let takeovers = engine.counter("takeovers");
            report.demand(takeovers > 0, || "the engine counts no takeover".to_owned());
            for i in 1..MACHINES {
                let state = engine.machine_state(i);
                report.demand(state == "up", || {
                    format!("m{i} is alive, but the engine took it out ({state})")
                });
            }
            for warning in engine.log().lines().filter(|line| line.contains(" WARN ")) {
                println!(
                    "  relevo: {}",
                    warning.split_once(" WARN ").map_or(warning, |(_, text)| text)
                );
            }
        }
    }
}

/// Freezes the original as soon as `progress` says so, while `client` is at work.
fn freeze_original(lab: &Lab, client: &mut Process, mut progress: impl FnMut() -> bool) -> SystemTime {
    let trigger = Trigger::arm(lab.machine(0), Freeze::LinkDown);
    wait_for("the client to be half through", WORK, || {
        let now = progress();
        assert!(
            now || client.ended().is_none(),
            "the client ended before the freeze:\n{}",
            client.log()
        );
        now.then_some(())
    });
    let frozen = trigger.pull();
    println!("  the original is frozen (its link is down)");
    frozen
}

/// Waits for a client program's end; a client that hangs or fails is a finding, not a reason to stop.
fn finish(report: &mut Report, name: &str, client: &mut Process) {
    let status = client.wait_up_to(WORK);
    let said = match status {
        Some(status) => status
            .code()
            .map_or_else(|| status.to_string(), |code| code.to_string()),
        None => "hangs".to_owned(),
    };
    println!("  {name}: exit code {said}");
    report.demand(said == "0", || {
        let log = client.log();
        let last = log.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
        format!("{name}: exit code {said} ({last})")
    });
    let separator = if report.exits.is_empty() { "" } else { ", " };
    report.exits.push_str(&format!("{separator}{name} {said}"));
}

/// Act 1: request and answer on 50 connections (redis-benchmark), and a pipelined counter (redis-cli --pipe) whose end value shows that
/// nothing was lost and nothing done twice.
pub fn redis_load(through: Through) -> Report {
    const REQUESTS: u64 = 120_000;
    const COUNTS: u64 = 400_000;
    let mut report = Report::new("redis load");
    let lab = Lab::new(MACHINES);
    let redis: Vec<Redis> = lab
        .machines()
        .iter()
        .map(|host| Redis::start(host, lab.dir()))
        .collect();
    let way = Way::open(&lab, through, "cache", Redis::PORT);
    let capture = Capture::start(lab.client(), "eth0", lab.dir());
    let psc = lab.psc(Family::V4, Redis::PORT).ip().to_string();

    let mut benchmark = lab.client().command("redis-benchmark");
    benchmark.args([
        "-h",
        &psc,
        "-c",
        "50",
        "-n",
        &REQUESTS.to_string(),
        "-r",
        "20000",
        "-d",
        "64",
        "-q",
    ]);
    benchmark.args(["SET", "key:__rand_int__", "__data__"]);
    let mut benchmark = Process::start("redis-benchmark", lab.dir(), &mut benchmark);
    println!("  redis-benchmark: {REQUESTS} requests on 50 connections");
    wait_for("the load to get going", WORK, || {
        std::thread::sleep(Duration::from_millis(20)); // asking is work for the machine, too
        (redis[0].commands_processed() > REQUESTS / 6).then_some(())
    });
    let commands = lab.dir().join("commands");
    write_counts(&commands, COUNTS);
    let mut counting = lab.client().command("sh");
    counting
        .args(["-c", "exec redis-cli -h \"$0\" --pipe < \"$1\"", &psc])
        .arg(&commands);
    let mut counting = Process::start("redis-cli", lab.dir(), &mut counting);
    println!("  redis-cli --pipe: {COUNTS} times INCR");
    let frozen = freeze_original(&lab, &mut counting, || {
        redis[0]
            .local(&["GET", "counter"])
            .parse()
            .is_ok_and(|n: u64| n > COUNTS / 4)
    });
    report.demand(benchmark.ended().is_none(), || {
        "redis-benchmark had ended before the freeze".to_owned()
    });
    finish(&mut report, "redis-cli", &mut counting);
    finish(&mut report, "redis-benchmark", &mut benchmark);
    way.conclude(&lab, capture, frozen, &mut report);

    let counter =
        command_output(
            lab.client()
                .command("timeout")
                .args(["5", "redis-cli", "-h", &psc, "GET", "counter"]),
        );
    let answers = counting.log();
    let all_answered = answers.contains(&format!("errors: 0, replies: {COUNTS}"));
    report.check = format!("counter {counter} of {COUNTS}");
    report.demand(counter == COUNTS.to_string(), || {
        format!("the counter is {counter:?} instead of {COUNTS}")
    });
    report.demand(all_answered, || {
        format!(
            "redis-cli: {}",
            answers.trim_end().rsplit('\n').next().unwrap_or_default()
        )
    });

    let digests = || redis.iter().map(Redis::digest).collect::<Vec<_>>();
    let same = settled(|| digests()[1..].windows(2).all(|pair| pair[0] == pair[1]));
    report.demand(same, || "the live machines' digests differ".to_owned());
    report.machines = digests()
        .iter()
        .map(|digest| format!("digest {}", &digest[..16]))
        .collect();
    report.machines[0].push_str(" (as of its freeze)");
    report
}

/// Act 2: the upload.
pub fn upload(through: Through) -> Report {
    let mut report = Report::new("upload, 256 MiB");
    let lab = Lab::new(MACHINES);
    let nginx: Vec<Nginx> = lab
        .machines()
        .iter()
        .map(|host| Nginx::start(host, lab.dir()))
        .collect();
    let source = lab.dir().join("file");
    let digest = write_pattern(&source, FILE);
    let way = Way::open(&lab, through, "web", Nginx::PORT);
    let capture = Capture::start(lab.client(), "eth0", lab.dir());

    let mut curl = lab.client().command("curl");
    curl.args([
        "-sS",
        "--fail",
        "-w",
        "%{http_code} after %{time_total} s, %{size_upload} bytes\n",
        "-T",
    ])
    .arg(&source);
    curl.arg(format!("http://{}/upload", lab.psc(Family::V4, Nginx::PORT).ip()));
    let mut curl = Process::start("curl", lab.dir(), &mut curl);
    println!("  curl -T: SHA-256 {}...", &digest[..16]);
    let mut partial = None;
    let frozen = freeze_original(&lab, &mut curl, || {
        partial = partial.take().or_else(|| nginx[0].upload_in_progress());
        partial.as_deref().is_some_and(|path| size_of(path) > FILE / 2)
    });
    finish(&mut report, "curl", &mut curl);
    way.conclude(&lab, capture, frozen, &mut report);
    let said = curl.log();
    report.check = format!("HTTP {}", said.trim_end());
    report.demand(said.contains("201 after"), || format!("curl: {}", said.trim_end()));

    let uploaded: Vec<PathBuf> = nginx.iter().map(|n| n.root().join("upload")).collect();
    settled(|| uploaded[1..].iter().all(|path| path.exists()));
    let part = partial.unwrap_or_default();
    let (part_len, part_digest) = (size_of(&part), digest_of(&part));
    let true_part = part_digest == Pattern::digest(SEED, part_len);
    report.demand(true_part, || {
        "the frozen original holds other bytes than the client sent".to_owned()
    });
    let how = if true_part { "a true part" } else { "WRONG" };
    report.machines.push(format!(
        "sha256 {} ({} MiB as of its freeze, {how})",
        &part_digest[..12],
        part_len >> 20
    ));
    for (i, path) in uploaded.iter().enumerate().skip(1) {
        let got = digest_of(path);
        report.demand(got == digest, || format!("the file on m{i} has SHA-256 {got}"));
        report.machines.push(format!(
            "sha256 {}{}",
            &got[..12],
            if got == digest { " = the client's" } else { " WRONG" }
        ));
    }
    report
}

/// Act 3: the download.
pub fn download(through: Through) -> Report {
    let mut report = Report::new("download, 256 MiB");
    let lab = Lab::new(MACHINES);
    let nginx: Vec<Nginx> = lab
        .machines()
        .iter()
        .map(|host| Nginx::start(host, lab.dir()))
        .collect();
    let original = lab.dir().join("file");
    let digest = write_pattern(&original, FILE);
    for machine in &nginx {
        // One file under four names: the same bytes and the same Last-Modified everywhere.
        std::fs::hard_link(&original, machine.root().join("file")).expect("link the file");
    }
    let way = Way::open(&lab, through, "web", Nginx::PORT);
    let capture = Capture::start(lab.client(), "eth0", lab.dir());

    let got = lab.dir().join("got");
    let mut curl = lab.client().command("curl");
    curl.args(["-sS", "--fail", "-w", "%{http_code} after %{time_total} s\n", "-o"])
        .arg(&got);
    curl.arg(format!("http://{}/file", lab.psc(Family::V4, Nginx::PORT).ip()));
    let mut curl = Process::start("curl", lab.dir(), &mut curl);
    println!("  curl: SHA-256 {}...", &digest[..16]);
    let frozen = freeze_original(&lab, &mut curl, || size_of(&got) > FILE / 2);
    finish(&mut report, "curl", &mut curl);
    way.conclude(&lab, capture, frozen, &mut report);

    let (len, received) = (size_of(&got), digest_of(&got));
    let right = received == digest;
    report.check = format!("{} sha256 {}", if right { "right:" } else { "WRONG:" }, &received[..12]);
    report.demand(right, || {
        format!("the client has {len} bytes with SHA-256 {received} instead of {digest}")
    });
    report.demand(curl.log().contains("200 after"), || {
        format!("curl: {}", curl.log().trim_end())
    });
    report.machines = (0..MACHINES).map(|_| format!("serves {}", &digest[..12])).collect();
    report
}

/// The seed of the file that is uploaded and downloaded.
const SEED: u64 = 2;

/// Writes the file and returns its SHA-256.
fn write_pattern(path: &Path, len: u64) -> String {
    let mut file = File::create(path).expect("create the file");
    let mut pattern = Pattern::new(SEED);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..len / buffer.len() as u64 {
        pattern.fill(&mut buffer);
        hash.update(&buffer);
        file.write_all(&buffer)
            .expect("write the file (it takes 1.3 GiB of space for a moment)");
    }
    hex(&hash.finalize())
}

/// The inline form of one redis command, so many times.
fn write_counts(path: &Path, count: u64) {
    let mut file = BufWriter::new(File::create(path).expect("create the commands"));
    for _ in 0..count {
        file.write_all(b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n")
            .expect("write the commands");
    }
    file.flush().expect("write the commands");
}

fn digest_of(path: &Path) -> String {
    let mut hash = Sha256::new();
    if let Ok(mut file) = File::open(path) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            hash.update(&buffer[..n]);
        }
    }
    hex(&hash.finalize())
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn command_output(command: &mut std::process::Command) -> String {
    let output = command.output().expect("start a command");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Whether `is_so` becomes true while things get quiet.
fn settled(mut is_so: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if start.elapsed() > QUIET {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
