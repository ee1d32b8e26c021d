//! The keys of the file, section by section.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::problems::{At, Collector, Problems};
use super::reader::{Reader, integer};
use super::values::{DURATION, SIZE, parse_duration, parse_ports, parse_size};
use super::{Config, DirectPolicy, EngineConfig, MachineConfig, QueueKind, ServiceConfig, defaults, threads, validate};
use crate::engine::{
    DetectSpec, DivergePolicy, Limits, MaxLag, Micros, Original, SourceMode, Successor, UnknownPolicy,
};

/// A service as read, with the places of what [`validate`] compares.
pub(super) struct RawService {
    pub(super) name: At<String>,
    pub(super) psc: At<SocketAddr>,
    pub(super) replica_timeout: At<Micros>,
    pub(super) vote: At<Micros>,
    pub(super) hang: At<Option<Micros>>,
    pub(super) floor: Micros,
    pub(super) machines: Vec<RawMachine>,
    max_lag: MaxLag,
    original: Original,
    successor: Successor,
    detect: DetectSpec,
    diverge: DivergePolicy,
    unknown: UnknownPolicy,
    pub(super) source: SourceMode,
    pub(super) direct: At<DirectPolicy>,
}

/// A machine as read.
pub(super) struct RawMachine {
    pub(super) name: At<String>,
    pub(super) addr: At<SocketAddr>,
}

/// `[engine]` as read.
pub(super) struct RawEngine {
    pub(super) workers: At<u16>,
    pub(super) first_queue: At<u16>,
    pub(super) max_flows: At<usize>,
    pub(super) max_half_open: At<usize>,
    pub(super) flow_buffer: At<usize>,
    pub(super) total_buffer: At<usize>,
    pub(super) ports: At<std::ops::RangeInclusive<u16>>,
}

/// Reads and judges a whole file.
pub(super) fn read(file: &str, text: &str) -> Result<Config, Problems> {
    let mut problems = Collector::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    let mut root = Reader::new("the file", document.get_ref(), 0..0);
    let engine = read_engine(&mut problems, &mut root);
    let mut services = Vec::new();
    for reader in root.tables(&mut problems, "service", "[[service]]") {
        services.push(read_service(&mut problems, reader));
    }
    root.finish(&mut problems);
    // A service that could not be read in full has its complaint; the others are still compared with each other.
    let services: Vec<RawService> = services.into_iter().flatten().collect();
    validate::services(&mut problems, &services);
    problems.finish()?;
    Ok(Config {
        engine,
        services: services.into_iter().map(RawService::finish).collect(),
    })
}

fn read_engine(problems: &mut Collector<'_>, root: &mut Reader<'_, '_>) -> EngineConfig {
    let empty = DeTable::new();
    let mut table = root
        .table(problems, "engine", "[engine]")
        .unwrap_or_else(|| Reader::new("[engine]", &empty, 0..0));
    let p = problems;
    let raw = RawEngine {
        workers: table.or(p, "workers", defaults::WORKERS, number(1, u16::MAX)),
        first_queue: table.or(p, "first_queue", defaults::FIRST_QUEUE, number(0, u16::MAX)),
        max_flows: table.or(p, "max_flows", defaults::MAX_FLOWS, number(1, 100_000_000)),
        max_half_open: table.or(p, "max_half_open", defaults::MAX_HALF_OPEN, number(1, 100_000_000)),
        flow_buffer: table.or(p, "flow_buffer", defaults::FLOW_BUFFER, bytes),
        total_buffer: table.or(p, "total_buffer", defaults::TOTAL_BUFFER, bytes),
        ports: table.or(p, "ports", defaults::PORTS, |value| {
            let expected = || "a port range such as \"20000-60999\"".to_owned();
            value.as_str().and_then(parse_ports).ok_or_else(expected)
        }),
    };
    let limits = Limits {
        max_flows: raw.max_flows.value,
        max_half_open: raw.max_half_open.value,
        flow_buffer: raw.flow_buffer.value,
        total_buffer: raw.total_buffer.value,
        ports: raw.ports.value.clone(),
        half_open_timeout: table
            .or(p, "half_open_timeout", defaults::HALF_OPEN_TIMEOUT, duration)
            .value,
        close_timeout: table.or(p, "close_timeout", defaults::CLOSE_TIMEOUT, duration).value,
        time_wait: table.or(p, "time_wait", defaults::TIME_WAIT, duration).value,
        idle_timeout: table.or(p, "idle_timeout", defaults::IDLE_TIMEOUT, duration).value,
        ..Limits::default()
    };
    let engine = EngineConfig {
        workers: raw.workers.value,
        first_queue: raw.first_queue.value,
        admin_socket: table
            .or(p, "admin_socket", PathBuf::from(defaults::ADMIN_SOCKET), absolute_path)
            .value,
        queue: table
            .or(p, "queue", defaults::QUEUE, |value| {
                let named = |kind: &QueueKind| value.as_str() == Some(kind.name());
                QueueKind::ALL
                    .into_iter()
                    .find(named)
                    .ok_or("\"direct\" or \"nfq\"".into())
            })
            .value,
        threads: threads::read(p, &mut table, raw.workers.value),
        max_syn_rate: table
            .or(p, "max_syn_rate", defaults::MAX_SYN_RATE, number(1, 100_000_000))
            .value,
        sysctls: table.or(p, "sysctls", defaults::SYSCTLS, yes_or_no).value,
        super_packets: table.or(p, "super_packets", defaults::SUPER_PACKETS, yes_or_no).value,
        limits,
    };
    table.finish(p);
    validate::engine(p, &raw);
    engine
}

