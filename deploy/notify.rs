//! What an app says of itself on `NOTIFY_SOCKET` (sd_notify(3)): that it is ready, and what it is
//! doing. Only the app and what it started is believed. Knows no probe.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, UCred, recvmsg, sockopt};
use serde::{Deserialize, Serialize};

use crate::tree;

/// How much of one message is read.
const MESSAGE: usize = 4096;
/// The longest status that is kept, in characters.
const STATUS: usize = 200;
/// How many messages are read before other work has its turn.
const TURN: usize = 64;

/// What an app has said of itself so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `READY=1` came.
    pub ready: bool,
    /// The text of the last `STATUS=`, at most 200 characters; `None` before the first, and after
    /// an empty one.
    pub status: Option<String>,
}

/// The socket that an app speaks to.
#[derive(Debug)]
pub(crate) struct Ear {
    socket: UnixDatagram,
    name: String,
}

impl Ear {
    /// A fresh socket with a name that nobody guesses. It has no file, so it leaves none behind.
    pub(crate) fn open() -> io::Result<Self> {
        let name = format!("hotctl-notify-{:032x}", fastrand::u128(..));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        sockopt::set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, name })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Take in what came from a process below `root`, and say whether it told anything.
    pub(crate) fn take(&self, root: u32, notice: &mut Notice) -> bool {
        let before = notice.clone();
        for _ in 0..TURN {
            match self.receive() {
                Some((text, sender)) if is_below(sender, root) => notice.hear(&text),
                Some(_) => {}
                None => break,
            }
        }
        *notice != before
    }

    fn receive(&self) -> Option<(String, UCred)> {
        let mut bytes = [0; MESSAGE];
        // No room for descriptors: the kernel closes those that are sent, which is also what
        // `BARRIER=1` waits for.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let came = loop {
            match recvmsg(
                &self.socket,
                &mut into,
                &mut ancillary,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.ok()?,
            }
        };
        let sender = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(sender),
            _ => None,
        })?;
        let text = String::from_utf8_lossy(bytes.get(..came.bytes).unwrap_or_default());
        Some((text.into_owned(), sender))
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A helper such as `systemd-notify` may have ended since it spoke. Then the user it ran as must do:
/// ours or root, who could tell us anything anyway.
fn is_below(sender: UCred, root: u32) -> bool {
    let pid = sender.pid.as_raw_nonzero().get().unsigned_abs();
    match tree::stat(pid) {
        Some(_) => tree::descendants(root).contains(&pid),
        None => sender.uid.is_root() || sender.uid == rustix::process::getuid(),
    }
}

impl Notice {
    /// One message: lines `NAME=value`. What is neither readiness nor status is not for us.
    fn hear(&mut self, message: &str) {
        for line in message.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.ready = true,
                Some(("STATUS", text)) => {
                    let text: String = text.trim().chars().take(STATUS).collect();
                    self.status = (!text.is_empty()).then_some(text);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::process::{Command, Stdio};

    use super::*;

    fn heard(messages: &[&str]) -> Notice {
        let mut notice = Notice::default();
        messages.iter().for_each(|message| notice.hear(message));
        notice
    }

    #[test]
    fn a_message_may_have_several_lines_and_what_is_not_known_is_ignored() {
        let notice = heard(&["MAINPID=7\nSTATUS=reading 3 of 9\nX\n=\n", "WATCHDOG=1"]);
        assert_eq!(notice.status.as_deref(), Some("reading 3 of 9"));
        assert!(!notice.ready);
        assert!(heard(&["READY=1\nSTATUS=\n"]).ready);
        assert!(!heard(&["READY=0", "NOTREADY=1", "READY=11"]).ready);
        assert_eq!(heard(&["STATUS=a", "STATUS="]).status, None);
        let long = heard(&[&format!("STATUS={}", "é".repeat(3000))]);
        assert_eq!(long.status.unwrap().chars().count(), STATUS);
    }

    #[test]
    fn only_what_is_below_the_shim_is_believed() {
        let ear = Ear::open().unwrap();
        let name = SocketAddr::from_abstract_name(&ear.name).unwrap();
        let send = || {
            let socket = UnixDatagram::unbound().unwrap();
            socket.send_to_addr(b"READY=1", &name).unwrap();
        };
        let own = std::process::id();
        let mut other = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut notice = Notice::default();
        send();
        // We are not below our own child,
        assert!(!ear.take(other.id(), &mut notice));
        send();
        // but below our parent.
        let parent = tree::stat(own).unwrap().parent;
        assert!(ear.take(parent, &mut notice) && notice.ready);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
