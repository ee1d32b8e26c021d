//! `[engine]`'s words on the workers' threads: on which processors they run, before whom, and how long they look for packets before they sleep.

use std::fmt;

use toml::de::DeValue;

use super::problems::{At, Collector};
use super::reader::{Reader, integer};
use super::values::{format_duration, parse_duration};
use super::{MAX_WORKERS, defaults};
use crate::engine::{Micros, SECOND};

/// Processors have lower numbers than this (`CPU_SETSIZE`, sched_setaffinity(2)).
const CPUS: u16 = 1_024;
/// Priorities of SCHED_FIFO and SCHED_RR, sched(7).
const PRIORITIES: std::ops::RangeInclusive<i64> = 1..=99;
/// Who has nothing to do for longer than this may as well sleep.
const MOST_BUSY: Micros = SECOND;

/// `[engine] worker_cpus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerCpus {
    /// The kernel moves workers as it likes.
    Off,
    /// Each on one of the processors that this process may use, in turn.
    Auto,
    /// Each on the one of this number, in the order of the queues.
    List(Vec<u16>),
}

impl fmt::Display for WorkerCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "\"off\""),
            Self::Auto => write!(f, "\"auto\""),
            Self::List(cpus) => write!(f, "{cpus:?}"),
        }
    }
}

/// How the workers' threads run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    /// `worker_cpus`.
    pub cpus: WorkerCpus,
    /// `realtime_priority`: 1 to 99, of SCHED_RR; `None` is the common class.
    pub realtime: Option<u8>,
    /// `busy_poll` in microseconds: how long after a packet a worker looks for the next one without sleeping; 0 is off.
    pub busy_poll: Micros,
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worker_cpus = {}", self.cpus)?;
        match self.realtime {
            None => writeln!(f, "realtime_priority = \"off\"")?,
            Some(priority) => writeln!(f, "realtime_priority = {priority}")?,
        }
        match self.busy_poll {
            0 => writeln!(f, "busy_poll = \"off\""),
            micros => writeln!(f, "busy_poll = \"{}\"", format_duration(micros)),
        }
    }
}

/// Reads the three keys.
pub(super) fn read(p: &mut Collector<'_>, table: &mut Reader<'_, '_>, workers: u16) -> Threads {
    let cpus = table.or(p, "worker_cpus", defaults::WORKER_CPUS, cpus);
    one_for_each(p, &cpus, workers);
    Threads {
        cpus: cpus.value,
        realtime: table
            .or(p, "realtime_priority", defaults::REALTIME_PRIORITY, realtime)
            .value,
        busy_poll: table.or(p, "busy_poll", defaults::BUSY_POLL, busy_poll).value,
    }
}

fn one_for_each(p: &mut Collector<'_>, cpus: &At<WorkerCpus>, workers: u16) {
    let WorkerCpus::List(list) = &cpus.value else { return };
    // A wrong number of workers has its own complaint.
    let right = (1..=MAX_WORKERS).contains(&workers) && workers.is_power_of_two();
    if right && list.len() != usize::from(workers) {
        let text = format!(
            "worker_cpus: found {} of them, expected one for each of {workers} workers",
            list.len()
        );
        p.add(&cpus.span, text);
    }
}

fn cpus(value: &DeValue<'_>) -> Result<WorkerCpus, String> {
    let expected = || {
        format!(
            "\"off\", \"auto\", or a processor for each worker such as [2, 3], each from 0 to {}",
            CPUS - 1
        )
    };
    let cpu = |item: &DeValue<'_>| {
        let number = integer(item).and_then(|number| u16::try_from(number).ok());
        number.filter(|number| *number < CPUS)
    };
    match value {
        DeValue::Array(items) => items
            .iter()
            .map(|item| cpu(item.get_ref()))
            .collect::<Option<_>>()
            .map(WorkerCpus::List),
        other => match other.as_str() {
            Some("off") => Some(WorkerCpus::Off),
            Some("auto") => Some(WorkerCpus::Auto),
            _ => None,
        },
    }
    .ok_or_else(expected)
}

fn realtime(value: &DeValue<'_>) -> Result<Option<u8>, String> {
    if value.as_str() == Some("off") {
        return Ok(None);
    }
    integer(value)
        .filter(|number| PRIORITIES.contains(number))
        .and_then(|number| u8::try_from(number).ok())
        .map(Some)
        .ok_or_else(|| "\"off\", or a whole number from 1 to 99".to_owned())
}

fn busy_poll(value: &DeValue<'_>) -> Result<Micros, String> {
    let text = value.as_str();
    if text == Some("off") {
        return Ok(0);
    }
    text.and_then(parse_duration)
        .filter(|micros| (1..=MOST_BUSY).contains(micros))
        .ok_or_else(|| "\"off\", or a duration such as \"50us\", at most \"1s\"".to_owned())
}
