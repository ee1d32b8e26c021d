//! A worker between a queue of packets written down and a coordinator who only listens.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

use super::super::heard::LastHeard;
use super::*;
use crate::config::defaults::DETECT;
use crate::config::{Threads, WorkerCpus};
use crate::engine::{
    Checksum, Command, DivergePolicy, EngineSpec, Limits, MILLISECOND, MachineId, MachineRef, MachineSpec, MaxLag,
    Meta, Original, ServiceId, ServiceSpec, SourceMode, Successor, UnknownPolicy, Verdict,
};
use crate::host::queue::{QueueCounters, Waker};
use crate::host::schedule::plans;

/// Packets that are all there from the start; the verdicts go where the test can read them.
struct FakeQueue {
    packets: Vec<Vec<u8>>,
    verdicts: Sender<Verdict>,
}

impl PacketQueue for FakeQueue {
    fn wait(&mut self, waker: &Waker, _: Option<Duration>) -> io::Result<Ready> {
        let packets = !self.packets.is_empty();
        if !packets {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Ready {
            packets,
            woken: waker.take(),
        })
    }
    fn receive(&mut self, judge: &mut dyn FnMut(Meta, &mut [u8]) -> Verdict) -> io::Result<bool> {
        let Some(mut packet) = self.packets.pop() else {
            return Ok(false);
        };
        let partial = Meta {
            checksum: Checksum::Partial,
            ..Meta::default()
        };
        self.verdicts
            .send(judge(partial, &mut packet))
            .map_err(io::Error::other)?;
        Ok(true)
    }
    fn flush(&mut self) {}
    fn counters(&self) -> QueueCounters {
        QueueCounters::default()
    }
}

fn spec() -> EngineSpec {
    let addr = "10.0.2.2:80".parse().expect("address");
    let service = ServiceSpec {
        name: "web".into(),
        psc: "10.0.1.100:80".parse().expect("address"),
        source: SourceMode::Psc,
        max_lag: MaxLag::Bytes(0),
        original: Original::First,
        successor: Successor::First,
        replica_timeout: 200 * MILLISECOND,
        detect: DETECT,
        diverge: DivergePolicy::Warn,
        unknown: UnknownPolicy::Drop,
        machines: vec![MachineSpec {
            name: "a".into(),
            addr,
            ifindex: None,
            path_mtu: 1_500,
        }],
    };
    let limits = Limits::default();
    EngineSpec {
        services: vec![service],
        limits,
        shard: 0,
        shards: 1,
        super_packets: false,
        hash_key: [7; 16],
    }
}

/// A SYN/ACK from 10.0.2.2:80 to the PSC; no flow knows of it, but it is life. Its checksums are nobody's business here.
fn stray_from_machine() -> Vec<u8> {
    let ip = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 1, 100];
    let tcp = [0, 80, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 4, 0, 0, 0, 0, 0];
    [&ip[..], &tcp].concat()
}

#[test]
fn every_packet_gets_a_verdict_and_every_order_its_reply() {
    let polling = Manner {
        busy_poll: 1_000_000,
        ..Manner::default()
    };
    serves_everybody(Manner::default());
    serves_everybody(polling);
}

/// A worker, and what a test holds of it.
struct Bench {
    worker: Worker<FakeQueue>,
    verdicts: Receiver<Verdict>,
    orders: Sender<Order>,
    replies: Receiver<Reply>,
    waker: Waker,
    heard: Arc<LastHeard>,
    _notices: Receiver<Notice>,
}

/// `None` without CAP_NET_RAW, which the injector needs and `make test` has: then there is nothing to try.
fn bench(manner: Manner, packets: Vec<Vec<u8>>) -> Option<Bench> {
    let injector = Injector::open(None).ok()?;
    let ((verdicts, verdicts_out), (orders_in, orders)) = (channel(), channel());
    let ((replies, replies_out), (notices, notices_out)) = (channel(), sync_channel(4));
    let spec = spec();
    let heard = Arc::new(LastHeard::new(&spec.services, 0));
    let waker = Waker::new().expect("eventfd");
    let lines = Lines {
        orders,
        waker: waker.clone(),
        replies,
        notices,
        coordinator: Waker::new().expect("eventfd"),
        heard: Arc::clone(&heard),
    };
    let queue = FakeQueue { packets, verdicts };
    Some(Bench {
        worker: Worker::new(7, queue, Engine::new(spec), injector, lines, manner),
        verdicts: verdicts_out,
        orders: orders_in,
        replies: replies_out,
        waker,
        heard,
        _notices: notices_out,
    })
}

