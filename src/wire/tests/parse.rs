use super::*;

/// [`DATA_V6`] with these bytes of extension headers in front of TCP.
fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut packet = DATA_V6.to_vec();
    packet.splice(TCP_V6..TCP_V6, extensions.iter().copied());
    packet[6] = first;
    let payload = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

#[track_caller]
fn assert_refused(packet: &[u8], error: ParseError) {
    assert_eq!(Parsed::parse(packet).err(), Some(error));
}

/// [`SYN_V4`] with one byte set.
fn syn_with(at: usize, value: u8) -> [u8; 60] {
    let mut packet = SYN_V4;
    packet[at] = value;
    packet
}

#[test]
fn every_field_of_a_syn_over_ipv4() {
    let syn = Parsed::parse(&SYN_V4).unwrap();
    assert_eq!((syn.src, syn.dst), (addr("10.0.0.1:40000"), addr("10.0.1.100:6379")));
    assert_eq!((syn.seq, syn.ack), (Seq(u32::MAX - 1), Seq(0)));
    assert_eq!((syn.flags, syn.window, syn.urgent), (Flags::SYN, 64240, 0));
    let options = Options {
        mss: Some(1460),
        wscale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps {
            val: 0xffff_fff0,
            ecr: 0,
        }),
        sack: SackBlocks::default(),
    };
    assert_eq!(syn.options, options);
    assert_eq!((syn.len(), syn.payload_len(), syn.seq_len()), (60, 0, 1));
    assert!(syn.payload(&SYN_V4).is_empty());
    assert_checksums(&SYN_V4);
}

#[test]
fn every_field_of_data_over_ipv6() {
    let data = Parsed::parse(&DATA_V6).unwrap();
    assert_eq!(
        (data.src, data.dst),
        (addr("[2001:db8::1]:40000"), addr("[2001:db8::64]:6379"))
    );
    assert_eq!((data.seq, data.ack), (Seq(5), Seq(u32::MAX)));
    assert_eq!(
        (data.flags, data.window, data.urgent),
        (Flags::PSH | Flags::ACK, 502, 0x1234)
    );
    assert_eq!(
        (data.options.mss, data.options.wscale, data.options.sack_permitted),
        (None, None, false)
    );
    assert_eq!(
        data.options.timestamps,
        Some(Timestamps {
            val: 0x10,
            ecr: 0xffff_fff1
        })
    );
    assert_eq!(
        data.options.sack.as_slice(),
        [(Seq(10), Seq(20)), (Seq(u32::MAX), Seq(9))]
    );
    assert_eq!((data.len(), data.payload_len(), data.seq_len()), (97, 5, 5));
    assert_eq!(data.payload(&DATA_V6), b"hello");
    assert_checksums(&DATA_V6);
}

#[test]
fn every_prefix_is_malformed() {
    for len in 0..SYN_V4.len() {
        assert_refused(&SYN_V4[..len], ParseError::Malformed);
    }
    for len in 0..DATA_V6.len() {
        assert_refused(&DATA_V6[..len], ParseError::Malformed);
    }
}

#[test]
fn bytes_behind_the_end_are_not_part_of_the_packet() {
    for packet in [&SYN_V4[..], &DATA_V6[..]] {
        let mut padded = packet.to_vec();
        padded.extend_from_slice(&[0xee; 9]);
        let parsed = Parsed::parse(&padded).unwrap();
        assert_eq!(parsed.len(), packet.len());
        assert_eq!(parsed.payload(&padded), Parsed::parse(packet).unwrap().payload(packet));
        assert!(tcp_checksum_ok(&padded, &parsed));
    }
}

#[test]
fn fin_and_syn_take_sequence_space() {
    for (flags, len) in [
        (Flags::ACK, 0),
        (Flags::FIN, 1),
        (Flags::SYN, 1),
        (Flags::SYN | Flags::FIN, 2),
    ] {
        assert_eq!(Parsed::parse(&syn_with(TCP_V4 + 13, flags.0)).unwrap().seq_len(), len);
    }
}

