//! /proc: who a process is, who descends from it, who holds a socket.

mod parse;
mod pids;
mod table;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::{fs, io};

pub use parse::{Stat, Status};
pub use pids::pids;
use sockleak_core::observed::Process;
pub use table::links_to;

use self::table::table;
use super::clock::{self, BootClock};

/// Inode of the initial PID namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A descriptor that leads to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Inode of the socket in sockfs.
    pub inode: u64,
    pub pid: u32,
    /// Not escaped.
    pub comm: String,
    pub fd: u32,
}

/// What a search for holders found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// By ascending pid and fd.
    pub held: Vec<Held>,
    /// Processes whose descriptors may not be read in /proc: those of other users need CAP_SYS_PTRACE and
    /// CAP_DAC_READ_SEARCH. The kernel's iterator over descriptors leaves out none.
    pub unreadable: usize,
}

/// How many processes are known to be hidden, where /proc is mounted with hidepid and CAP_SYS_PTRACE is missing: the first
/// one, which is always there.
#[must_use]
pub fn hidden() -> usize {
    usize::from(!Path::new("/proc/1").exists())
}

/// `/proc/PID/stat`.
///
/// # Errors
///
/// `NotFound` when there is no such process or thread.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let text = read(pid, "stat")?;
    Stat::parse(&text).ok_or_else(|| malformed(pid, "stat"))
}

/// `/proc/PID/status`.
///
/// # Errors
///
/// `NotFound` when there is no such process or thread.
pub fn status(pid: u32) -> io::Result<Status> {
    Ok(Status::parse(&read(pid, "status")?))
}

/// The children that the first thread of a process has, where the kernel lists them (CONFIG_PROC_CHILDREN). It takes no
/// look at every process, as [`descendants`] does, and may miss some.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// How many descriptors a process has open: told by the size of the directory since 6.2 (`proc_readfd_count`,
/// fs/proc/fd.c). Before, how many its table has room for, which never becomes smaller: at most 32,768 are told then.
///
/// # Errors
///
/// `NotFound` when there is no such process.
pub fn open_descriptors(pid: u32) -> io::Result<u32> {
    match fs::metadata(format!("/proc/{pid}/fd"))?.len() {
        0 => Ok(status(pid)?.descriptor_slots.unwrap_or(0).min(1 << 15)),
        open => Ok(open.try_into().unwrap_or(u32::MAX)),
    }
}

/// What is known of a process besides its sockets. What may not be read is `None`.
///
/// # Errors
///
/// `NotFound` when there is no such process.
pub fn process(pid: u32, target: bool) -> io::Result<Process> {
    let stat = stat(pid)?;
    Ok(Process {
        pid,
        ns_pid: status(pid).ok().and_then(|status| status.ns_pid),
        started: BootClock::sample().timestamp(started_ns(&stat)),
        comm: stat.comm,
        exe: fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        cgroup: read(pid, "cgroup").ok().and_then(|text| parse::cgroup(&text)),
        target,
    })
}

/// When a process started, in nanoseconds of the kernel's boot time, cut to a tick.
///
/// Since 5.11 `/proc/PID/stat` tells it in the reader's time namespace (`do_task_stat`, fs/proc/array.c), before in the
/// kernel's: this process began a moment ago by one of the two.
#[must_use]
pub fn started_ns(stat: &Stat) -> u64 {
    static AHEAD: LazyLock<i128> = LazyLock::new(|| {
        let (now, ahead) = (i128::from(clock::boottime_ns()), clock::namespace_offset());
        let own = self::stat(std::process::id()).map_or(now, |own| clock::from_ticks(own.start_ticks).into());
        let is_ahead = (now + ahead - own).abs() < (now - own).abs();
        if is_ahead { ahead } else { 0 }
    });
    let since_boot = i128::from(clock::from_ticks(stat.start_ticks)) - *AHEAD;
    u64::try_from(since_boot).unwrap_or(0)
}

/// Every process that descends from one, without itself, in the order of the generations.
///
/// It is one scan: a child that is forked meanwhile can be missing, and so can the descendants of a process
/// that died before, which then belong to init.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn descendants(pid: u32) -> io::Result<Vec<u32>> {
    let parents = pids()?
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid).ok()?.parent)))
        .collect::<Vec<_>>();
    Ok(descend(pid, &parents))
}

fn descend(ancestor: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in parents {
        children.entry(*parent).or_default().push(*pid);
    }
    let mut found = children.remove(&ancestor).unwrap_or_default();
    let mut next = 0;
    // Each list is taken out, so that a loop, which a reused PID could make during the scan, ends.
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Two processes use one fd table (CLONE_FILES); `None` where the kernel does not tell (CONFIG_KCMP, or
/// CAP_SYS_PTRACE is missing).
#[must_use]
pub fn share_files(one: u32, other: u32) -> Option<bool> {
    /// `enum kcmp_type` of include/uapi/linux/kcmp.h.
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: The call takes no pointers.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) } {
        0 => Some(true),
        1.. => Some(false),
        _ => None,
    }
}

