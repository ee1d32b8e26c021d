//! `relevo status` for people: what matters at the top, and nothing that is zero.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::status::{MachineReport, QueueReport, ServiceReport, Status, Takeover};

/// The whole status as text.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = format!("relevo {}, up {}\n", status.version, age(status.uptime_s));
    for service in &status.services {
        render_service(&mut text, service);
    }
    text.push('\n');
    line(&mut text, "counters", &nonzero(&status.counters));
    line(&mut text, "drops", &nonzero(&status.drops));
    line(&mut text, "not sent", &nonzero(&status.inject_errors));
    let _ = writeln!(text, "buffered: {}", bytes(status.buffered_bytes as u64));
    for queue in &status.queues {
        let _ = writeln!(text, "queue {}: {}", queue.kernel.queue, queue_line(queue));
    }
    text
}

/// One takeover as a sentence.
#[must_use]
pub fn takeover(t: &Takeover) -> String {
    let Takeover { from, to, reason, .. } = t;
    let detected = if t.detect_us > 0 {
        format!("detected in {}, ", duration(t.detect_us))
    } else {
        String::new()
    };
    let lost = if t.lost > 0 {
        format!(", {} lost", t.lost)
    } else {
        String::new()
    };
    let stayed = if t.stayed > 0 {
        format!(", {} stayed: {to} is not level or not eligible there", t.stayed)
    } else {
        String::new()
    };
    let (switch, flows) = (duration(t.switch_us), count(t.flows, "flow"));
    format!("{from} -> {to} ({reason}): {detected}switched in {switch}, {flows} moved{lost}{stayed}")
}

fn render_service(text: &mut String, service: &ServiceReport) {
    let _ = write!(
        text,
        "\n{}  {}  {}",
        service.name,
        service.psc,
        count(service.flows, "flow")
    );
    if service.half_open > 0 {
        let _ = write!(text, " ({} half open)", service.half_open);
    }
    text.push('\n');
    let head = [
        "MACHINE", "ADDRESS", "ROLE", "STATE", "SRTT", "LAG", "HEARD", "SERVES", "FOLLOWS",
    ]
    .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(service.machines.iter().map(machine_row))
        .collect();
    let widths: Vec<_> = (0..9)
        .map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    for m in service.machines.iter().filter(|m| m.flows_recovering > 0) {
        let flows = count(m.flows_recovering, "flow");
        let (input, output) = (bytes(m.missing_input_bytes), bytes(m.missing_output_bytes));
        let _ = writeln!(
            text,
            "  {} is recovering in {flows}: has yet to take {input} and to say {output}",
            m.name
        );
    }
    if let Some(last) = &service.last_takeover {
        let _ = writeln!(text, "  last takeover: {}", takeover(last));
    }
}

fn machine_row(m: &MachineReport) -> [String; 9] {
    let srtt = if m.srtt_us == 0 {
        "-".to_owned()
    } else {
        duration(m.srtt_us)
    };
    [
        m.name.clone(),
        m.address.clone(),
        m.role.clone(),
        m.state.clone(),
        srtt,
        bytes(m.lag_bytes),
        duration(m.last_heard_ms.saturating_mul(1_000)),
        m.flows_as_original.to_string(),
        m.flows_as_replica.to_string(),
    ]
}

fn queue_line(queue: &QueueReport) -> String {
    let mut parts = vec![
        format!("{} packets", queue.kernel.packets),
        format!("{} waiting", queue.kernel.waiting),
    ];
    let rare = [
        (
            "dropped by the kernel",
            queue.kernel.queue_dropped + queue.kernel.user_dropped,
        ),
        ("truncated", queue.truncated),
        ("receive errors", queue.receive_errors),
        ("verdict errors", queue.verdict_errors),
        ("notices lost", queue.notices_lost),
    ];
    parts.extend(
        rare.iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{n} {what}")),
    );
    let verdict = &queue.times.verdict_ns;
    if verdict.count > 0 {
        let us = |ns: u64| format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100);
        parts.push(format!(
            "verdict in {}, of 1,000 one in {}",
            us(verdict.p50),
            us(verdict.p999)
        ));
    }
    if queue.realtime_priority > 0 {
        parts.push(format!("real-time priority {}", queue.realtime_priority));
    }
    if queue.stalls > 0 {
        parts.push(format!(
            "{} for {} in all",
            count(to_usize(queue.stalls), "stall"),
            duration(queue.stalled_us)
        ));
    }
    parts.join(", ")
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn line(text: &mut String, title: &str, values: &str) {
    if !values.is_empty() {
        let _ = writeln!(text, "{title}: {values}");
    }
}

