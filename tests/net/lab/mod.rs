//! The lab: real Linux network stacks in namespaces, real services and the real binary, for tests, demo and bench.
//!
//! ```text
//!   client ───┐ 10.0.1.0/24           10.0.10.0/24 ┌─── m0   the original
//!   .2   eth0 │ fd00:1::/64           fd00:10::/64 │    .2
//!             c0                                  m0
//!          .1  └──────────  engine  ─────────────┘ .1
//!              ┌──────────  host    ─────────────┐
//!             c1   PSC 10.0.1.100 on c0          m1    ... m2, m3
//!   client2   │    PSC fd00:1::100               │
//!   .2   eth0 │ 10.0.2.0/24           10.0.11.0/24 └─── m1   the first replica
//!             └ fd00:2::/64           fd00:11::/64      .2
//! ```
//!
//! Every box is a network namespace `rlv<pid>x<n>-<box>`, every line a veth pair with a subnet of its own. All hosts have the
//! engine host as their default gateway, so both `source` modes work. Nothing outside the namespaces is touched, and two labs, or
//! two copies of the whole test run, don't see each other.
//!
//! Cleaning up is the business of one small shell process per lab (the [`netns::Keeper`]): it waits for the end of its standard
//! input, which comes when the lab is dropped and also when the whole program is killed, and then removes what the lab made.

pub mod arguments;
pub mod capture;
pub mod cluster;
pub mod counters;
pub mod crowd;
pub mod engine;
pub mod faults;
pub mod netns;
pub mod pattern;
pub mod peers;
pub mod process;
pub mod program;
pub mod quantile;
pub mod raw;
pub mod relay;
pub mod services;
pub mod surroundings;
pub mod upload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use netns::Host;

use faults::Link;

/// Which IP version a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Hosts, links and addresses; see the drawing above.
pub struct Lab {
    // Fields are dropped in this order: the keeper removes the namespaces and the directory.
    _captures: Vec<capture::Capture>,
    _keeper: netns::Keeper,
    dir: PathBuf,
    clients: Vec<Host>,
    engine: Host,
    machines: Vec<Host>,
    relays: Vec<(Link, Host)>,
}

impl Lab {
    /// One client, the engine host and `machines` machines.
    pub fn new(machines: usize) -> Self {
        Self::with_clients(1, machines)
    }

    /// `clients` clients, the engine host and `machines` machines.
    pub fn with_clients(clients: usize, machines: usize) -> Self {
        Self::with_relays(clients, machines, &[])
    }

    /// The same; through each of the links `relayed` nothing passes until a [`relay::Relay`] is started on its host, [`Lab::relay`].
    pub fn with_relays(clients: usize, machines: usize, relayed: &[Link]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces and must run as root"
        );
        let prefix = format!("rlv{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&prefix);
        let keeper = netns::Keeper::start(&prefix, &dir);
        std::fs::create_dir_all(&dir).expect("make the lab's directory");

        let engine = Host::create(&prefix, "engine", 0);
        // A firewall host forwards; what else the engine needs is its own business.
        engine.sysctl("net/ipv4/ip_forward", "1");
        engine.sysctl("net/ipv6/conf/all/forwarding", "1");
        let relays: Vec<(Link, Host)> = relayed
            .iter()
            .map(|&link| (link, Host::create(&prefix, &format!("relay-{}", link.interface()), 0)))
            .collect();
        let connect = |host: &Host, link: Link| match relays.iter().find(|(l, _)| *l == link) {
            Some((_, relay)) => host.connect_through(relay, &engine, &link.interface()),
            None => host.connect(&engine, &link.interface()),
        };
        let clients: Vec<Host> = (0..clients)
            .map(|i| {
                let name = if i == 0 {
                    "client".to_owned()
                } else {
                    format!("client{}", i + 1)
                };
                let host = Host::create(&prefix, &name, 1 + u8::try_from(i).expect("few clients"));
                connect(&host, Link::Client(i));
                counters::watch_resets(&host);
                host
            })
            .collect();
        let machines: Vec<Host> = (0..machines)
            .map(|i| {
                let name = format!("m{i}");
                let host = Host::create(&prefix, &name, 10 + u8::try_from(i).expect("few machines"));
                connect(&host, Link::Machine(i));
                host.begin_with_ttl(capture::ttl_of(i));
                counters::watch_resets(&host);
                host
            })
            .collect();
        engine.ip_batch("addr add 10.0.1.100/24 dev c0\naddr add fd00:1::100/64 dev c0 nodad\n");
        let captures = capture::Capture::of_all(&clients.iter().chain(&machines).collect::<Vec<_>>());
        Self {
            _captures: captures,
            _keeper: keeper,
            dir,
            clients,
            engine,
            machines,
            relays,
        }
    }

    /// Links keep the order of packets, as cables do. A veth pair keeps it only for what one processor sends: a segment that waits in the queue of
    /// one is overtaken by the next when its sender has moved to another, and a TCP takes it for lost. For tests that count what was lost.
    pub fn keep_order(&self) {
        let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
        let set = |host: &Host, interface: &str, processor| {
            host.take_up_on(interface, processor)
                .unwrap_or_else(|e| panic!("receive packet steering for {interface}: {e}"));
        };
        let clients = (0..self.clients.len()).map(Link::Client);
        let machines = (0..self.machines.len()).map(Link::Machine);
        for link in clients.chain(machines) {
            set(&self.engine, &link.interface(), 0);
        }
        for host in self.clients.iter().chain(&self.machines) {
            set(host, "eth0", last);
        }
    }

    /// A directory that goes with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The first client.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }
    /// All clients.
    pub fn clients(&self) -> &[Host] {
        &self.clients
    }
    /// The host that the engine runs on.
    pub fn engine(&self) -> &Host {
        &self.engine
    }
    /// All machines, original first.
    pub fn machines(&self) -> &[Host] {
        &self.machines
    }
    /// Machine number `i`; 0 is the original.
    pub fn machine(&self, i: usize) -> &Host {
        &self.machines[i]
    }
    /// The namespace in the middle of a relayed link.
    pub fn relay(&self, link: Link) -> &Host {
        let relay = self.relays.iter().find(|(l, _)| *l == link);
        relay.map(|(_, host)| host).expect("a link that was made with a relay")
    }
    /// The PSC's address with the given port.
    pub fn psc(&self, family: Family, port: u16) -> SocketAddr {
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 1, 100)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x100)),
        };
        SocketAddr::new(ip, port)
    }
}

/// Ends the labs of this program when it is interrupted, then ends the program with the shell's exit code for it.
pub fn clean_up_on_interrupt() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("listen for signals");
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("\ninterrupted: removing the namespaces");
            // What the rest of the program would still say of its dying services is of no interest: it waits here.
            let (_out, _err) = (std::io::stdout().lock(), std::io::stderr().lock());
            netns::Keeper::end_all();
            std::process::exit(128 + signal);
        }
    });
}

/// Polls `probe` until it says something; panics with `what` when `limit` is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
