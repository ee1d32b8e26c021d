//! Who is up, who is original, who took over from whom: the coordinator's picture, by which it judges what it is asked for.

use std::net::SocketAddr;

use super::status::Takeover;
use crate::engine::{
    Difference, MachineId, MachineRef, MachineSpec, MachineStatus, Micros, ServiceId, ServiceSpec, Successor,
};

/// A machine's state as far as the coordinator decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In use.
    Up,
    /// Proved dead (R14).
    Down,
    /// Held a client up for too long (R15).
    Evicted,
    /// Taken out by the operator.
    Disabled,
}

impl State {
    /// The stable name used by `relevo status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Evicted => "evicted",
            Self::Disabled => "disabled",
        }
    }
}

/// What is known of one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The operator's name for it.
    pub name: String,
    /// Where the service listens.
    pub addr: SocketAddr,
    /// Index of this host's interface to it, if there was a route when the engine started.
    pub ifindex: Option<u32>,
    /// Decided here.
    pub state: State,
    /// When it was last probed, in host time.
    pub probed_at: Option<Micros>,
    /// Round-trip time of the last echo in microseconds.
    pub echo_rtt: Option<Micros>,
    /// The last time that one of its connections began to differ (R17): when, in host time, and how.
    pub diverged: Option<(Micros, Difference)>,
}

/// What is known of one service.
#[derive(Clone, Debug)]
pub struct Service {
    /// The operator's name for it.
    pub name: String,
    /// The address that clients use.
    pub psc: SocketAddr,
    /// Who follows (R16).
    pub successor: Successor,
    /// Who serves new flows.
    pub original: MachineId,
    /// By [`MachineId`].
    pub machines: Vec<Machine>,
    /// The last takeover, for the operator.
    pub last_takeover: Option<Takeover>,
}

/// All services.
#[derive(Clone, Debug)]
pub struct Roster {
    /// By [`ServiceId`].
    pub services: Vec<Service>,
}

impl Roster {
    /// Everybody is up, the first in each list is the original.
    #[must_use]
    pub fn new(services: &[ServiceSpec]) -> Self {
        let service = |spec: &ServiceSpec| Service {
            name: spec.name.clone(),
            psc: spec.psc,
            successor: spec.successor,
            original: MachineId(0),
            machines: spec.machines.iter().map(Machine::new).collect(),
            last_takeover: None,
        };
        Self {
            services: services.iter().map(service).collect(),
        }
    }

    /// The service of this name, or a sentence saying which there are.
    pub fn find_service(&self, name: &str) -> Result<ServiceId, String> {
        let found = (0..).map(ServiceId).zip(&self.services).find(|(_, s)| s.name == name);
        found.map(|(id, _)| id).ok_or_else(|| {
            let names: Vec<_> = self.services.iter().map(|s| s.name.as_str()).collect();
            format!("there is no service \"{name}\"; there is: {}", names.join(", "))
        })
    }

    /// The machine of this name in that service, or a sentence saying which there are.
    pub fn find_machine(&self, service: ServiceId, name: &str) -> Result<MachineRef, String> {
        let Some(s) = self.service(service) else {
            return Err(format!("there is no machine \"{name}\""));
        };
        let found = (0..).map(MachineId).zip(&s.machines).find(|(_, m)| m.name == name);
        found
            .map(|(machine, _)| MachineRef { service, machine })
            .ok_or_else(|| {
                let names: Vec<_> = s.machines.iter().map(|m| m.name.as_str()).collect();
                format!(
                    "service \"{}\" has no machine \"{name}\"; it has: {}",
                    s.name,
                    names.join(", ")
                )
            })
    }

