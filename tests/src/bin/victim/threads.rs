//! Threads that end before their process does.

use std::fs;
use std::io::{self, Error};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use sockleak_tests::net::{self, Family, checked};
use sockleak_tests::pidfd;

use crate::{dying, number};

/// Does something in a new thread; the answer.
pub fn obey(what: &[&str]) -> io::Result<String> {
    match *what {
        ["ends", ref way @ ..] => end_alone(way)?,
        ["execs"] => return Err(exec_elsewhere()),
        ["owns-a-table"] => return own_a_table(listen),
        ["owns-a-table", "takes", pid, fd] => {
            let (pid, fd) = (number(pid)?, number(fd)?);
            return own_a_table(move || pidfd::take_descriptor(pid, fd));
        }
        _ => return Err(Error::other("no such thread")),
    }
    Ok(String::new())
}

/// A thread dies in a way that spares the others.
fn end_alone(way: &[&str]) -> io::Result<()> {
    let way: Vec<String> = way.iter().map(|word| (*word).to_owned()).collect();
    let (sender, receiver) = mpsc::channel();
    // Joining it would wait for a result that it never gives.
    thread::spawn(move || {
        // SAFETY: gettid has no preconditions.
        let _ = sender.send(unsafe { libc::gettid() });
        dying::die(&way.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let thread = receiver.recv().map_err(Error::other)?;
    while fs::exists(format!("/proc/self/task/{thread}"))? {
        thread::yield_now();
    }
    Ok(())
}

/// Becomes the victim program anew, from a thread that is not the leader: the kernel ends all others and
/// gives it the leader's number. Returns only when that fails.
fn exec_elsewhere() -> Error {
    let exec = || Command::new("/proc/self/exe").arg("hello").exec();
    thread::spawn(exec)
        .join()
        .unwrap_or_else(|_| Error::other("the thread died"))
}

/// A thread with a table of descriptors of its own, in which it opens a socket. The address of that.
fn own_a_table(open: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static) -> io::Result<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // SAFETY: The copy has the same descriptors, so those of this thread stay what they are.
        let apart = checked(unsafe { libc::unshare(libc::CLONE_FILES) });
        let socket = apart.and_then(|_| open());
        let address = socket
            .as_ref()
            .map_err(ToString::to_string)
            .and_then(|socket| net::local_address(socket.as_fd()).map_err(|error| error.to_string()));
        let _ = sender.send(address);
        loop {
            thread::park();
        }
    });
    let address = receiver.recv().map_err(Error::other)?;
    address.map(|address| address.to_string()).map_err(Error::other)
}

fn listen() -> io::Result<OwnedFd> {
    let address = Family::V4.address(0);
    let listener = net::socket(address, 0, 0)?;
    net::bind(&listener, address)?;
    net::listen(&listener, 8)?;
    Ok(listener)
}
