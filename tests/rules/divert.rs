//! What goes to the queues, and to which.

use std::io::ErrorKind;
use std::net::TcpStream;

use nfq::Verdict;

use super::lab::{Lab, receive};
use super::packet::{fragment, send, tcp};
use super::{ACK, SYN};

#[test]
fn both_directions_of_a_flow_come_to_one_queue() {
    let lab = Lab::loaded();
    let mut queue = lab.listen();
    for (client, psc, machine, peer) in [
        ("10.0.1.1", "10.0.1.100:6379", "10.0.2.2:6379", "10.0.1.100"),
        ("10.0.1.1", "10.0.1.100:6379", "10.0.2.3:6380", "10.0.1.100"),
        ("10.0.1.1", "10.0.1.100:80", "10.0.2.2:80", "10.0.9.9"),
        ("[fd00:1::1]", "[fd00:1::100]:6379", "[fd00:2::2]:6379", "[fd00:1::100]"),
        ("[fd00:1::1]", "[fd00:1::100]:80", "[fd00:2::2]:80", "[fd00:9::9]"),
    ] {
        let mut packets = Vec::new();
        let mut expected = Vec::new();
        for port in (40_000..40_008u16).step_by(2) {
            packets.push(tcp(&format!("{client}:{port}"), psc, SYN));
            // A machine's packet, from where the client is: the rules don't look at interfaces.
            packets.push(tcp(machine, &format!("{peer}:{port}"), SYN | ACK));
            expected.extend([8 + (port >> 1 & 3); 2]);
        }
        if peer.ends_with('9') || peer.ends_with("9]") {
            lab.client_route(peer);
        }
        let mut seen = lab.queued(&mut queue, &packets, Verdict::Drop);
        seen.sort_unstable();
        assert_eq!(seen, expected, "{machine}");
    }
}

#[test]
fn malformed_tcp_is_diverted_too_and_other_traffic_is_not() {
    let lab = Lab::loaded();
    let mut flags = tcp("10.0.1.1:40000", "10.0.1.100:6379", 0xff);
    // A data offset of 0.
    flags[32] = 0;
    let mut short = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
    short.truncate(28);
    assert_eq!(lab.queued(&mut lab.listen(), &[flags, short], Verdict::Drop).len(), 2);
    // Another port of the same address is the host's own.
    let refused = lab.client.inside(|| TcpStream::connect("10.0.1.100:22")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(lab.counted("silenced") + lab.counted("untranslated"), 0);
}

#[test]
fn counters_and_queued_packets_survive_a_reload() {
    let lab = Lab::loaded();
    let packet = fragment(tcp("10.0.1.1:40000", "10.0.1.100:6379", ACK), 0);
    lab.client.inside(|| send(&packet, None)).unwrap();
    lab.wait_counted("fragments", 1);
    let mut queue = lab.listen();
    let packet = tcp("10.0.1.1:40000", "10.0.1.100:6379", SYN);
    lab.client.inside(|| send(&packet, None)).unwrap();
    let mut held = receive(&mut queue).unwrap();
    // Deleting a base chain would drop what is held here; a reload must not.
    lab.load();
    held.set_verdict(Verdict::Accept);
    queue.verdict(held).unwrap();
    lab.wait_counted("untranslated", 1);
    assert_eq!(lab.counted("fragments"), 1);
}
