//! One end of a socket between a daemon and a shim, line by line, with the descriptors that come
//! along. Knows no word that is said there.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// More than any line that is sent.
const LINE: usize = 16 * 1024 * 1024;
/// How many descriptors may come with a line: a socket, and the leases of a port and of further ones, of
/// which a configuration can name 8.
const DESCRIPTORS: usize = 12;

/// One end.
#[derive(Debug)]
pub(crate) struct Line {
    socket: UnixStream,
    inbox: Vec<u8>,
    /// Descriptors that came with what was read, and were not taken yet.
    passed: Vec<OwnedFd>,
}

/// What reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Something,
    End,
}

impl Line {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            inbox: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// A line that has come in whole, if there is one.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.inbox.iter().position(|byte| *byte == b'\n')?;
        let rest = self.inbox.split_off(end + 1);
        Some(std::mem::replace(&mut self.inbox, rest))
    }

    /// Wait for a whole line, as long as the socket's own timeout allows.
    pub(crate) fn wait(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(text) = self.next() {
                return Ok(text);
            }
            if self.fill(RecvFlags::empty())? == Heard::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Read what is there.
    pub(crate) fn fill(&mut self, flags: RecvFlags) -> io::Result<Heard> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let dont_wait = flags.contains(RecvFlags::DONTWAIT);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&self.socket, &mut into, &mut ancillary, flags).map(|came| came.bytes) {
            Ok(0) => Ok(Heard::End),
            Ok(length) => {
                let descriptors = ancillary.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                    _ => None,
                });
                self.passed.extend(descriptors.flatten());
                self.passed.truncate(DESCRIPTORS);
                self.inbox
                    .extend_from_slice(bytes.get(..length).unwrap_or_default());
                match self.inbox.len() {
                    0..LINE => Ok(Heard::Something),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            }
            Err(Errno::AGAIN) if dont_wait => Ok(Heard::Something),
            Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::INTR) => Ok(Heard::Something),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Whether the other side is gone.
    pub(crate) fn is_over(&self) -> bool {
        let mut waited = [PollFd::new(&self.socket, PollFlags::empty())];
        let at_once = Timespec::default();
        poll(&mut waited, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// The descriptors that came so far.
    pub(crate) fn take_passed(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.passed)
    }

    /// Send a line, and descriptors with it.
    pub(crate) fn send(&mut self, line: &[u8], along: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = match along {
            [] => 0,
            along => send_along(&self.socket, line, along)?,
        };
        self.socket.write_all(line.get(sent..).unwrap_or_default())
    }

    /// From now on a line that finds no room is an error.
    pub(crate) fn never_wait(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// End the conversation: the other side, and the next read here, see its end.
    pub(crate) fn hang_up(&self) {
        // Gone already: the same.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// What of the next lines has come in already, and the socket that brings the rest.
    pub(crate) fn into_parts(self) -> (Vec<u8>, UnixStream) {
        (self.inbox, self.socket)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Send the beginning of a line, and descriptors with it; returns how much. One byte always finds
/// room.
pub(crate) fn send_along(
    to: &UnixStream,
    line: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let first = [IoSlice::new(line.get(..1).unwrap_or_default())];
    Ok(sendmsg(to, &first, &mut ancillary, SendFlags::NOSIGNAL)?)
}
