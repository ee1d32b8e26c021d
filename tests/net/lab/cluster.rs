//! A lab with the tests' own service on every machine, and the questions that most tests ask at their end.

use std::time::Duration;

use super::engine::{Engine, ServiceConfig};
use super::peers::{Client, Record, Service};
use super::services::addresses;
use super::{Family, Lab, counters, wait_for};

/// The tests' service listens here.
pub const PORT: u16 = 7000;

/// How long a client of the tests waits for anything before it calls itself stuck.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// How long the replicas may take to come to the end of what the client has finished.
const QUIET: Duration = Duration::from_secs(20);

/// The lab and the tests' service on every machine.
pub struct Cluster {
    pub lab: Lab,
    pub services: Vec<Service>,
}

impl Cluster {
    /// One client, `machines` machines.
    pub fn new(machines: usize) -> Self {
        Self::with_clients(1, machines)
    }

    /// Several clients.
    pub fn with_clients(clients: usize, machines: usize) -> Self {
        let lab = Lab::with_clients(clients, machines);
        let services = lab.machines().iter().map(|host| Service::start(host, PORT)).collect();
        Self { lab, services }
    }

    /// The service's section: all machines, named `lab`.
    pub fn config(&self, family: Family) -> ServiceConfig {
        ServiceConfig::new(
            "lab",
            self.lab.psc(family, PORT),
            &addresses(self.lab.machines(), family, PORT),
        )
    }

    /// An engine with just that service and further lines for it.
    pub fn engine(&self, family: Family, more: &[&str]) -> Engine {
        let config = more.iter().fold(self.config(family), |config, line| config.with(line));
        Engine::start(&self.lab, &[config])
    }

    /// An upload and a download of `size` bytes and a dialogue of `rounds` at once, from the first client; `sent` hears how much of the upload has
    /// gone. Returns the orders, as the services write them down.
    pub fn transfers(&self, family: Family, size: u64, rounds: u64, sent: impl Fn(u64) + Sync) -> Vec<String> {
        let psc = self.lab.psc(family, PORT);
        let connect = || Client::connect(psc, PATIENCE).expect("connect");
        let client = self.lab.client();
        std::thread::scope(|scope| {
            client.enter_in(scope, || connect().upload(1, size, &sent).expect("upload"));
            client.enter_in(scope, || connect().download(2, size, |_| ()).expect("download"));
            client.enter_in(scope, || connect().talk(3, rounds, |_| ()).expect("talk"));
        });
        ["PUT 1".to_owned(), format!("GET 2 {size}"), format!("TALK 3 {rounds}")].into()
    }

    /// Waits until each of these machines has ended a connection for each of these orders, demands that all saw the same and that
    /// every connection was closed in order, and returns what one of them saw.
    pub fn assert_identical(&self, machines: &[usize], orders: &[String]) -> Vec<Record> {
        let of = |m: usize| {
            let mut records = self.services[m].records();
            records.retain(|record| orders.contains(&record.order));
            records
        };
        for &m in machines {
            wait_for(
                &format!("machine m{m} to finish {} connections", orders.len()),
                QUIET,
                || (of(m).len() >= orders.len()).then_some(()),
            );
        }
        let first = of(machines[0]);
        for &m in machines {
            let records = of(m);
            assert_eq!(records.len(), orders.len(), "connections on m{m}: {records:#?}");
            for (a, b) in first.iter().zip(&records) {
                assert_eq!(a.content(), b.content(), "m{} and m{m} differ", machines[0]);
                assert_eq!(b.end, "closed", "a connection on m{m} ended badly: {b:?}");
            }
        }
        first
    }

    /// No client has taken a segment for lost: whatever happened, none of them has noticed. For a lab that keeps the order ([`Lab::keep_order`]).
    pub fn assert_nothing_lost(&self) {
        let lost: Vec<u64> = self.lab.clients().iter().map(counters::lost_to).collect();
        if lost.iter().any(|n| *n > 0) {
            let hosts = self.lab.clients().iter().chain(self.lab.machines());
            let stories: Vec<String> = hosts.map(counters::tcp_story).collect();
            panic!("segments that clients took for lost: {lost:?}\n{}", stories.join("\n"));
        }
    }

    /// No client has seen a reset.
    pub fn assert_no_resets(&self) {
        for client in self.lab.clients() {
            assert_eq!(counters::resets_seen(client), 0, "RSTs have reached {}", client.name());
        }
    }
}
