//! A process that nobody traces and that makes connections all the time: connect, accept, close, close.
//!
//! `run N` makes N stretches of it and answers with their number.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, bail};
use sockleak_kernel::sandbox;

use super::obey;
/// Connections of a stretch.
const STRETCH: u32 = 200;

/// # Errors
/// When a command is wrong, or the kernel refuses a connection.
pub fn run() -> Result<()> {
    keep_no_time_wait()?;
    obey(|words| {
        let ["run", number] = words else {
            bail!("there is no command {words:?}")
        };
        for _ in 0..number.parse::<u32>()? {
            stretch()?;
        }
        Ok((*number).to_owned())
    })
}

/// From a network namespace of its own, in which the table of TIME_WAITs is always full: a pile of them that grows until
/// it is full would make each connection cost something else than the one before.
fn keep_no_time_wait() -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    sandbox::isolate().context("a network namespace")?;
    fs::write(LIMIT, "0").with_context(|| format!("cannot write {LIMIT}"))
}

fn stretch() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let address = listener.local_addr()?;
    for _ in 0..STRETCH {
        let near = TcpStream::connect(address).context("connect")?;
        let far = listener.accept().context("accept")?;
        drop(near);
        drop(far);
    }
    Ok(())
}
