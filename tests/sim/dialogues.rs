//! Named dialogues: one idea each, said in a few lines, with the figures that the idea promises.

use relevo::engine::{Counter, MILLISECOND, MaxLag, Original, SECOND, SourceMode};

use crate::app::Pace;
use crate::scenario::{Cuts, Fault, Scenario, When};
use crate::script::{Dialogue, Ending, Record};
use crate::world::Summary;
use crate::{run_engine, run_shown};

/// Runs it and says everything if it fails.
fn passes(name: &str, scenario: Scenario) -> Summary {
    match run_shown(name, &scenario, run_engine) {
        Ok(summary) => summary,
        Err(violation) => panic!("{name}: {}: {}", violation.rule, violation.text),
    }
}

fn freeze(machine: usize) -> Fault {
    Fault::Freeze { machine, stop: true }
}

fn upload() -> Scenario {
    Scenario::plain(3).request(200_000, 100, Ending::HalfClose)
}

fn download() -> Scenario {
    Scenario::plain(3).request(100, 200_000, Ending::ServerCloses)
}

/// Questions and answers, one by one.
fn talk() -> Scenario {
    let record = Record {
        upload: 100,
        reply: 700,
        echo: false,
        wait: true,
        think: 0,
    };
    Scenario::plain(3).dialogue(Dialogue {
        trailer: 0,
        records: vec![record; 30],
        ending: Ending::ClientCloses,
    })
}

#[test]
fn nothing_fails_and_nothing_is_sent_twice() {
    for scenario in [upload(), download()] {
        let summary = passes("clean", scenario);
        let stats = &summary.stats;
        let twice = stats.get(Counter::Retransmissions) + stats.get(Counter::Timeouts);
        assert_eq!((summary.takeovers, summary.evictions, twice), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.get(Counter::LegsOpened), 3);
        assert_eq!(stats.get(Counter::LegsIneligible) + stats.get(Counter::LegsReset), 0);
    }
}

#[test]
fn segments_that_leave_together_arrive_as_if_alone() {
    for cuts in [Cuts::AsTold, Cuts::Smaller] {
        // The client's numbers wrap in the middle of a super-packet.
        for isn in [12_345, u32::MAX - 30_000, u32::MAX - 31_000] {
            let mut scenario = upload().cut(cuts);
            scenario.clients[0].first_isn = isn;
            // A replica that reads slowly opens its window by many segments at a time.
            scenario.machines[1].pace = Pace {
                chunk: 20_000,
                every: 20_000,
                ..Pace::FAST
            };
            let stats = passes("uncut", scenario).stats;
            assert!(stats.get(Counter::SuperPackets) > 0, "{stats:?}");
            let twice = stats.get(Counter::Retransmissions) + stats.get(Counter::Timeouts);
            assert_eq!(twice, 0, "{stats:?}");
        }
    }
}

#[test]
fn the_original_freezes_during_an_upload() {
    for packets in (10..200).step_by(19) {
        let summary = passes("upload", upload().fault(When::Packets(packets), freeze(0)));
        assert_eq!(
            (summary.takeovers, summary.excused),
            (1, 0),
            "frozen at packet {packets}"
        );
        assert!(
            summary.longest_gap < 2 * SECOND,
            "{} µs without a byte",
            summary.longest_gap
        );
    }
}

#[test]
fn the_original_freezes_during_a_download() {
    for packets in (10..200).step_by(19) {
        let summary = passes("download", download().fault(When::Packets(packets), freeze(0)));
        assert_eq!(
            (summary.takeovers, summary.excused),
            (1, 0),
            "frozen at packet {packets}"
        );
        assert!(
            summary.longest_gap < 2 * SECOND,
            "{} µs without a byte",
            summary.longest_gap
        );
    }
}

#[test]
fn the_original_freezes_at_every_packet_of_a_half_close() {
    for packets in 1..40 {
        let half = Dialogue {
            trailer: 5_000,
            records: vec![Record {
                upload: 3_000,
                reply: 1_000,
                echo: false,
                wait: false,
                think: 0,
            }],
            ending: Ending::HalfClose,
        };
        let summary = passes(
            "half-close",
            Scenario::plain(2)
                .dialogue(half)
                .fault(When::Packets(packets), freeze(0)),
        );
        assert_eq!(summary.excused, 0, "frozen at packet {packets}");
    }
}

