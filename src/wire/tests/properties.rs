use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// A TCP option list of any legal shape: known options at most once each, unknown ones, NOPs, perhaps rubbish behind an end.
fn option_list() -> impl Strategy<Value = Vec<u8>> {
    let item = prop_oneof![
        Just(vec![1]),
        any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        Just(vec![4, 2]),
        any::<u64>().prop_map(|both| [&[8, 10][..], &both.to_be_bytes()].concat()),
        vec(any::<[u8; 8]>(), 0..=4).prop_map(|blocks| {
            let len = u8::try_from(2 + 8 * blocks.len()).unwrap();
            [&[5, len][..], &blocks.concat()].concat()
        }),
        (20..=255u8, vec(any::<u8>(), 0..9)).prop_map(|(kind, data)| {
            let len = u8::try_from(2 + data.len()).unwrap();
            [&[kind, len][..], &data].concat()
        }),
    ];
    (vec(item, 0..8), any::<bool>()).prop_map(|(items, end)| {
        let mut list: Vec<u8> = Vec::new();
        let mut seen = Vec::new();
        for item in items {
            let known = (2..=8).contains(&item[0]);
            if list.len() + item.len() <= 40 && !(known && seen.contains(&item[0])) {
                seen.push(item[0]);
                list.extend(item);
            }
        }
        if end && !list.len().is_multiple_of(4) {
            list.extend([0, 2, 4]); // a MSS option that is behind the end
            list.truncate(list.len().min(40));
        }
        list.resize(list.len().next_multiple_of(4), 1);
        list.truncate(40);
        list
    })
}

/// The bytes in front of TCP: IPv4 with options, or IPv6 with extension headers. Lengths and checksums are still missing.
fn ip_header() -> impl Strategy<Value = Vec<u8>> {
    let v4 = (any::<[u8; 8]>(), 0..=10usize, any::<u8>()).prop_map(|(addresses, words, tos)| {
        let ihl = u8::try_from(5 + words).unwrap();
        let fixed = [0x40 | ihl, tos, 0, 0, 7, 7, 0x40, 0, 64, 6, 0, 0];
        [&fixed[..], &addresses, &[1].repeat(4 * words)].concat()
    });
    let v6 = (any::<[u8; 32]>(), vec(0..3u8, 0..=8)).prop_map(|(addresses, extensions)| {
        let fixed = [0x60, 0, 0, 0, 0, 0, if extensions.is_empty() { 6 } else { 60 }, 64];
        let mut header = [&fixed[..], &addresses].concat();
        for (i, units) in extensions.iter().enumerate() {
            let next = if i + 1 == extensions.len() { 6 } else { 60 };
            header.extend([next, *units, 1, 4 + 8 * units]);
            header.resize(header.len() + 4 + 8 * usize::from(*units), 0);
        }
        header
    });
    prop_oneof![v4, v6]
}

/// A whole packet, checksums right.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    (ip_header(), any::<[u8; 20]>(), option_list(), vec(any::<u8>(), 0..70)).prop_map(|(ip, mut tcp, list, payload)| {
        let header_len = u8::try_from(20 + list.len()).unwrap();
        tcp[12] = (header_len / 4 * 16) | (tcp[12] & 0x0f);
        let mut packet = [&ip[..], &tcp, &list, &payload].concat();
        let (at, len) = if ip[0] >> 4 == 4 {
            (2, packet.len())
        } else {
            (4, packet.len() - 40)
        };
        packet[at..at + 2].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        fix(&mut packet);
        packet
    })
}

#[derive(Clone, Debug)]
enum Edit {
    Src(SocketAddr),
    Dst(SocketAddr),
    Seq(u32),
    Ack(u32),
    Window(u16),
    Flags(u8),
    Timestamps(u32, u32),
    Mss(u16),
    /// What to add to both edges, and which blocks to keep.
    Sack(u32, [bool; 4]),
    Keep([bool; 4]),
    ClearEcn,
    Truncate(usize),
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        socket_addr().prop_map(Edit::Src),
        socket_addr().prop_map(Edit::Dst),
        any::<u32>().prop_map(Edit::Seq),
        any::<u32>().prop_map(Edit::Ack),
        any::<u16>().prop_map(Edit::Window),
        any::<u8>().prop_map(Edit::Flags),
        any::<(u32, u32)>().prop_map(|(val, ecr)| Edit::Timestamps(val, ecr)),
        any::<u16>().prop_map(Edit::Mss),
        any::<(u32, [bool; 4])>().prop_map(|(offset, keep)| Edit::Sack(offset, keep)),
        any::<[bool; 4]>().prop_map(Edit::Keep),
        Just(Edit::ClearEcn),
        (0..80usize).prop_map(Edit::Truncate),
    ]
}

