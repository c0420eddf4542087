//! What a page of HTML gets on its way to a browser where somebody edits the service behind it: one
//! script more, from a path that is kept for that. Knows when and how; what the script is, and what it is
//! told, is for whoever the proxy works for.

use std::pin::Pin;

use bytes::Bytes;
use hotctl_config::{ReleaseId, ServiceName};
use http::{Method, StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::server::HttpSession as Session;

use crate::coding::Decoder;
use crate::conn::Conn;
use crate::context::Context;
use crate::html::Splice;
use crate::policy;
use crate::request::{Requests, conn, say};

/// Below this no request is for a release.
pub const OWN_PATHS: &str = "/__hotctl/";

/// Who edits, and what their browser is to show.
pub trait Desk: Send + Sync {
    /// The start tag of the script, and its end, for a page.
    fn script(&self, page: &Page<'_>) -> String;

    /// The answer to a request for a path below [`OWN_PATHS`], with what follows its question mark; none
    /// where there is no such path. May take its time: whoever leaves before is not waited for.
    fn answer<'a>(&'a self, path: &'a str, query: &'a str) -> Answering<'a>;
}

/// An answer that is under way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Option<Own>> + Send + 'a>>;

/// What stands behind one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its media type.
    pub kind: &'static str,
    /// What it says.
    pub body: Bytes,
}

/// A page that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Whose page it is; none where no service has its path.
    pub service: Option<&'a ServiceName>,
    /// Which release has made it; none where hotctl has.
    pub release: Option<&'a ReleaseId>,
    /// Whether it answers something else than a `GET`: to load it anew would do that again.
    pub once: bool,
    /// With which its script is let in by the page's own policy, where it has one.
    pub nonce: Option<&'a str>,
}

/// What a browser wants to do with the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Show it.
    Document,
    /// It may be to show it: it does not say so.
    Unknown,
    /// Something else.
    Other,
}

/// See the Fetch Metadata of the W3C.
fn wish(request: &RequestHeader) -> Wish {
    if request.method != Method::GET && request.method != Method::POST {
        return Wish::Other;
    }
    match request
        .headers
        .get("sec-fetch-dest")
        .map(|it| it.as_bytes())
    {
        Some(b"document" | b"iframe" | b"frame") => Wish::Document,
        Some(_) => Wish::Other,
        None => Wish::Unknown,
    }
}

/// The changes to a request that may be for a page: it is to come as it is, and whole.
pub(crate) fn ask(request: &mut RequestHeader) {
    let is_page = match wish(request) {
        Wish::Document => true,
        Wish::Unknown => {
            let accept = request.headers.get(header::ACCEPT);
            accept.is_some_and(|it| it.as_bytes().starts_with(b"text/html"))
        }
        Wish::Other => false,
    };
    if is_page {
        for name in [
            header::ACCEPT_ENCODING,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
        ] {
            request.remove_header(&name);
        }
    }
}

/// Checksums of a body (RFC 9530, RFC 3230, RFC 1864), which http has no constants for.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// The body of a page under way.
pub(crate) struct Passing {
    decoder: Option<Decoder>,
    splice: Splice,
}

impl Passing {
    /// Some of it passes.
    pub(crate) fn pass(&mut self, body: &mut Option<Bytes>, end: bool) {
        let mut bytes = body.take().unwrap_or_default();
        if let Some(decoder) = &mut self.decoder {
            bytes = decoder.pass(&bytes, end);
        }
        let bytes = self.splice.pass(&bytes, end);
        *body = (end || !bytes.is_empty()).then_some(bytes);
    }
}

