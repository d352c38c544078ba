//! Many connections to one destination.

use std::io::{self, Error};
use std::net::SocketAddr;

use sockleak_tests::{descriptors, net};

use crate::Victim;

impl Victim {
    /// Connects so many times, with as many descriptors as the limit allows.
    pub fn connect_many(&mut self, count: usize, address: &str) -> io::Result<()> {
        descriptors::allow_all()?;
        let address: SocketAddr = address.parse().map_err(Error::other)?;
        for _ in 0..count {
            let socket = net::socket(address, 0, 0)?;
            net::connect(&socket, address)?;
            self.sockets.push(socket);
        }
        Ok(())
    }
}
