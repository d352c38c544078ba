//! A watched process makes a child, which is watched before it runs.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockleak_ebpf::{EVENT_FORK, EventHeader, ForkEvent, WATCHED_SHARES_FILES, Watched, counter};

use crate::maps::{WATCHED, count, send};
use crate::memory::read_or_zero;
use crate::offsets::{FOLLOW_CHILDREN, TASK_FILES, TASK_START_BOOTTIME};
use crate::task::{now, tgid};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    if FOLLOW_CHILDREN.load() == 0 {
        return 0;
    }
    let parent: *const core::ffi::c_void = ctx.arg(0);
    let child: *const core::ffi::c_void = ctx.arg(1);
    let (parent, child) = (parent as u64, child as u64);
    let (parent_tgid, child_tgid) = (tgid(parent), tgid(child));
    if parent_tgid == child_tgid || WATCHED.get_ptr(parent_tgid).is_none() {
        return 0;
    }
    let parent_files: u64 = read_or_zero(parent, TASK_FILES.load());
    let child_files: u64 = read_or_zero(child, TASK_FILES.load());
    let flags = if parent_files == child_files {
        WATCHED_SHARES_FILES
    } else {
        0
    };
    let watched = Watched {
        start: read_or_zero(child, TASK_START_BOOTTIME.load()),
        flags,
        parent: parent_tgid,
        ..Watched::default()
    };
    if WATCHED.insert(child_tgid, watched, 0).is_err() {
        count(counter::PROCESS_FAILED);
        return 0;
    }
    send(ForkEvent {
        header: EventHeader {
            time: now(),
            kind: EVENT_FORK,
            tgid: parent_tgid,
        },
        child: child_tgid,
        flags,
    });
    0
}
