//! What belongs to one connection and not to the message, and so ends here (RFC 9110, 7.6.1). Pure.
//!
//! A switch to another protocol is a matter of the connection, too: it goes on where the release is to decide
//! about it, and ends here where it is a matter between neighbours, of which we are one.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What a request wants to go on with on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What it is.
    Same,
    WebSocket,
    /// One that nobody here knows.
    Other,
}

/// See [`Protocol`].
pub(crate) fn protocol(request: &RequestHeader) -> Protocol {
    let Some(protocol) = request.headers.get(header::UPGRADE) else {
        return Protocol::Same;
    };
    if request.version != Version::HTTP_11 {
        return Protocol::Same;
    }
    let protocol = protocol.as_bytes();
    let asked = tokens(&request.headers, &header::CONNECTION)
        .any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    // HTTP/2 and TLS are matters between two neighbours, and we are one of them.
    if !asked || contains(protocol, b"h2c") || contains(protocol, b"tls/") {
        Protocol::Same
    } else if protocol.eq_ignore_ascii_case(b"websocket") {
        Protocol::WebSocket
    } else {
        Protocol::Other
    }
}

/// Removes from a request what is meant for us alone, and puts what it wants to switch to.
///
/// Fails where its `Connection` header names what no client may take away, or more than anybody needs: it
/// could else hide from the release what we add.
pub(crate) fn strip(request: &mut RequestHeader, protocol: Protocol) -> Result<()> {
    let named = match request.headers.contains_key(header::CONNECTION) {
        true => named(&request.headers)?,
        false => Vec::new(),
    };
    if protocol == Protocol::Other {
        // Whatever was named may be a part of the switch.
        for name in [KEEP_ALIVE, PROXY_CONNECTION, header::PROXY_AUTHORIZATION] {
            request.remove_header(&name);
        }
        return request.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let is_ours = |name: &&HeaderName| HOPS.contains(name) || named.contains(name);
    let ours: Vec<HeaderName> = request.headers.keys().filter(is_ours).cloned().collect();
    for name in &ours {
        request.remove_header(name);
    }
    if protocol == Protocol::WebSocket {
        request.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
        request.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    }
    Ok(())
}

/// The fields that are always the connection's. How the body is framed is said anew.
const HOPS: [HeaderName; 10] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HTTP2_SETTINGS,
];

/// The fields that a client's `Connection` header names.
fn named(headers: &HeaderMap) -> Result<Vec<HeaderName>> {
    /// What names more wants us to search, not to forward.
    const MOST: usize = 9;
    /// What a release goes by.
    const KEPT: [&str; 4] = [
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];

    let mut names = Vec::new();
    for token in tokens(headers, &header::CONNECTION) {
        // `HeaderName` lets pass some more than a token of RFC 9110, 5.6.2.
        let name = HeaderName::from_bytes(token).ok();
        let name = name.filter(|name| name.as_str().bytes().all(is_token));
        match name {
            Some(name) if names.len() < MOST && !KEPT.contains(&name.as_str()) => names.push(name),
            _ => {
                return Error::e_explain(
                    ErrorType::InvalidHTTPHeader,
                    "what the Connection header names cannot be taken away",
                );
            }
        }
    }
    Ok(names)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The changes to an answer of a release before it goes to the client. Says whether the client's
/// connection must close after it.
pub(crate) fn strip_answer(request: &RequestHeader, answer: &mut ResponseHeader) -> MustClose {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return MustClose::No;
    }
    let named = nominated(&answer.headers);
    let is_ours = |name: &&HeaderName| {
        [KEEP_ALIVE, PROXY_CONNECTION, header::TRAILER].contains(name)
            || named.contains(name)
            // It tells which protocols there are, where that is the reason for the answer; else it offers
            // a switch that we would not let through.
            || (**name == header::UPGRADE && answer.status != StatusCode::UPGRADE_REQUIRED)
            // An answer is given both of its own; what comes before one has neither.
            || (answer.status.is_informational()
                && [header::CONNECTION, header::TRANSFER_ENCODING].contains(name))
    };
    let ours: Vec<HeaderName> = answer.headers.keys().filter(is_ours).cloned().collect();
    for name in &ours {
        answer.remove_header(name);
    }
    // A proxy speaks its own version, whatever the release speaks.
    answer.set_version(Version::HTTP_11);
    if request.version < Version::HTTP_11 && answer.headers.contains_key(header::TRANSFER_ENCODING)
    {
        // A client of HTTP/1.0 does not know chunks: for it the body ends with the connection.
        answer.remove_header(&header::TRANSFER_ENCODING);
        return MustClose::Yes;
    }
    MustClose::No
}

