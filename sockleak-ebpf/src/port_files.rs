//! Iterator over the descriptors of all processes. It finds sockets that are only bound, which are in no table
//! of the kernel but the bind hash, and it finds who holds a socket.

use core::ffi::c_void;

use sockleak_ebpf::PortFileRecord;

use crate::memory::{read_into, read_or_zero};
use crate::offsets::{TASK_COMM, TASK_GROUP_LEADER};
use crate::port_owner::{self, Meta};
use crate::{file, socket, task};

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
    let Some((_, sk)) = file::socket(file as u64) else {
        return 0;
    };
    let Some((family, protocol)) = socket::tcp_kind(sk) else {
        return 0;
    };
    if !port_owner::is_wanted(sk) {
        return 0;
    }
    let leader: u64 = read_or_zero(task as u64, TASK_GROUP_LEADER.load());
    let mut record = PortFileRecord {
        owner: port_owner::full(sk, family, protocol),
        tgid: task::tgid(leader),
        fd,
        comm: [0; 16],
    };
    read_into(&mut record.comm, leader, TASK_COMM.load());
    port_owner::write(meta, &record);
    0
}
