//! A process that nobody traces and that makes connections all the time: connect, accept, close, close.
//!
//! `run N` makes N stretches of it and answers with the nanoseconds that each took on the clock, then with
//! the nanoseconds of its CPU time.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use sockleak::kernel::stage;

use super::obey;
use crate::process::own_cpu_time;

/// Connections of a stretch.
pub const STRETCH: u32 = 200;

/// # Errors
/// When a command is wrong, or the kernel refuses a connection.
pub fn run() -> Result<()> {
    stage::isolate().context("a network namespace")?;
    widen_port_range()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listen")?;
    let port = listener.local_addr()?.port();
    let mut address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    obey(|words| {
        let ["run", number] = words else {
            bail!("there is no command {words:?}")
        };
        let mut wall = Vec::new();
        let mut cpu = Vec::new();
        for _ in 0..number.parse::<u32>()? {
            let (start, used) = (Instant::now(), own_cpu_time()?);
            stretch(&listener, &mut address)?;
            cpu.push(own_cpu_time()?.saturating_sub(used).as_nanos().to_string());
            wall.push(start.elapsed().as_nanos().to_string());
        }
        Ok(format!("{} {}", wall.join(","), cpu.join(",")))
    })
}

/// Each connection leaves a TIME_WAIT and takes a port, which the next one to the same address may have after a second
/// (`tcp_tw_reuse` is 2, for loopback). So there are as many TIME_WAITs as ports, and each connection costs the same.
fn widen_port_range() -> Result<()> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(RANGE, "1024 65535").with_context(|| format!("cannot write {RANGE}"))
}

/// Connects to the listener by this address, and by the one after it once that has no port left: a fast machine comes
/// round to the first port before its second is over.
fn stretch(listener: &TcpListener, address: &mut SocketAddrV4) -> Result<()> {
    for _ in 0..STRETCH {
        let near = TcpStream::connect(*address).or_else(|error| {
            if error.kind() != io::ErrorKind::AddrNotAvailable {
                return Err(error);
            }
            let [.., last] = address.ip().octets();
            address.set_ip(Ipv4Addr::new(127, 0, 0, last % 8 + 1));
            TcpStream::connect(*address)
        });
        let near = near.context("connect")?;
        let far = listener.accept().context("accept")?;
        drop(near);
        drop(far);
    }
    Ok(())
}

/// The durations of the stretches that `run` answered, and the same of CPU time.
///
/// # Errors
/// When it is no such answer.
pub fn parse(answer: &str) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (wall, cpu) = answer.split_once(' ').context("two lists")?;
    let times = |list: &str| {
        let times = list
            .split(',')
            .map(|time| Ok(Duration::from_nanos(time.parse()?)));
        times.collect::<Result<_>>()
    };
    Ok((times(wall)?, times(cpu)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let of = |times: [u64; 2]| times.map(Duration::from_nanos).to_vec();
        assert_eq!(
            parse("12,34 10,30").expect("an answer"),
            (of([12, 34]), of([10, 30]))
        );
        assert!(parse("12").is_err());
        assert!(parse("12 x").is_err());
    }
}
