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
    /// A proxy.
    Proxy(Peer),
    /// Relevo.
    Relevo {
        /// Beside the original.
        replicas: usize,
        /// Whether everything of the replicas runs on the client's, engine's and original's core.
        same_core: bool,
        /// Further lines of the service's configuration.
        more: &'static str,
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

const fn relevo(replicas: usize, same_core: bool, more: &'static str) -> By {
    By::Relevo {
        replicas,
        same_core,
        more,
    }
}

const fn way(name: &'static str, what: &'static str, by: By) -> Way {
    Way { name, what, by }
}

/// All of them. The place in this list decides a way's port.
pub const ALL: [Way; 17] = [
    way("routed", "plain routing, no netfilter on the host", By::Routing),
    way("queue", "a packet queue that gives everything back unread", By::Queue),
    way("nat", "nftables DNAT and SNAT", By::Nat { copies: 0 }),
    way("dup1", "the same, and a blind copy (nft dup)", By::Nat { copies: 1 }),
    way("dup2", "the same, and 2 blind copies", By::Nat { copies: 2 }),
    way("dup3", "the same, and 3 blind copies", By::Nat { copies: 3 }),
    way("haproxy", "HAProxy, mode tcp", By::Proxy(Peer::Haproxy)),
    way("nginx", "nginx, stream", By::Proxy(Peer::Nginx)),
    way("socat", "socat, a process a connection", By::Proxy(Peer::Socat)),
    way("relevo0", "Relevo, no replica", relevo(0, false, "")),
    way("relevo1", "Relevo, 1 replica on the other core", relevo(1, false, "")),
    way("relevo2", "Relevo, 2 replicas on the other core", relevo(2, false, "")),
    way("relevo3", "Relevo, 3 replicas on the other core", relevo(3, false, "")),
    way(
        "relevo3-off",
        "the same, nothing compared (R17)",
        relevo(3, false, "diverge = \"off\""),
    ),
    way("relevo1s", "Relevo, 1 replica on the same core", relevo(1, true, "")),
    way("relevo2s", "Relevo, 2 replicas on the same core", relevo(2, true, "")),
    way("relevo3s", "Relevo, 3 replicas on the same core", relevo(3, true, "")),
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
            By::Relevo { replicas, .. } => 1 + replicas,
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
