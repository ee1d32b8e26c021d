//! What the clients of a run do, and how they and the machines are asked whether it was done right.
//!
//! Only loads whose replies follow from what one connection sends: replies that depend on how several connections interleave
//! would differ from machine to machine without a fault (design, section 8).

use rustix::process::Signal;

use super::plan::{LoadKind, Plan};
use crate::lab::Lab;

pub mod files;
mod mixed;
pub mod redis;
pub mod short;

/// A load: services on the machines from the start, clients from [`Load::begin`] on.
pub trait Load {
    /// The service's port.
    fn port(&self) -> u16;
    /// Starts the clients.
    fn begin(&mut self);
    /// How much of their work the clients have done, in thousandths.
    fn progress(&self) -> u64;
    /// Waits for the clients; says what each of them found wrong.
    fn finish(&mut self) -> Vec<String>;
    /// What the machine holds of the clients' work, if it holds all of it; otherwise what is missing or wrong.
    fn held_by(&self, machine: usize) -> Result<String, String>;
    /// One more connection, after all.
    fn knock(&self) -> Result<(), String>;
    /// Sends the machine's service a signal.
    fn signal(&self, machine: usize, signal: Signal);
}

/// Starts the plan's services.
pub fn prepare(lab: &Lab, plan: &Plan) -> Box<dyn Load> {
    match plan.load {
        LoadKind::Redis => Box::new(redis::RedisLoad::prepare(lab, plan)),
        LoadKind::Short => Box::new(short::Short::prepare(lab, plan)),
        LoadKind::Upload => Box::new(files::Files::prepare(lab, plan, files::Way::Up)),
        LoadKind::Download => Box::new(files::Files::prepare(lab, plan, files::Way::Down)),
        LoadKind::Mixed => Box::new(mixed::Mixed::prepare(lab, plan)),
    }
}

/// So much of the usual amount.
fn share(usual: u64, plan: &Plan) -> u64 {
    (usual * plan.effort / 100).max(1)
}

/// Thousandths.
fn per_mille(done: u64, of: u64) -> u64 {
    done * 1_000 / of.max(1)
}
