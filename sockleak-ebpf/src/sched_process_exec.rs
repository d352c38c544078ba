//! A watched process becomes another program.

use aya_ebpf::{helpers::bpf_get_current_comm, macros::btf_tracepoint, programs::BtfTracePointContext};
use sockleak_ebpf::{EVENT_EXEC, EventHeader, ExecEvent};

use crate::maps::{WATCHED, send};
use crate::task::{current_tgid, now};

#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(_ctx: BtfTracePointContext) -> i32 {
    let tgid = current_tgid();
    if WATCHED.get_ptr(tgid).is_some() {
        send(ExecEvent {
            header: EventHeader {
                time: now(),
                kind: EVENT_EXEC,
                tgid,
            },
            comm: bpf_get_current_comm().unwrap_or_default(),
        });
    }
    0
}
