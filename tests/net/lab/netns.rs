//! Namespaces, links, and what removes them.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Family;
use super::relay::{FAR, NEAR};

/// A network namespace that plays one host.
#[derive(Clone, Debug)]
pub struct Host {
    ns: String,
    name: String,
    /// Its subnets are `10.0.<net>.0/24` and `fd00:<net>::/64`; the engine host, which is in all of them, has 0.
    net: u8,
}

impl Host {
    /// Makes the namespace; loopback is up, nothing else is there.
    pub fn create(prefix: &str, name: &str, net: u8) -> Self {
        let host = Self {
            ns: format!("{prefix}-{name}"),
            name: name.to_owned(),
            net,
        };
        run(Command::new("ip").args(["netns", "add", &host.ns]));
        host.enter(|| {
            for (key, value) in [
                ("net/ipv6/conf/default/accept_dad", "0"), // addresses can be used at once
                ("net/ipv6/conf/default/keep_addr_on_down", "1"), // so that thawing is little more than "link up"
                ("net/ipv6/conf/all/keep_addr_on_down", "1"),
            ] {
                write_sysctl(key, value);
            }
        });
        host.ip_batch("link set lo up\n");
        host
    }

    /// Links this host's `eth0` with `interface` of the engine host, which becomes its default gateway.
    pub fn connect(&self, engine: &Self, interface: &str) {
        veth((engine, interface), (self, "eth0"));
        self.address(engine, interface);
    }

    /// As [`Host::connect`], with a relay's namespace in the middle; nothing passes until a [`super::relay::Relay`] runs in it.
    pub fn connect_through(&self, relay: &Self, engine: &Self, interface: &str) {
        relay.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        veth((engine, interface), (relay, NEAR));
        veth((relay, FAR), (self, "eth0"));
        relay.ip_batch(&format!("link set {NEAR} up\nlink set {FAR} up\n"));
        self.address(engine, interface);
    }

    /// The addresses and routes of a link.
    fn address(&self, engine: &Self, interface: &str) {
        let net = self.net;
        for (host, device, last) in [(engine, interface, 1), (self, "eth0", 2)] {
            host.ip_batch(&format!(
                "addr add 10.0.{net}.{last}/24 dev {device}\naddr add fd00:{net}::{last}/64 dev {device} nodad\n\
                 link set {device} up\n"
            ));
        }
        self.add_default_routes();
    }

    /// The engine host is the gateway. Has to be said anew when the link was down.
    pub fn add_default_routes(&self) {
        let net = self.net;
        self.ip_batch(&format!(
            "route replace default via 10.0.{net}.1 dev eth0\nroute replace default via fd00:{net}::1 dev eth0\n"
        ));
    }

    /// What the time to live of its packets begins with, or their hop limit: who has sent a packet can then be told where it arrives.
    pub fn begin_with_ttl(&self, ttl: usize) {
        self.sysctl("net/ipv4/ip_default_ttl", &ttl.to_string());
        self.sysctl("net/ipv6/conf/eth0/hop_limit", &ttl.to_string());
    }

    /// The host's short name: `client`, `engine`, `m0`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The namespace's name, for `ip netns exec`.
    pub fn ns(&self) -> &str {
        &self.ns
    }
    /// The host's address.
    pub fn ip(&self, family: Family) -> IpAddr {
        let net = self.net;
        let text = match family {
            Family::V4 => format!("10.0.{net}.2"),
            Family::V6 => format!("fd00:{net}::2"),
        };
        text.parse().expect("an address of our own making")
    }
    /// The host's address with a port.
    pub fn addr(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// A command that runs on this host. `ip netns exec` replaces itself, so the child's pid is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns, program]);
        command
    }

