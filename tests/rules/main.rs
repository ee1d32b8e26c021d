//! The ruleset in a real kernel: the binary's commands, and what the rules do with real packets.
//!
//! ```text
//!   rlv-c-PID  client, and machines in forged packets      rlv-h-PID  the engine's host, rules loaded
//!   c0  10.0.1.1/24, fd00:1::1/64  ─────── veth ───────  h0  10.0.1.100/24, fd00:1::100/64 (the PSCs)
//! ```
//!
//! Needs root, iproute2 and nftables. Everything made here goes when the test ends, however it ends.

use std::time::Duration;

mod commands;
mod divert;
mod drops;
mod host;
mod lab;
mod packet;

const CONFIG: &str = r#"
[engine]
workers = 4
first_queue = 8
[[service]]
name = "cache"
psc = "10.0.1.100:6379"
machine = [{ name = "a", address = "10.0.2.2" }, { name = "b", address = "10.0.2.3:6380" }]
[[service]]
name = "web"
psc = "10.0.1.100:80"
source = "client"
machine = [{ name = "a", address = "10.0.2.2" }]
[[service]]
name = "cache6"
psc = "[fd00:1::100]:6379"
machine = [{ name = "a", address = "fd00:2::2" }]
[[service]]
name = "web6"
psc = "[fd00:1::100]:80"
source = "client"
machine = [{ name = "a", address = "fd00:2::2" }]
"#;

/// TCP's flag bits.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The engine's own mark on what it sends.
const MARK: u32 = 0x5256_4c4f;
/// How long anything may take that takes an instant.
const PATIENCE: Duration = Duration::from_secs(5);