#[test]
fn a_thawed_machine_is_fenced() {
    let thaw = Fault::Thaw { machine: 0 };
    let summary = passes(
        "fence",
        download()
            .fault(When::Packets(40), freeze(0))
            .fault(When::Time(SECOND), thaw),
    );
    assert_eq!(summary.takeovers, 1);
}

#[test]
fn a_machine_that_thaws_at_once_stays() {
    let summary = passes(
        "thaw",
        download()
            .fault(When::Time(8_000), freeze(0))
            .fault(When::Time(9_000), Fault::Thaw { machine: 0 }),
    );
    assert_eq!((summary.takeovers, summary.evictions), (0, 0));
}

#[test]
fn a_frozen_replica_releases_the_client_within_its_timeout() {
    // The client sends one request after the other, so that it soon waits for the replica's acknowledgement.
    let record = |wait| Record {
        upload: 2_000,
        reply: 500,
        echo: false,
        wait,
        think: 0,
    };
    let records = (0..60).map(|i| record(i > 0)).collect();
    let mut scenario = Scenario::plain(2).dialogue(Dialogue {
        trailer: 0,
        records,
        ending: Ending::ClientCloses,
    });
    scenario.clients[0].tx = 4_000;
    let timeout = scenario.service.replica_timeout;
    let summary = passes("replica", scenario.fault(When::Packets(60), freeze(1)));
    assert_eq!(summary.takeovers, 0, "the original lives");
    assert!(
        summary.longest_gap < timeout + 60 * MILLISECOND,
        "{} µs without a byte",
        summary.longest_gap
    );
}

#[test]
fn unlimited_lag_never_makes_a_client_wait_for_a_replica() {
    let mut scenario = upload();
    scenario.service.max_lag = MaxLag::Unlimited;
    scenario.machines[2].pace = Pace {
        chunk: 1_000,
        every: 20_000,
        think: 0,
    };
    let summary = passes("unlimited", scenario);
    // 65,535 bytes at most are under way in a round trip of some 5 ms; the slow replica alone takes 4 s.
    assert!(summary.end < SECOND, "over after {} µs", summary.end);
}

#[test]
fn a_slow_replica_gets_the_rest_after_the_client_has_gone() {
    let mut scenario = upload();
    scenario.service.max_lag = MaxLag::Unlimited;
    scenario.machines[2].pace = Pace {
        chunk: 2_000,
        every: 30_000,
        think: 0,
    };
    let summary = passes("played to the end", scenario.fault(When::Packets(60), freeze(0)));
    assert_eq!(summary.excused, 0);
}

#[test]
fn both_source_modes_and_families_fail_over() {
    for v6 in [false, true] {
        for source in [SourceMode::Psc, SourceMode::Client] {
            for base in [upload(), download()] {
                let mut scenario = base.fault(When::Packets(50), freeze(0));
                (scenario.v6, scenario.service.source) = (v6, source);
                assert_eq!(passes("family", scenario).takeovers, 1);
            }
        }
    }
}

#[test]
fn numbers_and_clocks_wrap() {
    for timestamps in [false, true] {
        for base in [upload(), download()] {
            let mut scenario = base.fault(When::Packets(70), freeze(0));
            for (i, host) in scenario.clients.iter_mut().chain(&mut scenario.machines).enumerate() {
                host.first_isn = 0u32.wrapping_sub(20_000 * i as u32 + 1);
                host.ts_base = 0u32.wrapping_sub(10 * i as u32 + 1);
                host.timestamps = timestamps;
            }
            assert_eq!(passes("wrap", scenario).takeovers, 1);
        }
    }
}

#[test]
fn a_failover_by_command_costs_nothing() {
    for base in [upload(), download()] {
        let summary = passes("failover", base.fault(When::Packets(80), Fault::Failover { to: 2 }));
        assert_eq!((summary.takeovers, summary.evictions, summary.excused), (1, 0, 0));
        assert!(
            summary.longest_gap < SECOND,
            "{} µs without a byte",
            summary.longest_gap
        );
    }
}

