//! The one place with `unsafe` in this crate: descriptors that come from the process that started
//! us are numbers at first, and their owner has to be made.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// The first descriptor after the three standard ones, as sd_listen_fds(3) has it.
pub const FIRST: RawFd = 3;

/// Own a descriptor that was inherited, and keep it from whatever is started later.
///
/// To be called once for each number, before anything else is opened.
///
/// # Errors
/// If nothing is open there.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    if number < FIRST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only looked at; where nothing is open the call fails.
    let seen = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(seen, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nobody in this process has made it: it was there when we began.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