/// If this answer is a page, its header as it is to be, and what its body goes through.
pub(crate) fn begin(
    desk: &dyn Desk,
    request: &RequestHeader,
    answer: &mut ResponseHeader,
    page: Page<'_>,
) -> Option<Passing> {
    let wish = wish(request);
    let has_body = !matches!(
        answer.status,
        StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    ) && !answer.status.is_informational();
    let is_empty = answer.headers.get(header::CONTENT_LENGTH);
    let is_empty = is_empty.is_some_and(|it| it.as_bytes() == b"0");
    if wish == Wish::Other || !has_body || is_empty || !is_html(answer) {
        return None;
    }
    let decoder = match answer.headers.get(header::CONTENT_ENCODING) {
        Some(coding) => Some(Decoder::of(coding.as_bytes())?),
        None => None,
    };
    if decoder.is_some() {
        answer.remove_header(&header::CONTENT_ENCODING);
    }
    // What they say of the body is not true any more.
    for name in [
        header::CONTENT_LENGTH,
        header::ETAG,
        header::LAST_MODIFIED,
        header::ACCEPT_RANGES,
    ] {
        answer.remove_header(&name);
    }
    for name in DIGESTS {
        answer.remove_header(name);
    }
    answer
        .insert_header(header::TRANSFER_ENCODING, "chunked")
        .ok()?;
    let nonce = policy::let_in(answer);
    let script = desk.script(&Page {
        nonce: nonce.as_deref(),
        ..page
    });
    Some(Passing {
        decoder,
        splice: match wish {
            Wish::Document => Splice::into_any(script),
            // Perhaps a part of a page, which a script of that page has asked for.
            Wish::Unknown | Wish::Other => Splice::into_whole(script),
        },
    })
}

fn is_html(answer: &ResponseHeader) -> bool {
    let kind = answer.headers.get(header::CONTENT_TYPE);
    let kind = kind.map(|it| it.as_bytes()).unwrap_or_default();
    let mut words = kind.split(|byte| *byte == b';');
    let kind = words.next().unwrap_or_default();
    // A script of ASCII can be put into all others.
    let is_wide = words.any(|word| {
        let word = word.trim_ascii().to_ascii_lowercase();
        word.starts_with(b"charset=utf-16") || word.starts_with(b"charset=\"utf-16")
    });
    let is_saved = answer
        .headers
        .get(header::CONTENT_DISPOSITION)
        .is_some_and(|it| it.as_bytes().starts_with(b"attachment"));
    kind.trim_ascii().eq_ignore_ascii_case(b"text/html") && !is_saved && !is_wide
}

impl Requests {
    /// The page that this answer is, where somebody edits it.
    pub(crate) fn page(
        &self,
        session: &Session,
        answer: &mut ResponseHeader,
        ctx: &Context,
    ) -> Option<Passing> {
        let desk = self.desk.as_deref()?;
        let ticket = ctx.ticket.as_ref()?;
        let page = Page {
            service: Some(ticket.service()),
            release: Some(ticket.release()),
            once: session.req_header().method != Method::GET,
            nonce: None,
        };
        begin(desk, session.req_header(), answer, page)
    }

    /// Our own page, with the script where somebody edits what it stands for.
    pub(crate) fn own_page(&self, session: &Session, ctx: &Context, html: String) -> String {
        let Some(desk) = self.desk.as_deref() else {
            return html;
        };
        if wish(session.req_header()) == Wish::Other {
            return html;
        }
        let meter = self.meter(ctx);
        let script = desk.script(&Page {
            service: meter.map(|it| it.service()),
            release: None,
            once: session.req_header().method != Method::GET,
            nonce: None,
        });
        let spliced = Splice::into_any(script).pass(html.as_bytes(), true);
        String::from_utf8_lossy(&spliced).into_owned()
    }

    /// Answers a request that is for the desk itself. Says whether it was.
    pub(crate) async fn at_the_desk(&self, session: &mut Session) -> Result<bool> {
        let Some(desk) = self.desk.as_deref() else {
            return Ok(false);
        };
        let uri = session.req_header().uri.clone();
        let Some(path) = uri.path().strip_prefix(OWN_PATHS) else {
            return Ok(false);
        };
        let own = {
            let gone = async {
                match conn(session) {
                    Some(conn) => leaves(conn).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                own = desk.answer(path, uri.query().unwrap_or_default()) => own,
                () = gone => None,
            }
        };
        if conn(session).is_some_and(Conn::closing) {
            session.set_server_keepalive(None);
        }
        let (status, own) = match own {
            Some(own) => (StatusCode::OK, own),
            None => (
                StatusCode::NOT_FOUND,
                Own {
                    kind: "text/plain; charset=utf-8",
                    body: Bytes::from_static(b"hotctl has nothing here\n"),
                },
            ),
        };
        let mut head = ResponseHeader::build(status, Some(4))?;
        head.insert_header(header::CONTENT_TYPE, own.kind)?;
        head.insert_header(header::CONTENT_LENGTH, own.body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        let body = match session.req_header().method == Method::HEAD {
            true => Bytes::new(),
            false => own.body,
        };
        say(session, head, &body).await?;
        Ok(true)
    }
}

/// Resolves when a client need not be answered any more: it has left, or everybody is sent away.
async fn leaves(conn: &Conn) {
    /// How often it is looked whether they are.
    const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
    let closing = async {
        while !conn.closing() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = conn.left() => {}
        () = closing => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    struct Plain;

    impl Desk for Plain {
        fn script(&self, page: &Page<'_>) -> String {
            format!("<script {}>", page.nonce.unwrap_or_default())
        }

        fn answer<'a>(&'a self, _: &'a str, _: &'a str) -> Answering<'a> {
            Box::pin(std::future::ready(None))
        }
    }

    const NOBODY: Page = Page {
        service: None,
        release: None,
        once: false,
        nonce: None,
    };

    fn request(method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut answer = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            answer.append_header(*name, *value).unwrap();
        }
        answer
    }

