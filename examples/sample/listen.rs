//! Where connections come from: a port, a unix socket, or a socket that is open already.

use std::io;
use std::path::PathBuf;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::flags::Place;

/// A connection of either kind.
pub type Stream = Either<TcpStream, UnixStream>;

/// What takes connections.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listen there. A unix socket that stands in the way is not removed, and this app's own is left
    /// when it ends, as with most apps.
    pub async fn open(place: Place) -> io::Result<Self> {
        let about =
            |what: String| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
        match place {
            Place::Inherited => inherited().map_err(about("descriptor 3".into())),
            Place::Unix(path) => UnixListener::bind(&path)
                .map(Self::Unix)
                .map_err(about(path.display().to_string())),
            Place::Port(host, port) => TcpListener::bind((host.as_str(), port))
                .await
                .map(Self::Tcp)
                .map_err(about(format!("{host}:{port}"))),
        }
    }

    /// Where it is, for people.
    pub fn name(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(PathBuf::from).unwrap_or_default();
                Ok(path.display().to_string())
            }
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok(Either::Left(stream))
            }
            Self::Unix(listener) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

fn inherited() -> io::Result<Listener> {
    let mut sockets = ListenFd::from_env();
    // One of another kind is left where it is.
    if let Ok(Some(listener)) = sockets.take_tcp_listener(0) {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener).map(Listener::Tcp);
    }
    let taken = sockets.take_unix_listener(0)?;
    let listener = taken.ok_or_else(|| io::Error::other("LISTEN_PID is not this process"))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Listener::Unix)
}
