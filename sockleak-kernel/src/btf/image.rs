//! The bytes of BTF, in memory.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::NonNull;
use std::slice;

/// BTF that was read, or the kernel's own, mapped.
#[derive(Debug)]
pub(super) enum Image {
    Copy(Vec<u8>),
    Mapped(Mapping),
}

impl Image {
    /// The kernel's own bytes where it lends them (6.16 and later), which costs neither a copy nor memory; else a copy.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn of_kernel(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        match Mapping::of(&file) {
            Some(mapping) => Ok(Self::Mapped(mapping)),
            None => fs::read(path).map(Self::Copy),
        }
    }
}

impl Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Copy(bytes) => bytes,
            Self::Mapped(mapping) => mapping.bytes(),
        }
    }
}

/// A read-only mapping of the kernel's BTF.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// `None` if the kernel does not lend the file (`btf_sysfs_vmlinux_mmap`, kernel/bpf/sysfs_btf.c).
    fn of(file: &File) -> Option<Self> {
        let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
        // SAFETY: A new mapping takes the place of no other memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        NonNull::new(start.cast()).map(|start| Self { start, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: So many bytes are mapped until the drop, and they are a part of the kernel's image that never changes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: This is the whole mapping, and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
