//! What the kernel accounts to a process: CPU time, resident memory, and its end.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sockleak_kernel::{accounting, pidfd};

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

/// CPU time that a process used so far.
///
/// # Errors
/// When it has ended.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    accounting::cpu_time(pid).with_context(|| format!("process {pid} is gone"))
}

/// Waits until every one of these processes is dead and has closed its files; the moment of the last.
///
/// # Errors
/// When one lives on.
pub fn wait_for_deaths(pidfds: &[OwnedFd]) -> Result<Instant> {
    let start = Instant::now();
    for pidfd in pidfds {
        if !pidfd::exits_within(pidfd.as_fd(), LIMIT.saturating_sub(start.elapsed())) {
            bail!("a process that was killed lives on after {} s", LIMIT.as_secs());
        }
    }
    Ok(Instant::now())
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

    /// A thread that has ended counts too.
    #[test]
    fn knows_how_long_a_process_ran() {
        let before = cpu_time(std::process::id()).expect("it runs");
        let work = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {}
        };
        std::thread::spawn(work).join().expect("it ends");
        assert!(cpu_time(std::process::id()).expect("it runs") > before);
    }
}
