//! Programs that have more rights than the one who runs them.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{fs, mem};

use crate::net::checked;

/// include/uapi/linux/capability.h.
pub const CAP_DAC_OVERRIDE: u32 = 1;
pub const CAP_DAC_READ_SEARCH: u32 = 2;
pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_SYS_ADMIN: u32 = 21;

/// Gives a program these capabilities, all below 32, as setcap(8) does with `=ep`.
///
/// # Errors
/// Without CAP_SETFCAP, or on a file system that cannot keep them.
pub fn give(program: &Path, capabilities: &[u32]) -> io::Result<()> {
    // struct vfs_cap_data: VFS_CAP_REVISION_2 with VFS_CAP_FLAGS_EFFECTIVE, then permitted and inheritable, in two halves.
    let permitted = capabilities.iter().fold(0_u32, |set, number| set | 1 << number);
    let value: Vec<u8> = [0x0200_0001, permitted, 0, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let path = CString::new(program.as_os_str().as_bytes())?;
    // SAFETY: Both strings end with NUL, and the pointer and the length are those of a live vector.
    checked(unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })?;
    Ok(())
}

/// Whether the programs of the tests can have them.
#[must_use]
pub fn are_possible() -> bool {
    let tried = || {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("program");
        fs::write(&file, "")?;
        give(&file, &[CAP_NET_ADMIN])?;
        let path = CString::new(file.as_os_str().as_bytes())?;
        // SAFETY: All-zero is a valid statvfs.
        let mut mounted: libc::statvfs = unsafe { mem::zeroed() };
        // SAFETY: The string ends with NUL, and the kernel writes one statvfs, which outlives the call.
        checked(unsafe { libc::statvfs(path.as_ptr(), &raw mut mounted) })?;
        io::Result::Ok(mounted.f_flag & libc::ST_NOSUID == 0)
    };
    tried().unwrap_or(false)
}
