//! The errno of the calling thread.

pub(super) fn errno() -> i32 {
    // SAFETY: The pointer is to this thread's errno, which always lives.
    unsafe { *libc::__errno_location() }
}