#[test]
fn ipv4_header_that_cannot_be() {
    assert_refused(&syn_with(0, 0x55), ParseError::Malformed); // version 5
    assert_refused(&syn_with(0, 0x44), ParseError::Malformed); // header of 16 bytes
    assert_refused(&syn_with(3, 19), ParseError::Malformed); // shorter than its header
    assert_refused(&syn_with(3, 61), ParseError::Malformed); // longer than the buffer
    assert_refused(&syn_with(3, 0), ParseError::Malformed); // 0, but no super-packet
    assert_refused(&syn_with(0, 0x4f), ParseError::Malformed); // header leaves no room for TCP
    assert_refused(&syn_with(9, 17), ParseError::NotTcp);
}

#[test]
fn ipv4_options_are_skipped() {
    let mut packet = SYN_V4.to_vec();
    packet.splice(20..20, [1, 1, 1, 0]);
    packet[0] = 0x46;
    packet[3] = 64;
    fix(&mut packet);
    let parsed = Parsed::parse(&packet).unwrap();
    assert_eq!((parsed.seq, parsed.len()), (Seq(u32::MAX - 1), 64));
    assert_checksums(&packet);
}

#[test]
fn ipv4_fragments() {
    assert_refused(&syn_with(6, 0x20), ParseError::Fragment); // more fragments
    assert_refused(&syn_with(7, 1), ParseError::Fragment); // offset 8
    assert_refused(&syn_with(6, 0x1f), ParseError::Fragment); // a high offset
    assert!(Parsed::parse(&syn_with(6, 0x00)).is_ok()); // may be fragmented, is not
}

#[test]
fn tcp_header_that_cannot_be() {
    assert_refused(&syn_with(TCP_V4 + 12, 0x40), ParseError::Malformed); // 16 bytes
    assert_refused(&syn_with(TCP_V4 + 12, 0xb0), ParseError::Malformed); // past the end
    assert_eq!(Parsed::parse(&syn_with(TCP_V4 + 12, 0x50)).unwrap().payload_len(), 20); // no options
}

#[test]
fn ipv6_length_and_protocol() {
    for (at, value, error) in [
        (5, 58, ParseError::Malformed), // longer than the buffer
        (5, 51, ParseError::Malformed), // cuts the TCP header
        (5, 0, ParseError::Malformed),  // jumbo, but no super-packet
        (6, 17, ParseError::NotTcp),
        (6, 51, ParseError::NotTcp), // AH
        (6, 59, ParseError::NotTcp), // no next header
    ] {
        let mut packet = DATA_V6;
        packet[at] = value;
        assert_refused(&packet, error);
    }
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing = [6, 0, 3, 0, 0, 0, 0, 0];
    let packet = with_extensions(0, &[&hop_by_hop[..], &destination, &routing].concat());
    let parsed = Parsed::parse(&packet).unwrap();
    assert_eq!((parsed.seq, parsed.payload(&packet)), (Seq(5), &b"hello"[..]));
    assert_checksums(&packet);
    for len in 0..packet.len() {
        assert_refused(&packet[..len], ParseError::Malformed);
    }
}

#[test]
fn ipv6_extension_headers_that_are_refused() {
    assert_refused(&with_extensions(43, &[6, 0, 3, 1, 0, 0, 0, 0]), ParseError::Malformed); // segments left
    assert_refused(&with_extensions(44, &[6, 0, 0, 1, 0, 0, 0, 1]), ParseError::Fragment);
    assert_refused(&with_extensions(44, &[6, 0, 0, 0, 0, 0, 0, 1]), ParseError::Fragment); // atomic
    assert_refused(
        &with_extensions(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]),
        ParseError::Malformed,
    );
    assert_refused(&with_extensions(60, &[6, 255, 1, 4, 0, 0, 0, 0]), ParseError::Malformed); // past the end
}

#[test]
fn ipv6_walk_is_bounded() {
    let chain = |count: usize| {
        let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        headers[8 * (count - 1)] = 6;
        with_extensions(60, &headers)
    };
    assert!(Parsed::parse(&chain(8)).is_ok());
    assert_refused(&chain(9), ParseError::Malformed);
}

#[test]
fn super_packets_have_length_zero() {
    for (packet, length) in [(&SYN_V4[..], 2..4), (&DATA_V6[..], 4..6)] {
        let mut packet = packet.to_vec();
        packet[length].fill(0);
        packet.resize(65535, 0xaa);
        assert_refused(&packet, ParseError::Malformed);
        packet.resize(150_001, 0xaa);
        let parsed = Parsed::parse(&packet).unwrap();
        assert_eq!(parsed.len(), 150_001);
        assert_eq!(parsed.payload(&packet).last(), Some(&0xaa));
    }
}

