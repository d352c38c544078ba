//! What the kernel accounts to BPF programs and to processes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::sys::{Stats, enable_stats};

/// Lets the kernel count the runs of each BPF program and their time, as long as this descriptor is open.
///
/// # Errors
/// When the kernel refuses it.
pub fn enable() -> io::Result<OwnedFd> {
    enable_stats(Stats::RunTime).map_err(|error| error.io_error)
}

/// CPU time that a process used so far, with that of its threads that have ended.
///
/// # Errors
/// When it is gone, or not to be asked for.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: The call writes one clock id, which outlives it.
    let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: The call writes one timespec, which outlives it.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call has succeeded, so it is written.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    ))
}
