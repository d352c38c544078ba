//! Files that the user names.
//!
//! A copy of sockleak with file capabilities may read and write more than the one who runs it. What its options name is
//! opened and made with the rights of that user all the same, or it would tell about files that are none of theirs.

use std::fs::{self, File, FileType};
use std::io::{self, Error, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::{env, panic, thread};

/// Opens a regular file with the rights of the one who runs sockleak.
///
/// # Errors
///
/// `InvalidInput` when it is something else than a file, which is then not opened: that may wait for ever (a FIFO) or
/// have an effect (a device). `PermissionDenied` when the user may not read it.
pub fn open(path: &Path) -> io::Result<File> {
    with_rights_of_user("read", || open_regular(path))
}

/// Makes a file that is not there yet, which nobody but its owner may read, with the rights of the one who runs sockleak.
/// Behind sudo it is given to that user.
///
/// # Errors
///
/// `AlreadyExists` when something has this name, also a symbolic link. `PermissionDenied` when the user may not make it.
/// Nothing is left of a file that cannot be given away.
pub fn create(path: &Path) -> io::Result<File> {
    let file = with_rights_of_user("make", || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    })?;
    if let Err(error) = give_to_caller_of_sudo(&file) {
        let _ = remove(path);
        return Err(error);
    }
    Ok(file)
}

/// Behind sudo the real user is root. Who runs a set-user-ID copy is somebody else, and may write anything into these
/// variables.
fn give_to_caller_of_sudo(file: &File) -> io::Result<()> {
    // SAFETY: The call takes no pointers.
    if unsafe { libc::getuid() } != 0 {
        return Ok(());
    }
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(user), Some(group)) => fchown(file, Some(user), Some(group)),
        _ => Ok(()),
    }
}

/// Whether a new file may take that name: nothing has it, or a regular file.
///
/// # Errors
///
/// `InvalidInput` when something else has it, such as a device or a symbolic link, which is not to be replaced.
pub fn may_replace(path: &Path) -> io::Result<()> {
    let kind = match with_rights_of_user("look at", || fs::symlink_metadata(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    name_of_other(kind).map_or(Ok(()), |name| {
        let told = format!("it is {name}, and only a regular file is replaced");
        Err(Error::new(ErrorKind::InvalidInput, told))
    })
}

/// Gives a file another name, with the rights of the one who runs sockleak.
///
/// # Errors
///
/// `PermissionDenied` when the user may not do that.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    with_rights_of_user("rename", || fs::rename(from, to))
}

/// Removes a file, with the rights of the one who runs sockleak.
///
/// # Errors
///
/// `PermissionDenied` when the user may not do that.
pub fn remove(path: &Path) -> io::Result<()> {
    with_rights_of_user("remove", || fs::remove_file(path))
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

fn with_rights_of_user<T: Send>(verb: &str, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    // Credentials belong to a thread, and this one ends with what it gave up.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("file".to_owned());
        let actor = thread.spawn_scoped(scope, || {
            // SAFETY: The call takes no pointers.
            let user = unsafe { libc::getuid() };
            if user == 0 {
                return act();
            }
            assume_rights_of(user)?;
            act().map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => Error::new(
                    ErrorKind::PermissionDenied,
                    format!("user {user} may not {verb} it (what sockleak itself may does not count)"),
                ),
                _ => error,
            })
        })?;
        actor
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// Reads such a file as a whole, if it has at most so many bytes.
///
/// # Errors
///
/// As [`open`], and when it is larger.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= most {
        // A file of /proc says that it has none, and another may grow.
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        length = bytes.len() as u64;
    }
    if length > most {
        let told = format!("it is larger than {} MiB", most >> 20);
        return Err(Error::new(ErrorKind::FileTooLarge, told));
    }
    Ok(bytes)
}

fn open_regular(path: &Path) -> io::Result<File> {
    check(fs::metadata(path)?.file_type())?;
    // Something else may be there by now, for which nobody is to wait.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(kind: FileType) -> io::Result<()> {
    name_of_other(kind).map_or(Ok(()), |name| {
        let told = format!("it is {name}, and only regular files are read");
        Err(Error::new(ErrorKind::InvalidInput, told))
    })
}

/// What it is, if it is no regular file.
fn name_of_other(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Leaves the calling thread the rights that the user has, who is not root, and no more: the bare system calls change one
/// thread only.
fn assume_rights_of(user: libc::uid_t) -> io::Result<()> {
    /// `struct __user_cap_header_struct` of include/uapi/linux/capability.h. Pid 0 is the calling thread.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    // Of a set-user-ID or set-group-ID copy. Each call returns what was there before, whether or not it changes it.
    // SAFETY: The calls take no pointers.
    let now = unsafe {
        let group = libc::getgid();
        libc::setfsgid(group);
        libc::setfsuid(user);
        (
            libc::setfsuid(user).cast_unsigned(),
            libc::setfsgid(group).cast_unsigned() == group,
        )
    };
    if now != (user, true) {
        return Err(Error::other("the rights of the user cannot be assumed"));
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // Effective, permitted and inheritable, in two halves.
    let none = [[0_u32; 3]; 2];
    // SAFETY: Both pointers are to live memory of the layout that this version has, which the kernel only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) } != 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        for (path, kind) in [("/", "a directory"), ("/dev/zero", "a device")] {
            let error = open(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
            assert!(error.to_string().contains(kind), "{error}");
        }
        let missing = open(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    /// A file of /proc is larger than it says.
    #[test]
    fn no_more_is_read_than_was_agreed_upon() {
        let path = Path::new("/proc/self/stat");
        let whole = read(path, 1 << 20).unwrap();
        assert!(whole.len() > 20);
        let error = read(path, 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn the_thread_gives_its_rights_up_and_the_process_keeps_them() {
        let capabilities = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let lines = status.lines().filter(|line| line.starts_with("CapEff"));
            lines.collect::<String>()
        };
        let before = capabilities();
        let within = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: The call takes no pointers.
                assume_rights_of(unsafe { libc::getuid() }).map(|()| capabilities())
            });
            thread.join().unwrap().unwrap()
        });
        assert_eq!(within, "CapEff:\t0000000000000000");
        assert_eq!(capabilities(), before);
    }
}
