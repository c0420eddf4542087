//! The one place with `unsafe`: pingora hands out an upstream connection as a bare number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// Another descriptor of an open socket.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::NotConnected.into());
    }
    // Safe: the number comes from pingora's hook, which runs while the session that owns the
    // socket is borrowed, so it is open until this returns. It is only borrowed here.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 0)?)
}