    /// The service, if the id is of this roster.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(usize::from(id.0))
    }

    /// The service, to change.
    pub fn service_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.services.get_mut(usize::from(id.0))
    }

    /// The machine, if the reference is of this roster.
    #[must_use]
    pub fn machine(&self, machine: MachineRef) -> Option<&Machine> {
        self.service(machine.service)?
            .machines
            .get(usize::from(machine.machine.0))
    }

    /// The machine, to change.
    pub fn machine_mut(&mut self, machine: MachineRef) -> Option<&mut Machine> {
        self.service_mut(machine.service)?
            .machines
            .get_mut(usize::from(machine.machine.0))
    }

    /// Whether the machine is in use.
    #[must_use]
    pub fn is_up(&self, machine: MachineRef) -> bool {
        self.machine(machine).is_some_and(|m| m.state == State::Up)
    }

    /// Whether nobody else of its service is up.
    #[must_use]
    pub fn is_last(&self, machine: MachineRef) -> bool {
        self.service(machine.service)
            .is_some_and(|s| s.next_up(machine.machine).is_none())
    }

    /// Names for a log line: service, machine.
    #[must_use]
    pub fn names(&self, machine: MachineRef) -> (&str, &str) {
        let service = self.service(machine.service).map_or("?", |s| s.name.as_str());
        (service, self.machine(machine).map_or("?", |m| m.name.as_str()))
    }

    /// Takes a machine out. If it was the original, the first live machine in the list is now (R16, `first`); returns
    /// whether that was so.
    pub fn take_out(&mut self, machine: MachineRef, state: State) -> bool {
        if let Some(m) = self.machine_mut(machine) {
            m.state = state;
        }
        let Some(service) = self.service_mut(machine.service) else {
            return false;
        };
        let was_original = service.original == machine.machine;
        if let (true, Some(next)) = (was_original, service.next_up(machine.machine)) {
            service.original = next;
        }
        was_original
    }
}

impl Machine {
    fn new(spec: &MachineSpec) -> Self {
        Self {
            name: spec.name.clone(),
            addr: spec.addr,
            ifindex: spec.ifindex,
            state: State::Up,
            probed_at: None,
            echo_rtt: None,
            diverged: None,
        }
    }
}

impl Service {
    /// The first machine in the list that is up, other than `but`.
    #[must_use]
    pub fn next_up(&self, but: MachineId) -> Option<MachineId> {
        let up = |&(id, m): &(MachineId, &Machine)| id != but && m.state == State::Up;
        (0..).map(MachineId).zip(&self.machines).find(up).map(|(id, _)| id)
    }

    /// R16 for new flows: the best machine that is up by what the shards have measured (`totals`, by [`MachineId`]); of equals the first
    /// in the list. A machine without connections is judged by its last echo; one that was never measured comes last.
    #[must_use]
    pub fn best_up(&self, but: Option<MachineId>, totals: &[MachineStatus]) -> Option<MachineId> {
        let demerit = |id: MachineId, machine: &Machine| {
            let total = totals.get(usize::from(id.0));
            match self.successor {
                Successor::First => 0,
                Successor::LowestRtt => total
                    .map(|t| t.srtt_us)
                    .filter(|srtt| *srtt > 0)
                    .or(machine.echo_rtt)
                    .unwrap_or(u64::MAX),
                Successor::LeastLag => total.map_or(0, |t| t.lag_bytes),
            }
        };
        (0..)
            .map(MachineId)
            .zip(&self.machines)
            .filter(|(id, m)| Some(*id) != but && m.state == State::Up)
            .min_by_key(|(id, m)| demerit(*id, m))
            .map(|(id, _)| id)
    }