#[test]
fn a_handover_waits_for_its_moment_and_costs_nothing() {
    for base in [upload(), download()] {
        let summary = passes("handover", base.fault(When::Packets(80), Fault::HandOver { to: 2 }));
        let twice = summary.stats.get(Counter::Retransmissions) + summary.stats.get(Counter::Timeouts);
        let level = summary.stats.get(Counter::HandoversLevel);
        assert_eq!((summary.takeovers, level, twice), (1, 1, 0), "{:?}", summary.stats);
    }
}

/// Whoever is fastest speaks; the original, or the one that spoke last, freezes at any time.
#[test]
fn with_the_fastest_no_death_is_waited_for() {
    for base in [upload(), download(), talk()] {
        for packets in (10..200).step_by(19) {
            for dead in 0..3 {
                let mut scenario = base.clone().fault(When::Packets(packets), freeze(dead));
                scenario.service.original = Original::Fastest;
                let summary = passes("fastest", scenario);
                let text = format!("machine {dead} frozen at packet {packets}");
                assert_eq!(summary.excused, 0, "{text}");
                assert!(
                    summary.longest_gap < SECOND,
                    "{text}: {} µs without a byte",
                    summary.longest_gap
                );
            }
        }
    }
}

#[test]
fn one_after_the_other_freezes_and_the_last_carries_on() {
    for base in [upload(), download()] {
        let scenario = base
            .fault(When::Packets(40), freeze(0))
            .fault(When::Time(SECOND), freeze(1))
            .fault(When::Time(2 * SECOND), freeze(2));
        let mut scenario = scenario;
        scenario.clients[0].pace = Pace {
            chunk: 2_000,
            every: 20_000,
            think: 0,
        };
        assert_eq!(passes("one by one", scenario).excused, 0);
    }
}

#[test]
fn two_clients_use_the_same_port() {
    let mut scenario = download().request(200_000, 50_000, Ending::HalfClose);
    scenario.clients.push(scenario.clients[0]);
    (scenario.flows[1].client, scenario.flows[1].port) = (1, scenario.flows[0].port);
    let summary = passes("same port", scenario.fault(When::Packets(50), freeze(0)));
    assert_eq!((summary.takeovers, summary.excused), (2, 0));
}

#[test]
fn a_client_that_does_not_read_is_no_sign_of_a_dead_machine() {
    let mut scenario = download();
    scenario.clients[0].pace = Pace {
        chunk: 20_000,
        every: 3 * SECOND,
        think: 0,
    };
    let summary = passes("zero window", scenario);
    assert_eq!((summary.takeovers, summary.evictions), (0, 0));
}

/// Machine 1 was slow when the second connection began, and is the last replica when the original's service ends all of its connections in order. The
/// second client has said nothing until then: what machine 1 lacks of that is nothing, and it carries on.
#[test]
fn a_machine_that_was_slow_carries_on_what_nobody_has_begun() {
    let mut scenario = Scenario::plain(1).request(20_000, 100, Ending::HalfClose);
    let thinks = Record {
        upload: 100,
        reply: 700,
        echo: false,
        wait: true,
        think: SECOND,
    };
    scenario = scenario.dialogue(Dialogue {
        trailer: 0,
        records: vec![Record { upload: 1, ..thinks }, thinks],
        ending: Ending::ClientCloses,
    });
    scenario.flows[1].start = 400 * MILLISECOND;
    scenario.service.detect.floor = SECOND;
    scenario.heal = 2 * SECOND;
    let scenario = scenario
        .fault(When::Packets(10), freeze(1))
        .fault(When::Time(420 * MILLISECOND), Fault::Thaw { machine: 1 })
        .fault(When::Time(800 * MILLISECOND), Fault::Crash { machine: 0, fin: true });
    let summary = passes("slow, then silent", scenario);
    assert_eq!((summary.excused, summary.limits), (0, 0));
}

