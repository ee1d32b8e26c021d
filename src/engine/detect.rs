//! R14: evidence, then proof. Decides which machine is probed when, and which is dead.
//!
//! Pure like the rest; one [`Detector`] serves all shards, owned by whoever coordinates them. A machine is *quiet* (watched, probed
//! every `probe_interval` in which nothing was heard of it) or *suspected* (a burst of `probes` probes is under way). Any packet
//! from it ends a burst. A burst that ends without one is the proof. The probe of an idle machine is the first of a burst, too.
//!
//! A host that answers and a service that does not are different things: a SYN that is refused says that the host lives. A machine that
//! refuses `probes` SYNs in a row while another machine of its service accepts one has lost its service. Where all
//! refuse, the service is closed, and no machine is to blame.
//!
//! Between the probes of a burst lies half the floor, but never less than two round trips as probes have measured them: a
//! machine far away is not dead. Evidence of many flows counts together: what any of them hears ends the burst for all, and where many
//! fall silent at once, or somebody else says that the machine can't be reached, the burst is one probe shorter. Where it is the host that has
//! lost its link, a packet that is not an answer does not end the burst, but begins it again: it may be older than the loss.

mod link;
mod service;
mod way;

use self::link::Link;
use self::service::{Refusal, Service};
use self::way::Way;
use super::Reason;
use super::spec::{MILLISECOND, MachineId, MachineRef, Micros, ServiceId, ServiceSpec};
use crate::mutant::{self, Mutation};

/// The least wait between two probes of a machine that was never heard of: three of them outlast the second after which a lost question for
/// its link-layer address is asked again (RFC 4861 section 10; Linux waits as long with ARP).
const UNMEASURED: Micros = 400 * MILLISECOND;

/// A machine that speaks all the time is probed nevertheless after so many intervals, to learn how long its way is now.
const MEASURE: u64 = 10;

/// So many flows that fall silent together are as good as a probe that nobody answers.
const MANY: u32 = 16;
/// The shortest burst that evidence can lead to: one probe may be lost.
const SHORTEST: u32 = 2;

/// What the detector wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the machine a probe by every means at hand (SYN to the service port, ICMP echo).
    Probe {
        /// Who.
        machine: MachineRef,
    },
    /// The machine is proved dead.
    Down {
        /// Who.
        machine: MachineRef,
        /// What raised the suspicion.
        reason: Reason,
        /// When it was raised, or last renewed.
        suspected_at: Micros,
    },
}

/// A burst under way.
#[derive(Clone, Copy, Debug)]
struct Burst {
    reason: Reason,
    since: Micros,
    sent: u32,
    next_at: Micros,
    /// Flows that have fallen silent, up to [`MANY`].
    silent: u32,
}

#[derive(Debug)]
struct Watch {
    machine: MachineRef,
    heard_at: Micros,
    /// It was ever heard of.
    known: bool,
    probed_at: Micros,
    burst: Option<Burst>,
    down: bool,
    probes: u32,
    floor: Micros,
    interval: Micros,
    way: Way,
    link: Link,
    service: Service,
}

/// Watches the machines of all services.
#[derive(Debug)]
pub struct Detector {
    watches: Vec<Watch>,
}

impl Detector {
    /// All machines count as up. Each is probed at once, to learn how long its way is.
    #[must_use]
    pub fn new(services: &[ServiceSpec], now: Micros) -> Self {
        let watches = (0u16..).zip(services).flat_map(|(s, service)| {
            (0u16..).zip(&service.machines).map(move |(m, _)| Watch {
                machine: MachineRef {
                    service: ServiceId(s),
                    machine: MachineId(m),
                },
                heard_at: now.saturating_sub(service.detect.probe_interval),
                known: false,
                probed_at: 0,
                burst: None,
                down: false,
                probes: service.detect.probes.max(1),
                floor: service.detect.floor,
                interval: service.detect.probe_interval.max(1),
                way: Way::default(),
                link: Link::default(),
                service: Service::default(),
            })
        });
        Self {
            watches: watches.collect(),
        }
    }

    fn watch(&mut self, machine: MachineRef) -> Option<&mut Watch> {
        self.watches.iter_mut().find(|w| w.machine == machine)
    }

