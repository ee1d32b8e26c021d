//! The real binary between real Linux stacks: see [`lab`] for the network, docs/testing.md for what each test proves.
//!
//! The tests take turns (a lab each), since two cores are not enough for two of them at a time.

#[allow(dead_code, reason = "shared with the long campaign; the short forms use their part")]
mod campaign;
mod command;
mod diverge;
mod fastest;
mod faulty;
mod flows;
mod handover;
mod hostile;
mod judge;
#[allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with demo and bench; each uses its part"
)]
mod lab;
mod postgres;
mod proof;
mod signs;
#[allow(dead_code, reason = "shared with the long soak; the short form uses its part")]
mod soak;
mod supers;
mod threads;
mod transfer;
mod trouble;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whose turn it is. Held for the length of a test, first thing.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