impl Edit {
    fn apply(&self, editor: &mut Editor<'_>) {
        match *self {
            Self::Src(src) => _ = editor.set_src(src),
            Self::Dst(dst) => _ = editor.set_dst(dst),
            Self::Seq(seq) => editor.set_seq(Seq(seq)),
            Self::Ack(ack) => editor.set_ack(Seq(ack)),
            Self::Window(window) => editor.set_window(window),
            Self::Flags(flags) => editor.set_flags(Flags(flags)),
            Self::Timestamps(val, ecr) => editor.set_timestamps(Timestamps { val, ecr }),
            Self::Mss(mss) => editor.set_mss(mss),
            Self::Sack(offset, keep) => {
                let mut keep = keep.iter();
                editor.map_sack(|left, right| {
                    keep.next()
                        .is_some_and(|&keep| keep)
                        .then_some((left.add(offset), right.sub(offset)))
                });
            }
            Self::Keep([mss, wscale, sack_permitted, timestamps]) => {
                editor.keep_syn_options(SynKeep {
                    mss,
                    wscale,
                    sack_permitted,
                    timestamps,
                });
            }
            Self::ClearEcn => editor.clear_ecn_setup(),
            Self::Truncate(keep) => editor.truncate_payload(keep),
        }
    }

    /// What the packet should say after this edit.
    fn model(&self, packet: &mut Model) {
        let options = &mut packet.options;
        match *self {
            Self::Src(src) if src.is_ipv4() == packet.src.is_ipv4() => packet.src = src,
            Self::Dst(dst) if dst.is_ipv4() == packet.dst.is_ipv4() => packet.dst = dst,
            Self::Src(_) | Self::Dst(_) => {}
            Self::Seq(seq) => packet.seq = Seq(seq),
            Self::Ack(ack) => packet.ack = Seq(ack),
            Self::Window(window) => packet.window = window,
            Self::Flags(flags) => packet.flags = Flags(flags),
            Self::Timestamps(val, ecr) => options.timestamps = options.timestamps.map(|_| Timestamps { val, ecr }),
            Self::Mss(mss) => options.mss = options.mss.map(|_| mss),
            Self::Sack(offset, keep) => {
                let mut blocks = SackBlocks::default();
                for (&(left, right), _) in options.sack.as_slice().iter().zip(keep).filter(|(_, keep)| *keep) {
                    blocks.push(left.add(offset), right.sub(offset));
                }
                options.sack = blocks;
            }
            Self::Keep([mss, wscale, sack_permitted, timestamps]) => {
                *options = Options {
                    mss: options.mss.filter(|_| mss),
                    wscale: options.wscale.filter(|_| wscale),
                    sack_permitted: options.sack_permitted && sack_permitted,
                    timestamps: options.timestamps.filter(|_| timestamps),
                    sack: SackBlocks::default(),
                }
            }
            Self::ClearEcn => packet.flags = packet.flags.without(Flags::ECE | Flags::CWR),
            Self::Truncate(keep) => packet.payload.truncate(keep),
        }
    }
}

/// What a packet says, to compare.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    src: SocketAddr,
    dst: SocketAddr,
    seq: Seq,
    ack: Seq,
    flags: Flags,
    window: u16,
    urgent: u16,
    options: Options,
    payload: Vec<u8>,
}

fn model(bytes: &[u8]) -> Model {
    let Parsed {
        src,
        dst,
        seq,
        ack,
        flags,
        window,
        urgent,
        options,
        ..
    } = Parsed::parse(bytes).unwrap();
    let payload = Parsed::parse(bytes).unwrap().payload(bytes).to_vec();
    Model {
        src,
        dst,
        seq,
        ack,
        flags,
        window,
        urgent,
        options,
        payload,
    }
}

fn mode() -> impl Strategy<Value = ChecksumMode> {
    prop_oneof![
        Just(ChecksumMode::Complete),
        Just(ChecksumMode::Partial),
        Just(ChecksumMode::Offloaded)
    ]
}

