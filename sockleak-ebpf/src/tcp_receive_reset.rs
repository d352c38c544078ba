//! A connection is reset: the peer sent an RST, or data arrived after close (`tcp_reset` in
//! net/ipv4/tcp_input.c serves both).

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::maps::followed;
use crate::memory::read_or_zero;
use crate::offsets::SK_STATE;

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let Some((_, record)) = followed(sk as u64) else {
        return 0;
    };
    record.reset_received = 1;
    record.reset_received_in = read_or_zero(sk as u64, SK_STATE.load());
    0
}
