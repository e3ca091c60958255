//! Settings of the C library's allocator.

/// Makes the allocator give memory back early, at the price of more system calls: one arena for
/// all threads, large blocks mapped one by one, little kept at the top. For processes that exist a
/// thousand times and do little. Call it before other threads exist.
pub fn keep_heap_small() {
    const BLOCK_BYTES: libc::c_int = 64 * 1024;
    const TRIM_BYTES: libc::c_int = 64 * 1024;
    const PAD_BYTES: libc::c_int = 16 * 1024;
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, BLOCK_BYTES),
        (libc::M_TRIM_THRESHOLD, TRIM_BYTES),
        (libc::M_TOP_PAD, PAD_BYTES),
    ] {
        // SAFETY: sets a number in the allocator under its own lock; an unknown one is ignored.
        unsafe { libc::mallopt(parameter, value) };
    }
}
