//! An allocator that counts: what a piece of code allocates, and what it still holds.
#![allow(
    unsafe_code,
    reason = "a global allocator is unsafe by its trait; the one here only counts and hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Whether this thread's allocations are being counted.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    /// Calls of `alloc` and `realloc` while counting.
    pub static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated less bytes freed while counting.
    pub static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread: tests run side by side.
struct Counting;

fn note(calls: u64, taken: usize, freed: usize) {
    // A thread that is ending has no count any more.
    let _ = COUNTING.try_with(|counting| {
        if counting.get() {
            CALLS.set(CALLS.get() + calls);
            let size = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
            HELD.set(HELD.get() + size(taken) - size(freed));
        }
    });
}

// SAFETY: every call is handed to `System` unchanged, which keeps the trait's contract; the counters are constant-initialised
// thread-locals without destructors, so that touching them never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size(), 0);
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, 0, layout.size());
        // SAFETY: `at` came from `System` by `alloc` or `realloc`, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size, layout.size());
        // SAFETY: as for `dealloc`; `size` is the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` and adds what it allocates to the counts.
pub fn counted<T>(f: impl FnOnce() -> T) -> T {
    COUNTING.set(true);
    let result = f();
    COUNTING.set(false);
    result
}
