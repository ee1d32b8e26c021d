//! How a worker's thread runs: on which processor, and before whom (sched(7)).
//!
//! Nothing depends on it but speed, so what can't be had is told and gone without.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{Threads, WorkerCpus};

/// What one worker's thread is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The one processor that it runs on.
    cpu: Option<u16>,
    /// Its priority in the class SCHED_RR.
    realtime: Option<u8>,
}

/// What a thread has, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Processors that it may run on, as ranges: `0-1,4`.
    pub cpus: String,
    /// In the real-time classes; 0 outside of them.
    pub realtime: u8,
}

/// A plan for each of so many workers. `allowed` are the processors of [`WorkerCpus::Auto`].
#[must_use]
pub fn plans(threads: &Threads, workers: u16, allowed: &[u16]) -> Vec<Plan> {
    let cpu = |worker: usize| match &threads.cpus {
        WorkerCpus::Off => None,
        WorkerCpus::Auto => allowed.get(worker % allowed.len().max(1)).copied(),
        WorkerCpus::List(cpus) => cpus.get(worker).copied(),
    };
    let plan = |worker| Plan {
        cpu: cpu(worker),
        realtime: threads.realtime,
    };
    (0..usize::from(workers)).map(plan).collect()
}

/// The processors that the calling thread may run on.
#[must_use]
pub fn allowed() -> Vec<u16> {
    let set = sched_getaffinity(None).unwrap_or_default();
    let numbers = 0..u16::try_from(CpuSet::MAX_CPU).unwrap_or(u16::MAX);
    numbers.filter(|cpu| set.is_set(usize::from(*cpu))).collect()
}

impl Plan {
    /// Whether it asks for a real-time class.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        self.realtime.is_some()
    }

    /// Gives it to the calling thread; returns what could not be had, each a sentence with its mend.
    #[must_use]
    pub fn carry_out(self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(cpu) = self.cpu
            && let Err(error) = pin(cpu)
        {
            complaints.push(format!(
                "worker_cpus: this process can't run on processor {cpu} ({error}): it runs where the kernel puts it"
            ));
        }
        if let Some(priority) = self.realtime
            && let Err(error) = prefer(priority)
        {
            complaints.push(format!(
                "realtime_priority: {priority} can't be had ({error}), so workers run as everybody does: it takes CAP_SYS_NICE"
            ));
        }
        complaints
    }
}

fn pin(cpu: u16) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// SCHED_RR and not SCHED_FIFO: workers that share a processor take turns.
fn prefer(priority: u8) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: both arguments are the calling thread's own and live through the call, which keeps no reference to them.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_RR, &raw const param) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What the calling thread has.
#[must_use]
pub fn held() -> Held {
    let (mut class, mut param) = (0, libc::sched_param { sched_priority: 0 });
    // SAFETY: as above; the call writes a number each to two places that are ours.
    let said = unsafe { libc::pthread_getschedparam(libc::pthread_self(), &raw mut class, &raw mut param) };
    let priority = if said == 0 { param.sched_priority } else { 0 };
    Held {
        cpus: ranges(&allowed()),
        realtime: u8::try_from(priority).unwrap_or(0),
    }
}

/// As /proc/PID/status writes them.
fn ranges(cpus: &[u16]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let text = runs.filter_map(|run| match (run.first()?, run.last()?) {
        (first, last) if first == last => Some(first.to_string()),
        (first, last) => Some(format!("{first}-{last}")),
    });
    text.collect::<Vec<_>>().join(",")
}

