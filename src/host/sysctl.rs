//! What the kernel must be told under /proc/sys before rewritten packets are routed (kernel.md's findings, as code).
//!
//! `relevo run` sets them if `[engine] sysctls = true`, says each in the log, and does not set them back when it ends: somebody
//! else may have come to rely on them. `relevo doctor` only reports.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

use super::route;
use crate::config::Config;

/// One setting that the engine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The parts of its name below /proc/sys; an interface's name may hold dots.
    parts: Vec<String>,
    /// The value that it needs.
    pub want: u32,
    /// What would go wrong without it.
    pub why: &'static str,
}

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As `sysctl` names it.
    pub name: String,
    /// What it was.
    pub from: u32,
    /// What it is now.
    pub to: u32,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "set {} from {} to {}, which stays when relevo ends",
            self.name, self.from, self.to
        )
    }
}

impl Setting {
    fn new(parts: &[&str], want: u32, why: &'static str) -> Self {
        Self {
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            want,
            why,
        }
    }

    /// As `sysctl` names it: a dot inside an interface's name is written as a slash there.
    #[must_use]
    pub fn name(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|part| part.replace('.', "/")).collect();
        parts.join(".")
    }

    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/proc/sys");
        path.extend(&self.parts);
        path
    }

    /// Its value now.
    pub fn current(&self) -> anyhow::Result<u32> {
        let text =
            fs::read_to_string(self.path()).with_context(|| format!("cannot read the sysctl {}", self.name()))?;
        text.trim()
            .parse()
            .with_context(|| format!("the sysctl {} holds {:?}, not a number", self.name(), text.trim()))
    }

    /// Sets it if it has another value.
    fn apply(&self) -> anyhow::Result<Option<Change>> {
        let from = self.current()?;
        if from == self.want {
            return Ok(None);
        }
        let (name, want) = (self.name(), self.want);
        fs::write(self.path(), want.to_string()).with_context(|| {
            format!(
                "cannot set the sysctl {name} to {want} ({}): set it yourself, and say sysctls = false",
                self.why
            )
        })?;
        Ok(Some(Change { name, from, to: want }))
    }
}

/// What a configuration needs on these interfaces, in the order in which it is to be set.
#[must_use]
pub fn required(config: &Config, interfaces: &[String]) -> Vec<Setting> {
    let (v4, v6) = config.families();
    let mut settings = Vec::new();
    if v4 {
        // First: turning forwarding on changes other settings.
        let forward = Setting::new(&["net", "ipv4", "ip_forward"], 1, "rewritten packets are forwarded");
        settings.push(forward);
        let conf =
            |interface: &str, name, want, why| Setting::new(&["net", "ipv4", "conf", interface, name], want, why);
        // This one holds if either `all` or the interface says so.
        settings.push(conf(
            "all",
            "accept_local",
            1,
            "rewritten packets come with an address of this host",
        ));
        let everywhere = std::iter::once("all").chain(interfaces.iter().map(String::as_str));
        for interface in everywhere {
            // The larger of `all` and the interface holds.
            settings.push(conf(
                interface,
                "rp_filter",
                0,
                "a rewritten source does not fit the way it came",
            ));
            settings.push(conf(
                interface,
                "send_redirects",
                0,
                "no machine is told a way around this host",
            ));
        }
        for interface in interfaces {
            settings.push(conf(
                interface,
                "accept_local",
                1,
                "rewritten packets come with an address of this host",
            ));
        }
    }
    if v6 {
        let parts = ["net", "ipv6", "conf", "all", "forwarding"];
        settings.push(Setting::new(&parts, 1, "rewritten packets are forwarded"));
    }
    settings
}

/// Sets what is not as it should be; each change is for the log.
pub fn apply(settings: &[Setting]) -> anyhow::Result<Vec<Change>> {
    settings
        .iter()
        .filter_map(|setting| setting.apply().transpose())
        .collect()
}

/// The names of the interfaces in use: those that hold a PSC address, and those that the routes to machines leave by. Where
/// the PSC address is on the loopback, as virtual addresses sometimes are, the clients are supposed behind the default route.
pub fn interfaces(config: &Config) -> anyhow::Result<Vec<String>> {
    let addresses = route::addresses()?;
    let mut names = BTreeSet::new();
    for service in &config.services {
        let psc = service.psc.ip();
        let holders: Vec<String> = addresses
            .iter()
            .filter(|address| address.ip == psc)
            .map(|address| route::interface_name(address.ifindex))
            .collect::<Result<_, _>>()?;
        if holders.iter().all(|name| name == "lo")
            && let Ok(default) = route::route(outside(psc))
        {
            names.insert(route::interface_name(default.ifindex)?);
        }
        names.extend(holders);
        for machine in &service.machines {
            // One without a route keeps no other from serving: `run` warns of it, `doctor` calls it bad.
            if let Ok(route) = route::route(machine.addr.ip()) {
                names.insert(route::interface_name(route.ifindex)?);
            }
        }
    }
    names.remove("lo");
    Ok(names.into_iter().collect())
}

/// An address that only the default route leads to: for documentation (RFC 5737, RFC 3849), never in use.
fn outside(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(psc: &str, machine: &str, interfaces: &[&str]) -> Vec<String> {
        let text = format!(
            "[[service]]\nname = \"a\"\npsc = \"{psc}\"\nmachine = [{{ name = \"m\", address = \"{machine}\" }}]\n"
        );
        let config = Config::parse("relevo.toml", &text).unwrap();
        let interfaces: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
        required(&config, &interfaces)
            .iter()
            .map(|setting| format!("{}={}", setting.name(), setting.want))
            .collect()
    }

    #[test]
    fn ipv4_needs_forwarding_first_and_each_interface() {
        let expected = [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.accept_local=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.eth0/5.rp_filter=0",
            "net.ipv4.conf.eth0/5.send_redirects=0",
            "net.ipv4.conf.eth0/5.accept_local=1",
        ];
        assert_eq!(names("10.0.0.1:80", "10.0.0.2", &["eth0.5"]), expected);
    }

    #[test]
    fn ipv6_needs_forwarding_alone() {
        assert_eq!(
            names("[fd00::1]:80", "fd00::2", &["eth0"]),
            ["net.ipv6.conf.all.forwarding=1"]
        );
    }

    #[test]
    fn a_dot_in_an_interface_is_part_of_one_directory() {
        let setting = Setting::new(&["net", "ipv4", "conf", "eth0.5", "rp_filter"], 0, "");
        assert_eq!(
            setting.path(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }

    #[test]
    fn a_setting_is_read() {
        assert!(Setting::new(&["net", "ipv4", "ip_forward"], 1, "").current().unwrap() <= 1);
        let missing = Setting::new(&["net", "ipv4", "no_such"], 1, "").current().unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the sysctl net.ipv4.no_such");
    }
}
