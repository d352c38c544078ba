//! Iterator over the descriptors of all processes. It finds sockets that are only bound, which are in no table
//! of the kernel but the bind hash, and it finds who holds a socket: one with a certain port, or with a certain inode.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use sockleak_ebpf::PortFileRecord;

use crate::memory::{read_into, read_or_zero};
use crate::offsets::{HAS_SOCK_FROM_FILE, OPS_FAMILY, SOCKET_OPS, TASK_COMM, TASK_GROUP_LEADER};
use crate::port_owner::{self, Meta};
use crate::socket::{AF_INET, AF_INET6};
use crate::{file, mptcp, socket, task};

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct Context {
    meta: *mut Meta,
    task: *const c_void,
    fd: u32,
    file: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn port_files(ctx: *const Context) -> i32 {
    // SAFETY: The kernel calls an iterator of this kind with such a context.
    let (meta, task, fd, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).fd, (*ctx).file) };
    // Null comes once, at the end.
    if task.is_null() || file.is_null() {
        return 0;
    }
    if !may_be_inet(file) {
        return 0;
    }
    let Some((inode, sk)) = file::socket(file as u64) else {
        return 0;
    };
    let Some((family, protocol)) = socket::tcp_kind(sk) else {
        return 0;
    };
    if !port_owner::is_wanted(sk) && !port_owner::may_be_wanted(inode) {
        return 0;
    }
    let leader: u64 = read_or_zero(task as u64, TASK_GROUP_LEADER.load());
    let mut record = PortFileRecord {
        owner: port_owner::full(mptcp::port_owner(sk, protocol), family, protocol),
        tgid: task::tgid(leader),
        fd,
        comm: [0; 16],
    };
    read_into(&mut record.comm, leader, TASK_COMM.load());
    port_owner::write(meta, &record);
    0
}

/// False if the file is no socket of IPv4 or IPv6, as most files are not. Sockets of one kind share their operations, so
/// that of each but one thing is read that no other program has read just now: the `struct socket`. The pointers of an
/// iterator have types, by which it reads without a call. Before 5.11 this is not known, and every file may be one.
#[inline(always)]
fn may_be_inet(file: *const c_void) -> bool {
    if HAS_SOCK_FROM_FILE.load() == 0 {
        return true;
    }
    // SAFETY: The verifier proves that `file` is a `struct file`, and what the pointers lead to by their types. An address
    // that faults reads as zero.
    unsafe {
        let socket: *const c_void = bpf_sock_from_file(file.cast_mut().cast()).cast();
        if socket.is_null() {
            return false;
        }
        let ops: *const *const c_void = socket.byte_add(SOCKET_OPS.load() as usize).cast();
        let family: *const u32 = ops.read_volatile().byte_add(OPS_FAMILY.load() as usize).cast();
        let family = family.read_volatile();
        family == u32::from(AF_INET) || family == u32::from(AF_INET6)
    }
}