/// Why a worker that looks for packets without sleeping would take from others what they need; `None` if it does not.
#[must_use]
pub fn crowding(threads: &Threads, workers: u16, allowed: &[u16]) -> Option<String> {
    if threads.busy_poll == 0 {
        return None;
    }
    let workers = usize::from(workers);
    let mut own: Vec<u16> = match &threads.cpus {
        WorkerCpus::Off => Vec::new(),
        WorkerCpus::Auto => allowed.iter().copied().take(workers).collect(),
        WorkerCpus::List(cpus) => cpus.clone(),
    };
    own.sort_unstable();
    own.dedup();
    let pinned = threads.cpus != WorkerCpus::Off;
    let what = if threads.realtime.is_some() {
        "busy_poll with realtime_priority: nobody else runs on a processor as long as a worker looks for packets there"
    } else {
        "busy_poll: a worker that looks for packets takes its processor's time"
    };
    let text = if pinned && own.len() < workers {
        format!("{what}, and not each of {workers} workers has one of its own")
    } else if allowed.len() <= workers && (threads.realtime.is_some() || allowed.len() < workers) {
        format!("{what}, and beside {workers} workers there is none left")
    } else {
        return None;
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(cpus: WorkerCpus, realtime: Option<u8>, busy_poll: u64) -> Threads {
        Threads {
            cpus,
            realtime,
            busy_poll,
        }
    }

    #[test]
    fn each_worker_has_its_processor() {
        let cpus = |cpus, allowed: &[u16]| -> Vec<Option<u16>> {
            let threads = threads(cpus, Some(7), 0);
            let plans = plans(&threads, 4, allowed);
            assert!(plans.iter().all(|plan| plan.realtime == Some(7)));
            plans.into_iter().map(|plan| plan.cpu).collect()
        };
        assert_eq!(cpus(WorkerCpus::Off, &[0, 1]), [None; 4]);
        assert_eq!(cpus(WorkerCpus::Auto, &[2, 5]), [Some(2), Some(5), Some(2), Some(5)]);
        assert_eq!(cpus(WorkerCpus::Auto, &[]), [None; 4]);
        let list = WorkerCpus::List(vec![3, 1, 1, 0]);
        assert_eq!(cpus(list, &[0]), [Some(3), Some(1), Some(1), Some(0)]);
    }

    #[test]
    fn a_thread_gets_what_can_be_had_and_hears_of_the_rest() {
        let thread = std::thread::spawn(|| {
            let first = *allowed().first().expect("a processor");
            let plan = |cpu| Plan {
                cpu: Some(cpu),
                realtime: None,
            };
            assert_eq!(plan(first).carry_out(), Vec::<String>::new());
            assert_eq!(held().cpus, first.to_string());
            assert_eq!(held().realtime, 0);
            let said = plan(1_023).carry_out();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0].starts_with("worker_cpus: this process can't run on processor 1023"),
                "{said:?}"
            );
            // Needs CAP_SYS_NICE, as `make test` has; without it the thread hears so.
            let real = Plan {
                cpu: None,
                realtime: Some(1),
            };
            match &real.carry_out()[..] {
                [] => assert_eq!(held().realtime, 1),
                said => assert!(said[0].contains("it takes CAP_SYS_NICE"), "{said:?}"),
            }
        });
        thread.join().expect("no panic");
    }

    #[test]
    fn processors_as_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn who_looks_for_packets_must_leave_others_a_processor() {
        let said = |cpus, realtime, busy_poll, workers, allowed: &[u16]| {
            crowding(&threads(cpus, realtime, busy_poll), workers, allowed).is_some()
        };
        let list = |cpus: &[u16]| WorkerCpus::List(cpus.to_vec());
        assert!(!said(list(&[0, 0]), Some(1), 0, 2, &[0]), "nobody looks");
        assert!(said(list(&[1, 1]), None, 50, 2, &[0, 1, 2, 3]), "two on one");
        assert!(!said(list(&[1, 2]), Some(1), 50, 2, &[0, 1, 2, 3]));
        assert!(said(WorkerCpus::Auto, Some(1), 50, 2, &[0, 1]), "none left");
        assert!(
            !said(WorkerCpus::Auto, None, 50, 2, &[0, 1]),
            "the kernel lets others in"
        );
        assert!(said(WorkerCpus::Off, None, 50, 2, &[0]), "fewer than workers");
        assert!(!said(WorkerCpus::Off, Some(1), 50, 2, &[0, 1, 2]));
    }
}
