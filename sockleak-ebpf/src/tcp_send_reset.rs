//! The kernel sends an RST.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::maps::followed;
use crate::offsets::HAS_RESET_REASON;

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    // The socket may be null or a mini socket (6.12 and later): its address is compared, never read.
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let Some((_, record)) = followed(sk as u64) else {
        return 0;
    };
    record.reset_sent = 1;
    if HAS_RESET_REASON.load() != 0 {
        record.reset_reason = ctx.arg::<i32>(2) as u8;
    }
    0
}
