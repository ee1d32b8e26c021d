//! Joins the engine and the host: threads, their lines to each other, start, reload and stop.
//!
//! One worker thread per queue (shared-nothing shards), one coordinator, one thread for the admin socket with one more for
//! each of its clients; the main thread waits for signals.

pub mod client;
mod coordinator;
mod heard;
mod limit;
mod pacer;
mod roster;
pub mod status;
mod table;
mod times;
mod worker;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::thread::CapabilitySet;
use tracing::{error, info, warn};

use crate::config::{Config, HostPath, QueueKind};
use crate::engine::{Engine, EngineSpec};
use crate::host::admin::AdminSocket;
use crate::host::cutter::Cutter;
use crate::host::inject::Injector;
use crate::host::links::Links;
use crate::host::notify::notify;
use crate::host::probe::Pinger;
use crate::host::queue::{DirectQueue, NfqQueue, PacketQueue, Waker};
use crate::host::signals::{Closer, Request as Signal, Waiter};
use crate::host::{clock, cutter, memory, route, rules, schedule, sysctl};
use coordinator::{Coordinator, Ears, Input, WorkerLine};
use heard::LastHeard;
use status::{Answer, Request};
use worker::{Lines, Manner, Notice, Order, Reply, Worker};

/// Events on their way to the coordinator. Flows of one dying machine may each raise one; the first is enough.
const NOTICES: usize = 1_024;

/// How long the admin socket waits for the coordinator, and that for the workers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How late a timer may fire, in nanoseconds; the kernel's default of 50 µs would show in every retransmission timer.
const TIMER_SLACK: u64 = 1_000;

/// What is assumed of the way to a machine that has none: any interface, and an MTU that every IPv6 path carries.
const UNKNOWN_PATH: HostPath = HostPath {
    ifindex: None,
    mtu: 1_280,
};

/// Runs the daemon in the foreground until SIGTERM or SIGINT. An error before `relevo: ready` leaves nothing half loaded.
pub fn run(config: Config, config_path: &Path) -> anyhow::Result<()> {
    memory::give_back_buffers();
    start_log();
    check_capabilities()?;
    abort_on_panic();
    let mut signals = Waiter::new()?;
    let admin = AdminSocket::bind(&config.engine.admin_socket)?;
    let mut daemon = Daemon::start(&config, &signals.closer())?;
    admin
        .serve(Arc::new(daemon.admin_handler()))
        .context("can't start the admin thread")?;
    eprintln!("relevo: ready");
    notify("READY=1");
    loop {
        match signals.wait() {
            Some(Signal::Reload) => reload(&config, config_path),
            Some(Signal::Stop) => break,
            None => bail!("{}", daemon.failure()),
        }
    }
    notify("STOPPING=1");
    daemon.stop();
    info!(
        "stopped; the rules stay loaded, so that nothing of the services passes untranslated: \
         \"relevo rules unload\" takes them away"
    );
    Ok(())
}

/// `RELEVO_LOG` chooses what is logged, as `tracing_subscriber::EnvFilter` has it (`debug`, `relevo::daemon=trace`).
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RELEVO_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false);
    // Fails only if somebody set a logger before: then that one it is.
    let _ = log.with_ansi(std::io::stderr().is_terminal()).try_init();
}

/// One clear sentence instead of the first EPERM on the way.
fn check_capabilities() -> anyhow::Result<()> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let held = rustix::thread::capabilities(None)
        .context("can't read this process's capabilities")?
        .effective;
    if !held.contains(needed) {
        bail!("not allowed: run as root, or with the capabilities CAP_NET_ADMIN and CAP_NET_RAW");
    }
    Ok(())
}

/// A panic of any thread is a bug, and a daemon that has lost a thread would hold packets for ever: it ends at once, and the
/// service manager starts it again. The rules stay, so nothing passes untranslated meanwhile.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        eprintln!("relevo: a bug ended this process; the rules stay loaded");
        std::process::abort();
    }));
}

/// What runs, besides the main thread.
struct Daemon {
    orders: Vec<(Sender<Order>, Waker)>,
    inputs: Sender<Input>,
    coordinator: Waker,
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
}

/// All workers' ends of the lines to the coordinator.
struct ToCoordinator {
    notices: SyncSender<Notice>,
    replies: Sender<Reply>,
    waker: Waker,
    heard: Arc<LastHeard>,
}

/// What a worker needs of the host, opened while the process has one thread.
struct Opened {
    queue_number: u16,
    queue: Box<dyn PacketQueue + Send>,
    injector: Injector,
    manner: Manner,
}

