//! Files and what becomes of them: every complaint with its line.

use super::*;
use crate::engine::{MILLISECOND, SECOND};

/// The example of the design's section 10.
const EXAMPLE: &str = r#"
[engine]
workers = 2
first_queue = 0
admin_socket = "/run/relevo/admin.sock"

[[service]]
name = "cache"
psc = "10.0.1.100:6379"
source = "psc"
max_lag = 0
successor = "first"
replica_timeout = "200ms"
detect = { floor = "5ms", probe_interval = "100ms", probes = 3, hang = "off", vote = "20ms" }
[[service.machine]]
name = "vm-a"
address = "10.0.2.2"
[[service.machine]]
name = "vm-b"
address = "10.0.2.3"
"#;

/// The least that is accepted.
const LEAST: &str = r#"[[service]]
name = "cache"
psc = "10.0.1.100:6379"
[[service.machine]]
name = "vm-a"
address = "10.0.2.2"
"#;

fn problems(text: &str) -> Vec<String> {
    match Config::parse("relevo.toml", text) {
        Ok(config) => panic!("accepted:\n{config}"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

/// Exactly one complaint, at `line`, that holds `part`.
fn one_problem(text: &str, line: usize, part: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(&format!("relevo.toml:{line}: ")), "{found:#?}");
    assert!(found[0].contains(part), "{found:#?}");
}

/// [`LEAST`] with `line` put in after the service's psc, as line 4.
fn with(line: &str) -> String {
    LEAST.replace(":6379\"\n", &format!(":6379\"\n{line}\n"))
}

#[test]
fn the_example_says_what_the_defaults_are() {
    let example = Config::parse("relevo.toml", EXAMPLE).unwrap();
    let mut least = Config::parse("relevo.toml", LEAST).unwrap();
    assert_eq!(example.engine, least.engine);
    least.services[0].machines.push(example.services[0].machines[1].clone());
    assert_eq!(example, least);
    assert_eq!(example.services[0].machines[1].addr, "10.0.2.3:6379".parse().unwrap());
    assert_eq!(example.services[0].detect.probe_interval, 100 * MILLISECOND);
    assert_eq!(example.services[0].detect.hang, None);
    assert_eq!(example.engine.limits.idle_timeout, 432_000 * SECOND);
}

#[test]
fn what_is_printed_reads_back() {
    let full = r#"
[engine]
workers = 8
first_queue = 16
admin_socket = "/tmp/a \"quoted\" path"
queue = "nfq"
worker_cpus = [0, 2, 4, 6, 1, 3, 5, 7]
realtime_priority = 40
busy_poll = "50us"
sysctls = false
super_packets = false
max_flows = 1_000
max_half_open = 0x10
max_syn_rate = 500
flow_buffer = "128KiB"
total_buffer = 1048577
ports = "1024-2047"
half_open_timeout = "1s"
close_timeout = "1500ms"
time_wait = "1us"
idle_timeout = "2h"
[[service]]
name = "a"
psc = "[fd00::1]:80"
source = "client"
max_lag = "unlimited"
replica_timeout = "1m"
diverge = "evict"
unknown = "drop"
[service.detect]
floor = "200us"
hang = "2s"
[[service.machine]]
name = "m1"
address = "[fd00::2]:81"
[[service.machine]]
name = "m2"
address = "fd00::3"
[[service.machine]]
name = "m3"
address = "[fd00::4]"
[[service]]
name = "b"
psc = "10.0.0.1:80"
max_lag = "64KiB"
machine = [{ name = "m1", address = "10.0.0.2" }]
"#;
    for text in [EXAMPLE, LEAST, full] {
        let config = Config::parse("relevo.toml", text).unwrap();
        let printed = config.to_string();
        assert_eq!(Config::parse("printed", &printed).unwrap(), config, "{printed}");
    }
    let config = Config::parse("relevo.toml", full).unwrap();
    assert_eq!(config.services[0].machines[1].addr, "[fd00::3]:80".parse().unwrap());
    assert_eq!(config.services[1].max_lag, MaxLag::Bytes(65_536));
    assert_eq!(config.engine.limits.max_half_open, 16);
    assert_eq!(config.engine.max_syn_rate, 500);
    assert_eq!(
        config.engine.threads.cpus,
        WorkerCpus::List(vec![0, 2, 4, 6, 1, 3, 5, 7])
    );
    assert_eq!(
        (config.engine.threads.realtime, config.engine.threads.busy_poll),
        (Some(40), 50)
    );
    assert_eq!(config.families(), (true, true));
}

#[test]
fn each_shard_gets_its_share() {
    let config = Config::parse("relevo.toml", EXAMPLE).unwrap();
    let path = HostPath {
        ifindex: Some(7),
        mtu: 1400,
    };
    let spec = config.engine_spec(1, [9; 16], &|_| path);
    assert_eq!((spec.shard, spec.shards, spec.hash_key), (1, 2, [9; 16]));
    assert_eq!(spec.limits.max_flows, defaults::MAX_FLOWS / 2);
    assert_eq!(spec.limits.max_half_open, defaults::MAX_HALF_OPEN / 2);
    assert_eq!(spec.limits.total_buffer, defaults::TOTAL_BUFFER / 2);
    assert_eq!(spec.limits.flow_buffer, defaults::FLOW_BUFFER);
    assert_eq!(spec.services[0].machines[1].ifindex, Some(7));
    assert_eq!(spec.services[0].machines[1].path_mtu, 1400);
}

#[test]
fn values_of_the_engine() {
    let cases = [
        ("workers = 3", "found 3, expected a power of two from 1 to 64"),
        ("workers = 128", "expected a power of two"),
        ("workers = 0", "expected a whole number from 1"),
        ("workers = \"2\"", "found \"2\", expected a whole number"),
        ("workers = 2.5", "found 2.5, expected a whole number"),
        (
            "first_queue = 65535",
            "first_queue: found 65535, expected at most 65534",
        ),
        ("first_queue = -1", "found -1, expected a whole number from 0"),
        (
            "admin_socket = \"here\"",
            "admin_socket: found \"here\", expected an absolute path",
        ),
        (
            "queue = \"fast\"",
            "queue: found \"fast\", expected \"direct\" or \"nfq\"",
        ),
        (
            "worker_cpus = [0, 1, 2]",
            "worker_cpus: found 3 of them, expected one for each of 2 workers",
        ),
        (
            "worker_cpus = \"all\"",
            "worker_cpus: found \"all\", expected \"off\", \"auto\", or a processor for each worker",
        ),
        ("worker_cpus = 1", "worker_cpus: found 1, expected \"off\""),
        (
            "worker_cpus = [0, 1024]",
            "worker_cpus: found an array, expected \"off\"",
        ),
        ("worker_cpus = [0, -1]", "each from 0 to 1023"),
        (
            "realtime_priority = 100",
            "realtime_priority: found 100, expected \"off\", or a whole number from 1 to 99",
        ),
        ("realtime_priority = 0", "realtime_priority: found 0, expected \"off\""),
        (
            "busy_poll = 50",
            "busy_poll: found 50, expected \"off\", or a duration such as \"50us\"",
        ),
        ("busy_poll = \"2s\"", "busy_poll: found \"2s\", expected \"off\""),
        ("busy_poll = \"0us\"", "at most \"1s\""),
        ("sysctls = \"yes\"", "sysctls: found \"yes\", expected true or false"),
        ("super_packets = 1", "super_packets: found 1, expected true or false"),
        ("max_flows = 1", "at least one for each of 2 workers"),
        ("max_half_open = 200001", "expected at most max_flows"),
        ("max_syn_rate = 0", "expected a whole number from 1"),
        (
            "flow_buffer = \"1KiB\"",
            "flow_buffer: found 1KiB, expected 64KiB to 1GiB",
        ),
        (
            "flow_buffer = \"4MB\"",
            "flow_buffer: found \"4MB\", expected a number of bytes",
        ),
        (
            "total_buffer = \"4MiB\"",
            "total_buffer: found 4MiB, expected at least flow_buffer (4MiB)",
        ),
        ("ports = \"9-1\"", "ports: found \"9-1\", expected a port range"),
        ("ports = \"9-9\"", "expected at least one for each of 2 workers"),
        ("time_wait = \"0s\"", "more than zero"),
        ("idle_timeout = 5", "idle_timeout: found 5, expected a duration"),
        (
            "worker = 2",
            "unknown key \"worker\" in [engine], expected one of: workers,",
        ),
    ];
    for (line, part) in cases {
        let text = format!("[engine]\n\n{line}\n{LEAST}");
        let found = problems(&text);
        assert!(
            found
                .iter()
                .any(|found| found.starts_with("relevo.toml:3: ") && found.contains(part)),
            "{found:#?}"
        );
    }
}

#[test]
fn values_of_a_service() {
    let cases = [
        (
            "source = \"vm\"",
            "source: found \"vm\", expected \"psc\" or \"client\"",
        ),
        ("max_lag = -1", "max_lag: found -1, expected a number of bytes"),
        (
            "original = \"last\"",
            "original: found \"last\", expected \"first\" or \"fastest\"",
        ),
        (
            "successor = \"last\"",
            "successor: found \"last\", expected \"first\", \"lowest-rtt\" or \"least-lag\"",
        ),
        (
            "replica_timeout = \"1 s\"",
            "replica_timeout: found \"1 s\", expected a duration such as",
        ),
        (
            "replica_timeout = \"10ms\"\ndetect = {}",
            "expected at most replica_timeout, which is 10ms",
        ),
        (
            "diverge = \"ignore\"",
            "diverge: found \"ignore\", expected \"off\", \"warn\", \"ineligible\" or \"evict\"",
        ),
        ("unknown = true", "unknown: found true, expected \"reset\" or \"drop\""),
        (
            "direct = \"maybe\"",
            "direct: found \"maybe\", expected \"stop\" or \"allow\"",
        ),
        (
            "source = \"client\"\ndirect = \"allow\"",
            "direct: found \"allow\", expected \"stop\": with source = \"client\"",
        ),
        ("detect = 5", "detect: found 5, expected a table detect"),
        ("detect = { floor = \"0ms\" }", "floor: found \"0ms\""),
        (
            "detect = { probes = 0 }",
            "probes: found 0, expected a whole number from 1 to 100",
        ),
        (
            "detect = { hang = \"10ms\" }",
            "hang: found 10ms, expected at least vote, which is 20ms",
        ),
        (
            "detect = { hang = \"20ms\", floor = \"21ms\" }",
            "hang: found 20ms, expected at least floor, which is 21ms",
        ),
        (
            "detect = { hang = \"on\" }",
            "hang: found \"on\", expected \"off\", or a duration",
        ),
        (
            "detect = { vote = \"1s\" }",
            "vote: found 1s, expected at most replica_timeout, which is 200ms",
        ),
        ("detect = { flor = \"1s\" }", "unknown key \"flor\" in detect"),
        (
            "colour = 1",
            "unknown key \"colour\" in [[service]], expected one of: name, psc,",
        ),
    ];
    for (line, part) in cases {
        let found = problems(&with(line));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(part), "{found:#?}");
        assert!(
            found[0].starts_with("relevo.toml:4: ") || found[0].starts_with("relevo.toml:5: "),
            "{found:#?}"
        );
    }
}

#[test]
fn names_and_addresses() {
    one_problem(&LEAST.replace("\"cache\"", "\"my cache\""), 2, "expected a name");
    one_problem(&LEAST.replace("\"vm-a\"", "\"\""), 5, "expected a name");
    one_problem(
        &LEAST.replace(":6379", ""),
        3,
        "psc: found \"10.0.1.100\", expected ADDRESS:PORT",
    );
    one_problem(&LEAST.replace(":6379", ":0"), 3, "not port 0");
    one_problem(&LEAST.replace("10.0.2.2", "10.0.2.2:0"), 6, "not port 0");
    one_problem(&LEAST.replace("10.0.1.100", "0.0.0.0"), 3, "the unspecified address");
    one_problem(&LEAST.replace("10.0.1.100", "127.0.0.1"), 3, "a loopback address");
    one_problem(&LEAST.replace("10.0.2.2", "224.0.0.1"), 6, "a multicast address");
    one_problem(
        &LEAST.replace("10.0.2.2", "255.255.255.255"),
        6,
        "the broadcast address",
    );
    one_problem(
        &LEAST.replace("10.0.2.2", "10.0.2"),
        6,
        "address: found \"10.0.2\", expected ADDRESS",
    );
    one_problem(
        &LEAST.replace("10.0.2.2", "fd00::2"),
        6,
        "found [fd00::2]:6379, expected IPv4",
    );
    one_problem(
        &LEAST.replace("10.0.2.2", "10.0.1.100"),
        6,
        "the psc's address of line 3",
    );
    let v6 = LEAST.replace("10.0.1.100:", "[fd00::1]:");
    one_problem(&v6.replace("10.0.2.2", "fe80::1"), 6, "a link-local address");
    one_problem(&v6.replace("10.0.2.2", "::ffff:10.0.0.1"), 6, "an IPv4-mapped address");
}

#[test]
fn duplicates() {
    let again = LEAST
        .replace("10.0.2.2", "10.0.2.9")
        .replace("10.0.1.100", "10.0.1.101");
    one_problem(&format!("{LEAST}{again}"), 8, "the service of line 2 too");
    let again = LEAST.replace("10.0.2.2", "10.0.2.9").replace("cache", "other");
    one_problem(
        &format!("{LEAST}{again}"),
        9,
        "psc: found 10.0.1.100:6379, the service of line 3 too",
    );
    let again = LEAST.replace("10.0.1.100", "10.0.1.101").replace("cache", "other");
    one_problem(
        &format!("{LEAST}{again}"),
        12,
        "address: found 10.0.2.2:6379, the machine of line 6 too",
    );
    let machine = "[[service.machine]]\nname = \"vm-a\"\naddress = \"10.0.2.3\"\n";
    one_problem(
        &format!("{LEAST}{machine}"),
        8,
        "name: found \"vm-a\", the machine of line 5 too",
    );
    let machine = "[[service.machine]]\nname = \"vm-b\"\naddress = \"10.0.2.2:6379\"\n";
    one_problem(&format!("{LEAST}{machine}"), 9, "the machine of line 6 too");
    let port = "[[service.machine]]\nname = \"vm-b\"\naddress = \"10.0.2.2:6380\"\n";
    assert!(Config::parse("relevo.toml", &format!("{LEAST}{port}")).is_ok());
}

#[test]
fn what_is_not_there() {
    one_problem("", 1, "the file: found no service, expected at least one [[service]]");
    one_problem(
        "[[service]]\nname = \"a\"\npsc = \"10.0.0.1:80\"\n",
        1,
        "[[service]]: found no machine, expected at least one",
    );
    one_problem(
        "[[service]]\nname = \"a\"\npsc = \"10.0.0.1:80\"\nmachine = []\n",
        4,
        "[[service]]: found no machine, expected at least one",
    );
    one_problem(
        "service = 5\n[engine]\n",
        1,
        "service: found 5, expected tables [[service]]",
    );
    one_problem(&LEAST.replace("name = \"cache\"\n", "\n"), 1, "found no name");
    one_problem(&LEAST.replace("address = \"10.0.2.2\"\n", ""), 4, "found no address");
    one_problem(
        &format!("engin = 1\n{LEAST}"),
        1,
        "unknown key \"engin\" in the file, expected one of: engine, service",
    );
}

#[test]
fn sixteen_machines_and_no_more() {
    let machines = |count: usize| {
        let machine = |n| format!("[[service.machine]]\nname = \"m{n}\"\naddress = \"10.0.3.{n}\"\n");
        format!(
            "[[service]]\nname = \"a\"\npsc = \"10.0.0.1:80\"\n{}",
            (1..=count).map(machine).collect::<String>()
        )
    };
    assert!(Config::parse("relevo.toml", &machines(16)).is_ok());
    one_problem(&machines(17), 53, "found 17 of them, expected at most 16");
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"[engine]
workers = 3
max_flow = 9
[[service]]
name = "cache"
psc = "10.0.1.100"
max_lag = "much"
[[service.machine]]
name = "vm-a"
address = "10.0.2"
[[service]]
psc = "10.0.1.101:80"
replica_timeout = "soon"
[[service.machine]]
name = "vm-a"
address = "10.0.2.2"
"#;
    let lines: Vec<usize> = match Config::parse("relevo.toml", text) {
        Err(problems) => problems.0.iter().map(|problem| problem.line).collect(),
        Ok(_) => panic!("accepted"),
    };
    assert_eq!(lines, [2, 3, 6, 7, 10, 11, 13]);
}

#[test]
fn syntax_errors_have_their_line_and_stand_with_the_others() {
    one_problem("[engine\nworkers = 2\n", 1, "not valid TOML");
    one_problem(&LEAST.replace("\"cache\"", "cache"), 2, "not valid TOML");
    one_problem(
        &LEAST.replace("name = \"cache\"", "name = \"cache\"\nname = \"c\""),
        3,
        "duplicate key",
    );
    let found = problems(&format!("[engine]\nworkers = \nfirst_queue = \"x\"\n{LEAST}"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("relevo.toml:2: not valid TOML"), "{found:#?}");
    assert!(
        found[1].starts_with("relevo.toml:3: first_queue: found \"x\""),
        "{found:#?}"
    );
}

#[test]
fn the_page_about_it_knows_every_key_and_its_example_is_accepted() {
    let page = include_str!("../../docs/configuration.md");
    let example = page.split("```").nth(1).unwrap().strip_prefix("toml\n").unwrap();
    let config = Config::parse("page", example).unwrap();
    for line in config.to_string().lines() {
        if let Some((key, value)) = line.split_once(" = ") {
            assert!(
                page.contains(&format!("| `{key}` |")) || key == "detect",
                "{key} is not on the page"
            );
            let plain = value.trim_matches('"');
            let shown = page.contains(&format!("`{value}`")) || page.contains(&format!("`\"{plain}\"`"));
            let own = ["name", "psc", "address", "detect"].contains(&key);
            assert!(own || shown, "{key}'s default, {value}, is not on the page");
        }
    }
    for key in ["floor", "probe_interval", "probes", "hang", "vote", "detect"] {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not on the page");
    }
}

#[test]
fn a_missing_file_is_said_plainly() {
    let error = Config::load(Path::new("/nonexistent/relevo.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the configuration /nonexistent/relevo.toml"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = Config::parse("f", &text);
    }

    #[test]
    fn no_mutilation_makes_it_panic(at in 0usize..700, cut in 0usize..40, put in "[\\[\\]={}\"a-z0-9\n]{0,6}") {
        let start = EXAMPLE.floor_char_boundary(at.min(EXAMPLE.len()));
        let end = EXAMPLE.floor_char_boundary((start + cut).min(EXAMPLE.len()));
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        if let Ok(config) = Config::parse("f", &text) {
            proptest::prop_assert_eq!(Config::parse("g", &config.to_string()).unwrap(), config);
        }
    }
}
