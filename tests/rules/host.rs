//! What the host needs besides rules: `relevo doctor` and the sysctls.

use relevo::config::Config;
use relevo::host::sysctl;

use super::CONFIG;
use super::lab::{Lab, file};

#[test]
fn doctor_names_what_is_missing_and_is_content_when_it_is_there() {
    let lab = Lab::new();
    let (_directory, path) = file(CONFIG);
    let examine = || {
        let output = lab.host.relevo(&["doctor", "--config", &path]);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = examine();
    assert_eq!(code, 1, "without a route to the machines: {said}");
    assert!(
        said.contains("there is no route to 10.0.2.2") && said.contains("mend: ip route add 10.0.2.2"),
        "{said}"
    );

    lab.add_machine_routes();
    let (code, said) = examine();
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("machine a at 10.0.2.2:6379 is reached by h0, path MTU 1500"),
        "{said}"
    );
    assert!(
        said.contains("service cache: 10.0.1.100 is an address of this host"),
        "{said}"
    );

    let firewall = "table inet filter { chain f { type filter hook forward priority 0; ct state established accept; ct state \
                    untracked drop; }; }";
    lab.host.exec("nft", &[firewall]);
    let (code, said) = examine();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("mend: nft insert rule inet filter f ct state untracked accept"),
        "{said}"
    );
    // The mend mends.
    lab.host
        .exec("nft", &["insert rule inet filter f ct state untracked accept"]);
    assert_eq!(examine().0, 0);
    // Its looking at the queue target changed nothing.
    assert_eq!(lab.host.exec("nft", &["list", "tables"]), "table inet filter\n");
}

#[test]
fn sysctls_are_set_where_they_are_needed() {
    let lab = Lab::new();
    lab.add_machine_routes();
    let config = Config::parse("relevo.toml", CONFIG).unwrap();
    lab.host.exec("sysctl", &["-qw", "net.ipv4.conf.h0.rp_filter=1"]);
    let (interfaces, changes, again) = lab.host.inside(|| {
        let interfaces = sysctl::interfaces(&config).unwrap();
        let settings = sysctl::required(&config, &interfaces);
        let changes = sysctl::apply(&settings).unwrap();
        (interfaces, changes, sysctl::apply(&settings).unwrap())
    });
    assert_eq!(interfaces, ["h0"]);
    let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert!(
        said.iter()
            .any(|line| line.starts_with("set net.ipv4.conf.h0.rp_filter from 1 to 0")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("set net.ipv4.conf.all.accept_local from 0 to 1")),
        "{said:#?}"
    );
    assert_eq!(again, []);
}
