//! Everything that touches the kernel: the packet queue, raw sockets, rules, probes, the admin socket, signals, the clock.
//!
//! The only place with `unsafe`; each block says why it holds.

pub mod admin;
pub mod clock;
pub mod cutter;
pub mod doctor;
pub mod inject;
pub mod links;
pub mod memory;
pub mod netlink;
pub mod notify;
pub mod probe;
pub mod queue;
pub mod route;
pub mod rules;
pub mod schedule;
pub mod signals;
pub mod sysctl;

/// The mark (SO_MARK, "RVLO") of every packet that Relevo originates: the rules let it pass and never queue it again.
pub const MARK: u32 = 0x5256_4c4f;
