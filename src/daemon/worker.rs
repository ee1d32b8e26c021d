//! One worker: a queue, a shard of the engine, an injector; shares nothing but a few atomic words with anybody.
//!
//! The loop: sleep until a packet, an order or the engine's deadline; take packets, letting go at once what may go on; then do the
//! work that no verdict waits for, and send what comes of it in one batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};

use anyhow::Context;
use tracing::warn;

use super::heard::LastHeard;
use super::pacer::Pacer;
use super::times::{Times, TimesReport};
use crate::engine::{
    Command, DropReason, Engine, Event, MachineRef, Meta, Micros, Outbox, Outcome, Probe, ShardStatus, Verdict,
};
use crate::host::clock;
use crate::host::inject::{InjectCounters, Injector};
use crate::host::memory;
use crate::host::queue::{PacketQueue, QUEUE_LENGTH, QueueCounters, Ready, Waker};
use crate::host::schedule::{Held, Plan, held};

/// Packets taken before the engine's deferred work gets its turn.
const BATCH: usize = 32;

/// Bytes after which it gets its turn, too, so that what was taken goes on to the replicas while it is in the processor's nearest caches. Seen to
/// double an upload's rate with one replica where other programs want the same processors; on quiet ones it makes no difference.
const BATCH_BYTES: usize = 128 << 10;

/// Packets of the engine's own after which arrived ones get their turn: one sendmmsg's worth, so that a takeover of ten thousand flows keeps
/// no verdict waiting, and its first packets leave before the last are made.
const PART: usize = 64;

/// A wait that took no longer than this did not sleep.
const BACKLOG_WAIT: Micros = 3;

/// What the coordinator wants of a worker.
#[derive(Debug)]
pub enum Order {
    /// Carry out a command and report [`Reply::Done`] under this number.
    Command(u64, Command),
    /// Report [`Reply::Status`] under this number.
    Status(u64),
    /// Send a probe; its times are host times. No report.
    Probe(Probe),
    /// Take every packet that has arrived so far, and report [`Reply::Done`] under this number.
    Drain(u64),
    /// End.
    Stop,
}

/// The report that an [`Order`] asks for.
#[derive(Debug)]
pub enum Reply {
    /// A command was carried out, and its packets were sent.
    Done(u64, Outcome, Sent),
    /// The state of one worker.
    Status(u64, Box<WorkerStatus>),
}

/// When the packets that a command leads to were sent, in host time.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The first of them; all flows had switched by then.
    pub first: Micros,
    /// The last.
    pub last: Micros,
}

/// What a worker noticed, in host time.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// Its engine says so.
    Event {
        /// When.
        at: Micros,
        /// What.
        event: Event,
    },
    /// A machine answered a SYN of the engine's own.
    ProbeReply {
        /// When.
        at: Micros,
        /// When that had been sent.
        sent: Micros,
        /// Who.
        machine: MachineRef,
        /// Its service listens.
        accepts: bool,
    },
}

/// One worker's part of `relevo status`.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its queue's number.
    pub queue: u16,
    /// Its engine.
    pub shard: ShardStatus,
    /// What its queue lost.
    pub queue_counters: QueueCounters,
    /// What it sent, and could not send.
    pub inject: InjectCounters,
    /// How often it was not scheduled in time, and for how long in all.
    pub stalled: (u64, Micros),
    /// Notices that the coordinator had no room for.
    pub notices_lost: u64,
    /// How its thread runs.
    pub held: Held,
    /// Packets found by looking for them without sleeping.
    pub busy_polls: u64,
    /// Where its time has gone.
    pub times: TimesReport,
}

/// How a worker's thread is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Where, and before whom.
    pub plan: Plan,
    /// How long after a packet it looks for the next one before it sleeps, in microseconds.
    pub busy_poll: Micros,
}

/// What came out of the queue at a time.
struct Taken {
    packets: usize,
    /// It was stopped by its bytes.
    full: bool,
}

