//! The life of a request, from top to bottom.
//!
//! It holds a ticket from the moment a release is chosen until it is over; the ticket lies in the
//! `context`, so it comes back on every path. How it gets to its release and its answer back is in `relay`,
//! what may be sent again, and when, in `retry`, and what happens to headers in `headers` and `hops`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hotctl_config::Timeouts;
use http::header;
use http::{Method, StatusCode};
use ipnet::IpNet;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ReusableHttpStream;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::access::{AccessLog, Entry};
use crate::answer::Refusal;
use crate::choose::Unchosen;
use crate::conn::{Conn, Framed, Framing};
use crate::context::{Context, refusal};
use crate::desk::Desk;
use crate::hall::Serves;
use crate::headers::{self, Sender};
use crate::kinds::Kind;
use crate::metrics::{Meter, Metrics};
use crate::relay::{REST, is_answer};
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

impl Serves for Requests {
    async fn talk(self: Arc<Self>, conn: Conn) {
        let mut stream: Stream = Box::new(conn);
        let mut ahead = None;
        loop {
            let mut session = Session::new(stream);
            // Without a limit of pingora's: its own are for each read, the connection has better ones.
            session.set_server_keepalive(Some(0));
            session.set_pipelining_enabled(true);
            if let Some(ahead) = ahead {
                session.set_pipelined_prefix(ahead);
            }
            let Some(reusable) = self.serve(session).await else {
                return;
            };
            (stream, ahead) = reusable.into_parts();
            let Ok(mut conn) = stream.into_any().downcast::<Conn>() else {
                return;
            };
            conn.rest();
            stream = conn;
        }
    }
}

