//! The user that a command is run as.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::errno::errno;

/// How many supplementary groups the kernel allows (NGROUPS_MAX, include/uapi/linux/limits.h).
const MAX_GROUPS: usize = 65_536;

/// A user, a group and the supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

impl Identity {
    /// That user with that group, and with the supplementary groups that the system's databases give the
    /// user; a user that they do not know has the group only.
    ///
    /// # Errors
    ///
    /// When the user database cannot be read.
    pub fn of(uid: u32, gid: u32) -> io::Result<Self> {
        let groups = supplementary_groups(uid, gid)?.unwrap_or_else(|| vec![gid]);
        Ok(Self { uid, gid, groups })
    }

    /// Makes the calling process this user for good, and returns the errno otherwise. Async-signal-safe: it makes
    /// the bare system calls, since libc's wrappers wait for the process's other threads.
    pub(super) fn assume(&self) -> Result<(), i32> {
        let check = |status| if status == 0 { Ok(()) } else { Err(errno()) };
        // SAFETY: The pointer and the count are those of a live vector, which the kernel only reads.
        check(unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: The call takes no pointers.
        check(unsafe { libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) })?;
        // SAFETY: The call takes no pointers.
        check(unsafe { libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The groups of a user, `None` for an unknown one.
fn supplementary_groups(uid: libc::uid_t, gid: libc::gid_t) -> io::Result<Option<Vec<libc::gid_t>>> {
    let mut strings = vec![0_u8; 1024];
    let mut user = MaybeUninit::<libc::passwd>::uninit();
    let mut found = ptr::null_mut();
    loop {
        // SAFETY: Each pointer is to live memory of the type and length that getpwuid_r(3) wants.
        let status = unsafe {
            libc::getpwuid_r(
                uid,
                user.as_mut_ptr(),
                strings.as_mut_ptr().cast(),
                strings.len(),
                &raw mut found,
            )
        };
        match status {
            0 if found.is_null() => return Ok(None),
            0 => break,
            // Some name services tell an unknown user by these (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::ERANGE if strings.len() < 1 << 20 => strings.resize(strings.len() * 2, 0),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    // SAFETY: The call succeeded and found the user, so it wrote the record, whose name is a NUL-terminated
    // string in `strings`.
    let name = unsafe { CStr::from_ptr(user.assume_init_ref().pw_name) };
    let mut groups = vec![0; 64];
    loop {
        let mut count = groups.len() as i32;
        // SAFETY: The name is NUL-terminated, and `count` is how many groups the vector can take.
        let status = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if status >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(Some(groups));
        }
        if groups.len() >= MAX_GROUPS {
            return Err(io::Error::other(
                "the user is in more groups than the kernel allows",
            ));
        }
        groups.resize(groups.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_the_group_that_was_given() {
        for uid in [0, 65_534, 4_000_000_000] {
            assert!(Identity::of(uid, 4711).unwrap().groups.contains(&4711));
        }
    }
}
