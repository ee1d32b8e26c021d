//! The checker's own test: the engine with one rule broken must be caught.

use relevo::mutant::{self, Mutation};

use crate::{Scenario, env, run_engine, say};

/// Each mutation must be caught within so many schedules.
const SCHEDULES: u64 = 20_000;

#[test]
fn mutants() {
    let (first, count) = (env("SIM_FIRST").unwrap_or(1), env("SIM_SEEDS").unwrap_or(SCHEDULES));
    let mut caught = 0;
    for mutation in Mutation::ALL {
        mutant::choose(Some(mutation));
        let found = (first..first + count).find_map(|seed| {
            let scenario = Scenario::from_seed(seed);
            let failure = run_engine(&scenario, false).err()?;
            // It counts only if nothing is wrong with the rule kept.
            mutant::choose(None);
            let clean = run_engine(&scenario, false).is_ok();
            mutant::choose(Some(mutation));
            clean.then_some((seed, failure.violation))
        });
        mutant::choose(None);
        say(&match &found {
            Some((seed, v)) => format!("mutants: {mutation:?}: schedule {seed}: {}: {}", v.rule, v.text),
            None => format!("mutants: {mutation:?}: NOT caught in {count} schedules"),
        });
        caught += usize::from(found.is_some());
    }
    say(&format!("mutants: {caught} of {} caught", Mutation::ALL.len()));
    assert_eq!(caught, Mutation::ALL.len());
}
