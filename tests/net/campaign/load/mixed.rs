//! The tests' own service: an upload, a download and several dialogues at the same time; every byte is known to both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;

use super::super::plan::Plan;
use super::{Load, per_mille, share};
use crate::lab::cluster::{MIB, PATIENCE, PORT};
use crate::lab::peers::{Client, Service};
use crate::lab::{Host, Lab};

/// Bytes of the upload and of the download.
const SIZE: u64 = 48 * MIB;
/// Dialogues at once, and their rounds.
const DIALOGUES: u64 = 4;
const ROUNDS: u64 = 1_500;

pub struct Mixed {
    services: Vec<Service>,
    client: Host,
    psc: SocketAddr,
    size: u64,
    rounds: u64,
    /// Bytes of the upload and of the download that are done.
    done: Arc<[AtomicU64; 2]>,
    orders: Vec<String>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Mixed {
    pub fn prepare(lab: &Lab, plan: &Plan) -> Self {
        Self {
            services: lab.machines().iter().map(|host| Service::start(host, PORT)).collect(),
            client: lab.client().clone(),
            psc: lab.psc(plan.family, PORT),
            size: share(SIZE, plan),
            rounds: share(ROUNDS, plan),
            done: Arc::new([AtomicU64::new(0), AtomicU64::new(0)]),
            orders: Vec::new(),
            clients: Vec::new(),
        }
    }

    /// Starts a client and notes the order that the machines will have seen.
    fn order(&mut self, order: String, work: impl FnOnce(Client) -> std::io::Result<()> + Send + 'static) {
        let psc = self.psc;
        self.orders.push(order.clone());
        self.clients.push(self.client.spawn(move || {
            Client::connect(psc, PATIENCE)
                .and_then(work)
                .map_err(|e| format!("{order}: {e}"))
        }));
    }
}

impl Load for Mixed {
    fn port(&self) -> u16 {
        PORT
    }

    fn begin(&mut self) {
        let (size, rounds) = (self.size, self.rounds);
        let [up, down] = [0, 1].map(|way: usize| {
            let done = Arc::clone(&self.done);
            move |n| done[way].store(n, Ordering::Relaxed)
        });
        self.order("PUT 1".to_owned(), move |mut client| client.upload(1, size, up));
        self.order(format!("GET 2 {size}"), move |mut client| {
            client.download(2, size, down)
        });
        for seed in 10..10 + DIALOGUES {
            self.order(format!("TALK {seed} {rounds}"), move |mut client| {
                client.talk(seed, rounds, |_| ())
            });
        }
    }

    fn progress(&self) -> u64 {
        let done: u64 = self.done.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        per_mille(done, 2 * self.size)
    }

    fn finish(&mut self) -> Vec<String> {
        let ended = self.clients.drain(..).map(|c| c.join().expect("a client's thread"));
        ended.filter_map(Result::err).collect()
    }

    fn held_by(&self, machine: usize) -> Result<String, String> {
        let mut records = self.services[machine].records();
        records.retain(|record| self.orders.contains(&record.order));
        let content: Vec<_> = records.iter().map(crate::lab::peers::Record::content).collect();
        let text = format!("{content:?}");
        if records.len() == self.orders.len() && records.iter().all(|record| record.end == "closed") {
            Ok(text)
        } else {
            Err(format!("{} connections: {text}", records.len()))
        }
    }

    fn knock(&self) -> Result<(), String> {
        let psc = self.psc;
        let talk = || Client::connect(psc, PATIENCE)?.talk(99, 3, |_| ());
        self.client.enter(talk).map_err(|e| format!("TALK: {e}"))
    }

    fn signal(&self, _machine: usize, _signal: Signal) {
        unreachable!("the service's threads are this program's own; no plan hits them");
    }
}
