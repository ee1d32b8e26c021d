//! The same over IPv6.

use super::Fate::{Down, Goes, Stays};
use super::Step;
use crate::engine::DropReason;

/// The same over IPv6.
pub const OVER_IPV6: &[Step] = &[
    Step {
        about: "SYN: MSS, SACK, TS and scale pass; TFO, MPTCP, an unknown option, ECE, CWR and data do not (R2)",
        says: "61001101 0040063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb ffffffe2 00000000 f0c2ffff fd9b0000
               020405a0 220a0011 22334455 66770402 080affff fffd0000 00000303 021e0401 81fd04f9 89010101 | 74666f21",
        verdict: Goes(
            "61001101 003c063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb ffffffe2 00000000 f002ffff dc130000
             020405a0 01010101 01010101 01010402 080affff fffd0000 00000303 02010101 01010101 01010101",
        ),
        then: &[],
    },
    Step {
        about: "SYN/ACK: MSS as every path carries it (R5); scale and window pass; a TFO cookie and ECE do not",
        says: "61001102 0030063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffe8 ffffffe3 c052fa00 945f0000
               020405a0 0402080a fffffffe fffffffd 01030303 2206a1b2 c3d40101",
        verdict: Goes(
            "61001102 0030063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 ffffffe8 ffffffe3 c012fa00 198a0000
             0204053c 0402080a fffffffe fffffffd 01030303 01010101 01010101",
        ),
        then: &[],
    },
    Step {
        about: "MSS and scale in the SYN to a replica: the client's, in the numbering of the client (R1)",
        says: "61001103 0020063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb ffffffe3 ffffffe9 80104074 25720000 | 0101080a fffffffe fffffffe",
        verdict: Goes(
            "61001103 0020063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb ffffffe3 ffffffe9 80104074 25760000 | 0101080a fffffffe fffffffe",
        ),
        then: &[
            "60000000 00280640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb ffffffe2 00000000 a002ffff 372f0000 | 020405a0 0402080a fffffffe 00000000 01030302",
        ],
    },
    Step {
        about: "ack, engine to replica: ISN_1 + 1; TSval the latest of the client, TSecr by the clock of m1",
        says: "61001104 0028063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffc4 ffffffe3 a012fde8 399c0000 | 020405a0 0402080a ffffffce fffffffe 01030307",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb ffffffe3 ffffffc5 80104074 25c90000 | 0101080a fffffffe ffffffce",
        ],
    },
    Step {
        about: "seq, client to machine: unchanged, also to the replica; the timestamps lie at an odd offset",
        says: "61001105 0034063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb ffffffe3 ffffffe9 80184074 b9cc0000 | 01080aff ffffffff fffffe01
               47455420 2f612048 5454502f 312e300d 0a486f73",
        verdict: Goes(
            "61001105 0034063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb ffffffe3 ffffffe9 80184074 b9d00000 | 01080aff ffffffff fffffe01
             47455420 2f612048 5454502f 312e300d 0a486f73",
        ),
        then: &[
            "60000000 00340640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb ffffffe3 ffffffc5 80184074 bb220000 | 0101080a ffffffff ffffffce
             47455420 2f612048 5454502f 312e300d 0a486f73",
        ],
    },
    Step {
        about: "ack, machine to client: clipped to 1; window: the edge stays, so the field grows by 2",
        says: "61001106 0020063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffe9 fffffff7 80101f40 46940000 | 0101080a ffffffff ffffffff",
        verdict: Goes(
            "61001106 0020063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 ffffffe9 ffffffe3 80101f42 46a20000 | 0101080a ffffffff ffffffff",
        ),
        then: &[],
    },
    Step {
        about: "ack, engine to client: the new minimum at once (R6), with TSval of the original and the echoed TSecr",
        says: "61001107 0020063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffc5 fffffff7 801003e8 623b0000 | 0101080a ffffffd3 ffffffff",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 ffffffe9 fffffff7 80101f40 46900000 | 0101080a ffffffff ffffffff",
        ],
    },
    Step {
        about: "seq, machine to client: ISN_0 + v; TSval wraps to 0; TSecr unchanged; oddly placed",
        says: "61001108 002a063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffe9 fffffff7 80182328 3b920000 | 01080a00 000000ff ffffff01 | 30313233 34353637 3839",
        verdict: Goes(
            "61001108 002a063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 ffffffe9 fffffff7 80182328 3b8e0000 | 01080a00 000000ff ffffff01 | 30313233 34353637 3839",
        ),
        then: &[],
    },
    Step {
        about: "window, client to machine: unchanged; to the replica, which is told less, kept within 16 bits",
        says: "61001109 0020063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb fffffff7 fffffff3 8010ffff 65c60000 | 0101080a 00000000 00000000",
        verdict: Goes(
            "61001109 0020063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb fffffff7 fffffff3 8010ffff 65ca0000 | 0101080a 00000000 00000000",
        ),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffff7 ffffffc5 8010ffff 66230000 | 0101080a 00000000 ffffffd3",
        ],
    },
    Step {
        about: "ack, engine to replica: min(11 acked by the client, 5 sent by m1); window within 16 bits",
        says: "6100110a 0024063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffc5 fffffff7 801803e8 ffc50000 | 0101080a ffffffd8 00000000 | 30313233",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffff7 ffffffc9 8010ffff 661a0000 | 0101080a 00000000 ffffffd8",
        ],
    },
    Step {
        about: "ack, engine to replica: min(11 acked by the client, 21 sent by m1)",
        says: "6100110b 0030063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffc9 fffffff7 801803e8 c46f0000 | 0101080a ffffffdd 00000000
               34353637 38396162 63646566 6768696a",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffff7 ffffffcf 8010ffff 660f0000 | 0101080a 00000000 ffffffdd",
        ],
    },
    Step {
        about: "TSval and TSecr, client to machine: both past the wrap",
        says: "6100110c 0025063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb fffffff7 fffffff3 8018ffff 15d00000 | 0101080a 00000001 00000000 | 71756572 79",
        verdict: Goes(
            "6100110c 0025063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb fffffff7 fffffff3 8018ffff 15d40000 | 0101080a 00000001 00000000 | 71756572 79",
        ),
        then: &[
            "60000000 00250640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffff7 ffffffcf 8018ffff 16190000 | 0101080a 00000001 ffffffdd | 71756572 79",
        ],
    },
    Step {
        about: "ack of a replica: nothing is said, for the original is not so far",
        says: "6100110d 0020063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffd9 fffffffc 801003e8 62120000 | 0101080a ffffffe2 00000001",
        verdict: Stays(DropReason::Replica),
        then: &[],
    },
    Step {
        about: "ack, machine to client: all machines have 26",
        says: "6100110e 002a063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 fffffff3 fffffffc 80182328 47890000 | 0101080a 00000001 00000001 | 61626364 65666768 696a",
        verdict: Goes(
            "6100110e 002a063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 fffffff3 fffffffc 80182328 47850000 | 0101080a 00000001 00000001 | 61626364 65666768 696a",
        ),
        then: &[],
    },
    Step {
        about: "seq, machine to client: wraps inside the segment",
        says: "6100110f 002a063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 fffffffd fffffffc 80182328 154d0000 | 0101080a 00000001 00000001 | 6b6c6d6e 6f707172 7374",
        verdict: Goes(
            "6100110f 002a063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 fffffffd fffffffc 80182328 15490000 | 0101080a 00000001 00000001 | 6b6c6d6e 6f707172 7374",
        ),
        then: &[],
    },
    Step {
        about: "SACK, client to machine, offsets zero: unchanged; the block crosses the wrap",
        says: "61001110 002c063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb fffffffc fffffff3 b010ffff 2fa40000 | 0101080a 00000001 00000000 0101050a fffffffd 00000007",
        verdict: Goes(
            "61001110 002c063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb fffffffc fffffff3 b010ffff 2fa80000 | 0101080a 00000001 00000000 0101050a fffffffd 00000007",
        ),
        then: &[],
    },
    Step {
        about: "seq and ack, client to machine: both wrap; the replica is told min(31, 21)",
        says: "61001111 0028063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb fffffffe 00000007 8018ffff 90c00000 | 0101080a 00000002 00000001 | 32333435 36373839",
        verdict: Goes(
            "61001111 0028063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb fffffffe 00000007 8018ffff 90c40000 | 0101080a 00000002 00000001 | 32333435 36373839",
        ),
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffffc ffffffd9 8010ffff 65f90000 | 0101080a 00000002 ffffffe2",
        ],
    },
    Step {
        about: "SACK, machine to client: unchanged (u) across the wrap; a genuine duplicate ACK passes (R6)",
        says: "61001112 002c063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 00000007 fffffffc b0102328 0c6b0000 | 0101080a 00000002 00000001 0101050a fffffffe 00000006",
        verdict: Goes(
            "61001112 002c063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 00000007 fffffffc b0102328 0c670000 | 0101080a 00000002 00000001 0101050a fffffffe 00000006",
        ),
        then: &[],
    },
    Step {
        about: "seq, client to machine: the hole is filled; the replica waits for its own output (R23)",
        says: "61001113 0022063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb fffffffc 00000007 8018ffff 356e0000 | 0101080a 00000003 00000002 | 3031",
        verdict: Goes(
            "61001113 0022063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb fffffffc 00000007 8018ffff 35720000 | 0101080a 00000003 00000002 | 3031",
        ),
        then: &[],
    },
    Step {
        about: "seq, engine to replica: the same u in one piece, across the wrap; ack in the numbering of the replica",
        says: "61001114 002a063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffd9 fffffffc 801803e8 34c80000 | 0101080a ffffffe7 00000002 | 6b6c6d6e 6f707172 7374",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 002a0640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb fffffffc ffffffe3 8018ffff 60cd0000 | 0101080a 00000003 ffffffe7 | 30313233 34353637 3839",
        ],
    },
    Step {
        about: "seq, client to machine: beyond a new hole, past the wrap",
        says: "61001115 0024063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 0000000a 00000007 8018ffff 749c0000 | 0101080a 00000004 00000002 | 7778797a",
        verdict: Goes(
            "61001115 0024063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb 0000000a 00000007 8018ffff 74a00000 | 0101080a 00000004 00000002 | 7778797a",
        ),
        then: &[],
    },
    Step {
        about: "SACK, ack clipped from 36 to 26 (R8): the D-SACK block 28..36 goes, the block 40..44 stays",
        says: "61001116 0038063f 20010db8 00020000 00000000 00000002 20010db8 00010000 00000000 00000064
               18eb9c41 00000007 00000006 d0182328 ff3b0000
               0101080a 00000003 00000003 01010512 fffffffe 00000006 0000000a 0000000e | 75767778",
        verdict: Goes(
            "61001116 0038063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 00000007 fffffffc d0182329 fb480000
             0101080a 00000003 00000003 0101050a 0000000a 0000000e 01010101 01010101 | 75767778",
        ),
        then: &[],
    },
    Step {
        about: "SACK, engine to client: the ACK that the replica releases repeats the block above it",
        says: "61001117 0020063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffe3 00000006 801003e8 61f30000 | 0101080a ffffffec 00000003",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 002c0640 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 0000000b 00000006 b0102328 0c440000 | 0101080a 00000003 00000003 0101050a 0000000a 0000000e",
        ],
    },
    Step {
        about: "ack, client to machine: past the wrap",
        says: "61001118 0024063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 00000006 0000000b 8018ffff 7ca20000 | 0101080a 00000005 00000003 | 73747576",
        verdict: Goes(
            "61001118 0024063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000002
             9c4118eb 00000006 0000000b 8018ffff 7ca60000 | 0101080a 00000005 00000003 | 73747576",
        ),
        then: &[],
    },
    Step {
        about: "seq, engine to replica: past the wrap, the island with it; ack: min(35, 45)",
        says: "61001119 002e063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 ffffffe3 00000006 801803e8 1a890000 | 0101080a fffffff1 00000004
               75767778 41424344 45464748 494a",
        verdict: Stays(DropReason::Replica),
        then: &[
            "60000000 00280640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 00000006 ffffffe7 8018ffff 8be20000 | 0101080a 00000005 fffffff1 | 73747576 7778797a",
        ],
    },
    Step {
        about: "ack of a replica that is ahead of the original: nothing is said",
        says: "6100111a 0020063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 fffffff1 0000000e 801003e8 61d10000 | 0101080a fffffff6 00000005",
        verdict: Stays(DropReason::Replica),
        then: &[],
    },
    Step {
        about: "takeover: seq and ack of what was cached, as the client numbers; TSval goes on (offset 13)",
        says: "",
        verdict: Down,
        then: &[
            "60000000 00200640 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 0000000e ffffffe7 8010ffff 65c30000 | 0101080a 00000005 fffffff6",
            "60000000 002a0640 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 0000000b 0000000e 80183e80 cc9f0000 | 0101080a 00000003 00000005 | 41424344 45464748 494a",
        ],
    },
    Step {
        about: "ack, client to machine, offset: ISN_1 + 45, short of the wrap that ISN_0 is past; TSecr 3 - 13",
        says: "6100111b 0020063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 0000000e 00000015 8010ffff 65860000 | 0101080a 00000006 00000003",
        verdict: Goes(
            "6100111b 0020063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 0000000e fffffff1 8010ffff 65b80000 | 0101080a 00000006 fffffff6",
        ),
        then: &[],
    },
    Step {
        about: "seq, machine to client, offset; TSval -2 + 13; window: 1,000 at scale 7 is 16,000 at 3",
        says: "6100111c 002a063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 fffffff1 0000000e 801803e8 d5240000 | 0101080a fffffffe 00000006 | 4b4c4d4e 4f505152 5354",
        verdict: Goes(
            "6100111c 002a063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 00000015 0000000e 80183e80 9a5a0000 | 0101080a 0000000b 00000006 | 4b4c4d4e 4f505152 5354",
        ),
        then: &[],
    },
    Step {
        about: "TSval, machine to client, offset: never backwards, though -20 + 13 is; seq wraps for m1 only",
        says: "6100111d 002a063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 fffffffb 0000000e 801803e8 adef0000 | 01080aff ffffec00 00000601 | 55565758 595a5b5c 5d5e",
        verdict: Goes(
            "6100111d 002a063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 0000001f 0000000e 80183e80 55310000 | 01080a00 00000b00 00000601 | 55565758 595a5b5c 5d5e",
        ),
        then: &[],
    },
    Step {
        about: "SACK, client to machine, offset: the block crosses the wrap for m1 only; TSecr 11 - 13",
        says: "6100111e 002c063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 0000000e 00000015 b010ffff 2f1e0000 | 0101080a 00000007 0000000b 0101050a 0000001f 00000029",
        verdict: Goes(
            "6100111e 002c063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 0000000e fffffff1 b010ffff 2f970000 | 0101080a 00000007 fffffffe 0101050a fffffffb 00000005",
        ),
        then: &[],
    },
    Step {
        about: "seq, client to machine, offset: unchanged; ack past the wrap; TSecr never one not sent by m1",
        says: "6100111f 0024063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 00000012 00000029 8018ffff 81a50000 | 0101080a 00000008 000003e8 | 6c617374",
        verdict: Goes(
            "6100111f 0024063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 00000012 00000005 8018ffff 85b50000 | 0101080a 00000008 fffffffe | 6c617374",
        ),
        then: &[],
    },
    Step {
        about: "SACK, machine to client, offset: unchanged (u), oddly placed; TSval 4 + 13; TSecr unchanged",
        says: "61001120 002c063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 00000005 0000000e b01003e8 f1a90000 | 01080a00 00000400 00000705 0a000000 12000000 16010101",
        verdict: Goes(
            "61001120 002c063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 00000029 0000000e b0103e80 a9ea0000 | 01080a00 00001100 00000705 0a000000 12000000 16010101",
        ),
        then: &[],
    },
    Step {
        about: "TSecr, client to machine, offset: 17 - 13, past the wrap",
        says: "61001121 0024063f 20010db8 00010000 00000000 00000007 20010db8 00010000 00000000 00000064
               9c4118eb 0000000e 00000029 8018ffff 85800000 | 0101080a 00000009 00000011 | 6d6f7265",
        verdict: Goes(
            "61001121 0024063f 20010db8 00010000 00000000 00000064 20010db8 00020000 00000000 00000003
             9c4118eb 0000000e 00000005 8018ffff 85b40000 | 0101080a 00000009 00000004 | 6d6f7265",
        ),
        then: &[],
    },
    Step {
        about: "window, machine to client, offset: 60,000 at scale 7 is kept within 16 bits at the promised 3",
        says: "61001122 0020063f 20010db8 00020000 00000000 00000003 20010db8 00010000 00000000 00000064
               18eb9c41 00000005 00000016 8010ea60 7b2b0000 | 0101080a 00000005 00000009",
        verdict: Goes(
            "61001122 0020063f 20010db8 00010000 00000000 00000064 20010db8 00010000 00000000 00000007
             18eb9c41 00000029 00000016 8010ffff 65580000 | 0101080a 00000012 00000009",
        ),
        then: &[],
    },
];