    /// Evidence from a flow, or from the host: starts a probe burst unless one runs, which it supports then. A hang is its own proof: the
    /// kernel would answer any probe.
    pub fn handle_suspect(&mut self, now: Micros, machine: MachineRef, reason: Reason) {
        if reason == Reason::Hang {
            if let Some(watch) = self.watch(machine).filter(|w| !w.down) {
                watch.service.hangs(now);
            }
            return;
        }
        if let Some(watch) = self.watch(machine)
            && !watch.down
        {
            watch.suspect(now, reason);
            if reason == Reason::LinkDown {
                watch.link.lose(now);
            }
            if reason == Reason::Vote {
                // Should its service refuse, it counts what the others' do: they are asked together, for answers may take their time when
                // ten thousand connections end.
                self.ask_others(now, machine, |_| true);
            }
        }
    }

    fn ask_others(&mut self, now: Micros, machine: MachineRef, which: impl Fn(&Watch) -> bool) {
        let others = self.watches.iter_mut().filter(|w| w.machine.service == machine.service);
        for other in others.filter(|w| w.machine != machine && !w.down && which(w)) {
            other.service.ask(now);
        }
    }

    /// Any packet from the machine, at the time it was taken from a queue. One that was taken before a suspicion does not disprove it.
    pub fn handle_heard(&mut self, at: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.heard_at = watch.heard_at.max(at);
            watch.known = true;
            let renewed = watch.link.may_have_brought(at, watch.interval);
            watch.burst = match watch.burst {
                Some(burst) if at > burst.since => renewed.then_some(Burst {
                    since: at,
                    sent: 0,
                    ..burst
                }),
                burst => burst,
            };
        }
    }

    /// The answer, `at` a time, to a probe that was sent at another: it counts as life and measures the way.
    pub fn handle_probe_reply(&mut self, sent: Micros, at: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.way.answered(sent, at);
            watch.link.answered(sent);
        }
        self.handle_heard(at, machine);
    }

    /// A machine's service has accepted a probe that was `sent` a time, or its host has refused it because nobody listens.
    pub fn handle_service(&mut self, sent: Micros, at: Micros, machine: MachineRef, accepts: bool) {
        let Some(watch) = self.watch(machine).filter(|w| !w.down) else {
            return;
        };
        if accepts {
            watch.service.accepted(sent);
            return;
        }
        let refusal = watch.service.refused(sent);
        // Once it is plain, there is no hurry: others may accept again.
        let pause = if refusal.count >= watch.probes {
            watch.interval
        } else {
            watch.spacing()
        };
        watch.service.ask(at + pause);
        // Again each time, for an answer may have been lost.
        let open = |w: &Watch| w.service.refusal().is_none() && !w.service.accepts_since(refusal.since);
        self.ask_others(at, machine, open);
    }

    /// A machine whose service refuses while another's accepts.
    fn refuser(&self) -> Option<(usize, Refusal)> {
        let alive = || self.watches.iter().enumerate().filter(|(_, w)| !w.down);
        alive().find_map(|(index, w)| {
            let refusal = w.service.refusal().filter(|r| r.count >= w.probes)?;
            let another =
                alive().any(|(_, o)| o.machine.service == w.machine.service && o.service.accepts_since(refusal.since));
            another.then_some((index, refusal))
        })
    }

    /// Whoever runs the detector was not scheduled in time, or a shard was not: what was not heard is no evidence. Bursts begin again.
    pub fn handle_stall(&mut self, now: Micros) {
        for watch in &mut self.watches {
            watch.burst = watch.burst.map(|b| Burst {
                sent: 0,
                next_at: now,
                ..b
            });
        }
    }

    /// The machine was declared dead, evicted or disabled elsewhere: it is no longer watched. Who is said to hang may have been measured by it: the
    /// flows say it again if others show it, too.
    pub fn handle_down(&mut self, machine: MachineRef) {
        for other in self.watches.iter_mut().filter(|w| w.machine.service == machine.service) {
            other.service.take_hang();
        }
        if let Some(watch) = self.watch(machine) {
            watch.down = true;
            watch.burst = None;
            watch.way.forget();
            watch.link.forget();
            watch.service = Service::default();
        }
    }

    /// The machine was enabled again.
    pub fn handle_up(&mut self, now: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.down = false;
            watch.burst = None;
            // Its absence is no part of its way.
            watch.way.forget();
            watch.service = Service::default();
            watch.heard_at = now.saturating_sub(watch.interval);
            watch.probed_at = 0;
        }
    }

    /// The next thing to do, if any is due; call until `None`.
    pub fn poll(&mut self, now: Micros) -> Option<Action> {
        if let Some((index, refusal)) = self.refuser() {
            return Some(self.watches[index].fall(Reason::Refused, refusal.since));
        }
        let hung = |w: &mut Watch| w.service.take_hang().map(|since| w.fall(Reason::Hang, since));
        if let Some(fall) = self.watches.iter_mut().filter(|w| !w.down).find_map(hung) {
            return Some(fall);
        }
        self.watches.iter_mut().filter(|w| !w.down).find_map(|w| w.poll(now))
    }

    /// When [`Detector::poll`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        self.watches.iter().filter(|w| !w.down).map(Watch::deadline).min()
    }

    /// The shortest time between two probes of a burst: a wake-up that is later than this is a stall.
    #[must_use]
    pub fn patience(&self) -> Micros {
        self.watches.iter().map(Watch::spacing).min().unwrap_or(1)
    }
}