    /// The machine's name.
    #[must_use]
    pub fn machine_name(&self, machine: MachineId) -> &str {
        self.machines
            .get(usize::from(machine.0))
            .map_or("?", |m| m.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let machine = |name: &str| {
            Machine::new(&MachineSpec {
                name: name.into(),
                addr: SocketAddr::from(([10, 0, 2, 2], 80)),
                ifindex: None,
                path_mtu: 1_500,
            })
        };
        let service = Service {
            name: "web".into(),
            psc: SocketAddr::from(([10, 0, 1, 100], 80)),
            successor: Successor::First,
            original: MachineId(0),
            machines: ["a", "b", "c"].map(machine).into(),
            last_takeover: None,
        };
        Roster {
            services: vec![service],
        }
    }

    #[test]
    fn the_first_live_one_in_the_list_follows() {
        let mut roster = roster();
        let web = roster.find_service("web").expect("service");
        let [a, b, c] = ["a", "b", "c"].map(|m| roster.find_machine(web, m).expect("machine"));
        assert!(!roster.take_out(b, State::Evicted), "a replica");
        assert!(roster.take_out(a, State::Down));
        assert_eq!(roster.services[0].original, c.machine);
        assert!(roster.is_last(c));
        assert!(!roster.is_up(a) && !roster.is_up(b) && roster.is_up(c));
        assert!(roster.take_out(c, State::Down));
        assert_eq!(roster.services[0].original, c.machine, "nobody left: it stays");
    }

    /// Round trips and lags by machine; an echo where a machine has no connections.
    fn judged(
        successor: Successor,
        srtt: [u64; 3],
        lag: [u64; 3],
        echo: [Option<Micros>; 3],
    ) -> (Service, Vec<MachineStatus>) {
        let mut service = roster().services.remove(0);
        service.successor = successor;
        for (machine, echo) in service.machines.iter_mut().zip(echo) {
            machine.echo_rtt = echo;
        }
        let total = |(srtt_us, lag_bytes)| MachineStatus {
            srtt_us,
            lag_bytes,
            ..MachineStatus::default()
        };
        (service, srtt.into_iter().zip(lag).map(total).collect())
    }

    #[test]
    fn the_best_is_chosen_by_what_the_service_goes_by() {
        use Successor::{First, LeastLag, LowestRtt};
        let (a, b, c) = (MachineId(0), MachineId(1), MachineId(2));
        let (any, unheard) = (None, [None; 3]);
        let cases = [
            (
                First,
                [9, 1, 1],
                [9, 0, 0],
                unheard,
                any,
                a,
                "the list, whatever was measured",
            ),
            (
                First,
                [0; 3],
                [0; 3],
                unheard,
                Some(a),
                b,
                "other than the one that hands over",
            ),
            (LowestRtt, [300, 200, 100], [0, 0, 9], unheard, any, c, "the nearest"),
            (
                LowestRtt,
                [300, 0, 200],
                [0; 3],
                [None, Some(100), None],
                any,
                b,
                "by its echo without connections",
            ),
            (
                LowestRtt,
                [300, 0, 0],
                [0; 3],
                unheard,
                any,
                a,
                "never measured comes last",
            ),
            (
                LowestRtt,
                [100, 100, 300],
                [0; 3],
                unheard,
                any,
                a,
                "of equals the first",
            ),
            (LeastLag, [0; 3], [7, 5, 5], unheard, any, b, "of equals the first"),
            (
                LeastLag,
                [0; 3],
                [0, 5, 7],
                unheard,
                Some(a),
                b,
                "the least of the others",
            ),
        ];
        for (successor, srtt, lag, echo, but, best, why) in cases {
            let (service, totals) = judged(successor, srtt, lag, echo);
            assert_eq!(service.best_up(but, &totals), Some(best), "{successor:?}: {why}");
        }
        let (mut service, totals) = judged(LowestRtt, [300, 200, 100], [0; 3], unheard);
        service.machines[2].state = State::Down;
        assert_eq!(
            service.best_up(None, &totals),
            Some(b),
            "one that is down is not chosen"
        );
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let roster = roster();
        let error = roster.find_service("wep").expect_err("unknown");
        assert_eq!(error, "there is no service \"wep\"; there is: web");
        let error = roster.find_machine(ServiceId(0), "d").expect_err("unknown");
        assert_eq!(error, "service \"web\" has no machine \"d\"; it has: a, b, c");
    }
}