/// How far the checksum is off the right one, in one's-complement arithmetic.
fn error(packet: &[u8]) -> u32 {
    (u32::from(checksum_field(packet)) + u32::from(!reference_checksum(packet))) % 65535
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parse_never_panics(mut bytes in vec(any::<u8>(), 0..200), version in option::of(prop_oneof![Just(0x45), Just(0x60)])) {
        if let (Some(first), Some(version)) = (bytes.first_mut(), version) {
            *first = version;
        }
        _ = Parsed::parse(&bytes);
    }

    #[test]
    fn what_parses_is_within_the_bytes(
        mut bytes in packet(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        edits in vec(edit(), 0..4),
        mode in mode(),
    ) {
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        if let Ok(parsed) = Parsed::parse(&bytes) {
            prop_assert!(parsed.len() <= bytes.len());
            prop_assert_eq!(parsed.payload(&bytes).len(), parsed.payload_len());
            _ = tcp_checksum_ok(&bytes, &parsed);
            let mut editor = Editor::new(&mut bytes, &parsed);
            edits.iter().for_each(|edit| edit.apply(&mut editor));
            let len = editor.finish(mode);
            prop_assert!(len <= parsed.len());
            prop_assert!(Parsed::parse(&bytes[..len]).is_ok());
        }
    }

    #[test]
    fn bytes_of_another_packet_are_safe(
        packet in packet(),
        mut other in vec(any::<u8>(), 0..200),
        edits in vec(edit(), 0..8),
        mode in mode(),
    ) {
        let parsed = Parsed::parse(&packet).unwrap();
        _ = tcp_checksum_ok(&other, &parsed);
        _ = parsed.payload(&other);
        let mut editor = Editor::new(&mut other, &parsed);
        edits.iter().for_each(|edit| edit.apply(&mut editor));
        editor.finish(mode);
    }

    #[test]
    fn edits_do_what_they_say_and_checksums_follow(
        mut packet in packet(),
        edits in vec(edit(), 0..8),
        complete in any::<bool>(),
    ) {
        let mut expected = model(&packet);
        edits.iter().for_each(|edit| edit.model(&mut expected));
        let parsed = Parsed::parse(&packet).unwrap();
        let mut editor = Editor::new(&mut packet, &parsed);
        edits.iter().for_each(|edit| edit.apply(&mut editor));
        let len = editor.finish(if complete { ChecksumMode::Complete } else { ChecksumMode::Partial });
        packet.truncate(len);
        prop_assert_eq!(model(&packet), expected);
        assert_checksums(&packet);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_by_as_much(mut packet in packet(), wrong in any::<u16>(), edits in vec(edit(), 0..8)) {
        let parsed = Parsed::parse(&packet).unwrap();
        let at = parsed.layout.tcp + 16;
        packet[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        let before = error(&packet);
        let mut editor = Editor::new(&mut packet, &parsed);
        edits.iter().for_each(|edit| edit.apply(&mut editor));
        let len = editor.finish(ChecksumMode::Complete);
        packet.truncate(len);
        prop_assert_eq!(error(&packet), before);
        assert_header_checksum(&packet);
    }

    #[test]
    fn an_allow_listed_syn_holds_nothing_else(mut packet in packet(), keep in any::<[bool; 4]>()) {
        let parsed = Parsed::parse(&packet).unwrap();
        let mut editor = Editor::new(&mut packet, &parsed);
        Edit::Keep(keep).apply(&mut editor);
        editor.finish(ChecksumMode::Complete);
        let list = &packet[parsed.layout.tcp + 20..parsed.layout.payload];
        let mut at = 0;
        while at < list.len() {
            let (allowed, len) = match list[at] {
                1 => (true, 1),
                2 => (keep[0], 4),
                3 => (keep[1], 3),
                4 => (keep[2], 2),
                8 => (keep[3], 10),
                _ => (false, 1),
            };
            prop_assert!(allowed, "kind {} in {:?}", list[at], list);
            at += len;
        }
    }

    #[test]
    fn what_is_built_parses_back(
        addresses in prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
            any::<([u8; 16], [u8; 16])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
        ],
        (sport, dport, seq, ack, flags) in any::<(u16, u16, u32, u32, u8)>(),
        (window, urgent) in any::<(u16, u16)>(),
        (mss, wscale, sack_permitted) in any::<(Option<u16>, Option<u8>, bool)>(),
        timestamps in any::<Option<(u32, u32)>>(),
        blocks in vec(any::<(u32, u32)>(), 0..=4),
        first in vec(any::<u8>(), 0..100),
        second in vec(any::<u8>(), 0..100),
    ) {
        let mut sack = SackBlocks::default();
        for (left, right) in blocks {
            sack.push(Seq(left), Seq(right));
        }
        let timestamps = timestamps.map(|(val, ecr)| Timestamps { val, ecr });
        let segment = Segment {
            src: SocketAddr::new(addresses.0, sport),
            dst: SocketAddr::new(addresses.1, dport),
            seq: Seq(seq),
            ack: Seq(ack),
            flags: Flags(flags),
            window,
            urgent,
            options: Options { mss, wscale, sack_permitted, timestamps, sack },
            payload: (&first, &second),
        };
        let mut packet = vec![0xee; segment.len()];
        prop_assert!(segment.write(&mut packet));
        assert_checksums(&packet);
        let built = model(&packet);
        let fitting = built.options.sack;
        prop_assert!(sack.as_slice().starts_with(fitting.as_slice()));
        prop_assert_eq!(built.options, Options { wscale: wscale.map(|shift| shift.min(14)), sack: fitting, ..segment.options });
        prop_assert_eq!((built.src, built.dst, built.seq, built.ack), (segment.src, segment.dst, segment.seq, segment.ack));
        prop_assert_eq!((built.flags, built.window, built.urgent), (segment.flags, window, urgent));
        prop_assert_eq!(built.payload, [first.clone(), second.clone()].concat());
    }
}
