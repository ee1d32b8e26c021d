//! What this host lacks, each with its mend. Looks only; changes nothing.

use std::fmt;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{cutter, route, rules, schedule, sysctl};
use crate::config::{Config, EngineConfig, ServiceConfig, WorkerCpus};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing; it may work.
    Note,
    /// It can't work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What was found.
    pub text: String,
    /// What to do about it; empty if nothing.
    pub mend: String,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self {
            grade: Grade::Good,
            text: text.into(),
            mend: String::new(),
        }
    }

    fn note(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            grade: Grade::Note,
            text: text.into(),
            mend: mend.into(),
        }
    }

    fn bad(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            grade: Grade::Bad,
            text: text.into(),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Good => "ok  ",
            Grade::Note => "note",
            Grade::Bad => "BAD ",
        };
        write!(f, "{grade}  {}", self.text)?;
        if !self.mend.is_empty() {
            write!(f, "\n      mend: {}", self.mend)?;
        }
        Ok(())
    }
}

/// Looks at the host, and at what the configuration wants of it.
#[must_use]
pub fn examine(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![capabilities(), queue_target()];
    findings.extend(queue_users(config));
    findings.extend(foreign_firewall());
    if let Some(config) = config {
        findings.extend(sysctls(config));
        findings.extend(config.engine.super_packets.then(super_packets));
        findings.extend(threads(&config.engine));
        for service in &config.services {
            findings.extend(psc_address(service));
            findings.extend(machines(service));
        }
    }
    let offloads = "GRO, TSO and GSO may stay on: the engine takes large packets whole (LRO goes off with forwarding)";
    findings.push(Finding::good(offloads));
    findings
}

fn capabilities() -> Finding {
    /// Bits of the capability set (`linux/capability.h`).
    const NEEDED: [(&str, u64); 2] = [("CAP_NET_ADMIN", 1 << 12), ("CAP_NET_RAW", 1 << 13)];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(_, bit)| effective & bit == 0)
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::good("capabilities: CAP_NET_ADMIN and CAP_NET_RAW are there");
    }
    Finding::bad(
        format!("capabilities: {} missing", missing.join(" and ")),
        "run as root",
    )
}

fn queue_target() -> Finding {
    match rules::probe() {
        Ok(backend) => Finding::good(format!("queue target: {backend}")),
        Err(error @ rules::RulesError::NotPermitted) => {
            Finding::bad(format!("queue target: not known, {error}"), "run as root")
        }
        Err(error @ (rules::RulesError::NoQueueTarget | rules::RulesError::NoNfTables)) => Finding::bad(
            format!("queue target: {error}"),
            "modprobe nft_queue, or another kernel",
        ),
        Err(error) => Finding::bad(format!("queue target: {error}"), "see the kernel's log"),
    }
}

/// Who else has queues; with a configuration, those that it wants.
fn queue_users(config: Option<&Config>) -> Vec<Finding> {
    let Ok(queues) = fs::read_to_string("/proc/net/netfilter/nfnetlink_queue") else {
        let text = "packet queues: /proc/net/netfilter/nfnetlink_queue is not there";
        return vec![Finding::bad(
            text,
            "modprobe nfnetlink_queue, or a kernel with CONFIG_NETFILTER_NETLINK_QUEUE",
        )];
    };
    let Some(config) = config else {
        return vec![Finding::good("packet queues: the kernel has them")];
    };
    let first = config.engine.first_queue;
    let ours = first..=first.saturating_add(config.engine.workers.saturating_sub(1));
    let taken = taken_queues(&queues, &ours);
    if taken.is_empty() {
        return vec![Finding::good(format!(
            "packet queues: {} to {} are free",
            ours.start(),
            ours.end()
        ))];
    }
    let found = |queue: u16| {
        let text = format!("packet queues: {queue} has a program already, relevo itself or another one");
        Finding::note(text, "if it is not relevo, choose another first_queue")
    };
    taken.into_iter().map(found).collect()
}

