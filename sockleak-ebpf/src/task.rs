//! Reading `struct task_struct`.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns};

use crate::memory::{read, read_or_zero};
use crate::offsets::{PID_LEVEL, PID_NUMBERS, TASK_TGID, TASK_THREAD_PID, UPID_NR};

/// `sizeof(struct upid)` (include/linux/pid.h): an int and a pointer.
const UPID_SIZE: u64 = 16;

/// Nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Process id of the current task. It owns what it does only where the kernel runs in process context.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Writes the name of the current task to where it belongs: a copy of it would be taken byte by byte.
#[inline(always)]
pub fn current_comm(place: &mut [u8; 16]) {
    // SAFETY: The helper writes at most the given size to `place`, and always a terminating zero.
    unsafe { bpf_get_current_comm(place.as_mut_ptr().cast(), place.len() as u32) };
}

/// Process id of a task.
#[inline(always)]
pub fn tgid(task: u64) -> u32 {
    read_or_zero(task, TASK_TGID.load())
}

/// The task's process id in its own PID namespace, 0 if unknown. `thread_pid` is that of the task, so
/// the caller passes the thread-group leader.
#[inline(always)]
pub fn ns_pid(leader: u64) -> u32 {
    let Some(pid) = read::<u64>(leader, TASK_THREAD_PID.load()) else {
        return 0;
    };
    let level: u32 = read_or_zero(pid, PID_LEVEL.load());
    let numbers = pid + u64::from(PID_NUMBERS.load());
    // MAX_PID_NS_LEVEL is 32 (include/linux/pid_namespace.h).
    read_or_zero(numbers + u64::from(level & 63) * UPID_SIZE, UPID_NR.load())
}
