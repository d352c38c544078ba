//! Thousands of connections of a process to itself.

use std::io::{self, Error};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use sockleak_tests::descriptors;
use sockleak_tests::net::{self, checked};

use crate::Victim;
use crate::relatives::wait_for_end_of_stdin;

impl Victim {
    /// Listens at a port of that address, and has both ends of so many connections to it.
    pub fn pair_many(&mut self, count: usize, address: &str) -> io::Result<SocketAddr> {
        descriptors::allow_all()?;
        let ip: IpAddr = address.parse().map_err(Error::other)?;
        let listener = net::socket((ip, 0).into(), 0, 0)?;
        net::bind(&listener, (ip, 0).into())?;
        net::listen(&listener, 128)?;
        let address = net::local_address(listener.as_fd())?;
        let listener = self.listener.insert(listener);
        self.sockets.extend(pairs(listener, address, count)?);
        Ok(address)
    }

    /// Children that connect to the common listener as often as they accept from it: whose connection, the
    /// kernel decides. Each answers when it has its own.
    pub fn fork_paired_workers(&self, count: usize, each: usize) -> io::Result<()> {
        let listener = self.listener()?;
        let address = net::local_address(listener.as_fd())?;
        for _ in 0..count {
            // SAFETY: The process has one thread, so the child may use everything.
            if checked(unsafe { libc::fork() })? == 0 {
                let sockets = pairs(listener, address, each);
                match &sockets {
                    Ok(_) => println!("ok {}", process::id()),
                    Err(error) => println!("{error}"),
                }
                wait_for_end_of_stdin();
            }
        }
        Ok(())
    }

    /// Closes the sockets that it made first.
    pub fn close_first(&mut self, count: usize) -> io::Result<()> {
        if count > self.sockets.len() {
            return Err(Error::other("there are not so many"));
        }
        self.sockets.drain(..count);
        Ok(())
    }
}

fn pairs(listener: &OwnedFd, address: SocketAddr, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(2 * count);
    for _ in 0..count {
        let client = net::socket(address, 0, 0)?;
        net::connect(&client, address)?;
        sockets.push(client);
        sockets.push(net::accept(listener)?);
    }
    Ok(sockets)
}