/// A worker's ends of the lines to the coordinator.
pub struct Lines {
    /// Orders come in here; the waker is used after each.
    pub orders: Receiver<Order>,
    /// Wakes this worker.
    pub waker: Waker,
    /// Answers to orders.
    pub replies: Sender<Reply>,
    /// Notices; bounded, so that a flood of evidence costs evidence, not memory.
    pub notices: SyncSender<Notice>,
    /// Wakes the coordinator.
    pub coordinator: Waker,
    /// Shared with everybody.
    pub heard: Arc<LastHeard>,
}

/// A worker before its thread starts.
pub struct Worker<Q> {
    queue_number: u16,
    queue: Q,
    engine: Engine,
    injector: Injector,
    outbox: Outbox,
    pacer: Pacer,
    lines: Lines,
    manner: Manner,
    /// When the last packet came, in host time.
    last_packet: Micros,
    busy_polls: u64,
    notices_lost: u64,
    times: Times,
    /// Commands whose packets are not all out: number, outcome, when the first went out.
    under_way: Vec<(u64, Outcome, Micros)>,
}

impl<Q: PacketQueue> Worker<Q> {
    /// Puts a worker together.
    #[must_use]
    pub fn new(queue_number: u16, queue: Q, engine: Engine, injector: Injector, lines: Lines, manner: Manner) -> Self {
        let (outbox, pacer) = (Outbox::new(), Pacer::default());
        Self {
            queue_number,
            queue,
            engine,
            injector,
            outbox,
            pacer,
            lines,
            manner,
            last_packet: 0,
            busy_polls: 0,
            notices_lost: 0,
            times: Times::new(),
            under_way: Vec::new(),
        }
    }

