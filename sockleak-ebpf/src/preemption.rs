//! Programs that may be preempted.
//!
//! Tracepoints call their programs with preemption enabled since 7.0 (`__DO_TRACE_CALL` under SRCU-fast,
//! include/linux/tracepoint.h). While a program is preempted the kernel skips every other run of it on that CPU,
//! because it takes them for recursion (`__bpf_trace_run`, kernel/trace/bpf_trace.c): deaths and transitions of
//! whoever runs meanwhile would be lost. So there are copies of every program, each attached to the same
//! tracepoint, and what one copy could not see another one does. Each copy must therefore be able to come after
//! one that did the work already.
//!
//! Within a program preemption is switched off: what it keeps for its CPU is then its own, and what is left to preempt
//! it are the few instructions before and after. A kernel that has waited for the end to run another task would
//! do so in the call that switches preemption on again, which is still within the program; with interrupts switched
//! off it cannot (`preempt_schedule`, kernel/sched/core.c) and does it after the program.

use core::mem::MaybeUninit;

use aya_ebpf::{macros::map, maps::LruHashMap};
use sockleak_ebpf::{LOCAL_IRQ_RESTORE, LOCAL_IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

use crate::offsets::HAS_COPIES;

/// What a first copy did and its second has not seen yet. The second comes right after the first, so there are
/// hardly more entries than CPUs.
#[map]
pub static DONE: LruHashMap<u64, u16> = LruHashMap::with_max_entries(1024, 0);

/// Defines a program and its copies: `program!("tracepoint": name => function, ...)`. The functions take the
/// context by reference.
///
/// Their arguments are plain numbers. With `typed` before the tracepoint they are pointers to what the kernel's BTF
/// says, as some helpers demand; to load such a program the kernel searches its BTF.
///
/// With `if function` after the tracepoint nothing else is done where that is false. Preemption is not off yet in that
/// function: what it keeps for its CPU must be the same for whatever task runs there.
macro_rules! program {
    (typed $tracepoint:literal $($programs:tt)+) => {
        $crate::preemption::program!(
            @btf_tracepoint(function = $tracepoint), BtfTracePointContext $($programs)+
        );
    };
    ($tracepoint:literal $($programs:tt)+) => {
        $crate::preemption::program!(
            @raw_tracepoint(tracepoint = $tracepoint), RawTracePointContext $($programs)+
        );
    };
    (@$kind:ident($where:ident = $tracepoint:literal), $context:ident: $($programs:tt)+) => {
        $crate::preemption::program!(
            @$kind($where = $tracepoint), $context if (|_| true): $($programs)+
        );
    };
    (
        @$kind:ident($where:ident = $tracepoint:literal), $context:ident if $wanted:tt:
        $($name:ident => $run:expr),+ $(,)?
    ) => {$(
        #[aya_ebpf::macros::$kind($where = $tracepoint)]
        pub fn $name(ctx: aya_ebpf::programs::$context) -> i32 {
            if $wanted(&ctx) {
                $crate::preemption::disable();
                ($run)(&ctx);
                $crate::preemption::enable();
            }
            0
        }
    )+};
}
pub(crate) use program;

/// Which of two copies runs, where nothing else tells the second one that the work is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    First,
    Second,
}

/// What is done once and not by both copies.
pub struct Work {
    of: u64,
    what: u16,
}

impl Work {
    /// A change of the state of the socket at this address.
    #[inline(always)]
    pub fn change(sk: u64, from: u8, to: u8) -> Self {
        let what = u16::from(from) << 8 | u16::from(to);
        Self { of: sk, what }
    }

    /// A process becomes another program. No kernel address is as small as its number.
    #[inline(always)]
    pub fn exec(tgid: u32) -> Self {
        let of = u64::from(tgid);
        Self { of, what: 0 }
    }
}

impl Copy {
    /// Whether the work is this copy's: always the first one's, and the second one's if the first could not run.
    #[inline(always)]
    pub fn has_to(self, work: Work) -> bool {
        if HAS_COPIES.load() == 0 {
            return true;
        }
        if self == Self::First {
            let _ = DONE.insert(work.of, work.what, 0);
            return true;
        }
        // SAFETY: the value is copied at once.
        if unsafe { DONE.get(work.of) }.is_some_and(|done| *done == work.what) {
            let _ = DONE.remove(work.of);
            return false;
        }
        true
    }
}

#[inline(always)]
pub fn disable() {
    call(PREEMPT_DISABLE);
}

#[inline(always)]
pub fn enable() {
    let mut flags = MaybeUninit::uninit();
    call_with(LOCAL_IRQ_SAVE, &mut flags);
    call(PREEMPT_ENABLE);
    call_with(LOCAL_IRQ_RESTORE, &mut flags);
}

#[inline(always)]
fn call(number: usize) {
    // SAFETY: In BPF a function pointer is a helper's number. User space replaces these, which are no helpers, by
    // calls of the kernel's functions, which have no arguments; or by nothing.
    let function: extern "C" fn() = unsafe { core::mem::transmute(number) };
    function();
}

#[inline(always)]
fn call_with(number: usize, flags: &mut MaybeUninit<u64>) {
    // SAFETY: As in `call`; these functions have one argument, where the flags are kept.
    let function: extern "C" fn(*mut u64) = unsafe { core::mem::transmute(number) };
    function(flags.as_mut_ptr());
}
