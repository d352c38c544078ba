//! A network namespace of its own for each test.
//!
//! The test's body runs in a thread that has left the namespace of the others. What it spawns starts in
//! the same namespace, and the kernel ends the namespace with the last of them.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::CStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::limit::scaled;
use crate::net::checked;
use crate::netlink::{Netlink, attribute};

thread_local! {
    /// What a failing test has to say: the panic, and the words of the processes that it started.
    static STORY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sends the panics of sandboxed tests into their results instead of the middle of the others' output.
pub fn collect_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let told = STORY.with_borrow_mut(|story| match story {
            Some(story) => {
                story.push_str(&info.to_string());
                true
            }
            None => false,
        });
        if !told {
            default(info);
        }
    }));
}

/// Adds to the message of the failing test.
pub fn tell(text: &str) {
    STORY.with_borrow_mut(|story| {
        if let Some(story) = story {
            story.push('\n');
            story.push_str(text);
        }
    });
}

/// Runs a test in a fresh network namespace in which loopback is up.
pub fn run(test: fn()) -> Result<(), Failed> {
    thread::spawn(move || {
        enter().map_err(|error| format!("cannot make a network namespace: {error}"))?;
        STORY.set(Some(String::new()));
        panic::catch_unwind(test).map_err(|_: Box<dyn Any + Send>| STORY.take().unwrap_or_default())
    })
    .join()
    .expect("the sandbox catches every panic")
    .map_err(Failed::from)
}

/// Goes on in a child that is the first process of a new PID namespace, and ends as that one does. To be called
/// between fork() and exec(): it makes system calls only.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn continue_in_a_new_pid_namespace() -> io::Result<()> {
    // SAFETY: unshare takes an integer; it changes the namespace of the children alone.
    checked(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    // SAFETY: The process has one thread.
    let child = checked(unsafe { libc::fork() })?;
    if child == 0 {
        // SAFETY: prctl takes integers here. It ends with the one that waits for it.
        return checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop);
    }
    let mut status = 0;
    // SAFETY: The pointer is to an integer that outlives the call.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        255
    };
    // SAFETY: It ends the process at once, without running what its parent had registered.
    unsafe { libc::_exit(code) }
}

/// Moves the calling thread into a new network namespace and switches its loopback on.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn enter() -> io::Result<()> {
    // SAFETY: unshare takes an integer; it changes the namespace of this thread alone.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    switch_on(c"lo")?;
    // On a busy machine a peer's FIN may be sent twice. TIME_WAIT acknowledges the second one, to which the peer,
    // whose socket is gone, answers with an RST; that would be the end of TIME_WAIT (RFC 1337).
    fs::write("/proc/sys/net/ipv4/tcp_rfc1337", "1")
}

/// Switches a device of this network namespace on.
///
/// # Errors
/// When there is no such device.
pub fn switch_on(device: &CStr) -> io::Result<()> {
    // SAFETY: socket takes three integers and touches no memory of ours.
    let socket = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: All-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(device.to_bytes()) {
        *place = libc::c_char::try_from(*byte).expect("ASCII");
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a small number");
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}

/// Sets a sysctl of this network namespace, such as `ipv4/tcp_fin_timeout`.
#[track_caller]
pub fn sysctl(name: &str, value: impl Display) {
    fs::write(format!("/proc/sys/net/{name}"), value.to_string()).expect("a sysctl of the sandbox");
}

/// Sets `tcp_fin_timeout` to so few seconds that a test can wait for the end, and so many that this machine makes the report
/// before it.
#[track_caller]
pub fn short_fin_timeout() {
    let seconds = 2 + scaled(Duration::from_secs(1)).as_secs();
    sysctl("ipv4/tcp_fin_timeout", seconds);
}

/// Gives loopback another address, which is none of 127.0.0.0/8 and leads back to this network namespace all the same.
#[track_caller]
pub fn own_address(address: Ipv4Addr) {
    /// The first device of every namespace.
    const LOOPBACK: u32 = 1;
    let family = u8::try_from(libc::AF_INET).expect("a small number");
    // struct ifaddrmsg of include/uapi/linux/if_addr.h.
    let mut request = vec![family, 32, 0, 0];
    request.extend(LOOPBACK.to_ne_bytes());
    request.extend(attribute(libc::IFA_LOCAL, &address.octets()));
    let socket = Netlink::open(libc::NETLINK_ROUTE);
    let done = socket.ask(libc::RTM_NEWADDR, libc::NLM_F_ACK | libc::NLM_F_CREATE, &request);
    done.expect("the sandbox's loopback takes any address");
}

/// A device that is a VRF can be made.
#[must_use]
pub fn has_vrf() -> bool {
    let tried = thread::spawn(|| enter().and_then(|()| add_device(c"vrf", "vrf")));
    tried.join().is_ok_and(|made| made.is_ok())
}

/// Adds a device of that kind. A veth gets a partner that the kernel names.
///
/// # Errors
/// When the kernel has no such kind.
pub fn add_device(name: &CStr, kind: &str) -> io::Result<()> {
    /// Of include/uapi/linux/if_link.h.
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    const VRF_TABLE: u16 = 1;
    let mut info = attribute(INFO_KIND, kind.as_bytes());
    if kind == "vrf" {
        info.extend(attribute(INFO_DATA, &attribute(VRF_TABLE, &10_u32.to_ne_bytes())));
    }
    // struct ifinfomsg of include/uapi/linux/rtnetlink.h.
    let mut request = vec![0; 16];
    request.extend(attribute(libc::IFLA_IFNAME, name.to_bytes_with_nul()));
    request.extend(attribute(libc::IFLA_LINKINFO, &info));
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let socket = Netlink::open(libc::NETLINK_ROUTE);
    socket.ask(libc::RTM_NEWLINK, flags, &request).map(drop)
}

/// The network namespace that the test process itself lives in.
#[must_use]
pub fn outside() -> OwnedFd {
    fs::File::open("/proc/self/ns/net")
        .expect("the namespace of the process")
        .into()
}

/// The inode of this test's network namespace.
#[must_use]
pub fn inode() -> u64 {
    fs::metadata("/proc/thread-self/ns/net")
        .expect("the namespace of the thread")
        .ino()
}