/// The first column of the file is the queue's number.
fn taken_queues(text: &str, range: &std::ops::RangeInclusive<u16>) -> Vec<u16> {
    let first_column = |line: &str| line.split_whitespace().next().and_then(|word| word.parse().ok());
    text.lines()
        .filter_map(first_column)
        .filter(|queue| range.contains(queue))
        .collect()
}

fn sysctls(config: &Config) -> Vec<Finding> {
    let interfaces = match sysctl::interfaces(config) {
        Ok(interfaces) => interfaces,
        Err(error) => {
            return vec![Finding::bad(
                format!("interfaces: {error:#}"),
                "give each machine a route",
            )];
        }
    };
    let mut findings = Vec::new();
    for setting in sysctl::required(config, &interfaces) {
        let (name, want) = (setting.name(), setting.want);
        match setting.current() {
            Ok(value) if value == want => {}
            Ok(value) if config.engine.sysctls => {
                let text = format!(
                    "sysctl: {name} is {value}, not {want}; `relevo run` will set it ({})",
                    setting.why
                );
                findings.push(Finding::note(text, ""));
            }
            Ok(value) => {
                let text = format!("sysctl: {name} is {value}, not {want} ({})", setting.why);
                findings.push(Finding::bad(
                    text,
                    format!("sysctl -w {name}={want}, or sysctls = true"),
                ));
            }
            Err(error) => findings.push(Finding::bad(format!("sysctl: {error:#}"), "mount /proc/sys")),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(format!(
            "sysctls: as needed on {}",
            interfaces.join(", ")
        )));
    }
    findings
}

fn super_packets() -> Finding {
    match cutter::probe() {
        Ok(()) => Finding::good("super-packets: TUN devices can be had"),
        Err(error) => Finding::note(
            format!("super-packets: /dev/net/tun can't be opened ({error}), so bulk uploads with replicas are slow"),
            "modprobe tun, or a kernel with CONFIG_TUN; in a container, let it have the device",
        ),
    }
}

/// Whether workers can run as they are told to: a thread of our own tries it.
fn threads(engine: &EngineConfig) -> Vec<Finding> {
    let threads = &engine.threads;
    let mut findings = Vec::new();
    let allowed = schedule::allowed();
    if threads.cpus != WorkerCpus::Off || threads.realtime.is_some() {
        let plans = schedule::plans(threads, engine.workers, &allowed);
        let attempt = || {
            plans
                .into_iter()
                .flat_map(schedule::Plan::carry_out)
                .collect::<Vec<_>>()
        };
        let mut complaints = std::thread::spawn(attempt).join().unwrap_or_default();
        complaints.dedup();
        if complaints.is_empty() {
            findings.push(Finding::good("workers: their processors and their priority can be had"));
        }
        let mend = "name processors that are there, and give the capability to the service; or set it to \"off\"";
        findings.extend(complaints.into_iter().map(|text| Finding::note(text, mend)));
    }
    let crowding = schedule::crowding(threads, engine.workers, &allowed);
    let mend = "fewer workers, a processor for each in worker_cpus, or busy_poll = \"off\"";
    findings.extend(crowding.map(|text| Finding::note(text, mend)));
    findings
}

fn psc_address(service: &ServiceConfig) -> Vec<Finding> {
    let (name, psc) = (&service.name, service.psc.ip());
    let held = route::addresses().map(|all| all.iter().any(|address| address.ip == psc));
    vec![match held {
        Ok(true) => Finding::good(format!("service {name}: {psc} is an address of this host")),
        Ok(false) => {
            let prefix = if psc.is_ipv4() { 32 } else { 128 };
            let text = format!("service {name}: {psc} is no address of this host, at this moment");
            Finding::note(
                text,
                format!("ip address add {psc}/{prefix} dev INTERFACE, unless keepalived brings it"),
            )
        }
        Err(error) => Finding::bad(format!("service {name}: {error:#}"), "run on Linux with rtnetlink"),
    }]
}

