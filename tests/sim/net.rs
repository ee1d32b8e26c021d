//! Links: what happens to a packet between a host and the engine, drawn from the seed.

use relevo::engine::Micros;

use crate::rng::Rng;

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkSpec {
    /// Least time under way in microseconds.
    pub delay: Micros,
    /// Drawn on top of the delay, in microseconds; packets keep their order.
    pub jitter: Micros,
    /// Lost packets in 1,000.
    pub loss: u32,
    /// Doubled packets in 1,000.
    pub dup: u32,
    /// Packets in 1,000 that are overtaken by those that follow within `late`.
    pub reorder: u32,
    /// How much later such a packet arrives, at most, in microseconds.
    pub late: Micros,
    /// Nanoseconds for each byte; 0 is infinitely fast.
    pub ns_per_byte: u64,
}

impl LinkSpec {
    /// Nothing is lost, doubled or overtaken.
    pub const fn clean(delay: Micros) -> Self {
        Self {
            delay,
            jitter: 0,
            loss: 0,
            dup: 0,
            reorder: 0,
            late: 0,
            ns_per_byte: 0,
        }
    }
    pub const fn is_clean(&self) -> bool {
        self.loss == 0
    }
}

/// One direction of a link at work.
#[derive(Debug)]
pub struct Link {
    spec: LinkSpec,
    rng: Rng,
    free_at_ns: u64,
    last: Micros,
}

impl Link {
    pub fn new(spec: LinkSpec, rng: Rng) -> Self {
        Self {
            spec,
            rng,
            free_at_ns: 0,
            last: 0,
        }
    }

    /// Ends loss, doubling and overtaking.
    pub fn heal(&mut self) {
        (self.spec.loss, self.spec.dup, self.spec.reorder) = (0, 0, 0);
    }

    /// When a packet that leaves now arrives: never, once or twice. A SYN does not outlive its connection: on addresses in use
    /// again it would be the first of another one.
    pub fn transit(&mut self, now: Micros, bytes: usize, syn: bool) -> [Option<Micros>; 2] {
        // All is drawn whatever the spec says, so that changing one figure of a scenario leaves the others' chances alone.
        let jitter = self.rng.below(self.spec.jitter + 1);
        let late = self.rng.below(self.spec.late + 1);
        let (lost, doubled) = (self.rng.chance(self.spec.loss), self.rng.chance(self.spec.dup) && !syn);
        let overtaken = self.rng.chance(self.spec.reorder) && !syn;
        if lost {
            return [None; 2];
        }
        self.free_at_ns = self.free_at_ns.max(now * 1000) + bytes as u64 * self.spec.ns_per_byte;
        let mut at = (self.free_at_ns.div_ceil(1000) + self.spec.delay + jitter).max(self.last);
        if overtaken {
            at += late;
        } else {
            self.last = at;
        }
        [Some(at), doubled.then_some(at + late)]
    }
}
