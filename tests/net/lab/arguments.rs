//! What the programs beside the tests are told by make: variables of the environment.

use std::time::SystemTime;

/// A variable's text; an empty one says nothing, as make hands on what it was not given.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The words of a variable, which commas part.
pub fn list(name: &str) -> Option<Vec<String>> {
    text(name).map(|text| text.split(',').map(str::to_owned).collect())
}

/// A whole number, or what to do without; `None` if it is no number or below `least`.
pub fn number(name: &str, least: u64, default: impl FnOnce() -> u64) -> Option<u64> {
    match text(name) {
        Some(text) => text.parse().ok().filter(|number| *number >= least),
        None => Some(default()),
    }
}

/// A seed where none is given. Those of two seconds are a thousand apart: a program that counts on from its seed has as many to itself.
pub fn seed_of_the_clock() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(1, |d| d.as_secs() * 1_000)
}

/// `BESIDE`, for the record: what else ran on the machine.
pub fn beside() -> String {
    text("BESIDE").unwrap_or_else(|| "nothing was noted.".to_owned())
}
