//! How large a file may become, which stands for a full disk.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::net::checked;

/// Lets the program that the command starts write nothing into files: it gets EFBIG. Pipes are no files.
pub fn no_room(command: &mut Command) {
    static NONE: libc::rlimit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: signal and setrlimit are system calls that need no lock and no memory; setrlimit reads one rlimit.
    unsafe {
        command.pre_exec(|| {
            // It would be killed, which no disk does.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            checked(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const NONE)).map(drop)
        });
    }
}
