//! Relevo keeps a TCP service alive when the machine that runs it dies, in the middle of a connection.
//!
//! [`wire`] and [`engine`] are pure: bytes and a `now` in, a verdict and things to send out. [`host`] is everything that
//! touches the kernel. [`daemon`] joins them; [`config`] and [`cli`] are what a person writes.

// What a peer sends must not be cut silently, nor end the process. Tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::unwrap_used,
        clippy::panic
    )
)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
#[allow(unsafe_code, reason = "the kernel speaks C; each block says why it holds")]
pub mod host;
#[doc(hidden)]
pub mod mutant;
#[cfg(test)]
mod story;
mod variants;
pub mod wire;
