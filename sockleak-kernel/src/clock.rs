//! The kernel's clocks: boot time as wall-clock time, and the tick.
//!
//! Boot time is the kernel's own, as BPF programs read it. CLOCK_BOOTTIME of a process differs from it by the offset of
//! the process's time namespace.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};

/// The initial time namespace (PROC_TIME_INIT_INO, include/linux/proc_ns.h).
const INITIAL_TIME_NAMESPACE: u64 = 0xEFFF_FFFA;

/// The distance between boot time and CLOCK_REALTIME when it was sampled. Sample again after a while:
/// the wall clock may be set, and the two drift apart while it is disciplined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootClock {
    /// CLOCK_REALTIME minus boot time, in nanoseconds.
    offset: i128,
}

impl BootClock {
    /// Reads both clocks now.
    #[must_use]
    pub fn sample() -> Self {
        // The wall clock is read between two readings of the other, so that half a preemption is the error.
        let before = boottime_ns();
        let wall = read(libc::CLOCK_REALTIME);
        let after = boottime_ns();
        let boot = u64::midpoint(before, after);
        Self {
            offset: wall - i128::from(boot),
        }
    }

    /// The wall-clock time of a moment in boot-time nanoseconds; `None` beyond the year 9999.
    #[must_use]
    pub fn timestamp(&self, boottime_ns: u64) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.offset + i128::from(boottime_ns)).ok()
    }

    /// The moment in boot-time nanoseconds of a wall-clock time; 0 before the boot.
    #[must_use]
    pub fn boottime_ns(&self, time: Timestamp) -> u64 {
        u64::try_from(time.as_nanosecond() - self.offset).unwrap_or(0)
    }
}

/// Boot time now, in nanoseconds: the clock of `bpf_ktime_get_boot_ns`.
#[must_use]
pub fn boottime_ns() -> u64 {
    u64::try_from(read(libc::CLOCK_BOOTTIME) - namespace_offset()).unwrap_or(0)
}

/// By how many nanoseconds CLOCK_BOOTTIME of this process is ahead of boot time; 0 where [`time_namespace`] fails.
pub(super) fn namespace_offset() -> i128 {
    OFFSET.as_ref().copied().unwrap_or(0)
}

/// Whether this process can work in its time namespace, and the offset is known, without which every moment would be wrong.
///
/// # Errors
///
/// Why it is not, in words.
pub fn time_namespace() -> Result<(), String> {
    OFFSET.as_ref().map(drop).map_err(Clone::clone)
}

static OFFSET: LazyLock<Result<i128, String>> = LazyLock::new(read_offset);

fn read_offset() -> Result<i128, String> {
    const OFFSETS: &str = "/proc/self/timens_offsets";
    let inode = |name| Ok(fs::metadata(Path::new("/proc/self/ns").join(name))?.ino());
    let own = match inode("time") {
        Ok(own) => own,
        // Without CONFIG_TIME_NS every process has the kernel's clocks.
        Err(error) if io::Error::kind(&error) == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(format!("/proc/self/ns/time cannot be read: {error}")),
    };
    // The file tells about the namespace of the children (`proc_timens_show_offsets`, kernel/time/namespace.c), and a process
    // that is in another one can start no thread (`copy_process`, kernel/fork.c).
    if inode("time_for_children").ok() != Some(own) {
        return Err("its children would be in another time namespace, so it can start no threads".to_owned());
    }
    if own == INITIAL_TIME_NAMESPACE {
        return Ok(0);
    }
    let text = fs::read_to_string(OFFSETS).map_err(|error| format!("{OFFSETS} cannot be read: {error}"))?;
    boottime_offset(&text).ok_or_else(|| format!("{OFFSETS} is not as documented in time_namespaces(7)"))
}

/// The line of CLOCK_BOOTTIME: its name, seconds, nanoseconds. The seconds of a negative offset are rounded down.
fn boottime_offset(text: &str) -> Option<i128> {
    let mut fields = text
        .lines()
        .find_map(|line| line.strip_prefix("boottime "))?
        .split_ascii_whitespace();
    let (seconds, nanoseconds): (i128, i128) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// The kernel's tick rate, CONFIG_HZ: the resolution of the coarse clock is one tick.
///
/// # Errors
///
/// When the clock is not there, which is true of no Linux since 2.6.32.
pub fn hz() -> io::Result<u32> {
    let mut resolution = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: The pointer is to a timespec that the kernel may write.
    let status = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, resolution.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call succeeded, so it wrote the resolution.
    let resolution = unsafe { resolution.assume_init() };
    Ok(rate(resolution.tv_nsec))
}

/// Ticks a second from the length of a tick in nanoseconds, which the kernel cut to an integer.
fn rate(tick_ns: i64) -> u32 {
    let tick = tick_ns.max(1);
    ((1_000_000_000 + tick / 2) / tick) as u32
}

/// USER_HZ ticks, as in `/proc/PID/stat`, in nanoseconds.
pub(super) fn from_ticks(ticks: u64) -> u64 {
    // SAFETY: The call takes no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).unwrap_or(100).max(1);
    ticks.saturating_mul(1_000_000_000 / per_second)
}

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: The pointer is to a live timespec. The call cannot fail for clocks that every kernel has.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    SignedDuration::new(time.tv_sec, time.tv_nsec as i32).as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_becomes_wall_clock_time() {
        let clock = BootClock::sample();
        let boot = boottime_ns();
        let told = clock.timestamp(boot).unwrap();
        let error = Timestamp::now().duration_since(told).as_millis();
        assert!(error.abs() < 200, "{error} ms");
        assert_eq!(clock.boottime_ns(told), boot);
        assert_eq!(clock.boottime_ns(Timestamp::UNIX_EPOCH), 0);
        assert!(clock.timestamp(u64::MAX).is_some());
    }

    #[test]
    fn an_offset_is_the_sum_of_its_line() {
        let offset = |line: &str| boottime_offset(&format!("monotonic        5000         0\n{line}\n"));
        assert_eq!(
            offset("boottime       100000       250"),
            Some(100_000_000_000_250)
        );
        assert_eq!(offset("boottime           -6 500000000"), Some(-5_500_000_000));
        assert_eq!(offset("boottime            1"), None);
        assert_eq!(offset(""), None);
    }

    #[test]
    fn the_tick_is_one_of_those_that_can_be_configured() {
        assert!([100, 250, 300, 1000].contains(&hz().unwrap()));
        assert_eq!(
            [
                rate(10_000_000),
                rate(4_000_000),
                rate(3_333_333),
                rate(1_000_000)
            ],
            [100, 250, 300, 1000]
        );
        assert_eq!(from_ticks(100), 1_000_000_000);
    }
}
