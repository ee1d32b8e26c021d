//! R3 with super-packets: what may leave together, and what is sent again of it. All positions are beyond the wrap but for the first few.

use super::*;

/// Payload of a full segment: the MSS less the timestamps.
const FULL: i64 = 1_448;

/// A client, an original and one replica, which has opened a window of `window` bytes at least.
fn table(window: i64) -> Talk {
    let mut t = Talk::with(
        EngineSpec {
            super_packets: true,
            ..spec(2)
        },
        true,
    );
    t.shake_hands(2);
    // The client may send as much as the lesser window holds (R5).
    t.machine(1, with_window(1, window));
    t.machine(0, with_window(1, 1 << 20));
    t.hush();
    t
}

/// A replica's acknowledgement, with its window in the scale of 7.
fn with_window(ack: i64, window: i64) -> Say<'static> {
    Say {
        at: 1,
        ack: Some(ack),
        window: u16::try_from(window >> 7).expect("a window"),
        ..Say::default()
    }
}

/// What the client says: each byte from its position.
fn bytes(at: i64, len: i64) -> Vec<u8> {
    (at..at + len).map(|p| u8::try_from(p % 251).expect("small")).collect()
}

/// Position, length and FIN of what the replica was sent, after a look at the bytes.
fn sent(t: &mut Talk) -> Vec<(i64, i64, bool)> {
    let heard = t.machine_heard(1);
    let one = |h: Heard| {
        let len = pos::span(h.data.len());
        assert_eq!(h.data, bytes(h.at, len), "at {}", h.at);
        (h.at, len, h.flags.contains(Flags::FIN))
    };
    heard.into_iter().map(one).collect()
}

fn upload(t: &mut Talk, at: i64, len: i64, flags: Flags) {
    let data = bytes(at, len);
    t.client(Say {
        flags,
        ..words(at, 1, &data)
    });
}

#[test]
fn what_the_windows_allow_leaves_together() {
    let mut t = table(1 << 20);
    upload(&mut t, 1, 5 * FULL + 7, Flags::default());
    assert_eq!(sent(&mut t), [(1, 5 * FULL + 7, false)]);
    assert_eq!(
        [Counter::SuperPackets, Counter::SuperSegments].map(|c| t.engine.stats().get(c)),
        [1, 6]
    );
    // The congestion window of ten segments (RFC 6928), of which five and a bit are under way.
    upload(&mut t, 1 + 5 * FULL + 7, 20 * FULL, Flags::default());
    assert_eq!(sent(&mut t), [(1 + 5 * FULL + 7, 4 * FULL, false)]);
}

#[test]
fn one_segment_goes_as_ever() {
    let mut t = table(1 << 20);
    upload(&mut t, 1, FULL, Flags::default());
    assert_eq!(sent(&mut t), [(1, FULL, false)]);
    assert_eq!(t.engine.stats().get(Counter::SuperPackets), 0);
}

#[test]
fn the_fin_comes_last_or_after() {
    for len in [4 * FULL, 3 * FULL + 5] {
        let mut t = table(1 << 20);
        upload(&mut t, 1, len, Flags::FIN);
        let heard = sent(&mut t);
        assert_eq!(heard.iter().map(|s| s.1).sum::<i64>(), len);
        assert!(
            heard[0].1 > 2 * FULL && heard.iter().filter(|s| s.2).count() == 1,
            "{heard:?}"
        );
        assert!(heard.last().is_some_and(|s| s.2), "{heard:?}");
    }
    let mut t = table(1 << 20);
    upload(&mut t, 1, 4 * FULL, Flags::default());
    upload(&mut t, 1 + 4 * FULL, 0, Flags::FIN);
    assert_eq!(sent(&mut t), [(1, 4 * FULL, false), (1 + 4 * FULL, 0, true)]);
}

