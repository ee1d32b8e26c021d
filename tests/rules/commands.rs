//! The binary's commands: rules loaded, shown and unloaded, and what bad input gets.

use relevo::config::Config;
use relevo::host::rules::{self, QueueBackend, RulesError};

use super::CONFIG;
use super::lab::{Namespace, file, listing, run, shape, stdout};

#[test]
fn nft_makes_the_same_of_the_text() {
    let namespace = Namespace::new("rules");
    let text = rules::render(&Config::parse("relevo.toml", CONFIG).unwrap());
    let (_directory, path) = file(&text);
    // Where the kernel has no nft_queue the check fails in the end, but what nft compiled has been printed by then.
    let output = namespace.try_exec("nft", &["--debug=netlink", "-c", "-f", &path]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = rules::bytecode(&text).unwrap();
    assert!(expected.lines().count() > 200, "{expected}");
    let start = printed
        .find("inet relevo from_client\n")
        .unwrap_or_else(|| panic!("no rules in:\n{printed}"));
    let mut theirs = printed[start..].lines();
    for ours in expected.lines() {
        assert_eq!(theirs.next().unwrap_or_default().trim_end(), ours);
    }
}

#[test]
fn load_twice_unload_and_leave_strangers_alone() {
    let namespace = Namespace::new("rules");
    let stranger = "table inet stranger { counter c { }; set s { type ipv4_addr; elements = { 10.9.9.9 } }; chain in { type \
                    filter hook input priority 0; ip saddr @s counter name c accept; }; }";
    namespace.exec("nft", &[stranger]);
    let before = listing(&namespace, "stranger");
    let (_directory, path) = file(CONFIG);

    let said = stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
    assert!(
        said.starts_with("rules: loaded table inet relevo, queue target "),
        "{said}"
    );
    let first = listing(&namespace, "relevo");
    let text = stdout(&namespace.relevo(&["rules", "show", "--config", &path]));
    let wanted = rules::bytecode(&text)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("inet "))
        .count();
    assert_eq!(shape(&first).1, wanted, "{first:#?}");
    for element in [
        "10.0.1.100 . 6379",
        "10.0.2.3 . 6380 . 10.0.1.100",
        "fd00:2::2 . 6379 . fd00:1::100",
    ] {
        assert!(
            first.iter().any(|line| line.contains(element)),
            "{element} is not in {first:#?}"
        );
    }

    // Again, then with a machine less: nothing doubles, its element goes, and no chain or set was deleted on the way, for
    // they keep their handles.
    stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
    assert_eq!(shape(&listing(&namespace, "relevo")), shape(&first));
    let (_directory, fewer) = file(&CONFIG.replace(r#", { name = "b", address = "10.0.2.3:6380" }"#, ""));
    stdout(&namespace.relevo(&["rules", "load", "--config", &fewer]));
    let third = listing(&namespace, "relevo");
    assert_eq!(shape(&third), shape(&first));
    assert!(!third.iter().any(|line| line.contains("10.0.2.3")), "{third:#?}");

    assert_eq!(
        stdout(&namespace.relevo(&["rules", "unload"])),
        "rules: unloaded table inet relevo\n"
    );
    assert_eq!(
        stdout(&namespace.relevo(&["rules", "unload"])),
        "rules: there was no table inet relevo\n"
    );
    assert_eq!(listing(&namespace, "stranger"), before);
    assert_eq!(namespace.exec("nft", &["list", "tables"]), "table inet stranger\n");
}

#[test]
fn nothing_is_half_loaded() {
    let namespace = Namespace::new("rules");
    // A set of ours with another key, as another version may have left it.
    namespace.exec("nft", &["table inet relevo { set psc6 { type ipv4_addr; }; }"]);
    let before = listing(&namespace, "relevo");
    let (_directory, path) = file(CONFIG);
    let output = namespace.relevo(&["rules", "load", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("relevo: ") && said.contains("run `relevo rules unload` first"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(listing(&namespace, "relevo"), before);
    let config = Config::parse("relevo.toml", CONFIG).unwrap();
    let error = namespace.inside(|| rules::load(&config)).unwrap_err();
    assert!(matches!(error, RulesError::Stale { .. }), "{error}");

    stdout(&namespace.relevo(&["rules", "unload"]));
    stdout(&namespace.relevo(&["rules", "load", "--config", &path]));
}

#[test]
fn without_privileges_one_sentence_and_the_mend() {
    let namespace = Namespace::new("rules");
    let (_directory, path) = file(CONFIG);
    let binary = env!("CARGO_BIN_EXE_relevo");
    let arguments = [
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        binary,
        "rules",
        "load",
        "--config",
        &path,
    ];
    let output = namespace.try_exec("setpriv", &arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said,
        "relevo: changing nftables rules needs CAP_NET_ADMIN: run as root\n"
    );
}

#[test]
fn probing_leaves_nothing() {
    let namespace = Namespace::new("rules");
    let backend = namespace.inside(rules::probe).unwrap();
    assert!(matches!(backend, QueueBackend::Native | QueueBackend::Compat));
    assert_eq!(namespace.exec("nft", &["list", "tables"]), "");
    assert_eq!(namespace.inside(rules::counters).unwrap(), []);
}

#[test]
fn exit_codes_of_the_command_line() {
    let relevo = |arguments: &[&str]| {
        let output = run(env!("CARGO_BIN_EXE_relevo"), arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for bad in [
        &[][..],
        &["walk"],
        &["run"],
        &["rules"],
        &["failover"],
        &["machine", "enable", "cache"],
        &["--nonsense"],
    ] {
        let (code, out, error) = relevo(bad);
        assert_eq!((code, out.as_str()), (2, ""), "{bad:?}: {error}");
        assert!(
            error.ends_with("Run relevo --help for more information.\n"),
            "{bad:?}: {error}"
        );
    }
    for help in [
        &["--help"][..],
        &["help"],
        &["rules", "load", "--help"],
        &["status", "--help"],
    ] {
        let (code, out, _) = relevo(help);
        assert_eq!(code, 0);
        assert!(out.starts_with("Usage: relevo") && out.contains("Examples:"), "{out}");
    }
    let (code, _, error) = relevo(&["check", "--config", "/nonexistent"]);
    assert_eq!(code, 1);
    assert!(
        error.starts_with("relevo: cannot read the configuration /nonexistent: "),
        "{error}"
    );

    let (_directory, path) = file("[engine]\nworkers = 3\n[[service]]\nname = \"a\"\n");
    for command in ["check", "run"] {
        let (code, out, error) = relevo(&[command, "--config", &path]);
        assert_eq!((code, out.as_str()), (1, ""));
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(
            lines[0].starts_with(&format!("{path}:2: workers: found 3, expected ")),
            "{error}"
        );
    }
    let (_directory, path) = file(CONFIG);
    assert_eq!(relevo(&["check", "--config", &path]), (0, String::new(), String::new()));
    let (code, printed, _) = relevo(&["check", "--config", &path, "--print"]);
    assert_eq!(code, 0);
    assert_eq!(
        Config::parse("printed", &printed).unwrap(),
        Config::parse("relevo.toml", CONFIG).unwrap()
    );
}