    /// Runs `work` in a thread that has moved into this host, and waits for it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            self.enter_in(scope, work)
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))
        })
    }

    /// Starts `work` in a scoped thread that has moved into this host.
    pub fn enter_in<'scope, 'env, T: Send + 'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> std::thread::ScopedJoinHandle<'scope, T> {
        let host = self.clone();
        scope.spawn(move || {
            host.move_this_thread();
            work()
        })
    }

    /// Starts `work` in a thread of its own that has moved into this host.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let host = self.clone();
        std::thread::spawn(move || {
            host.move_this_thread();
            work()
        })
    }

    /// Never for the main thread: what `/proc/<pid>/ns/net` shows would no longer be the program's own namespace.
    fn move_this_thread(&self) {
        let ns = std::fs::File::open(Path::new("/run/netns").join(&self.ns)).expect("open the namespace");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&ns), Some(LinkNameSpaceType::Network)).expect("setns");
    }

    /// What arrives at `interface` is taken up by one processor, whichever has sent it (receive packet steering). An error says what the kernel has
    /// against it.
    pub fn take_up_on(&self, interface: &str, processor: usize) -> std::io::Result<()> {
        let set = format!(
            "echo {:x} > /sys/class/net/{interface}/queues/rx-0/rps_cpus",
            1_u64 << processor
        );
        // `ip netns exec` brings the host's own /sys.
        let output = self.command("sh").args(["-c", &set]).output()?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(std::io::Error::other(format!("{}: {}", self.name, why.trim())))
    }

    /// Sets `/proc/sys/<key>` of this host.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| write_sysctl(key, value));
    }

    /// Runs lines for `ip -batch` on this host.
    pub fn ip_batch(&self, lines: &str) {
        feed(Command::new("ip").args(["-n", &self.ns, "-batch", "-"]), lines);
    }

    /// Loads nftables rules on this host.
    pub fn nft(&self, rules: &str) {
        feed(self.command("nft").args(["-f", "-"]), rules);
    }

    /// What a command on this host prints; panics if it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().expect("start a command");
        assert!(
            output.status.success(),
            "{program} {args:?} on {}: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Joins two hosts' interfaces, which it makes.
fn veth((a, a_name): (&Host, &str), (b, b_name): (&Host, &str)) {
    run(Command::new("ip")
        .args(["link", "add", a_name, "netns", &a.ns, "type", "veth"])
        .args(["peer", "name", b_name, "netns", &b.ns]));
}

fn write_sysctl(key: &str, value: &str) {
    std::fs::write(Path::new("/proc/sys").join(key), value).unwrap_or_else(|e| panic!("sysctl {key}={value}: {e}"));
}

fn run(command: &mut Command) {
    let output = command.output().expect("start a command");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command with `input` on its standard input; panics with what it says if it fails.
fn feed(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("write to the command");
    let output = child.wait_with_output().expect("wait for the command");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{input}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Removes what one lab made, when the lab or the whole program ends.
///
/// A shell that reads its standard input to the end. The end comes when [`Keeper`] is dropped, and when the program dies in
/// whatever way: the kernel closes the pipe. It has a process group of its own, so Ctrl-C does not reach it.
pub struct Keeper {
    number: usize,
}

/// What the shell does: the processes in the lab's namespaces (and in no others) are ours; then the namespaces, then the files.
const CLEAN_UP: &str = r#"
trap '' INT TERM HUP QUIT
while read -r _; do :; done
spaces=$(ip netns list | cut -d' ' -f1 | grep "^$1-")
for ns in $spaces; do
    for pid in $(ip netns pids "$ns"); do
        [ "$pid" = "$3" ] || kill -9 "$pid"
    done
done
for ns in $spaces; do ip netns del "$ns"; done
rm -rf "$2"
"#;

/// The shells of all labs of this program, by number; `None` is an ended one.
static KEEPERS: Mutex<Vec<Option<Child>>> = Mutex::new(Vec::new());

impl Keeper {
    /// Starts the shell for the lab with this prefix and directory.
    pub fn start(prefix: &str, dir: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", CLEAN_UP, "clean-up", prefix])
            .arg(dir)
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start sh");
        let mut keepers = keepers();
        keepers.push(Some(child));
        Self {
            number: keepers.len() - 1,
        }
    }

    /// Cleans up after all labs of this program, now.
    pub fn end_all() {
        for keeper in keepers().iter_mut() {
            end(keeper);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut keeper = keepers()[self.number].take();
        end(&mut keeper);
    }
}

/// A panicked test must not keep the others from cleaning up.
fn keepers() -> std::sync::MutexGuard<'static, Vec<Option<Child>>> {
    KEEPERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn end(keeper: &mut Option<Child>) {
    if let Some(mut child) = keeper.take() {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}
