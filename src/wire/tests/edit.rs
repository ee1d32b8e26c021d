use super::*;

/// Applies `edit` to a copy, finishes it as [`ChecksumMode::Complete`], and returns it cut to its length, checksums verified.
#[track_caller]
fn edited(packet: &[u8], edit: impl FnOnce(&mut Editor<'_>)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let parsed = Parsed::parse(&packet).unwrap();
    let mut editor = Editor::new(&mut packet, &parsed);
    edit(&mut editor);
    let len = editor.finish(ChecksumMode::Complete);
    packet.truncate(len);
    assert_checksums(&packet);
    packet
}

/// The option list of a packet over IPv4.
fn list_of(packet: &[u8]) -> &[u8] {
    let header = usize::from(packet[TCP_V4 + 12] >> 4) * 4;
    &packet[TCP_V4 + 20..TCP_V4 + header]
}

#[test]
fn no_edit_changes_nothing() {
    assert_eq!(edited(&SYN_V4, |_| ()), SYN_V4);
    assert_eq!(edited(&DATA_V6, |_| ()), DATA_V6);
}

#[test]
fn every_fixed_field() {
    for packet in [&SYN_V4[..], &DATA_V6[..]] {
        let (src, dst) = if packet.len() == SYN_V4.len() {
            (addr("192.168.255.1:65535"), addr("1.2.3.4:1"))
        } else {
            (addr("[fe80::ffff:1]:65535"), addr("[::ffff:1.2.3.4]:1"))
        };
        let packet = edited(packet, |editor| {
            assert!(editor.set_src(src) && editor.set_dst(dst));
            editor.set_seq(Seq(u32::MAX));
            editor.set_ack(Seq(0x8000_0000));
            editor.set_window(0xffff);
            editor.set_flags(Flags::FIN | Flags::URG);
        });
        let parsed = Parsed::parse(&packet).unwrap();
        assert_eq!((parsed.src, parsed.dst), (src, dst));
        assert_eq!((parsed.seq, parsed.ack), (Seq(u32::MAX), Seq(0x8000_0000)));
        assert_eq!((parsed.window, parsed.flags), (0xffff, Flags::FIN | Flags::URG));
    }
}

#[test]
fn golden_translation() {
    // Acknowledgement and echo move past 2^32; every byte that differs is here.
    let packet = edited(&DATA_V6, |editor| {
        editor.set_ack(Seq(u32::MAX).add(2));
        editor.set_timestamps(Timestamps {
            val: 0x10,
            ecr: 0xffff_fff1_u32.wrapping_sub(0xffff_fff0),
        });
    });
    let mut expected = DATA_V6;
    expected[TCP_V6 + 8..TCP_V6 + 12].copy_from_slice(&[0, 0, 0, 1]);
    expected[TCP_V6 + 28..TCP_V6 + 32].copy_from_slice(&[0, 0, 0, 1]);
    expected[TCP_V6 + 16..TCP_V6 + 18].copy_from_slice(&[0xb7, 0x4c]);
    assert_eq!(packet, expected);
}

#[test]
fn other_family_is_refused() {
    let packet = edited(&SYN_V4, |editor| {
        assert!(!editor.set_src(addr("[::1]:5")) && !editor.set_dst(addr("[::1]:5")));
    });
    assert_eq!(packet, SYN_V4);
    let packet = edited(&DATA_V6, |editor| {
        assert!(!editor.set_src(addr("1.1.1.1:5")) && !editor.set_dst(addr("1.1.1.1:5")));
    });
    assert_eq!(packet, DATA_V6);
}

#[test]
fn options_at_odd_offsets() {
    let packet = with_options(&[1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 180, 0]);
    let packet = edited(&packet, |editor| {
        editor.set_timestamps(Timestamps {
            val: 0xfffe_fdfc,
            ecr: 0xfbfa_f9f8,
        });
        editor.set_mss(1337);
    });
    assert_eq!(
        list_of(&packet),
        [1, 8, 10, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 2, 4, 5, 57, 0]
    );
}

#[test]
fn options_that_are_not_there_stay_away() {
    let packet = with_options(&[1, 1, 1, 1]);
    let after = edited(&packet, |editor| {
        editor.set_timestamps(Timestamps { val: 1, ecr: 2 });
        editor.set_mss(1);
        editor.map_sack(|_, _| unreachable!());
    });
    assert_eq!(after, packet);
}

/// NOP, NOP, SACK with three blocks 10-11, 20-21, 30-31, then timestamps.
const THREE_BLOCKS: [u8; 40] = [
    1, 1, 5, 26, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0, 20, 0, 0, 0, 21, 0, 0, 0, 30, 0, 0, 0, 31, //
    1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2,
];

#[test]
fn sack_blocks_are_mapped() {
    let packet = edited(&with_options(&THREE_BLOCKS), |editor| {
        editor.map_sack(|left, right| Some((left.sub(11), right.sub(11))));
    });
    let blocks = [(Seq(u32::MAX), Seq(0)), (Seq(9), Seq(10)), (Seq(19), Seq(20))];
    assert_eq!(Parsed::parse(&packet).unwrap().options.sack.as_slice(), blocks);
}

#[test]
fn sack_blocks_are_removed() {
    let packet = edited(&with_options(&THREE_BLOCKS), |editor| {
        editor.map_sack(|left, right| (left != Seq(20)).then_some((left, right)));
    });
    let expected = [
        1, 1, 5, 18, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0, 30, 0, 0, 0, 31, 1, 1, 1, 1, 1, 1, 1, 1, //
        1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2,
    ];
    assert_eq!(list_of(&packet), expected);
}

#[test]
fn sack_option_without_a_block_is_nops() {
    let packet = edited(&with_options(&THREE_BLOCKS), |editor| {
        editor.map_sack(|_, _| None);
        editor.map_sack(|_, _| unreachable!());
    });
    assert_eq!(list_of(&packet)[..28], [1; 28]);
    assert_eq!(list_of(&packet)[28..], THREE_BLOCKS[28..]);
    assert_eq!(
        list_of(&edited(&with_options(&[5, 2, 1, 1]), |editor| editor.map_sack(|_, _| None))),
        [1; 4]
    );
}

#[test]
fn sack_at_an_odd_offset() {
    let packet = with_options(&[1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0]);
    let packet = edited(&packet, |editor| {
        editor.map_sack(|left, right| (left == Seq(3)).then_some((left.sub(4), right)))
    });
    let expected = [1, 5, 10, 255, 255, 255, 255, 0, 0, 0, 4, 1, 1, 1, 1, 1, 1, 1, 1, 0];
    assert_eq!(list_of(&packet), expected);
}

const ALL: SynKeep = SynKeep {
    mss: true,
    wscale: true,
    sack_permitted: true,
    timestamps: true,
};

#[test]
fn syn_options_are_an_allow_list() {
    // R2: MSS, TFO with cookie, SACK permitted, timestamps, MPTCP, scale, end, rubbish.
    let list = [
        2, 4, 5, 180, 34, 6, 9, 9, 9, 9, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 30, 4, 9, 9, 3, 3, 7, 5, 2, 0, 9, 9, 9, 9,
    ];
    let packet = edited(&with_options(&list), |editor| editor.keep_syn_options(ALL));
    let expected = [
        2, 4, 5, 180, 1, 1, 1, 1, 1, 1, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1,
    ];
    assert_eq!(list_of(&packet), expected);
}

#[test]
fn each_syn_option_can_be_taken_out() {
    let options = Parsed::parse(&SYN_V4).unwrap().options;
    let kept = |keep| {
        Parsed::parse(&edited(&SYN_V4, |editor| editor.keep_syn_options(keep)))
            .unwrap()
            .options
    };
    assert_eq!(kept(ALL), options);
    assert_eq!(kept(SynKeep { mss: false, ..ALL }), Options { mss: None, ..options });
    assert_eq!(
        kept(SynKeep { wscale: false, ..ALL }),
        Options {
            wscale: None,
            ..options
        }
    );
    assert_eq!(
        kept(SynKeep {
            sack_permitted: false,
            ..ALL
        }),
        Options {
            sack_permitted: false,
            ..options
        }
    );
    assert_eq!(
        kept(SynKeep {
            timestamps: false,
            ..ALL
        }),
        Options {
            timestamps: None,
            ..options
        }
    );
    assert_eq!(kept(SynKeep::default()), Options::default());
}

#[test]
fn an_option_taken_out_is_not_written_to() {
    let packet = edited(&SYN_V4, |editor| {
        editor.keep_syn_options(SynKeep::default());
        editor.set_mss(5);
        editor.set_timestamps(Timestamps { val: 5, ecr: 5 });
    });
    assert_eq!(list_of(&packet), [1; 20]);
}

#[test]
fn ecn_setup_is_cleared() {
    let mut packet = SYN_V4;
    packet[TCP_V4 + 12] |= 0x0f;
    packet[TCP_V4 + 13] |= 0xc0;
    fix(&mut packet);
    let packet = edited(&packet, |editor| editor.clear_ecn_setup());
    assert_eq!(packet[TCP_V4 + 12..TCP_V4 + 14], [0xae, 0x02]);
}

#[test]
fn truncation_to_every_length() {
    let long = with_options_and_payload(&[1, 1, 1, 0], b"an odd number of bytes here");
    for (packet, payload) in [(&long[..], 27), (&DATA_V6[..], 5)] {
        for keep in 0..=payload + 1 {
            let cut = edited(packet, |editor| {
                editor.truncate_payload(keep);
                editor.truncate_payload(keep + 1);
            });
            assert_eq!(cut.len(), packet.len() - payload + keep.min(payload));
            let parsed = Parsed::parse(&cut).unwrap();
            assert_eq!(
                parsed.payload(&cut),
                &Parsed::parse(packet).unwrap().payload(packet)[..keep.min(payload)]
            );
        }
    }
}

#[test]
fn corruption_stays_visible() {
    for keep in 0..=5 {
        let mut packet = DATA_V6;
        packet[TCP_V6 + 53] ^= 0x40; // in "hello"
        let parsed = Parsed::parse(&packet).unwrap();
        let mut editor = Editor::new(&mut packet, &parsed);
        editor.set_seq(Seq(77));
        editor.truncate_payload(keep);
        let len = editor.finish(ChecksumMode::Complete);
        let parsed = Parsed::parse(&packet[..len]).unwrap();
        assert!(!tcp_checksum_ok(&packet, &parsed), "keep {keep}");
    }
}

#[test]
fn partial_checksum_is_computed_whole() {
    let mut packet = DATA_V6;
    packet[TCP_V6 + 16..TCP_V6 + 18].copy_from_slice(&[0x12, 0x34]); // some partial sum
    let parsed = Parsed::parse(&packet).unwrap();
    let mut editor = Editor::new(&mut packet, &parsed);
    editor.set_ack(Seq(99));
    editor.truncate_payload(4);
    let len = editor.finish(ChecksumMode::Partial);
    assert_eq!(len, 96);
    assert_checksums(&packet[..len]);
}

#[test]
fn offloaded_checksum_is_the_pseudo_header() {
    let mut packet = SYN_V4;
    let parsed = Parsed::parse(&packet).unwrap();
    let mut editor = Editor::new(&mut packet, &parsed);
    editor.set_dst(addr("10.0.1.101:6379"));
    assert_eq!(editor.finish(ChecksumMode::Offloaded), 60);
    // 0a00 + 0001 + 0a00 + 0165 + 0006 + 0028
    assert_eq!(packet[TCP_V4 + 16..TCP_V4 + 18], [0x15, 0x94]);
    assert_header_checksum(&packet);
}

/// A super-packet (length field 0) of 100,000 bytes made out of `packet`.
fn super_packet(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let length = if packet[0] >> 4 == 4 { 2..4 } else { 4..6 };
    packet[length].fill(0);
    packet.resize(100_000, 0x5a);
    packet
}

fn truncated(mut packet: Vec<u8>, keep: usize) -> Vec<u8> {
    let parsed = Parsed::parse(&packet).unwrap();
    let mut editor = Editor::new(&mut packet, &parsed);
    editor.truncate_payload(keep);
    let len = editor.finish(ChecksumMode::Partial);
    packet.truncate(len);
    let parsed = Parsed::parse(&packet).unwrap();
    assert_eq!((parsed.payload_len(), parsed.len()), (keep, packet.len()));
    assert!(tcp_checksum_ok(&packet, &parsed));
    packet
}

#[test]
fn super_packet_is_truncated() {
    assert_eq!(truncated(super_packet(&SYN_V4), 80_000)[2..4], [0, 0]);
    assert_eq!(truncated(super_packet(&SYN_V4), 1000)[2..4], 1060u16.to_be_bytes());
    assert_eq!(truncated(super_packet(&DATA_V6), 80_000)[4..6], [0, 0]);
    assert_eq!(truncated(super_packet(&DATA_V6), 1000)[4..6], 1052u16.to_be_bytes());
    assert_checksums(&truncated(super_packet(&DATA_V6), 1000));
}

#[test]
fn jumbo_option_follows_the_length() {
    let mut packet = super_packet(&DATA_V6);
    packet.splice(40..40, [6, 0, 0xc2, 4, 0x00, 0x01, 0x86, 0x80]);
    packet[6] = 0;
    assert_eq!(
        truncated(packet.clone(), 80_000)[40..48],
        [6, 0, 0xc2, 4, 0x00, 0x01, 0x38, 0xbc]
    );
    assert_eq!(truncated(packet, 1000)[40..48], [6, 0, 1, 4, 0, 0, 0, 0]);
}

#[test]
fn super_packet_keeps_its_checksum_right() {
    let mut packet = super_packet(&SYN_V4);
    let parsed = Parsed::parse(&packet).unwrap();
    Editor::new(&mut packet, &parsed).finish(ChecksumMode::Partial);
    let mut editor = Editor::new(&mut packet, &parsed);
    editor.set_seq(Seq(1));
    editor.truncate_payload(70_001);
    let len = editor.finish(ChecksumMode::Complete);
    packet.truncate(len);
    assert!(tcp_checksum_ok(&packet, &Parsed::parse(&packet).unwrap()));
}
