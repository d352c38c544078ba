//! Network namespaces: finding one, entering it, reading its sysctls.

mod search;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;
use std::{panic, thread};

use sockleak_core::observed::TcpTimeouts;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// TCP_RTO_MAX (include/net/tcp.h), which no sysctl set before 6.15.
const TCP_RTO_MAX: Duration = Duration::from_secs(120);

/// An open network namespace. While it is open, the namespace and its TIME_WAITs stay alive.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    inode: u32,
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The namespace of a process, which is that of its thread-group leader.
    ///
    /// # Errors
    ///
    /// `NotFound` when the process is gone or dead, `PermissionDenied` when it is another user's and
    /// CAP_SYS_PTRACE is missing.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Its inode, which is also `skc_net->ns.inum`.
    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// The kernel's own number for it, which no other namespace gets before the next boot: an inode is given to
    /// the next one within milliseconds. `None` before 5.14, or when it cannot be entered.
    #[must_use]
    pub fn cookie(&self) -> Option<u64> {
        /// SO_NETNS_COOKIE of include/uapi/asm-generic/socket.h.
        const SO_NETNS_COOKIE: libc::c_int = 71;
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        within(self.as_fd(), || {
            let socket = UnixDatagram::unbound()?;
            // SAFETY: The pointers are to a u64 and to its length, which outlive the call.
            let result = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    SO_NETNS_COOKIE,
                    (&raw mut cookie).cast(),
                    &raw mut length,
                )
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(cookie)
        })
        .ok()
    }

    /// Reads a number from a sysctl of this namespace, such as `net/ipv4/tcp_fin_timeout`.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, the sysctl is not there or is not a number.
    pub fn sysctl_u32(&self, name: &str) -> io::Result<u32> {
        within(self.as_fd(), || number(name))
    }

    /// The text of a sysctl of this namespace.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the sysctl is not there.
    pub fn sysctl(&self, name: &str) -> io::Result<String> {
        within(self.as_fd(), || text(name))
    }

    /// How often the kernel retransmits for a socket that no process holds: `tcp_orphan_retries`, where 0
    /// means 8 (`tcp_orphan_retries`, net/ipv4/tcp_timer.c).
    ///
    /// # Errors
    ///
    /// As [`Netns::sysctl_u32`].
    pub fn orphan_retries(&self) -> io::Result<u32> {
        match self.sysctl_u32("net/ipv4/tcp_orphan_retries")? {
            0 => Ok(8),
            retries => Ok(retries),
        }
    }

    /// Whether a process of that user, without capabilities of its own, may have that port
    /// (`inet_port_requires_bind_service`, include/net/ip.h): a low one takes CAP_NET_BIND_SERVICE in the user namespace
    /// that the network namespace belongs to, which root has there, and who made that user namespace.
    ///
    /// # Errors
    ///
    /// When the sysctl cannot be read, or the kernel does not tell whose the namespace is.
    pub fn lets_bind(&self, uid: u32, port: u16) -> io::Result<bool> {
        /// `NS_GET_USERNS` and `NS_GET_OWNER_UID` of include/uapi/linux/nsfs.h.
        const NS_GET_USERNS: libc::Ioctl = 0xb701;
        const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
        if u32::from(port) >= self.sysctl_u32("net/ipv4/ip_unprivileged_port_start")? {
            return Ok(true);
        }
        // Without CONFIG_USER_NS there is one for all.
        if !fs::exists("/proc/self/ns/user")? {
            return Ok(uid == 0);
        }
        // SAFETY: The call takes no pointers.
        let owner = unsafe { libc::ioctl(self.fd.as_raw_fd(), NS_GET_USERNS) };
        if owner < 0 {
            let error = io::Error::last_os_error();
            // It is above that of the caller, where nobody of the caller's has capabilities.
            return if error.raw_os_error() == Some(libc::EPERM) {
                Ok(false)
            } else {
                Err(error)
            };
        }
        // SAFETY: The descriptor is new and nobody else's.
        let owner = unsafe { File::from_raw_fd(owner) };
        if uid == 0 {
            return Ok(true);
        }
        if owner.metadata()?.ino() == fs::metadata("/proc/self/ns/user")?.ino() {
            return Ok(false);
        }
        let mut maker: libc::uid_t = 0;
        // SAFETY: The pointer is to a uid that the kernel may write.
        if unsafe { libc::ioctl(owner.as_raw_fd(), NS_GET_OWNER_UID, &raw mut maker) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(maker == uid)
    }

    /// How long the kernel keeps what no process holds.
    ///
    /// # Errors
    ///
    /// As [`Netns::sysctl_u32`].
    pub fn tcp_timeouts(&self) -> io::Result<TcpTimeouts> {
        within(self.as_fd(), || {
            Ok(TcpTimeouts {
                fin_timeout: Duration::from_secs(number("net/ipv4/tcp_fin_timeout")?.into()),
                retries2: number("net/ipv4/tcp_retries2")?,
                rto_max: match number("net/ipv4/tcp_rto_max_ms") {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => TCP_RTO_MAX,
                    millis => Duration::from_millis(millis?.into()),
                },
            })
        })
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino() as u32;
        Ok(Self {
            fd: file.into(),
            inode,
        })
    }

    /// Opens it if it still is that namespace.
    fn open_as(path: &Path, inode: u32) -> Option<Self> {
        Self::open(path).ok().filter(|found| found.inode == inode)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The text of a sysctl. /proc/sys/net shows the namespace of the thread that opens the file (`net_ctl_header_lookup`,
/// net/sysctl_net.c), so the whole access has to happen inside.
fn text(name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/{name}"))
}

/// The number in such a sysctl.
fn number(name: &str) -> io::Result<u32> {
    let text = text(name)?;
    text.trim().parse().map_err(|_| {
        let told = format!("/proc/sys/{name} is {:?}, not a number", text.trim());
        io::Error::new(io::ErrorKind::InvalidData, told)
    })
}

/// Runs `work` in a thread that is in that namespace. In the caller's own namespace it runs directly and
/// needs no privilege.
///
/// # Errors
///
/// When the namespace cannot be entered, which needs CAP_SYS_ADMIN, or those of `work`.
pub fn within<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let there = File::from(namespace.try_clone_to_owned()?).metadata()?;
    let here = fs::metadata(OWN)?;
    if (there.dev(), there.ino()) == (here.dev(), here.ino()) {
        return work();
    }
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                enter(namespace)?;
                work()
            })?;
        worker
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: The call takes no pointers; it changes the namespace of this thread only.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let told = format!("cannot enter the network namespace: {error}; it needs CAP_SYS_ADMIN (sudo)");
    Err(io::Error::new(error.kind(), told))
}

