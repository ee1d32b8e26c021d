//! What is heard: of machines, by workers, echoes and the kernel's news of links. It goes to the detector (R14), or to the log (R17).

use std::net::{IpAddr, SocketAddr};

use tracing::{debug, trace, warn};

use super::super::roster::{Machine, State};
use super::super::worker::Notice;
use super::{Coordinator, Errand};
use crate::engine::{Difference, Event, MachineRef, Micros, Reason};
use crate::host::links::Loss;
use crate::host::probe::News;

impl Coordinator {
    pub(super) fn handle_echoes(&mut self, now: Micros) {
        while let Some(reply) = self.pinger.take_reply(now) {
            match reply {
                News::Echo { from, rtt } => {
                    for (machine, _) in self.ears.heard.iter() {
                        if let Some(record) = self.roster.machine_mut(machine)
                            && same_address(record.addr.ip(), from)
                        {
                            record.echo_rtt = Some(rtt);
                            self.ears.heard.note(machine, now);
                            self.detector.handle_probe_reply(now.saturating_sub(rtt), now, machine);
                        }
                    }
                }
                News::Unreachable { to } => {
                    self.suspect(now, Reason::Unreachable, |m| same_address(m.addr.ip(), to));
                }
            }
        }
    }

    /// What the kernel says of links and neighbours (R14).
    pub(super) fn handle_losses(&mut self, now: Micros) {
        let mut losses = Vec::new();
        self.links.take(|loss| losses.push(loss));
        for loss in losses {
            match loss {
                Loss::Link { ifindex } => self.suspect(now, Reason::LinkDown, |m| m.ifindex == Some(ifindex)),
                Loss::Neighbour { ifindex, ip } => self.suspect(now, Reason::Unreachable, |m| {
                    m.ifindex == Some(ifindex) && same_address(m.addr.ip(), ip)
                }),
            }
        }
    }

    /// Evidence that is no flow's, against all machines that it concerns.
    fn suspect(&mut self, now: Micros, reason: Reason, concerns: impl Fn(&Machine) -> bool) {
        for (machine, _) in self.ears.heard.iter() {
            if self.roster.machine(machine).is_some_and(&concerns) {
                debug!(machine = ?self.roster.names(machine), reason = reason.name(), "suspected");
                self.detector.handle_suspect(now, machine, reason);
            }
        }
    }

    pub(super) fn handle_notices(&mut self) {
        while let Ok(notice) = self.ears.notices.try_recv() {
            match notice {
                Notice::ProbeReply {
                    at,
                    sent,
                    machine,
                    accepts,
                } => {
                    self.detector.handle_probe_reply(sent, at, machine);
                    self.detector.handle_service(sent, at, machine, accepts);
                }
                Notice::Event {
                    at,
                    event: Event::Suspect { machine, reason },
                } => {
                    trace!(machine = ?self.roster.names(machine), reason = reason.name(), "suspected");
                    self.detector.handle_suspect(at, machine, reason);
                }
                Notice::Event {
                    at,
                    event: Event::Evict { machine, reason },
                } => self.take_down(machine, State::Evicted, reason, at, Errand::default()),
                Notice::Event {
                    at,
                    event: Event::Diverged { machine, difference },
                } => self.note_difference(at, machine, difference),
                Notice::Event {
                    at,
                    event: Event::SuperPacketsLost { machine },
                } => self.note_lost_supers(at, machine),
                Notice::Event {
                    at,
                    event:
                        Event::Outvoted {
                            machine,
                            client,
                            offset,
                        },
                } => self.note_outvoted(at, machine, client, offset),
            }
        }
    }

    /// Single segments arrive, super-packets do not.
    fn note_lost_supers(&mut self, at: Micros, machine: MachineRef) {
        if let Some(more) = self.uncut.pass(at) {
            let (service, name) = self.roster.names(machine);
            warn!(
                service,
                machine = name,
                more,
                "super-packets to it do not arrive: does a firewall of this host stop what is forwarded from their device? Going on with single segments \
                 for a minute; super_packets = false avoids the trial"
            );
        }
    }

    /// R17: a connection of this machine has begun to differ.
    fn note_difference(&mut self, at: Micros, machine: MachineRef, difference: Difference) {
        if let Some(record) = self.roster.machine_mut(machine) {
            record.diverged = Some((at, difference));
        }
        let Some(more) = self.differing.pass(at) else { return };
        let (service, name) = self.roster.names(machine);
        let original = MachineRef {
            service: machine.service,
            machine: difference.original,
        };
        let Difference {
            client, offset, start, ..
        } = difference;
        warn!(
            service,
            machine = name,
            original = self.roster.names(original).1,
            %client,
            offset,
            start,
            given = %difference.given,
            said = %difference.said,
            length = difference.length,
            more,
            "divergence"
        );
    }

    fn note_outvoted(&mut self, at: Micros, machine: MachineRef, client: SocketAddr, offset: u64) {
        if let Some(more) = self.outvoted.pass(at) {
            let (service, name) = self.roster.names(machine);
            warn!(service, original = name, %client, offset, more, "divergence: the majority agrees against the original");
        }
    }

    /// Passes on what the workers have heard since the last time.
    pub(super) fn tell_heard(&mut self) {
        for ((machine, at), told) in self.ears.heard.iter().zip(&mut self.told) {
            if at > *told {
                *told = at;
                self.detector.handle_heard(at, machine);
            }
        }
    }
}

/// An IPv4 address may come back in IPv6 clothes.
fn same_address(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}
