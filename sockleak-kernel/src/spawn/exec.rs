//! What the child does between fork and exec: system calls only, on memory that was prepared before.

use std::env;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

use super::errno::errno;
use super::identity::Identity;

/// What execvp(3) runs a file with that is no binary and has no interpreter line.
const SHELL: &std::ffi::CStr = c"/bin/sh";
/// Where execvp(3) searches when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The length of what the child tells: an errno.
pub(super) const ERRNO: usize = size_of::<i32>();

/// Decodes what the child told; `None` for no bytes, which is what a successful exec leaves.
pub(super) fn told(bytes: &[u8]) -> Option<i32> {
    let whole = |bytes: &[u8]| bytes.try_into().map_or(libc::EIO, i32::from_ne_bytes);
    (!bytes.is_empty()).then(|| whole(bytes))
}

/// Strings, and the array of pointers to them that execve(2) wants.
struct Pointers {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            pointers,
            _strings: strings,
        }
    }
}

/// Everything that exec needs.
pub(super) struct Image {
    /// The files to try, in the order of PATH.
    files: Vec<CString>,
    arguments: Pointers,
    /// The same for the shell: its second pointer is set to the file that is tried.
    shell_arguments: Pointers,
    environment: Pointers,
}

impl Image {
    pub(super) fn prepare(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
        let string = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
        let program_and_arguments = [program.to_owned()]
            .into_iter()
            .chain(arguments.iter().cloned())
            .map(string)
            .collect::<io::Result<Vec<_>>>()?;
        let mut for_shell = vec![SHELL.to_owned()];
        for_shell.extend(program_and_arguments.iter().cloned());
        let environment = env::vars_os()
            .map(|(mut key, value)| {
                key.push("=");
                key.push(value);
                string(key)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let files = candidates(program, &path)
            .into_iter()
            .map(string)
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            files,
            arguments: Pointers::new(program_and_arguments),
            shell_arguments: Pointers::new(for_shell),
            environment: Pointers::new(environment),
        })
    }

    /// Becomes the user and tells with what errno, 0 for none; waits for the gate, executes the command, and tells the errno
    /// of that only if it fails. Runs in the forked child.
    pub(super) fn run(&mut self, gate: RawFd, failure: RawFd, identity: Option<&Identity>) -> ! {
        // SAFETY: The call is async-signal-safe. Rust's runtime ignores SIGPIPE, which exec would pass on.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        if let Some(identity) = identity {
            match identity.assume() {
                Ok(()) => tell(failure, 0),
                Err(errno) => give_up(failure, errno),
            }
        }
        if !released(gate) {
            // SAFETY: The call ends the process without running anything of the parent's.
            unsafe { libc::_exit(0) };
        }
        let errno = self.execute();
        give_up(failure, errno);
    }

    /// Tries the files as execvp(3) does; returns the errno that is to be told. Unlike there, a directory of
    /// PATH that may not be searched does not turn a command that is not found into one that is denied: root's
    /// PATH often has such directories for the calling user.
    fn execute(&mut self) -> i32 {
        let searched = self.files.len() > 1;
        let mut denied = false;
        let mut last = libc::ENOENT;
        for file in &self.files {
            // SAFETY: The pointers are to NUL-terminated strings and to arrays that end with a null pointer,
            // all of which `self` owns.
            unsafe {
                libc::execve(
                    file.as_ptr(),
                    self.arguments.pointers.as_ptr(),
                    self.environment.pointers.as_ptr(),
                )
            };
            last = errno();
            match last {
                libc::ENOEXEC => {
                    self.shell_arguments.pointers[1] = file.as_ptr();
                    // SAFETY: As above.
                    unsafe {
                        libc::execve(
                            SHELL.as_ptr(),
                            self.shell_arguments.pointers.as_ptr(),
                            self.environment.pointers.as_ptr(),
                        )
                    };
                    return errno();
                }
                // SAFETY: The pointer is to a NUL-terminated string, which the kernel only reads.
                libc::EACCES if searched && unsafe { libc::access(file.as_ptr(), libc::F_OK) } != 0 => {
                    last = libc::ENOENT;
                }
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
                other => return other,
            }
        }
        if denied { libc::EACCES } else { last }
    }
}

/// The files that a command may mean: itself if it has a slash, else one for each directory of PATH.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    env::split_paths(path)
        .map(|directory| {
            // An empty entry is the current directory.
            let directory = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &directory
            };
            directory.join(program).into_os_string()
        })
        .collect()
}

/// Waits for the gate's byte. Its end, without one, means that the tracer is gone.
fn released(gate: RawFd) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: The kernel writes at most one byte, into a live byte.
        match unsafe { libc::read(gate, (&raw mut byte).cast(), 1) } {
            1 => return true,
            -1 if errno() == libc::EINTR => {}
            _ => return false,
        }
    }
}

fn give_up(failure: RawFd, errno: i32) -> ! {
    tell(failure, errno);
    // SAFETY: The call ends the process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn tell(failure: RawFd, errno: i32) {
    let bytes = errno.to_ne_bytes();
    // SAFETY: The pointer and the length are those of a live array. So few bytes are written in one piece
    // (PIPE_BUF), and if the parent is gone there is nobody to tell.
    unsafe { libc::write(failure, bytes.as_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_searched_along_path() {
        let found = |program: &str| candidates(program.as_ref(), "/usr/bin::/opt".as_ref());
        assert_eq!(found("nc"), ["/usr/bin/nc", "./nc", "/opt/nc"]);
        assert_eq!(found("./nc"), ["./nc"]);
        assert_eq!(found(""), [""]);
    }

    #[test]
    fn an_errno_survives_the_pipe() {
        assert_eq!(told(&libc::EACCES.to_ne_bytes()), Some(libc::EACCES));
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[1, 2]), Some(libc::EIO));
    }
}
