//! The victim's children, which hold sockets until stdin ends.

use std::io::{self, Error};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process;
use std::ptr;

use sockleak_tests::net::{self, checked};

use crate::Victim;

impl Victim {
    /// A child that inherits everything, or with CLONE_FILES shares the table itself.
    pub fn fork(&self, flags: i32) -> io::Result<i32> {
        // SAFETY: Without a stack clone behaves as fork. The child only waits and exits.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
        match i32::try_from(pid).map_err(Error::other)? {
            0 => wait_for_end_of_stdin(),
            pid => checked(pid),
        }
    }

    /// Children that accept connections from the same listener; each answers when it has its own.
    pub fn fork_workers(&self, count: u32, connections: u32) -> io::Result<()> {
        let listener = self.listener()?;
        for _ in 0..count {
            // SAFETY: The process has one thread, so the child may use everything.
            if checked(unsafe { libc::fork() })? == 0 {
                let accepted: io::Result<Vec<_>> = (0..connections).map(|_| net::accept(listener)).collect();
                match &accepted {
                    Ok(_) => println!("ok {}", process::id()),
                    Err(error) => println!("{error}"),
                }
                wait_for_end_of_stdin();
            }
        }
        Ok(())
    }

    /// A child with which the victim shares nothing but a Unix socket. It answers when it has received a
    /// descriptor, or leaves it in flight.
    pub fn fork_courier(&mut self, receives: bool) -> io::Result<i32> {
        let mut pair = [0; 2];
        // SAFETY: socketpair writes two integers to `pair`, which outlives the call.
        checked(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, pair.as_mut_ptr()) })?;
        // SAFETY: The call has just made these descriptors, and nobody else owns them.
        let [ours, theirs] = pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: The process has one thread, so the child may use everything.
        let pid = checked(unsafe { libc::fork() })?;
        if pid == 0 {
            drop(ours);
            if receives {
                match receive_descriptor(&theirs) {
                    Ok(()) => println!("ok"),
                    Err(error) => println!("{error}"),
                }
            }
            wait_for_end_of_stdin();
        }
        self.courier = Some(ours);
        Ok(pid)
    }

    /// Sends the listener to the courier.
    pub fn pass(&self) -> io::Result<()> {
        let courier = self.courier.as_ref().ok_or_else(|| Error::other("no courier"))?;
        send_descriptor(courier, self.listener()?)
    }
}

/// Does nothing until there is nobody who could give a command.
pub fn wait_for_end_of_stdin() -> ! {
    let mut hangup = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: 0,
        revents: 0,
    };
    // SAFETY: The pointer is to one pollfd, which outlives the call; _exit needs nothing.
    unsafe {
        libc::poll(&raw mut hangup, 1, -1);
        libc::_exit(0)
    }
}

/// A control message that carries one descriptor, aligned as the kernel wants it.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    fd: RawFd,
}

/// Calls with a message of one byte and with room for one descriptor.
fn with_message(rights: &mut Rights, call: impl FnOnce(*mut libc::msghdr) -> isize) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: All-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(rights).cast();
    message.msg_controllen = size_of::<Rights>();
    if call(&raw mut message) < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

fn rights(fd: RawFd) -> Rights {
    // SAFETY: All-zero is a valid cmsghdr.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    header.cmsg_len = mem::offset_of!(Rights, fd) + size_of::<RawFd>();
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    Rights { header, fd }
}

fn send_descriptor(courier: &OwnedFd, socket: &OwnedFd) -> io::Result<()> {
    let mut rights = rights(socket.as_raw_fd());
    // SAFETY: The message and everything that it points to outlive the call.
    with_message(&mut rights, |message| unsafe {
        libc::sendmsg(courier.as_raw_fd(), message, 0)
    })
}

/// The descriptor stays open until the process ends.
fn receive_descriptor(courier: &OwnedFd) -> io::Result<()> {
    let mut rights = rights(-1);
    // SAFETY: The message and everything that it points to outlive the call.
    with_message(&mut rights, |message| unsafe {
        libc::recvmsg(courier.as_raw_fd(), message, 0)
    })
}
