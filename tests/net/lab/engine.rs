//! The real binary on the engine host, and what may stand in its place.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::Lab;
use super::netns::Host;
use super::process::Process;

/// How long the engine may take to say "ready", and to stop.
const START: Duration = Duration::from_secs(10);

/// A `[[service]]` of the configuration.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub psc: SocketAddr,
    /// The machines in takeover order; they are named `m0`, `m1`, ...
    pub machines: Vec<SocketAddr>,
    /// Further lines of the section, such as `source = "client"`.
    pub more: String,
}

impl ServiceConfig {
    /// A service with the defaults.
    pub fn new(name: &str, psc: SocketAddr, machines: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            psc,
            machines: machines.to_vec(),
            more: String::new(),
        }
    }
    /// Adds a line.
    pub fn with(mut self, line: &str) -> Self {
        self.more.push_str(line);
        self.more.push('\n');
        self
    }
}

/// The text of a `relevo.toml`.
pub fn config(dir: &Path, services: &[ServiceConfig]) -> String {
    config_with(dir, "", services)
}

/// As [`config`], with further lines in `[engine]`.
fn config_with(dir: &Path, engine: &str, services: &[ServiceConfig]) -> String {
    let socket = dir.join("admin.sock");
    let mut text = format!(
        "[engine]\nworkers = 2\nadmin_socket = \"{}\"\n{engine}\n",
        socket.display()
    );
    for service in services {
        let ServiceConfig {
            name,
            psc,
            machines,
            more,
        } = service;
        let _ = write!(text, "\n[[service]]\nname = \"{name}\"\npsc = \"{psc}\"\n{more}");
        for (i, machine) in machines.iter().enumerate() {
            let _ = write!(text, "[[service.machine]]\nname = \"m{i}\"\naddress = \"{machine}\"\n");
        }
    }
    text
}

/// The binary under test: `RELEVO_BIN`, or what cargo has built, or what lies beside this program.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RELEVO_BIN") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_relevo") {
        return path.into();
    }
    let program = std::env::current_exe().expect("this program's path");
    let beside = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("relevo"))
        .find(|path| path.is_file());
    beside.expect("no relevo binary beside this program: build it first (cargo build --release)")
}

/// A running engine. Dropping it kills it.
pub struct Engine {
    host: Host,
    config: PathBuf,
    process: Process,
}

impl Engine {
    /// Writes the configuration, starts `relevo run` and waits until it is ready.
    pub fn start(lab: &Lab, services: &[ServiceConfig]) -> Self {
        Self::start_by(lab, services, &[])
    }

    /// As [`Engine::start`], started by another program, for example `taskset -c 0`.
    pub fn start_by(lab: &Lab, services: &[ServiceConfig], by: &[&str]) -> Self {
        Self::start_with_by(lab, "", services, by)
    }

    /// As [`Engine::start`], with further lines in `[engine]`.
    pub fn start_with(lab: &Lab, engine: &str, services: &[ServiceConfig]) -> Self {
        Self::start_with_by(lab, engine, services, &[])
    }

    /// Both.
    pub fn start_with_by(lab: &Lab, engine: &str, services: &[ServiceConfig], by: &[&str]) -> Self {
        Self::start_from(lab, &config_with(lab.dir(), engine, services), by)
    }

    fn start_from(lab: &Lab, config: &str, by: &[&str]) -> Self {
        let path = lab.dir().join("relevo.toml");
        std::fs::write(&path, config).expect("write relevo.toml");
        let program = binary();
        let words: Vec<&str> = by
            .iter()
            .copied()
            .chain([program.to_str().expect("a path in UTF-8"), "run"])
            .collect();
        let mut command = lab.engine().command(words[0]);
        command.args(&words[1..]).arg("--config").arg(&path);
        let mut process = Process::start("relevo", lab.dir(), &mut command);
        process.wait_for_line("ready", START);
        Self {
            host: lab.engine().clone(),
            config: path,
            process,
        }
    }

    /// Runs another `relevo` command with this engine's configuration.
    pub fn command(&self, words: &[&str]) -> std::process::Output {
        let mut command = self.host.command(binary().to_str().expect("a path in UTF-8"));
        command
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .output()
            .expect("start relevo")
    }

