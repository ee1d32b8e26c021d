//! What goes wrong in a soak, one thing at a time, and how it is put right again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::world::{Kind, MACHINES, World, is_up, original};
use super::{Plan, Progress};
use crate::campaign::fault::Nuisance;
use crate::lab::faults::{Freeze, Link, freeze, set_loss, thaw};
use crate::lab::pattern::Random;

/// How long the engine may take to notice a frozen machine.
const NOTICE: Duration = Duration::from_secs(3);
/// How long losses, foreign tables and stalls go on.
const GOES_ON: Duration = Duration::from_secs(2);
/// How long the machines may take to be all in service again, and how long they must be.
const MENDED: (Duration, Duration) = (Duration::from_secs(8), Duration::from_millis(400));

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The original falls silent until it is missed.
    FreezeOriginal,
    /// A machine falls silent until it is missed.
    Freeze,
    /// All services are moved by command.
    Failover,
    /// A machine's link is down for a moment.
    Flap,
    /// A link loses packets.
    Loss,
    /// Another program's tables come and go.
    ForeignTables,
    /// The engine is stopped now and again.
    Stalls,
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::FreezeOriginal,
        Self::Failover,
        Self::Loss,
        Self::Freeze,
        Self::ForeignTables,
        Self::Flap,
        Self::Stalls,
    ];
}

/// A fault that was.
#[derive(Clone, Debug)]
pub struct Strike {
    /// From the start of the soak.
    pub at: Duration,
    /// What.
    pub trouble: Trouble,
    /// Whom, and how.
    pub detail: String,
    /// Until all machines were in service again.
    pub took: Duration,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.trouble, self.detail)
    }
}

/// The thread that makes the faults.
pub struct Faults(JoinHandle<Vec<Strike>>);

impl Faults {
    /// The first comes after half a cycle.
    pub fn start(world: &Arc<World>, progress: &Arc<Progress>, plan: &Plan, start: Instant) -> Self {
        let (world, progress, plan) = (Arc::clone(world), Arc::clone(progress), plan.clone());
        Self(std::thread::spawn(move || {
            let mut random = Random::new(plan.seed);
            let mut strikes = Vec::new();
            let mut next = start + plan.cycle / 2;
            for trouble in Trouble::ALL.into_iter().cycle() {
                progress.rest(next.saturating_duration_since(Instant::now()));
                // One more fault needs time to be got over before the clients end.
                if progress.stopped() || start.elapsed() + plan.cycle / 2 > plan.length {
                    break;
                }
                let at = start.elapsed();
                progress.set_fault(&format!("{trouble:?}"));
                let detail = strike(&world, &progress, trouble, &mut random);
                if let Err(wrong) = mend(&world) {
                    progress.lose(wrong);
                }
                progress.set_fault("");
                progress.faults.fetch_add(1, Ordering::Relaxed);
                strikes.push(Strike {
                    at,
                    trouble,
                    detail,
                    took: start.elapsed() - at,
                });
                // A fault that took long does not make the next one come sooner.
                next = (next + plan.cycle).max(Instant::now() + plan.cycle / 2);
            }
            strikes
        }))
    }

    /// Waits for the last to be put right.
    pub fn join(self) -> Vec<Strike> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn strike(world: &World, progress: &Progress, trouble: Trouble, random: &mut Random) -> String {
    let mut pick = |n: usize| usize::try_from(random.between(0, n as u64)).expect("small");
    match trouble {
        Trouble::FreezeOriginal | Trouble::Freeze => {
            let kind = Kind::ALL[pick(3)];
            let machine = if trouble == Trouble::FreezeOriginal {
                let status = world.status().expect("the engine's status");
                original(&status, kind).unwrap_or(0)
            } else {
                pick(MACHINES)
            };
            let way = Freeze::alternate(pick(2));
            freeze(world.lab.machine(machine), way);
            let noticed = wait_until_missed(world, machine);
            thaw(world.lab.machine(machine), way);
            let noticed = match noticed {
                Some(after) => format!("missed after {} ms", after.as_millis()),
                None => {
                    progress.lose(format!("m{machine} was frozen ({way:?}) and missed by nobody"));
                    "missed by nobody".to_owned()
                }
            };
            format!("m{machine} {way:?}, {noticed}")
        }
        Trouble::Failover => {
            let mut said = Vec::new();
            for kind in Kind::ALL {
                let to = format!("m{}", pick(MACHINES));
                let output = world.engine.command(&["failover", kind.name(), "--to", &to]);
                let refused = if output.status.success() { "" } else { " (refused)" };
                said.push(format!("{} to {to}{refused}", kind.name()));
            }
            said.join(", ")
        }
        Trouble::Flap => {
            let (machine, time) = (pick(MACHINES), Duration::from_millis(5 + pick(400) as u64));
            freeze(world.lab.machine(machine), Freeze::LinkDown);
            std::thread::sleep(time); // the fault's length
            thaw(world.lab.machine(machine), Freeze::LinkDown);
            format!("m{machine} for {} ms", time.as_millis())
        }
        Trouble::Loss => {
            let link = match pick(MACHINES + 1) {
                0 => Link::Client(0),
                n => Link::Machine(n - 1),
            };
            let per_mille = 10 + u32::try_from(pick(31)).expect("small");
            set_loss(&world.lab, link, per_mille);
            progress.rest(GOES_ON);
            set_loss(&world.lab, link, 0);
            format!("{per_mille} ‰ on {link:?}")
        }
        Trouble::ForeignTables => {
            let _nuisance = Nuisance::foreign_tables(world.lab.engine());
            progress.rest(GOES_ON);
            String::new()
        }
        Trouble::Stalls => {
            let _nuisance = Nuisance::stalls(world.engine.pid(), random.between(0, u64::MAX));
            progress.rest(GOES_ON);
            String::new()
        }
    }
}

/// Until all services have gone on without the machine.
fn wait_until_missed(world: &World, machine: usize) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < NOTICE {
        let status = world.status().expect("the engine's status");
        if Kind::ALL.iter().all(|kind| !is_up(&status, *kind, machine)) {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Takes all machines in again, until they have stayed for a while: a link may need a moment to carry something again.
fn mend(world: &World) -> Result<(), String> {
    let start = Instant::now();
    let mut well_since = start;
    loop {
        match world.mend() {
            Ok(true) => well_since = Instant::now(),
            Ok(false) if well_since.elapsed() > MENDED.1 => return Ok(()),
            Ok(false) => (),
            Err(error) => return Err(format!("a machine could not be enabled: {error}")),
        }
        if start.elapsed() > MENDED.0 {
            return Err(format!("the machines are not in service again after {:?}", MENDED.0));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
