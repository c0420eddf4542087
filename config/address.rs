//! Where one process of a release is reached. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Invalid;
use crate::form;

/// An address of one process: `127.0.0.1:20417`, `unix:/run/hotctl/web/7.0.sock`, or `nowhere` for one
/// that takes no requests. Serialised as that text. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A port of this machine.
    Inet(SocketAddr),
    /// A unix socket.
    Unix(Arc<Path>),
    /// Nowhere: it takes no requests.
    Nowhere,
}

/// How nowhere is written.
const NOWHERE: &str = "nowhere";

/// What a unix socket begins with.
const UNIX: &str = "unix:";

impl Address {
    /// The port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet(address) => Some(address.port()),
            Self::Unix(_) | Self::Nowhere => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Nowhere => f.write_str(NOWHERE),
        }
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix(UNIX) {
            None if text == NOWHERE => Ok(Self::Nowhere),
            Some(path) if path.starts_with('/') => Ok(Self::Unix(Path::new(path).into())),
            Some(_) => Err(Invalid::new(
                "not the whole path of a unix socket",
                "such as \"unix:/run/app.sock\"",
            )),
            None => form::address::parse(text).map(Self::Inet),
        }
    }
}

form::as_text!(Address, "an address such as \"127.0.0.1:20417\"");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::Address;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "127.0.0.1:80",
            "[::1]:8080",
            "unix:/run/a b.sock",
            "nowhere",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["unix:relative", "unix:", "localhost:80", "127.0.0.1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