#[test]
fn machines_that_think_differently_long_stay_in_step() {
    let record = Record {
        upload: 300,
        reply: 700,
        echo: false,
        wait: true,
        think: 0,
    };
    let dialogue = Dialogue {
        trailer: 0,
        records: vec![record; 30],
        ending: Ending::ClientCloses,
    };
    let mut scenario = Scenario::plain(3).dialogue(dialogue);
    for (i, machine) in scenario.machines.iter_mut().enumerate() {
        machine.pace.think = [4_000, 0, 9_000, 1_000][i];
    }
    let summary = passes("think", scenario.fault(When::Packets(120), freeze(0)));
    assert_eq!((summary.takeovers, summary.excused), (1, 0));
}

#[test]
fn a_replica_that_crashes_or_forgets_harms_nobody() {
    let faults = [
        Fault::Crash { machine: 1, fin: false },
        Fault::Crash { machine: 1, fin: true },
        Fault::Restart { machine: 1 },
    ];
    for fault in faults {
        for packets in (10..200).step_by(38) {
            for base in [upload(), download()] {
                let summary = passes("crash", base.fault(When::Packets(packets), fault));
                assert_eq!(
                    (summary.takeovers, summary.excused, summary.limits),
                    (0, 0, 0),
                    "{fault:?}"
                );
            }
        }
    }
}

/// Each of the seeds, and what was wrong with it.
fn all_pass(seeds: &[(u64, &str)], draw: fn(u64) -> Scenario) {
    for (seed, why) in seeds {
        passes(&format!("seed {seed}, {why}"), draw(*seed));
    }
}

#[test]
fn seeds_that_once_failed_are_clean() {
    // Of a million schedules on commit 265653c (bench-results).
    let seeds = [
        376_410, 466_142, 499_196, 631_863, 642_747, 654_748, 717_661, 762_158, 773_951, 851_162, 910_974, 968_698,
    ];
    for seed in seeds {
        passes(&format!("old seed {seed}"), Scenario::as_of_old(seed));
    }
}

#[test]
fn seeds_that_failed_since_are_clean() {
    let seeds = [
        (5_073_176, "the lost FIN of an original that is replaced"),
        (5_076_544, "the lost FIN of an original that is replaced"),
        (5_003_046, "a planned move behind an original that nobody knew"),
        (3_089_731, "a failover to an original that has reset the flow"),
        (3_072_874, "all who could vote are silent"),
        (7_294_901, "a window probe two bytes beyond"),
        (7_262_037, "a replica that says more, whose words were lost"),
        (11_136_789, "the keep-alive of a new original"),
        (11_102_113, "the same move planned twice"),
        (11_170_213, "all who could vote trail"),
        (7_124_360, "late packets of an older connection from the same port"),
        (7_081_147, "both windows filled, each with a hole"),
        (6_249, "what a forgotten original says to a client that begins anew"),
        (
            40_051_304,
            "a leg of a machine that another flow, begun later, has found slow",
        ),
        (40_504_083, "the same again"),
        (
            40_519_859,
            "a trailing replica that is level with the packet that speaks first",
        ),
        (40_880_465, "the same, with a window of its own"),
        (
            40_230_917,
            "a failover to a machine that has not answered, of a flow on trial",
        ),
        (
            40_632_799,
            "a SYN repeated after a reset, and machines that had been asked before",
        ),
        (
            40_358_681,
            "windows that were overtaken, and a client that goes beyond its own",
        ),
        (40_069_138, "a FIN behind what a stack has cut off at its window"),
        (40_193_965, "a late reset, and the next client with the same port"),
        (
            50_257_987,
            "an original without replicas that has lost what was never kept",
        ),
        (
            50_461_607,
            "the clock of an original that has to wait when it is first heard",
        ),
        (
            50_092_342,
            "a stack that forgets a connection whose last acknowledgement was lost",
        ),
        (
            50_780_896,
            "a client that speaks between a takeover and the pump that replays",
        ),
    ];
    for (seed, why) in seeds {
        // As they failed: before there were super-packets.
        passes(
            &format!("seed {seed}, {why}"),
            Scenario::before_judgement(seed).cut(Cuts::Never),
        );
    }
}

