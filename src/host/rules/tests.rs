//! The compiler, without a kernel. That nft makes the same of the same text is shown in `tests/rules.rs`.

use super::expr::Register;
use super::text::{Hook, KeyType, compile};
use super::*;

/// A text around rules of one chain.
fn around(rules: &str) -> String {
    format!(
        "table inet relevo {{\n\
         counter fragments {{ }}\n\
         set psc4 {{ type ipv4_addr . inet_service; }}\n\
         set peer6 {{ type ipv6_addr . inet_service . ipv6_addr; }}\n\
         chain other {{\n}}\n\
         chain divert {{\n\
         {rules}\n\
         }}\n\
         }}\n"
    )
}

/// The expressions of one rule.
fn steps(rule: &str) -> Vec<String> {
    let ruleset = compile(&around(rule)).unwrap();
    assert_eq!(ruleset.rules.len(), 1);
    ruleset.rules[0].exprs.iter().map(ToString::to_string).collect()
}

/// The complaint about a rule, which stands in line 8.
fn complaint(rule: &str) -> String {
    let error = compile(&around(rule)).unwrap_err();
    assert_eq!(error.line, 8, "{error}");
    error.to_string()
}

#[test]
fn the_template_compiles_with_every_placeholder_filled() {
    let text = r#"
[[service]]
name = "a"
psc = "10.0.0.1:80"
machine = [{ name = "a", address = "10.0.2.2" }]
[[service]]
name = "b"
psc = "[fd00::1]:80"
source = "client"
machine = [{ name = "a", address = "fd00::2" }]
"#;
    let config = Config::parse("relevo.toml", text).unwrap();
    let ruleset = compile(&render(&config)).unwrap();
    assert_eq!(ruleset.table, TABLE);
    assert!(
        ruleset.flush && ruleset.sets.iter().all(|set| set.flush),
        "a second load would not replace the first"
    );
    let hooks: Vec<_> = ruleset.chains.iter().filter_map(|chain| chain.hook).collect();
    let expected = [
        (Hook::Prerouting, -290),
        (Hook::Input, -300),
        (Hook::Forward, -300),
        (Hook::Output, -300),
    ];
    assert_eq!(hooks, expected);
    let set = |name: &str| ruleset.sets.iter().find(|set| set.name == name).unwrap();
    assert_eq!(
        set("machine_psc4").elements,
        [vec![10, 0, 2, 2, 0, 80, 0, 0, 10, 0, 0, 1]]
    );
    assert_eq!(set("machine_client6").elements[0].len(), 20);
    assert!(set("machine_psc6").elements.is_empty());
}

#[test]
fn an_unfilled_template_is_an_error_with_its_line() {
    let error = compile(template::TEMPLATE).unwrap_err();
    let line = template::TEMPLATE
        .lines()
        .position(|line| line.contains("{ %psc4% }"))
        .unwrap()
        + 1;
    assert_eq!(error.line, line);
    assert_eq!(
        error.to_string(),
        format!("ruleset, line {line}: found '%psc4%', expected an IPv4 address")
    );
}

#[test]
fn keys_have_the_types_and_lengths_of_nft() {
    let ruleset = compile(&around("drop")).unwrap();
    let [psc4, peer6] = &ruleset.sets[..] else { panic!() };
    assert_eq!((psc4.type_number(), psc4.key_len()), (7 << 6 | 13, 8));
    assert_eq!((peer6.type_number(), peer6.key_len()), ((8 << 6 | 13) << 6 | 8, 36));
    assert_eq!(psc4.key, [KeyType::Ipv4, KeyType::Port]);
}

#[test]
fn registers_are_numbered_as_nft_does() {
    let numbers: Vec<_> = [0, 1, 2, 4, 5, 8].map(|word| Register::at(word).number()).into();
    assert_eq!(numbers, [1, 9, 10, 2, 13, 3]);
}

#[test]
fn a_concatenation_is_loaded_side_by_side_and_looked_up() {
    let expected = [
        "[ meta load nfproto => reg 1 ]",
        "[ cmp eq reg 1 0x0000000a ]",
        "[ meta load l4proto => reg 1 ]",
        "[ cmp eq reg 1 0x00000006 ]",
        "[ payload load 16b @ network header + 8 => reg 1 ]",
        "[ payload load 2b @ transport header + 0 => reg 2 ]",
        "[ payload load 16b @ network header + 24 => reg 13 ]",
        "[ lookup reg 1 set peer6 ]",
        "[ immediate reg 0 goto -> other ]",
    ];
    assert_eq!(steps("ip6 saddr . tcp sport . ip6 daddr @peer6 goto other"), expected);
}

