//! The text of `nft-rules/relevo.nft`, filled in.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, DirectPolicy};
use crate::engine::SourceMode;
use crate::host::cutter;

/// The ruleset as it stands in the repository.
pub const TEMPLATE: &str = include_str!("../../../nft-rules/relevo.nft");

/// The elements of the sets, by address family: `[0]` is IPv4, `[1]` is IPv6.
#[derive(Default)]
struct Elements {
    psc: [BTreeSet<String>; 2],
    psc_addr: [BTreeSet<String>; 2],
    machine_psc: [BTreeSet<String>; 2],
    machine_client: [BTreeSet<String>; 2],
    machine_client_addr: [BTreeSet<String>; 2],
    machine_only: [BTreeSet<String>; 2],
}

/// A concatenation as nft writes it.
fn service(addr: SocketAddr) -> String {
    format!("{} . {}", addr.ip(), addr.port())
}

impl Elements {
    fn of(config: &Config) -> Self {
        let mut all = Self::default();
        for service_config in &config.services {
            let psc = service_config.psc;
            let family = family(psc.ip());
            all.psc[family].insert(service(psc));
            all.psc_addr[family].insert(psc.ip().to_string());
            for machine in &service_config.machines {
                let addr = machine.addr;
                match service_config.source {
                    SourceMode::Psc => {
                        all.machine_psc[family].insert(format!("{} . {}", service(addr), psc.ip()));
                        if service_config.direct == DirectPolicy::Stop {
                            all.machine_only[family].insert(service(addr));
                        }
                    }
                    SourceMode::Client => {
                        all.machine_client[family].insert(service(addr));
                        all.machine_client_addr[family].insert(addr.ip().to_string());
                    }
                }
            }
        }
        all
    }

    /// The elements behind a placeholder's name.
    fn named(&self, name: &str) -> Option<String> {
        let digit = name.len().checked_sub(1)?;
        let (stem, digit) = name.split_at_checked(digit)?;
        let family = match digit {
            "4" => 0,
            "6" => 1,
            _ => return None,
        };
        let sets = match stem {
            "psc" => &self.psc,
            "psc_addr" => &self.psc_addr,
            "machine_psc" => &self.machine_psc,
            "machine_client" => &self.machine_client,
            "machine_client_addr" => &self.machine_client_addr,
            "machine_only" => &self.machine_only,
            _ => return None,
        };
        Some(sets[family].iter().cloned().collect::<Vec<_>>().join(", "))
    }
}

fn family(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

/// The ruleset for a configuration: valid `nft -f` text.
#[must_use]
pub fn render(config: &Config) -> String {
    fill(TEMPLATE, config)
}

/// Fills in a template. A placeholder that it does not know stays, and fails later with its line.
fn fill(template: &str, config: &Config) -> String {
    let elements = Elements::of(config);
    let workers = config.engine.workers;
    let mut text = String::new();
    for line in template.lines() {
        if line.trim_start().starts_with('#') {
            let _ = writeln!(text, "{line}");
        } else if line.contains("%queue%") {
            for worker in 0..workers {
                let queue = config.engine.first_queue.saturating_add(worker);
                let line = line
                    .replace("%mask%", &format!("0x{:x}", (workers - 1) << 1))
                    .replace("%residue%", &format!("0x{:x}", worker << 1))
                    .replace("%queue%", &queue.to_string());
                let _ = writeln!(text, "{line}");
            }
        } else if line.contains("%device%") {
            if config.engine.super_packets {
                let name = cutter::device_name(config.engine.first_queue);
                let _ = writeln!(text, "{}", line.replace("%device%", &name));
            }
        } else if line.contains("%rate%") {
            // A quarter of a second's may come at once: clients do, after a pause of the network.
            let rate = config.engine.max_syn_rate;
            let line = line
                .replace("%rate%", &rate.to_string())
                .replace("%burst%", &rate.div_ceil(4).max(5).to_string());
            let _ = writeln!(text, "{line}");
        } else if let Some((name, list)) = placeholder(line).and_then(|name| Some((name, elements.named(name)?))) {
            if !list.is_empty() {
                let _ = writeln!(text, "{}", line.replace(&format!("%{name}%"), &list));
            }
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// The name between the first two percent signs.
fn placeholder(line: &str) -> Option<&str> {
    line.split('%').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(workers: u16) -> Config {
        let text = format!(
            r#"
[engine]
workers = {workers}
first_queue = 8
[[service]]
name = "a"
psc = "10.0.0.1:80"
machine = [{{ name = "a", address = "10.0.2.2" }}, {{ name = "b", address = "10.0.2.3:81" }}]
[[service]]
name = "b"
psc = "10.0.0.1:81"
source = "client"
machine = [{{ name = "a", address = "10.0.2.2" }}, {{ name = "b", address = "10.0.2.3:82" }}]
[[service]]
name = "c"
psc = "[fd00::1]:80"
direct = "allow"
machine = [{{ name = "a", address = "fd00::2" }}]
"#
        );
        Config::parse("relevo.toml", &text).unwrap()
    }

    fn lines(workers: u16) -> Vec<String> {
        let text = render(&config(workers));
        assert!(
            !text.lines().any(|line| line.contains('%') && !line.starts_with('#')),
            "{text}"
        );
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn sets_hold_the_services_and_machines_once() {
        let lines = lines(1);
        let elements: Vec<_> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("add element inet relevo "))
            .collect();
        let expected = [
            "psc4 { 10.0.0.1 . 80, 10.0.0.1 . 81 }",
            "psc6 { fd00::1 . 80 }",
            "psc_addr4 { 10.0.0.1 }",
            "psc_addr6 { fd00::1 }",
            "machine_psc4 { 10.0.2.2 . 80 . 10.0.0.1, 10.0.2.3 . 81 . 10.0.0.1 }",
            "machine_psc6 { fd00::2 . 80 . fd00::1 }",
            "machine_client4 { 10.0.2.2 . 81, 10.0.2.3 . 82 }",
            "machine_client_addr4 { 10.0.2.2, 10.0.2.3 }",
            "machine_only4 { 10.0.2.2 . 80, 10.0.2.3 . 81 }",
        ];
        assert_eq!(elements, expected);
    }

    #[test]
    fn each_worker_has_one_rule_in_each_direction() {
        let lines = lines(4);
        let queues: Vec<_> = lines.iter().filter(|line| line.contains("queue num")).collect();
        assert_eq!(queues.len(), 8);
        assert_eq!(queues[0], "tcp sport & 0x6 == 0x0 queue num 8");
        assert_eq!(queues[3], "tcp sport & 0x6 == 0x6 queue num 11");
        assert_eq!(queues[7], "tcp dport & 0x6 == 0x6 queue num 11");
    }

    #[test]
    fn one_worker_gets_every_port() {
        let lines = lines(1);
        assert!(lines.contains(&"tcp dport & 0x0 == 0x0 queue num 8".to_owned()));
    }

    #[test]
    fn an_unknown_placeholder_stays() {
        assert_eq!(fill("x %other4% y", &config(1)), "x %other4% y\n");
    }
}
