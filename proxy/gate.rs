//! The upstream connection of a request that wants to switch protocols.
//!
//! pingora 0.9.1 takes the end of such a request's empty body for the end of the new protocol, if
//! the answer 101 arrives before it has passed that end on (cloudflare/pingora#946): the client
//! gets the 101 and then the end of the connection. It happens where the release is quick and the
//! machine is busy, so a WebSocket in a few hundred is lost. This connection gives nothing to read
//! until the end of the request was passed on. That can be seen from here: pingora flushes the
//! connection once after the header, and once at the end of the body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Makes such connections.
pub(crate) fn connector(timeout: Duration) -> Arc<dyn L4Connect + Send + Sync> {
    Arc::new(Connector { timeout })
}

#[derive(Debug)]
struct Connector {
    timeout: Duration,
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

#[derive(Debug)]
struct Gate {
    upstream: Upstream,
    /// Up to [`OPEN`].
    flushes: u8,
    waiting: Option<Waker>,
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
        this.upstream.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().upstream.io().poll_write(cx, buf)
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
