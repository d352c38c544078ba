//! A socket changes its state.
//!
//! Every socket of the machine comes here, so the first thing is to let go of those nobody follows. What is done for the
//! others is out of line: the registers and the stack that it takes would cost every change otherwise.

use aya_ebpf::{helpers::generated::bpf_get_socket_cookie, programs::BtfTracePointContext};
use sockleak_ebpf::{
    EVENT_STATE, EventHeader, ORIGIN_LIVE, STATE_CHANGES, SocketKey, SocketRecord, StateChange, StateEvent,
    counter, state,
};

use crate::current;
use crate::filter;
use crate::maps::{COMPOSED, count, send};
use crate::offsets::HAS_SOCKET_COOKIE;
use crate::places::{followed, insert, set_aside, watched};
use crate::preemption::{Copy, Work, program};
use crate::socket;
use crate::task::{current_tgid, now};

program!(
    typed "inet_sock_set_state" if may_concern:
    inet_sock_set_state => |ctx| changed(ctx, Copy::First),
    inet_sock_set_state_2 => |ctx| changed(ctx, Copy::Second),
);

/// Whether the socket may be followed or its owner watched. False is certain, and one branch tells it of all changes but
/// those that an owner makes.
#[inline(always)]
fn may_concern(ctx: &BtfTracePointContext) -> bool {
    let followed = u64::from(filter::byte_of_typed(ctx.arg(0)));
    // Numbers of 32 bits, to which the tracepoint adds zeros (`CAST_TO_U64`, include/trace/bpf_probe.h).
    if followed | may_be_by_owner(ctx.arg(1), ctx.arg(2)) == 0 {
        return false;
    }
    followed != 0 || filter::may_be_watched(current::tgid())
}

/// 1 if [`is_by_owner`] may be true, else 0: LISTEN to CLOSE is the only change of those that happen whose states differ
/// by these bits and that is not told by the new state alone.
#[inline(always)]
fn may_be_by_owner(from: u64, to: u64) -> u64 {
    const TO: u64 = 1 << state::LISTEN | 1 << state::SYN_SENT | 1 << state::FIN_WAIT1 | 1 << state::LAST_ACK;
    const DIFFERENCE: u64 = 1 << (state::LISTEN ^ state::CLOSE);
    (TO.wrapping_shr(to as u32) | DIFFERENCE.wrapping_shr((from ^ to) as u32)) & 1
}

/// Whether it happens in the context of the socket's owner (net/ipv4: connect, listen, close and shutdown). Any other
/// change may happen in whatever task a softirq interrupted.
#[inline(always)]
fn is_by_owner(from: u8, to: u8) -> bool {
    to == state::LISTEN
        || to == state::SYN_SENT
        || to == state::FIN_WAIT1
        || to == state::LAST_ACK
        || (from == state::LISTEN && to == state::CLOSE)
}

#[inline(never)]
fn changed(ctx: &BtfTracePointContext, copy: Copy) {
    let sk: *const core::ffi::c_void = ctx.arg(0);
    let from = ctx.arg::<i32>(1) as u8;
    let to = ctx.arg::<i32>(2) as u8;
    // MPTCP and a close after shutdown() report changes from a state to itself (`tcp_close_state`).
    if from == to {
        return;
    }
    let address = sk as u64;
    if let Some(record) = followed(address) {
        // The slab gives the memory of a dead socket to the next one. A new socket begins as CLOSE,
        // or as a clone of its listener.
        let reused = from == state::CLOSE || (from == state::LISTEN && to == state::SYN_RECV);
        if !reused {
            if copy.has_to(Work::change(address, from, to)) {
                follow(sk, record, from, to);
            }
            return;
        }
        set_aside(address, record);
    }
    if is_by_owner(from, to) {
        let tgid = current_tgid();
        if watched(tgid).is_some() && copy.has_to(Work::change(address, from, to)) {
            begin(sk, tgid, from, to);
        }
    }
}

/// The socket's cookie, made now if it has none, so that its time-wait mini socket inherits it
/// (`inet_twsk_alloc` copies it). 0 where tracing programs may not ask.
#[inline(always)]
fn cookie(sk: *const core::ffi::c_void) -> u64 {
    if HAS_SOCKET_COOKIE.load() == 0 {
        return 0;
    }
    // SAFETY: `sk` is the tracepoint's own argument, which the kernel holds for the duration of the call.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) }
}

#[inline(never)]
fn follow(sk: *const core::ffi::c_void, record: &mut SocketRecord, from: u8, to: u8) {
    if record.cookie == 0 {
        record.cookie = cookie(sk);
    }
    append(record, from, to);
}

#[inline(always)]
fn append(record: &mut SocketRecord, from: u8, to: u8) {
    let index = record.change_count as usize;
    if index < STATE_CHANGES {
        record.changes[index] = StateChange::new(now() - record.time, from, to);
        record.change_count += 1;
    } else {
        record.change_count = STATE_CHANGES as u8 + 1;
    }
}

/// A watched process did this to a socket of its own: tells user space, and follows what it closed.
#[inline(never)]
fn begin(sk: *const core::ffi::c_void, tgid: u32, from: u8, to: u8) {
    let address = sk as u64;
    let Some((family, protocol)) = socket::tcp_kind(address) else {
        return;
    };
    let time = now();
    let made = cookie(sk);
    let Some(record) = COMPOSED.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's element, which no other program uses.
    let record = unsafe { &mut *record };
    socket::fill(record, address, family, protocol);
    send(StateEvent {
        header: EventHeader {
            time,
            kind: EVENT_STATE,
            tgid,
        },
        laddr: record.laddr,
        raddr: record.raddr,
        netns: record.netns,
        lport: record.lport,
        rport: record.rport,
        family,
        protocol,
        from,
        to,
        _pad: [0; 2],
    });
    if to == state::LISTEN || to == state::SYN_SENT {
        return;
    }
    if made != 0 {
        record.cookie = made;
    }
    let key = SocketKey {
        sk: address,
        time,
        tgid,
        origin: ORIGIN_LIVE,
    };
    record.belongs_to(&key);
    record.state = from;
    append(record, from, to);
    if insert(&key, record).is_err() {
        count(counter::FOLLOW_FAILED);
    }
}
