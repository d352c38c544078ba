//! Many connections to one destination.

use std::io::{self, Error};
use std::net::SocketAddr;

use sockleak_tests::net::{self, checked};

use crate::Victim;

impl Victim {
    /// Connects so many times, with as many descriptors as the limit allows.
    pub fn connect_many(&mut self, count: usize, address: &str) -> io::Result<()> {
        allow_all_descriptors()?;
        let address: SocketAddr = address.parse().map_err(Error::other)?;
        for _ in 0..count {
            let socket = net::socket(address, 0, 0)?;
            net::connect(&socket, address)?;
            self.sockets.push(socket);
        }
        Ok(())
    }
}

/// Raises the limit as far as this process may.
pub fn allow_all_descriptors() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: Both calls use one rlimit, which outlives them.
    unsafe {
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).map(drop)
    }
}
