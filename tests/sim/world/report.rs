//! The report of a failure: everybody's state in words, and what each link carried.

use relevo::engine::{Counter, ShardStatus};

use super::World;
use crate::gateway::Gateway;
use crate::pcap::Capture;

impl<G: Gateway> World<G> {
    /// Keeps what each link carries.
    pub fn capture(&mut self) {
        self.captures.resize_with(self.hosts.len(), Capture::default);
    }

    /// Writes the captures of all links, one file each.
    pub fn write_captures(&self, dir: &std::path::Path) -> std::io::Result<()> {
        for (capture, host) in self.captures.iter().zip(&self.hosts) {
            let name = format!("seed-{}-{}.pcap", self.scenario.seed, host.name.replace(' ', "-"));
            capture.write(&dir.join(name))?;
        }
        Ok(())
    }

    /// Everything that helps to understand a failure.
    pub fn describe(&self) -> String {
        let mut text = format!("at {:.3} ms\n", self.now as f64 / 1e3);
        for (i, host) in self.hosts.iter().enumerate() {
            if self.frozen_at[i].is_some() {
                text += &format!("    {} is frozen\n", host.name);
            }
            text += &host.describe();
        }
        for (m, id) in self.unfinished() {
            text += &format!("    machine {m} has yet to read flow {id}\n");
        }
        for flow in &self.observer.flows {
            text += &format!(
                "    flow {}: client sent {} acked {} told ack {} edge {} sent {}, original {:?}, fin {:?}\n",
                flow.id, flow.sent, flow.acked, flow.told.ack, flow.told.edge, flow.told.sent, flow.original, flow.fin
            );
            for (m, leg) in flow.legs.iter().enumerate() {
                let Some(l) = leg else { continue };
                text += &format!(
                    "      leg {m}: sent {} acked {} edge {}, told ack {} edge {} sent {}, reset {} lost {}\n",
                    l.sent, l.acked, l.edge, l.told.ack, l.told.edge, l.told.sent, l.reset, l.lost
                );
            }
        }
        text + &describe_status(&self.engine.status())
    }
}

fn describe_status(status: &ShardStatus) -> String {
    use relevo::engine::DropReason;
    let mut text = format!("    engine: {} bytes buffered\n", status.buffered_bytes);
    for service in &status.services {
        text += &format!(
            "      original {:?}, {} flows, {} half open\n",
            service.original, service.flows, service.half_open
        );
        for (i, m) in service.machines.iter().enumerate() {
            text += &format!("      machine {i}: {m:?}\n");
        }
    }
    let counters = Counter::ALL.iter().map(|c| (c.name(), status.stats.get(*c)));
    let drops = DropReason::ALL.iter().map(|d| (d.name(), status.stats.drops(*d)));
    let used = counters
        .chain(drops)
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {n}"));
    text + "      " + &used.collect::<Vec<_>>().join(", ") + "\n"
}
