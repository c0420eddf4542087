//! The upstream connections that may be kept for the next request, so that those of a retired
//! release can be closed before it is asked to stop: some servers wait for theirs.
//!
//! pingora keeps them and has no way to close those of one peer. Wrapping each of them would cost
//! every read and write an indirection, and holding a second descriptor would keep alive what
//! pingora has closed. So this only remembers which descriptor had which socket, once for each new
//! connection; at the end the number is looked up again, and if it still is that socket it is shut
//! down. pingora watches what it keeps, and drops it then.

use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<RawFd, u64>>);

impl Kept {
    /// A connection was opened that will be kept.
    pub(crate) fn opened(&self, fd: RawFd) {
        if let Ok(inode) = sys::inode(fd) {
            self.sockets().insert(fd, inode);
        }
    }

    /// Closes all but those that are busy; says how many.
    pub(crate) fn close(&self, busy: &HashSet<RawFd>) -> usize {
        let all = std::mem::take(&mut *self.sockets());
        let mut closed = 0;
        for (fd, inode) in all {
            if busy.contains(&fd) {
                self.sockets().entry(fd).or_insert(inode);
                continue;
            }
            // First a descriptor of our own: what that one is can no longer change.
            let Ok(socket) = sys::duplicate(fd) else {
                continue;
            };
            if sys::inode_of(&socket).is_ok_and(|it| it == inode)
                && rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).is_ok()
            {
                closed += 1;
            }
        }
        closed
    }

    fn sockets(&self) -> std::sync::MutexGuard<'_, HashMap<RawFd, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_the_very_sockets_that_were_opened_and_are_idle_are_closed() {
        let kept = Kept::default();
        let (idle, mut idle_peer) = UnixStream::pair().unwrap();
        let (busy, busy_peer) = UnixStream::pair().unwrap();
        for socket in [&idle, &busy] {
            kept.opened(socket.as_raw_fd());
        }
        // The number of one that was closed may be given to another.
        let (another, another_peer) = UnixStream::pair().unwrap();
        kept.sockets().insert(another.as_raw_fd(), 1);
        assert_eq!(kept.close(&[busy.as_raw_fd()].into()), 1);
        assert_eq!(idle_peer.read(&mut [0]).unwrap(), 0);
        for mut open in [busy_peer, another_peer] {
            open.set_nonblocking(true).unwrap();
            let error = open.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
        assert_eq!(kept.close(&HashSet::new()), 1, "the busy one is idle now");
    }
}
