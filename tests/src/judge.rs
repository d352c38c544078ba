//! What the kernel says itself about the network namespace of the calling thread.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;

use crate::limit::wait_until;

/// A line of `/proc/net/tcp` or `tcp6`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub state: &'static str,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub timer: Timer,
    pub expires: Duration,
    /// 0 when no file refers to it.
    pub inode: u64,
    /// When the line was read.
    pub time: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    None,
    Retransmit,
    Keepalive,
    TimeWait,
    Persist,
}

/// Every TCP socket of the namespace; those that are bound only are in no such list.
#[must_use]
pub fn sockets() -> Vec<Entry> {
    let mut entries = Vec::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        // Without IPv6 the second file is missing.
        let text = fs::read_to_string(file).unwrap_or_default();
        let time = Timestamp::now();
        entries.extend(text.lines().skip(1).map(|line| entry(line, time)));
    }
    entries
}

/// The sockets with that local port.
#[must_use]
pub fn of_port(port: u16) -> Vec<Entry> {
    sockets()
        .into_iter()
        .filter(|entry| entry.local.port() == port)
        .collect()
}

/// How many sockets have that local port and that state.
#[must_use]
pub fn count(port: u16, state: &str) -> usize {
    of_port(port).iter().filter(|entry| entry.state == state).count()
}

/// A counter of TcpExt in the namespace of the caller (`netstat_seq_show`, net/ipv4/proc.c).
#[track_caller]
#[must_use]
pub fn netstat(counter: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("the kernel shows it");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let mut row = || rows.next().expect("names and numbers").split(' ');
    let (names, numbers) = (row(), row());
    let found = names.zip(numbers).find(|(name, _)| *name == counter);
    let (_, number) = found.unwrap_or_else(|| panic!("the kernel does not count {counter}"));
    number.parse().expect("a number")
}

/// The kernel's own counter comes to so many time-wait sockets of the namespace. It counts one a moment after that is
/// in the table (`inet_twsk_hashdance_schedule`, net/ipv4/inet_timewait_sock.c).
#[track_caller]
pub fn counts_timewaits(number: usize) {
    wait_until(&format!("{number} time-wait sockets in sockstat"), || {
        sockstat("tw") == number
    });
}

/// Full sockets without an owner of the whole machine, by the kernel's own counter.
#[must_use]
pub fn sockstat_orphans() -> usize {
    sockstat("orphan")
}

fn sockstat(name: &str) -> usize {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").expect("the kernel has it");
    let words: Vec<&str> = text.split_whitespace().collect();
    let found = words.iter().position(|word| *word == name);
    words[found.expect("a count") + 1].parse().expect("a number")
}

/// A line of `ss -tano`.
#[derive(Debug)]
pub struct SsRow {
    pub state: String,
    pub local: SocketAddr,
    /// `None` for a listener.
    pub remote: Option<SocketAddr>,
    /// What is left of its timer, where one runs.
    pub timer: Option<Duration>,
    /// Bytes that are not acknowledged, a FIN among them.
    pub send_queue: u64,
}

/// The IPv4 sockets with that local port as `ss` shows them.
#[must_use]
pub fn ss(port: u16) -> Vec<SsRow> {
    let output = Command::new("ss")
        .args(["-4tanoH", &format!("sport = :{port}")])
        .output();
    let output = String::from_utf8(output.expect("a needed program").stdout).expect("ss writes ASCII");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let timer = words.iter().find_map(|word| word.strip_prefix("timer:("));
        SsRow {
            state: words[0].replace('-', "_"),
            local: words[3].parse().expect("an address"),
            remote: words[4].parse().ok(),
            timer: timer.and_then(|timer| timer.split(',').nth(1)).map(ss_time),
            send_queue: words[2].parse().expect("a number"),
        }
    };
    output.lines().map(row).collect()
}

/// When the peer of an IPv4 socket acknowledged anything last.
#[track_caller]
#[must_use]
pub fn last_ack(local: SocketAddr, remote: SocketAddr) -> Duration {
    let filter = format!("src {local} and dst {remote}");
    let output = Command::new("ss").args(["-4taiH", &filter]).output();
    let output = String::from_utf8(output.expect("a needed program").stdout).expect("ss writes ASCII");
    let told = output
        .split_whitespace()
        .find_map(|word| word.strip_prefix("lastack:"));
    let milliseconds = told.unwrap_or_else(|| panic!("ss tells no last ACK: {output}"));
    Duration::from_millis(milliseconds.parse().expect("a number"))
}

