//! Reading `struct file`.

use crate::memory::read_or_zero;
use crate::offsets::{FILE_INODE, FILE_PRIVATE_DATA, INODE_MODE, SOCKET_FILE, SOCKET_SK};

const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;

/// The inode and the `struct sock` of a file that is a socket of any kind.
#[inline(always)]
pub fn socket(file: u64) -> Option<(u64, u64)> {
    let inode: u64 = read_or_zero(file, FILE_INODE.load());
    let mode: u16 = read_or_zero(inode, INODE_MODE.load());
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // An O_PATH descriptor of a unix socket's name has the mode, but no struct socket that points back to it.
    let socket: u64 = read_or_zero(file, FILE_PRIVATE_DATA.load());
    if read_or_zero::<u64>(socket, SOCKET_FILE.load()) != file {
        return None;
    }
    Some((inode, read_or_zero(socket, SOCKET_SK.load())))
}
