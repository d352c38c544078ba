//! The kernel sends an RST.

use aya_ebpf::programs::RawTracePointContext;

use crate::offsets::HAS_RESET_REASON;
use crate::places::followed;
use crate::preemption::program;

program!("tcp_send_reset": tcp_send_reset => run, tcp_send_reset_2 => run);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    // The socket may be null or a mini socket (6.12 and later): its address is compared, never read.
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let Some(record) = followed(sk as u64) else {
        return;
    };
    record.reset_sent = 1;
    if HAS_RESET_REASON.load() != 0 {
        record.reset_reason = ctx.arg::<i32>(2) as u8;
    }
}