fn serves_everybody(manner: Manner) {
    let packets = [vec![vec![0; 5]; 99], vec![stray_from_machine()]].concat();
    let Some(bench) = bench(manner, packets) else { return };
    let Bench {
        worker,
        verdicts: verdicts_out,
        orders: orders_in,
        replies: replies_out,
        waker,
        heard,
        ..
    } = bench;
    let thread = std::thread::spawn(move || worker.run());

    let machine = MachineRef {
        service: ServiceId(0),
        machine: MachineId(0),
    };
    let patience = Duration::from_secs(10);
    for _ in 0..100 {
        assert!(matches!(verdicts_out.recv_timeout(patience), Ok(Verdict::Drop(_))));
    }
    assert!(heard.get(machine) > 0);
    orders_in.send(Order::Drain(1)).expect("order");
    orders_in
        .send(Order::Command(2, Command::Failover { to: machine }))
        .expect("order");
    orders_in.send(Order::Status(3)).expect("order");
    waker.wake();
    assert!(matches!(replies_out.recv_timeout(patience), Ok(Reply::Done(1, ..))));
    assert!(matches!(replies_out.recv_timeout(patience), Ok(Reply::Done(2, ..))));
    let Ok(Reply::Status(3, status)) = replies_out.recv_timeout(patience) else {
        panic!("no status")
    };
    assert_eq!((status.queue, status.shard.stats.all_drops()), (7, 100));
    assert_eq!(status.busy_polls > 0, manner.busy_poll > 0, "{}", status.busy_polls);
    orders_in.send(Order::Stop).expect("order");
    waker.wake();
    assert!(thread.join().expect("no panic").is_ok());
}

#[test]
fn an_order_waits_for_no_packet() {
    let Some(bench) = bench(Manner::default(), vec![vec![0; 5]; 99]) else {
        return;
    };
    bench.orders.send(Order::Status(1)).expect("order");
    bench.orders.send(Order::Stop).expect("order");
    bench.waker.wake();
    assert!(bench.worker.run().is_ok());
    assert!(matches!(bench.replies.try_recv(), Ok(Reply::Status(1, _))));
    assert_eq!(bench.verdicts.try_iter().count(), 0);
}

#[test]
fn who_has_read_all_that_arrived_looks_out_for_the_verdict() {
    let realtime = Threads {
        cpus: WorkerCpus::Off,
        realtime: Some(1),
        busy_poll: 0,
    };
    let plan = plans(&realtime, 1, &[]).pop().expect("one for each worker");
    let alone = Manner {
        plan,
        ..Manner::default()
    };
    for (manner, looks_out) in [(Manner::default(), true), (alone, false)] {
        let Some(bench) = bench(manner, Vec::new()) else { return };
        let mut worker = bench.worker;
        bench.waker.wake();
        // From the beginning of time on, so that no pause of this thread makes a difference.
        assert!(worker.look_for_packets(0, None).expect("a queue").is_none());
        worker.carry_out(Order::Drain(1)).expect("a queue");
        let found = worker.look_for_packets(0, None).expect("a queue");
        assert_eq!(found.is_some_and(|ready| ready.woken), looks_out);
        // The order has come: nothing is looked out for any more.
        let to = MachineRef {
            service: ServiceId(0),
            machine: MachineId(0),
        };
        worker
            .carry_out(Order::Command(2, Command::Failover { to }))
            .expect("a queue");
        bench.waker.wake();
        assert!(worker.look_for_packets(0, None).expect("a queue").is_none());
    }
}
