//! Iterator over the TCP sockets of a network namespace: every socket of the established hash, which has the
//! time-wait mini sockets too, and of the listening hash (net/ipv4/tcp_ipv4.c).

use core::ffi::c_void;

use sockleak_ebpf::state;

use crate::memory::read_or_zero;
use crate::offsets::{SK_FAMILY, SK_STATE};
use crate::port_owner::{self, Meta};
use crate::socket::{self, AF_INET, AF_INET6};

/// `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c).
#[repr(C)]
pub struct Context {
    meta: *mut Meta,
    sk_common: *const c_void,
    uid: u64,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn tcp_port_owners(ctx: *const Context) -> i32 {
    // SAFETY: The kernel calls an iterator of this kind with such a context.
    let (meta, sk) = unsafe { ((*ctx).meta, (*ctx).sk_common) };
    // Null comes once, at the end.
    if sk.is_null() {
        return 0;
    }
    let sk = sk as u64;
    if !port_owner::is_wanted(sk) {
        return 0;
    }
    match read_or_zero(sk, SK_STATE.load()) {
        // A request socket has no port of its own: it is its listener's.
        state::NEW_SYN_RECV => {}
        state::TIME_WAIT => {
            let family = read_or_zero(sk, SK_FAMILY.load());
            if family == AF_INET || family == AF_INET6 {
                port_owner::write(meta, &port_owner::mini(sk, family));
            }
        }
        _ => {
            if let Some((family, protocol)) = socket::tcp_kind(sk) {
                port_owner::write(meta, &port_owner::full(sk, family, protocol));
            }
        }
    }
    0
}
