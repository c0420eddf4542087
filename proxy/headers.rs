//! What can be seen from the header of a request and of an answer, and what a request is given on its way.
//! Pure.
//!
//! Who is believed: a client's `X-Forwarded-*` and `X-Request-Id` only if it is a trusted proxy.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

use crate::kinds::Kind;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a request may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// It changes nothing: always.
    Safe,
    /// Twice is as good as once (RFC 9110, 9.2.2): where the first try was not answered because
    /// the connection was an old one.
    Idempotent,
    /// Only if nobody has received it.
    Never,
}

impl Replay {
    pub(crate) fn of(method: &Method) -> Self {
        match method {
            _ if method.is_safe() => Self::Safe,
            _ if method.is_idempotent() => Self::Idempotent,
            _ => Self::Never,
        }
    }
}

/// The host that a request is for: its `Host` header, else that of its target. pingora has refused
/// requests where the two differ. Empty if there is none, or none that is text.
pub(crate) fn host(request: &RequestHeader) -> &str {
    let host = match request.headers.get(header::HOST) {
        Some(host) => Some(host.as_bytes()),
        None => authority(request),
    };
    host.and_then(|host| std::str::from_utf8(host).ok())
        .unwrap_or_default()
}

/// Whether a request does not say for which host it is, as one of HTTP/1.1 must (RFC 9112, 3.2).
pub(crate) fn lacks_host(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11
        && !request.headers.contains_key(header::HOST)
        && authority(request).is_none()
}

/// The host within a target that is a whole URL, as clients write it to a proxy.
fn authority(request: &RequestHeader) -> Option<&[u8]> {
    let target = request.raw_path();
    if target.starts_with(b"/") {
        return None;
    }
    let scheme = target.windows(3).position(|it| it == b"://")?;
    let rest = target.get(scheme + 3..)?;
    rest.split(|byte| matches!(byte, b'/' | b'?')).next()
}

/// Whether a request has a body that may be too large to be kept for a second try, which is where
/// pingora keeps 64 KiB.
pub(crate) fn large_body(request: &RequestHeader) -> bool {
    const KEPT: u64 = 64 * 1024;
    if request.headers.contains_key(header::TRANSFER_ENCODING) {
        return true;
    }
    let length = request.headers.get(header::CONTENT_LENGTH);
    let length = length
        .and_then(|it| it.to_str().ok())
        .and_then(|it| it.trim().parse::<u64>().ok());
    length.is_some_and(|length| length > KEPT)
}

/// The other end of a connection, which is the same for all its requests.
pub(crate) struct Client {
    /// IPv4 as such, also where it arrived at an IPv6 socket.
    ip: IpAddr,
    /// The same as a header has it.
    written: HeaderValue,
}

impl Client {
    pub(crate) fn at(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let written = HeaderValue::try_from(ip.to_string());
        Self {
            ip,
            // An address is digits, letters, dots and colons, which a header can have.
            written: written.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
        }
    }
}

/// Who sends a request, and what is known of it.
pub(crate) struct Sender<'a> {
    pub(crate) client: Option<&'a Client>,
    pub(crate) trusted: &'a [IpNet],
    /// The id to give if the request brings none that is believed.
    pub(crate) id: u128,
}

impl Sender<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip)
    }

    fn is_trusted(&self) -> bool {
        !self.trusted.is_empty()
            && self
                .address()
                .is_some_and(|ip| self.trusted.iter().any(|net| net.contains(&ip)))
    }
}

/// The last changes to a request before it goes to the release.
pub(crate) fn forward(request: &mut RequestHeader, sender: &Sender<'_>) -> Result<()> {
    if let Some(host) = authority(request) {
        // A release is an origin: it gets the path as target, and the host as a header.
        if !request.headers.contains_key(header::HOST) {
            let host = host.to_vec();
            request.insert_header(header::HOST, host)?;
        }
        request.set_uri(request.uri.clone());
    }
    let is_trusted = sender.is_trusted();
    if !is_trusted {
        forget_claims(request);
    }
    // Of what is looked for from here on, somebody who is not trusted has nothing left.
    let has = |request: &RequestHeader, name| is_trusted && request.headers.contains_key(name);
    if let Some(client) = sender.client {
        let chain = match has(request, FORWARDED_FOR) {
            true => chain(request, client)?,
            false => client.written.clone(),
        };
        request.insert_header(as_written(b"x-forwarded-for"), chain)?;
    }
    if !has(request, FORWARDED_PROTO) {
        let proto = HeaderValue::from_static("http");
        request.insert_header(as_written(b"x-forwarded-proto"), proto)?;
    }
    if !has(request, FORWARDED_HOST)
        && let Some(host) = request.headers.get(header::HOST).cloned()
    {
        request.insert_header(as_written(b"x-forwarded-host"), host)?;
    }
    if !has(request, REQUEST_ID) {
        request.insert_header(as_written(b"x-request-id"), in_hex(sender.id).as_slice())?;
    }
    Ok(())
}

