//! The effective configuration as a file that reads back as itself.

use std::fmt;

use super::values::{format_duration, format_size};
use super::{Config, DirectPolicy, EngineConfig, ServiceConfig};
use crate::engine::{MaxLag, Original, SourceMode, UnknownPolicy};

/// A string as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        self.services.iter().try_for_each(|service| write!(f, "\n{service}"))
    }
}

impl fmt::Display for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        let size = |bytes: usize| quoted(&format_size(bytes as u64));
        let time = |micros| quoted(&format_duration(micros));
        writeln!(f, "[engine]")?;
        writeln!(f, "workers = {}", self.workers)?;
        writeln!(f, "first_queue = {}", self.first_queue)?;
        writeln!(f, "admin_socket = {}", quoted(&self.admin_socket.to_string_lossy()))?;
        writeln!(f, "queue = \"{}\"", self.queue.name())?;
        write!(f, "{}", self.threads)?;
        writeln!(f, "sysctls = {}", self.sysctls)?;
        writeln!(f, "super_packets = {}", self.super_packets)?;
        writeln!(f, "max_flows = {}", limits.max_flows)?;
        writeln!(f, "max_half_open = {}", limits.max_half_open)?;
        writeln!(f, "max_syn_rate = {}", self.max_syn_rate)?;
        writeln!(f, "flow_buffer = {}", size(limits.flow_buffer))?;
        writeln!(f, "total_buffer = {}", size(limits.total_buffer))?;
        writeln!(f, "ports = \"{}-{}\"", limits.ports.start(), limits.ports.end())?;
        writeln!(f, "half_open_timeout = {}", time(limits.half_open_timeout))?;
        writeln!(f, "close_timeout = {}", time(limits.close_timeout))?;
        writeln!(f, "time_wait = {}", time(limits.time_wait))?;
        writeln!(f, "idle_timeout = {}", time(limits.idle_timeout))
    }
}

impl fmt::Display for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            SourceMode::Psc => "psc",
            SourceMode::Client => "client",
        };
        let max_lag = match self.max_lag {
            MaxLag::Bytes(bytes) => bytes.to_string(),
            MaxLag::Unlimited => quoted("unlimited"),
        };
        let original = match self.original {
            Original::First => "first",
            Original::Fastest => "fastest",
        };
        let successor = self.successor.name();
        let unknown = match self.unknown {
            UnknownPolicy::Reset => "reset",
            UnknownPolicy::Drop => "drop",
        };
        let direct = match self.direct {
            DirectPolicy::Stop => "stop",
            DirectPolicy::Allow => "allow",
        };
        writeln!(f, "[[service]]")?;
        writeln!(f, "name = {}", quoted(&self.name))?;
        writeln!(f, "psc = \"{}\"", self.psc)?;
        writeln!(f, "source = \"{source}\"")?;
        writeln!(f, "max_lag = {max_lag}")?;
        writeln!(f, "original = \"{original}\"")?;
        writeln!(f, "successor = \"{successor}\"")?;
        writeln!(f, "replica_timeout = \"{}\"", format_duration(self.replica_timeout))?;
        self.write_detect(f)?;
        writeln!(f, "diverge = \"{}\"", self.diverge.name())?;
        writeln!(f, "unknown = \"{unknown}\"")?;
        writeln!(f, "direct = \"{direct}\"")?;
        for machine in &self.machines {
            writeln!(f, "[[service.machine]]")?;
            writeln!(f, "name = {}", quoted(&machine.name))?;
            writeln!(f, "address = \"{}\"", machine.addr)?;
        }
        Ok(())
    }
}

impl ServiceConfig {
    fn write_detect(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detect = &self.detect;
        let hang = detect.hang.map_or_else(|| "off".to_owned(), format_duration);
        writeln!(
            f,
            "detect = {{ floor = \"{}\", probe_interval = \"{}\", probes = {}, hang = \"{hang}\", vote = \"{}\" }}",
            format_duration(detect.floor),
            format_duration(detect.probe_interval),
            detect.probes,
            format_duration(detect.vote)
        )
    }
}
