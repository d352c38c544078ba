//! The page, in whole ones of which the kernel maps memory.

/// Bytes of a page.
#[must_use]
pub fn size() -> u32 {
    // SAFETY: The call takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).expect("the C library knows the size of a page")
}
