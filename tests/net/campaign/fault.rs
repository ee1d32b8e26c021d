//! What goes wrong, made to go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::load::Load;
use super::plan::{Fault, Plan, Whom};
use crate::lab::engine::Engine;
use crate::lab::faults::{Freeze, Trigger, thaw};
use crate::lab::pattern::Random;
use crate::lab::relay::Relay;
use crate::lab::{Host, Lab};

/// How long the engine may take to notice a frozen machine that is to be thawed after that. A replica may not be missed at all.
const NOTICE: Duration = Duration::from_secs(3);
/// How long another program's table stays, and stays away: ten changes a second.
const FOREIGN: Duration = Duration::from_millis(50);
/// Bytes of each packet queue's receive buffer when it is to overrun: three or four super-packets.
const SMALL_BUFFER: usize = 256 << 10;
/// What another program might load. Its chain is a base chain: removing it drops what waits in the queues (see kernel.md's findings).
const FOREIGN_TABLE: &str =
    "table inet foreign {\n chain in { type filter hook prerouting priority 0; policy accept; }\n}\n";

/// Puts the plan's bad link into service, if there is one; it stays bad until the lab ends.
pub fn bad_link(lab: &Lab, plan: &Plan) -> Option<Relay> {
    let (link, impairment) = plan.bad?;
    if plan.small_packets {
        let one = |device: &str| format!("link set dev {device} gso_max_segs 1\n");
        lab.engine().ip_batch(&one(&link.interface()));
        link.host(lab).ip_batch(&one("eth0"));
    }
    Some(Relay::start(lab.relay(link), impairment, plan.seed))
}

/// A fault of one machine, ready to strike.
pub struct Strike<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    trigger: Option<Trigger>,
}

impl<'a> Strike<'a> {
    /// Makes ready, so that the strike itself takes well under a millisecond.
    pub fn arm(lab: &'a Lab, plan: &'a Plan) -> Self {
        let freeze = match plan.fault {
            Fault::Freeze(_) | Fault::Thaw(_) | Fault::BadAndFreeze(_) | Fault::ForeignTablesAndFreeze => {
                Some(plan.freeze)
            }
            Fault::Flap(_) => Some(Freeze::LinkDown),
            _ => None,
        };
        let trigger = freeze.map(|kind| Trigger::arm(lab.machine(plan.target), kind));
        Self { lab, plan, trigger }
    }

    /// Whether there is a moment at which anything happens.
    pub fn has_a_moment(&self) -> bool {
        self.trigger.is_some() || matches!(self.plan.fault, Fault::Hang(_) | Fault::Crash(_))
    }

    /// Strikes, and ends the fault if the plan says that it ends.
    pub fn strike(mut self, load: &dyn Load, engine: &Engine) {
        let target = self.plan.target;
        if let Some(trigger) = self.trigger.take() {
            trigger.pull();
        }
        match self.plan.fault {
            Fault::Thaw(whom) => {
                self.wait_for_notice(whom, engine);
                thaw(self.lab.machine(target), self.plan.freeze);
            }
            Fault::Flap(_) => {
                std::thread::sleep(self.plan.length);
                thaw(self.lab.machine(target), Freeze::LinkDown);
            }
            Fault::Hang(_) => {
                load.signal(target, Signal::STOP);
                std::thread::sleep(self.plan.length);
                load.signal(target, Signal::CONT);
            }
            Fault::Crash(_) => load.signal(target, Signal::KILL),
            _ => (),
        }
    }

    fn wait_for_notice(&self, whom: Whom, engine: &Engine) {
        let start = Instant::now();
        let noticed = || match whom {
            Whom::Original => engine.original() != "m0",
            Whom::Replica => engine.machine_state(self.plan.target) != "up",
        };
        while start.elapsed() < NOTICE && !noticed() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A fault that goes on for the whole run.
pub struct Nuisance {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nuisance {
    /// Starts the plan's, if it has one.
    pub fn start(lab: &Lab, plan: &Plan, engine: &Engine) -> Option<Self> {
        match plan.fault {
            Fault::ForeignTables | Fault::ForeignTablesAndFreeze => Some(Self::foreign_tables(lab.engine())),
            Fault::Stalls | Fault::Overrun => {
                if plan.fault == Fault::Overrun {
                    let found = engine.shrink_receive_buffers(SMALL_BUFFER);
                    assert!(
                        found >= 2,
                        "{found} packet queues found, instead of one for each worker"
                    );
                }
                Some(Self::stalls(engine.pid(), plan.seed))
            }
            _ => None,
        }
    }

    /// Another program's table comes and goes on the engine host, ten changes a second.
    pub fn foreign_tables(host: &Host) -> Self {
        let host = host.clone();
        Self::keep_up(move || {
            host.nft(FOREIGN_TABLE);
            std::thread::sleep(FOREIGN);
            host.nft("delete table inet foreign\n");
            std::thread::sleep(FOREIGN);
        })
    }

    /// The process is stopped now and again for some ten milliseconds, as drawn from the seed.
    pub fn stalls(pid: Pid, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let signal = move |signal| {
            // A dead engine is found out by those who ask it.
            let _ = rustix::process::kill_process(pid, signal);
        };
        Self::keep_up(move || {
            signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(random.between(10, 80)));
            signal(Signal::CONT);
            std::thread::sleep(Duration::from_millis(random.between(50, 200)));
        })
    }

    /// Does it again and again.
    fn keep_up(mut once: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                once();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Nuisance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
