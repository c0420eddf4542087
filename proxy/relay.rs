//! One try of a request: a connection to its release, the request there, the answer back.
//!
//! pingora reads and writes HTTP on both sides; who reads when, and what goes where, is here. Both directions
//! are in one task, so that a request costs no channel and no task of its own. Which header fields change is
//! not known here, nor when there is another try.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession as Client;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::conn::Conn;
use crate::context::Context;
use crate::desk;
use crate::headers;
use crate::hops::{self, MustClose, Protocol};
use crate::request::{Requests, conn};
use crate::retry::Alone;
use crate::upstream::Upstream;

/// How long nothing may come of the rest of a body, once the answer is out, before the connection is closed.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// What is left of a connection to a release when the answer is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The request was sent to its end, so it may be used again.
    Whole,
    Half,
}

impl Requests {
    /// Sends the request where its ticket is for, and its answer to the client. An error says whether there
    /// may be another try.
    pub(crate) async fn attempt(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let protocol = hops::protocol(session.req_header());
        let upstream = self.connect(session, ctx, protocol).await?;
        let mut upstream = Client::new(upstream);
        match self.exchange(session, &mut upstream, ctx, protocol).await {
            Ok(left) => {
                if left == Left::Whole && !ctx.followed && ctx.retry.is_alone() == Alone::No {
                    keep(upstream, ctx).await;
                }
                Ok(())
            }
            Err(error) => Err(self.failed(session, error, ctx)),
        }
    }

    /// A connection to the instance that the ticket is for: one that was kept, or a new one.
    async fn connect(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        protocol: Protocol,
    ) -> Result<Box<Upstream>> {
        ctx.upstream = None;
        // A body would have to be on its way before there is an answer, so then it is not followed.
        ctx.followed = protocol != Protocol::Same && session.is_body_empty();
        let Some(ticket) = &ctx.ticket else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let notes = ticket.notes();
        let kept = match ctx.retry.choose(notes) {
            Alone::No if !ctx.followed => notes.kept.take(ticket.instance()),
            Alone::No | Alone::Yes => None,
        };
        let is_kept = kept.is_some();
        let mut upstream = match kept {
            Some(upstream) => upstream,
            // In a box of its own: all others would else carry what it takes to connect.
            None => {
                let connecting = Upstream::connect(ticket.address(), self.timeouts.connect);
                match Box::pin(connecting).await {
                    Ok(upstream) => upstream,
                    Err(error) => return Err(self.unconnected(session, error.into_up(), ctx)),
                }
            }
        };
        if let Some(conn) = conn(session).filter(|_| ctx.followed) {
            upstream.follow(conn.line().clone());
        }
        if self.is_told() {
            ctx.sent = Instant::now();
        }
        match ctx.retry.connected(is_kept, &*upstream, notes) {
            Ok(()) => Ok(upstream),
            Err(_) => {
                let error = Error::new_up(ErrorType::ConnectionClosed);
                Err(self.failed(session, error, ctx))
            }
        }
    }

    /// The request in one direction and the answer in the other, until both are over.
    async fn exchange(
        &self,
        session: &mut Session,
        upstream: &mut Client,
        ctx: &mut Context,
        protocol: Protocol,
    ) -> Result<Left> {
        let request = self.request_header(session, ctx, protocol)?;
        let sent = upstream.write_request_header(Box::new(request)).await;
        sent.map_err(Error::into_up)?;
        let mut so_far = SoFar {
            asked: session.is_body_done(),
            ..SoFar::default()
        };
        if !session.is_body_empty() {
            // What an earlier try has read of the body, and what this one reads for a later one.
            let again = session.get_retry_buffer();
            session.enable_retry_buffering();
            if again.is_some() || so_far.asked {
                so_far.broken = send(upstream, again, so_far.asked).await.err();
            }
        }
        while !so_far.answered || !so_far.asked {
            match event(session, upstream, &so_far).await {
                Event::Answer(Ok(Part::Head)) => {
                    let switched = session.was_upgraded();
                    self.pass_head(session, upstream, &mut so_far, ctx).await?;
                    // What comes from the client then is no body of a request.
                    so_far.asked &= switched || !session.was_upgraded();
                }
                Event::Answer(Ok(Part::Body(bytes))) => {
                    pass_body(session, Some(bytes), ctx).await?;
                }
                Event::Answer(Ok(Part::End)) => {
                    pass_body(session, None, ctx).await?;
                    so_far.answered = true;
                }
                Event::Answer(Err(error)) => {
                    return Err(so_far.broken.unwrap_or(error).into_up());
                }
                Event::Request(Ok(body)) => {
                    so_far.asked = body.is_none() || session.is_body_done();
                    if session.was_upgraded() {
                        upstream.maybe_upgrade_body_writer();
                        // Each side ends both.
                        so_far.answered |= so_far.asked;
                    }
                    so_far.broken = send(upstream, body, so_far.asked).await.err();
                }
                // It has all that it is to have.
                Event::Request(Err(_)) if so_far.answered => return Ok(Left::Half),
                Event::Request(Err(error)) => return Err(error.into_down()),
            }
            if so_far.answered {
                finish(session).await?;
                // Nobody reads the rest of a request that cannot be sent, nor after a switch.
                so_far.asked |= so_far.broken.is_some() || session.was_upgraded();
                if !so_far.asked && ctx.took.is_none() {
                    ctx.took = Some(ctx.begun.elapsed());
                }
            }
        }
        Ok(match so_far.broken {
            None => Left::Whole,
            Some(_) => Left::Half,
        })
    }