/// Runs `work` in a new namespace.
#[cfg(test)]
pub(super) fn in_new_namespace<T: Send + 'static>(work: fn() -> io::Result<T>) -> T {
    let made = thread::spawn(move || {
        // SAFETY: The call takes no pointers; it changes the namespace of this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        work()
    });
    made.join().unwrap().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_needs_no_privilege() {
        let own = Netns::current().unwrap();
        assert_eq!(
            Netns::of_process(std::process::id()).unwrap().inode(),
            own.inode()
        );
        assert_eq!(Netns::find(own.inode()).unwrap().unwrap().inode(), own.inode());
        assert!(own.sysctl_u32("net/ipv4/tcp_fin_timeout").unwrap() > 0);
        assert!(own.orphan_retries().unwrap() > 0);
        let timeouts = own.tcp_timeouts().unwrap();
        assert!(timeouts.fin_timeout >= Duration::from_secs(1) && timeouts.rto_max <= TCP_RTO_MAX);
        assert!(own.sysctl_u32("net/ipv4/ip_local_port_range").is_err());
        assert!(Netns::find(1).unwrap().is_none());
    }

    #[test]
    #[ignore = "needs root"]
    fn sysctls_are_those_of_the_namespace() {
        let own = Netns::current().unwrap();
        let other = in_new_namespace(|| {
            fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "3")?;
            fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "7")?;
            fs::write("/proc/sys/net/ipv4/tcp_retries2", "5")?;
            Netns::current()
        });
        assert_ne!(other.inode(), own.inode());
        assert_eq!(other.orphan_retries().unwrap(), 3);
        assert_ne!(own.orphan_retries().unwrap(), 3);
        let timeouts = other.tcp_timeouts().unwrap();
        assert_eq!(
            (timeouts.fin_timeout, timeouts.retries2),
            (Duration::from_secs(7), 5)
        );
        assert_eq!(Netns::current().unwrap().inode(), own.inode());
    }
}
