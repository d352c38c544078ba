//! What the demo and a trial need: a network namespace of their own, a server, and peers that it can reach or not.

use std::io::{self, PipeReader, PipeWriter};
use std::mem::{size_of_val, zeroed};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use super::spawn::RunningChild;

/// A forked process that runs a function of this program and then ends.
pub struct Actor {
    /// The process.
    pub process: RunningChild,
    /// What it says.
    pub says: PipeReader,
    /// What it is told. Its end tells the process to go.
    pub told: PipeWriter,
}

/// Forks a process that does `part`. Call it while this process has one thread.
///
/// # Errors
/// When pipes or the process cannot be made.
pub fn fork(part: impl FnOnce(PipeReader, PipeWriter)) -> io::Result<Actor> {
    let (reader, told) = io::pipe()?;
    let (says, writer) = io::pipe()?;
    // SAFETY: This process has one thread, so the child finds every lock free.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop((told, says));
        part(reader, writer);
        // SAFETY: The call does not return. Nothing of the parent's is flushed or destroyed.
        unsafe { libc::_exit(0) };
    }
    Ok(Actor {
        process: RunningChild::adopt(pid),
        says,
        told,
    })
}

/// Moves the calling thread into a new network namespace that has a working loopback interface.
///
/// # Errors
/// When CAP_SYS_ADMIN or CAP_NET_ADMIN is missing.
pub fn isolate() -> io::Result<()> {
    // SAFETY: The call takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: All zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: The pointer is to an ifreq that names the interface and holds its flags.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Makes a peer unreachable: its socket drops every segment that arrives, without a word.
///
/// # Errors
/// When the kernel refuses the filter.
pub fn drop_everything(peer: &TcpStream) -> io::Result<()> {
    // "ret 0": keep 0 bytes of every packet.
    let mut instruction = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut instruction,
    };
    // The kernel copies the one instruction that the program points to.
    set(peer, libc::SO_ATTACH_FILTER, &program)
}

/// Closes a connection with an RST.
///
/// # Errors
/// When the kernel refuses the option.
pub fn reset(peer: TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set(&peer, libc::SO_LINGER, &linger)
}

/// Sets an option of SOL_SOCKET.
fn set<T>(socket: &TcpStream, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: The pointer and the length are those of a live value, which the kernel copies.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    })
}

/// Waits until nobody can write into a pipe any more, and takes nothing out of it.
pub fn wait_for_end(pipe: &PipeReader) {
    let mut poll = libc::pollfd {
        fd: pipe.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: The pointer is to one pollfd, which the kernel may write. POLLHUP needs no asking for.
    while unsafe { libc::poll(&raw mut poll, 1, -1) } < 1 {}
}

/// Names this process.
pub fn rename(name: &std::ffi::CStr) {
    // SAFETY: The pointer is to a string that ends with NUL; the kernel copies at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Crashes: reads a page that may not be read, which is a SIGSEGV from the hardware.
pub fn crash() -> ! {
    // SAFETY: The default action is restored, and an anonymous page without permissions is mapped; reading it
    // faults before any value exists.
    unsafe {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        page.cast::<u8>().read_volatile();
    }
    std::process::abort()
}

fn check(status: i32) -> io::Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
