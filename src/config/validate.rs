//! What values mean together: everything that a single key can't tell.

use std::net::{IpAddr, SocketAddr};

use super::file::{RawEngine, RawMachine, RawService};
use super::problems::{At, Collector};
use super::values::{format_duration, format_size};
use super::{DirectPolicy, MAX_MACHINES, MAX_WORKERS};
use crate::engine::SourceMode;

/// A window smaller than this serves no connection well, and a GSO packet of 64 KiB has to fit.
const LEAST_FLOW_BUFFER: usize = 64 << 10;

/// Judges `[engine]`.
pub(super) fn engine(p: &mut Collector<'_>, raw: &RawEngine) {
    let workers = raw.workers.value;
    if !workers.is_power_of_two() || workers > MAX_WORKERS {
        let expected = format!("a power of two from 1 to {MAX_WORKERS}");
        p.add(
            &raw.workers.span,
            format!("workers: found {workers}, expected {expected}"),
        );
        return;
    }
    let first = raw.first_queue.value;
    if first.checked_add(workers - 1).is_none() {
        let most = u16::MAX - (workers - 1);
        let text = format!("first_queue: found {first}, expected at most {most}, so that {workers} queues fit");
        p.add(&raw.first_queue.span, text);
    }
    let (flows, half_open) = (raw.max_flows.value, raw.max_half_open.value);
    if half_open > flows {
        let text = format!("max_half_open: found {half_open}, expected at most max_flows, which is {flows}");
        p.add(&raw.max_half_open.span, text);
    }
    if flows < usize::from(workers) || half_open < usize::from(workers) {
        let at = if flows < usize::from(workers) {
            &raw.max_flows
        } else {
            &raw.max_half_open
        };
        p.add(
            &at.span,
            format!(
                "found {}, expected at least one for each of {workers} workers",
                at.value
            ),
        );
    }
    buffers(p, raw);
    let ports = &raw.ports.value;
    let count = u32::from(*ports.end()) - u32::from(*ports.start()) + 1;
    if count < u32::from(workers) {
        p.add(
            &raw.ports.span,
            format!("ports: found {count}, expected at least one for each of {workers} workers"),
        );
    }
}

fn buffers(p: &mut Collector<'_>, raw: &RawEngine) {
    let show = |bytes: usize| format_size(bytes as u64);
    let (flow, total) = (raw.flow_buffer.value, raw.total_buffer.value);
    // The window field reaches 1 GiB at most (RFC 7323, section 2.3).
    if !(LEAST_FLOW_BUFFER..=1 << 30).contains(&flow) {
        let expected = format!("{} to 1GiB", show(LEAST_FLOW_BUFFER));
        p.add(
            &raw.flow_buffer.span,
            format!("flow_buffer: found {}, expected {expected}", show(flow)),
        );
    }
    let workers = usize::from(raw.workers.value);
    if total / workers < flow {
        let text = format!(
            "total_buffer: found {}, expected at least flow_buffer ({}) for each of {workers} workers",
            show(total),
            show(flow)
        );
        p.add(&raw.total_buffer.span, text);
    }
}

/// Judges the services, each alone and all together.
pub(super) fn services(p: &mut Collector<'_>, services: &[RawService]) {
    for (index, service) in services.iter().enumerate() {
        for earlier in &services[..index] {
            if earlier.name.value == service.name.value {
                let line = p.line(earlier.name.span.start);
                let text = format!("name: found \"{}\", the service of line {line} too", service.name.value);
                p.add(&service.name.span, format!("{text}, expected a name of its own"));
            }
            if earlier.psc.value == service.psc.value {
                let line = p.line(earlier.psc.span.start);
                let text = format!("psc: found {}, the service of line {line} too", service.psc.value);
                p.add(
                    &service.psc.span,
                    format!("{text}, expected an address:port of its own"),
                );
            }
        }
        usable(p, "psc", &service.psc);
        times(p, service);
        if service.source == SourceMode::Client && service.direct.value == DirectPolicy::Allow {
            let text = "direct: found \"allow\", expected \"stop\": with source = \"client\" all that comes from the machines' port is the engine's";
            p.add(&service.direct.span, text.to_owned());
        }
        machines(p, service);
    }
    addresses(p, services);
}

fn times(p: &mut Collector<'_>, service: &RawService) {
    let (vote, limit) = (service.vote.value, service.replica_timeout.value);
    if vote > limit {
        let (vote, limit) = (format_duration(vote), format_duration(limit));
        let text = format!("vote: found {vote}, expected at most replica_timeout, which is {limit}");
        p.add(&service.vote.span, text);
    }
    let Some(hang) = service.hang.value else { return };
    // A service may be as late as a vote allows, and as silent as a machine may be.
    let least = [("floor", service.floor), ("vote", vote)]
        .into_iter()
        .find(|(_, least)| hang < *least);
    if let Some((name, least)) = least {
        let (hang, least) = (format_duration(hang), format_duration(least));
        let text = format!("hang: found {hang}, expected at least {name}, which is {least}");
        p.add(&service.hang.span, text);
    }
}

fn machines(p: &mut Collector<'_>, service: &RawService) {
    if let Some(extra) = service.machines.get(MAX_MACHINES) {
        let found = service.machines.len();
        p.add(
            &extra.name.span,
            format!("machine: found {found} of them, expected at most {MAX_MACHINES}"),
        );
    }
    for (index, machine) in service.machines.iter().enumerate() {
        let twin = service.machines[..index]
            .iter()
            .find(|earlier| earlier.name.value == machine.name.value);
        if let Some(twin) = twin {
            let line = p.line(twin.name.span.start);
            let text = format!("name: found \"{}\", the machine of line {line} too", machine.name.value);
            p.add(&machine.name.span, format!("{text}, expected a name of its own"));
        }
        usable(p, "address", &machine.addr);
        let (found, psc) = (machine.addr.value, service.psc.value);
        if found.is_ipv4() != psc.is_ipv4() {
            let family = if psc.is_ipv4() { "IPv4" } else { "IPv6" };
            p.add(
                &machine.addr.span,
                format!("address: found {found}, expected {family} as the service's psc is"),
            );
        }
    }
}

/// No machine twice, and none that is the engine's own host.
fn addresses(p: &mut Collector<'_>, services: &[RawService]) {
    let mut seen: Vec<&RawMachine> = Vec::new();
    for machine in services.iter().flat_map(|service| &service.machines) {
        let found = machine.addr.value;
        if let Some(psc) = services.iter().find(|service| service.psc.value.ip() == found.ip()) {
            let line = p.line(psc.psc.span.start);
            let text = format!("address: found {found}, the psc's address of line {line}");
            p.add(
                &machine.addr.span,
                format!("{text}, expected a machine behind this host"),
            );
        }
        // By address and port alone the rules know a machine's packets, and the engine whose they are.
        if let Some(earlier) = seen.iter().find(|earlier| earlier.addr.value == found) {
            let line = p.line(earlier.addr.span.start);
            let text = format!("address: found {found}, the machine of line {line} too");
            p.add(
                &machine.addr.span,
                format!("{text}, expected an address:port of its own"),
            );
        }
        seen.push(machine);
    }
}

/// An address that packets can come from and go to through this host.
fn usable(p: &mut Collector<'_>, key: &str, addr: &At<SocketAddr>) {
    let found = addr.value;
    let kind = match found.ip() {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_multicast() => "a multicast address",
        ip if ip.is_loopback() => "a loopback address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        _ => return,
    };
    p.add(
        &addr.span,
        format!("{key}: found {}, {kind}, expected one that is routed", found.ip()),
    );
}
