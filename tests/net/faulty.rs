//! The short forms of `make campaign`, `make campaign-death` and `make soak`: see [`crate::campaign`] and [`crate::soak`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::campaign::death;
use crate::campaign::plan::{Fault, Plan, Trouble, Whom};
use crate::campaign::run::run;
use crate::{soak, turn};

/// Deaths of the engine.
const DEATHS: u64 = 10;

#[test]
fn a_handful_of_faults_is_masked() {
    let _turn = turn();
    let faults = [
        Fault::Thaw(Whom::Original),
        Fault::Hang(Whom::Original),
        Fault::Crash(Whom::Original),
        Fault::Hang(Whom::Replica),
        Fault::Crash(Whom::Replica),
        Fault::Flap(Whom::Original),
        Fault::BadAndFreeze(Trouble::Reordering),
        Fault::ForeignTablesAndFreeze,
        Fault::Overrun,
    ];
    for (seed, fault) in (crate::transfer::seed()..).zip(faults) {
        let plan = Plan::draw(seed, fault);
        println!("{plan}");
        let keep = PathBuf::from(format!("target/campaign/test-{seed}"));
        let outcome = run(&plan, Some(&keep));
        assert!(outcome.is_good(), "{plan}\n{outcome:#?}\nkept in {}", keep.display());
    }
}

#[test]
fn the_engine_dies_ten_times_and_nobody_is_told_before_the_next_one_is_there() {
    let _turn = turn();
    let deaths = death::run(DEATHS, crate::transfer::seed(), |death| println!("{death}"));
    println!("{}", death::Summary::of(&deaths));
    for death in deaths {
        assert!(death.wrong.is_empty(), "{death}");
    }
}

/// As many faults as there are kinds in a real soak take minutes; here are the first ones. So short a run says nothing of memory.
#[test]
fn a_few_seconds_of_mixed_load_and_faults_lose_nothing() {
    let _turn = turn();
    let plan = soak::Plan {
        length: Duration::from_secs(4),
        seed: crate::transfer::seed(),
        cycle: Duration::from_millis(1_500),
        slack_kib: 64 << 10,
    };
    let keep = Path::new("target/soak/test");
    let outcome = soak::run(&plan, keep, |_, _| ());
    println!("{outcome}");
    println!("{:?}", outcome.pieces);
    assert!(!outcome.strikes.is_empty(), "no fault in {:?}", plan.length);
    assert!(outcome.pieces.held > 0, "no machine was asked: {:?}", outcome.pieces);
    let (wrong, strikes) = (outcome.lost.1.iter().chain(&outcome.books), &outcome.strikes);
    assert!(
        outcome.is_good(),
        "{outcome}\n{:#?}\n{strikes:#?}\nkept in {}",
        wrong.collect::<Vec<_>>(),
        keep.display()
    );
}
