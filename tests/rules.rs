//! The ruleset in a real kernel: the binary's commands, and what the rules do with real packets.
//!
//! ```text
//!   rlv-c-PID  client, and machines in forged packets      rlv-h-PID  the engine's host, rules loaded
//!   c0  10.0.1.1/24, fd00:1::1/64  ─────── veth ───────  h0  10.0.1.100/24, fd00:1::100/64 (the PSCs)
//! ```
//!
//! Needs root, iproute2 and nftables. Everything made here goes when the test ends, however it ends.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nfq::{Queue, Verdict};
use relevo::config::Config;
use relevo::host::rules::{self, QueueBackend, RulesError};
use relevo::host::sysctl;
use socket2::{Domain, Protocol, Socket, Type};

const CONFIG: &str = r#"
[engine]
workers = 4
first_queue = 8
[[service]]
name = "cache"
psc = "10.0.1.100:6379"
machine = [{ name = "a", address = "10.0.2.2" }, { name = "b", address = "10.0.2.3:6380" }]
[[service]]
name = "web"
psc = "10.0.1.100:80"
source = "client"
machine = [{ name = "a", address = "10.0.2.2" }]
[[service]]
name = "cache6"
psc = "[fd00:1::100]:6379"
machine = [{ name = "a", address = "fd00:2::2" }]
[[service]]
name = "web6"
psc = "[fd00:1::100]:80"
source = "client"
machine = [{ name = "a", address = "fd00:2::2" }]
"#;

/// TCP's flag bits.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The engine's own mark on what it sends.
const MARK: u32 = 0x5256_4c4f;
/// How long anything may take that takes an instant.
const PATIENCE: Duration = Duration::from_secs(5);

// --- namespaces