#[test]
fn a_rate_is_a_step_that_goes_on_beyond_it() {
    let steps =
        steps("tcp flags & syn == syn limit rate over 10000/second burst 2500 packets counter name \"fragments\" drop");
    assert_eq!(
        steps[2..],
        [
            "[ payload load 1b @ transport header + 13 => reg 1 ]",
            "[ bitwise reg 1 = ( reg 1 & 0x00000002 ) ^ 0x00000000 ]",
            "[ cmp eq reg 1 0x00000002 ]",
            "[ limit rate 10000/second burst 2500 type packets flags 0x1 ]",
            "[ objref type 1 name fragments ]",
            "[ immediate reg 0 drop ]",
        ]
    );
}

#[test]
fn protocols_are_asked_for_once() {
    let steps = steps("ip daddr . tcp dport @psc4 tcp flags & rst == rst counter name \"fragments\" drop");
    assert_eq!(steps.iter().filter(|step| step.contains("meta load")).count(), 2);
    let expected = [
        "[ payload load 1b @ transport header + 13 => reg 1 ]",
        "[ bitwise reg 1 = ( reg 1 & 0x00000004 ) ^ 0x00000000 ]",
        "[ cmp eq reg 1 0x00000004 ]",
        "[ objref type 1 name fragments ]",
        "[ immediate reg 0 drop ]",
    ];
    assert_eq!(steps[7..], expected);
}

#[test]
fn numbers_are_in_network_byte_order_and_the_mark_in_the_hosts() {
    let steps_of_mask = steps("ip frag-off & 0x3fff != 0 drop");
    assert_eq!(
        steps_of_mask[3],
        "[ bitwise reg 1 = ( reg 1 & 0x0000ff3f ) ^ 0x00000000 ]"
    );
    assert_eq!(steps_of_mask[4], "[ cmp neq reg 1 0x00000000 ]");
    assert_eq!(
        steps("meta mark 0x52564c4f notrack accept")[1],
        "[ cmp eq reg 1 0x52564c4f ]"
    );
    assert_eq!(steps("tcp sport & 0x3 == 0x2 queue num 9")[5], "[ queue num 9 ]");
    assert_eq!(
        steps("@th,136,8 6 drop")[0],
        "[ payload load 1b @ transport header + 17 => reg 1 ]"
    );
}

#[test]
fn what_is_not_known_is_an_error_with_its_line() {
    let cases = [
        (
            "udp dport 5",
            "found 'udp', expected a match or a statement that the loader knows",
        ),
        (
            "tcp window 5",
            "found 'window', expected a field of tcp that the loader knows",
        ),
        ("tcp dport 65536 drop", "found '65536', expected a value of 2 bytes"),
        (
            "ip saddr 10.0.0.1 drop",
            "found '10.0.0.1', expected a value of 4 bytes",
        ),
        ("ip daddr . tcp dport 5", "expected a set, '@NAME'"),
        (
            "ip daddr . tcp dport @psc5 drop",
            "found 'psc5', expected a set that is declared",
        ),
        (
            "counter name other drop",
            "found 'other', expected a counter that is declared",
        ),
        ("goto nowhere", "found 'nowhere', expected a chain that is declared"),
        ("counter drop", "found 'drop', expected 'name'"),
        (
            "drop accept",
            "found 'accept', expected the end of the line after a verdict",
        ),
        (
            "queue num 0 bypass",
            "found 'bypass', expected the end of the line after a verdict",
        ),
        ("queue num 65536", "expected a queue number"),
        ("tcp sport & 3 > 1 drop", "found '>', expected '==' or '!='"),
        ("@th,3,8 1 drop", "found '@th,3,8', expected @th,OFFSET,LENGTH"),
        (
            "type nat hook input priority raw; policy accept;",
            "found 'nat', expected 'filter'",
        ),
        (
            "type filter hook input priority raw; policy drop;",
            "found 'drop', expected 'accept'",
        ),
        (
            "type filter hook input priority mangle; policy accept;",
            "found 'mangle', expected raw or filter",
        ),
        ("jump other", "found 'jump'"),
        ("tcp", "found the end of the line, expected a field of tcp"),
    ];
    for (rule, part) in cases {
        let found = complaint(rule);
        assert!(found.contains(part), "{rule}: {found}");
    }
}