impl Daemon {
    fn start(config: &Config, closer: &Closer) -> anyhow::Result<Self> {
        let mut specs = prepare_host(config)?;
        let cutters = open_cutters(config);
        specs.iter_mut().for_each(|spec| spec.super_packets = cutters.is_some());
        let opened = open_all(config, cutters)?;
        let pinger = Pinger::open().context("can't open the echo sockets")?;
        let links = Links::open().context("can't subscribe to news of links and neighbours")?;
        load_rules(config)?;

        let services = specs.first().map(|spec| spec.services.clone()).unwrap_or_default();
        let heard = Arc::new(LastHeard::new(&services, clock::now()));
        let (notices, notices_in) = mpsc::sync_channel(NOTICES);
        let (replies, replies_in) = mpsc::channel();
        let (inputs, inputs_in) = mpsc::channel();
        let waker = Waker::new().context("can't make an eventfd")?;
        let to = ToCoordinator {
            notices,
            replies,
            waker: waker.clone(),
            heard: Arc::clone(&heard),
        };
        let ears = Ears {
            waker: waker.clone(),
            notices: notices_in,
            replies: replies_in,
            inputs: inputs_in,
            heard,
        };

        let failure = Arc::new(Mutex::new(None));
        let mut daemon = Self {
            orders: Vec::new(),
            inputs,
            coordinator: waker,
            threads: Vec::new(),
            failure,
        };
        let mut lines = Vec::new();
        for (spec, opened) in specs.into_iter().zip(opened) {
            lines.push(daemon.start_worker(spec, opened, &to, closer)?);
        }
        let coordinator = Coordinator::new(&services, pinger, links, lines, ears);
        daemon.spawn("relevo-coord", closer, move || coordinator.run())?;
        Ok(daemon)
    }

    fn start_worker(
        &mut self,
        spec: EngineSpec,
        opened: Opened,
        to: &ToCoordinator,
        closer: &Closer,
    ) -> anyhow::Result<WorkerLine> {
        let (orders, orders_in): (_, Receiver<Order>) = mpsc::channel();
        let waker = Waker::new().context("can't make an eventfd")?;
        let lines = Lines {
            orders: orders_in,
            waker: waker.clone(),
            replies: to.replies.clone(),
            notices: to.notices.clone(),
            coordinator: to.waker.clone(),
            heard: Arc::clone(&to.heard),
        };
        let name = format!("relevo-{}", opened.queue_number);
        let worker = Worker::new(
            opened.queue_number,
            opened.queue,
            Engine::new(spec),
            opened.injector,
            lines,
            opened.manner,
        );
        self.spawn(&name, closer, move || worker.run())?;
        self.orders.push((orders.clone(), waker.clone()));
        Ok(WorkerLine { orders, waker })
    }

    /// Starts a thread whose error ends the daemon.
    fn spawn(
        &mut self,
        name: &str,
        closer: &Closer,
        body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (failure, closer, own_name) = (Arc::clone(&self.failure), closer.clone(), name.to_owned());
        let run = move || {
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK));
            if let Err(e) = body() {
                if let Ok(mut slot) = failure.lock() {
                    slot.get_or_insert(format!("{own_name}: {e:#}"));
                }
                closer.close();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads
            .push(thread.with_context(|| format!("can't start the thread {name}"))?);
        Ok(())
    }

    /// What ended a thread that should run for ever.
    fn failure(&self) -> String {
        let told = self.failure.lock().ok().and_then(|slot| slot.clone());
        told.unwrap_or_else(|| "the signal handler was closed".to_owned())
    }

    /// What the admin socket's clients are answered with.
    fn admin_handler(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        let (inputs, coordinator) = (self.inputs.clone(), self.coordinator.clone());
        move |line| {
            let answer = match serde_json::from_str::<Request>(line) {
                Ok(request) => ask(&inputs, &coordinator, request),
                Err(e) => Answer::error(format!("can't read the request: {e}")),
            };
            serde_json::to_string(&answer).unwrap_or_else(|e| format!("{{\"ok\":false,\"error\":\"{e}\"}}"))
        }
    }

    fn stop(&mut self) {
        for (orders, waker) in &self.orders {
            let _ = orders.send(Order::Stop);
            waker.wake();
        }
        let _ = self.inputs.send(Input::Stop);
        self.coordinator.wake();
        for thread in self.threads.drain(..) {
            // A panic does not get this far: it aborts.
            let _ = thread.join();
        }
    }
}

fn ask(inputs: &Sender<Input>, coordinator: &Waker, request: Request) -> Answer {
    let (asker, answer) = mpsc::channel();
    let patience = ANSWER_PATIENCE + request.takes();
    if inputs.send(Input::Ask(request, asker)).is_err() {
        return Answer::error("the daemon is stopping");
    }
    coordinator.wake();
    answer
        .recv_timeout(patience)
        .unwrap_or_else(|_| Answer::error("the daemon is too busy to answer"))
}

