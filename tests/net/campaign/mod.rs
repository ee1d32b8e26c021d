//! The fault campaign: real services between real stacks under load, and one thing that goes wrong in each run.
//!
//! A run is drawn from its seed ([`plan`]): the load ([`load`]), the fault ([`fault`]), whom or which link it hits, and at which
//! point of the client's work. Then the same questions are always asked ([`judge`]): has the client got all it asked for, are the live
//! machines identical, has a reset reached the client, and do the engine's own books balance. [`death`] is another story: there it
//! is the engine that dies.
//!
//! A seed draws the same run again, but real kernels don't replay exactly; so a run that fails keeps its logs, the engine's
//! status and captures of every host in the directory that it names.

pub mod death;
pub mod fault;
pub mod judge;
pub mod load;
pub mod plan;
pub mod run;
