//! The one place with `unsafe`: pingora hands out an upstream connection as a bare number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Another descriptor of a socket.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(borrow(&fd)?, 0)?)
}

/// What tells a socket from all others that are open.
pub(crate) fn inode(fd: RawFd) -> io::Result<u64> {
    inode_of(borrow(&fd)?)
}

pub(crate) fn inode_of(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// The number for the length of one system call.
fn borrow(fd: &RawFd) -> io::Result<BorrowedFd<'_>> {
    if *fd < 0 {
        return Err(io::ErrorKind::NotConnected.into());
    }
    // Safe: the number comes from pingora's hook. While that runs, the session that owns the socket
    // is borrowed, so it is open. Later it may be closed or be another file's: the calls above only
    // look at it or copy it, and fail where nothing is open.
    Ok(unsafe { BorrowedFd::borrow_raw(*fd) })
}
