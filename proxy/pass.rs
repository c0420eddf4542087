//! Passes clients' connections on to another process, between two of their requests, without their
//! noticing. Knows sockets and how they travel; when a connection may go is for `conn` to say.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A client's connection that waits for its next request. Nothing of that has been read.
#[derive(Debug)]
pub struct Passed {
    /// Its socket, which does not block.
    pub socket: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// Whether it has had a request before.
    pub past: Past,
}

/// What a connection has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// No request yet: its first one must come within `timeouts.header`.
    Fresh,
    /// Some: the next one must come within `timeouts.idle`.
    Used,
}

/// One end of a line on which connections travel (`SCM_RIGHTS`, unix(7)), each with one byte that
/// says its past. What is read never goes beyond the byte that a descriptor came with.
#[derive(Debug)]
pub struct PassSocket(UnixStream);

const FRESH: u8 = b'f';
const USED: u8 = b'u';

impl PassSocket {
    /// Both ends. One is kept; the other is for the other process, which opens it by
    /// [`PassSocket::from_fd`].
    ///
    /// # Errors
    /// If the system has no descriptors left, or outside of a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = unix::net::UnixStream::pair()?;
        Ok((Self::from_fd(ours.into())?, theirs.into()))
    }

    /// The end that came from the other process.
    ///
    /// # Errors
    /// If it is no such socket, or outside of a runtime.
    pub fn from_fd(end: OwnedFd) -> io::Result<Self> {
        let kind = (sockopt::socket_domain(&end)?, sockopt::socket_type(&end)?);
        if kind != (AddressFamily::UNIX, SocketType::STREAM) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a socket that passes connections on",
            ));
        }
        let end = unix::net::UnixStream::from(end);
        end.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(end)?))
    }

    /// Send one on its way. It is closed here once it has gone.
    ///
    /// # Errors
    /// If the other side is gone; the connection comes back.
    pub async fn send(&self, passed: Passed) -> Result<(), (Passed, io::Error)> {
        let kind = [match passed.past {
            Past::Fresh => FRESH,
            Past::Used => USED,
        }];
        let sent = self.0.async_io(Interest::WRITABLE, || {
            let descriptors = [passed.socket.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            // There is room for one.
            rights.push(SendAncillaryMessage::ScmRights(&descriptors));
            let bytes = [IoSlice::new(&kind)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(rustix::net::sendmsg(&self.0, &bytes, &mut rights, flags)?)
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(cause) => Err((passed, cause)),
        }
    }

    /// The next one that arrives; `None` once the other side has closed its end.
    ///
    /// # Errors
    /// If one could not be taken, because no descriptor was left for it, say: it is lost, and those
    /// after it are not.
    pub async fn receive(&self) -> io::Result<Option<Passed>> {
        let (kind, socket) = self
            .0
            .async_io(Interest::READABLE, || take(&self.0))
            .await?;
        let Some(kind) = kind else {
            return Ok(None);
        };
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let socket = socket.ok_or_else(|| odd("a connection was passed on and did not arrive"))?;
        let past = match kind {
            FRESH => Past::Fresh,
            USED => Past::Used,
            _ => return Err(odd("a connection of an unknown kind was passed on")),
        };
        let socket = TcpStream::from(socket);
        let peer = socket.peer_addr()?;
        Ok(Some(Passed { socket, peer, past }))
    }
}

/// One message: its byte, unless this is the end, and the descriptor that came with it.
fn take(line: impl AsFd) -> io::Result<(Option<u8>, Option<OwnedFd>)> {
    let mut kind = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(line, &mut [IoSliceMut::new(&mut kind)], &mut rights, flags)?;
    let mut descriptors = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut some| some.next());
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Ok((Some(kind[0]), None));
    }
    Ok(((got.bytes > 0).then_some(kind[0]), descriptor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_arrives_with_what_lies_unread_in_it() {
        let (ours, theirs) = PassSocket::pair().unwrap();
        let theirs = PassSocket::from_fd(theirs).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for past in [Past::Fresh, Past::Used] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = listener.accept().unwrap();
            client.write_all(b"GET").unwrap();
            ours.send(Passed { socket, peer, past }).await.unwrap();
            let mut passed = theirs.receive().await.unwrap().expect("it arrives");
            assert_eq!(
                (passed.peer, passed.past),
                (client.local_addr().unwrap(), past)
            );
            let mut said = [0; 3];
            passed.socket.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"GET");
            // It was closed there, so this is the last one that has it.
            drop(passed);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        drop(ours);
        assert!(theirs.receive().await.unwrap().is_none(), "the end");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_comes_back() {
        let (ours, theirs) = PassSocket::pair().unwrap();
        drop(theirs);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let past = Past::Used;
        let (mut back, cause) = ours.send(Passed { socket, peer, past }).await.unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
        back.socket.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_line_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        PassSocket::from_fd(listener.into()).unwrap_err();
    }
}
