//! The life of a request, in the order in which pingora calls.
//!
//! It holds a ticket from the moment a release is chosen until it is over; the ticket lies in the
//! `context`, so it comes back on every path. What may be sent again, and when, is decided in
//! `retry`; what happens to headers in `headers`.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hotctl_config::{Address, Timeouts};
use http::header;
use http::{Method, StatusCode};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer};
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::access::{AccessLog, Entry};
use crate::answer::Refusal;
use crate::choose::Unchosen;
use crate::conn::{Conn, Framing};
use crate::context::{Context, refusal};
use crate::desk::{self, Desk};
use crate::gate;
use crate::headers::{self, MustClose, Sender};
use crate::kinds::Kind;
use crate::metrics::{Meter, Metrics};
use crate::retry::Alone;
use crate::switch::Switch;

/// What requests need to know.
pub(crate) struct Requests {
    pub(crate) switch: Arc<Switch>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) timeouts: Timeouts,
    pub(crate) access_log: AccessLog,
    pub(crate) desk: Option<Arc<dyn Desk>>,
}

/// How long the rest of a body may take to arrive, once the answer is out, before the connection is
/// closed instead of kept.
const DRAIN: Duration = Duration::from_secs(5);

#[async_trait]
impl ProxyHttp for Requests {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    /// None: answers go through as they are, compressed or not.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> Result<()> {
        if let Some(conn) = conn(session) {
            conn.begin(framing(session));
        }
        session.set_total_drain_timeout(Some(DRAIN));
        if session.req_header().version < http::Version::HTTP_11 {
            // 1xx is unknown to it.
            session.set_ignore_info_resp(true);
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if self.desk.is_some() && Box::pin(self.at_the_desk(session)).await? {
            return Ok(true);
        }
        let request = session.req_header();
        let refusal = if request.method == Method::CONNECT {
            Refusal::MethodNotAllowed
        } else {
            match self.choose(session, ctx).await {
                Ok(()) => {
                    ctx.retry.learn(session.req_header());
                    return Ok(false);
                }
                Err(Unchosen::Refused(refusal)) => refusal,
                Err(Unchosen::ClientLeft) => {
                    return Err(Error::new_down(ErrorType::ConnectionClosed));
                }
            }
        };
        self.refuse(session, ctx, refusal).await;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        if ctx.retry.is_again() {
            if !ctx.retry.settle().await {
                return Err(Error::new_up(ErrorType::ConnectionClosed));
            }
            // Again from the start: meanwhile another release may be live.
            match self.choose(session, ctx).await {
                Ok(()) => {}
                Err(Unchosen::Refused(refusal)) => {
                    ctx.refusal = Some(refusal);
                    return Err(Error::new_in(ErrorType::InternalError));
                }
                Err(Unchosen::ClientLeft) => {
                    return Err(Error::new_down(ErrorType::ConnectionClosed));
                }
            }
            ctx.retries += 1;
            if let Some(meter) = self.meter(ctx) {
                meter.retries.inc();
            }
        }
        ctx.upstream = None;
        let Some(ticket) = &ctx.ticket else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let mut peer = Box::new(peer(ticket.address())?);
        peer.options.connection_timeout = Some(self.timeouts.connect);
        let upgrade = headers::upgrade(session.req_header());
        peer.options.http_upstream_request_policy.h1_upgrade = upgrade;
        // A body would have to be on its way before there is an answer, so then there is no gate.
        let gated = upgrade != H1UpgradePolicy::Deny && session.is_body_empty();
        ctx.gated = gated;
        if let Some(conn) = conn(session).filter(|_| gated) {
            let connector = gate::connector(self.timeouts.connect, conn.line().clone());
            peer.options.custom_l4 = Some(connector);
        }
        if ctx.retry.choose(ticket.notes()) == Alone::Yes || gated {
            // A key that nothing is kept under.
            peer.group_key = fastrand::u64(..) | 1 << 63;
            peer.options.idle_timeout = Some(Duration::ZERO);
        } else {
            peer.group_key = ticket.group_key();
            peer.options.idle_timeout = Some(ticket.notes().idle());
        }
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.as_up();
        self.count_failure(ctx, &error);
        let another = ctx.failed_there(session, &error);
        let again = ctx
            .retry
            .after_connect_failure(self.timeouts.retry, another);
        match again {
            true => ctx.doubt(session, &error),
            false => ctx.failed(session, &error),
        }
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _: &HttpPeer,
        fd: RawFd,
        _: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let Some(ticket) = &ctx.ticket else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        if let Some(conn) = conn(session) {
            conn.line().connected(fd);
        }
        if self.is_told() {
            ctx.sent = Instant::now();
        }
        let connected = ctx.retry.connected(reused, fd, ticket.notes());
        connected.map_err(|_| Error::new_up(ErrorType::ConnectionClosed))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let sender = self.sender(session, ctx);
        headers::forward(request, &sender)?;
        if self.desk.is_some() {
            desk::ask(request);
        }
        if ctx.retry.is_alone() == Alone::Yes && !request.headers.contains_key(header::UPGRADE) {
            request.insert_header(header::CONNECTION, "close")?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // A 1xx is not the answer, but it shows that the request was received.
        if let Some(ticket) = &ctx.ticket {
            ctx.retry.answered(ticket.notes());
            if headers::promises(answer) {
                ticket.notes().promised();
            }
            if let Some(keep_alive) = answer.headers.get("keep-alive") {
                ticket.notes().hear(keep_alive.as_bytes());
            }
        }
        let status = answer.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if self.is_told() {
            ctx.upstream = Some(ctx.sent.elapsed());
        }
        if status.is_server_error() {
            let request = session.req_header();
            let (method, path) = (&request.method, request.uri.path());
            ctx.judge(&format!("{method} {path}: status {}", status.as_u16()));
        }
        self.classify(session, answer, ctx);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            // It may be silent for as long as it likes.
            session.set_read_timeout(None);
        }
        ctx.page = self.page(session, answer, ctx).map(Box::new);
        let must_close = headers::answer(session.req_header(), answer);
        if must_close == MustClose::Yes || conn(session).is_some_and(Conn::closing) {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Some(page) = &mut ctx.page {
            page.pass(body, end);
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        _reused: bool,
    ) -> Box<Error> {
        if *error.esource() != ErrorSource::Upstream {
            error.set_retry(false);
            return error;
        }
        let whole = !session.as_ref().retry_buffer_truncated();
        let again = match &ctx.ticket {
            Some(ticket) => ctx
                .retry
                .after_failure(whole, error.etype(), ticket.notes()),
            None => false,
        };
        if !ctx.retry.was_unused() {
            ctx.failed_there(session, &error);
            self.count_failure(ctx, &error);
        }
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let refusal = match ctx.refusal {
            Some(refusal) => Some(refusal),
            None => {
                if *error.esource() == ErrorSource::Upstream {
                    ctx.failed(session, error);
                }
                refusal(error)
            }
        };
        let answered = session.response_written().map(|it| it.status);
        let answered =
            answered.filter(|it| !it.is_informational() || *it == StatusCode::SWITCHING_PROTOCOLS);
        let code = match (answered, refusal) {
            (Some(status), None) => status.as_u16(),
            (Some(status), Some(refusal)) => {
                // The answer is under way and cannot be completed.
                if let Some(conn) = conn(session) {
                    conn.break_off();
                }
                self.count_refusal(ctx, refusal);
                status.as_u16()
            }
            (None, Some(refusal)) => {
                self.report(session, ctx, refusal, error);
                session.set_keepalive(None);
                self.refuse(session, ctx, refusal).await;
                refusal.status()
            }
            (None, None) => 0,
        };
        FailToProxy {
            error_code: code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        /// The client left before there was an answer; as nginx has it.
        const CLIENT_LEFT: u16 = 499;
        let code = match session.response_written() {
            Some(answer) if answer.status == StatusCode::SWITCHING_PROTOCOLS => 101,
            Some(answer) if !answer.status.is_informational() => answer.status.as_u16(),
            _ => CLIENT_LEFT,
        };
        let took = ctx.begun.elapsed();
        let meter = self.meter(ctx);
        self.metrics.request(meter.map(|it| &**it), code, took);
        if let Some(ticket) = &ctx.ticket {
            let classes = &ticket.notes().classes;
            let classes = classes.get_or_init(|| self.metrics.classes(ticket.release()));
            classes.count(code);
        }
        if error.is_none() && ctx.retry.has_answer() {
            ctx.went_well();
        }
        if self.is_told() {
            let entry = self.entry(session, ctx, code, took);
            entry.tell();
            self.access_log.write(entry);
        }
        let whole = session.is_body_done();
        if let Some(conn) = conn(session) {
            conn.over(whole, length(session));
        }
    }

    // What there is to say of an error is said in `report`.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Requests {
    /// Finds out what kind of request this is, now that its answer begins.
    fn classify(&self, session: &Session, answer: &ResponseHeader, ctx: &mut Context) {
        let kind = match headers::kind(session.req_header(), answer) {
            // It cannot be followed: it has no frames that are known.
            Kind::WebSocket if !ctx.gated => Kind::Stream,
            kind => kind,
        };
        if let Kind::Stream | Kind::WebSocket = kind {
            // Its end may be far away, and says nothing.
            ctx.went_well();
        }
        let Some(ticket) = ctx.ticket.as_mut().filter(|_| kind != Kind::Request) else {
            return;
        };
        if let Some(conn) = conn(session) {
            conn.line().becomes(kind);
        }
        ticket.becomes(kind);
    }

    /// Whether each request is told of: in the access log, or where somebody looks closely.
    fn is_told(&self) -> bool {
        self.access_log.is_on() || tracing::enabled!(tracing::Level::DEBUG)
    }

    /// Who sends it.
    fn sender<'a>(&'a self, session: &'a Session, ctx: &Context) -> Sender<'a> {
        Sender {
            client: conn(session).map(Conn::client),
            trusted: &self.trusted,
            id: ctx.id,
        }
    }

    /// What is told of it.
    fn entry(&self, session: &Session, ctx: &Context, code: u16, took: Duration) -> Entry {
        let request = session.req_header();
        let sender = self.sender(session, ctx);
        let release = ctx.ticket.as_ref().map(|it| it.release().clone());
        Entry {
            service: match &release {
                Some(release) => Some(release.service.clone()),
                None => ctx.meter.as_ref().map(|it| it.service().clone()),
            },
            release,
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            status: code,
            bytes: session.body_bytes_sent(),
            took,
            upstream: ctx.upstream,
            request_id: headers::request_id(request, &sender),
            retries: ctx.retries,
            client: headers::client(request, &sender),
        }
    }

    pub(crate) fn meter<'a>(&self, ctx: &'a Context) -> Option<&'a Arc<Meter>> {
        match &ctx.ticket {
            Some(ticket) => {
                let known = &ticket.notes().meter;
                Some(known.get_or_init(|| self.metrics.meter(ticket.service())))
            }
            None => ctx.meter.as_ref(),
        }
    }

    /// Answers in the place of a release.
    async fn refuse(&self, session: &mut Session, ctx: &Context, refusal: Refusal) {
        self.count_refusal(ctx, refusal);
        if conn(session).is_some_and(Conn::closing) {
            session.set_keepalive(None);
        }
        let accept = session.get_header(header::ACCEPT).cloned();
        let accept = accept.as_ref().map(|it| it.as_bytes());
        let page = |html| self.own_page(session, ctx, html);
        let Ok((mut head, body)) = refusal.answer(accept, ctx.notice.as_deref(), page) else {
            session.set_keepalive(None);
            return;
        };
        if refusal == Refusal::MethodNotAllowed {
            let _ = head.insert_header(
                header::ALLOW,
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            );
        }
        let body = match session.req_header().method == Method::HEAD {
            true => Bytes::new(),
            false => Bytes::from(body),
        };
        let sent = async {
            session
                .write_response_header(Box::new(head), body.is_empty())
                .await?;
            session.write_response_body(Some(body), true).await
        };
        if sent.await.is_err() {
            session.set_keepalive(None);
        }
    }

    fn count_refusal(&self, ctx: &Context, refusal: Refusal) {
        if let Some(meter) = self.meter(ctx) {
            self.metrics.refused(meter, refusal.reason());
        }
    }

    fn count_failure(&self, ctx: &Context, error: &Error) {
        if let (Some(meter), Some(kind)) = (self.meter(ctx), refusal(error)) {
            self.metrics.upstream_error(meter, kind.reason());
        }
    }

    fn report(&self, session: &Session, ctx: &Context, refusal: Refusal, error: &Error) {
        let request = session.req_header();
        let (method, path) = (&request.method, request.uri.path());
        let status = refusal.status();
        match &ctx.ticket {
            Some(ticket) => tracing::warn!(
                "{} at {}: {method} {path}: answered {status} {}: {error}",
                ticket.release(),
                ticket.address(),
                refusal.reason(),
            ),
            None => tracing::debug!("{method} {path}: answered {status} {}", refusal.reason()),
        }
    }
}

/// An instance, as pingora names it.
fn peer(address: &Address) -> Result<HttpPeer> {
    match address {
        Address::Nowhere => Err(Error::explain(
            ErrorType::SocketError,
            "it takes no requests",
        )),
        Address::Inet(address) => Ok(HttpPeer::new(address, false, String::new())),
        Address::Unix(path) => {
            let path = path.to_str().ok_or_else(|| {
                Error::explain(ErrorType::SocketError, "the path of the socket is no text")
            })?;
            HttpPeer::new_uds(path, false, String::new())
        }
    }
}

/// How the end of a request shows.
fn framing(session: &Session) -> Framing {
    let headers = &session.req_header().headers;
    match headers.contains_key(header::TRANSFER_ENCODING) {
        true => Framing::Chunked,
        false => Framing::Length,
    }
}

/// How many bytes of a request were read. Of one in chunks only their contents are counted.
fn length(session: &Session) -> usize {
    let http = session.as_downstream().as_http1();
    http.map_or(0, |http| {
        http.get_headers_raw_bytes().len() + http.body_bytes_read()
    })
}

/// The connection that a session runs on.
pub(crate) fn conn(session: &Session) -> Option<&Conn> {
    session.stream()?.as_any().downcast_ref()
}
