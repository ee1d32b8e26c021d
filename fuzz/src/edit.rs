//! Edits in place: whatever is changed, the checksum stays as right, or as wrong, as it was (RFC 1624).

use super::packet::{assert_ip_header, error, is_right, repair};
use arbitrary::{Result, Unstructured};
use relevo::wire::{ChecksumMode, Editor, Flags, Parsed, Seq, SynKeep, Timestamps};
use std::net::{IpAddr, SocketAddr};

/// The first bytes choose the edits, the rest is the packet.
pub fn run(data: &[u8]) {
    let _ = edited(&mut Unstructured::new(data));
}

fn edited(u: &mut Unstructured<'_>) -> Result<()> {
    let (mode, repaired, edits): (u8, bool, u8) = (u.arbitrary()?, u.arbitrary()?, u.int_in_range(0..=8)?);
    let mut words = [0u32; 8];
    for word in &mut words[..usize::from(edits)] {
        *word = u.arbitrary()?;
    }
    let kinds: [u8; 8] = u.arbitrary()?;
    let mut bytes = u.bytes(u.len())?.to_vec();
    if repaired {
        repair(&mut bytes);
    }
    let Ok(parsed) = Parsed::parse(&bytes) else {
        return Ok(());
    };
    let before = error(&bytes, &parsed);
    let mode = match mode % 3 {
        0 => ChecksumMode::Complete,
        1 => ChecksumMode::Partial,
        _ => ChecksumMode::Offloaded,
    };
    let mut editor = Editor::new(&mut bytes, &parsed);
    for (kind, word) in kinds.into_iter().zip(words).take(usize::from(edits)) {
        edit(&mut editor, kind, word);
    }
    let len = editor.finish(mode);
    assert!(len <= parsed.len());
    bytes.truncate(len);
    let after = Parsed::parse(&bytes).expect("an edited packet is still one");
    assert_eq!(after.len(), len);
    assert_ip_header(&bytes);
    match mode {
        ChecksumMode::Complete => assert_eq!(
            error(&bytes, &after),
            before,
            "damage must stay visible, and nothing else"
        ),
        ChecksumMode::Partial => assert!(is_right(&bytes, &after)),
        ChecksumMode::Offloaded => {}
    }
    Ok(())
}

fn edit(editor: &mut Editor<'_>, kind: u8, word: u32) {
    let [a, b, c, d] = word.to_be_bytes();
    let (low, bit) = (u16::from_be_bytes([c, d]), |at: u32| word >> at & 1 == 1);
    let address = if kind & 0x80 == 0 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from([a, b, c, d, 0, 0, 0xff, 0xff, 0, 0, 0, 0, d, c, b, a])
    };
    match kind & 0x7f {
        0 => _ = editor.set_src(SocketAddr::new(address, low)),
        1 => _ = editor.set_dst(SocketAddr::new(address, low)),
        2 => editor.set_seq(Seq(word)),
        3 => editor.set_ack(Seq(word)),
        4 => editor.set_window(low),
        5 => editor.set_flags(Flags(d)),
        6 => editor.set_timestamps(Timestamps {
            val: word,
            ecr: word.rotate_left(7),
        }),
        7 => editor.set_mss(low),
        8 => {
            let mut block = 0;
            editor.map_sack(|left, right| {
                block += 1;
                bit(block).then_some((left.add(word), right.sub(word)))
            });
        }
        9 => editor.keep_syn_options(SynKeep {
            mss: bit(0),
            wscale: bit(1),
            sack_permitted: bit(2),
            timestamps: bit(3),
        }),
        10 => editor.clear_ecn_setup(),
        _ => editor.truncate_payload(usize::from(low)),
    }
}