fn yes_or_no(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or("true or false".into())
}

fn read_service(p: &mut Collector<'_>, mut table: Reader<'_, '_>) -> Option<RawService> {
    let service_name = table.required(p, "name", "name = \"cache\"", name);
    let psc = table.required(p, "psc", "psc = \"10.0.1.100:6379\"", |value| {
        let expected = || "ADDRESS:PORT, not port 0, such as \"10.0.1.100:6379\" or \"[fd00::1]:6379\"".to_owned();
        value
            .as_str()
            .and_then(|text| text.parse::<SocketAddr>().ok())
            .filter(|psc| psc.port() != 0)
            .ok_or_else(expected)
    });
    let source = table.or(p, "source", defaults::SOURCE, |value| match value.as_str() {
        Some("psc") => Ok(SourceMode::Psc),
        Some("client") => Ok(SourceMode::Client),
        _ => Err("\"psc\" or \"client\"".to_owned()),
    });
    let max_lag = table.or(p, "max_lag", defaults::MAX_LAG, max_lag);
    let original = table.or(p, "original", defaults::ORIGINAL, |value| match value.as_str() {
        Some("first") => Ok(Original::First),
        Some("fastest") => Ok(Original::Fastest),
        _ => Err("\"first\" or \"fastest\"".to_owned()),
    });
    let successor = table.or(p, "successor", defaults::SUCCESSOR, |value| {
        let named = |choice: &Successor| value.as_str() == Some(choice.name());
        let expected = || "\"first\", \"lowest-rtt\" or \"least-lag\"".to_owned();
        Successor::ALL.into_iter().find(named).ok_or_else(expected)
    });
    let replica_timeout = table.or(p, "replica_timeout", defaults::REPLICA_TIMEOUT, duration);
    let detect = read_detect(p, &mut table);
    let diverge = table.or(p, "diverge", defaults::DIVERGE, |value| {
        let named = |policy: &DivergePolicy| value.as_str() == Some(policy.name());
        let expected = || "\"off\", \"warn\", \"ineligible\" or \"evict\"".to_owned();
        DivergePolicy::ALL.into_iter().find(named).ok_or_else(expected)
    });
    let unknown = table.or(p, "unknown", defaults::UNKNOWN, |value| match value.as_str() {
        Some("reset") => Ok(UnknownPolicy::Reset),
        Some("drop") => Ok(UnknownPolicy::Drop),
        _ => Err("\"reset\" or \"drop\"".to_owned()),
    });
    let direct = table.or(p, "direct", defaults::DIRECT, |value| match value.as_str() {
        Some("stop") => Ok(DirectPolicy::Stop),
        Some("allow") => Ok(DirectPolicy::Allow),
        _ => Err("\"stop\" or \"allow\"".to_owned()),
    });
    let mut machines = Vec::new();
    let mut whole = true;
    let readers = table.tables(p, "machine", "[[service.machine]]");
    whole &= !readers.is_empty();
    for reader in readers {
        match read_machine(p, reader, psc.as_ref().map(|psc| psc.value.port())) {
            Some(machine) => machines.push(machine),
            None => whole = false,
        }
    }
    table.finish(p);
    let (detect, vote, hang) = detect;
    whole.then_some(RawService {
        name: service_name?,
        psc: psc?,
        replica_timeout,
        vote,
        hang,
        floor: detect.floor,
        machines,
        source: source.value,
        max_lag: max_lag.value,
        original: original.value,
        successor: successor.value,
        detect,
        diverge: diverge.value,
        unknown: unknown.value,
        direct,
    })
}

