//! A connection is reset: the peer sent an RST, or data arrived after close (`tcp_reset` in
//! net/ipv4/tcp_input.c serves both).

use aya_ebpf::programs::RawTracePointContext;

use crate::memory::read_or_zero;
use crate::offsets::SK_STATE;
use crate::places::followed;
use crate::preemption::program;

program!("tcp_receive_reset": tcp_receive_reset => run, tcp_receive_reset_2 => run);

#[inline(always)]
fn run(ctx: &RawTracePointContext) {
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let Some(record) = followed(sk as u64) else {
        return;
    };
    record.reset_received = 1;
    record.reset_received_in = read_or_zero(sk as u64, SK_STATE.load());
}