    /// Works until told to stop. An error means that the queue is lost: nothing can go on without it.
    pub fn run(mut self) -> anyhow::Result<()> {
        for complaint in self.manner.plan.carry_out() {
            warn!("queue {}: {complaint}", self.queue_number);
        }
        loop {
            let asked = clock::now();
            let due = if self.engine.is_behind() {
                Some(asked)
            } else {
                self.engine.next_deadline().map(|d| self.pacer.host_time(d))
            };
            let found = self.look_for_packets(asked, due)?;
            let ready = match found {
                Some(ready) => ready,
                None => self.sleep(asked, due)?,
            };
            // Then packets had been waiting, and more may be; otherwise a second receive would only cost a lone packet a syscall.
            let backlog = clock::now().saturating_sub(asked) <= BACKLOG_WAIT;
            let mut overslept = self.note_stall();
            if ready.packets || overslept {
                if found.is_none() {
                    self.take_packets(1, 0)?;
                }
                // Whoever waits for this processor goes first, the machine that just got its packet among them; and what they
                // sent meanwhile comes before the work for replicas, too (design section 3, step 3). On a processor of our
                // own this is a syscall that does nothing.
                if self.engine.is_burdened() {
                    rustix::thread::sched_yield();
                    overslept |= self.note_stall();
                }
                if self.engine.is_burdened() || backlog || overslept {
                    self.take_batch(overslept)?;
                }
            }
            if ready.woken && !self.take_orders()? {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// `busy_poll`: looks for a packet without sleeping, as long as the last one is not long ago, and takes the one that it finds. `None` if there was
    /// nothing, or it is off.
    fn look_for_packets(&mut self, asked: Micros, due: Option<Micros>) -> anyhow::Result<Option<Ready>> {
        let until = self.last_packet.saturating_add(self.manner.busy_poll);
        let until = due.map_or(until, |due| until.min(due));
        let mut now = asked;
        while now < until {
            self.note_stall();
            let packets = self.take_packets(1, 0)?.packets > 0;
            let woken = self.lines.waker.take();
            self.busy_polls += u64::from(packets);
            if packets || woken {
                return Ok(Some(Ready { packets, woken }));
            }
            std::hint::spin_loop();
            now = clock::now();
        }
        Ok(None)
    }

    fn sleep(&mut self, asked: Micros, due: Option<Micros>) -> anyhow::Result<Ready> {
        let now = if self.manner.busy_poll > 0 { clock::now() } else { asked };
        let timeout = clock::until(due, now);
        self.queue
            .wait(&self.lines.waker, timeout)
            .context("waiting for packets")
    }

    /// To be called after every rest: time that was slept past the engine's deadline does not count (see [`Pacer`]).
    fn note_stall(&mut self) -> bool {
        let deadline = self.engine.next_deadline();
        self.pacer.woke(deadline, clock::now()).is_some()
    }

    /// The rest of a batch, with a turn for the engine's deferred work wherever it is full by bytes. Between these turns nobody is let in: on a busy
    /// processor that costs a time slice, and the machine that got a packet has been let in once.
    fn take_batch(&mut self, overslept: bool) -> anyhow::Result<()> {
        // Whatever came while it slept comes before its timers.
        let room = if overslept { usize::MAX } else { BATCH_BYTES };
        let mut left = BATCH - 1;
        loop {
            let taken = self.take_packets(left, room)?;
            left -= taken.packets;
            if !taken.full || left == 0 {
                return Ok(());
            }
            self.catch_up();
        }
    }

    /// Takes up to `most` packets, and none after the one with which `bytes` are full. What may go on leaves at once; verdicts "drop" leave at the
    /// end at the latest.
    fn take_packets(&mut self, most: usize, bytes: usize) -> anyhow::Result<Taken> {
        let (mut packets, mut taken_bytes) = (0, 0);
        for _ in 0..most {
            let Self {
                queue,
                engine,
                pacer,
                times,
                ..
            } = self;
            let mut spoke = None;
            let mut arrived = None;
            let taken = queue.receive(&mut |meta, packet| {
                let start = clock::nanos();
                let now = clock::micros(start);
                taken_bytes += packet.len();
                let time = pacer.engine_time(now);
                let behind = now.saturating_sub(time);
                let verdict = engine.handle_packet(time, Meta { behind, ..meta }, packet);
                times.engine.note(clock::nanos().saturating_sub(start));
                arrived = Some(start);
                let accepts = verdict != Verdict::Drop(DropReason::ProbeRefused);
                let answers = engine.probe_age().map(|age| (age, accepts));
                spoke = engine.heard().map(|machine| (now, machine, answers));
                verdict
            });
            if let Some(start) = arrived {
                times.verdict.note(clock::nanos().saturating_sub(start));
                self.last_packet = clock::micros(start);
            }
            if let Some((at, machine, answers)) = spoke {
                self.lines.heard.note(machine, at);
                if let Some((age, accepts)) = answers {
                    self.tell(Notice::ProbeReply {
                        at,
                        sent: at.saturating_sub(age),
                        machine,
                        accepts,
                    });
                    self.lines.coordinator.wake();
                }
            }
            if !taken.context("receiving from the packet queue")? {
                break;
            }
            packets += 1;
            if taken_bytes >= bytes {
                break;
            }
        }
        self.queue.flush();
        Ok(Taken {
            packets,
            full: taken_bytes >= bytes,
        })
    }

    /// The work that no verdict waits for; then what the engine noticed goes to the coordinator.
    fn catch_up(&mut self) {
        let start = clock::nanos();
        let now = clock::micros(start);
        self.engine
            .poll_part(self.pacer.engine_time(now), &mut self.outbox, PART);
        if self.flush() {
            self.times.deferred.note(clock::nanos().saturating_sub(start));
        }
        self.report_commands();
        let mut noticed = false;
        while let Some(event) = self.engine.take_event() {
            self.tell(Notice::Event { at: now, event });
            noticed = true;
        }
        if noticed {
            self.lines.coordinator.wake();
        }
        if self.engine.give_back() {
            memory::trim();
        }
    }

    /// Replies to the commands whose packets are all out.
    fn report_commands(&mut self) {
        if self.under_way.is_empty() || self.engine.is_behind() {
            return;
        }
        let last = clock::now();
        for (number, outcome, first) in self.under_way.drain(..) {
            // The coordinator is gone only when the process is about to be.
            let _ = self
                .lines
                .replies
                .send(Reply::Done(number, outcome, Sent { first, last }));
        }
        self.lines.coordinator.wake();
    }

    /// Leaves a notice for the coordinator, and never waits for it.
    fn tell(&mut self, notice: Notice) {
        if self.lines.notices.try_send(notice).is_err() {
            self.notices_lost += 1;
        }
    }

    /// Sends what is in the outbox; returns whether there was anything.
    fn flush(&mut self) -> bool {
        let any = !self.outbox.is_empty();
        if any {
            self.injector.send(&self.outbox);
            self.outbox.clear();
            if self.engine.spec().super_packets && !self.injector.cuts() {
                warn!(
                    "queue {}: the device for super-packets is down or gone; going on with single segments",
                    self.queue_number
                );
                self.engine.stop_super_packets();
            }
        }
        any
    }

    /// Carries out all orders; returns whether to go on.
    fn take_orders(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.lines.orders.try_recv() {
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => return Ok(true),
                Ok(order) => self.carry_out(order)?,
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        let now = self.pacer.engine_time(clock::now());
        let reply = match order {
            Order::Stop => return Ok(()),
            Order::Probe(probe) => {
                self.engine.probe(probe, &mut self.outbox);
                self.flush();
                return Ok(());
            }
            Order::Drain(number) => {
                self.take_packets(QUEUE_LENGTH as usize, usize::MAX)?;
                let now = clock::now();
                Reply::Done(number, Outcome::default(), Sent { first: now, last: now })
            }
            Order::Command(number, command) => {
                let outcome = self.engine.command(now, command);
                self.engine.poll_part(now, &mut self.outbox, PART);
                self.flush();
                self.under_way.push((number, outcome, clock::now()));
                self.report_commands();
                return Ok(());
            }
            Order::Status(number) => Reply::Status(number, Box::new(self.status())),
        };
        // The coordinator is gone only when the process is about to be.
        let _ = self.lines.replies.send(reply);
        self.lines.coordinator.wake();
        Ok(())
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            queue: self.queue_number,
            shard: self.engine.status(),
            queue_counters: self.queue.counters(),
            inject: *self.injector.counters(),
            stalled: self.pacer.stalled(),
            notices_lost: self.notices_lost,
            held: held(),
            busy_polls: self.busy_polls,
            times: self.times.report(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{channel, sync_channel};
    use std::time::Duration;

    use super::*;
    use crate::engine::{
        Checksum, DetectSpec, DivergePolicy, EngineSpec, Limits, MILLISECOND, MachineId, MachineSpec, MaxLag, Original,
        ServiceId, ServiceSpec, SourceMode, Successor, UnknownPolicy, Verdict,
    };

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
        let detect = DetectSpec {
            floor: 5 * MILLISECOND,
            probe_interval: 100 * MILLISECOND,
            probes: 3,
            hang: None,
            vote: 20 * MILLISECOND,
            crash_ends: 16,
        };
        let service = ServiceSpec {
            name: "web".into(),
            psc: "10.0.1.100:80".parse().expect("address"),
            source: SourceMode::Psc,
            max_lag: MaxLag::Bytes(0),
            original: Original::First,
            successor: Successor::First,
            replica_timeout: 200 * MILLISECOND,
            detect,
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

    /// Needs CAP_NET_RAW for the injector, as `make test` has; without it there is nothing to try.
    #[test]
    fn every_packet_gets_a_verdict_and_every_order_its_reply() {
        let polling = Manner {
            busy_poll: 1_000_000,
            ..Manner::default()
        };
        serves_everybody(Manner::default());
        serves_everybody(polling);
    }

    fn serves_everybody(manner: Manner) {
        let Ok(injector) = Injector::open(None) else { return };
        let ((verdicts, verdicts_out), (orders_in, orders)) = (channel(), channel());
        let ((replies, replies_out), (notices, _notices_out)) = (channel(), sync_channel(4));
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
        let packets = [vec![vec![0; 5]; 99], vec![stray_from_machine()]].concat();
        let queue = FakeQueue { packets, verdicts };
        let worker = Worker::new(7, queue, Engine::new(spec), injector, lines, manner);
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
}
