//! The dialogue over IPv4, byte for byte.

use super::Fate::{Down, Goes, Stays};
use super::Step;
use crate::engine::DropReason;

/// The conversation over IPv4.
pub const OVER_IPV4: &[Step] = &[
    Step {
        about: "SYN: MSS, SACK, TS and scale pass; TFO, MPTCP, an unknown option, ECE, CWR and data do not (R2)",
        says: "45100054 11014000 3f061429 0a000107 0a000164 | 9c4118eb ffffffe2 00000000 f0c2ffff 42fc0000
               020405b4 220a0011 22334455 66770402 080affff fffd0000 00000303 021e0401 81fd04f9 89010101 | 74666f21",
        verdict: Goes(
            "45100050 11014000 3f061332 0a000164 0a000202 | 9c4118eb ffffffe2 00000000 f002ffff 20750000
             020405b4 01010101 01010101 01010402 080affff fffd0000 00000303 02010101 01010101 01010101",
        ),
        then: &[],
    },
    Step {
        about: "SYN/ACK: MSS as every path carries it (R5); scale and window pass; a TFO cookie and ECE do not",
        says: "45100044 11024000 3f06133d 0a000202 0a000164 | 18eb9c41 ffffffe8 ffffffe3 c052fa00 d8c00000
               020405b4 0402080a fffffffe fffffffd 01030303 2206a1b2 c3d40101",
        verdict: Goes(
            "45100044 11024000 3f061438 0a000164 0a000107 | 18eb9c41 ffffffe8 ffffffe3 c012fa00 5eea0000
             02040550 0402080a fffffffe fffffffd 01030303 01010101 01010101",
        ),
        then: &[],
    },
    Step {
        about: "MSS and scale in the SYN to a replica: the client's, in the numbering of the client (R1)",
        says: "45100034 11034000 3f061447 0a000107 0a000164 | 9c4118eb ffffffe3 ffffffe9 80104074 6ae60000
               0101080a fffffffe fffffffe",
        verdict: Goes(
            "45100034 11034000 3f06134c 0a000164 0a000202 | 9c4118eb ffffffe3 ffffffe9 80104074 69eb0000
             0101080a fffffffe fffffffe",
        ),
        then: &[
            "4500003c 00004000 40062356 0a000164 0a000203 | 9c4118eb ffffffe2 00000000 a002ffff 7b900000
             020405b4 0402080a fffffffe 00000000 01030302",
        ],
    },
    Step {
        about: "ack, engine to replica: ISN_1 + 1; TSval the latest of the client, TSecr by the clock of m1",
        says: "4510003c 11044000 3f061342 0a000203 0a000164 | 18eb9c41 ffffffc4 ffffffe3 a012fde8 7dfd0000
               020405b4 0402080a ffffffce fffffffe 01030307",
        verdict: Stays(DropReason::Replica),
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb ffffffe3 ffffffc5 80104074 6a3e0000
             0101080a fffffffe ffffffce",
        ],
    },
    Step {
        about: "seq, client to machine: unchanged, also to the replica; the timestamps lie at an odd offset",
        says: "45100048 11054000 3f061431 0a000107 0a000164 | 9c4118eb ffffffe3 ffffffe9 80184074 ff400000
               01080aff ffffffff fffffe01 | 47455420 2f612048 5454502f 312e300d 0a486f73",
        verdict: Goes(
            "45100048 11054000 3f061336 0a000164 0a000202 | 9c4118eb ffffffe3 ffffffe9 80184074 fe450000
             01080aff ffffffff fffffe01 | 47455420 2f612048 5454502f 312e300d 0a486f73",
        ),
        then: &[
            "45000048 00004000 4006234a 0a000164 0a000203 | 9c4118eb ffffffe3 ffffffc5 80184074 ff970000
             0101080a ffffffff ffffffce | 47455420 2f612048 5454502f 312e300d 0a486f73",
        ],
    },
    Step {
        about: "ack, machine to client: clipped to 1; window: the edge stays, so the field grows by 2",
        says: "45100034 11064000 3f061349 0a000202 0a000164 | 18eb9c41 ffffffe9 fffffff7 80101f40 8b090000
               0101080a ffffffff ffffffff",
        verdict: Goes(
            "45100034 11064000 3f061444 0a000164 0a000107 | 18eb9c41 ffffffe9 ffffffe3 80101f42 8c160000
             0101080a ffffffff ffffffff",
        ),
        then: &[],
    },
    Step {
        about: "ack, engine to client: the new minimum at once (R6), with TSval of the original and the echoed TSecr",
        says: "45100034 11074000 3f061347 0a000203 0a000164 | 18eb9c41 ffffffc5 fffffff7 801003e8 a6b00000
               0101080a ffffffd3 ffffffff",
        verdict: Stays(DropReason::Replica),
        then: &[
            "45000034 00004000 4006245a 0a000164 0a000107 | 18eb9c41 ffffffe9 fffffff7 80101f40 8c040000
             0101080a ffffffff ffffffff",
        ],
    },
    Step {
        about: "seq, machine to client: ISN_0 + v; TSval wraps to 0; TSecr unchanged; oddly placed",
        says: "4510003e 11084000 3f06133d 0a000202 0a000164 | 18eb9c41 ffffffe9 fffffff7 80182328 80070000
               01080a00 000000ff ffffff01 | 30313233 34353637 3839",
        verdict: Goes(
            "4510003e 11084000 3f061438 0a000164 0a000107 | 18eb9c41 ffffffe9 fffffff7 80182328 81020000
             01080a00 000000ff ffffff01 | 30313233 34353637 3839",
        ),
        then: &[],
    },
    Step {
        about: "window, client to machine: unchanged; to the replica, which is told less, kept within 16 bits",
        says: "45100034 11094000 3f061441 0a000107 0a000164 | 9c4118eb fffffff7 fffffff3 8010ffff ab3a0000
               0101080a 00000000 00000000",
        verdict: Goes(
            "45100034 11094000 3f061346 0a000164 0a000202 | 9c4118eb fffffff7 fffffff3 8010ffff aa3f0000
             0101080a 00000000 00000000",
        ),
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb fffffff7 ffffffc5 8010ffff aa980000
             0101080a 00000000 ffffffd3",
        ],
    },
    Step {
        about: "ack, engine to replica: min(11 acked by the client, 5 sent by m1); window within 16 bits",
        says: "45100038 110a4000 3f061340 0a000203 0a000164 | 18eb9c41 ffffffc5 fffffff7 801803e8 443b0000
               0101080a ffffffd8 00000000 | 30313233",
        verdict: Stays(DropReason::Replica),
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb fffffff7 ffffffc9 8010ffff aa8f0000
             0101080a 00000000 ffffffd8",
        ],
    },
    Step {
        about: "ack, engine to replica: min(11 acked by the client, 21 sent by m1)",
        says: "45100044 110b4000 3f061333 0a000203 0a000164 | 18eb9c41 ffffffc9 fffffff7 801803e8 08e50000
               0101080a ffffffdd 00000000 | 34353637 38396162 63646566 6768696a",
        verdict: Stays(DropReason::Replica),
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb fffffff7 ffffffcf 8010ffff aa840000
             0101080a 00000000 ffffffdd",
        ],
    },
    Step {
        about: "TSval and TSecr, client to machine: both past the wrap",
        says: "45100039 110c4000 3f061439 0a000107 0a000164 | 9c4118eb fffffff7 fffffff3 8018ffff 5b440000
               0101080a 00000001 00000000 | 71756572 79",
        verdict: Goes(
            "45100039 110c4000 3f06133e 0a000164 0a000202 | 9c4118eb fffffff7 fffffff3 8018ffff 5a490000
             0101080a 00000001 00000000 | 71756572 79",
        ),
        then: &[
            "45000039 00004000 40062359 0a000164 0a000203 | 9c4118eb fffffff7 ffffffcf 8018ffff 5a8e0000
             0101080a 00000001 ffffffdd | 71756572 79",
        ],
    },
    Step {
        about: "ack of a replica: nothing is said, for the original is not so far",
        says: "45100034 110d4000 3f061341 0a000203 0a000164 | 18eb9c41 ffffffd9 fffffffc 801003e8 a6870000
               0101080a ffffffe2 00000001",
        verdict: Stays(DropReason::Replica),
        then: &[],
    },
    Step {
        about: "ack, machine to client: all machines have 26",
        says: "4510003e 110e4000 3f061337 0a000202 0a000164 | 18eb9c41 fffffff3 fffffffc 80182328 8bfe0000
               0101080a 00000001 00000001 | 61626364 65666768 696a",
        verdict: Goes(
            "4510003e 110e4000 3f061432 0a000164 0a000107 | 18eb9c41 fffffff3 fffffffc 80182328 8cf90000
             0101080a 00000001 00000001 | 61626364 65666768 696a",
        ),
        then: &[],
    },
    Step {
        about: "seq, machine to client: wraps inside the segment",
        says: "4510003e 110f4000 3f061336 0a000202 0a000164 | 18eb9c41 fffffffd fffffffc 80182328 59c20000
               0101080a 00000001 00000001 | 6b6c6d6e 6f707172 7374",
        verdict: Goes(
            "4510003e 110f4000 3f061431 0a000164 0a000107 | 18eb9c41 fffffffd fffffffc 80182328 5abd0000
             0101080a 00000001 00000001 | 6b6c6d6e 6f707172 7374",
        ),
        then: &[],
    },
    Step {
        about: "SACK, client to machine, offsets zero: unchanged; the block crosses the wrap",
        says: "45100040 11104000 3f06142e 0a000107 0a000164 | 9c4118eb fffffffc fffffff3 b010ffff 75180000
               0101080a 00000001 00000000 0101050a fffffffd 00000007",
        verdict: Goes(
            "45100040 11104000 3f061333 0a000164 0a000202 | 9c4118eb fffffffc fffffff3 b010ffff 741d0000
             0101080a 00000001 00000000 0101050a fffffffd 00000007",
        ),
        then: &[],
    },
    Step {
        about: "seq and ack, client to machine: both wrap; the replica is told min(31, 21)",
        says: "4510003c 11114000 3f061431 0a000107 0a000164 | 9c4118eb fffffffe 00000007 8018ffff d6340000
               0101080a 00000002 00000001 | 32333435 36373839",
        verdict: Goes(
            "4510003c 11114000 3f061336 0a000164 0a000202 | 9c4118eb fffffffe 00000007 8018ffff d5390000
             0101080a 00000002 00000001 | 32333435 36373839",
        ),
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb fffffffc ffffffd9 8010ffff aa6e0000
             0101080a 00000002 ffffffe2",
        ],
    },
    Step {
        about: "SACK, machine to client: unchanged (u) across the wrap; a genuine duplicate ACK passes (R6)",
        says: "45100040 11124000 3f061331 0a000202 0a000164 | 18eb9c41 00000007 fffffffc b0102328 50e00000
               0101080a 00000002 00000001 0101050a fffffffe 00000006",
        verdict: Goes(
            "45100040 11124000 3f06142c 0a000164 0a000107 | 18eb9c41 00000007 fffffffc b0102328 51db0000
             0101080a 00000002 00000001 0101050a fffffffe 00000006",
        ),
        then: &[],
    },
    Step {
        about: "seq, client to machine: the hole is filled; the replica waits for its own output (R23)",
        says: "45100036 11134000 3f061435 0a000107 0a000164 | 9c4118eb fffffffc 00000007 8018ffff 7ae20000
               0101080a 00000003 00000002 | 3031",
        verdict: Goes(
            "45100036 11134000 3f06133a 0a000164 0a000202 | 9c4118eb fffffffc 00000007 8018ffff 79e70000
             0101080a 00000003 00000002 | 3031",
        ),
        then: &[],
    },
    Step {
        about: "seq, engine to replica: the same u in one piece, across the wrap; ack in the numbering of the replica",
        says: "4510003e 11144000 3f061330 0a000203 0a000164 | 18eb9c41 ffffffd9 fffffffc 801803e8 793d0000
               0101080a ffffffe7 00000002 | 6b6c6d6e 6f707172 7374",
        verdict: Stays(DropReason::Replica),
        then: &[
            "4500003e 00004000 40062354 0a000164 0a000203 | 9c4118eb fffffffc ffffffe3 8018ffff a5420000
             0101080a 00000003 ffffffe7 | 30313233 34353637 3839",
        ],
    },
    Step {
        about: "seq, client to machine: beyond a new hole, past the wrap",
        says: "45100038 11154000 3f061431 0a000107 0a000164 | 9c4118eb 0000000a 00000007 8018ffff ba100000
               0101080a 00000004 00000002 | 7778797a",
        verdict: Goes(
            "45100038 11154000 3f061336 0a000164 0a000202 | 9c4118eb 0000000a 00000007 8018ffff b9150000
             0101080a 00000004 00000002 | 7778797a",
        ),
        then: &[],
    },
    Step {
        about: "SACK, ack clipped from 36 to 26 (R8): the D-SACK block 28..36 goes, the block 40..44 stays",
        says: "4510004c 11164000 3f061321 0a000202 0a000164 | 18eb9c41 00000007 00000006 d0182328 43b10000
               0101080a 00000003 00000003 01010512 fffffffe 00000006 0000000a 0000000e | 75767778",
        verdict: Goes(
            "4510004c 11164000 3f06141c 0a000164 0a000107 | 18eb9c41 00000007 fffffffc d0182329 40bd0000
             0101080a 00000003 00000003 0101050a 0000000a 0000000e 01010101 01010101 | 75767778",
        ),
        then: &[],
    },
    Step {
        about: "SACK, engine to client: the ACK that the replica releases repeats the block above it",
        says: "45100034 11174000 3f061337 0a000203 0a000164 | 18eb9c41 ffffffe3 00000006 801003e8 a6680000
               0101080a ffffffec 00000003",
        verdict: Stays(DropReason::Replica),
        then: &[
            "45000040 00004000 4006244e 0a000164 0a000107 | 18eb9c41 0000000b 00000006 b0102328 51b80000
             0101080a 00000003 00000003 0101050a 0000000a 0000000e",
        ],
    },
    Step {
        about: "ack, client to machine: past the wrap",
        says: "45100038 11184000 3f06142e 0a000107 0a000164 | 9c4118eb 00000006 0000000b 8018ffff c2160000
               0101080a 00000005 00000003 | 73747576",
        verdict: Goes(
            "45100038 11184000 3f061333 0a000164 0a000202 | 9c4118eb 00000006 0000000b 8018ffff c11b0000
             0101080a 00000005 00000003 | 73747576",
        ),
        then: &[],
    },
    Step {
        about: "seq, engine to replica: past the wrap, the island with it; ack: min(35, 45)",
        says: "45100042 11194000 3f061327 0a000203 0a000164 | 18eb9c41 ffffffe3 00000006 801803e8 5efe0000
               0101080a fffffff1 00000004 | 75767778 41424344 45464748 494a",
        verdict: Stays(DropReason::Replica),
        then: &[
            "4500003c 00004000 40062356 0a000164 0a000203 | 9c4118eb 00000006 ffffffe7 8018ffff d0570000
             0101080a 00000005 fffffff1 | 73747576 7778797a",
        ],
    },
    Step {
        about: "ack of a replica that is ahead of the original: nothing is said",
        says: "45100034 111a4000 3f061334 0a000203 0a000164 | 18eb9c41 fffffff1 0000000e 801003e8 a6460000
               0101080a fffffff6 00000005",
        verdict: Stays(DropReason::Replica),
        then: &[],
    },
    Step {
        about: "takeover: seq and ack of what was cached, as the client numbers; TSval goes on (offset 13)",
        says: "",
        verdict: Down,
        then: &[
            "45000034 00004000 4006235e 0a000164 0a000203 | 9c4118eb 0000000e ffffffe7 8010ffff aa380000
             0101080a 00000005 fffffff6",
            "4500003e 00004000 40062450 0a000164 0a000107 | 18eb9c41 0000000b 0000000e 80183e80 12140000
             0101080a 00000003 00000005 | 41424344 45464748 494a",
        ],
    },
    Step {
        about: "ack, client to machine, offset: ISN_1 + 45, short of the wrap that ISN_0 is past; TSecr 3 - 13",
        says: "45100034 111b4000 3f06142f 0a000107 0a000164 | 9c4118eb 0000000e 00000015 8010ffff aafa0000
               0101080a 00000006 00000003",
        verdict: Goes(
            "45100034 111b4000 3f061333 0a000164 0a000203 | 9c4118eb 0000000e fffffff1 8010ffff aa2d0000
             0101080a 00000006 fffffff6",
        ),
        then: &[],
    },
    Step {
        about: "seq, machine to client, offset; TSval -2 + 13; window: 1,000 at scale 7 is 16,000 at 3",
        says: "4510003e 111c4000 3f061328 0a000203 0a000164 | 18eb9c41 fffffff1 0000000e 801803e8 199a0000
               0101080a fffffffe 00000006 | 4b4c4d4e 4f505152 5354",
        verdict: Goes(
            "4510003e 111c4000 3f061424 0a000164 0a000107 | 18eb9c41 00000015 0000000e 80183e80 dfce0000
             0101080a 0000000b 00000006 | 4b4c4d4e 4f505152 5354",
        ),
        then: &[],
    },
    Step {
        about: "TSval, machine to client, offset: never backwards, though -20 + 13 is; seq wraps for m1 only",
        says: "4510003e 111d4000 3f061327 0a000203 0a000164 | 18eb9c41 fffffffb 0000000e 801803e8 f2640000
               01080aff ffffec00 00000601 | 55565758 595a5b5c 5d5e",
        verdict: Goes(
            "4510003e 111d4000 3f061423 0a000164 0a000107 | 18eb9c41 0000001f 0000000e 80183e80 9aa50000
             01080a00 00000b00 00000601 | 55565758 595a5b5c 5d5e",
        ),
        then: &[],
    },
    Step {
        about: "SACK, client to machine, offset: the block crosses the wrap for m1 only; TSecr 11 - 13",
        says: "45100040 111e4000 3f061420 0a000107 0a000164 | 9c4118eb 0000000e 00000015 b010ffff 74920000
               0101080a 00000007 0000000b 0101050a 0000001f 00000029",
        verdict: Goes(
            "45100040 111e4000 3f061324 0a000164 0a000203 | 9c4118eb 0000000e fffffff1 b010ffff 740c0000
             0101080a 00000007 fffffffe 0101050a fffffffb 00000005",
        ),
        then: &[],
    },
    Step {
        about: "seq, client to machine, offset: unchanged; ack past the wrap; TSecr never one not sent by m1",
        says: "45100038 111f4000 3f061427 0a000107 0a000164 | 9c4118eb 00000012 00000029 8018ffff c7190000
               0101080a 00000008 000003e8 | 6c617374",
        verdict: Goes(
            "45100038 111f4000 3f06132b 0a000164 0a000203 | 9c4118eb 00000012 00000005 8018ffff ca2a0000
             0101080a 00000008 fffffffe | 6c617374",
        ),
        then: &[],
    },
    Step {
        about: "SACK, machine to client, offset: unchanged (u), oddly placed; TSval 4 + 13; TSecr unchanged",
        says: "45100040 11204000 3f061322 0a000203 0a000164 | 18eb9c41 00000005 0000000e b01003e8 361f0000
               01080a00 00000400 00000705 0a000000 12000000 16010101",
        verdict: Goes(
            "45100040 11204000 3f06141e 0a000164 0a000107 | 18eb9c41 00000029 0000000e b0103e80 ef5e0000
             01080a00 00001100 00000705 0a000000 12000000 16010101",
        ),
        then: &[],
    },
    Step {
        about: "TSecr, client to machine, offset: 17 - 13, past the wrap",
        says: "45100038 11214000 3f061425 0a000107 0a000164 | 9c4118eb 0000000e 00000029 8018ffff caf40000
               0101080a 00000009 00000011 | 6d6f7265",
        verdict: Goes(
            "45100038 11214000 3f061329 0a000164 0a000203 | 9c4118eb 0000000e 00000005 8018ffff ca290000
             0101080a 00000009 00000004 | 6d6f7265",
        ),
        then: &[],
    },
    Step {
        about: "window, machine to client, offset: 60,000 at scale 7 is kept within 16 bits at the promised 3",
        says: "45100034 11224000 3f06132c 0a000203 0a000164 | 18eb9c41 00000005 00000016 8010ea60 bfa00000
               0101080a 00000005 00000009",
        verdict: Goes(
            "45100034 11224000 3f061428 0a000164 0a000107 | 18eb9c41 00000029 00000016 8010ffff aacc0000
             0101080a 00000012 00000009",
        ),
        then: &[],
    },
];
