//! A thread ends. The last one of a watched process tells how the process died, and its fd table is
//! still whole: no version of `do_exit` (kernel/exit.c) closes a file before this tracepoint.

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::warn;
use sockleak_ebpf::{
    DEATH_IO_URING, DEATH_OOM, EVENT_DEATH, EventHeader, ProcessKey, SIGNAL_GROUP_EXIT, WATCHED_IO_URING,
    WATCHED_MANY_TABLES, Watched, counter,
};

use crate::fd_table;
use crate::maps::{BPF_NOEXIST, DEATHS, DYING, EEXIST, WATCHED, count, send};
use crate::memory::{read_into, read_or_zero};
use crate::offsets::*;
use crate::places::watched;
use crate::preemption::program;
use crate::task::{current_tgid, now, ns_pid};

// A copy that comes after another finds the process no longer watched.
program!(
    "sched_process_exit":
    sched_process_exit => run,
    sched_process_exit_2 => run,
);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    if begin(ctx) {
        fd_table::walk();
        end(ctx);
    }
}

/// Records the death if this thread is the last of a watched process, and begins the walk over its fd table.
/// Returns whether there is one to be made.
#[inline(always)]
fn begin(ctx: &RawTracePointContext) -> bool {
    let tgid = current_tgid();
    let Some(watched) = watched(tgid) else {
        return false;
    };
    let task: *const core::ffi::c_void = ctx.arg(0);
    let task = task as u64;
    // SAFETY: the entry was found just now and is not preallocated: it stays readable in this program.
    let watched = unsafe { &mut *watched };
    if read_or_zero::<u64>(task, TASK_IO_URING.load()) != 0 {
        watched.flags |= WATCHED_IO_URING;
    }
    let signal: u64 = read_or_zero(task, TASK_SIGNAL.load());
    let group_dead = if HAS_GROUP_DEAD.load() != 0 {
        ctx.arg::<u64>(1) as u8 != 0
    } else {
        read_or_zero::<u32>(signal, SIGNAL_LIVE.load()) == 0
    };
    if group_dead || read_or_zero::<u32>(signal, SIGNAL_FLAGS.load()) & SIGNAL_GROUP_EXIT != 0 {
        compare_tables(task, watched);
    }
    group_dead && record(tgid, task, signal, watched)
}

/// A thread may have left the common table (unshare() with CLONE_FILES); only that of the last one is walked.
#[inline(always)]
fn compare_tables(task: u64, watched: &mut Watched) {
    // A `struct files_struct` is larger than 16 bytes.
    let table = (read_or_zero::<u64>(task, TASK_FILES.load()) >> 4) as u32;
    if watched.table == 0 {
        watched.table = table;
    } else if watched.table != table {
        watched.flags |= WATCHED_MANY_TABLES;
    }
}

#[inline(always)]
fn record(tgid: u32, task: u64, signal: u64, watched: &Watched) -> bool {
    let (Some(walk), Some(death)) = (fd_table::current(), DYING.get_ptr_mut(0)) else {
        return false;
    };
    // SAFETY: this CPU's element, which no other program uses.
    let death = unsafe { &mut *death };
    let time = now();
    let leader: u64 = read_or_zero(task, TASK_GROUP_LEADER.load());
    let files: u64 = read_or_zero(task, TASK_FILES.load());
    let mut flags = 0;
    if read_or_zero::<u64>(signal, SIGNAL_OOM_MM.load()) != 0 {
        flags |= DEATH_OOM;
    }
    if watched.flags & WATCHED_IO_URING != 0 {
        flags |= DEATH_IO_URING;
    }
    let key = ProcessKey {
        start: read_or_zero(leader, TASK_START_BOOTTIME.load()),
        tgid,
        _pad: 0,
    };
    death.time = time;
    // The kernel's parent is told the leader's, not that of the last thread (wait_task_zombie).
    death.exit_code = read_or_zero(leader, TASK_EXIT_CODE.load());
    death.group_exit_code = read_or_zero(signal, SIGNAL_GROUP_EXIT_CODE.load());
    death.signal_flags = read_or_zero(signal, SIGNAL_FLAGS.load());
    death.flags = flags;
    death.files_users = read_or_zero(files, FILES_COUNT.load());
    death.ns_pid = ns_pid(leader);
    death.sockets = 0;
    death.not_recorded = 0;
    death.slots_skipped = 0;
    death.walk_ns = 0;
    read_into(&mut death.comm, leader, TASK_COMM.load());
    death.watched = *watched;
    // Before 6.16 two threads may both find that none is left: the first one's insert wins.
    match DEATHS.insert(key, &*death, BPF_NOEXIST) {
        Ok(()) => {}
        Err(EEXIST) => return false,
        Err(_) => {
            count(counter::PROCESS_FAILED);
            return false;
        }
    }
    walk.begin(files, key, time);
    true
}

/// Completes the record of the death with what the walk found, and tells user space.
#[inline(always)]
fn end(ctx: &RawTracePointContext) {
    let Some(walk) = fd_table::current() else {
        return;
    };
    let tgid = walk.process.tgid;
    if let Some(death) = DEATHS.get_ptr_mut(walk.process) {
        // SAFETY: the entry was found just now, and only this thread writes to it.
        let death = unsafe { &mut *death };
        death.sockets = walk.sockets;
        death.not_recorded = walk.not_recorded;
        death.slots_skipped = walk.slots_skipped;
        death.walk_ns = (now() - walk.time) as u32;
    }
    if walk.not_recorded != 0 {
        warn!(
            ctx,
            "process {}: {} sockets did not fit into the maps", tgid, walk.not_recorded
        );
    }
    if walk.slots_skipped != 0 {
        warn!(
            ctx,
            "process {}: {} descriptors were not looked at", tgid, walk.slots_skipped
        );
    }
    // Its PID may be reused from now on.
    let _ = WATCHED.remove(tgid);
    send(EventHeader {
        time: walk.time,
        kind: EVENT_DEATH,
        tgid,
    });
}
