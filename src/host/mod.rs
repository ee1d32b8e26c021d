//! stub

pub mod netlink;
pub mod rules;