impl Requests {
    /// One request, from the first byte of its header to the last of its answer. Gives back its connection
    /// where that goes on.
    async fn serve(&self, mut session: Session) -> Option<ReusableHttpStream> {
        match session.read_request().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => {
                // Of others the connection is broken.
                if *error.etype() == ErrorType::InvalidHTTPHeader {
                    Box::pin(refuse_unread(&mut session)).await;
                }
                return None;
            }
        }
        begin(&mut session);
        let mut ctx = Context::new();
        let answered = self.answer(&mut session, &mut ctx).await;
        if let Err(error) = &answered {
            Box::pin(self.fail(&mut session, error, &mut ctx)).await;
        }
        self.over(&mut session, answered.is_ok(), &mut ctx);
        match answered {
            Ok(()) => session.reuse().await.ok().flatten(),
            Err(_) => None,
        }
    }

    /// Chooses a release for it, and tries until there is an answer, or a reason why there is none.
    async fn answer(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if self.desk.is_some() && Box::pin(self.at_the_desk(session)).await? {
            return Ok(());
        }
        let refusal = match session.req_header().method {
            Method::CONNECT => Some(Refusal::MethodNotAllowed),
            _ if headers::lacks_host(session.req_header()) => Some(Refusal::BadRequest),
            _ => match self.choose(session, ctx).await {
                Ok(()) => None,
                Err(Unchosen::Refused(refusal)) => Some(refusal),
                Err(Unchosen::ClientLeft) => {
                    return Err(Error::new_down(ErrorType::ConnectionClosed));
                }
            },
        };
        if let Some(refusal) = refusal {
            Box::pin(self.refuse(session, ctx, refusal)).await;
            return Ok(());
        }
        ctx.retry.learn(session.req_header());
        loop {
            match self.attempt(session, ctx).await {
                Err(error) if error.retry() => Box::pin(self.choose_again(session, ctx)).await?,
                ended => return ended,
            }
        }
    }

    /// Again from the start: meanwhile another release may be live.
    async fn choose_again(&self, session: &Session, ctx: &mut Context) -> Result<()> {
        if !ctx.retry.settle().await {
            return Err(Error::new_up(ErrorType::ConnectionClosed));
        }
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
        Ok(())
    }

    /// There is no answer, or no whole one: tells the client why, where it is still there.
    async fn fail(&self, session: &mut Session, error: &Error, ctx: &mut Context) {
        let refusal = match ctx.refusal {
            Some(refusal) => Some(refusal),
            None => {
                if *error.esource() == ErrorSource::Upstream {
                    ctx.failed(session, error);
                }
                refusal(error)
            }
        };
        let Some(refusal) = refusal else {
            return;
        };
        if status_of(session).is_some() {
            // The answer is under way and cannot be completed.
            if let Some(conn) = conn(session) {
                conn.break_off(is_framed(session));
            }
            self.count_refusal(ctx, refusal);
        } else {
            self.report(session, ctx, refusal, error);
            session.set_server_keepalive(None);
            self.refuse(session, ctx, refusal).await;
        }
    }

    /// It is over, for good or ill: what there is to count and to tell of it.
    fn over(&self, session: &mut Session, is_well: bool, ctx: &mut Context) {
        /// The client left before there was an answer; as nginx has it.
        const CLIENT_LEFT: u16 = 499;
        let code = status_of(session).map_or(CLIENT_LEFT, |status| status.as_u16());
        let took = ctx.took.unwrap_or_else(|| ctx.begun.elapsed());
        let meter = self.meter(ctx);
        self.metrics.request(meter.map(|it| &**it), code, took);
        if let Some(ticket) = &ctx.ticket {
            let classes = &ticket.notes().classes;
            let classes = classes.get_or_init(|| self.metrics.classes(ticket.release()));
            classes.count(code);
        }
        if is_well && ctx.retry.has_answer() {
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

    /// Finds out what kind of request this is, now that its answer begins.
    pub(crate) fn classify(&self, session: &Session, answer: &ResponseHeader, ctx: &mut Context) {
        let kind = match headers::kind(session.req_header(), answer) {
            // It cannot be followed: it has no frames that are known.
            Kind::WebSocket if !ctx.followed => Kind::Stream,
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
    pub(crate) fn is_told(&self) -> bool {
        self.access_log.is_on() || tracing::enabled!(tracing::Level::DEBUG)
    }

    /// Who sends it.
    pub(crate) fn sender<'a>(&'a self, session: &'a Session, ctx: &Context) -> Sender<'a> {
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
            session.set_server_keepalive(None);
        }
        let accept = session.get_header(header::ACCEPT).cloned();
        let accept = accept.as_ref().map(|it| it.as_bytes());
        let page = |html| self.own_page(session, ctx, html);
        let Ok((mut head, body)) = refusal.answer(accept, ctx.notice.as_deref(), page) else {
            session.set_server_keepalive(None);
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
        if say(session, head, &body).await.is_err() {
            session.set_server_keepalive(None);
        }
    }

    fn count_refusal(&self, ctx: &Context, refusal: Refusal) {
        if let Some(meter) = self.meter(ctx) {
            self.metrics.refused(meter, refusal.reason());
        }
    }

    pub(crate) fn count_failure(&self, ctx: &Context, error: &Error) {
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

/// The header of a request is there.
fn begin(session: &mut Session) {
    if let Some(conn) = conn(session) {
        conn.begin(framing(session));
    }
    session.set_total_drain_timeout(Some(REST));
    if session.req_header().version < http::Version::HTTP_11 {
        // 1xx is unknown to it.
        session.set_ignore_info_resp(true);
    }
}

/// Answers what is no request. The connection ends with it.
async fn refuse_unread(session: &mut Session) {
    session.set_server_keepalive(None);
    if let Ok((head, body)) = Refusal::BadRequest.answer(None, None, |page| page) {
        // Who sends such a thing may not listen.
        let _ = say(session, head, body.as_bytes()).await;
    }
    if let Some(conn) = conn(session) {
        conn.over(false, 0);
    }
}

/// Says an answer that no release has given.
pub(crate) async fn say(session: &mut Session, head: ResponseHeader, body: &[u8]) -> Result<()> {
    session.write_response_header(Box::new(head)).await?;
    if !body.is_empty() {
        session.write_body(body).await?;
    }
    session.finish_body().await?;
    Ok(())
}

/// Whether the client can tell the end of its answer from its beginning.
fn is_framed(session: &Session) -> Framed {
    let shows = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let answer = session.response_written();
    match answer.is_some_and(|it| shows.iter().any(|name| it.headers.contains_key(name))) {
        true => Framed::Yes,
        false => Framed::No,
    }
}

/// The status that the client has got, if that is an answer.
fn status_of(session: &Session) -> Option<StatusCode> {
    let status = session.response_written()?.status;
    is_answer(status).then_some(status)
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
    session.get_headers_raw_bytes().len() + session.body_bytes_read()
}

/// The connection that a session runs on.
pub(crate) fn conn(session: &Session) -> Option<&Conn> {
    session.stream().as_any().downcast_ref()
}
