//! Freed buffers go back to the kernel.

/// From this many bytes on, a block is mapped by itself and given back whole when it is freed: glibc's own first threshold.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Fixes glibc's threshold for blocks that are mapped by themselves. Left alone it grows with each such block that is freed, up to
/// 32 MiB, and a connection's buffers (`flow_buffer`) come out of the workers' heaps from then on. They are freed in another order than they were made, so the
/// heaps never shrink: a daemon without a single connection was seen to keep 24 MiB after half an hour, with more each minute. To be
/// called before the first thread starts.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "glibc's settings are known to no crate in use")]
pub fn give_back_buffers() {
    // SAFETY: mallopt takes two integers, touches only the allocator's own settings, and locks while it does.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
}

/// Other C libraries keep their thresholds.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_buffers() {}

/// Gives every free page of all heaps back to the kernel: a heap shrinks by itself only from its end, and a single small block there
/// keeps all that was freed before it. Takes milliseconds after tens of thousands of connections, and another thread that allocates may
/// wait as long: for the moment when a worker's last connection of many has gone.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "glibc's heaps are known to no crate in use")]
pub fn trim() {
    // SAFETY: malloc_trim takes an integer, locks each heap while it works on it, and touches only pages without a block in use.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have their own ways.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
