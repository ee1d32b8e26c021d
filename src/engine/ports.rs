//! Server-side ports for `source = "psc"` (design section 2): the client's own where it is free, else one out of a pool, the
//! least recently used first, so that a machine's TIME-WAIT has the most time to pass.
//!
//! To a machine, all clients are one host, and one host does not begin a connection where its own old segments may still be under way to
//! end or spoil it: it waits (RFC 9293 section 3.6.1), or goes on with higher numbers (RFC 6528, RFC 6191). Two clients know nothing of
//! each other's numbers. So what one of them has just left rests before another gets it.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// The port that probes come from (R14); no client is given it on the machines' side.
pub const PROBE_PORT: u16 = 9;

/// So many ports rest. A segment is under way to a machine for a fraction of a millisecond, in which even a busy shard ends few connections.
const RESTING: usize = 256;

/// Which shard a client-side port leads to, of a power of two of them: by the low bits but for the lowest, for Linux gives all its
/// outgoing connections ports of one parity. The rules say the same.
#[must_use]
pub fn shard_of(port: u16, shards: u16) -> u16 {
    (port >> 1) % shards.max(1)
}

/// The pool of one service in one shard: only ports that lead back to this shard's queue.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    shard: u16,
    shards: u16,
    /// Filled when the first client needs it: most services never do.
    pool: Option<VecDeque<u16>>,
    /// Handed out of the pool, not just taken because a client came with it.
    lent: HashSet<u16>,
    /// What was given back last, and who had it.
    resting: VecDeque<(u16, SocketAddr)>,
}

impl Ports {
    /// A pool over the ports of `range` that lead to `shard` of `shards` (a power of two).
    #[must_use]
    pub fn new(range: RangeInclusive<u16>, shard: u16, shards: u16) -> Self {
        Self {
            range,
            shard,
            shards: shards.max(1),
            pool: None,
            lent: HashSet::new(),
            resting: VecDeque::new(),
        }
    }

    /// A free port, the client's own if possible, and none that another client has just left if there is a choice; `None` if all are taken.
    pub fn take(&mut self, client: SocketAddr, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let own = client.port();
        let can_be = own != PROBE_PORT && own != 0 && !taken(own);
        let resting = std::mem::take(&mut self.resting);
        let rests = |port| resting.iter().any(|(left, by)| *left == port && *by != client);
        let port = if can_be && !rests(own) {
            Some(own)
        } else {
            self.lend(|port| !taken(port) && !rests(port))
                .or(can_be.then_some(own))
                .or_else(|| self.lend(|port| !taken(port)))
        };
        self.resting = resting;
        port
    }

    /// The first port of the pool that is fit.
    fn lend(&mut self, is_fit: impl Fn(u16) -> bool) -> Option<u16> {
        let (range, shard, shards) = (self.range.clone(), self.shard, self.shards);
        let pool = self.pool.get_or_insert_with(|| {
            range
                .filter(|p| shard_of(*p, shards) == shard && *p != PROBE_PORT && *p != 0)
                .collect()
        });
        for _ in 0..pool.len() {
            let port = pool.pop_front()?;
            if is_fit(port) {
                self.lent.insert(port);
                return Some(port);
            }
            pool.push_back(port);
        }
        None
    }

    /// The port that stood for `client` is free again: it rests, and goes to the end of the line.
    pub fn give_back(&mut self, port: u16, client: SocketAddr) {
        if self.lent.remove(&port)
            && let Some(pool) = &mut self.pool
        {
            pool.push_back(port);
        }
        self.resting.retain(|(left, _)| *left != port);
        if self.resting.len() >= RESTING {
            self.resting.pop_front();
        }
        self.resting.push_back((port, client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn client(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 1, host], port).into()
    }

    #[test]
    fn the_second_client_with_a_port_gets_another_of_the_same_shard() {
        let mut ports = Ports::new(20_000..=20_007, 1, 2);
        let mut taken = HashSet::new();
        for expected in [
            Some(40_002),
            Some(20_002),
            Some(20_003),
            Some(20_006),
            Some(20_007),
            None,
        ] {
            let port = ports.take(client(1, 40_002), |p| taken.contains(&p));
            assert_eq!(port, expected);
            taken.extend(port);
        }
        taken.remove(&20_003);
        ports.give_back(20_003, client(1, 40_002));
        taken.remove(&20_002);
        ports.give_back(20_002, client(1, 40_002));
        assert_eq!(
            ports.take(client(1, 40_002), |p| taken.contains(&p)),
            Some(20_003),
            "the least recently used first"
        );
    }

    #[test]
    fn nobody_gets_the_probes_port() {
        assert_eq!(Ports::new(8..=10, 0, 1).take(client(1, PROBE_PORT), |_| false), Some(8));
    }

    #[test]
    fn what_a_client_has_just_left_rests_before_another_gets_it() {
        let mut ports = Ports::new(20_000..=20_001, 0, 1);
        ports.give_back(40_000, client(1, 40_000));
        let free = |_| false;
        assert_eq!(ports.take(client(1, 40_000), free), Some(40_000), "its own again");
        assert_eq!(ports.take(client(2, 40_000), free), Some(20_000), "another's");
        ports.give_back(20_000, client(2, 40_000));
        assert_eq!(
            ports.take(client(3, 20_000), free),
            Some(20_001),
            "out of the pool, too"
        );
        let full = |port| port == 20_001;
        assert_eq!(ports.take(client(3, 20_000), full), Some(20_000), "better than none");
        for port in 1..=256 {
            ports.give_back(port, client(4, port));
        }
        assert_eq!(ports.take(client(2, 40_000), free), Some(40_000), "it has rested");
    }
}
