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
//! machine far away is not dead.

use super::Reason;
use super::spec::{MILLISECOND, MachineId, MachineRef, Micros, ServiceId, ServiceSpec};
use crate::mutant::{self, Mutation};

/// The least wait between two probes of a machine that was never heard of: three of them outlast the second after which a lost question for
/// its link-layer address is asked again (RFC 4861 section 10; Linux waits as long with ARP).
const UNMEASURED: Micros = 400 * MILLISECOND;

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
        /// When it was raised.
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
}

/// A service that does not listen, though its host lives.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    since: Micros,
    count: u32,
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
    /// The earliest probe that has not been answered.
    asked_at: Option<Micros>,
    /// Its service was found to hang, and nobody has been told yet.
    hangs: Option<Micros>,
    /// Its service has refused probes, and accepted none since.
    refusal: Option<Refusal>,
    /// When its service last accepted a probe.
    accepted_at: Option<Micros>,
    /// When it is to be asked whether its service listens, whatever else was heard of it.
    ask_at: Option<Micros>,
    /// Round-trip time of probes: follows a rise at once, a fall slowly.
    rtt: Option<Micros>,
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
                asked_at: None,
                hangs: None,
                refusal: None,
                accepted_at: None,
                ask_at: None,
                rtt: None,
            })
        });
        Self {
            watches: watches.collect(),
        }
    }

    fn watch(&mut self, machine: MachineRef) -> Option<&mut Watch> {
        self.watches.iter_mut().find(|w| w.machine == machine)
    }

    /// Evidence from a flow: starts a probe burst unless one runs. A hang is its own proof: the kernel would answer any probe.
    pub fn handle_suspect(&mut self, now: Micros, machine: MachineRef, reason: Reason) {
        if reason == Reason::Hang {
            if let Some(watch) = self.watch(machine).filter(|w| !w.down) {
                watch.hangs = watch.hangs.or(Some(now));
            }
            return;
        }
        if let Some(watch) = self.watch(machine)
            && !watch.down
            && watch.burst.is_none()
        {
            watch.burst = Some(Burst {
                reason,
                since: now,
                sent: 0,
                next_at: now,
            });
        }
    }

    /// Any packet from the machine, at the time it arrived. One that arrived before a suspicion does not disprove it.
    pub fn handle_heard(&mut self, at: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.heard_at = watch.heard_at.max(at);
            watch.known = true;
            if watch.burst.is_some_and(|b| at > b.since) {
                watch.burst = None;
            }
        }
    }

    /// The answer to a probe, which counts as life and measures the way.
    pub fn handle_probe_reply(&mut self, at: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine)
            && let Some(asked_at) = watch.asked_at.take()
        {
            let sample = at.saturating_sub(asked_at);
            watch.rtt = Some(watch.rtt.map_or(sample, |rtt| sample.max((7 * rtt + sample) / 8)));
        }
        self.handle_heard(at, machine);
    }

    /// A machine's service has accepted a probe, or its host has refused it because nobody listens.
    pub fn handle_service(&mut self, at: Micros, machine: MachineRef, accepts: bool) {
        let Some(watch) = self.watch(machine).filter(|w| !w.down) else {
            return;
        };
        if accepts {
            (watch.accepted_at, watch.refusal, watch.ask_at) = (Some(at), None, None);
            return;
        }
        let first = watch.refusal.is_none();
        watch.refusal.get_or_insert(Refusal { since: at, count: 0 }).count += 1;
        // Once it is plain, there is no hurry: others may accept again.
        let pause = match watch.refusal {
            Some(refusal) if refusal.count >= watch.probes => watch.interval,
            _ => watch.spacing(),
        };
        watch.ask_at = Some(at + pause);
        if first {
            let others = self.watches.iter_mut().filter(|w| w.machine.service == machine.service);
            for other in others.filter(|w| w.machine != machine && !w.down && w.refusal.is_none()) {
                other.ask_at = Some(at);
            }
        }
    }

    /// A machine whose service refuses while another's accepts.
    fn refuser(&self) -> Option<(usize, Refusal)> {
        let alive = || self.watches.iter().enumerate().filter(|(_, w)| !w.down);
        alive().find_map(|(index, w)| {
            let refusal = w.refusal.filter(|r| r.count >= w.probes)?;
            let accepts = |o: &Watch| o.refusal.is_none() && o.accepted_at.is_some_and(|at| at >= refusal.since);
            let another = alive().any(|(_, o)| o.machine.service == w.machine.service && accepts(o));
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

    /// The machine was declared dead, evicted or disabled elsewhere: it is no longer watched.
    pub fn handle_down(&mut self, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.down = true;
            watch.burst = None;
            watch.asked_at = None;
            (watch.refusal, watch.accepted_at, watch.ask_at, watch.hangs) = (None, None, None, None);
        }
    }

    /// The machine was enabled again.
    pub fn handle_up(&mut self, now: Micros, machine: MachineRef) {
        if let Some(watch) = self.watch(machine) {
            watch.down = false;
            watch.burst = None;
            (watch.refusal, watch.accepted_at, watch.ask_at, watch.hangs) = (None, None, None, None);
            // Its absence is no part of its way.
            watch.asked_at = None;
            watch.heard_at = now.saturating_sub(watch.interval);
            watch.probed_at = 0;
        }
    }

    /// The next thing to do, if any is due; call until `None`.
    pub fn poll(&mut self, now: Micros) -> Option<Action> {
        if let Some((index, refusal)) = self.refuser() {
            return Some(self.watches[index].fall(Reason::Refused, refusal.since));
        }
        if let Some(watch) = self.watches.iter_mut().find(|w| !w.down && w.hangs.is_some()) {
            let since = watch.hangs.take().unwrap_or(now);
            return Some(watch.fall(Reason::Hang, since));
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
        let ask = self.ask_at.unwrap_or(Micros::MAX);
        ask.min(self.burst_deadline())
    }

    fn burst_deadline(&self) -> Micros {
        match self.burst {
            Some(burst) => burst.next_at,
            None => self.heard_at.max(self.probed_at) + self.interval,
        }
    }

    fn spacing(&self) -> Micros {
        // Not measured yet: patient.
        let unmeasured = if self.known {
            self.interval
        } else {
            self.interval.max(UNMEASURED)
        };
        let trip = self.rtt.map_or(unmeasured, |rtt| 2 * rtt);
        (self.floor / 2).max(trip).max(1)
    }

    fn poll(&mut self, now: Micros) -> Option<Action> {
        if self.ask_at.is_some_and(|at| at <= now) {
            // An answer that gets lost must not be the end of the asking.
            self.ask_at = self.refusal.map(|_| now + self.interval);
            self.asked_at = self.asked_at.or(Some(now));
            return Some(Action::Probe { machine: self.machine });
        }
        if self.burst_deadline() > now {
            return None;
        }
        let next_at = now + self.spacing();
        let burst = self.burst.get_or_insert(Burst {
            reason: Reason::Probes,
            since: now,
            sent: 0,
            next_at,
        });
        if burst.sent < self.probes || mutant::is(Mutation::NeverDeclaredDead) {
            burst.sent += 1;
            burst.next_at = next_at;
            self.probed_at = now;
            self.asked_at = self.asked_at.or(Some(now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::{
        DetectSpec, MILLISECOND as MS, MachineSpec, MaxLag, Original, SourceMode, Successor, UnknownPolicy,
    };

    const A: MachineRef = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };

    fn detector() -> Detector {
        let machine = MachineSpec {
            name: "a".into(),
            addr: "10.0.0.1:1".parse().unwrap(),
            ifindex: None,
            path_mtu: 1500,
        };
        let detect = DetectSpec {
            floor: 4 * MS,
            probe_interval: 100 * MS,
            probes: 3,
            hang: None,
            vote: 0,
        };
        let service = ServiceSpec {
            name: "s".into(),
            psc: "10.0.0.9:1".parse().unwrap(),
            source: SourceMode::Psc,
            max_lag: MaxLag::Bytes(0),
            original: Original::First,
            successor: Successor::First,
            replica_timeout: 200 * MS,
            detect,
            diverge: crate::engine::DivergePolicy::Warn,
            unknown: UnknownPolicy::Reset,
            machines: vec![machine],
        };
        Detector::new(&[service], 0)
    }

    /// A detector that has measured a way of 0.1 ms.
    fn measured() -> Detector {
        let mut d = detector();
        assert_eq!(d.poll(100 * MS), Some(Action::Probe { machine: A }));
        d.handle_probe_reply(100 * MS + 100, A);
        d
    }

    #[test]
    fn silence_through_a_burst_is_the_proof() {
        let mut d = measured();
        d.handle_suspect(110 * MS, A, Reason::Silence);
        for at in [110, 112, 114] {
            assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }));
            assert_eq!(d.poll(at * MS), None);
        }
        let down = Action::Down {
            machine: A,
            reason: Reason::Silence,
            suspected_at: 110 * MS,
        };
        assert_eq!((d.next_deadline(), d.poll(116 * MS)), (Some(116 * MS), Some(down)));
        assert_eq!((d.poll(117 * MS), d.next_deadline()), (None, None));
    }

    #[test]
    fn one_packet_ends_a_burst_unless_it_is_older_than_the_suspicion() {
        let mut d = measured();
        d.handle_suspect(110 * MS, A, Reason::Silence);
        d.handle_heard(110 * MS, A);
        assert_eq!(d.poll(110 * MS), Some(Action::Probe { machine: A }));
        d.handle_heard(111 * MS, A);
        assert_eq!((d.poll(150 * MS), d.next_deadline()), (None, Some(211 * MS)));
    }

    #[test]
    fn an_idle_machine_is_probed_until_it_is_proved_dead() {
        let mut d = measured();
        for at in [201, 203, 205] {
            assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }));
        }
        assert!(matches!(
            d.poll(207 * MS),
            Some(Action::Down {
                reason: Reason::Probes,
                ..
            })
        ));
    }

    #[test]
    fn a_machine_far_away_is_given_two_round_trips_a_probe() {
        let mut d = detector();
        assert_eq!(d.poll(100 * MS), Some(Action::Probe { machine: A }));
        d.handle_probe_reply(130 * MS, A);
        d.handle_suspect(140 * MS, A, Reason::Silence);
        assert!(d.poll(140 * MS).is_some());
        assert_eq!(d.next_deadline(), Some(200 * MS));
    }

    #[test]
    fn a_stall_of_ones_own_starts_the_burst_again() {
        let mut d = measured();
        d.handle_suspect(101 * MS, A, Reason::Silence);
        (0..3).for_each(|i| assert!(d.poll((101 + i * 2) * MS).is_some()));
        d.handle_stall(160 * MS);
        assert_eq!(d.poll(160 * MS), Some(Action::Probe { machine: A }));
    }

    /// Two machines, both measured, the second of which has been heard of.
    fn pair() -> (Detector, MachineRef) {
        let mut d = detector();
        let b = MachineRef {
            machine: MachineId(1),
            ..A
        };
        let twin = detector().watches.remove(0);
        d.watches.push(Watch { machine: b, ..twin });
        for machine in [A, b] {
            assert_eq!(d.poll(100 * MS), Some(Action::Probe { machine }));
            d.handle_probe_reply(100 * MS + 100, machine);
        }
        (d, b)
    }

    #[test]
    fn a_service_that_refuses_while_another_accepts_is_down() {
        let (mut d, b) = pair();
        d.handle_service(110 * MS, A, false);
        // The other one is asked at once; the one that refused, again and again.
        assert_eq!(d.poll(110 * MS), Some(Action::Probe { machine: b }));
        d.handle_service(110 * MS + 100, b, true);
        for at in [112, 114] {
            assert_eq!(d.poll(at * MS), Some(Action::Probe { machine: A }), "at {at} ms");
            assert_eq!(d.poll(at * MS), None);
            d.handle_heard(at * MS, A);
            d.handle_service(at * MS, A, false);
        }
        let down = Action::Down {
            machine: A,
            reason: Reason::Refused,
            suspected_at: 110 * MS,
        };
        assert_eq!((d.poll(114 * MS), d.poll(114 * MS)), (Some(down), None));
    }

    #[test]
    fn a_service_that_is_closed_everywhere_is_nobodys_fault() {
        let (mut d, b) = pair();
        for at in [110, 112, 114, 116, 118] {
            for machine in [A, b] {
                d.handle_heard(at * MS, machine);
                d.handle_service(at * MS, machine, false);
            }
            let asked: Vec<_> = std::iter::from_fn(|| d.poll(at * MS)).collect();
            assert!(asked.iter().all(|a| matches!(a, Action::Probe { .. })), "{asked:?}");
        }
        // When one is back, the other one is not.
        d.handle_service(120 * MS, b, true);
        assert!(matches!(
            d.poll(120 * MS),
            Some(Action::Down {
                machine: A,
                reason: Reason::Refused,
                ..
            })
        ));
    }

    #[test]
    fn one_acceptance_ends_the_suspicion() {
        let (mut d, b) = pair();
        d.handle_service(110 * MS, A, false);
        d.handle_service(110 * MS, b, true);
        d.handle_service(111 * MS, A, true);
        d.handle_service(112 * MS, A, false);
        d.handle_service(113 * MS, A, false);
        d.handle_service(113 * MS, b, true);
        let asked: Vec<_> = std::iter::from_fn(|| d.poll(113 * MS)).collect();
        assert!(asked.iter().all(|a| matches!(a, Action::Probe { .. })), "{asked:?}");
    }
}
