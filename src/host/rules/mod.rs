//! The ruleset: from `nft-rules/relevo.nft`, the one text that says what is loaded, to the kernel.
//!
//! [`template`] fills the text in, [`text`] and `compile` read it, `load` sends it. Whatever goes wrong, nothing is half loaded.

mod compile;
pub mod expr;
mod load;
pub mod template;
pub mod text;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;

pub use template::render;

use super::netlink::{Socket, attributes, be64_at, messages, request};
use crate::config::Config;

/// The table, family inet. All of it is ours, nothing else is.
pub const TABLE: &str = "relevo";

/// How packets get to a queue in this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBackend {
    /// nf_tables' own `queue` expression (`nft_queue`).
    Native,
    /// The xt target NFQUEUE, by nf_tables' compatibility layer (`nft_compat`, `xt_NFQUEUE`).
    Compat,
}

impl std::fmt::Display for QueueBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native => "nft_queue",
            Self::Compat => "xt_NFQUEUE through nft_compat",
        })
    }
}

/// Why the kernel's rules are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The text is at fault, not the host.
    #[error(transparent)]
    Syntax(#[from] text::SyntaxError),
    /// No CAP_NET_ADMIN.
    #[error("changing nftables rules needs CAP_NET_ADMIN: run as root")]
    NotPermitted,
    /// No nf_tables.
    #[error(
        "this kernel has no nf_tables for inet: load the module nf_tables, or take a kernel with CONFIG_NF_TABLES and \
         CONFIG_NF_TABLES_INET"
    )]
    NoNfTables,
    /// Neither [`QueueBackend`].
    #[error(
        "this kernel has no queue target: load the module nft_queue (or xt_NFQUEUE and nft_compat), or take a kernel with \
         CONFIG_NFT_QUEUE (or CONFIG_NETFILTER_XT_TARGET_NFQUEUE and CONFIG_NFT_COMPAT)"
    )]
    NoQueueTarget,
    /// Some other expression that the ruleset uses.
    #[error(
        "this kernel lacks what {what} needs of nf_tables: load the module nft_ct, or take a kernel with CONFIG_NFT_CT (and, \
         before Linux 6.2, CONFIG_NFT_OBJREF)"
    )]
    MissingExpression {
        /// The rule.
        what: String,
    },
    /// A table of this name that an earlier version has left, with other chains or sets.
    #[error("the table inet {TABLE} is there with another {what}: run `relevo rules unload` first ({source})")]
    Stale {
        /// A chain or set.
        what: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// More than one transaction holds.
    #[error("the ruleset is larger than one nf_tables transaction: configure fewer services")]
    TooLarge,
    /// Anything else that the kernel says.
    #[error("the kernel refused {what}: {source}")]
    Refused {
        /// What it was about.
        what: String,
        /// The kernel's word.
        source: io::Error,
        /// Whether it was a rule with a queue.
        queue: bool,
    },
    /// The way to the kernel.
    #[error("the netlink socket to nf_tables failed: {0}")]
    Netlink(#[source] io::Error),
}

impl RulesError {
    fn of_socket(source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => Self::NoNfTables,
            _ => Self::Netlink(source),
        }
    }

    fn of_answer(what: String, queue: bool, source: io::Error) -> Self {
        let declares = ["the table", "chain ", "set ", "counter "]
            .iter()
            .any(|start| what.starts_with(start));
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted,
            Some(libc::EOPNOTSUPP) if what == "the transaction" => Self::NoNfTables,
            Some(libc::EAFNOSUPPORT) => Self::NoNfTables,
            Some(libc::EEXIST | libc::EBUSY | libc::EOPNOTSUPP) if declares => Self::Stale { what, source },
            Some(libc::ENOENT) if !queue && what.starts_with("the rule ") => Self::MissingExpression { what },
            _ => Self::Refused { what, source, queue },
        }
    }

    /// The kernel does not know the queue expression that it was given.
    fn is_unknown_queue(&self) -> bool {
        matches!(self, Self::Refused { queue: true, source, .. } if source.raw_os_error() == Some(libc::ENOENT))
    }
}

