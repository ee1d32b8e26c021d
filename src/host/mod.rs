//! stub

pub mod doctor;
pub mod netlink;
pub mod route;
pub mod rules;
pub mod sysctl;