/// A network namespace that goes when this does.
struct Namespace(String);

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Namespace {
    fn new(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rlv-{kind}-{}-{number}", std::process::id());
        stdout(&run("ip", &["netns", "add", &name]));
        let namespace = Self(name);
        namespace.exec("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs a command inside, whatever comes of it.
    fn try_exec(&self, program: &str, arguments: &[&str]) -> Output {
        run("ip", &[&["netns", "exec", &self.0, program], arguments].concat())
    }

    /// Runs a command inside, which must succeed.
    fn exec(&self, program: &str, arguments: &[&str]) -> String {
        stdout(&self.try_exec(program, arguments))
    }

    /// Runs `relevo` inside.
    fn relevo(&self, arguments: &[&str]) -> Output {
        self.try_exec(env!("CARGO_BIN_EXE_relevo"), arguments)
    }

    /// Runs code on a thread inside.
    fn inside<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
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
fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// A table as nft lists it, without its counters' values.
fn listing(namespace: &Namespace, table: &str) -> Vec<String> {
    let text = namespace.exec("nft", &["-a", "list", "table", "inet", table]);
    text.lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.starts_with("packets "))
        .collect()
}

/// The lines of a listing with handles that are chains or sets, and how many rules there are.
fn shape(listing: &[String]) -> (Vec<String>, usize) {
    let (blocks, rules): (Vec<&String>, Vec<&String>) = listing
        .iter()
        .filter(|line| line.contains("# handle"))
        .partition(|line| line.contains('{'));
    (blocks.into_iter().cloned().collect(), rules.len())
}

// --- the commands

#[test]
fn nft_makes_the_same_of_the_text() {
    let namespace = Namespace::new("rules");
    let text = rules::render(&Config::parse("relevo.toml", CONFIG).unwrap());
    let (_directory, path) = file(&text);
    // Where the kernel has no nft_queue the check fails in the end, but what nft compiled has been printed by then.
    let output = namespace.try_exec("nft", &["--debug=netlink", "-c", "-f", &path]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = rules::bytecode(&text).unwrap();
    assert!(expected.lines().count() > 200, "{expected}");
    let start = printed
        .find("inet relevo from_client\n")
        .unwrap_or_else(|| panic!("no rules in:\n{printed}"));
    let mut theirs = printed[start..].lines();
    for ours in expected.lines() {
        assert_eq!(theirs.next().unwrap_or_default().trim_end(), ours);
    }
}

#[test]
fn load_twice_unload_and_leave_strangers_alone() {
    let namespace = Namespace::new("rules");
    let stranger = "table inet stranger { counter c { }; set s { type ipv4_addr; elements = { 10.9.9.9 } }; chain in { type \
                    filter hook input priority 0; ip saddr @s counter name c accept; }; }";
    namespace.exec("nft", &[stranger]);
    let before = listing(&namespace, "stranger");
    let (_directory, path) = file(CONFIG);

    let said = stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
    assert!(
        said.starts_with("rules: loaded table inet relevo, queue target "),
        "{said}"
    );
    let first = listing(&namespace, "relevo");
    let text = stdout(&namespace.relevo(&["rules", "show", "--config", &path]));
    let wanted = rules::bytecode(&text)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("inet "))
        .count();
    assert_eq!(shape(&first).1, wanted, "{first:#?}");
    for element in [
        "10.0.1.100 . 6379",
        "10.0.2.3 . 6380 . 10.0.1.100",
        "fd00:2::2 . 6379 . fd00:1::100",
    ] {
        assert!(
            first.iter().any(|line| line.contains(element)),
            "{element} is not in {first:#?}"
        );
    }

    // Again, then with a machine less: nothing doubles, its element goes, and no chain or set was deleted on the way, for
    // they keep their handles.
    stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
    assert_eq!(shape(&listing(&namespace, "relevo")), shape(&first));
    let (_directory, fewer) = file(&CONFIG.replace(r#", { name = "b", address = "10.0.2.3:6380" }"#, ""));
    stdout(&namespace.relevo(&["rules", "load", "--config", &fewer]));
    let third = listing(&namespace, "relevo");
    assert_eq!(shape(&third), shape(&first));
    assert!(!third.iter().any(|line| line.contains("10.0.2.3")), "{third:#?}");

    assert_eq!(
        stdout(&namespace.relevo(&["rules", "unload"])),
        "rules: unloaded table inet relevo\n"
    );
    assert_eq!(
        stdout(&namespace.relevo(&["rules", "unload"])),
        "rules: there was no table inet relevo\n"
    );
    assert_eq!(listing(&namespace, "stranger"), before);
    assert_eq!(namespace.exec("nft", &["list", "tables"]), "table inet stranger\n");
}

#[test]
fn nothing_is_half_loaded() {
    let namespace = Namespace::new("rules");
    // A set of ours with another key, as another version may have left it.
    namespace.exec("nft", &["table inet relevo { set psc6 { type ipv4_addr; }; }"]);
    let before = listing(&namespace, "relevo");
    let (_directory, path) = file(CONFIG);
    let output = namespace.relevo(&["rules", "load", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("relevo: ") && said.contains("run `relevo rules unload` first"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(listing(&namespace, "relevo"), before);
    let config = Config::parse("relevo.toml", CONFIG).unwrap();
    let error = namespace.inside(|| rules::load(&config)).unwrap_err();
    assert!(matches!(error, RulesError::Stale { .. }), "{error}");

    stdout(&namespace.relevo(&["rules", "unload"]));
    stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
}

#[test]
fn without_privileges_one_sentence_and_the_mend() {
    let namespace = Namespace::new("rules");
    let (_directory, path) = file(CONFIG);
    let binary = env!("CARGO_BIN_EXE_relevo");
    let arguments = [
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        binary,
        "rules",
        "load",
        "--config",
        &path,
    ];
    let output = namespace.try_exec("setpriv", &arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said,
        "relevo: changing nftables rules needs CAP_NET_ADMIN: run as root\n"
    );
}

#[test]
fn probing_leaves_nothing() {
    let namespace = Namespace::new("rules");
    let backend = namespace.inside(rules::probe).unwrap();
    assert!(matches!(backend, QueueBackend::Native | QueueBackend::Compat));
    assert_eq!(namespace.exec("nft", &["list", "tables"]), "");
    assert_eq!(namespace.inside(rules::counters).unwrap(), []);
}

#[test]
fn exit_codes_of_the_command_line() {
    let relevo = |arguments: &[&str]| {
        let output = run(env!("CARGO_BIN_EXE_relevo"), arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for bad in [
        &[][..],
        &["walk"],
        &["run"],
        &["rules"],
        &["failover"],
        &["machine", "enable", "cache"],
        &["--nonsense"],
    ] {
        let (code, out, error) = relevo(bad);
        assert_eq!((code, out.as_str()), (2, ""), "{bad:?}: {error}");
        assert!(
            error.ends_with("Run relevo --help for more information.\n"),
            "{bad:?}: {error}"
        );
    }
    for help in [
        &["--help"][..],
        &["help"],
        &["rules", "load", "--help"],
        &["status", "--help"],
    ] {
        let (code, out, _) = relevo(help);
        assert_eq!(code, 0);
        assert!(out.starts_with("Usage: relevo") && out.contains("Examples:"), "{out}");
    }
    let (code, _, error) = relevo(&["check", "--config", "/nonexistent"]);
    assert_eq!(code, 1);
    assert!(
        error.starts_with("relevo: cannot read the configuration /nonexistent: "),
        "{error}"
    );

    let (_directory, path) = file("[engine]\nworkers = 3\n[[service]]\nname = \"a\"\n");
    for command in ["check", "run"] {
        let (code, out, error) = relevo(&[command, "--config", &path]);
        assert_eq!((code, out.as_str()), (1, ""));
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(
            lines[0].starts_with(&format!("{path}:2: workers: found 3, expected ")),
            "{error}"
        );
    }
    let (_directory, path) = file(CONFIG);
    assert_eq!(relevo(&["check", "--config", &path]), (0, String::new(), String::new()));
    let (code, printed, _) = relevo(&["check", "--config", &path, "--print"]);
    assert_eq!(code, 0);
    assert_eq!(
        Config::parse("printed", &printed).unwrap(),
        Config::parse("relevo.toml", CONFIG).unwrap()
    );
}

#[test]
fn doctor_names_what_is_missing_and_is_content_when_it_is_there() {
    let lab = Lab::new();
    let (_directory, path) = file(CONFIG);
    let examine = || {
        let output = lab.host.relevo(&["doctor", "--config", &path]);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = examine();
    assert_eq!(code, 1, "without a route to the machines: {said}");
    assert!(
        said.contains("there is no route to 10.0.2.2") && said.contains("mend: ip route add 10.0.2.2"),
        "{said}"
    );

    lab.add_machine_routes();
    let (code, said) = examine();
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("machine a at 10.0.2.2:6379 is reached by h0, path MTU 1500"),
        "{said}"
    );
    assert!(
        said.contains("service cache: 10.0.1.100 is an address of this host"),
        "{said}"
    );

    let firewall = "table inet filter { chain f { type filter hook forward priority 0; ct state established accept; ct state \
                    untracked drop; }; }";
    lab.host.exec("nft", &[firewall]);
    let (code, said) = examine();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("mend: nft insert rule inet filter f ct state untracked accept"),
        "{said}"
    );
    // The mend mends.
    lab.host
        .exec("nft", &["insert rule inet filter f ct state untracked accept"]);
    assert_eq!(examine().0, 0);
    // Its looking at the queue target changed nothing.
    assert_eq!(lab.host.exec("nft", &["list", "tables"]), "table inet filter\n");
}

#[test]
fn sysctls_are_set_where_they_are_needed() {
    let lab = Lab::new();
    lab.add_machine_routes();
    let config = Config::parse("relevo.toml", CONFIG).unwrap();
    lab.host.exec("sysctl", &["-qw", "net.ipv4.conf.h0.rp_filter=1"]);
    let (interfaces, changes, again) = lab.host.inside(|| {
        let interfaces = sysctl::interfaces(&config).unwrap();
        let settings = sysctl::required(&config, &interfaces);
        let changes = sysctl::apply(&settings).unwrap();
        (interfaces, changes, sysctl::apply(&settings).unwrap())
    });
    assert_eq!(interfaces, ["h0"]);
    let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert!(
        said.iter()
            .any(|line| line.starts_with("set net.ipv4.conf.h0.rp_filter from 1 to 0")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("set net.ipv4.conf.all.accept_local from 0 to 1")),
        "{said:#?}"
    );
    assert_eq!(again, []);
}

// --- packets

/// A client and the engine's host, with a wire between them.
struct Lab {
    client: Namespace,
    host: Namespace,
}

impl Lab {
    fn new() -> Self {
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
    fn add_machine_routes(&self) {
        self.host
            .exec("ip", &["route", "add", "10.0.2.0/24", "via", "10.0.1.1"]);
        self.host
            .exec("ip", &["-6", "route", "add", "fd00:2::/64", "via", "fd00:1::1"]);
    }

    /// A host with its rules loaded, and ways to the machines.
    fn loaded() -> Self {
        let lab = Self::new();
        lab.add_machine_routes();
        lab.load();
        lab
    }

    fn load(&self) {
        let config = Config::parse("relevo.toml", CONFIG).unwrap();
        self.host.inside(|| rules::load(&config)).unwrap();
    }

    /// Packets that a named counter of the rules has seen.
    fn counted(&self, name: &str) -> u64 {
        let counters = self.host.inside(rules::counters).unwrap();
        counters
            .iter()
            .find(|counter| counter.name == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .packets
    }

    /// Waits for a counter to reach a value, and not pass it.
    fn wait_counted(&self, name: &str, packets: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.counted(name) < packets && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.counted(name), packets, "{name}");
    }

    /// An engine's ears. Once for a lab: nfq's socket is inherited by commands that other tests start meanwhile, and the
    /// queue is not free again before they end.
    fn listen(&self) -> Queue {
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
    fn queued(&self, queue: &mut Queue, packets: &[Vec<u8>], verdict: Verdict) -> Vec<u16> {
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
fn receive(queue: &mut Queue) -> Option<nfq::Message> {
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

/// Sends a whole IP packet as it is.
fn send(packet: &[u8], mark: Option<u32>) -> io::Result<()> {
    let v4 = packet[0] >> 4 == 4;
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    // IPPROTO_RAW: the header is the sender's.
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    let to: IpAddr = if v4 {
        <[u8; 4]>::try_from(&packet[16..20]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
    };
    socket.send_to(packet, &SocketAddr::new(to, 0).into()).map(drop)
}

/// A TCP packet, with these flags in its byte.
fn tcp(from: &str, to: &str, flags: u8) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut packet = Vec::new();
    builder
        .tcp(from.port(), to.port(), 1, 1000)
        .write(&mut packet, &[])
        .unwrap();
    let header = if from.is_ipv4() { 20 } else { 40 };
    packet[header + 13] = flags;
    packet
}

/// The same packet as a fragment from this byte on, with more to come.
fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        // Bit 13 says that there is more; the offset counts in eights.
        packet[6..8].copy_from_slice(&(0x2000 | offset >> 3).to_be_bytes());
        return packet;
    }
    let next = std::mem::replace(&mut packet[6], 44);
    let [high, low] = (offset | 1).to_be_bytes();
    packet.splice(40..40, [next, 0, high, low, 0, 0, 0, 9]);
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// "Port unreachable" from the PSC's address, quoting a packet of this protocol.
fn unreachable(v4: bool, protocol: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    if v4 {
        let mut quoted = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
        quoted[9] = protocol;
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
        let builder = PacketBuilder::ipv4([10, 0, 1, 100], [10, 0, 1, 1], 64).icmpv4(kind);
        builder.write(&mut packet, &quoted).unwrap();
    } else {
        let mut quoted = tcp("[fd00:1::1]:40000", "[fd00:1::100]:80", SYN);
        quoted[6] = protocol;
        let [from, to] = ["fd00:1::100", "fd00:1::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let kind = etherparse::Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
        PacketBuilder::ipv6(from, to, 64)
            .icmpv6(kind)
            .write(&mut packet, &quoted)
            .unwrap();
    }
    packet
}

#[test]
fn both_directions_of_a_flow_come_to_one_queue() {
    let lab = Lab::loaded();
    let mut queue = lab.listen();
    for (client, psc, machine, peer) in [
        ("10.0.1.1", "10.0.1.100:6379", "10.0.2.2:6379", "10.0.1.100"),
        ("10.0.1.1", "10.0.1.100:6379", "10.0.2.3:6380", "10.0.1.100"),
        ("10.0.1.1", "10.0.1.100:80", "10.0.2.2:80", "10.0.9.9"),
        ("[fd00:1::1]", "[fd00:1::100]:6379", "[fd00:2::2]:6379", "[fd00:1::100]"),
        ("[fd00:1::1]", "[fd00:1::100]:80", "[fd00:2::2]:80", "[fd00:9::9]"),
    ] {
        let mut packets = Vec::new();
        let mut expected = Vec::new();
        for port in (40_000..40_008u16).step_by(2) {
            packets.push(tcp(&format!("{client}:{port}"), psc, SYN));
            // A machine's packet, from where the client is: the rules don't look at interfaces.
            packets.push(tcp(machine, &format!("{peer}:{port}"), SYN | ACK));
            expected.extend([8 + (port >> 1 & 3); 2]);
        }
        if peer.ends_with('9') || peer.ends_with("9]") {
            lab.client_route(peer);
        }
        let mut seen = lab.queued(&mut queue, &packets, Verdict::Drop);
        seen.sort_unstable();
        assert_eq!(seen, expected, "{machine}");
    }
}

impl Lab {
    /// The client's side sends what is for this address, too, to the host.
    fn client_route(&self, address: &str) {
        let bare = address.trim_matches(['[', ']']);
        let via = if bare.contains(':') {
            "fd00:1::100"
        } else {
            "10.0.1.100"
        };
        self.client.exec("ip", &["route", "replace", bare, "via", via]);
    }
}

#[test]
fn malformed_tcp_is_diverted_too_and_other_traffic_is_not() {
    let lab = Lab::loaded();
    let mut flags = tcp("10.0.1.1:40000", "10.0.1.100:6379", 0xff);
    // A data offset of 0.
    flags[32] = 0;
    let mut short = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
    short.truncate(28);
    assert_eq!(lab.queued(&mut lab.listen(), &[flags, short], Verdict::Drop).len(), 2);
    // Another port of the same address is the host's own.
    let refused = lab.client.inside(|| TcpStream::connect("10.0.1.100:22")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(lab.counted("silenced") + lab.counted("untranslated"), 0);
}

#[test]
fn fragments_are_dropped_and_counted() {
    let lab = Lab::loaded();
    lab.client_route("10.0.9.9");
    lab.client_route("fd00:9::9");
    let mut sent = 0;
    for (from, to) in [
        ("10.0.1.1:40000", "10.0.1.100:6379"),
        ("10.0.2.2:6379", "10.0.1.100:40000"),
        ("10.0.2.2:80", "10.0.9.9:40000"),
        ("[fd00:1::1]:40000", "[fd00:1::100]:80"),
        ("[fd00:2::2]:80", "[fd00:9::9]:40000"),
    ] {
        for offset in [0, 1480] {
            let packet = fragment(tcp(from, to, ACK), offset);
            lab.client.inside(|| send(&packet, None)).unwrap();
            sent += 1;
            lab.wait_counted("fragments", sent);
        }
    }
    assert_eq!(lab.counted("untranslated"), 0);
}

#[test]
fn without_an_engine_a_client_hears_nothing() {
    let lab = Lab::loaded();
    // Even with a program of the host's own on the port.
    let _listener = lab.host.inside(|| TcpListener::bind("10.0.1.100:6379").unwrap());
    for psc in ["10.0.1.100:6379", "10.0.1.100:80", "[fd00:1::100]:80"] {
        let psc: SocketAddr = psc.parse().unwrap();
        let silence = lab
            .client
            .inside(|| TcpStream::connect_timeout(&psc, Duration::from_millis(300)))
            .unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::TimedOut, "{psc}");
    }
}

#[test]
fn a_packet_that_nobody_translated_goes_nowhere() {
    let lab = Lab::loaded();
    lab.host.exec(
        "sysctl",
        &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
    );
    lab.client_route("10.0.2.9");
    lab.client_route("fd00:2::9");
    let packets = [
        tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN),
        tcp("10.0.2.2:6379", "10.0.1.100:40000", SYN),
        // These two would be forwarded: the host has a route for them.
        tcp("10.0.2.2:80", "10.0.2.9:40000", SYN),
        tcp("[fd00:2::2]:80", "[fd00:2::9]:40000", SYN),
        tcp("[fd00:1::1]:40000", "[fd00:1::100]:80", SYN),
    ];
    assert_eq!(
        lab.queued(&mut lab.listen(), &packets, Verdict::Accept).len(),
        packets.len()
    );
    lab.wait_counted("untranslated", packets.len() as u64);
}

#[test]
fn nobody_on_a_wire_speaks_as_the_engine_does() {
    let lab = Lab::loaded();
    lab.host.exec(
        "sysctl",
        &[
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.accept_local=1",
        ],
    );
    lab.client_route("10.0.2.2");
    lab.client_route("10.0.1.9");
    lab.client_route("fd00:2::2");
    lab.client_route("fd00:1::9");
    let forged = [
        // As a service, to a client.
        tcp("10.0.1.100:6379", "10.0.1.9:40000", RST),
        tcp("10.0.1.100:80", "10.0.1.9:40000", ACK),
        tcp("[fd00:1::100]:80", "[fd00:1::9]:40000", RST),
        // As the engine, to a machine.
        tcp("10.0.1.100:40000", "10.0.2.2:6379", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:6379", ACK),
        // With `source = "client"` it could be anybody.
        tcp("10.0.1.9:40000", "10.0.2.2:80", RST),
        tcp("[fd00:1::9]:40000", "[fd00:2::2]:80", ACK),
    ];
    for (sent, packet) in (1..).zip(&forged) {
        lab.client.inside(|| send(packet, None)).unwrap();
        lab.wait_counted("forged", sent);
    }
    // The service's address may be a client elsewhere, and a machine may be used directly where the service is not `source = "client"`.
    let others = [
        tcp("10.0.1.100:40000", "10.0.1.9:22", SYN),
        tcp("10.0.1.9:40000", "10.0.2.2:6379", SYN),
    ];
    for packet in &others {
        lab.client.inside(|| send(packet, None)).unwrap();
    }
    lab.client.inside(|| send(&forged[0], None)).unwrap();
    lab.wait_counted("forged", forged.len() as u64 + 1);
    assert_eq!(lab.counted("untranslated"), 0);
}

#[test]
fn the_host_itself_says_nothing_in_a_services_name() {
    let lab = Lab::loaded();
    let silenced = [
        tcp("10.0.1.100:6379", "10.0.1.1:40000", RST),
        tcp("10.0.1.100:80", "10.0.1.1:40000", RST | ACK),
        tcp("10.0.1.100:40000", "10.0.2.2:6379", RST),
        tcp("10.0.1.100:40000", "10.0.2.2:80", RST),
        unreachable(true, 6),
        tcp("[fd00:1::100]:80", "[fd00:1::1]:40000", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:6379", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:80", RST),
        unreachable(false, 6),
    ];
    let passed = [
        tcp("10.0.1.100:22", "10.0.1.1:40000", RST),
        tcp("10.0.1.100:40000", "10.0.2.2:22", RST),
        tcp("10.0.1.100:6379", "10.0.1.1:40000", ACK),
        unreachable(true, 17),
        unreachable(false, 17),
    ];
    lab.host.inside(|| {
        for packet in &passed {
            send(packet, None).unwrap();
        }
        // The engine's own packets say the same, and may.
        for packet in &silenced {
            send(packet, Some(MARK)).unwrap();
        }
    });
    assert_eq!(lab.counted("silenced"), 0);
    for (sent, packet) in (1..).zip(&silenced) {
        // The sender may be told that its packet was refused.
        let _ = lab.host.inside(|| send(packet, None));
        assert_eq!(lab.counted("silenced"), sent, "{packet:02x?}");
    }
}

#[test]
fn counters_and_queued_packets_survive_a_reload() {
    let lab = Lab::loaded();
    let packet = fragment(tcp("10.0.1.1:40000", "10.0.1.100:6379", ACK), 0);
    lab.client.inside(|| send(&packet, None)).unwrap();
    lab.wait_counted("fragments", 1);
    let mut queue = lab.listen();
    let packet = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
    lab.client.inside(|| send(&packet, None)).unwrap();
    let mut held = receive(&mut queue).unwrap();
    // Deleting a base chain would drop what is held here; a reload must not.
    lab.load();
    held.set_verdict(Verdict::Accept);
    queue.verdict(held).unwrap();
    lab.wait_counted("untranslated", 1);
    assert_eq!(lab.counted("fragments"), 1);
}
