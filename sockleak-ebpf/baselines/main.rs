//! What `cargo xtask bench` measures the programs of sockleak against: as little as can be done at the same
//! tracepoints, and as much as one would do first.
//!
//! The walk is sockleak's own, with another [`inventory`].

#![no_std]
#![no_main]

mod inventory;
mod maps;

#[path = "../src/fd_table.rs"]
mod fd_table;
#[path = "../src/file.rs"]
mod file;
#[path = "../src/memory.rs"]
#[expect(dead_code, reason = "names and the like are for reports")]
mod memory;
#[path = "../src/mptcp.rs"]
mod mptcp;
#[path = "../src/offsets.rs"]
mod offsets;
#[path = "../src/preemption.rs"]
#[expect(dead_code, reason = "a baseline has no copies")]
mod preemption;
#[path = "../src/sock_common.rs"]
mod sock_common;
#[path = "../src/socket.rs"]
mod socket;
#[path = "../src/task.rs"]
#[expect(dead_code, reason = "nobody asks for process ids of a namespace here")]
mod task;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use sockleak_ebpf::ProcessKey;

use crate::maps::{FOLLOWED, FOUND, WATCHED};
use crate::memory::read_or_zero;
use crate::offsets::{HAS_GROUP_DEAD, SIGNAL_LIVE, TASK_FILES, TASK_SIGNAL};
use crate::preemption::program;
use crate::task::{current_tgid, now};

/// Nothing at all: what it costs that a program is there.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// One lookup that finds nothing: the least that a program can do that follows some sockets and not others.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    i32::from(FOLLOWED.get_ptr(sk).is_some())
}

program!("sched_process_exit": sched_process_exit => walk);

/// Walks over the fd table of a watched process when its last thread ends.
#[inline(always)]
fn walk(ctx: &RawTracePointContext) {
    let tgid = current_tgid();
    if WATCHED.get_ptr(tgid).is_none() {
        return;
    }
    let task: u64 = ctx.arg(0);
    let group_dead = if HAS_GROUP_DEAD.load() != 0 {
        ctx.arg::<u64>(1) as u8 != 0
    } else {
        read_or_zero::<u32>(read_or_zero(task, TASK_SIGNAL.load()), SIGNAL_LIVE.load()) == 0
    };
    let Some(walk) = fd_table::current().filter(|_| group_dead) else {
        return;
    };
    let process = ProcessKey {
        start: 0,
        tgid,
        _pad: 0,
    };
    walk.begin(read_or_zero(task, TASK_FILES.load()), process, now());
    fd_table::walk();
    if let (Some(walk), Some(found)) = (fd_table::current(), FOUND.get_ptr_mut(0)) {
        // SAFETY: The pointer is to the only element of a map that lives as long as the program.
        unsafe { *found += walk.sockets };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
