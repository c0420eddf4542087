//! A connection to a release, as pingora's HTTP session sees it.
//!
//! It writes what it is given at once, since a request's header comes in one piece, and has no read buffer,
//! since pingora reads into its own. Where the request may become a WebSocket it follows the frames that the
//! client sends, and says the last one when the line asks for it, as `conn` does in the other direction.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use hotctl_config::Address;
use pingora::protocols::{Shutdown, UniqueID};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::delivery::peek;
use crate::frames::{self, Speech};
use crate::lines::Line;
use crate::untold::untold;

/// See the head of this file.
pub(crate) struct Upstream {
    socket: Socket,
    followed: Option<Box<Followed>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What the client says to the release.
struct Followed {
    line: Arc<Line>,
    speech: Speech,
    /// What is still to be said at the end.
    out: BytesMut,
}

impl Upstream {
    /// A new connection, within this time.
    pub(crate) async fn connect(address: &Address, within: Duration) -> Result<Box<Self>> {
        let socket = match tokio::time::timeout(within, Socket::connect(address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    _ => ErrorType::ConnectError,
                };
                return Error::e_because(kind, format!("connecting to {address}"), error);
            }
            Err(_) => {
                return Error::e_explain(
                    ErrorType::ConnectTimedout,
                    format!("connecting to {address}: no answer in {within:?}"),
                );
            }
        };
        Ok(Box::new(Self {
            socket,
            followed: None,
        }))
    }

    /// Follows what the client says from here on, from the head of its request.
    pub(crate) fn follow(&mut self, line: Arc<Line>) {
        self.followed = Some(Box::new(Followed {
            line,
            speech: Speech::default(),
            out: BytesMut::new(),
        }));
    }

    /// Whether nothing has come since the last answer, not even the end, as far as the runtime has heard:
    /// it asks the kernel only where it has.
    pub(crate) fn is_quiet(&self) -> bool {
        let heard = match &self.socket {
            Socket::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(tcp)),
            Socket::Unix(unix) => unix.try_io(Interest::READABLE, || peek(unix)),
        };
        heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Socket {
    async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Nowhere => Err(io::Error::other("it takes no requests")),
            Address::Inet(address) => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Ok(Self::Tcp(tcp))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, bufs) {
            (Self::Tcp(tcp), [one]) => Pin::new(tcp).poll_write(cx, one),
            (Self::Unix(unix), [one]) => Pin::new(unix).poll_write(cx, one),
            (Self::Tcp(tcp), _) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            (Self::Unix(unix), _) => Pin::new(unix).poll_write_vectored(cx, bufs),
        }
    }
}

impl Followed {
    /// Says the Close frame as soon as that is possible, which may be within these bytes, and nothing
    /// after it.
    fn take_leave(&mut self, socket: &mut Socket, cx: &mut Context<'_>, code: u16, bytes: &[u8]) {
        // As clients must have it; it hides nothing.
        let close = || frames::close(code, Some(fastrand::u32(..).to_be_bytes()));
        self.speech.end(bytes, close, &mut self.out);
        // What does not go now goes when it is polled again.
        let _ = self.send(socket, cx);
    }

    fn send(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(socket.poll_write(cx, &[IoSlice::new(&self.out)]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on what the client says, as long as nobody else has the last word.
    fn pass(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = match self.line.farewell() {
            None => {
                let said = ready!(socket.poll_write(cx, &[IoSlice::new(bytes)]))?;
                self.speech.pass(&bytes[..said]);
                said
            }
            Some(code) => {
                self.take_leave(socket, cx, code, bytes);
                bytes.len()
            }
        };
        if self.speech.is_closed() {
            self.line.client_closed();
        }
        Poll::Ready(Ok(said))
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(followed) = &mut this.followed
            && let Some(code) = followed.line.farewell()
        {
            followed.take_leave(&mut this.socket, cx, code, &[]);
        }
        match &mut this.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Socket::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.followed {
            None => this.socket.poll_write(cx, bufs),
            Some(followed) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                let first = first.map_or(&[][..], |buf| buf);
                followed.pass(&mut this.socket, cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back here, so there is nothing to wait for.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

#[async_trait]
impl Shutdown for Upstream {
    /// It is dropped next, which closes it.
    async fn shutdown(&mut self) {}
}

impl AsFd for Upstream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.as_fd(),
            Socket::Unix(unix) => unix.as_fd(),
        }
    }
}

impl UniqueID for Upstream {
    fn id(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

untold!(Upstream);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection to {:?}", self.socket)
    }
}