#[test]
fn a_segment_lost_within_is_sent_again_alone() {
    let mut t = table(1 << 20);
    upload(&mut t, 1, 8 * FULL, Flags::default());
    assert_eq!(sent(&mut t), [(1, 8 * FULL, false)]);
    // The third is lost; five more arrive.
    let lost = 1 + 2 * FULL;
    t.machine(1, with_window(lost, 1 << 17));
    for _ in 0..3 {
        assert_eq!(sent(&mut t), []);
        t.machine(1, with_window(lost, 1 << 17));
    }
    assert_eq!(sent(&mut t), [(lost, FULL, false)]);
    t.machine(1, with_window(1 + 8 * FULL, 1 << 17));
    t.wait(SECOND);
    assert_eq!(sent(&mut t), []);
    assert_eq!(t.engine.stats().get(Counter::Retransmissions), 1);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_one_by_one() {
    let mut t = table(1 << 20);
    upload(&mut t, 1, 8 * FULL, Flags::default());
    t.hush();
    t.wait(150 * MS);
    let again = sent(&mut t);
    assert!(!again.is_empty() && again.iter().all(|s| s.1 == FULL), "{again:?}");
}

#[test]
fn urgent_data_never_leaves_together() {
    let mut t = table(1 << 20);
    let data = bytes(1, 3 * FULL);
    let segment = Segment {
        src: client(),
        dst: psc(),
        seq: pos::seq_of(CLIENT_ISN, 1),
        ack: pos::seq_of(ISN[0], 1),
        flags: Flags::ACK | Flags::URG,
        window: 1_000,
        urgent: u16::try_from(2 * FULL).expect("small"),
        options: Options {
            timestamps: Some(Timestamps {
                val: CLIENT_CLOCK,
                ecr: CLOCK[0],
            }),
            ..Options::default()
        },
        payload: (&data, &[]),
    };
    let mut packet = vec![0; segment.len()];
    assert!(segment.write(&mut packet));
    assert!(matches!(
        t.engine.handle_packet(t.now, Meta::default(), &mut packet),
        Verdict::Accept { .. }
    ));
    t.poll();
    let full = [0, 1, 2].map(|i| (1 + i * FULL, FULL, false));
    assert_eq!(sent(&mut t), full);
}

#[test]
fn a_host_that_can_cut_no_longer_gets_segments() {
    let mut t = table(1 << 20);
    t.engine.stop_super_packets();
    upload(&mut t, 1, 2 * FULL, Flags::default());
    assert_eq!(sent(&mut t), [(1, FULL, false), (1 + FULL, FULL, false)]);
}

/// The replica has lost all that came at once: it has what was sent by itself.
#[test]
fn where_super_packets_never_arrive_single_segments_go_on() {
    let mut t = table(1 << 20);
    let mut at = 1;
    for round in 1..=4 {
        upload(&mut t, at, 3 * FULL, Flags::default());
        // After a loss the congestion window is small, but for more than one segment.
        assert!(
            matches!(sent(&mut t)[..], [(from, len, _), ..] if from == at && len > FULL),
            "round {round}"
        );
        // Its end is tried again by itself, and its beginning after the timeout; then the rest.
        let (begin, end) = (at, at + 3 * FULL);
        t.machine(0, with_window(end, 1 << 20));
        while at < end {
            t.wait(10 * MS);
            for (from, len, _) in sent(&mut t) {
                assert!(len <= FULL);
                at = if from == at { at + len } else { at };
            }
            if at > begin {
                t.machine(1, with_window(at, 1 << 20));
            }
        }
        t.hush();
    }
    assert_eq!(t.engine.stats().get(Counter::SuperPacketPauses), 1);
    let lost = |e: &Event| matches!(e, Event::SuperPacketsLost { machine } if *machine == machine_ref(1));
    assert!(std::iter::from_fn(|| t.engine.take_event()).any(|e| lost(&e)));
    upload(&mut t, at, 3 * FULL, Flags::default());
    let alone = sent(&mut t);
    assert!(
        alone.len() > 1 && alone.iter().all(|(_, len, _)| *len <= FULL),
        "{alone:?}"
    );
}
