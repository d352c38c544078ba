//! The table of time-wait mini sockets of a network namespace.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;

use super::netns::{self, Netns};

/// What the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWaitTable {
    /// How often there was no room for a mini socket (`inet_twsk_alloc`, net/ipv4/inet_timewait_sock.c).
    pub overflows: u64,
    /// There is no room now: `tcp_max_tw_buckets` is reached.
    pub is_full: bool,
}

impl TimeWaitTable {
    /// Reads it from `/proc/net/netstat`, `/proc/net/sockstat` and `net.ipv4.tcp_max_tw_buckets`.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or /proc tells something else.
    pub fn read(namespace: &Netns) -> io::Result<Self> {
        // /proc/net is that of the thread-group leader.
        let (netstat, sockstat) = netns::within(namespace.as_fd(), || {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok((read("netstat")?, read("sockstat")?))
        })?;
        let unknown = |name: &str| io::Error::new(ErrorKind::InvalidData, format!("no {name} in /proc/net"));
        let overflows =
            counter(&netstat, "TCPTimeWaitOverflow").ok_or_else(|| unknown("TCPTimeWaitOverflow"))?;
        let time_waits = time_waits(&sockstat).ok_or_else(|| unknown("tw"))?;
        let most = namespace.sysctl_u32("net/ipv4/tcp_max_tw_buckets")?;
        Ok(Self {
            overflows,
            is_full: time_waits >= u64::from(most),
        })
    }
}

/// A counter of `/proc/net/netstat`, whose lines come in pairs: names, then values.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = netstat.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let index = pair[0].split_whitespace().position(|word| word == name)?;
        pair[1].split_whitespace().nth(index)?.parse().ok()
    })
}

/// The number behind `tw` in the line of `/proc/net/sockstat` that is about TCP.
fn time_waits(sockstat: &str) -> Option<u64> {
    let mut words = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?
        .split_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let netstat = "TcpExt: SyncookiesSent TCPTimeWaitOverflow TW\nTcpExt: 1 23 4\n\
                       IpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(counter(netstat, "TCPTimeWaitOverflow"), Some(23));
        assert_eq!(counter(netstat, "InNoRoutes"), Some(5));
        assert_eq!(counter(netstat, "OutNoRoutes"), None);
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 7 alloc 8 mem 1\nUDP: inuse 0 mem 0\n";
        assert_eq!(time_waits(sockstat), Some(7));
        assert_eq!(time_waits("sockets: used 9\n"), None);
    }
}