/// Inodes of the sockets that a process has open.
///
/// # Errors
///
/// `NotFound` when it is gone, `PermissionDenied` when its descriptors may not be read.
pub fn socket_inodes(pid: u32) -> io::Result<HashSet<u64>> {
    let (directory, descriptors) = table(pid)?;
    let inodes = descriptors.into_iter().filter_map(|fd| {
        // The directory may be read and its links not (`proc_fd_permission` and `proc_fd_link`, fs/proc/fd.c).
        let target = match fs::read_link(directory.join(fd.to_string())) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Some(Err(error)),
            Err(_) => return None,
        };
        parse::socket_inode(target.as_os_str().as_encoded_bytes()).map(Ok)
    });
    inodes.collect()
}

/// Who has descriptors of these sockets, this process left out. One pass over every descriptor of the system.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn holders(inodes: &HashSet<u64>) -> io::Result<Holders> {
    let mut holders = Holders::default();
    if inodes.is_empty() {
        return Ok(holders);
    }
    holders.unreadable = hidden();
    for pid in pids()?.into_iter().filter(|pid| *pid != std::process::id()) {
        match held_by(pid, inodes) {
            Ok(held) => holders.held.extend(held),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                holders.unreadable += usize::from(may_hold(pid));
            }
            Err(_) => {} // It is gone.
        }
    }
    Ok(holders)
}

/// A process that may not be looked into may have descriptors and namespaces. With hidepid its stat is refused too.
pub(super) fn may_hold(pid: u32) -> bool {
    match stat(pid) {
        Ok(stat) => !stat.holds_nothing(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn held_by(pid: u32, inodes: &HashSet<u64>) -> io::Result<Vec<Held>> {
    let (directory, open) = table(pid)?;
    let mut descriptors: Vec<(u32, u64)> = open
        .into_iter()
        .filter_map(|fd| {
            let target = match fs::read_link(directory.join(fd.to_string())) {
                Ok(target) => target,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Some(Err(error)),
                Err(_) => return None,
            };
            let inode = parse::socket_inode(target.as_os_str().as_encoded_bytes())?;
            inodes.contains(&inode).then_some(Ok((fd, inode)))
        })
        .collect::<io::Result<_>>()?;
    if descriptors.is_empty() {
        return Ok(Vec::new());
    }
    descriptors.sort_unstable();
    let comm = stat(pid)?.comm;
    Ok(descriptors
        .into_iter()
        .map(|(fd, inode)| Held {
            inode,
            pid,
            comm: comm.clone(),
            fd,
        })
        .collect())
}

/// This process is in a PID namespace of its own, so that the PIDs it sees are not those that the kernel's
/// tracepoints tell.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn in_nested_pid_namespace() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino() != INITIAL_PID_NAMESPACE)
}

/// Reads a file of a process. A process that dies in between gives ESRCH, which is `NotFound` here too.
fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/{name}")).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

fn malformed(pid: u32, name: &str) -> io::Error {
    let told = format!("/proc/{pid}/{name} is not as documented in proc(5)");
    io::Error::new(io::ErrorKind::InvalidData, told)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::process::{self, Command, Stdio};

    use super::*;

    #[test]
    fn descendants_are_found_through_the_generations() {
        let parents = [
            (1, 0),
            (10, 1),
            (11, 10),
            (12, 10),
            (13, 12),
            (20, 1),
            (30, 31),
            (31, 30),
        ];
        assert_eq!(descend(10, &parents), [11, 12, 13]);
        assert!(descend(13, &parents).is_empty());
        assert_eq!(descend(30, &parents), [31, 30]);
    }

    #[test]
    fn tells_who_this_process_is() {
        let own = process::id();
        let known = process(own, true).unwrap();
        assert_eq!(known.pid, own);
        assert_eq!(
            known.exe.unwrap(),
            std::env::current_exe().unwrap().to_string_lossy()
        );
        let age = jiff::Timestamp::now().duration_since(known.started.unwrap());
        assert!(age.as_secs() < 24 * 3600 && age.as_millis() > -100, "{age:?}");
        assert!(!stat(own).unwrap().is_kernel_thread());
        assert_eq!(stat(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(status(own).unwrap().tgid, Some(own));
    }

    #[test]
    fn tells_the_children() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = String::new();
        let stdout = shell.stdout.take().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut child).unwrap();
        let is_told = Path::new("/proc/thread-self/children").exists();
        let expected: Vec<u32> = is_told
            .then(|| child.trim().parse().unwrap())
            .into_iter()
            .collect();
        assert_eq!(children(shell.id()), expected);
        shell.wait().unwrap();
        assert!(children(u32::MAX).is_empty());
    }

    /// Other tests open and close some of this process meanwhile, or a kernel tells how many there is room for.
    #[test]
    fn counts_the_descriptors_that_are_open() {
        let own = process::id();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors(own).unwrap() as usize >= files.len());
        assert_eq!(
            open_descriptors(u32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn finds_the_child_that_inherited_a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = parse::socket_inode(link.as_os_str().as_encoded_bytes()).unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        let mut found = holders(&HashSet::from([inode])).unwrap();
        // Until it executes its program, a child of another test has what this process has.
        found.held.retain(|held| held.pid == child.id());
        let children = descendants(process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let expected = Held {
            inode,
            pid: child.id(),
            comm: "sleep".to_owned(),
            fd: 0,
        };
        assert_eq!(found.held, [expected]);
        assert!(children.contains(&child.id()));
        assert_eq!(holders(&HashSet::new()).unwrap(), Holders::default());
    }
}