    /// Runs another `relevo` command that has to succeed, and returns what it prints.
    pub fn tell(&self, words: &[&str]) -> String {
        let output = self.command(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "relevo {words:?}: {}\n{error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `relevo status --json`.
    pub fn status(&self) -> Value {
        let text = self.tell(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("status is not JSON: {e}\n{text}"))
    }

    /// `relevo machine enable` for machine number `machine` of the service `lab`.
    pub fn enable(&self, machine: usize) {
        self.tell(&["machine", "enable", "lab", &format!("m{machine}")]);
    }

    /// `relevo machine disable`, likewise.
    pub fn disable(&self, machine: usize) {
        self.tell(&["machine", "disable", "lab", &format!("m{machine}")]);
    }

    /// One of the counters in the status.
    pub fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        status["counters"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no counter {name:?} in the status:\n{status:#}"))
    }

    /// The state of a machine of the first service: `up`, `down`, `evicted` or `disabled`.
    pub fn machine_state(&self, machine: usize) -> String {
        let status = self.status();
        let state = status["services"][0]["machines"][machine]["state"].as_str();
        state
            .unwrap_or_else(|| panic!("no machine {machine} in the status:\n{status:#}"))
            .to_owned()
    }

    /// The name of the first service's original.
    pub fn original(&self) -> String {
        let status = self.status();
        let name = status["services"][0]["original"].as_str();
        name.unwrap_or_else(|| panic!("no original in the status:\n{status:#}"))
            .to_owned()
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(START)
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(START);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Its process id.
    pub fn pid(&self) -> rustix::process::Pid {
        self.process.pid()
    }

    /// Its resident memory (VmRSS, proc(5)) in KiB. Panics if it can't be read: no bound may hold for that.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid().as_raw_nonzero());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
        let mut words = text.split_whitespace().skip_while(|word| *word != "VmRSS:");
        let number = words.nth(1).and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("no VmRSS in {path}:\n{text}"))
    }

    /// How many descriptors it has open. Panics if they can't be counted.
    pub fn descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.process.pid().as_raw_nonzero());
        let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("list {path}: {e}"));
        entries.count() as u64
    }

    /// Makes the receive buffers of its packet queues so small, from outside, by a copy of each socket; returns how many it has
    /// found. Under load a queue then overruns as soon as the engine is not scheduled for a moment.
    pub fn shrink_receive_buffers(&self, bytes: usize) -> usize {
        use rustix::net::{AddressFamily, netlink, sockopt};
        use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let pid = self.process.pid();
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        let numbers = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("list its descriptors");
        let mut found = 0;
        for number in numbers
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        {
            let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
                continue;
            };
            let is_queue = sockopt::socket_domain(&copy).is_ok_and(|domain| domain == AddressFamily::NETLINK)
                && sockopt::socket_protocol(&copy).is_ok_and(|protocol| protocol == Some(netlink::NETFILTER));
            if is_queue {
                sockopt::set_socket_recv_buffer_size(&copy, bytes).expect("set a receive buffer");
                found += 1;
            }
        }
        found
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.log();
            let from = log.len().saturating_sub(6_000);
            let tail = log.get(log.ceil_char_boundary(from)..).unwrap_or_default();
            eprintln!("--- the engine's log, last part ---\n{tail}");
            if self.process.ended().is_none() {
                let status = self.command(&["status", "--json"]);
                eprintln!("--- status ---\n{}", String::from_utf8_lossy(&status.stdout));
            }
        }
    }
}

/// Plain address translation in the engine's place, to the first machine of each service: no replicas, no takeover.
/// With it the lab proves itself: transfers work, and a freeze must be seen to break them.
pub fn translate_instead(lab: &Lab, services: &[ServiceConfig]) {
    let mut rules = String::from("table inet lab_nat {\n chain pre {\n  type nat hook prerouting priority -100;\n");
    for ServiceConfig { psc, machines, .. } in services {
        let family = if psc.is_ipv4() { "ip" } else { "ip6" };
        let (from, to) = (psc.ip(), machines[0]);
        let _ = writeln!(
            rules,
            "  {family} daddr {from} tcp dport {} dnat {family} to {to}",
            psc.port()
        );
    }
    rules
        .push_str(" }\n chain post {\n  type nat hook postrouting priority 100;\n  oifname \"m*\" masquerade\n }\n}\n");
    lab.engine().nft(&rules);
}
