//! A process with as many sockets as it is told.
//!
//! | command | what it opens |
//! |---|---|
//! | `pairs N ADDRESS` | a listener on that address, and N connections of its own to it: 2 N + 1 sockets |
//! | `high FD` | a listener as that descriptor, so that the table is large and all but empty |
//! | `crash` | nothing: it dies by SIGSEGV |

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use sockleak_kernel::sandbox;

use super::obey;

/// # Errors
/// When a command is wrong, or the kernel refuses a socket.
pub fn run() -> Result<()> {
    let mut sockets: Vec<OwnedFd> = Vec::new();
    obey(|words| {
        match words {
            ["pairs", number, address] => open(&mut sockets, number.parse()?, address.parse()?)?,
            ["high", fd] => sockets.push(high(fd.parse()?)?),
            ["crash"] => sandbox::crash(),
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

/// A listener takes the lowest descriptor that is free.
fn high(fd: i32) -> Result<OwnedFd> {
    let mut below = vec![File::open("/dev/null")?];
    while below.last().is_some_and(|last| last.as_raw_fd() < fd - 1) {
        below.push(File::open("/dev/null").context("a high descriptor")?);
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into())
}
