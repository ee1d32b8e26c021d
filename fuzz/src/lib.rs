//! What the fuzzer does with its bytes: one module a target, each with a `run` that panics where something is wrong.
//!
//! Compiled twice: by `make fuzz` with libFuzzer around it, and by `tests/fuzz.rs`, which replays the inputs in `fuzz/seeds`
//! (among them every one that ever crashed) as an ordinary test.

pub mod admin;
pub mod config;
pub mod edit;
pub mod engine;
pub mod netlink;
pub mod packet;
pub mod rules;
pub mod wire;

/// A target's name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of their binaries and of their folders in `fuzz/seeds`.
pub const TARGETS: &[Target] = &[
    ("wire", wire::run),
    ("edit", edit::run),
    ("engine", engine::run),
    ("config", config::run),
    ("admin", admin::run),
    ("rules", rules::run),
    ("netlink", netlink::run),
];