impl Watch {
    fn deadline(&self) -> Micros {
        let ask = self.service.asks_at().unwrap_or(Micros::MAX);
        ask.min(self.burst_deadline())
    }

    fn burst_deadline(&self) -> Micros {
        match self.burst {
            Some(burst) => burst.next_at,
            None if self.way.is_doubtful() => self.probed_at,
            // A burst like any other: whoever speaks ends it.
            None => (self.heard_at.max(self.probed_at) + self.interval).min(self.probed_at + MEASURE * self.interval),
        }
    }

    fn suspect(&mut self, now: Micros, reason: Reason) {
        let Some(burst) = &mut self.burst else {
            self.burst = Some(Burst {
                reason,
                since: now,
                sent: 0,
                next_at: now,
                silent: weight(reason),
            });
            return;
        };
        // A flow says so again after the floor at the earliest, so each is counted once in that time.
        if now < burst.since + self.floor || weight(reason) == MANY {
            burst.silent = (burst.silent + weight(reason)).min(MANY);
        }
        // It was only its turn to be probed: now there is a reason.
        if burst.reason == Reason::Probes {
            burst.reason = reason;
        }
    }

    /// Probes that must stay unanswered.
    fn needed(&self, burst: &Burst) -> u32 {
        if burst.silent >= MANY {
            (self.probes - 1).max(SHORTEST.min(self.probes))
        } else {
            self.probes
        }
    }

    fn spacing(&self) -> Micros {
        // Not measured yet: patient.
        let unmeasured = if self.known {
            self.interval / 2
        } else {
            self.interval.max(UNMEASURED)
        };
        let trip = self.way.round_trip().map_or(unmeasured, |rtt| 2 * rtt);
        (self.floor / 2).max(trip).max(1)
    }

    fn poll(&mut self, now: Micros) -> Option<Action> {
        if self.service.takes_question(now, now + self.interval) {
            self.way.ask(now);
            return Some(Action::Probe { machine: self.machine });
        }
        if self.burst_deadline() > now {
            return None;
        }
        let next_at = now + self.spacing();
        let mut burst = self.burst.unwrap_or(Burst {
            reason: Reason::Probes,
            since: now,
            sent: 0,
            next_at,
            silent: 0,
        });
        if burst.sent < self.needed(&burst) || mutant::is(Mutation::NeverDeclaredDead) {
            burst.sent += 1;
            burst.next_at = next_at;
            self.burst = Some(burst);
            self.probed_at = now;
            self.way.ask(now);
            return Some(Action::Probe { machine: self.machine });
        }
        let (reason, suspected_at) = (burst.reason, burst.since);
        Some(self.fall(reason, suspected_at))
    }

    fn fall(&mut self, reason: Reason, suspected_at: Micros) -> Action {
        self.burst = None;
        self.down = true;
        Action::Down {
            machine: self.machine,
            reason,
            suspected_at,
        }
    }
}

/// How many silent flows a piece of evidence is worth: what the host or the network says of a machine concerns all.
fn weight(reason: Reason) -> u32 {
    match reason {
        Reason::Silence | Reason::UnansweredSyn | Reason::Retransmission => 1,
        Reason::LinkDown | Reason::Unreachable => MANY,
        Reason::Probes
        | Reason::Vote
        | Reason::Hang
        | Reason::Refused
        | Reason::ReplicaTimeout
        | Reason::Divergence
        | Reason::Command => 0,
    }
}

#[cfg(test)]
mod tests;
