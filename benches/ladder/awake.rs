//! Keeps idle cores polling while the bench runs, as a host that is tuned for latency does.
//!
//! A virtual machine's halted core takes tens of microseconds to wake, and the one that wakes it pays for the interrupt. That would be
//! counted as the replicas' round trip, and the engine's work, although real replicas are other machines.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

/// Holds the wish for a wake-up latency of 0 µs (the kernel's PM QoS interface) until dropped. `None`, and a note, if it can't be had.
pub fn keep_cores_awake() -> Option<File> {
    let open = || -> std::io::Result<File> {
        let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
        file.write_all(&0i32.to_ne_bytes())?;
        Ok(file)
    };
    open()
        .inspect_err(|error| {
            println!("note: idle cores can't be kept awake (/dev/cpu_dma_latency: {error}): relevo3 will look slower")
        })
        .ok()
}
