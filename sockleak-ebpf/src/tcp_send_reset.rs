//! The kernel sends an RST.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::maps::{FOLLOWED, SOCKETS};
use crate::offsets::HAS_RESET_REASON;

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    // The socket may be null or a mini socket (6.12 and later): its address is compared, never read.
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let Some(key) = FOLLOWED.get_ptr(sk as u64) else {
        return 0;
    };
    // SAFETY: the entry was found just now and is not preallocated: it stays readable in this program.
    let Some(record) = SOCKETS.get_ptr_mut(unsafe { &*key }) else {
        return 0;
    };
    // SAFETY: the entry was found just now; single bytes are written, in any order of CPUs.
    let record = unsafe { &mut *record };
    record.reset_sent = 1;
    if HAS_RESET_REASON.load() != 0 {
        record.reset_reason = ctx.arg::<i32>(2) as u8;
    }
    0
}