    #[test]
    fn only_what_a_browser_shows_as_a_page_is_touched() {
        let page = ("Content-Type", "Text/HTML; charset=utf-8");
        let shown = ("Sec-Fetch-Dest", "document");
        for (method, asked, status, fields, touched) in [
            ("GET", &[shown][..], 200, &[page][..], true),
            ("POST", &[shown], 200, &[page], true),
            ("GET", &[shown], 404, &[page], true),
            ("GET", &[shown], 500, &[page], true),
            ("GET", &[], 200, &[page], true),
            ("HEAD", &[shown], 200, &[page], false),
            ("GET", &[shown], 206, &[page], false),
            ("GET", &[shown], 304, &[page], false),
            ("GET", &[("Sec-Fetch-Dest", "empty")], 200, &[page], false),
            ("GET", &[shown], 200, &[], false),
            (
                "GET",
                &[shown],
                200,
                &[("Content-Type", "text/html;charset=UTF-16")],
                false,
            ),
            (
                "GET",
                &[shown],
                200,
                &[("Content-Type", "text/plain")],
                false,
            ),
            (
                "GET",
                &[shown],
                200,
                &[("Content-Type", "application/json")],
                false,
            ),
            (
                "GET",
                &[shown],
                200,
                &[page, ("Content-Disposition", "attachment; filename=a")],
                false,
            ),
            (
                "GET",
                &[shown],
                200,
                &[page, ("Content-Encoding", "gzip")],
                true,
            ),
            (
                "GET",
                &[shown],
                200,
                &[page, ("Content-Encoding", "zstd")],
                true,
            ),
            (
                "GET",
                &[shown],
                200,
                &[page, ("Content-Encoding", "x-own")],
                false,
            ),
            (
                "GET",
                &[shown],
                200,
                &[page, ("Content-Length", "0")],
                false,
            ),
        ] {
            let mut head = answer(status, fields);
            for name in DIGESTS {
                head.append_header(name, "x").unwrap();
            }
            if !head.headers.contains_key("content-length") {
                head.append_header("Content-Length", "3").unwrap();
            }
            let before = head.headers.clone();
            let passing = begin(&Plain, &request(method, asked), &mut head, NOBODY);
            let what = format!("{method} {asked:?} {status} {fields:?}");
            assert_eq!(passing.is_some(), touched, "{what}");
            assert_eq!(head.headers == before, !touched, "{what}");
            if touched {
                assert!(!head.headers.contains_key("content-length"), "{what}");
                assert!(!head.headers.contains_key("content-encoding"), "{what}");
                let digests = DIGESTS.iter().any(|name| head.headers.contains_key(*name));
                assert!(!digests, "{what}");
            }
        }
    }

    #[test]
    fn a_page_is_asked_for_as_it_is_and_whole() {
        let fields = [("Accept-Encoding", "br"), ("If-None-Match", "\"a\"")];
        for (more, changed) in [
            (("Sec-Fetch-Dest", "document"), true),
            (("Accept", "text/html,*/*"), true),
            (("Sec-Fetch-Dest", "script"), false),
            (("Accept", "*/*"), false),
        ] {
            let mut request = request("GET", &[fields[0], fields[1], more]);
            ask(&mut request);
            let left = request.headers.len();
            assert_eq!(left == 1, changed, "{more:?}");
        }
    }
}
