//! Memory that was freed and is still the process's.

/// Returns to the system what has been free for a second or so. The allocator does that by itself only while it is freeing:
/// what a crowd of clients leaves behind in one moment it would keep until the next one comes. Takes microseconds.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
pub fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
