//! Server-side ports for `source = "psc"` (design section 2): the client's own where it is free, else one out of a pool, the
//! least recently used first, so that a machine's TIME-WAIT has the most time to pass.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;

/// The port that probes come from (R14); no client is given it on the machines' side.
pub const PROBE_PORT: u16 = 9;

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
        }
    }

    /// A free port, `wanted` if possible; `None` if all are taken.
    pub fn take(&mut self, wanted: u16, taken: impl Fn(u16) -> bool) -> Option<u16> {
        if wanted != PROBE_PORT && wanted != 0 && !taken(wanted) {
            return Some(wanted);
        }
        let (range, shard, shards) = (self.range.clone(), self.shard, self.shards);
        let pool = self.pool.get_or_insert_with(|| {
            range
                .filter(|p| shard_of(*p, shards) == shard && *p != PROBE_PORT && *p != 0)
                .collect()
        });
        for _ in 0..pool.len() {
            let port = pool.pop_front()?;
            if !taken(port) {
                self.lent.insert(port);
                return Some(port);
            }
            pool.push_back(port);
        }
        None
    }

    /// The port is free again: it goes to the end of the line.
    pub fn give_back(&mut self, port: u16) {
        if self.lent.remove(&port)
            && let Some(pool) = &mut self.pool
        {
            pool.push_back(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

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
            let port = ports.take(40_002, |p| taken.contains(&p));
            assert_eq!(port, expected);
            taken.extend(port);
        }
        taken.remove(&20_003);
        ports.give_back(20_003);
        taken.remove(&20_002);
        ports.give_back(20_002);
        assert_eq!(
            ports.take(40_002, |p| taken.contains(&p)),
            Some(20_003),
            "the least recently used first"
        );
    }

    #[test]
    fn nobody_gets_the_probes_port() {
        assert_eq!(Ports::new(8..=10, 0, 1).take(PROBE_PORT, |_| false), Some(8));
    }
}
