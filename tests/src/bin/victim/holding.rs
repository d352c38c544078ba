//! Ways to come by a socket, and to keep one without a descriptor.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use sockleak_tests::io_uring::Ring;
use sockleak_tests::net::checked;
use sockleak_tests::pidfd;

use crate::Victim;

impl Victim {
    /// The number of a descriptor: of the `listener`, or of an accepted or made socket by its index.
    pub fn descriptor(&self, which: &str) -> io::Result<RawFd> {
        let socket = match which {
            "listener" => self.listener()?,
            index => self.socket(index)?,
        };
        Ok(socket.as_raw_fd())
    }

    /// Gives up that descriptor, and with it the socket if nothing else holds it.
    pub fn drop_descriptor(&mut self, which: &str) -> io::Result<()> {
        if which == "listener" {
            self.listener = None;
        } else {
            let index = crate::number::<usize>(which)?;
            self.socket(which)?;
            drop(self.sockets.remove(index));
        }
        Ok(())
    }

    /// Takes a descriptor of another process, as a debugger or a service manager does.
    pub fn take(&mut self, pid: u32, fd: RawFd) -> io::Result<()> {
        self.sockets.push(pidfd::take_descriptor(pid, fd)?);
        Ok(())
    }

    /// A child that keeps every socket and becomes another program.
    pub fn fork_exec(&self) -> io::Result<i32> {
        // SAFETY: The process has one thread, so the child may use everything.
        match unsafe { libc::fork() } {
            0 => {
                let error = self
                    .keep_on_exec()
                    .err()
                    .unwrap_or_else(|| Command::new("/proc/self/exe").arg("hold").exec());
                eprintln!("{error}");
                // SAFETY: _exit ends the process without any clean-up that could rely on something.
                unsafe { libc::_exit(1) }
            }
            pid => checked(pid),
        }
    }

    /// Lets a ring hold a socket beside its descriptor.
    pub fn register_with_ring(&mut self, which: &str) -> io::Result<()> {
        let ring = Ring::new()?;
        ring.register(&[self.descriptor(which)?])?;
        self.rings.push(ring);
        Ok(())
    }

    /// Accepts a connection that has no descriptor at any time.
    pub fn accept_into_ring(&mut self) -> io::Result<()> {
        let ring = Ring::new()?;
        ring.register(&[-1])?;
        ring.accept_direct(self.listener()?)?;
        self.rings.push(ring);
        Ok(())
    }
}
