//! What a person writes: a TOML file, turned into a validated [`Config`] or into every complaint about it at once.
//!
//! `file` reads keys, `validate` judges what they say together, [`defaults`] holds every default, [`Config`]'s `Display` writes the effective file back. Section 10 of the design is the contract.

pub mod defaults;
mod file;
mod print;
mod problems;
mod reader;
mod threads;
mod validate;
mod values;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;

pub use problems::{Problem, Problems};
pub use threads::{Threads, WorkerCpus};
pub use values::parse_duration;

use crate::engine::{
    DetectSpec, DivergePolicy, EngineSpec, Limits, MachineSpec, MaxLag, Micros, Original, ServiceSpec, SourceMode,
    Successor, UnknownPolicy,
};

/// The most machines that one service may have.
pub const MAX_MACHINES: usize = 16;
/// The most workers: more queues than cores serve nobody.
pub const MAX_WORKERS: u16 = 64;

/// A whole validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[engine]`.
    pub engine: EngineConfig,
    /// `[[service]]`, in file order, at least one.
    pub services: Vec<ServiceConfig>,
}

/// `[engine] queue`: how packets are taken from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Over a netlink socket of Relevo's own.
    Direct,
    /// Over the `nfq` crate.
    Nfq,
}

impl QueueKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Nfq];

    /// The word for it in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nfq => "nfq",
        }
    }
}

/// `[engine]`: what holds for the whole host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Queues and worker threads; a power of two from 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// The first worker's queue number; the others follow.
    pub first_queue: u16,
    /// Where `relevo status` and the other commands find the daemon.
    pub admin_socket: PathBuf,
    /// How packets are taken from the kernel.
    pub queue: QueueKind,
    /// How the workers' threads run.
    pub threads: Threads,
    /// Whether `relevo run` sets the sysctls that it needs.
    pub sysctls: bool,
    /// Whether the host cuts super-packets for replicas.
    pub super_packets: bool,
    /// R18: how many connection attempts a second the rules let through to the queues, of all services together.
    pub max_syn_rate: u32,
    /// R18, for the whole host: [`Config::engine_spec`] gives each shard its share.
    pub limits: Limits,
}

/// What becomes of what a machine says through this host from its service port, but not to the engine (`source = "psc"` only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectPolicy {
    /// It is dropped: clients hear of the service from the engine alone.
    Stop,
    /// It passes: the machines' service port may be used directly, past the engine.
    Allow,
}

/// `[[service]]`: one PSC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The operator's name for it.
    pub name: String,
    /// The one address:port that clients use.
    pub psc: SocketAddr,
    /// Which address the machines see.
    pub source: SourceMode,
    /// R4's bound.
    pub max_lag: MaxLag,
    /// R16: whose output the client sees.
    pub original: Original,
    /// R16's choice of who takes over.
    pub successor: Successor,
    /// R15.
    pub replica_timeout: Micros,
    /// R14, R11.
    pub detect: DetectSpec,
    /// R17.
    pub diverge: DivergePolicy,
    /// R19.
    pub unknown: UnknownPolicy,
    /// Whether the machines' service port may be used past the engine.
    pub direct: DirectPolicy,
    /// In takeover order, 1 to [`MAX_MACHINES`].
    pub machines: Vec<MachineConfig>,
}

/// `[[service.machine]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// The operator's name for it.
    pub name: String,
    /// Where the service listens on that machine.
    pub addr: SocketAddr,
}

/// What the host knows of the way to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// Index of the interface that packets to it leave by, and that its own must arrive on (R22); `None` if unknown.
    pub ifindex: Option<u32>,
    /// MTU of the path in bytes, IP header included (R5).
    pub mtu: u16,
}

impl Config {
    /// Reads a file. The error holds [`Problems`] if the file could be read but not accepted.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {file}"))?;
        Ok(Self::parse(&file, &text)?)
    }

    /// Reads the text of a file; `file` is its name in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        file::read(file, text)
    }

    /// Whether any service uses IPv4, and whether any uses IPv6.
    #[must_use]
    pub fn families(&self) -> (bool, bool) {
        let v4 = self.services.iter().any(|service| service.psc.is_ipv4());
        let v6 = self.services.iter().any(|service| service.psc.is_ipv6());
        (v4, v6)
    }

    /// What one shard of the engine is told: the services, and its share of the host's limits. `host` answers for each
    /// machine's address.
    #[must_use]
    pub fn engine_spec(&self, shard: u16, hash_key: [u8; 16], host: &dyn Fn(IpAddr) -> HostPath) -> EngineSpec {
        EngineSpec {
            services: self.services.iter().map(|service| service.spec(host)).collect(),
            limits: self.engine.shard_limits(),
            shard,
            shards: self.engine.workers,
            // The host knows whether it can.
            super_packets: false,
            hash_key,
        }
    }
}

impl EngineConfig {
    /// One shard's share of the host's limits. Flows are dealt to the shards by the client's port, so evenly enough.
    fn shard_limits(&self) -> Limits {
        let share = |whole: usize| (whole / usize::from(self.workers.max(1))).max(1);
        Limits {
            max_flows: share(self.limits.max_flows),
            max_half_open: share(self.limits.max_half_open),
            total_buffer: share(self.limits.total_buffer),
            ..self.limits.clone()
        }
    }
}

impl ServiceConfig {
    fn spec(&self, host: &dyn Fn(IpAddr) -> HostPath) -> ServiceSpec {
        let machine = |machine: &MachineConfig| {
            let HostPath { ifindex, mtu } = host(machine.addr.ip());
            MachineSpec {
                name: machine.name.clone(),
                addr: machine.addr,
                ifindex,
                path_mtu: mtu,
            }
        };
        ServiceSpec {
            name: self.name.clone(),
            psc: self.psc,
            source: self.source,
            max_lag: self.max_lag,
            original: self.original,
            successor: self.successor,
            replica_timeout: self.replica_timeout,
            detect: self.detect,
            diverge: self.diverge,
            unknown: self.unknown,
            machines: self.machines.iter().map(machine).collect(),
        }
    }
}
