//! How many descriptors this process may have.

use std::io;

/// Programs, maps, links and sockets of a trace: about 70 are open at once.
const NEEDED: u64 = 128;
/// A pidfd, and a network namespace.
const NEEDED_FOR_EACH: u64 = 2;

/// Why a trace would run out of descriptors.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    #[error(
        "only {allowed} descriptors are allowed here (RLIMIT_NOFILE), and this trace needs {needed}; raise the limit: \
         sudo prlimit --pid $$ --nofile={needed}:{needed}"
    )]
    TooFew { allowed: u64, needed: u64 },
    #[error("cannot read or raise the limit of descriptors: {0}")]
    Refused(#[from] io::Error),
}

/// Allows this process as many descriptors as it may have at most. Children that are made later inherit that. Says
/// how many.
///
/// # Errors
/// When they are too few for a trace of so many processes.
pub fn raise_limit(processes: usize) -> Result<u64, DescriptorError> {
    let needed = NEEDED + NEEDED_FOR_EACH * processes as u64;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: The pointer is to a limit that the kernel may write.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    if limit.rlim_max < needed {
        return Err(DescriptorError::TooFew {
            allowed: limit.rlim_max,
            needed,
        });
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: The pointer is to a limit that the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(limit.rlim_cur)
}
