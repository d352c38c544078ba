//! A signal is sent. Runs under siglock, so it writes into the watched entry in place and does nothing else.

use aya_ebpf::programs::RawTracePointContext;
use sockleak_ebpf::SignalSent;

use crate::memory::read_or_zero;
use crate::offsets::{K_SIGACTION_HANDLER, K_SIGACTION_SIZE, SIGHAND_ACTION, SIGINFO_CODE, TASK_SIGHAND};
use crate::places::watched;
use crate::preemption::program;
use crate::task::{current_comm, current_tgid, now, tgid};

const SIGKILL: u32 = 9;
/// Signals whose default action dumps core (`SIG_KERNEL_COREDUMP_MASK`, include/linux/signal.h).
pub const COREDUMP_SIGNALS: u64 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 24 | 1 << 25 | 1 << 31;
/// Signals whose default action is to stop or to do nothing (`SIG_KERNEL_STOP_MASK` and `SIG_KERNEL_IGNORE_MASK`).
const HARMLESS_SIGNALS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;
/// TRACE_SIGNAL_DELIVERED and TRACE_SIGNAL_LOSE_INFO (include/trace/events/signal.h): it was queued.
const QUEUED: [i32; 2] = [0, 4];
/// `si_code` of kill(), sigqueue() and tgkill(): the current task is the sender.
const SENT_BY_CURRENT: [i32; 3] = [0, -1, -6];

// Nothing interrupts it under siglock, so it needs no copy.
program!("signal_generate": signal_generate => run);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    let signal = ctx.arg::<i32>(0) as u32;
    let info: *const core::ffi::c_void = ctx.arg(1);
    let task: *const core::ffi::c_void = ctx.arg(2);
    let result: i32 = ctx.arg(4);
    let task = task as u64;
    let Some(watched) = watched(tgid(task)) else {
        return;
    };
    if signal == 0 || signal > 64 || (HARMLESS_SIGNALS >> (signal & 63)) & 1 != 0 && signal < 32 {
        return;
    }
    if result != QUEUED[0] && result != QUEUED[1] {
        return;
    }
    if signal != SIGKILL && has_handler(task, signal) {
        return;
    }
    // SAFETY: the entry was found just now; siglock keeps other senders to this process out.
    let watched = unsafe { &mut *watched };
    let slot = if signal == SIGKILL {
        &mut watched.kill
    } else if signal < 32 && (COREDUMP_SIGNALS >> signal) & 1 != 0 {
        &mut watched.core
    } else {
        &mut watched.term
    };
    tell(slot, signal, info as u64);
}

/// Anything but the default action: SIG_IGN or a function.
#[inline(always)]
fn has_handler(task: u64, signal: u32) -> bool {
    let sighand: u64 = read_or_zero(task, TASK_SIGHAND.load());
    let action = sighand
        + u64::from(SIGHAND_ACTION.load())
        + u64::from(signal - 1) * u64::from(K_SIGACTION_SIZE.load());
    read_or_zero::<u64>(action, K_SIGACTION_HANDLER.load()) != 0
}

#[inline(always)]
fn tell(sent: &mut SignalSent, signal: u32, info: u64) {
    sent.time = now();
    sent.signal = signal;
    sent.sender = 0;
    sent.sender_comm = [0; 16];
    // SEND_SIG_NOINFO and SEND_SIG_PRIV are 0 and 1 (include/linux/sched/signal.h): no process sent these.
    if info > 1 {
        let code: i32 = read_or_zero(info, SIGINFO_CODE.load());
        if code == SENT_BY_CURRENT[0] || code == SENT_BY_CURRENT[1] || code == SENT_BY_CURRENT[2] {
            sent.sender = current_tgid();
            current_comm(&mut sent.sender_comm);
        }
    }
}
