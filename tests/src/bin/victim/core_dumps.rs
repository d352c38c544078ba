//! What decides whether a core is written, and the program that reads one.

use std::env;
use std::io;
use std::path::PathBuf;

use sockleak_tests::net::checked;

/// Core dumps are off for the tests, except for the one that asks here.
pub fn limit(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads one rlimit, which outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }).map(drop)
}

/// The process counts as one that has seen secrets, of which the kernel writes no core.
pub fn forbid() -> io::Result<()> {
    // SAFETY: prctl takes integers and touches no memory of ours.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }).map(drop)
}

/// Reads the core from stdin once there is a file `go` beside this program, or once its writer is gone. What
/// fits into the pipe is written before; the rest of the dump waits.
pub fn swallow() -> io::Result<()> {
    let program = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let go = program.with_file_name("go");
    let mut hangup = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: 0,
        revents: 0,
    };
    while !go.exists() {
        // SAFETY: The pointer is to one pollfd, which outlives the call.
        if checked(unsafe { libc::poll(&raw mut hangup, 1, 10) })? == 1 {
            break;
        }
    }
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}
