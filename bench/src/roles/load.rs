//! A process with as many sockets as it is told.
//!
//! | command | what it opens |
//! |---|---|
//! | `pairs N ADDRESS` | a listener on that address, and N connections of its own to it: 2 N + 1 sockets |
//! | `high FD` | a listener as that descriptor, so that the table is large and all but empty |

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};

use super::obey;

/// # Errors
/// When a command is wrong, or the kernel refuses a socket.
pub fn run() -> Result<()> {
    // SAFETY: Both calls take integers. The crash shall not write a core file, whatever the machine's settings are; and
    // the handler of Rust's runtime, which looks for overflows of the stack, would let a SIGSEGV from outside pass.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
    }
    let mut sockets: Vec<OwnedFd> = Vec::new();
    obey(|words| {
        match words {
            ["pairs", number, address] => open(&mut sockets, number.parse()?, address.parse()?)?,
            ["high", fd] => sockets.push(high(fd.parse()?)?),
            _ => bail!("there is no command {words:?}"),
        }
        Ok(sockets.len().to_string())
    })
}

fn open(sockets: &mut Vec<OwnedFd>, pairs: usize, address: Ipv4Addr) -> Result<()> {
    let listener = TcpListener::bind((address, 0)).context("listen")?;
    let address = listener.local_addr()?;
    for _ in 0..pairs {
        sockets.push(TcpStream::connect(address).context("connect")?.into());
        sockets.push(listener.accept().context("accept")?.0.into());
    }
    sockets.push(listener.into());
    Ok(())
}

fn high(fd: i32) -> Result<OwnedFd> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // SAFETY: The call takes integers.
    let fd = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_DUPFD_CLOEXEC, fd) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("a high descriptor");
    }
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
