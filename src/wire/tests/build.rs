use super::*;

fn segment<'a>(src: &str, dst: &str) -> Segment<'a> {
    Segment {
        src: addr(src),
        dst: addr(dst),
        seq: Seq(0),
        ack: Seq(0),
        flags: Flags::ACK,
        window: 0,
        urgent: 0,
        options: Options::default(),
        payload: (&[], &[]),
    }
}

#[track_caller]
fn written(segment: &Segment<'_>) -> Vec<u8> {
    let mut out = vec![0xee; segment.len()];
    assert!(segment.write(&mut out));
    assert_checksums(&out);
    out
}

fn blocks(count: u32) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    for i in 0..count {
        blocks.push(Seq(10 * i), Seq(10 * i + 5));
    }
    blocks
}

#[test]
fn golden_syn_over_ipv4() {
    let mut syn = segment("10.0.0.1:40000", "10.0.1.100:6379");
    syn.seq = Seq(u32::MAX - 1);
    syn.flags = Flags::SYN;
    syn.window = 64240;
    syn.options = Parsed::parse(&SYN_V4).unwrap().options;
    let mut expected = SYN_V4;
    expected[4..6].fill(0); // id
    fix(&mut expected);
    assert_eq!(written(&syn), expected);
}

#[test]
fn golden_data_over_ipv6() {
    let mut data = segment("[2001:db8::1]:40000", "[2001:db8::64]:6379");
    data.seq = Seq(5);
    data.ack = Seq(u32::MAX);
    data.flags = Flags::PSH | Flags::ACK;
    data.window = 502;
    data.urgent = 0x1234;
    data.options = Parsed::parse(&DATA_V6).unwrap().options;
    for cut in 0..=5 {
        data.payload = b"hello".split_at(cut);
        assert_eq!(written(&data), DATA_V6);
    }
}

#[test]
fn options_are_laid_out_as_by_linux() {
    let none = Options::default();
    let timestamps = Some(Timestamps { val: 1, ecr: 2 });
    for (options, list) in [
        (none, &[][..]),
        (Options { mss: Some(536), ..none }, &[2, 4, 2, 24]),
        (
            Options {
                wscale: Some(9),
                ..none
            },
            &[1, 3, 3, 9],
        ),
        (
            Options {
                wscale: Some(99),
                ..none
            },
            &[1, 3, 3, 14],
        ),
        (
            Options {
                sack_permitted: true,
                ..none
            },
            &[1, 1, 4, 2],
        ),
        (Options { timestamps, ..none }, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        (
            Options {
                timestamps,
                sack_permitted: true,
                ..none
            },
            &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        ),
        (
            Options {
                sack: blocks(1),
                ..none
            },
            &[1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 5],
        ),
    ] {
        let mut segment = segment("1.1.1.1:1", "2.2.2.2:2");
        segment.options = options;
        assert_eq!(&written(&segment)[40..], list);
        assert_eq!(header_len(segment.src.ip(), &options), 40 + list.len());
    }
}

#[test]
fn as_many_sack_blocks_as_fit() {
    let none = Options {
        sack: blocks(4),
        ..Options::default()
    };
    let timestamps = Some(Timestamps { val: 1, ecr: 2 });
    for (options, fitting) in [
        (none, 4),
        (Options { timestamps, ..none }, 3),
        (
            Options {
                timestamps,
                mss: Some(1),
                wscale: Some(1),
                ..none
            },
            2,
        ),
        (
            Options {
                timestamps,
                mss: Some(1),
                wscale: Some(1),
                sack_permitted: true,
                ..none
            },
            2,
        ),
    ] {
        let mut segment = segment("1.1.1.1:1", "2.2.2.2:2");
        segment.options = options;
        let packet = written(&segment);
        let expected = Options {
            sack: blocks(fitting),
            ..options
        };
        assert_eq!(Parsed::parse(&packet).unwrap().options, expected);
    }
}

#[test]
fn odd_payloads_split_anywhere() {
    let bytes = b"seventeen bytes !";
    for len in 0..=bytes.len() {
        for cut in 0..=len {
            let mut segment = segment("[::1]:1", "[::2]:2");
            segment.payload = bytes[..len].split_at(cut);
            let packet = written(&segment);
            assert_eq!(Parsed::parse(&packet).unwrap().payload(&packet), &bytes[..len]);
        }
    }
}

#[test]
fn refuses_without_writing() {
    let long = vec![0; 65536];
    let mut too_long_v4 = segment("1.1.1.1:1", "2.2.2.2:2");
    too_long_v4.payload = (&long[..65535 - 39], &[]);
    let mut too_long_v6 = segment("[::1]:1", "[::2]:2");
    too_long_v6.payload = (&long[..65535 - 19], &[]);
    for refused in [
        segment("1.1.1.1:1", "[::2]:2"),
        segment("[::1]:1", "2.2.2.2:2"),
        too_long_v4,
        too_long_v6,
    ] {
        let mut out = vec![0xee; refused.len()];
        assert!(!refused.write(&mut out));
        assert!(out.iter().all(|&byte| byte == 0xee));
    }
    let segment = segment("1.1.1.1:1", "2.2.2.2:2");
    let mut out = [0xee; 39];
    assert!(!segment.write(&mut out));
    assert_eq!(out, [0xee; 39]);
}

#[test]
fn longest_packets() {
    let long = vec![0xa5; 65536];
    let mut v4 = segment("1.1.1.1:1", "2.2.2.2:2");
    v4.payload = (&long[..65535 - 40], &[]);
    assert_eq!(written(&v4).len(), 65535);
    let mut v6 = segment("[::1]:1", "[::2]:2");
    v6.payload = (&long[..65535 - 20], &[]);
    assert_eq!(written(&v6).len(), 65575);
}

#[test]
fn a_longer_buffer_keeps_its_rest() {
    let segment = segment("1.1.1.1:1", "2.2.2.2:2");
    let mut out = [0xee; 50];
    assert!(segment.write(&mut out));
    assert_eq!(out[40..], [0xee; 10]);
}
