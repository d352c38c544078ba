//! Forgetting what was reported, and who gets the places of it.

use std::collections::HashSet;

use aya::maps::MapError;
use sockleak_ebpf::{FdKey, SocketKey, SocketRecord, counter, state};

use super::{Maps, MapsError, SOCKET_RECORD};
use crate::inventory::decode;

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NOEXIST: u64 = 1;

impl Maps {
    /// Stops following sockets.
    ///
    /// # Errors
    /// When the kernel refuses to read who else has them.
    pub fn forget_sockets(&mut self, forgotten: &[SocketKey]) -> Result<(), MapsError> {
        let mut vacant = HashSet::new();
        for key in forgotten {
            let Some(record) = self.forget_first(key) else {
                let _ = self.aside.remove(&decode::encode_socket_key(key));
                continue;
            };
            if record.changes.iter().all(|change| change.to() != state::CLOSE) {
                vacant.insert(key.sk);
            }
        }
        self.promote(&vacant)
    }

    /// Removes the record of this key if it is the first one of its address, and returns it. Another socket may be
    /// followed under this address by now.
    fn forget_first(&mut self, key: &SocketKey) -> Option<SocketRecord> {
        let is_its = |record: &[u8; SOCKET_RECORD]| decode::socket_owner(key.sk, record) == *key;
        if let Some(record) = self.sockets.get(&key.sk, 0).ok().filter(is_its) {
            let _ = self.sockets.remove(&key.sk);
            return Some(decode::socket_record(&record));
        }
        let place = SocketKey::place(key.sk);
        let record = self.set_aside(&place).filter(is_its)?;
        let _ = self.aside.remove(&decode::encode_socket_key(&place));
        Some(decode::socket_record(&record))
    }

    /// Of processes that share a socket the changes of its state go to the first one's record. When that is
    /// forgotten while the socket is there, another one takes its place. After that its memory may be another one's.
    fn promote(&mut self, vacant: &HashSet<u64>) -> Result<(), MapsError> {
        if vacant.is_empty() || self.count(counter::ASIDE) == 0 {
            return Ok(());
        }
        let mut heirs = Vec::new();
        self.visit_aside(|is_first, key, record| {
            if !is_first && vacant.contains(&key.sk) {
                heirs.push((key, *record));
            }
        })?;
        for (key, record) in heirs {
            if self.sockets.get(&key.sk, 0).is_ok() {
                continue;
            }
            let aside = decode::encode_socket_key(&key);
            // Before it has the other place: the programs may set it aside from there at once, and then it must stay.
            let _ = self.aside.remove(&aside);
            if !self.take_place(key.sk, record) {
                let _ = self.aside.insert(aside, record, 0);
            }
        }
        Ok(())
    }

    /// Makes it the first record of the address. False if there is one, or no room.
    fn take_place(&mut self, sk: u64, record: [u8; SOCKET_RECORD]) -> bool {
        let place = SocketKey::place(sk);
        if self.set_aside(&place).is_some() {
            return false;
        }
        match self.sockets.insert(sk, record, NOEXIST) {
            // The hooks do not look there before they have put a record there.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                let place = decode::encode_socket_key(&place);
                self.count(counter::OVERFLOWN) > 0 && self.aside.insert(place, record, NOEXIST).is_ok()
            }
            done => done.is_ok(),
        }
    }

    /// Forgets a further descriptor.
    pub fn forget_fd(&mut self, key: &FdKey) {
        let _ = self.extra_fds.remove(&decode::encode_fd_key(key));
    }
}
