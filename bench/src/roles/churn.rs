//! A process that nobody traces and that makes connections all the time: connect, accept, close, close.
//!
//! `run N` makes N stretches of it and answers with the nanoseconds that each took on the clock, then with
//! the nanoseconds of its CPU time.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sockleak_kernel::stage;

use super::obey;
use crate::process::own_cpu_time;

/// Connections of a stretch.
pub const STRETCH: u32 = 200;

/// # Errors
/// When a command is wrong, or the kernel refuses a connection.
pub fn run() -> Result<()> {
    keep_no_time_wait()?;
    obey(|words| {
        let ["run", number] = words else {
            bail!("there is no command {words:?}")
        };
        let mut wall = Vec::new();
        let mut cpu = Vec::new();
        for _ in 0..number.parse::<u32>()? {
            let (start, used) = (Instant::now(), own_cpu_time()?);
            stretch()?;
            cpu.push(own_cpu_time()?.saturating_sub(used).as_nanos().to_string());
            wall.push(start.elapsed().as_nanos().to_string());
        }
        Ok(format!("{} {}", wall.join(","), cpu.join(",")))
    })
}

/// From a network namespace of its own, in which the table of TIME_WAITs is always full: a pile of them that grows until
/// it is full would make each connection cost something else than the one before.
fn keep_no_time_wait() -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    stage::isolate().context("a network namespace")?;
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
