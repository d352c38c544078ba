//! What a process has open.

use std::path::PathBuf;
use std::{fs, io};

use super::pids::{numbers, pids};

/// The descriptors of all processes that lead to that target, as paths in /proc.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn links_to(target: &[u8]) -> io::Result<Vec<PathBuf>> {
    let tables = pids()?.into_iter().filter_map(|pid| table(pid).ok());
    let paths =
        tables.flat_map(|(directory, open)| open.into_iter().map(move |fd| directory.join(fd.to_string())));
    let leads_there = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|found| found.as_os_str().as_encoded_bytes() == target)
    };
    Ok(paths.filter(leads_there).collect())
}

/// The folder of a process's descriptors, and their numbers. That of the process itself is its first thread's,
/// and empty once that thread has ended, although the others still have them all.
pub(super) fn table(pid: u32) -> io::Result<(PathBuf, Vec<u32>)> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let of_leader = process.join("fd");
    let open = numbers(&of_leader)?;
    if open.is_empty() {
        let threads = process.join("task");
        for thread in numbers(&threads)?.into_iter().filter(|thread| *thread != pid) {
            let of_thread = threads.join(thread.to_string()).join("fd");
            let open = numbers(&of_thread).unwrap_or_default();
            if !open.is_empty() {
                return Ok((of_thread, open));
            }
        }
    }
    Ok((of_leader, open))
}