/// Those that a request has come through, and the one that it comes from now.
fn chain(request: &RequestHeader, client: &Client) -> Result<HeaderValue> {
    let mut chain = BytesMut::new();
    for so_far in request.headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(so_far.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.written.as_bytes());
    HeaderValue::from_maybe_shared(chain.freeze())
        .or_err(ErrorType::InvalidHTTPHeader, "x-forwarded-for")
}

/// A copy of a request's header that has room for what is added. The tables of a small one would else grow up to
/// three times, and each time be made anew. A larger one grows once at the most.
pub(crate) fn copy(request: &RequestHeader) -> Result<RequestHeader> {
    /// Fields that are added.
    const MORE: usize = 5;
    const SMALL: usize = 3;

    let count = request.headers.len();
    let target = request.uri.path_and_query().map(|it| it.as_str());
    // A target that is more than its path is kept beside it, and cannot be handed on.
    let is_plain = target.map(str::as_bytes) == Some(request.raw_path());
    if count > SMALL || !is_plain || !request.has_case() {
        return Ok(request.clone());
    }
    let mut roomy = RequestHeader::build(request.method.clone(), b"/", Some(count + MORE))?;
    roomy.set_uri(request.uri.clone());
    roomy.set_version(request.version);
    for (name, value) in request.case_header_iter() {
        roomy.append_header(name.clone(), value.clone())?;
    }
    Ok(roomy)
}

/// A name for the wire that need not be copied.
fn as_written(name: &'static [u8]) -> Bytes {
    Bytes::from_static(name)
}

/// As 32 digits, without the machinery of `format!`: this is for each request.
fn in_hex(id: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Removes everything by which a client could pass for somebody else.
fn forget_claims(request: &mut RequestHeader) {
    let claims: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| {
            name.as_str().starts_with("x-forwarded-")
                || [header::FORWARDED, REAL_IP, REQUEST_ID].contains(name)
        })
        .cloned()
        .collect();
    for name in &claims {
        request.remove_header(name);
    }
}

/// The id that a request is known by: its own if it is believed, else the one that it is given.
pub(crate) fn request_id(request: &RequestHeader, sender: &Sender<'_>) -> String {
    let own = request
        .headers
        .get(REQUEST_ID)
        .filter(|_| sender.is_trusted());
    match own {
        Some(own) => String::from_utf8_lossy(own.as_bytes()).into_owned(),
        None => format!("{:032x}", sender.id),
    }
}

/// Who a request comes from: the last in the chain who is no trusted proxy.
pub(crate) fn client(request: &RequestHeader, sender: &Sender<'_>) -> Option<IpAddr> {
    let mut client = sender.address()?;
    let values = request.headers.get_all(FORWARDED_FOR).into_iter();
    let chain: Vec<&[u8]> = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for earlier in chain.into_iter().rev() {
        let is_proxy = sender.trusted.iter().any(|net| net.contains(&client));
        let earlier = std::str::from_utf8(earlier).ok();
        match earlier.and_then(|text| text.parse::<IpAddr>().ok()) {
            Some(earlier) if is_proxy => client = earlier.to_canonical(),
            _ => break,
        }
    }
    Some(client)
}

