//! The C heap that libav* and everything else in the process share.

/// Gives pages that nothing uses back to the system; returns whether there were any. Takes milliseconds.
///
/// Allocators keep what was freed for the next time. A process that idles for long wants it gone.
pub fn give_back_pages() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: glibc's malloc_trim takes a number of bytes and is safe to call from any thread.
        unsafe { malloc_trim(0) != 0 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}
