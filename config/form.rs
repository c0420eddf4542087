//! How single values are written in a file: the seam between this crate's types and serde.
//!
//! A value that is refused says so as [`Invalid`](crate::Invalid) does, reason and hint, which
//! `read` takes apart again.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};

/// Reads and writes a type as text, by its `FromStr` and `Display`.
macro_rules! as_text {
    ($type:ty, $what:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                crate::form::text(from, $what)
            }
        }
    };
}
pub(crate) use as_text;

/// A value that is written as text. `what` says what it is, for the message when it is no text.
pub(crate) fn text<'de, T, D>(from: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    struct Text<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    from.deserialize_str(Text(what, PhantomData))
}

/// Times, written as [`parse_duration`](crate::parse_duration) reads them.
pub(crate) mod duration {
    use std::str::FromStr;
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use crate::error::Invalid;
    use crate::units::{parse_duration, show_duration};

    struct Time(Duration);

    impl FromStr for Time {
        type Err = Invalid;

        fn from_str(text: &str) -> Result<Self, Invalid> {
            let hint = r#"a time such as "30s" or "1m30s""#;
            parse_duration(text)
                .map(Time)
                .map_err(|reason| Invalid::new(reason, hint))
        }
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&show_duration(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::text(from, r#"a time such as "30s" or "1m30s""#).map(|Time(time)| time)
    }
}

/// Sizes, written as [`parse_bytes`](crate::parse_bytes) reads them.
pub(crate) mod bytes {
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    use crate::error::Invalid;
    use crate::units::{parse_bytes, show_bytes};

    struct Size(u64);

    impl FromStr for Size {
        type Err = Invalid;

        fn from_str(text: &str) -> Result<Self, Invalid> {
            parse_bytes(text)
                .map(Size)
                .map_err(|reason| Invalid::new(reason, r#"a size such as "64MiB""#))
        }
    }

    pub(crate) fn serialize<S: Serializer>(size: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&show_bytes(*size))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::text(from, r#"a size such as "64MiB""#).map(|Size(size)| size)
    }
}

/// The same, where nothing need be written.
pub(crate) mod maybe_bytes {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(size: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => super::bytes::serialize(size, out),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::bytes::deserialize(from).map(Some)
    }
}

/// Addresses with a port.
pub(crate) mod address {
    use std::net::SocketAddr;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    use crate::error::Invalid;

    /// Parses an address with a port, and says what is missing when it is not one.
    pub(crate) fn parse(text: &str) -> Result<SocketAddr, Invalid> {
        text.parse().map_err(|_| {
            let host_port = text
                .rsplit_once(':')
                .filter(|(host, _)| !host.contains(':'));
            match host_port {
                _ if text.parse::<std::net::IpAddr>().is_ok() => Invalid::new(
                    "an address without a port",
                    match text.contains(':') {
                        true => format!("\"[{text}]:8080\""),
                        false => format!("\"{text}:8080\""),
                    },
                ),
                Some(("" | "*", port)) if port.parse::<u16>().is_ok() => Invalid::new(
                    "an address without a host",
                    format!("\"0.0.0.0:{port}\", or \"127.0.0.1:{port}\" for this machine only"),
                ),
                Some(("localhost", port)) if port.parse::<u16>().is_ok() => Invalid::new(
                    "a name instead of an address",
                    format!("\"127.0.0.1:{port}\" or \"[::1]:{port}\""),
                ),
                _ => Invalid::new(
                    "not an address with a port",
                    r#"such as "127.0.0.1:8080" or "[::1]:8080""#,
                ),
            }
        })
    }

    struct Address(SocketAddr);

    impl FromStr for Address {
        type Err = Invalid;

        fn from_str(text: &str) -> Result<Self, Invalid> {
            parse(text).map(Address)
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        address: &SocketAddr,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(address)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
        let what = r#"an address such as "127.0.0.1:8080""#;
        super::text(from, what).map(|Address(address)| address)
    }
}

/// Networks, `10.0.0.0/8`; a bare address is the network of that one address.
pub(crate) mod networks {
    use std::net::IpAddr;
    use std::str::FromStr;

    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::error::Invalid;

    struct Network(IpNet);

    impl FromStr for Network {
        type Err = Invalid;

        fn from_str(text: &str) -> Result<Self, Invalid> {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse()
                .ok()
                .or_else(address)
                .map(Network)
                .ok_or_else(|| {
                    Invalid::new(
                        "not a network",
                        r#"such as "10.0.0.0/8", "fd00::/8" or "192.0.2.7""#,
                    )
                })
        }
    }

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            super::text(from, r#"a network such as "10.0.0.0/8""#)
        }
    }

    pub(crate) fn serialize<S: Serializer>(nets: &[IpNet], out: S) -> Result<S::Ok, S::Error> {
        nets.serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let networks = Vec::<Network>::deserialize(from)?;
        Ok(networks
            .into_iter()
            .map(|Network(network)| network)
            .collect())
    }
}