/// Sysctls and routes; returns what each shard is told.
fn prepare_host(config: &Config) -> anyhow::Result<Vec<EngineSpec>> {
    settle_sysctls(config)?;
    let mut hash_key = [0; 16];
    let mut random = File::open("/dev/urandom").context("can't open /dev/urandom")?;
    random.read_exact(&mut hash_key).context("can't read /dev/urandom")?;
    let machines = config.services.iter().flat_map(|service| &service.machines);
    let paths: HashMap<IpAddr, HostPath> = machines.map(|m| (m.addr.ip(), machine_path(m.addr.ip()))).collect();
    let path = |ip| paths.get(&ip).copied().unwrap_or(UNKNOWN_PATH);
    let shards = 0..config.engine.workers;
    Ok(shards.map(|shard| config.engine_spec(shard, hash_key, &path)).collect())
}

/// A machine without a route gets no packets, but the others shall serve all the same.
fn machine_path(ip: IpAddr) -> HostPath {
    route::path(ip).unwrap_or_else(|e| {
        warn!(%ip, "no route to this machine; an MTU of {} is assumed: {e:#}", UNKNOWN_PATH.mtu);
        UNKNOWN_PATH
    })
}

/// Sets what is needed, or says what is not as it should be.
fn settle_sysctls(config: &Config) -> anyhow::Result<()> {
    let settings = sysctl::required(config, &sysctl::interfaces(config)?);
    if config.engine.sysctls {
        for change in sysctl::apply(&settings)? {
            info!("{change}");
        }
        return Ok(());
    }
    for setting in settings {
        if setting.current().is_ok_and(|value| value != setting.want) {
            warn!("{} should be {}: {}", setting.name(), setting.want, setting.why);
        }
    }
    Ok(())
}

/// What super-packets go by, one for each worker; without it everything goes on, more slowly.
fn open_cutters(config: &Config) -> Option<Vec<Cutter>> {
    if !config.engine.super_packets {
        return None;
    }
    let name = cutter::device_name(config.engine.first_queue);
    match Cutter::open_all(&name, config.engine.workers, config.families()) {
        Ok(cutters) => {
            info!("super-packets to replicas go by the device {name}");
            Some(cutters)
        }
        Err(e) => {
            warn!("no super-packets: replicas get each segment by itself, which makes bulk uploads slow: {e:#}");
            None
        }
    }
}

/// Queues and raw sockets of all workers. The process must have one thread (see [`NfqQueue::open`]).
fn open_all(config: &Config, cutters: Option<Vec<Cutter>>) -> anyhow::Result<Vec<Opened>> {
    let mut cutters = cutters.into_iter().flatten();
    let mut manners = manners(config).into_iter();
    let mut open = |shard: u16| {
        let queue_number = config.engine.first_queue + shard;
        let queue = open_queue(config.engine.queue, queue_number)
            .with_context(|| format!("can't open packet queue {queue_number}"))?;
        let injector = Injector::open(cutters.next()).context("can't open the raw sockets")?;
        Ok(Opened {
            queue_number,
            queue,
            injector,
            manner: manners.next().unwrap_or_default(),
        })
    };
    (0..config.engine.workers).map(&mut open).collect()
}

/// How each worker is to run; a word of warning where that leaves others no processor.
fn manners(config: &Config) -> Vec<Manner> {
    let (threads, workers) = (&config.engine.threads, config.engine.workers);
    let allowed = schedule::allowed();
    if let Some(why) = schedule::crowding(threads, workers, &allowed) {
        warn!("{why}");
    }
    let plans = schedule::plans(threads, workers, &allowed).into_iter();
    let busy_poll = threads.busy_poll;
    plans.map(|plan| Manner { plan, busy_poll }).collect()
}

fn open_queue(kind: QueueKind, number: u16) -> io::Result<Box<dyn PacketQueue + Send>> {
    Ok(match kind {
        QueueKind::Direct => Box::new(DirectQueue::open(number)?),
        QueueKind::Nfq => Box::new(NfqQueue::open(number)?),
    })
}

/// The rules come last: from here on packets are diverted, and the queues are there to take them.
fn load_rules(config: &Config) -> anyhow::Result<()> {
    let backend = rules::load(config).context("can't load the rules")?;
    info!(%backend, "rules loaded");
    Ok(())
}

/// SIGHUP: the rules are loaded anew, in place. Services, machines and limits are what the engine started with.
fn reload(running: &Config, path: &Path) {
    notify("RELOADING=1");
    match Config::load(path) {
        Ok(read) if read == *running => info!("reload: {} has not changed", path.display()),
        Ok(_) => warn!(
            "reload: {} is valid but differs from what is running; services, machines and limits change with a restart only",
            path.display()
        ),
        Err(e) => error!("reload: the old configuration stays in force: {e:#}"),
    }
    if let Err(e) = load_rules(running) {
        error!("reload: the rules could not be loaded again: {e:#}");
    }
    notify("READY=1");
}