#[test]
fn options_of_every_shape() {
    let parse = |list: &[u8]| Parsed::parse(&with_options(list)).map(|parsed| parsed.options);
    let none = Options::default();
    assert_eq!(parse(&[]), Ok(none));
    assert_eq!(parse(&[1, 1, 1, 1]), Ok(none));
    assert_eq!(
        parse(&[2, 4, 0x23, 0x28]),
        Ok(Options {
            mss: Some(9000),
            ..none
        })
    );
    assert_eq!(parse(&[1, 2, 4, 1, 2, 1, 1, 1]), Ok(Options { mss: Some(258), ..none })); // at an odd offset
    assert_eq!(
        parse(&[3, 3, 14, 1]),
        Ok(Options {
            wscale: Some(14),
            ..none
        })
    );
    assert_eq!(
        parse(&[3, 3, 15, 1]),
        Ok(Options {
            wscale: Some(14),
            ..none
        })
    ); // RFC 7323 section 2.3
    assert_eq!(
        parse(&[1, 1, 4, 2]),
        Ok(Options {
            sack_permitted: true,
            ..none
        })
    );
    assert_eq!(parse(&[34, 2, 1, 1]), Ok(none)); // TFO
    assert_eq!(parse(&[30, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(none)); // MPTCP
    assert_eq!(parse(&[0, 2, 4, 9]), Ok(none)); // nothing counts behind the end of the list
    assert_eq!(parse(&[5, 2, 1, 1]), Ok(none)); // SACK without a block
    let mut four = vec![1, 1, 5, 34];
    four.extend(0..32);
    assert_eq!(parse(&four).unwrap().sack.len(), 4);
    assert_eq!(
        parse(&four).unwrap().sack.as_slice()[3],
        (Seq(0x1819_1a1b), Seq(0x1c1d_1e1f))
    );
}

#[test]
fn options_that_cannot_be() {
    for list in [
        &[2, 0, 5, 180][..],                            // length 0
        &[2, 1, 5, 180],                                // length 1
        &[253, 0, 1, 1],                                // the same of an unknown kind
        &[253, 1, 1, 1],                                //
        &[253, 5, 1, 1],                                // past the end
        &[1, 1, 1, 253],                                // no length at all
        &[2, 3, 5, 1],                                  // MSS of a wrong length
        &[3, 4, 7, 1],                                  // scale of a wrong length
        &[4, 3, 1, 1],                                  // SACK permitted of a wrong length
        &[8, 8, 0, 0, 0, 0, 0, 0],                      // timestamps of a wrong length
        &[5, 8, 0, 0, 0, 0, 0, 0],                      // a block and a half
        &[2, 4, 5, 180, 2, 4, 5, 180],                  // twice
        &[3, 3, 7, 3, 3, 7, 1, 1],                      //
        &[4, 2, 4, 2],                                  //
        &[5, 2, 5, 2],                                  //
        &[[8, 10, 0, 0, 0, 0, 0, 0, 0, 0]; 2].concat(), //
    ] {
        assert_refused(&with_options(list), ParseError::Malformed);
    }
}

#[test]
fn sack_blocks_are_bounded() {
    let mut blocks = SackBlocks::default();
    assert!(blocks.is_empty());
    for i in 0..4 {
        assert!(blocks.push(Seq(i), Seq(i + 1)));
    }
    assert!(!blocks.push(Seq(9), Seq(10)));
    assert_eq!((blocks.len(), blocks.as_slice()[3]), (4, (Seq(3), Seq(4))));
}

#[test]
fn checksum_of_the_wrong_bytes_is_not_ok() {
    let parsed = Parsed::parse(&DATA_V6).unwrap();
    for at in 8..DATA_V6.len() {
        let mut packet = DATA_V6;
        packet[at] ^= 0x10;
        assert!(!tcp_checksum_ok(&packet, &parsed), "byte {at}");
    }
    assert!(!tcp_checksum_ok(&DATA_V6[..50], &parsed));
    assert!(!tcp_checksum_ok(&[], &parsed));
}
