//! What the rules drop themselves: fragments, forgeries, and whatever no engine has translated.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nfq::Verdict;
use relevo::config::Config;
use relevo::host::rules;

use super::lab::Lab;
use super::packet::{fragment, send, tcp, unreachable};
use super::{ACK, CONFIG, MARK, RST, SYN};

#[test]
fn fragments_are_dropped_and_counted() {
    let lab = Lab::loaded();
    lab.client_route("10.0.9.9");
    lab.client_route("fd00:9::9");
    let mut sent = 0;
    for (from, to) in [
        ("10.0.1.1:40000", "10.0.1.100:6379"),
        ("10.0.2.2:6379", "10.0.1.100:40000"),
        ("10.0.2.2:80", "10.0.9.9:40000"),
        ("[fd00:1::1]:40000", "[fd00:1::100]:80"),
        ("[fd00:2::2]:80", "[fd00:9::9]:40000"),
    ] {
        for offset in [0, 1480] {
            let packet = fragment(tcp(from, to, ACK), offset);
            lab.client.inside(|| send(&packet, None)).unwrap();
            sent += 1;
            lab.wait_counted("fragments", sent);
        }
    }
    assert_eq!(lab.counted("untranslated"), 0);
}

#[test]
fn without_an_engine_a_client_hears_nothing() {
    let lab = Lab::loaded();
    // Even with a program of the host's own on the port.
    let _listener = lab.host.inside(|| TcpListener::bind("10.0.1.100:6379").unwrap());
    for psc in ["10.0.1.100:6379", "10.0.1.100:80", "[fd00:1::100]:80"] {
        let psc: SocketAddr = psc.parse().unwrap();
        let silence = lab
            .client
            .inside(|| TcpStream::connect_timeout(&psc, Duration::from_millis(300)))
            .unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::TimedOut, "{psc}");
    }
}

#[test]
fn a_packet_that_nobody_translated_goes_nowhere() {
    let lab = Lab::loaded();
    lab.forward();
    lab.client_route("10.0.2.9");
    lab.client_route("fd00:2::9");
    let packets = [
        tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN),
        tcp("10.0.2.2:6379", "10.0.1.100:40000", SYN),
        // These two would be forwarded: the host has a route for them.
        tcp("10.0.2.2:80", "10.0.2.9:40000", SYN),
        tcp("[fd00:2::2]:80", "[fd00:2::9]:40000", SYN),
        tcp("[fd00:1::1]:40000", "[fd00:1::100]:80", SYN),
    ];
    assert_eq!(
        lab.queued(&mut lab.listen(), &packets, Verdict::Accept).len(),
        packets.len()
    );
    lab.wait_counted("untranslated", packets.len() as u64);
}

