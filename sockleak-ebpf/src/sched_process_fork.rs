//! A watched process makes a child, which is watched before it runs.

use aya_ebpf::programs::RawTracePointContext;
use sockleak_ebpf::{EVENT_FORK, EventHeader, ForkEvent, WATCHED_SHARES_FILES, Watched, counter};

use crate::filter;
use crate::maps::{WATCHED, count, send};
use crate::memory::read_or_zero;
use crate::offsets::{FOLLOW_CHILDREN, TASK_FILES, TASK_START_BOOTTIME};
use crate::places::watched;
use crate::preemption::program;
use crate::task::{now, tgid};

program!("sched_process_fork": sched_process_fork => run, sched_process_fork_2 => run);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    if FOLLOW_CHILDREN.load() == 0 {
        return;
    }
    let parent: *const core::ffi::c_void = ctx.arg(0);
    let child: *const core::ffi::c_void = ctx.arg(1);
    let (parent, child) = (parent as u64, child as u64);
    let (parent_tgid, child_tgid) = (tgid(parent), tgid(child));
    if parent_tgid == child_tgid || watched(parent_tgid).is_none() {
        return;
    }
    let parent_files: u64 = read_or_zero(parent, TASK_FILES.load());
    let child_files: u64 = read_or_zero(child, TASK_FILES.load());
    let flags = if parent_files == child_files {
        WATCHED_SHARES_FILES
    } else {
        0
    };
    let start = read_or_zero(child, TASK_START_BOOTTIME.load());
    if let Some(watched) = WATCHED.get_ptr(child_tgid) {
        // SAFETY: the entry was found just now and is not preallocated: it stays readable in this program.
        if unsafe { (*watched).start } == start {
            // Another copy of this program was here already.
            return;
        }
    }
    let new = Watched {
        start,
        flags,
        parent: parent_tgid,
        ..Watched::default()
    };
    filter::will_be_watched(child_tgid);
    if WATCHED.insert(child_tgid, new, 0).is_err() {
        count(counter::PROCESS_FAILED);
        return;
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
}
