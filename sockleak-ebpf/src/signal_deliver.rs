//! A signal reaches its thread. One that dumps core and has no handler marks the beginning of the dump,
//! for which the kernel has no tracepoint.

use aya_ebpf::programs::RawTracePointContext;

use crate::memory::read_or_zero;
use crate::offsets::K_SIGACTION_HANDLER;
use crate::places::watched;
use crate::preemption::program;
use crate::signal_generate::COREDUMP_SIGNALS;
use crate::task::{current_tgid, now};

// Nothing interrupts it under siglock, so it needs no copy.
program!("signal_deliver": signal_deliver => run);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    let signal = ctx.arg::<i32>(0) as u32;
    let action: *const core::ffi::c_void = ctx.arg(2);
    if signal > 31 || (COREDUMP_SIGNALS >> signal) & 1 == 0 {
        return;
    }
    let Some(watched) = watched(current_tgid()) else {
        return;
    };
    // Null is SIG_DFL.
    if read_or_zero::<u64>(action as u64, K_SIGACTION_HANDLER.load()) != 0 {
        return;
    }
    // SAFETY: the entry was found just now; siglock is held by the delivering thread.
    let watched = unsafe { &mut *watched };
    if watched.dump_began == 0 {
        watched.dump_began = now();
        watched.dump_signal = signal;
    }
}