#[test]
fn the_frame_is_read_as_strictly() {
    let cases = [
        ("table ip relevo {\n}\n", 1, "found 'ip', expected 'inet'"),
        (
            "table inet relevo {\n}\ntable inet other {\n}\n",
            3,
            "found 'other', expected 'relevo'",
        ),
        ("table inet relevo {\n", 1, "found the end of the text, expected '}'"),
        (
            "table inet relevo {\nset a { type ether_addr; }\n}\n",
            2,
            "expected ipv4_addr, ipv6_addr or inet_service",
        ),
        (
            "table inet relevo {\nset a { type ipv4_addr; flags interval; }\n}\n",
            2,
            "found 'flags', expected '}'",
        ),
        (
            "table inet relevo {\n}\nadd element inet relevo a { 1.2.3.4 }\n",
            3,
            "found 'a', expected the name of a set",
        ),
        ("flush ruleset\n", 1, "found 'ruleset', expected 'set'"),
        (
            "delete table inet relevo\n",
            1,
            "found 'delete', expected 'table', 'flush' or 'add'",
        ),
        ("table inet relevo { }\n", 1, "found '}', expected the end of the line"),
        ("table inet re/levo {\n}\n", 1, "expected the name of a table"),
    ];
    for (text, line, part) in cases {
        let error = compile(text).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let set = "table inet relevo {\nset a { type ipv4_addr . inet_service; }\n}\n";
    for element in [
        "1.2.3.4",
        "1.2.3.4 . 80 . 5",
        "80 . 1.2.3.4",
        "1.2.3.4 . 80,",
        "1.2.3.4 . http",
    ] {
        let error = compile(&format!("{set}add element inet relevo a {{ {element} }}\n")).unwrap_err();
        assert_eq!(error.line, 4, "{error}");
    }
}

#[test]
fn answers_of_the_kernel_become_one_sentence_with_the_mend() {
    let answer =
        |what: &str, queue, code| RulesError::of_answer(what.to_owned(), queue, io::Error::from_raw_os_error(code));
    assert!(
        answer("the table", false, libc::EPERM)
            .to_string()
            .contains("run as root")
    );
    assert!(
        answer("the transaction", false, libc::EOPNOTSUPP)
            .to_string()
            .contains("CONFIG_NF_TABLES")
    );
    assert!(
        answer("set psc4", false, libc::EEXIST)
            .to_string()
            .contains("relevo rules unload")
    );
    assert!(answer("the rule of line 9", true, libc::ENOENT).is_unknown_queue());
    assert!(!answer("the rule of line 9", false, libc::ENOENT).is_unknown_queue());
    assert!(
        answer("the rule of line 9", false, libc::ENOENT)
            .to_string()
            .contains("CONFIG_NFT_CT")
    );
    let refused = |_| Err(answer("the rule of line 9", true, libc::ENOENT));
    assert!(with_backend(refused).unwrap_err().to_string().contains("nft_queue"));
}

#[test]
fn a_counter_is_found_in_a_dump() {
    let data = |bytes: u64, packets: u64| {
        let message = request(0, 0, &[], &[(1, &bytes.to_be_bytes()), (2, &packets.to_be_bytes())]);
        message[16..].to_vec()
    };
    let object = |table: &[u8]| {
        let data = data(1500, 3);
        request(
            0,
            0,
            &[],
            &[
                (1, table),
                (2, b"fragments\0"),
                (3, &1u32.to_be_bytes()),
                (0x8004, &data),
            ],
        )[16..]
            .to_vec()
    };
    let found = NamedCounter {
        name: "fragments".to_owned(),
        packets: 3,
        bytes: 1500,
    };
    assert_eq!(counter(&object(b"relevo\0")), Some(found));
    assert_eq!(counter(&object(b"other\0")), None);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(rule in "[a-z0-9 .,@{};&!=\"#%\n-]*") {
        let _ = compile(&around(&rule));
        let _ = compile(&rule);
    }
}