/// Puts the rules of a configuration in place of whatever the table held, in one transaction.
pub fn load(config: &Config) -> Result<QueueBackend, RulesError> {
    let ruleset = text::compile(&render(config))?;
    with_backend(|backend| load::load(&ruleset, backend))
}

/// Deletes the table; `false` if there was none. Packets that are queued at this moment are lost, so flows should be over.
pub fn unload() -> Result<bool, RulesError> {
    load::unload(TABLE)
}

/// Which queue target this kernel has, without changing anything.
pub fn probe() -> Result<QueueBackend, RulesError> {
    with_backend(load::probe)
}

/// The native way, or else the other one.
fn with_backend(attempt: impl Fn(QueueBackend) -> Result<(), RulesError>) -> Result<QueueBackend, RulesError> {
    match attempt(QueueBackend::Native) {
        Ok(()) => return Ok(QueueBackend::Native),
        Err(error) if error.is_unknown_queue() => {}
        Err(error) => return Err(error),
    }
    match attempt(QueueBackend::Compat) {
        Ok(()) => Ok(QueueBackend::Compat),
        Err(error) if error.is_unknown_queue() => Err(RulesError::NoQueueTarget),
        Err(error) => Err(error),
    }
}

/// A named counter of the table, as `nft list counters` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCounter {
    /// As declared in the ruleset: `fragments`, `untranslated`, `silenced`.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the rules themselves have dropped (R20); empty if they are not loaded.
pub fn counters() -> Result<Vec<NamedCounter>, RulesError> {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETOBJ`.
    const GETOBJ: u16 = 10 << 8 | 19;
    /// struct nfgenmsg { u8 family, u8 version, be16 res_id }: inet.
    const INET: [u8; 4] = [1, 0, 0, 0];
    /// `NLM_F_REQUEST | NLM_F_DUMP`.
    const DUMP: u16 = 0x301;
    let socket = Socket::open(mnl::Bus::Netfilter).map_err(RulesError::of_socket)?;
    let answers = socket
        .ask(&request(GETOBJ, DUMP, &INET, &[]), true)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => RulesError::NotPermitted,
            _ => RulesError::Netlink(error),
        })?;
    Ok(messages(&answers)
        .filter_map(|message| counter(message.payload.get(INET.len()..)?))
        .collect())
}

/// One counter of our table out of a dump of all objects.
fn counter(payload: &[u8]) -> Option<NamedCounter> {
    /// `NFTA_OBJ_TABLE`, `_NAME`, `_TYPE`, `_DATA`; `NFTA_COUNTER_BYTES`, `_PACKETS`.
    const TABLE_NAME: u16 = 1;
    const NAME: u16 = 2;
    const TYPE: u16 = 3;
    const DATA: u16 = 4;
    const BYTES: u16 = 1;
    const PACKETS: u16 = 2;
    let get = |wanted| {
        attributes(payload)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    if text(get(TABLE_NAME)?) != TABLE || get(TYPE)? != 1u32.to_be_bytes() {
        return None;
    }
    let data = get(DATA)?;
    let number = |wanted| {
        attributes(data)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| be64_at(value, 0))
    };
    Some(NamedCounter {
        name: text(get(NAME)?),
        packets: number(PACKETS)?,
        bytes: number(BYTES)?,
    })
}

/// The rules of a text in the notation of `nft --debug=netlink`, so that the two can be held against each other.
pub fn bytecode(text: &str) -> Result<String, text::SyntaxError> {
    let ruleset = text::compile(text)?;
    let mut listing = String::new();
    for rule in &ruleset.rules {
        let _ = writeln!(listing, "inet {} {}", ruleset.table, rule.chain);
        for expr in &rule.exprs {
            let _ = writeln!(listing, "  {expr}");
        }
        listing.push('\n');
    }
    Ok(listing)
}