/// What kind of request it is, by the header of its answer.
pub(crate) fn kind(request: &RequestHeader, answer: &ResponseHeader) -> Kind {
    let field = |name| answer.headers.get(name).map(HeaderValue::as_bytes);
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return match field(header::UPGRADE) {
            Some(protocol) if protocol.eq_ignore_ascii_case(b"websocket") => Kind::WebSocket,
            _ => Kind::Stream,
        };
    }
    let bodyless = request.method == Method::HEAD
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&answer.status);
    let events = b"text/event-stream";
    match (bodyless, field(header::CONTENT_TYPE)) {
        (true, _) => Kind::Request,
        (_, Some(kind))
            if kind
                .get(..events.len())
                .is_some_and(|it| it.eq_ignore_ascii_case(events)) =>
        {
            Kind::Stream
        }
        _ if field(header::CONTENT_LENGTH).is_some() => Kind::Request,
        _ => Kind::Long,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn a_small_header_is_forwarded_as_it_was_written() {
        for count in 0..6 {
            let fields = [
                ("hOsT", "a"),
                ("X-MiXed", "1"),
                ("Accept", "text/html"),
                ("Accept", "*/*"),
                ("x-last", ""),
            ];
            let mut request = copy(&request("PUT", "/a%20b?c=d", &fields[..count])).unwrap();
            let other_end = Client::at("1.2.3.4".parse().unwrap());
            let sender = Sender {
                client: Some(&other_end),
                trusted: &[],
                id: 1,
            };
            forward(&mut request, &sender).unwrap();
            let mut wire = Vec::new();
            request.header_to_h1_wire(&mut wire);
            let wire = String::from_utf8(wire).unwrap();
            for (name, value) in &fields[..count] {
                assert!(wire.contains(&format!("{name}: {value}\r\n")), "{wire}");
            }
            assert!(wire.contains("x-forwarded-for: 1.2.3.4\r\n"), "{wire}");
            let host = usize::from(count > 0);
            assert_eq!(wire.lines().count(), count + 3 + host, "{wire}");
            assert_eq!(
                (request.raw_path(), request.method.as_str()),
                (&b"/a%20b?c=d"[..], "PUT")
            );
            assert_eq!(request.version, Version::HTTP_11);
        }
    }

    #[test]
    fn the_host_is_of_the_header_or_else_of_the_target() {
        for (target, fields, expected) in [
            ("/", &[("Host", "a.com:80")][..], "a.com:80"),
            ("http://b.com:1/x?y=http://c", &[], "b.com:1"),
            ("http://b.com?x", &[], "b.com"),
            ("/x?y=http://c", &[], ""),
            ("*", &[], ""),
        ] {
            assert_eq!(host(&request("GET", target, fields)), expected, "{target}");
        }
    }

    #[test]
    fn an_id_is_as_many_digits_whatever_it_is() {
        for id in [0, 1, 0xfedc_ba98_7654_3210, u128::MAX, u128::MAX >> 3] {
            assert_eq!(in_hex(id), format!("{id:032x}").as_bytes());
        }
    }

    #[test]
    fn only_bodies_that_are_kept_whole_can_be_sent_again() {
        for (fields, large) in [
            (&[][..], false),
            (&[("Content-Length", "65536")], false),
            (&[("Content-Length", "65537")], true),
            (&[("Transfer-Encoding", "chunked")], true),
        ] {
            assert_eq!(
                large_body(&request("PUT", "/", fields)),
                large,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn each_trusted_proxy_is_added_to_the_chain() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let chain = |ip: &str| {
            let fields = [
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-For", "2.2.2.2"),
            ];
            let mut request = request("GET", "/", &fields);
            let other_end = Client::at(ip.parse().unwrap());
            let sender = Sender {
                client: Some(&other_end),
                trusted: &trusted,
                id: 1,
            };
            forward(&mut request, &sender).unwrap();
            let values = request.headers.get_all(FORWARDED_FOR).iter();
            let values: Vec<_> = values.map(|it| it.to_str().unwrap()).collect();
            values.join("|")
        };
        assert_eq!(chain("10.0.0.1"), "1.1.1.1, 2.2.2.2, 10.0.0.1");
        assert_eq!(chain("::ffff:10.0.0.1"), "1.1.1.1, 2.2.2.2, 10.0.0.1");
        assert_eq!(chain("11.0.0.1"), "11.0.0.1");
    }

    #[test]
    fn the_client_is_the_last_one_who_is_no_trusted_proxy() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, chain, client_) in [
            ("11.0.0.1", "1.1.1.1", "11.0.0.1"),
            ("10.0.0.1", "1.1.1.1, 2.2.2.2", "2.2.2.2"),
            ("10.0.0.1", "1.1.1.1, ::ffff:10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "1.1.1.1, unknown", "10.0.0.1"),
        ] {
            let other_end = Client::at(peer.parse().unwrap());
            let sender = Sender {
                client: Some(&other_end),
                trusted: &trusted,
                id: 1,
            };
            let request = request("GET", "/", &[("X-Forwarded-For", chain)]);
            let found = client(&request, &sender).unwrap().to_string();
            assert_eq!(found, client_, "{peer}: {chain}");
        }
    }

    #[test]
    fn the_kind_of_a_request_is_seen_in_the_header_of_its_answer() {
        for (method, status, field, expected) in [
            ("GET", 200, ("Content-Length", "3"), Kind::Request),
            ("GET", 200, ("Transfer-Encoding", "chunked"), Kind::Long),
            ("HEAD", 200, ("X-None", ""), Kind::Request),
            ("GET", 204, ("X-None", ""), Kind::Request),
            (
                "GET",
                200,
                ("Content-Type", "Text/Event-Stream;x"),
                Kind::Stream,
            ),
            ("GET", 101, ("Upgrade", "WebSocket"), Kind::WebSocket),
            ("GET", 101, ("Upgrade", "spdy/9"), Kind::Stream),
        ] {
            let mut answer = ResponseHeader::build(status, None).unwrap();
            answer.append_header(field.0, field.1).unwrap();
            let found = kind(&request(method, "/", &[]), &answer);
            assert_eq!(found, expected, "{method} {status} {field:?}");
        }
    }
}