fn machines(service: &ServiceConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for machine in &service.machines {
        let who = format!("service {}: machine {} at {}", service.name, machine.name, machine.addr);
        let ip = machine.addr.ip();
        findings.push(match route::route(ip).and_then(|route| Ok((route, route::path(ip)?))) {
            Ok((route, _)) if route.local => {
                Finding::bad(format!("{who} is this host itself"), "give the machine's own address")
            }
            Ok((route, path)) => {
                let interface = route::interface_name(route.ifindex).unwrap_or_else(|_| route.ifindex.to_string());
                Finding::good(format!("{who} is reached by {interface}, path MTU {}", path.mtu))
            }
            Err(error) => {
                let text = format!("{who}: {error:#}");
                Finding::bad(
                    text,
                    format!("ip route add {ip} via ROUTER, or dev INTERFACE if it is a neighbour"),
                )
            }
        });
    }
    findings
}

/// Packets of a service are in conntrack's state "untracked", which a stateful firewall on the same host has to let through.
fn foreign_firewall() -> Vec<Finding> {
    let Ok(output) = Command::new("nft").args(["-j", "list", "ruleset"]).output() else {
        return vec![Finding::note(
            "other firewalls: not looked at, there is no nft command",
            "apt install nftables",
        )];
    };
    let Ok(listing) = serde_json::from_slice::<Value>(&output.stdout) else {
        return vec![Finding::note(
            "other firewalls: not looked at, nft lists no ruleset",
            "run as root",
        )];
    };
    let findings = judge_ruleset(&listing);
    if findings.is_empty() {
        return vec![Finding::good(
            "other firewalls: none drops untracked packets on their way through",
        )];
    }
    findings
}

/// A foreign base chain: family, table and name.
type Place<'a> = (&'a str, &'a str, &'a str);

fn place<'a>(object: &'a Value, name: &str) -> Option<Place<'a>> {
    Some((
        object.get("family")?.as_str()?,
        object.get("table")?.as_str()?,
        object.get(name)?.as_str()?,
    ))
}

/// Finds chains on the way of forwarded packets that drop untracked ones, by rule or by policy.
fn judge_ruleset(listing: &Value) -> Vec<Finding> {
    let objects: Vec<&Value> = listing
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let rules: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let mut findings = Vec::new();
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let Some(at @ (family, table, name)) = place(chain, "name") else {
            continue;
        };
        let on_the_way = matches!(
            chain.get("hook").and_then(Value::as_str),
            Some("prerouting" | "forward" | "postrouting")
        );
        if !on_the_way || table == rules::TABLE || !["ip", "ip6", "inet"].contains(&family) {
            continue;
        }
        let own: Vec<&&Value> = rules.iter().filter(|rule| place(rule, "chain") == Some(at)).collect();
        // The first rule that names the state decides; rules that don't are beyond this look.
        let decided = own.iter().find_map(|rule| fate_of_untracked(rule));
        let accept = format!("nft insert rule {family} {table} {name} ct state untracked accept");
        let by_policy = chain.get("policy").and_then(Value::as_str) == Some("drop");
        match decided {
            Some(Fate::Dropped) => {
                let text = format!("other firewalls: chain {family} {table} {name} drops untracked packets");
                findings.push(Finding::bad(text, accept));
            }
            None if by_policy => {
                let text = format!(
                    "other firewalls: chain {family} {table} {name} has policy drop and no rule for untracked packets"
                );
                findings.push(Finding::note(
                    text,
                    format!("{accept}, unless another rule accepts the services"),
                ));
            }
            _ => {}
        }
    }
    findings
}

/// What a rule does with untracked packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Dropped,
}

/// The fate of an untracked packet in a rule of the form `ct state ... VERDICT` or `ct state vmap { ... }`.
fn fate_of_untracked(rule: &Value) -> Option<Fate> {
    let exprs = rule.get("expr")?.as_array()?;
    if let Some(map) = exprs
        .iter()
        .find_map(|expr| expr.get("vmap"))
        .filter(|map| is_state(map.get("key")))
    {
        let pairs = map.get("data")?.get("set")?.as_array()?;
        let pair = pairs
            .iter()
            .filter_map(Value::as_array)
            .find(|pair| pair.first().is_some_and(names_untracked))?;
        return fate(pair.get(1)?);
    }
    let matches = exprs.iter().filter_map(|expr| expr.get("match"));
    let state = matches.clone().find(|found| is_state(found.get("left")))?;
    let named = names_untracked(state.get("right")?);
    let negated = state.get("op").and_then(Value::as_str) == Some("!=");
    if named == negated {
        return None;
    }
    // A rule that asks for more than the state drops some packets only, perhaps others than ours.
    let alone = matches.count() == 1;
    let fate = exprs.iter().find_map(fate)?;
    (fate == Fate::Accepted || alone).then_some(fate)
}

