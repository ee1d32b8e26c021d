//! The hosts' turns: clients connect, stacks run and send over their links, and what a client has read is watched.

use std::rc::Rc;

use relevo::engine::{MILLISECOND, Micros, SECOND};

use super::World;
use super::queue::Happening;
use crate::app::ClientApp;
use crate::books::{Flow, Violation};
use crate::gateway::Gateway;
use crate::packet::{Packet, SYN};

/// So long after the network was healed, nothing more is to be expected of a connection whose client is done.
const SETTLED: Micros = 40 * SECOND;

impl<G: Gateway> World<G> {
    pub(super) fn connect(&mut self, flow: usize) -> Result<(), Violation> {
        let f = &self.scenario.flows[flow];
        let earlier = (0..flow).filter(|id| {
            let other = &self.scenario.flows[*id];
            (other.client, other.port) == (f.client, f.port)
        });
        let watch = &self.observer;
        let settled = self.now > self.scenario.heal + SETTLED;
        let forgotten = |id| settled && watch.original_failed(self.now, id);
        let left = |id| watch.is_at_limit(id) || forgotten(id) || !self.has_survivor(id);
        if earlier
            .clone()
            .any(|id| self.excused[id] || (self.done[id] && left(id)))
        {
            // What is left of a connection that nobody could carry on, or that its original has forgotten, is in the way.
            self.excuse(flow);
            return Ok(());
        }
        // A client gives its port up when its last acknowledgement has been seen, for others must not be lost with the socket; or when it was reset,
        // as by a machine that has forgotten a connection of which it lacked only the last acknowledgement.
        let over = |o: &Flow| o.finished() || o.reset_to_client;
        let finished = |id| self.observer.flows.iter().any(|o| o.id == id && over(o));
        if !earlier.clone().all(|id| self.done[id] && finished(id)) {
            self.at(self.now + 10 * MILLISECOND, Happening::Connect(flow));
            return Ok(());
        }
        let host = self.machines() + f.client;
        let app = ClientApp::new(Rc::clone(&self.scripts), flow, self.scenario.clients[f.client].pace);
        self.hosts[host].connect(self.scenario.psc(), f.port, app);
        self.connected[flow] = true;
        self.last_byte[flow] = (0, self.now);
        self.host_run(host, None)
    }

    pub(super) fn host_run(&mut self, host: usize, packet: Option<Vec<u8>>) -> Result<(), Violation> {
        if self.frozen_at[host].is_some() && (packet.is_some() || self.stopped[host]) {
            return Ok(());
        }
        if let Err(wrong) = self.hosts[host].run(self.now, packet) {
            self.excuse_or_fail(host, wrong)?;
        }
        while let Some(packet) = self.hosts[host].take_packet(self.now) {
            let syn = host >= self.machines() && is_syn(&packet);
            let arrivals = self.up[host].transit(self.now, packet.len(), syn);
            let silent = self.frozen_at[host].is_some();
            for at in arrivals.into_iter().flatten().filter(|_| !silent) {
                self.at(at, Happening::ToEngine(host, packet.clone()));
            }
            if silent || arrivals[0].is_none() {
                self.note_lost(host, &packet);
            }
        }
        self.worked_at = self.worked_at.max(self.hosts[host].worked_at);
        self.set_host_timer(host);
        if host >= self.machines() {
            self.watch_client(host);
        }
        Ok(())
    }

    pub(super) fn set_host_timer(&mut self, host: usize) {
        // A stack that wants to be run at once but then does nothing must not stop the clock.
        let next = self.hosts[host].next_deadline(self.now).map(|at| at.max(self.now + 50));
        if let Some((at, number)) = self.host_timer[host].set(next) {
            self.at(at, Happening::Host(host, number));
        }
    }

    fn note_lost(&mut self, host: usize, bytes: &[u8]) {
        if let Ok(packet) = Packet::parse(bytes) {
            let (now, hosts) = (self.now, &self.hosts);
            self.trace.packet(
                now,
                || format!("{} > lost", hosts[host].name),
                &packet,
                (None, None),
                String::new,
            );
        }
    }

    fn watch_client(&mut self, host: usize) {
        for flow in 0..self.scenario.flows.len() {
            if self.machines() + self.scenario.flows[flow].client != host || !self.connected[flow] || self.done[flow] {
                continue;
            }
            let Some(app) = self.hosts[host].client(flow) else {
                continue;
            };
            if app.read > self.last_byte[flow].0 {
                self.summary.longest_gap = self.summary.longest_gap.max(self.now - self.last_byte[flow].1);
                self.last_byte[flow] = (app.read, self.now);
            }
            if app.done {
                self.done[flow] = true;
                self.summary.end = self.now;
                self.trace
                    .note(self.now, || format!("flow {flow} is over for its client"));
                // What is left of it on the other side may stand in the way of the next connection.
                if self.observer.is_at_limit(flow) {
                    self.meet_limit(flow);
                }
            }
        }
    }
}

fn is_syn(bytes: &[u8]) -> bool {
    Packet::parse(bytes).is_ok_and(|p| p.has(SYN))
}
