//! What can be typed; what it means is in `main`. Section 10 of the design is the contract.

use std::path::PathBuf;

use argh::FromArgs;

use crate::config::parse_duration;
use crate::daemon::status::{MOST_WITHIN, WITHIN};
use crate::engine::Micros;

/// Keep a TCP service alive when the machine that runs it dies, in the middle of a connection.
///
/// Traffic of a service address goes through this host to an original machine, and to live replicas of it; any replica can take
/// over the running connections. The configuration says which services and machines there are.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    example = "Is this host fit, and is the configuration right?\n  {command_name} doctor --config relevo.toml\n  \
               {command_name} check --config relevo.toml\n\nRun it, and look at it from another terminal:\n  \
               {command_name} run --config relevo.toml\n  {command_name} status\n\nMove a service to another machine by \
               hand:\n  {command_name} failover cache --to vm-b",
    note = "`{command_name} COMMAND --help` says more about each command.",
    error_code(1, "It did not work; one sentence on stderr says why."),
    error_code(2, "The command line was not understood.")
)]
pub struct Arguments {
    /// print the version and end
    #[argh(switch)]
    pub version: bool,
    /// what to do
    #[argh(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand)]
pub enum Command {
    /// `relevo run`.
    Run(Run),
    /// `relevo check`.
    Check(Check),
    /// `relevo doctor`.
    Doctor(Doctor),
    /// `relevo rules`.
    Rules(Rules),
    /// `relevo status`.
    Status(Status),
    /// `relevo failover`.
    Failover(Failover),
    /// `relevo machine`.
    Machine(Machine),
}

/// Run the engine in the foreground.
///
/// It sets the sysctls that it needs (unless told not to), loads its nftables rules, and says "ready". SIGTERM or SIGINT stops
/// it, SIGHUP loads the rules anew; a changed configuration needs a restart.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "run",
    example = "{command_name} --config /etc/relevo/relevo.toml"
)]
pub struct Run {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    pub config: PathBuf,
}

/// Check a configuration file: nothing but exit code 0 if it is right, else every mistake in it with its line.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "check",
    example = "{command_name} --config relevo.toml\n\nWhat is in force, with every default written out:\n  \
               {command_name} --config relevo.toml --print"
)]
pub struct Check {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    pub config: PathBuf,
    /// print the whole configuration as it takes effect, itself a valid file
    #[argh(switch)]
    pub print: bool,
}

/// Say what this host lacks, each with its mend. Exit code 1 if it can't work.
///
/// Looks at capabilities, the kernel's queue target, packet queues and other firewalls; with a configuration also at sysctls,
/// addresses and routes. Nothing is changed.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "doctor",
    example = "{command_name}\n{command_name} --config relevo.toml"
)]
pub struct Doctor {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
}

/// Show, load or unload the nftables rules. `relevo run` loads them by itself.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "rules",
    example = "{command_name} show --config relevo.toml\n{command_name} unload"
)]
pub struct Rules {
    /// what to do with them
    #[argh(subcommand)]
    pub action: RulesAction,
}

/// What to do with the rules.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand)]
pub enum RulesAction {
    /// `relevo rules show`.
    Show(RulesShow),
    /// `relevo rules load`.
    Load(RulesLoad),
    /// `relevo rules unload`.
    Unload(RulesUnload),
}

/// Print the rules of a configuration as text for `nft -f`. Needs no privileges.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand, name = "show", example = "{command_name} --config relevo.toml")]
pub struct RulesShow {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    pub config: PathBuf,
}

/// Load the rules of a configuration, in place of those that are loaded, in one transaction.
///
/// Until an engine runs, the services' packets are dropped, never let through untranslated.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand, name = "load", example = "{command_name} --config relevo.toml")]
pub struct RulesLoad {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    pub config: PathBuf,
}

/// Take the table `inet relevo` away; other tables are not touched.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand, name = "unload", example = "{command_name}")]
pub struct RulesUnload {
    /// the configuration file; not needed, and not read
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
}

/// Ask the running engine for its services, machines, flows and counters.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "status",
    example = "{command_name}\n\nFor programs; names and meanings stay as they are:\n  {command_name} --json"
)]
pub struct Status {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
    /// the configuration file, to find the engine's socket by
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
    /// the engine's socket (default /run/relevo/admin.sock)
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,
}

/// Move a service to another machine, and each running connection as soon as that machine is level in it.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "failover",
    example = "To the next one by the service's `successor`:\n  {command_name} cache\n\nTo a certain one:\n  {command_name} cache --to \
               vm-b"
)]
pub struct Failover {
    /// the service's name
    #[argh(positional)]
    pub service: String,
    /// the machine to take over (default: by the service's `successor`)
    #[argh(option, arg_name = "machine")]
    pub to: Option<String>,
    /// how long to wait for it to be level, connection by connection, such as 500ms (default 1s, at most 1m); connections in which it is not
    /// by then stay. 0s moves all at once, level or not
    #[argh(option, arg_name = "time", default = "Within(WITHIN)", from_str_fn(parse_within))]
    pub within: Within,
    /// the configuration file, to find the engine's socket by
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
    /// the engine's socket (default /run/relevo/admin.sock)
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,
}

/// A wait in microseconds, at most a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within(pub Micros);

fn parse_within(text: &str) -> Result<Within, String> {
    parse_duration(text)
        .filter(|micros| *micros <= MOST_WITHIN)
        .map(Within)
        .ok_or_else(|| format!("{text} is no duration up to 1m, such as 500ms or 2s"))
}

/// Take a machine out of a service, or back in.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "machine",
    example = "{command_name} disable cache vm-a\n{command_name} enable cache vm-a"
)]
pub struct Machine {
    /// what to do with it
    #[argh(subcommand)]
    pub action: MachineAction,
}

/// What to do with a machine.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand)]
pub enum MachineAction {
    /// `relevo machine enable`.
    Enable(MachineEnable),
    /// `relevo machine disable`.
    Disable(MachineDisable),
}

/// Let a machine serve new connections again, after a failure or a `disable`.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand, name = "enable", example = "{command_name} cache vm-a")]
pub struct MachineEnable {
    /// the service's name
    #[argh(positional)]
    pub service: String,
    /// the machine's name
    #[argh(positional)]
    pub machine: String,
    /// the configuration file, to find the engine's socket by
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
    /// the engine's socket (default /run/relevo/admin.sock)
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,
}

/// Take a machine out, after handing over the connections that it serves (for up to a second).
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(subcommand, name = "disable", example = "{command_name} cache vm-a")]
pub struct MachineDisable {
    /// the service's name
    #[argh(positional)]
    pub service: String,
    /// the machine's name
    #[argh(positional)]
    pub machine: String,
    /// the configuration file, to find the engine's socket by
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
    /// the engine's socket (default /run/relevo/admin.sock)
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,
}
