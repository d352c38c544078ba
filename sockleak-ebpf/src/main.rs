//! The BPF programs: one file for each hook, named as the tracepoint, and one for each iterator.
//!
//! They decide nothing. They write into the maps what the kernel does to the sockets of watched
//! processes, and the iterators tell which sockets have a port; what that means is user space's business.

#![no_std]
#![no_main]

mod current;
mod fd_table;
mod file;
mod filter;
mod inet_sock_set_state;
mod inventory;
mod maps;
mod memory;
mod mptcp;
mod offsets;
mod overflow;
mod places;
mod port_files;
mod port_owner;
mod preemption;
mod sched_process_exec;
mod sched_process_exit;
mod sched_process_fork;
mod signal_deliver;
mod signal_generate;
mod sock_common;
mod socket;
mod task;
mod tcp_port_owners;
mod tcp_receive_reset;
mod tcp_send_reset;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