#[test]
fn seeds_that_failed_since_there_are_super_packets_are_clean() {
    let seeds = [
        (
            60_001_229,
            "what a machine says beyond the client's window, and has to say again",
        ),
        (60_635_114, "a hole in what an heir said long ago"),
        (100_919_537, "a window told in keep-alives alone"),
        (110_317_598, "the answer to a SYN of before the machine fell"),
        (110_917_730, "a bare FIN that overtakes the last bytes"),
        (
            50_901_372,
            "a window that an overtaken packet closes, and keep-alives behind it",
        ),
        (
            110_327_281,
            "a service that hangs with its window closed until it is given up",
        ),
    ];
    all_pass(&seeds, Scenario::before_judgement);
}

#[test]
fn seeds_that_failed_since_hangs_are_judged_are_clean() {
    let seeds = [
        (140_204_923, "an end of long ago, told when its machine takes over"),
        (
            140_132_616,
            "a failover to a machine that says nothing before it is down",
        ),
        (140_115_520, "one segment in ten seconds"),
        (140_490_351, "the same of two machines"),
        (142_003_475, "a replica that reads on, and has no reason to say so"),
        (142_015_613, "a service that dies while the engine sleeps"),
        (
            150_429_213,
            "two machines, each slower than the other in one connection",
        ),
        (150_653_266, "the same again"),
        (150_545_619, "what is said beyond the client's window"),
        (
            150_248_398,
            "a plan behind a plan, to a machine that has ended in order",
        ),
        (160_657_446, "an heir that hangs when all others have finished"),
        (160_464_349, "an original that dies short of an end that is known"),
        (160_716_766, "smoltcp's garbage in the place of its FIN"),
        (160_905_817, "a run cut short before the odd one has spoken"),
        (
            180_333_760,
            "the last machine forgets a connection whose last acknowledgement was lost",
        ),
        (180_585_860, "an end that is said beyond the client's window"),
        (200_022_663, "acknowledgements that stand beyond the client's window"),
        (
            210_108_397,
            "an original of old, whose clock is behind another's that was silent",
        ),
        (
            240_165_596,
            "a failover to a machine without an option, of a flow on trial",
        ),
        (
            250_156_001,
            "smoltcp's fast retransmission takes no notice of the window",
        ),
        (270_861_717, "the same by a machine, whose answer is not believed"),
        (280_534_613, "the same, and garbage for what was never sent"),
        (250_804_202, "a machine that thaws just before it is given up"),
        (260_273_436, "an heir that nobody has heard, and that resets"),
        (
            270_506_988,
            "a machine without an option, given up before the client proves itself",
        ),
        (
            270_813_039,
            "a reset behind bytes that were lost, and its challenge lost",
        ),
        (280_065_045, "the same, and the port is used again"),
        (290_383_632, "the last machine is frozen until another is back"),
        (
            320_462_237,
            "a window that opens just before it is given up, and that is lost",
        ),
        (310_077_764, "the last machine forgets, and the port is used again"),
        (
            350_389_378,
            "a service that hangs with something unread, and the port is used again",
        ),
    ];
    all_pass(&seeds, Scenario::before_silence);
}

#[test]
fn seeds_that_failed_since_slow_machines_meet_silent_clients_are_clean() {
    let seeds = [
        (
            370_110_987,
            "a replica that has yet to hear what it is to answer is not given up",
        ),
        (370_319_150, "a replica that waits for its own output for too long"),
        (380_060_313, "the same, and the client's first segment came late"),
        (370_232_914, "a SYN/ACK, and then silence until an end is believed"),
        (
            410_019_247,
            "the same, where it may not be told what the client has said",
        ),
        (370_432_143, "a service that hangs until TIME-WAIT is over"),
        (
            400_739_702,
            "a service that hangs until its finished connection is given up",
        ),
        (400_224_752, "an end that is believed, and waits for a slow client"),
        (
            410_073_095,
            "a wait that is given up, where the engine learned late what the client had read",
        ),
        (420_333_208, "the same of an original of old, given bytes beyond a hole"),
        (420_523_210, "the same behind a closed window"),
    ];
    all_pass(&seeds, Scenario::from_seed);
}