fn nonzero(counters: &BTreeMap<String, u64>) -> String {
    let shown: Vec<_> = counters
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    shown.join(", ")
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Three digits or so: `950 us`, `12.3 ms`, `4.5 s`.
fn duration(us: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", us / unit, us % unit * 10 / unit);
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{} ms", tenths(1_000)),
        1_000_000..60_000_000 => format!("{} s", tenths(1_000_000)),
        _ => age(us / 1_000_000),
    }
}

fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn bytes(n: u64) -> String {
    let tenths = |shift: u32| format!("{}.{}", n >> shift, ((n & ((1 << shift) - 1)) * 10) >> shift);
    match n {
        0..0x400 => format!("{n} B"),
        0x400..0x10_0000 => format!("{} KiB", tenths(10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", tenths(20)),
        _ => format!("{} GiB", tenths(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_grow_with_the_number() {
        assert_eq!(
            [0, 999, 12_345, 4_560_000, 61_000_000].map(duration),
            ["0 us", "999 us", "12.3 ms", "4.5 s", "1 min 1 s"]
        );
        assert_eq!(
            [59, 3_599, 7_260, 90_000].map(age),
            ["59 s", "59 min 59 s", "2 h 1 min", "1 d 1 h"]
        );
        assert_eq!(
            [1_023, 1_536, 5 << 20, 3 << 30].map(bytes),
            ["1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]
        );
    }

    #[test]
    fn a_status_reads_like_this() {
        let machine = |name: &str, role: &str, state: &str| MachineReport {
            name: name.into(),
            address: "10.0.2.2:6379".into(),
            role: role.into(),
            state: state.into(),
            srtt_us: 110,
            last_heard_ms: 3,
            ..MachineReport::default()
        };
        let last = Takeover {
            from: "vm-a".into(),
            to: "vm-b".into(),
            reason: "silence".into(),
            decided_at_us: 1_795_789_000_000_000,
            detect_us: 12_300,
            redirect_us: 100,
            switch_us: 400,
            flows: 1,
            lost: 0,
            stayed: 0,
        };
        let service = ServiceReport {
            name: "cache".into(),
            psc: "10.0.1.100:6379".into(),
            original: "vm-b".into(),
            machines: vec![machine("vm-a", "down", "down"), machine("vm-b", "original", "up")],
            flows: 1,
            half_open: 0,
            last_takeover: Some(last),
        };
        let drops = [("fenced".to_owned(), 4), ("fragment".to_owned(), 0)].into();
        let status = Status {
            version: "1".into(),
            uptime_s: 62,
            services: vec![service],
            drops,
            ..Status::default()
        };
        let expected = "\
relevo 1, up 1 min 2 s

cache  10.0.1.100:6379  1 flow
  MACHINE  ADDRESS        ROLE      STATE  SRTT    LAG  HEARD   SERVES  FOLLOWS
  vm-a     10.0.2.2:6379  down      down   110 us  0 B  3.0 ms  0       0
  vm-b     10.0.2.2:6379  original  up     110 us  0 B  3.0 ms  0       0
  last takeover: vm-a -> vm-b (silence): detected in 12.3 ms, switched in 400 us, 1 flow moved

drops: fenced 4
buffered: 0 B
";
        assert_eq!(render(&status), expected);
    }
}