/// `1min2sec`, `59sec`, `512ms`, and `8.042ms` for a little more than eight seconds.
fn ss_time(text: &str) -> Duration {
    let (minutes, rest) = text.split_once("min").unwrap_or(("0", text));
    let number = rest.trim_end_matches(char::is_alphabetic);
    let is_below_a_second = rest.ends_with("ms") && !number.contains('.');
    let unit = if is_below_a_second { 0.001 } else { 1.0 };
    let parsed = |text: &str| text.parse().unwrap_or(0.0);
    Duration::from_secs_f64(parsed(minutes) * 60.0 + parsed(number) * unit)
}

/// Inodes of the sockets that a process has descriptors of.
#[must_use]
pub fn socket_inodes(pid: u32) -> Vec<u64> {
    socket_descriptors(pid)
        .into_iter()
        .map(|(_, inode)| inode)
        .collect()
}

/// The descriptors of sockets that a process has, with their inodes.
#[must_use]
pub fn socket_descriptors(pid: u32) -> Vec<(u64, u64)> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let inode = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    let one = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode(link.to_str()?)?))
    };
    descriptors.flatten().filter_map(one).collect()
}

/// Whether the kernel lets this process see what every other one has open. Modules and namespaces may hide some
/// even from root.
#[must_use]
pub fn all_tables_are_readable() -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let numbers = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let is_number = |entry: &fs::DirEntry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok())
    };
    numbers.filter(is_number).all(|process| {
        let lives = || {
            let stat = fs::read_to_string(process.path().join("stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        match fs::read_dir(process.path().join("fd")) {
            Ok(mut links) => !links.any(|link| {
                let target = link.and_then(|link| fs::read_link(link.path()));
                target.is_err_and(|error| refused(&error)) && lives()
            }),
            Err(error) => !(refused(&error) && lives()),
        }
    })
}

const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// The name of a state of include/net/tcp_states.h.
#[must_use]
pub fn state(number: u8) -> &'static str {
    STATES[usize::from(number) - 1]
}

fn entry(line: &str, time: Timestamp) -> Entry {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = usize::from_str_radix(words[3], 16).expect("a state");
    let (timer, ticks) = words[5].split_once(':').expect("a timer and its time");
    let ticks = u64::from_str_radix(ticks, 16).expect("a time");
    Entry {
        state: STATES[state - 1],
        local: address(words[1]),
        remote: address(words[2]),
        timer: match timer {
            "01" => Timer::Retransmit,
            "02" => Timer::Keepalive,
            "03" => Timer::TimeWait,
            "04" => Timer::Persist,
            _ => Timer::None,
        },
        // The clock of /proc has 100 ticks a second on every architecture that Debian builds for.
        expires: Duration::from_millis(ticks * 10),
        inode: words[9].parse().expect("an inode"),
        time,
    }
}

/// Addresses are written as numbers of 32 bits in the byte order of the machine.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(&ip[start..start + 8], 16).expect("hexadecimal digits");
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => Ipv4Addr::from(bytes).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).expect("sixteen bytes")).into(),
    };
    (ip, u16::from_str_radix(port, 16).expect("a port")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_time_wait_socket() {
        let line = "0: 0100007F:1F90 0100007F:9D6A 05 00000000:00000000 03:00001752 00000000 0 0 0 3 0";
        let entry = entry(line, Timestamp::UNIX_EPOCH);
        assert_eq!((entry.state, entry.timer), ("FIN_WAIT2", Timer::TimeWait));
        assert_eq!(entry.expires, Duration::from_millis(59_700));
        assert_eq!(
            (entry.local.to_string(), entry.remote.port()),
            ("127.0.0.1:8080".into(), 40298)
        );
    }

    #[test]
    fn reads_a_mapped_address() {
        let mapped = address("0000000000000000FFFF00000100007F:0050");
        assert_eq!(mapped.to_string(), "[::ffff:127.0.0.1]:80");
    }

    #[test]
    fn reads_the_times_of_ss() {
        assert_eq!(ss_time("1min2sec"), Duration::from_secs(62));
        assert_eq!(ss_time("59sec"), Duration::from_secs(59));
        assert_eq!(ss_time("1min"), Duration::from_secs(60));
        assert_eq!(ss_time("512ms"), Duration::from_millis(512));
        assert_eq!(ss_time("8.042ms"), Duration::from_millis(8042));
    }
}
