//! What the kernel accounts to a process: CPU time, resident memory, and its end.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::fdinfo;

/// The longest that anything is waited for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The most that there ever was (VmHWM).
    pub peak: u64,
    /// What there is now (VmRSS).
    pub now: u64,
}

/// Of a process that runs.
///
/// # Errors
/// When it has ended.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    parse_memory(&status).with_context(|| format!("process {pid} has ended"))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let kib = |name| {
        fdinfo::value(status, name)?
            .strip_suffix(" kB")?
            .trim()
            .parse()
            .ok()
    };
    Some(Memory {
        peak: kib("VmHWM")?,
        now: kib("VmRSS")?,
    })
}

/// Lets the peak begin again at what there is now, so that it tells of what comes next. False where the kernel has no
/// `clear_refs` (CONFIG_PROC_PAGE_MONITOR).
pub fn reset_peak(pid: u32) -> bool {
    /// `CLEAR_REFS_MM_HIWATER_RSS` (fs/proc/task_mmu.c).
    const PEAK: &str = "5";
    fs::write(format!("/proc/{pid}/clear_refs"), PEAK).is_ok()
}

/// CPU time that all threads of a process used so far.
///
/// # Errors
/// When it was waited for already.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    let mut clock = 0;
    // SAFETY: The pointer is to a clock id that the call may write.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        bail!(
            "process {pid} has no CPU clock: {}",
            io::Error::from_raw_os_error(error)
        );
    }
    read_clock(clock).with_context(|| format!("the CPU clock of process {pid}"))
}

/// CPU time of the calling process.
pub fn own_cpu_time() -> Result<Duration> {
    Ok(read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)?)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: The pointer is to a timespec that the call may write.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    ))
}

/// Waits until every one of these processes is dead and has closed its files; the moment of the last.
///
/// # Errors
/// When one lives on.
pub fn wait_for_deaths(pidfds: &[OwnedFd]) -> Result<Instant> {
    let start = Instant::now();
    for pidfd in pidfds {
        if !dies_within(pidfd, LIMIT.saturating_sub(start.elapsed())) {
            bail!("a process that was killed lives on after {} s", LIMIT.as_secs());
        }
    }
    Ok(Instant::now())
}

/// Whether the process is dead and has closed its files, at the latest after that time.
pub fn dies_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: The pointer is to one pollfd, as the count says.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as libc::c_int) == 1 }
}

/// Waits for a condition that nothing announces.
///
/// # Errors
/// When it does not come true, or cannot be asked for.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > LIMIT {
            bail!("waited in vain: {what}");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Does something on each processor that this process may use.
///
/// # Errors
/// Those of `work`, and when the kernel refuses to move a thread.
pub fn on_each_cpu(work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    // SAFETY: All-zero is an empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: The pointer and the size are those of a set that the call may write.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error()).context("the processors");
    }
    let is_allowed = |cpu: &usize| {
        // SAFETY: The number is below that of the bits of a set.
        unsafe { libc::CPU_ISSET(*cpu, &allowed) }
    };
    for cpu in (0..libc::CPU_SETSIZE as usize).filter(is_allowed) {
        // A thread of its own, so that the caller and what it starts stay free to move.
        let done = std::thread::scope(|scope| scope.spawn(|| run_on(cpu, &work)).join());
        done.unwrap_or_else(|_| bail!("a thread panicked"))?;
    }
    Ok(())
}

fn run_on(cpu: usize, work: impl Fn() -> Result<()>) -> Result<()> {
    // SAFETY: All-zero is an empty set.
    let mut only: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: The caller took the number from a set.
    unsafe { libc::CPU_SET(cpu, &mut only) };
    // SAFETY: The pointer and the size are those of a set that the call reads.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&only), &raw const only) } != 0 {
        return Err(io::Error::last_os_error()).context("a thread could not be moved");
    }
    work()
}

/// Sends a signal to a child that was not waited for yet.
///
/// # Errors
/// When it was.
pub fn signal(pid: u32, signal: i32) -> Result<()> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    // SAFETY: The call takes integers.
    if unsafe { libc::kill(pid, signal) } != 0 {
        return Err(io::Error::last_os_error()).context("a child could not be signalled");
    }
    Ok(())
}

/// Allows this process and its children as many descriptors as an administrator would; how many.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_descriptor_limit() -> Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: The pointer is to an rlimit that the call may write.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error()).context("RLIMIT_NOFILE");
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: The pointer is to an rlimit that the call reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error()).context("RLIMIT_NOFILE");
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resident_memory() {
        let status = "Name:\tx\nVmPeak:\t   9000 kB\nVmHWM:\t   15980 kB\nVmRSS:\t   15000 kB\n";
        let memory = Memory {
            peak: 15_980,
            now: 15_000,
        };
        assert_eq!(parse_memory(status), Some(memory));
        // A dead process that was not waited for has no memory.
        assert_eq!(parse_memory("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn has_a_cpu_clock() {
        let own = cpu_time(std::process::id()).expect("it runs");
        assert!(own > Duration::ZERO);
        assert!(own_cpu_time().expect("it runs") >= own);
    }
}