    /// The header that the release gets.
    fn request_header(
        &self,
        session: &mut Session,
        ctx: &Context,
        protocol: Protocol,
    ) -> Result<RequestHeader> {
        let mut request = headers::copy(session.req_header())?;
        request.set_version(Version::HTTP_11);
        hops::strip(&mut request, protocol).map_err(Error::into_down)?;
        headers::forward(&mut request, &self.sender(session, ctx))?;
        if self.desk.is_some() {
            desk::ask(&mut request);
        }
        if ctx.retry.is_alone() == Alone::Yes && protocol == Protocol::Same {
            request.insert_header(header::CONNECTION, "close")?;
        }
        if !request.headers.contains_key(header::HOST) {
            // HTTP/1.0 needs none, but what the release gets is HTTP/1.1.
            request.insert_header(header::HOST, "localhost")?;
        }
        if !session.is_body_empty() && !request.headers.contains_key(header::CONTENT_LENGTH) {
            request.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        Ok(request)
    }

    /// Gives the header that has come to the client.
    async fn pass_head(
        &self,
        session: &mut Session,
        upstream: &mut Client,
        so_far: &mut SoFar,
        ctx: &mut Context,
    ) -> Result<()> {
        let end = upstream.is_body_done();
        let Some(answer) = upstream.resp_header() else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let mut answer = Box::new(answer.clone());
        self.answer_header(session, upstream, &mut answer, end, ctx)?;
        let is_last = is_answer(answer.status);
        let goes_on = session.will_keepalive();
        let written = session.write_response_header(answer).await;
        written.map_err(Error::into_down)?;
        if !is_last && goes_on {
            // pingora takes it for an answer that comes before the end of its request.
            session.set_server_keepalive(Some(0));
        }
        (so_far.headed, so_far.answered) = (is_last, end);
        Ok(())
    }

    /// Reads the header of an answer, and makes of it what the client gets. `end`: there is no body.
    fn answer_header(
        &self,
        session: &mut Session,
        upstream: &Client,
        answer: &mut ResponseHeader,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        self.heard(session, answer, ctx);
        let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !(session.is_upgrade_req() && upstream.is_upgrade_req()) {
            return Err(Error::explain(
                ErrorType::InvalidHTTPHeader,
                "the release switches protocols, which it was not asked to",
            )
            .into_up());
        }
        if !end
            && !answer.status.is_informational()
            && !answer.headers.contains_key(header::TRANSFER_ENCODING)
            && !answer.headers.contains_key(header::CONTENT_LENGTH)
        {
            // It ends with its connection, which the client's need not.
            answer.set_version(Version::HTTP_11);
            answer.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        if switches {
            // It may be silent for as long as it likes.
            session.set_read_timeout(None);
        }
        ctx.page = self.page(session, answer, ctx).map(Box::new);
        let must_close = hops::strip_answer(session.req_header(), answer);
        if must_close == MustClose::Yes || conn(session).is_some_and(Conn::closing) {
            session.set_server_keepalive(None);
        }
        Ok(())
    }

    /// What the header of an answer says about the release, and about the request.
    fn heard(&self, session: &Session, answer: &ResponseHeader, ctx: &mut Context) {
        // A 1xx is not the answer, but it shows that the request was received.
        if let Some(ticket) = &ctx.ticket {
            ctx.retry.answered(ticket.notes());
            if hops::promises(answer) {
                ticket.notes().promised();
            }
            if let Some(keep_alive) = answer.headers.get("keep-alive") {
                ticket.notes().hear(keep_alive.as_bytes());
            }
        }
        let status = answer.status;
        if !is_answer(status) {
            return;
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
    }

    /// There is no connection.
    fn unconnected(
        &self,
        session: &Session,
        mut error: Box<Error>,
        ctx: &mut Context,
    ) -> Box<Error> {
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

    /// There was one, and it failed, or the client's did.
    fn failed(&self, session: &Session, mut error: Box<Error>, ctx: &mut Context) -> Box<Error> {
        if *error.esource() != ErrorSource::Upstream {
            error.set_retry(false);
            return error;
        }
        let whole = !session.retry_buffer_truncated();
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
}

/// How far an exchange is.
#[derive(Default)]
struct SoFar {
    /// All of the request was read from the client, of whom nothing more is wanted than to see it leave.
    asked: bool,
    /// The header of the answer is out.
    headed: bool,
    /// All of the answer is.
    answered: bool,
    /// Why no more of the request can be sent. There may still be an answer.
    broken: Option<Box<Error>>,
}

/// What happens on one of the two sides.
enum Event<'a> {
    Answer(Result<Part<'a>>),
    Request(Result<Option<Bytes>>),
}

/// What comes from a release.
enum Part<'a> {
    Head,
    Body(&'a [u8]),
    End,
}

/// What happens next. It can be given up at any time, and nothing is lost.
async fn event<'a>(session: &mut Session, upstream: &'a mut Client, so_far: &SoFar) -> Event<'a> {
    let client = session.read_body_or_idle(so_far.asked);
    if so_far.answered {
        let rest = tokio::time::timeout(REST, client).await;
        return Event::Request(
            rest.unwrap_or_else(|_| Err(Error::new_down(ErrorType::ReadTimedout))),
        );
    }
    let answer = next(upstream, so_far);
    let is_heard = so_far.broken.is_none();
    if so_far.asked {
        tokio::select! {
            biased;
            part = answer => Event::Answer(part),
            body = client, if is_heard => Event::Request(body),
        }
    } else {
        // Whoever has much to say must not keep the other from speaking.
        tokio::select! {
            part = answer => Event::Answer(part),
            body = client, if is_heard => Event::Request(body),
        }
    }
}

async fn next<'a>(upstream: &'a mut Client, so_far: &SoFar) -> Result<Part<'a>> {
    if !so_far.headed {
        upstream.read_response().await?;
        return Ok(Part::Head);
    }
    let body = upstream.read_body_ref().await?;
    Ok(body.map_or(Part::End, Part::Body))
}

/// Whether this is the status of an answer, and not of what comes before one.
pub(crate) fn is_answer(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Gives to the client what has come of the answer's body; nothing: that was all of it.
async fn pass_body(session: &mut Session, bytes: Option<&[u8]>, ctx: &mut Context) -> Result<()> {
    let Some(page) = &mut ctx.page else {
        return write(session, bytes.unwrap_or_default()).await;
    };
    let mut body = bytes.map(Bytes::copy_from_slice);
    page.pass(&mut body, bytes.is_none());
    write(session, &body.unwrap_or_default()).await
}

async fn write(session: &mut Session, bytes: &[u8]) -> Result<()> {
    // None at all would end a body in chunks.
    if !bytes.is_empty() {
        session.write_body(bytes).await.map_err(Error::into_down)?;
    }
    Ok(())
}

/// Sends some of a request's body. `end`: it is the last of it.
async fn send(upstream: &mut Client, body: Option<Bytes>, end: bool) -> Result<()> {
    if let Some(body) = body.filter(|body| !body.is_empty()) {
        upstream.write_body(&body).await.map_err(Error::into_up)?;
    }
    if end {
        upstream.finish_body().await.map_err(Error::into_up)?;
    }
    Ok(())
}

/// The answer is over.
async fn finish(session: &mut Session) -> Result<()> {
    session.finish_body().await.map_err(Error::into_down)?;
    Ok(())
}

/// Puts a connection by for the next request, if the release wants to go on with it.
async fn keep(mut upstream: Client, ctx: &Context) {
    upstream.respect_keepalive();
    if let Some(ticket) = &ctx.ticket
        && let Some(stream) = upstream.reuse().await
        && let Ok(upstream) = stream.into_any().downcast::<Upstream>()
    {
        let notes = ticket.notes();
        notes.kept.put(upstream, ticket.instance(), notes.idle());
    }
}
