//! A watched process becomes another program.

use aya_ebpf::helpers::bpf_get_current_comm;
use sockleak_ebpf::{EVENT_EXEC, EventHeader, ExecEvent};

use crate::maps::send;
use crate::places::watched;
use crate::preemption::{Copy, Work, program};
use crate::task::{current_tgid, now};

program!(
    "sched_process_exec":
    sched_process_exec => |_| run(Copy::First),
    sched_process_exec_2 => |_| run(Copy::Second),
);

#[inline(always)]
fn run(copy: Copy) {
    let tgid = current_tgid();
    if watched(tgid).is_some() && copy.has_to(Work::exec(tgid)) {
        send(ExecEvent {
            header: EventHeader {
                time: now(),
                kind: EVENT_EXEC,
                tgid,
            },
            comm: bpf_get_current_comm().unwrap_or_default(),
        });
    }
}
