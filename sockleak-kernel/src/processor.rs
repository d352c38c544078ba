//! On which processor a thread runs.

use std::mem::{size_of_val, zeroed};

use libc::cpu_set_t;

/// For a new thread: the same work, but not on the processor on which the calling thread runs now, if there is another one.
/// A thread that lives for some milliseconds often begins where its parent runs and is over before the kernel moves it.
pub fn elsewhere<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    // SAFETY: The call takes no pointers.
    let here = unsafe { libc::sched_getcpu() };
    move || {
        if let Ok(here) = usize::try_from(here) {
            leave(here);
        }
        work()
    }
}

/// The calling thread runs on this processor no more, if it may run on another one. Where the kernel refuses that, all is
/// as before: a set without processors is refused, too.
fn leave(processor: usize) {
    let Some(mut allowed) = allowed() else {
        return;
    };
    // SAFETY: The pointer and the size are those of the set. It has every processor's number, or the kernel would not have
    // filled it (`sys_sched_getaffinity`, kernel/sched/syscalls.c).
    unsafe {
        libc::CPU_CLR(processor, &mut allowed);
        libc::sched_setaffinity(0, size_of_val(&allowed), &raw const allowed);
    }
}

/// The processors that the calling thread may run on; `None` if there are more than a set has room for.
fn allowed() -> Option<cpu_set_t> {
    // SAFETY: All zero is an empty set, and the pointer and the size are those of a set that the call may write.
    unsafe {
        let mut set = zeroed();
        (libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) == 0).then_some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count() -> i32 {
        let allowed = allowed().unwrap();
        // SAFETY: The call only reads the set.
        unsafe { libc::CPU_COUNT(&allowed) }
    }

    #[test]
    fn one_processor_fewer_and_never_none() {
        let all = count();
        let work = elsewhere(count);
        let left = std::thread::spawn(work).join().unwrap();
        assert_eq!(left, (all - 1).max(1));
        assert_eq!(count(), all);
    }
}
