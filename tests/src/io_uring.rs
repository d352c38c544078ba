//! The little of io_uring that can hold a socket without a descriptor: registered files and direct descriptors.

use std::io::{self, Error};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_CQ_RING: i64 = 0x800_0000;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_REGISTER_FILES: u32 = 2;
const IORING_OP_ACCEPT: u8 = 13;
const IORING_OP_OPENAT: u8 = 18;
const ENTRIES: u32 = 1;

/// `struct io_uring_params` of include/uapi/linux/io_uring.h with its offsets of both rings.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread: [u32; 2],
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq: Offsets,
    cq: Offsets,
}

/// `struct io_sqring_offsets` and `struct io_cqring_offsets`, which differ in what follows `ring_entries`:
/// the sixth is `cqes` of the one, the seventh `array` of the other.
#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    fifth: u32,
    cqes: u32,
    array: u32,
    resv: u32,
    user_addr: u64,
}

/// `struct io_uring_sqe`, as far as accept and openat use it.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_index: u16,
    personality: u16,
    /// 0 for an ordinary descriptor, else one more than the slot of the registered files.
    file_index: u32,
    rest: [u64; 2],
}

/// A ring. What was put into it ends some time after the last process that has its descriptor.
pub struct Ring {
    fd: OwnedFd,
    params: Params,
}

impl Ring {
    /// # Errors
    /// `ENOSYS` without io_uring, `EPERM` where `kernel.io_uring_disabled` switches it off.
    pub fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: The call reads and writes one io_uring_params, which outlives it.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        let fd = RawFd::try_from(checked(fd)?).map_err(Error::other)?;
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, params })
    }

    /// Registers files, which the ring then holds by itself; -1 leaves a slot empty.
    pub fn register(&self, files: &[RawFd]) -> io::Result<()> {
        let count = u32::try_from(files.len()).map_err(Error::other)?;
        let ring = self.fd.as_raw_fd();
        // SAFETY: The pointer and the count describe `files`, which outlives the call.
        checked(unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                IORING_REGISTER_FILES,
                files.as_ptr(),
                count,
            )
        })?;
        Ok(())
    }

    /// Accepts a connection into slot 0 of the registered files. It never has a descriptor.
    pub fn accept_direct(&self, listener: impl AsFd) -> io::Result<()> {
        self.submit(Submission {
            opcode: IORING_OP_ACCEPT,
            fd: listener.as_fd().as_raw_fd(),
            file_index: 1,
            ..Submission::default()
        })
        .and_then(is_direct)
    }

    /// Submits one request and waits for its result.
    fn submit(&self, submission: Submission) -> io::Result<i32> {
        let page = 4096;
        let sq = Mapping::new(&self.fd, IORING_OFF_SQ_RING, page)?;
        let cq = Mapping::new(&self.fd, IORING_OFF_CQ_RING, page)?;
        let entries = Mapping::new(&self.fd, IORING_OFF_SQES, page)?;
        // SAFETY: A ring of one entry has its only submission at the start of that mapping, which is page-aligned.
        unsafe { entries.0.cast::<Submission>().write(submission) };
        sq.word(self.params.sq.array).store(0, Ordering::Relaxed);
        sq.word(self.params.sq.tail).fetch_add(1, Ordering::Release);
        let ring = self.fd.as_raw_fd();
        let no_mask = ptr::null::<libc::sigset_t>();
        // SAFETY: The kernel reads the submission, whose pointers the caller keeps alive until it is answered.
        checked(unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                1,
                1,
                IORING_ENTER_GETEVENTS,
                no_mask,
                0,
            )
        })?;
        let head = cq.word(self.params.cq.head).load(Ordering::Relaxed);
        let mask = cq.word(self.params.cq.ring_mask).load(Ordering::Relaxed);
        // The result follows the 64 bits of user data in an entry of 16 bytes.
        let result = cq.word(self.params.cq.cqes + (head & mask) * 16 + 8);
        let result = result.load(Ordering::Acquire).cast_signed();
        cq.word(self.params.cq.head)
            .store(head.wrapping_add(1), Ordering::Release);
        if result < 0 {
            return Err(Error::from_raw_os_error(-result));
        }
        Ok(result)
    }
}

/// A direct descriptor is answered by 0. A kernel that does not know them answers with an ordinary one.
fn is_direct(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        fd => {
            // SAFETY: The call has just made this descriptor, and nobody else owns it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Err(Error::from(io::ErrorKind::Unsupported))
        }
    }
}

/// Whether the kernel has io_uring and lets this process use it.
#[must_use]
pub fn is_there() -> bool {
    Ring::new().is_ok()
}

/// Whether a request can put its file into a slot of the ring instead of the table.
#[must_use]
pub fn has_direct_descriptors() -> bool {
    let open = || {
        let ring = Ring::new()?;
        ring.register(&[-1])?;
        let path = c"/dev/null";
        is_direct(ring.submit(Submission {
            opcode: IORING_OP_OPENAT,
            fd: libc::AT_FDCWD,
            addr: path.as_ptr().addr() as u64,
            file_index: 1,
            ..Submission::default()
        })?)
    };
    open().is_ok()
}

/// Memory that is shared with the kernel.
struct Mapping(*mut libc::c_void, usize);

impl Mapping {
    fn new(ring: &OwnedFd, offset: i64, length: usize) -> io::Result<Self> {
        // SAFETY: A mapping at an address that the kernel chooses changes no memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self(start, length))
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        let offset = offset as usize;
        assert!(offset + size_of::<u32>() <= self.1 && offset.is_multiple_of(4));
        // SAFETY: The word lies within the mapping, is aligned, and is shared with the kernel as an atomic.
        unsafe { AtomicU32::from_ptr(self.0.cast::<u8>().add(offset).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, and no reference into it outlives it.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}
