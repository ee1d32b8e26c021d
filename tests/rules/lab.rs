//! Network namespaces, and the two hosts of the drawing in them.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nfq::{Queue, Verdict};
use relevo::config::Config;
use relevo::host::rules;

use super::packet::send;
use super::{CONFIG, PATIENCE};

/// A network namespace that goes when this does.
pub struct Namespace(String);

pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Namespace {
    pub fn new(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rlv-{kind}-{}-{number}", std::process::id());
        stdout(&run("ip", &["netns", "add", &name]));
        let namespace = Self(name);
        namespace.exec("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs a command inside, whatever comes of it.
    pub fn try_exec(&self, program: &str, arguments: &[&str]) -> Output {
        run("ip", &[&["netns", "exec", &self.0, program], arguments].concat())
    }

    /// Runs a command inside, which must succeed.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> String {
        stdout(&self.try_exec(program, arguments))
    }

    /// Runs `relevo` inside.
    pub fn relevo(&self, arguments: &[&str]) -> Output {
        self.try_exec(env!("CARGO_BIN_EXE_relevo"), arguments)
    }

    /// Runs code on a thread inside.
    pub fn inside<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        let enter = move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
            code()
        };
        std::thread::scope(|scope| {
            scope
                .spawn(enter)
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.0]);
    }
}

/// A file that goes when this does, and its path.
pub fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// A table as nft lists it, without its counters' values.
pub fn listing(namespace: &Namespace, table: &str) -> Vec<String> {
    let text = namespace.exec("nft", &["-a", "list", "table", "inet", table]);
    text.lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.starts_with("packets "))
        .collect()
}

/// The lines of a listing with handles that are chains or sets, and how many rules there are.
pub fn shape(listing: &[String]) -> (Vec<String>, usize) {
    let (blocks, rules): (Vec<&String>, Vec<&String>) = listing
        .iter()
        .filter(|line| line.contains("# handle"))
        .partition(|line| line.contains('{'));
    (blocks.into_iter().cloned().collect(), rules.len())
}

/// A client and the engine's host, with a wire between them.
pub struct Lab {
    pub client: Namespace,
    pub host: Namespace,
}

impl Lab {
    pub fn new() -> Self {
        let (client, host) = (Namespace::new("c"), Namespace::new("h"));
        client.exec(
            "ip",
            &[
                "link", "add", "c0", "type", "veth", "peer", "name", "h0", "netns", &host.0,
            ],
        );
        for (namespace, interface, v4, v6) in [
            (&client, "c0", "10.0.1.1/24", "fd00:1::1/64"),
            (&host, "h0", "10.0.1.100/24", "fd00:1::100/64"),
        ] {
            namespace.exec("ip", &["address", "add", v4, "dev", interface]);
            namespace.exec("ip", &["address", "add", v6, "dev", interface, "nodad"]);
            namespace.exec("ip", &["link", "set", interface, "up"]);
        }
        host.exec(
            "sysctl",
            &["-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.h0.rp_filter=0"],
        );
        Self { client, host }
    }

    /// The machines are behind the client here, as far as the host knows.
    pub fn add_machine_routes(&self) {
        self.host
            .exec("ip", &["route", "add", "10.0.2.0/24", "via", "10.0.1.1"]);
        self.host
            .exec("ip", &["-6", "route", "add", "fd00:2::/64", "via", "fd00:1::1"]);
    }

    /// The host forwards, as a firewall host does.
    pub fn forward(&self) {
        self.host.exec(
            "sysctl",
            &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
        );
    }

    /// A host with its rules loaded, and ways to the machines.
    pub fn loaded() -> Self {
        let lab = Self::new();
        lab.add_machine_routes();
        lab.load();
        lab
    }

    /// The client's side sends what is for this address, too, to the host.
    pub fn client_route(&self, address: &str) {
        let bare = address.trim_matches(['[', ']']);
        let via = if bare.contains(':') {
            "fd00:1::100"
        } else {
            "10.0.1.100"
        };
        self.client.exec("ip", &["route", "replace", bare, "via", via]);
    }

    pub fn load(&self) {
        let config = Config::parse("relevo.toml", CONFIG).unwrap();
        self.host.inside(|| rules::load(&config)).unwrap();
    }

    /// Packets that a named counter of the rules has seen.
    pub fn counted(&self, name: &str) -> u64 {
        let counters = self.host.inside(rules::counters).unwrap();
        counters
            .iter()
            .find(|counter| counter.name == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .packets
    }

    /// Waits for a counter to reach a value, and not pass it.
    pub fn wait_counted(&self, name: &str, packets: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.counted(name) < packets && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.counted(name), packets, "{name}");
    }

    /// An engine's ears. Once for a lab: nfq's socket is inherited by commands that other tests start meanwhile, and the
    /// queue is not free again before they end.
    pub fn listen(&self) -> Queue {
        self.host.inside(|| {
            let mut queue = Queue::open().unwrap();
            for number in 8..12 {
                queue.bind(number).unwrap();
            }
            queue.set_nonblocking(true);
            queue
        })
    }

    /// Sends packets from the client's side and says in which queue each came to the host; each gets the verdict.
    pub fn queued(&self, queue: &mut Queue, packets: &[Vec<u8>], verdict: Verdict) -> Vec<u16> {
        self.client
            .inside(|| packets.iter().for_each(|packet| send(packet, None).unwrap()));
        let mut seen = Vec::new();
        while seen.len() < packets.len() {
            let Some(mut message) = receive(queue) else { break };
            seen.push(message.get_queue_num());
            message.set_verdict(verdict);
            queue.verdict(message).unwrap();
        }
        seen
    }
}

/// The next queued packet, if one comes.
pub fn receive(queue: &mut Queue) -> Option<nfq::Message> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match queue.recv() {
            Ok(message) => return Some(message),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{error}"),
        }
    }
    None
}
