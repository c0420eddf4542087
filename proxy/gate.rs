//! The upstream connection of a request that wants to switch protocols.
//!
//! pingora 0.9.1 takes the end of such a request's empty body for the end of the new protocol, if
//! the answer 101 arrives before it has passed that end on (cloudflare/pingora#946): the client
//! gets the 101 and then the end of the connection. It happens where the release is quick and the
//! machine is busy, so a WebSocket in a few hundred is lost. This connection gives nothing to read
//! until the end of the request was passed on. That can be seen from here: pingora flushes the
//! connection once after the header, and once at the end of the body.
//!
//! It also follows the frames that a WebSocket's client sends, and says the last one when the line
//! asks for it, as `conn` does in the other direction.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::frames::{self, Speech};
use crate::lines::Line;

/// Makes such connections.
pub(crate) fn connector(timeout: Duration, line: Arc<Line>) -> Arc<dyn L4Connect + Send + Sync> {
    Arc::new(Connector { timeout, line })
}

struct Connector {
    timeout: Duration,
    line: Arc<Line>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connector of gates, within {:?}", self.timeout)
    }
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        match tokio::time::timeout(self.timeout, Upstream::connect(address)).await {
            Ok(Ok(upstream)) => {
                let gate = Gate {
                    upstream,
                    flushes: 0,
                    waiting: None,
                    speech: Speech::default(),
                    out: BytesMut::new(),
                    line: self.line.clone(),
                };
                Ok(VirtualSocketStream::new(Box::new(gate)).into())
            }
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    _ => ErrorType::ConnectError,
                };
                Error::e_because(kind, format!("connecting to {address}"), error)
            }
            Err(_) => Error::e_explain(
                ErrorType::ConnectTimedout,
                format!("connecting to {address}: no answer in {:?}", self.timeout),
            ),
        }
    }
}

struct Gate {
    upstream: Upstream,
    /// Up to [`OPEN`].
    flushes: u8,
    waiting: Option<Waker>,
    /// What the client says to the release.
    speech: Speech,
    /// What is still to be said at the end.
    out: BytesMut,
    line: Arc<Line>,
}

impl Gate {
    /// Says the Close frame as soon as that is possible, which may be within these bytes, and nothing
    /// after it.
    fn take_leave(&mut self, cx: &mut Context<'_>, code: u16, bytes: &[u8]) {
        // As clients must have it; it hides nothing.
        let close = || frames::close(code, Some(fastrand::u32(..).to_be_bytes()));
        self.speech.end(bytes, close, &mut self.out);
        // What does not go now goes when it is polled again.
        let _ = self.send(cx);
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(self.upstream.io().poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gate to {:?}", self.upstream)
    }
}

/// Flushes until the request is passed on: its header, and the end of its body.
const OPEN: u8 = 2;

/// A connection to a release, of either kind.
#[derive(Debug)]
enum Upstream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What can be read, and written.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl Upstream {
    async fn connect(address: &SocketAddr) -> io::Result<Self> {
        match address {
            SocketAddr::Inet(address) => TcpStream::connect(address).await.map(Self::Tcp),
            SocketAddr::Unix(address) => match address.as_pathname() {
                Some(path) => UnixStream::connect(path).await.map(Self::Unix),
                None => Err(io::ErrorKind::InvalidInput.into()),
            },
        }
    }

    fn io(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp),
            Self::Unix(unix) => Pin::new(unix),
        }
    }
}

impl VirtualSocket for Gate {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match (option, &self.upstream) {
            (VirtualSockOpt::NoDelay, Upstream::Tcp(tcp)) => tcp.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flushes < OPEN {
            this.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(code) = this.line.farewell() {
            this.take_leave(cx, code, &[]);
        }
        this.upstream.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = match this.line.farewell() {
            None => {
                let said = ready!(this.upstream.io().poll_write(cx, buf))?;
                this.speech.pass(&buf[..said]);
                said
            }
            Some(code) => {
                this.take_leave(cx, code, buf);
                buf.len()
            }
        };
        if this.speech.is_closed() {
            this.line.client_closed();
        }
        Poll::Ready(Ok(said))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back here, so there is nothing to wait for.
        let this = self.get_mut();
        this.flushes = this.flushes.saturating_add(1);
        if this.flushes >= OPEN
            && let Some(waiting) = this.waiting.take()
        {
            waiting.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().upstream.io().poll_shutdown(cx)
    }
}
