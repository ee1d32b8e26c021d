//! The ways from a client to a server that the ladder compares.

/// A program that relays between two connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `mode tcp`.
    Haproxy,
    /// The stream module.
    Nginx,
    /// One process a connection.
    Socat,
}

/// What stands between client and server on the engine's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing: the host forwards.
    Routing,
    /// A packet queue that gives everything back unread.
    Queue,
    /// nftables' address translation both ways, and so many blind copies of what the client sends.
    Nat {
        /// To so many machines.
        copies: usize,
    },
    /// Nothing, too; but the client itself sends the same to so many machines more, on a connection to each.
    Several {
        /// Beside the original, where Relevo's replicas run.
        replicas: usize,
    },
    /// A proxy.
    Proxy(Peer),
    /// Relevo.
    Relevo {
        /// Beside the original.
        replicas: usize,
        /// Who runs where.
        place: Place,
        /// Further lines of the service's configuration.
        more: &'static str,
    },
}

/// Which cores an engine and its replicas run on. The client and the original are on the first one. Each place is a lab with an engine of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The engine with the client, replicas on the other core.
    Apart,
    /// Everything with the client.
    Together,
    /// No replicas.
    Alone {
        /// Where the engine runs and how: lines of its configuration.
        engine: &'static str,
        /// Whether a program that never sleeps runs on the other core, too, while it is measured.
        load: bool,
    },
}

/// A way.
#[derive(Debug, PartialEq, Eq)]
pub struct Way {
    /// As in closing lines and in `WAYS`.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// What stands in between.
    pub by: By,
}

const fn relevo(replicas: usize, place: Place, more: &'static str) -> By {
    By::Relevo { replicas, place, more }
}

const fn alone(engine: &'static str, load: bool) -> By {
    relevo(0, Place::Alone { engine, load }, "")
}

const fn way(name: &'static str, what: &'static str, by: By) -> Way {
    Way { name, what, by }
}

/// All of them. The place in this list decides a way's port.
pub const ALL: [Way; 25] = [
    way("routed", "plain routing, no netfilter on the host", By::Routing),
    way("queue", "a packet queue that gives everything back unread", By::Queue),
    way("nat", "nftables DNAT and SNAT", By::Nat { copies: 0 }),
    way("dup1", "the same, and a blind copy (nft dup)", By::Nat { copies: 1 }),
    way("dup2", "the same, and 2 blind copies", By::Nat { copies: 2 }),
    way("dup3", "the same, and 3 blind copies", By::Nat { copies: 3 }),
    way("haproxy", "HAProxy, mode tcp", By::Proxy(Peer::Haproxy)),
    way("nginx", "nginx, stream", By::Proxy(Peer::Nginx)),
    way("socat", "socat, a process a connection", By::Proxy(Peer::Socat)),
    way("relevo0", "Relevo, no replica", relevo(0, Place::Apart, "")),
    way(
        "relevo1",
        "Relevo, 1 replica on the other core",
        relevo(1, Place::Apart, ""),
    ),
    way(
        "relevo2",
        "Relevo, 2 replicas on the other core",
        relevo(2, Place::Apart, ""),
    ),
    way(
        "relevo3",
        "Relevo, 3 replicas on the other core",
        relevo(3, Place::Apart, ""),
    ),
    way(
        "relevo3-off",
        "the same, nothing compared (R17)",
        relevo(3, Place::Apart, "diverge = \"off\""),
    ),
    way(
        "relevo1s",
        "Relevo, 1 replica on the same core",
        relevo(1, Place::Together, ""),
    ),
    way(
        "relevo2s",
        "Relevo, 2 replicas on the same core",
        relevo(2, Place::Together, ""),
    ),
    way(
        "relevo3s",
        "Relevo, 3 replicas on the same core",
        relevo(3, Place::Together, ""),
    ),
    way(
        "four",
        "plain routing, the client sends the same on four connections to four machines, three of them on the other core",
        By::Several { replicas: 3 },
    ),
    way("relevo0-free", "Relevo, no replica, on any core", alone("", false)),
    way(
        "relevo0-near",
        "the same, pinned to the client's core",
        alone("worker_cpus = [0, 0]", false),
    ),
    way(
        "relevo0-own",
        "the same, pinned to the core where the client is not",
        alone("worker_cpus = [1, 1]", false),
    ),
    way(
        "relevo0-poll",
        "and looking for packets for 50 µs before it sleeps",
        alone("worker_cpus = [1, 1]\nbusy_poll = \"50us\"", false),
    ),
    way(
        "relevo0-rt",
        "pinned likewise, before others",
        alone("worker_cpus = [1, 1]\nrealtime_priority = 1", false),
    ),
    way(
        "relevo0-load",
        "pinned likewise, beside a program that never sleeps",
        alone("worker_cpus = [1, 1]", true),
    ),
    way(
        "relevo0-load-rt",
        "the same, before it",
        alone("worker_cpus = [1, 1]\nrealtime_priority = 1", true),
    ),
];

/// The lowest port; each way has servers and a port of its own, since a machine's port belongs to one service.
const FIRST_PORT: u16 = 11_110;

impl Way {
    /// Where its servers listen, and what the client connects to.
    pub fn port(&self) -> u16 {
        let place = ALL.iter().position(|way| way.name == self.name);
        FIRST_PORT + place.and_then(|i| u16::try_from(i).ok()).expect("a way of the list")
    }

    /// Machines that it needs, the original among them.
    pub fn machines(&self) -> usize {
        match self.by {
            By::Nat { copies } => 1 + copies,
            By::Relevo { replicas, .. } | By::Several { replicas } => 1 + replicas,
            By::Routing | By::Queue | By::Proxy(_) => 1,
        }
    }

    /// Whether it is Relevo.
    pub fn is_relevo(&self) -> bool {
        matches!(self.by, By::Relevo { .. })
    }
}

/// Those of a bench that are also among the `chosen`, if there is a choice.
pub fn some(names: &[&str], chosen: Option<&[String]>) -> Vec<&'static Way> {
    let is_chosen = |way: &Way| chosen.is_none_or(|chosen| chosen.iter().any(|name| name == way.name));
    static LIST: [Way; ALL.len()] = ALL;
    LIST.iter()
        .filter(|way| names.contains(&way.name) && is_chosen(way))
        .collect()
}
