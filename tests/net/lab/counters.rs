//! What a host's kernel has counted.

use super::netns::Host;

/// Counts every RST that reaches the host, before anything else sees the packet.
pub fn watch_resets(host: &Host) {
    host.nft(
        "table inet lab_watch {\n counter resets { }\n chain in {\n  type filter hook prerouting priority -400;\n  \
         tcp flags & rst == rst counter name resets\n }\n}\n",
    );
}

/// Counts under `name` whatever reaches the host and matches, in nft's words, before anything else sees the packet.
pub fn watch(host: &Host, name: &str, matching: &str) {
    host.nft(&format!(
        "table inet lab_watch {{\n counter {name} {{ }}\n chain in_{name} {{\n  type filter hook prerouting priority -400;\n  \
         {matching} counter name {name}\n }}\n}}\n"
    ));
}

/// How many RSTs have reached the host.
pub fn resets_seen(host: &Host) -> u64 {
    seen(host, "resets")
}

/// What a [`watch`] has counted.
pub fn seen(host: &Host, name: &str) -> u64 {
    packets(host, "lab_watch", name)
}

/// What a counter of the engine's own rules has counted.
pub fn of_rules(engine: &Host, name: &str) -> u64 {
    packets(engine, "relevo", name)
}

fn packets(host: &Host, table: &str, name: &str) -> u64 {
    let text = host.output("nft", &["list", "counter", "inet", table, name]);
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no packet count in {text:?}"))
}

/// Bytes that the connection from a port of the host has sent and nobody has acknowledged, as `/proc/net/tcp` has them; `None` if there is no such
/// connection. IPv4.
pub fn unacknowledged(host: &Host, port: u16) -> Option<u64> {
    let text = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp").expect("read connections"));
    // The fields: number, local and remote address:port, state, length of the send queue:that of the receive queue, all in hexadecimal.
    let local = format!(":{port:04X}");
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().filter(|field| field.ends_with(&local))?;
        let queues = fields.nth(2)?;
        u64::from_str_radix(queues.split(':').next()?, 16).ok()
    })
}

/// A counter of `/proc/net/snmp` or `/proc/net/netstat`, for example `("Tcp", "RetransSegs")`.
pub fn snmp(host: &Host, group: &str, name: &str) -> u64 {
    let found = group_of(host, group).into_iter().find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("no counter {group} {name}")).1
}

/// All counters of a group of `/proc/net/snmp` or `/proc/net/netstat`.
fn group_of(host: &Host, group: &str) -> Vec<(String, u64)> {
    let text = host.enter(|| {
        ["snmp", "netstat"]
            .map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("read counters"))
            .concat()
    });
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        panic!("no group {group} of counters");
    };
    let pairs = names.split_whitespace().zip(values.split_whitespace()).skip(1);
    // Some are signed, `MaxConn` for one: such are none of ours.
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// What a host's TCP has counted of everything that is out of the ordinary: `name=count`, but for those that are 0. For a test's last words.
pub fn tcp_story(host: &Host) -> String {
    let counters = group_of(host, "TcpExt").into_iter().filter(|(_, n)| *n > 0);
    let words: Vec<String> = counters.map(|(name, n)| format!("{name}={n}")).collect();
    format!("{}: {}", host.name(), words.join(" "))
}

/// TCP segments that the host has retransmitted.
pub fn retransmissions(host: &Host) -> u64 {
    snmp(host, "Tcp", "RetransSegs")
}

/// Retransmissions for which the host took a segment to be lost, by duplicates or by its timer. Linux' tail loss probes (RFC 8985), which a
/// loaded machine draws whenever an answer takes some milliseconds, are not among them.
pub fn lost_to(host: &Host) -> u64 {
    let names = ["TCPTimeouts", "TCPFastRetrans", "TCPSlowStartRetrans"];
    names.iter().map(|name| snmp(host, "TcpExt", name)).sum()
}

/// IPv4 connections of the host that are neither open nor quite closed: packets of them may still be to come.
pub fn half_closed(host: &Host) -> usize {
    let text = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp").expect("read connections"));
    // The kernel's numbers of FIN-WAIT-1 and -2, CLOSE-WAIT, LAST-ACK and CLOSING.
    let closing = |line: &&str| {
        let state = line.split_whitespace().nth(3);
        matches!(state, Some("04" | "05" | "08" | "09" | "0B"))
    };
    text.lines().skip(1).filter(closing).count()
}