/// See [`strip_answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MustClose {
    Yes,
    No,
}

/// Whether an answer says that its connection is kept for more.
pub(crate) fn promises(answer: &ResponseHeader) -> bool {
    answer.headers.contains_key(KEEP_ALIVE)
        || tokens(&answer.headers, &header::CONNECTION)
            .any(|token| token.eq_ignore_ascii_case(b"keep-alive"))
}

/// The fields that a `Connection` header declares to be the connection's own. Not those that frame
/// the message: without them it could not be read.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &header::CONNECTION)
        .filter(|token| {
            !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive")
        })
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name))
        .collect()
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn stripped(fields: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let mut request = request(fields);
        let protocol = protocol(&request);
        strip(&mut request, protocol).ok()?;
        let fields = request.headers.iter();
        let mut left: Vec<_> = fields
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        Some(left)
    }

    #[test]
    fn a_request_loses_what_belongs_to_the_connection_and_what_that_names() {
        for (fields, left) in [
            (&[("Accept", "*/*")][..], &["accept: */*"][..]),
            (
                &[
                    ("Connection", "close, X-Mine,,x-other"),
                    ("X-Mine", "1"),
                    ("x-other", "2"),
                    ("x-third", "3"),
                    ("Keep-Alive", "timeout=5"),
                    ("Proxy-Connection", "keep-alive"),
                    ("Proxy-Authorization", "Basic x"),
                    ("TE", "trailers"),
                    ("Trailer", "x"),
                    ("Transfer-Encoding", "chunked"),
                    ("Upgrade", "h2c"),
                    ("HTTP2-Settings", "x"),
                ],
                &["x-third: 3"],
            ),
            (
                &[
                    ("Connection", "keep-alive, Upgrade"),
                    ("Upgrade", "WebSocket"),
                    ("Sec-WebSocket-Key", "x"),
                ],
                &[
                    "connection: Upgrade",
                    "sec-websocket-key: x",
                    "upgrade: websocket",
                ],
            ),
            (
                &[
                    ("Connection", "Upgrade, X-Mine"),
                    ("Upgrade", "spdy/9"),
                    ("X-Mine", "1"),
                    ("Keep-Alive", "timeout=5"),
                ],
                &["connection: Upgrade", "upgrade: spdy/9", "x-mine: 1"],
            ),
        ] {
            assert_eq!(stripped(fields).unwrap(), left, "{fields:?}");
        }
    }

    #[test]
    fn a_client_cannot_take_away_what_a_release_goes_by() {
        let many = ["x"; 10].join(",");
        for named in ["Host", "X-Forwarded-For", ":path", "\"a\"", "a b", &many] {
            assert_eq!(stripped(&[("Connection", named)]), None, "{named}");
        }
        assert!(stripped(&[("Connection", &many[2..])]).is_some());
    }

    #[test]
    fn switches_between_neighbours_are_denied() {
        for (connection, name, wanted) in [
            ("Upgrade", "websocket", Protocol::WebSocket),
            ("keep-alive, Upgrade", "WebSocket", Protocol::WebSocket),
            ("upgrade", "spdy/9", Protocol::Other),
            ("keep-alive", "spdy/9", Protocol::Same),
            ("keep-alive", "websocket", Protocol::Same),
            ("upgrade, http2-settings", "h2c", Protocol::Same),
            ("upgrade", "foo, H2C", Protocol::Same),
            ("upgrade", "TLS/1.2", Protocol::Same),
        ] {
            let fields = [("Connection", connection), ("Upgrade", name)];
            let asked = request(&fields);
            assert_eq!(protocol(&asked), wanted, "{connection}: {name}");
        }
        assert_eq!(protocol(&request(&[])), Protocol::Same);
    }

    #[test]
    fn an_answer_loses_what_belongs_to_the_connection_but_not_its_framing() {
        let asked = request(&[]);
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "X-Mine, Content-Length, close"),
            ("X-Mine", "1"),
            ("Content-Length", "3"),
            ("Keep-Alive", "timeout=5"),
        ] {
            head.append_header(name, value).unwrap();
        }
        assert_eq!(strip_answer(&asked, &mut head), MustClose::No);
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length"]);
    }
}
