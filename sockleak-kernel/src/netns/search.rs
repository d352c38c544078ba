//! Where network namespaces can be seen: processes, bind mounts, descriptors.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::{fs, process};

use super::Netns;
use crate::proc;

impl Netns {
    /// Searches a namespace by its inode: first in all processes, then in the bind mounts of
    /// `ip netns` and of container runtimes, at last in the descriptors of all processes. `None` if nothing has it.
    ///
    /// # Errors
    ///
    /// When /proc cannot be read; `PermissionDenied` when something may have it that may not be looked at, because
    /// CAP_SYS_PTRACE is missing.
    pub fn find(inode: u32) -> io::Result<Option<Self>> {
        let processes = proc::pids()?
            .into_iter()
            .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        let link = link(inode);
        let mut refused = proc::hidden();
        for path in processes {
            // The link is read first because opening the namespace of every process costs more.
            let target = fs::read_link(&path);
            refused += usize::from(is_refused(&target));
            let same = target.is_ok_and(|target| target.as_os_str() == link.as_str());
            if same && let Some(found) = Self::open_as(&path, inode) {
                return Ok(Some(found));
            }
        }
        let mounts = fs::read("/proc/self/mountinfo")?;
        let found = mount_points(&mounts, |root| root == link.as_bytes())
            .iter()
            .find_map(|path| Self::open_as(path, inode))
            .or_else(|| {
                let descriptors = proc::links_to(link.as_bytes()).unwrap_or_default();
                descriptors.iter().find_map(|path| Self::open_as(path, inode))
            });
        if found.is_none() && refused > 0 && !may_look_into_others() {
            let told = format!(
                "{refused} processes may not be asked for their network namespace, which needs CAP_SYS_PTRACE (sudo)"
            );
            return Err(io::Error::new(ErrorKind::PermissionDenied, told));
        }
        Ok(found)
    }

    /// Every namespace that a process is in or that is mounted, the calling thread's own first, each with the path
    /// by which it was found. Those that may not be opened are counted.
    ///
    /// # Errors
    ///
    /// When /proc cannot be read.
    pub fn all() -> io::Result<(Vec<(Self, PathBuf)>, usize)> {
        let own = Self::current()?;
        let mut seen = HashSet::from([own.inode()]);
        let mut all = vec![(own, PathBuf::from(super::OWN))];
        let mut refused = proc::hidden();
        let processes = proc::pids()?
            .into_iter()
            .map(|pid| (Some(pid), PathBuf::from(format!("/proc/{pid}/ns/net"))));
        let mounts = mount_points(&fs::read("/proc/self/mountinfo")?, |root| {
            root.starts_with(b"net:[")
        });
        for (pid, path) in processes.chain(mounts.into_iter().map(|path| (None, path))) {
            match Self::open(&path) {
                Ok(namespace) if seen.insert(namespace.inode()) => all.push((namespace, path)),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    refused += usize::from(pid.is_none_or(proc::may_hold));
                }
                _ => {}
            }
        }
        Ok((all, refused))
    }
}

fn is_refused<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

/// Some processes are refused to root too: those that are dying, or that a security module protects.
fn may_look_into_others() -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    let own = proc::status(process::id()).ok();
    own.and_then(|own| own.effective_capabilities)
        .is_some_and(|capabilities| capabilities >> CAP_SYS_PTRACE & 1 == 1)
}

/// What the links of /proc/PID/ns/net and the roots of nsfs mounts say.
fn link(inode: u32) -> String {
    format!("net:[{inode}]")
}

/// Where namespaces are mounted whose root is wanted, from the text of /proc/PID/mountinfo: fields are separated by spaces, the
/// fourth is the root within the file system, the fifth the mount point (Documentation/filesystems/proc.rst).
fn mount_points(mountinfo: &[u8], root: impl Fn(&[u8]) -> bool) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(3);
            let found = root(fields.next()?);
            let point = fields.next()?;
            found.then(|| PathBuf::from(OsString::from_vec(unescape(point))))
        })
        .collect()
}

/// Undoes the kernel's escapes of space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn finds_mounts_of_a_namespace() {
        let mountinfo = b"21 1 0:20 / /proc rw - proc proc rw\n\
            99 22 0:4 net:[4026532281] /run/netns/with\\040space rw shared:5 - nsfs nsfs rw\n\
            98 22 0:4 net:[4026532999] /run/netns/other rw - nsfs nsfs rw\n\
            broken line\n";
        assert_eq!(
            mount_points(mountinfo, |root| root == link(4_026_532_281).as_bytes()),
            [Path::new("/run/netns/with space")]
        );
        assert!(mount_points(mountinfo, |root| root == link(1).as_bytes()).is_empty());
        assert_eq!(unescape(b"a\\134b\\9\\12"), b"a\\b\\9\\12");
    }
}
