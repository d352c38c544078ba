//! Whose process the current task is, without a call.
//!
//! Where every return is made safe against speculation, as on many x86 processors, the helper that tells it takes longer
//! than all else that is done for a socket that nobody follows. But each CPU has a run queue that points to the task it
//! runs, and stays where it is: so its place is found once for each CPU, and read from then on.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_smp_processor_id};
use sockleak_ebpf::{RDONLY_CAST, TASK_STRUCT};

use crate::memory::read_or_zero;
use crate::offsets::{CFS_RQ_RQ, HAS_CASTS, RQ_CURR, TASK_CFS_RQ, TASK_TGID};
use crate::task;

/// CPUs that have a place; the others ask the helper.
const CPUS: usize = 1024;

/// For each CPU the address of `rq.curr`, 0 before it is found.
struct Places(UnsafeCell<[u64; CPUS]>);

// SAFETY: Each CPU has a place of its own, which is written as a whole and always with the same value: no program
// migrates, so the number of its CPU stays right (`bpf_get_smp_processor_id`, include/uapi/linux/bpf.h).
unsafe impl Sync for Places {}

static PLACES: Places = Places(UnsafeCell::new([0; CPUS]));

/// Process id of the current task, as [`task::current_tgid`] tells it. A program that is preempted on the way goes on
/// where it was: its own task is then the current one of that CPU again.
#[inline(always)]
pub fn tgid() -> u32 {
    if HAS_CASTS.load() == 0 {
        return task::current_tgid();
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() } as usize;
    if cpu >= CPUS {
        return task::current_tgid();
    }
    let place = PLACES.0.get().cast::<u64>().wrapping_add(cpu);
    // SAFETY: The place is within the array. Other runs of the program write it, so that it is read as it is in memory.
    let curr = unsafe { place.read_volatile() };
    if curr == 0 {
        return find(place);
    }
    // SAFETY: An address that faults reads as zero. What is there changes whenever the CPU goes on with another task.
    unsafe {
        let task: u64 = cast(curr).cast::<u64>().read_volatile();
        let tgid: *const u32 = cast(task).byte_add(TASK_TGID.load() as usize).cast();
        tgid.read_volatile()
    }
}

/// An address that may be read without a helper, as that of a `struct task_struct`. The kernel's function does nothing,
/// and no call of it is left when a verifier is done (`fixup_kfunc_call`, kernel/bpf/verifier.c).
#[inline(always)]
fn cast(address: u64) -> *const core::ffi::c_void {
    // SAFETY: In BPF a function pointer is a helper's number. User space replaces this one, which is none, by a call of
    // the kernel's function of these arguments, and the second of them by the id that is meant.
    let function: extern "C" fn(u64, u32) -> *const core::ffi::c_void =
        unsafe { core::mem::transmute(RDONLY_CAST) };
    function(address, TASK_STRUCT)
}

/// Finds what this CPU has in its place, by the task that it runs, and asks the helper this time.
#[inline(never)]
fn find(place: *mut u64) -> u32 {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let queue: u64 = read_or_zero(task, TASK_CFS_RQ.load());
    let run_queue: u64 = read_or_zero(queue, CFS_RQ_RQ.load());
    if read_or_zero::<u64>(run_queue, RQ_CURR.load()) == task {
        // SAFETY: It is a place in the array.
        unsafe { place.write_volatile(run_queue + u64::from(RQ_CURR.load())) };
    }
    task::current_tgid()
}
