//! Connecting to one process of a release, whatever kind of address it has.

use std::io;

use hotctl_config::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// Connect.
///
/// # Errors
/// As the system says; a unix socket that is not made yet refuses like a port that nobody listens on.
pub(crate) async fn dial(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Inet(address) => Ok(Box::new(TcpStream::connect(address).await?)),
        Address::Nowhere => Err(io::ErrorKind::AddrNotAvailable.into()),
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            // A unix socket does not wait for room, as a port would.
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Err(io::Error::other(
                "no room for another connection: too many wait to be accepted",
            )),
            Err(cause) => Err(cause),
        },
    }
}

/// A request's target in words: `127.0.0.1:41207/up`, `unix:/run/app.sock:/up`.
pub(crate) fn target(address: &Address, path: &str) -> String {
    match address {
        Address::Inet(_) | Address::Nowhere => format!("{address}{path}"),
        Address::Unix(_) => format!("{address}:{path}"),
    }
}

/// The `Host` header of a request that names no other.
pub(crate) fn host(address: &Address) -> String {
    match address {
        Address::Inet(address) => address.to_string(),
        Address::Unix(_) | Address::Nowhere => "localhost".into(),
    }
}