#[test]
fn nobody_on_a_wire_speaks_as_the_engine_does() {
    let lab = Lab::loaded();
    lab.forward();
    lab.host.exec("sysctl", &["-qw", "net.ipv4.conf.all.accept_local=1"]);
    lab.client_route("10.0.2.2");
    lab.client_route("10.0.1.9");
    lab.client_route("fd00:2::2");
    lab.client_route("fd00:1::9");
    let forged = [
        // As a service, to a client.
        tcp("10.0.1.100:6379", "10.0.1.9:40000", RST),
        tcp("10.0.1.100:80", "10.0.1.9:40000", ACK),
        tcp("[fd00:1::100]:80", "[fd00:1::9]:40000", RST),
        // As the engine, to a machine.
        tcp("10.0.1.100:40000", "10.0.2.2:6379", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:6379", ACK),
        // With `source = "client"` it could be anybody.
        tcp("10.0.1.9:40000", "10.0.2.2:80", RST),
        tcp("[fd00:1::9]:40000", "[fd00:2::2]:80", ACK),
    ];
    for (sent, packet) in (1..).zip(&forged) {
        lab.client.inside(|| send(packet, None)).unwrap();
        lab.wait_counted("forged", sent);
    }
    // The service's address may be a client elsewhere, and a machine may be used directly where the service is not `source = "client"`.
    let others = [
        tcp("10.0.1.100:40000", "10.0.1.9:22", SYN),
        tcp("10.0.1.9:40000", "10.0.2.2:6379", SYN),
    ];
    for packet in &others {
        lab.client.inside(|| send(packet, None)).unwrap();
    }
    lab.client.inside(|| send(&forged[0], None)).unwrap();
    lab.wait_counted("forged", forged.len() as u64 + 1);
    assert_eq!(lab.counted("untranslated"), 0);
}

#[test]
fn machines_answer_nobody_but_the_engine_and_this_host() {
    let lab = Lab::loaded();
    lab.forward();
    lab.client_route("10.0.1.9");
    lab.client_route("fd00:1::9");
    let stopped = [
        tcp("10.0.2.2:6379", "10.0.1.9:40000", SYN | ACK),
        tcp("10.0.2.3:6380", "10.0.1.9:40000", RST),
        tcp("[fd00:2::2]:6379", "[fd00:1::9]:40000", ACK),
    ];
    for (sent, packet) in (1..).zip(&stopped) {
        lab.client.inside(|| send(packet, None)).unwrap();
        lab.wait_counted("direct", sent);
    }
    // Its other ports are its own, and so is what it says to another address of this host, who may ask its machines.
    lab.host.exec("ip", &["address", "add", "10.0.1.101/24", "dev", "h0"]);
    let others = [
        tcp("10.0.2.2:22", "10.0.1.9:40000", ACK),
        tcp("10.0.2.2:6379", "10.0.1.101:40000", ACK),
    ];
    for packet in &others {
        lab.client.inside(|| send(packet, None)).unwrap();
    }
    lab.client.inside(|| send(&stopped[0], None)).unwrap();
    lab.wait_counted("direct", stopped.len() as u64 + 1);
    assert_eq!(lab.counted("untranslated") + lab.counted("forged"), 0);

    // On wish they may answer whom they like.
    let open = CONFIG.replace("name = \"cache\"", "name = \"cache\"\ndirect = \"allow\"");
    let config = Config::parse("relevo.toml", &open).unwrap();
    lab.host.inside(|| rules::load(&config)).unwrap();
    lab.client.inside(|| send(&stopped[0], None)).unwrap();
    lab.client.inside(|| send(&stopped[2], None)).unwrap();
    lab.wait_counted("direct", stopped.len() as u64 + 2);
}

#[test]
fn the_host_itself_says_nothing_in_a_services_name() {
    let lab = Lab::loaded();
    let silenced = [
        tcp("10.0.1.100:6379", "10.0.1.1:40000", RST),
        tcp("10.0.1.100:80", "10.0.1.1:40000", RST | ACK),
        tcp("10.0.1.100:40000", "10.0.2.2:6379", RST),
        tcp("10.0.1.100:40000", "10.0.2.2:80", RST),
        unreachable(true, 6),
        tcp("[fd00:1::100]:80", "[fd00:1::1]:40000", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:6379", RST),
        tcp("[fd00:1::100]:40000", "[fd00:2::2]:80", RST),
        unreachable(false, 6),
    ];
    let passed = [
        tcp("10.0.1.100:22", "10.0.1.1:40000", RST),
        tcp("10.0.1.100:40000", "10.0.2.2:22", RST),
        tcp("10.0.1.100:6379", "10.0.1.1:40000", ACK),
        unreachable(true, 17),
        unreachable(false, 17),
    ];
    lab.host.inside(|| {
        for packet in &passed {
            send(packet, None).unwrap();
        }
        // The engine's own packets say the same, and may.
        for packet in &silenced {
            send(packet, Some(MARK)).unwrap();
        }
    });
    assert_eq!(lab.counted("silenced"), 0);
    for (sent, packet) in (1..).zip(&silenced) {
        // The sender may be told that its packet was refused.
        let _ = lab.host.inside(|| send(packet, None));
        assert_eq!(lab.counted("silenced"), sent, "{packet:02x?}");
    }
}
