//! The short forms of `make campaign` and `make campaign-death`: see [`crate::campaign`].

use std::path::PathBuf;

use crate::campaign::death;
use crate::campaign::plan::{Fault, Plan, Trouble, Whom};
use crate::campaign::run::run;
use crate::turn;

/// Deaths of the engine.
const DEATHS: u64 = 10;

#[test]
fn a_handful_of_faults_is_masked() {
    let _turn = turn();
    let faults = [
        Fault::Thaw(Whom::Original),
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
