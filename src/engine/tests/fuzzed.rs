//! What the fuzzer found (`make fuzz`), told as dialogues. The inputs themselves are in `fuzz/seeds/engine`.

use super::*;

#[test]
fn a_repeated_syn_ack_acknowledges_nothing_but_the_syn() {
    let mut t = Talk::established(1);
    let again = |ack| Say {
        flags: Flags::SYN,
        ack: Some(ack),
        ..Say::default()
    };
    for beyond in [2, 70_000, 0, -5] {
        assert_eq!(t.machine(0, again(beyond)), Verdict::Drop(DropReason::Implausible));
    }
    assert!(t.client_heard().is_empty());
    assert!(matches!(t.machine(0, again(1)), Verdict::Accept { .. }));
}
