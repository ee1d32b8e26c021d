//! The command line against a real host: rules, refusals, exit codes.

use std::process::Output;

use crate::lab::cluster::{Cluster, PATIENCE, PORT};
use crate::lab::engine::{ServiceConfig, binary, config};
use crate::lab::peers::Client;
use crate::lab::{Family, Lab};
use crate::turn;

#[test]
fn rules_are_loaded_and_unloaded_beside_a_strangers_table() {
    let _turn = turn();
    let cluster = Cluster::new(2);
    let file = cluster.lab.dir().join("rules.toml");
    std::fs::write(&file, config(cluster.lab.dir(), &[cluster.config(Family::V4)])).unwrap();
    let host = cluster.lab.engine();
    host.nft("table inet stranger {\n set s { type ipv4_addr; elements = { 10.0.10.2 } }\n chain c {\n  type filter hook forward priority 7;\n  ip saddr @s counter\n }\n}\n");
    let stranger = host.output("nft", &["list", "table", "inet", "stranger"]);
    let before = host.output("nft", &["list", "tables"]);
    let rules = |what| {
        let output = host
            .command(binary().to_str().unwrap())
            .args(["rules", what, "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "rules {what}: {output:?}");
    };

    rules("load");
    let once = host.output("nft", &["list", "ruleset"]);
    assert_ne!(host.output("nft", &["list", "tables"]), before, "something was loaded");
    rules("load");
    assert_eq!(
        host.output("nft", &["list", "ruleset"]),
        once,
        "the second time changes nothing"
    );
    let _engine = cluster.engine(Family::V4, &[]);
    let psc = cluster.lab.psc(Family::V4, PORT);
    cluster
        .lab
        .client()
        .enter(|| Client::connect(psc, PATIENCE).unwrap().talk(1, 10, |_| ()).unwrap());
    assert_eq!(
        host.output("nft", &["list", "table", "inet", "stranger"])
            .lines()
            .count(),
        stranger.lines().count()
    );

    rules("unload");
    assert_eq!(host.output("nft", &["list", "tables"]), before);
    rules("unload"); // nothing to do is no error
}

#[test]
fn whoever_is_not_root_is_told_so() {
    let _turn = turn();
    let lab = Lab::new(1);
    let file = lab.dir().join("relevo.toml");
    let service = ServiceConfig::new("x", lab.psc(Family::V4, PORT), &[lab.machine(0).addr(Family::V4, PORT)]);
    std::fs::write(&file, config(lab.dir(), &[service])).unwrap();
    // A copy: the build directory may lie where others can't go.
    let copy = lab.dir().join("relevo");
    std::fs::copy(binary(), &copy).unwrap();
    let mut command = lab.engine().command("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy)
        .args(["run", "--config"])
        .arg(&file);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = errors_of(&output);
    assert!(said.contains("root") || said.contains("CAP_NET_ADMIN"), "{said}");
    assert_eq!(
        lab.engine().output("nft", &["list", "ruleset"]),
        "",
        "nothing is left half loaded"
    );
}

#[test]
fn a_bad_configuration_is_refused_with_every_line_that_is_wrong() {
    let _turn = turn();
    let lab = Lab::new(1);
    let file = lab.dir().join("bad.toml");
    let text = "[engine]\nworkers = 3\nqueues = 1\n\n[[service]]\nname = \"x\"\npsc = \"10.0.1.100\"\nmax_lag = \"much\"\n\
                [[service.machine]]\nname = \"m0\"\naddress = \"10.0.10.2\"\n";
    std::fs::write(&file, text).unwrap();
    for words in [["check", "--config"], ["run", "--config"]] {
        let output = lab
            .engine()
            .command(binary().to_str().unwrap())
            .args(words)
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = errors_of(&output);
        for line in [2, 3, 7, 8] {
            assert!(
                said.contains(&format!("bad.toml:{line}")),
                "{words:?} does not complain of line {line}:\n{said}"
            );
        }
    }
    assert_eq!(
        lab.engine().output("nft", &["list", "ruleset"]),
        "",
        "nothing is left half loaded"
    );
}

fn errors_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