/// The `detect` table, and `vote` and `hang` once more with their places.
fn read_detect(p: &mut Collector<'_>, service: &mut Reader<'_, '_>) -> (DetectSpec, At<Micros>, At<Option<Micros>>) {
    let default = defaults::DETECT;
    let Some(mut table) = service.table(p, "detect", "detect") else {
        let span = service.span().clone();
        let vote = At {
            value: default.vote,
            span: span.clone(),
        };
        let hang = At {
            value: default.hang,
            span,
        };
        return (default, vote, hang);
    };
    let vote = table.or(p, "vote", default.vote, duration);
    let hang = table.or(p, "hang", default.hang, |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => duration(value)
            .map(Some)
            .map_err(|expected| format!("\"off\", or {expected}")),
    });
    let detect = DetectSpec {
        floor: table.or(p, "floor", default.floor, duration).value,
        probe_interval: table.or(p, "probe_interval", default.probe_interval, duration).value,
        probes: table.or(p, "probes", default.probes, number(1, 100)).value,
        hang: hang.value,
        vote: vote.value,
        ..default
    };
    table.finish(p);
    (detect, vote, hang)
}

fn read_machine(p: &mut Collector<'_>, mut table: Reader<'_, '_>, port: Option<u16>) -> Option<RawMachine> {
    let machine_name = table.required(p, "name", "name = \"vm-a\"", name);
    // Without a PSC there is no port to inherit; its absence has been complained of, so any number does.
    let port = port.unwrap_or(1);
    let addr = table.required(p, "address", "address = \"10.0.2.2\"", |value| {
        let expected = || "ADDRESS or ADDRESS:PORT, not port 0, such as \"10.0.2.2\" or \"[fd00::2]:6379\"".to_owned();
        value
            .as_str()
            .and_then(|text| parse_address(text, port))
            .ok_or_else(expected)
    });
    table.finish(p);
    Some(RawMachine {
        name: machine_name?,
        addr: addr?,
    })
}

impl RawService {
    fn finish(self) -> ServiceConfig {
        let machine = |machine: RawMachine| MachineConfig {
            name: machine.name.value,
            addr: machine.addr.value,
        };
        ServiceConfig {
            name: self.name.value,
            psc: self.psc.value,
            source: self.source,
            max_lag: self.max_lag,
            original: self.original,
            successor: self.successor,
            replica_timeout: self.replica_timeout.value,
            detect: self.detect,
            diverge: self.diverge,
            unknown: self.unknown,
            direct: self.direct.value,
            machines: self.machines.into_iter().map(machine).collect(),
        }
    }
}

/// `10.0.2.2`, `10.0.2.2:6380`, `fd00::2`, `[fd00::2]` or `[fd00::2]:6380`.
fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, port))
        .or_else(|_| text.parse())
        .ok()
        .filter(|addr| addr.port() != 0)
}

/// Names are typed on command lines and printed in tables.
fn name(value: &DeValue<'_>) -> Result<String, String> {
    let fits = |text: &&str| {
        (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !text.starts_with('-')
    };
    let expected = || "a name of 1 to 64 letters, digits, '.', '_' or '-'".to_owned();
    value.as_str().filter(fits).map(str::to_owned).ok_or_else(expected)
}

/// A whole number within bounds, both included.
fn number<'i, T>(least: T, most: T) -> impl Fn(&DeValue<'i>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
{
    move |value| {
        let expected = || format!("a whole number from {least} to {most}");
        let number = integer(value).and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(expected)
    }
}

/// A duration that is not zero: no timer of the engine makes sense without one.
fn duration(value: &DeValue<'_>) -> Result<Micros, String> {
    let expected = || format!("{DURATION}, more than zero");
    value
        .as_str()
        .and_then(parse_duration)
        .filter(|micros| *micros > 0)
        .ok_or_else(expected)
}

/// A byte count, as a number or as text with a unit.
fn byte_count(value: &DeValue<'_>) -> Option<u64> {
    match value.as_str() {
        Some(text) => parse_size(text),
        None => u64::try_from(integer(value)?).ok(),
    }
}

fn bytes(value: &DeValue<'_>) -> Result<usize, String> {
    byte_count(value)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| SIZE.to_owned())
}

fn max_lag(value: &DeValue<'_>) -> Result<MaxLag, String> {
    match value.as_str() {
        Some("unlimited") => Ok(MaxLag::Unlimited),
        _ => byte_count(value)
            .map(MaxLag::Bytes)
            .ok_or_else(|| format!("{SIZE}, or \"unlimited\"")),
    }
}

fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    // 107 bytes and a NUL are what fits in a Unix socket's address.
    let fits = |text: &&str| text.starts_with('/') && text.len() <= 107 && !text.contains('\0');
    let expected = || "an absolute path of at most 107 bytes".to_owned();
    value.as_str().filter(fits).map(PathBuf::from).ok_or_else(expected)
}