fn is_state(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("ct")?.get("key")?.as_str()) == Some("state")
}

/// Whether a state, a list or a set of them holds "untracked".
fn names_untracked(value: &Value) -> bool {
    match value {
        Value::String(state) => state == "untracked",
        Value::Array(states) => states.iter().any(names_untracked),
        Value::Object(object) => object.values().any(names_untracked),
        _ => false,
    }
}

fn fate(statement: &Value) -> Option<Fate> {
    if statement.get("accept").is_some() {
        return Some(Fate::Accepted);
    }
    (statement.get("drop").is_some() || statement.get("reject").is_some()).then_some(Fate::Dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of a foreign table with these rules' expressions.
    fn listing(table: &str, hook: &str, policy: &str, rules: &[&str]) -> Value {
        let chain = format!(
            r#"{{"chain":{{"family":"inet","table":"{table}","name":"c","type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}}"#
        );
        let rule = |expr: &&str| {
            format!(r#"{{"rule":{{"family":"inet","table":"{table}","chain":"c","handle":1,"expr":{expr}}}}}"#)
        };
        let objects: Vec<String> = std::iter::once(chain).chain(rules.iter().map(rule)).collect();
        serde_json::from_str(&format!(
            r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#,
            objects.join(",")
        ))
        .unwrap()
    }

    const STATE: &str = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"#;

    fn grades(policy: &str, rules: &[&str]) -> Vec<Grade> {
        judge_ruleset(&listing("filter", "forward", policy, rules))
            .iter()
            .map(|finding| finding.grade)
            .collect()
    }

    #[test]
    fn a_chain_that_accepts_is_no_finding() {
        assert_eq!(grades("accept", &[]), []);
        let invalid = format!(r#"[{STATE}"invalid"}}}},{{"drop":null}}]"#);
        assert_eq!(grades("accept", &[&invalid]), []);
        let accepts = format!(r#"[{STATE}["established","untracked"]}}}},{{"accept":null}}]"#);
        assert_eq!(grades("drop", &[&accepts]), []);
    }

    #[test]
    fn dropping_by_state_or_policy_is_told_with_the_accepting_rule() {
        let drops = format!(r#"[{STATE}["invalid","untracked"]}}}},{{"drop":null}}]"#);
        assert_eq!(grades("accept", &[&drops]), [Grade::Bad]);
        assert_eq!(grades("drop", &[]), [Grade::Note]);
        let map = r#"[{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["established",{"accept":null}],["untracked",{"drop":null}]]}}}]"#;
        assert_eq!(grades("accept", &[map]), [Grade::Bad]);
        let found = judge_ruleset(&listing("filter", "forward", "accept", &[map]));
        assert_eq!(found[0].mend, "nft insert rule inet filter c ct state untracked accept");
    }

    #[test]
    fn other_hooks_and_our_own_table_do_not_matter() {
        assert_eq!(judge_ruleset(&listing("filter", "input", "drop", &[])), []);
        assert_eq!(judge_ruleset(&listing(rules::TABLE, "forward", "drop", &[])), []);
        assert_eq!(judge_ruleset(&Value::Null), []);
    }

    #[test]
    fn queues_that_somebody_has() {
        let text =
            "    0  12345     0 2 65531     0     0        0  1\n    7  12345     0 2 65531     0     0        0  1\n";
        assert_eq!(taken_queues(text, &(0..=3)), [0]);
        assert_eq!(taken_queues("", &(0..=3)), [0u16; 0]);
    }

    #[test]
    fn the_host_under_test_is_examined_without_a_panic() {
        assert!(examine(None).len() >= 4);
    }
}
