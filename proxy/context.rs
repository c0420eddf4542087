//! What is remembered of one request while it is under way, and what it says about its release.
//!
//! Knows nothing of the order in which things happen; that is `request`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorSource, ErrorType};

use crate::answer::Refusal;
use crate::desk::Passing;
use crate::metrics::Meter;
use crate::pool::{Ticket, Tried};
use crate::retry::{Another, Retry};
use crate::split::Notice;

/// One request.
pub(crate) struct Context {
    pub(crate) begun: Instant,
    /// Thrown once, so that a request keeps its side of a split over its tries.
    pub(crate) roll: u8,
    /// The same over all tries.
    pub(crate) id: u128,
    pub(crate) ticket: Option<Ticket>,
    /// Where tries have failed.
    pub(crate) tried: Tried,
    verdict: Verdict,
    /// Whether both sides are followed frame by frame, should it become a WebSocket.
    pub(crate) followed: bool,
    /// How many tries there were after the first.
    pub(crate) retries: u32,
    /// When the last try was sent, and how long its answer's header took.
    pub(crate) sent: Instant,
    pub(crate) upstream: Option<Duration>,
    /// How long it took to the end of its answer, where the request went on after that.
    pub(crate) took: Option<Duration>,
    /// The service's metrics, where there is no ticket that has them.
    pub(crate) meter: Option<Arc<Meter>>,
    pub(crate) refusal: Option<Refusal>,
    /// What an operator wants said with the refusal.
    pub(crate) notice: Option<Arc<Notice>>,
    /// What the body of its answer goes through.
    pub(crate) page: Option<Box<Passing>>,
    pub(crate) retry: Retry,
}

/// What this request has said about its release so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// That it cannot be reached; which an answer can still take back.
    Doubt,
    /// Its last word.
    Given,
}

/// How long a request may fail to connect until that is held against the release. It is tried for
/// longer; but whoever can help should know early, and a release that opens its socket again within
/// the time has done nothing wrong.
const DOUBT: Duration = Duration::from_millis(500);

impl Context {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            roll: fastrand::u8(0..100),
            id: fastrand::u128(..),
            ticket: None,
            tried: Tried::default(),
            verdict: Verdict::Nothing,
            followed: false,
            retries: 0,
            sent: now,
            upstream: None,
            took: None,
            meter: None,
            refusal: None,
            notice: None,
            page: None,
            retry: Retry::default(),
        }
    }

    /// It is given to a release, or to another instance, or to the same again.
    pub(crate) fn go_to(&mut self, ticket: Ticket) {
        let before = self.ticket.as_ref().map(Ticket::group_key);
        if before.is_some_and(|it| it != ticket.group_key()) {
            // What was said about the one before is not about this one.
            self.verdict = Verdict::Nothing;
        }
        self.ticket = Some(ticket);
    }

    /// It waits until something serves again: whatever was tried before is over, and its ticket goes
    /// back.
    pub(crate) fn park(&mut self) {
        self.ticket = None;
        self.verdict = Verdict::Nothing;
        self.retry.begin_anew();
    }

    /// A try has failed where the ticket is for. Says whether there is another instance to try.
    pub(crate) fn failed_there(&mut self, session: &Session, error: &Error) -> Another {
        let Some(ticket) = &self.ticket else {
            return Another::No;
        };
        let before = self.tried;
        self.tried.add(ticket);
        if !ticket.has_untried(&self.tried) {
            return Another::No;
        }
        if !before.has(ticket) {
            let streaks = &ticket.notes().streaks;
            streaks.instance_failed(ticket.instance(), &in_words(session, error));
        }
        Another::Yes
    }

    /// It cannot connect, and is tried again.
    pub(crate) fn doubt(&mut self, session: &Session, error: &Error) {
        if self.retry.has_failed_for() >= DOUBT && self.verdict == Verdict::Nothing {
            self.hold_against(&in_words(session, error));
            self.verdict = Verdict::Doubt;
        }
    }

    /// It has failed for good.
    pub(crate) fn failed(&mut self, session: &Session, error: &Error) {
        if self.verdict != Verdict::Given {
            self.judge(&in_words(session, error));
        }
    }

    /// Holds it against the release, once.
    pub(crate) fn judge(&mut self, what: &str) {
        if self.verdict == Verdict::Nothing {
            self.hold_against(what);
        }
        self.verdict = Verdict::Given;
    }

    /// It got a usable answer, unless something else was said before.
    pub(crate) fn went_well(&mut self) {
        if self.verdict != Verdict::Given
            && let Some(ticket) = &self.ticket
        {
            ticket.notes().streaks.well(ticket.instance());
        }
        self.verdict = Verdict::Given;
    }

    fn hold_against(&self, what: &str) {
        if let Some(ticket) = &self.ticket {
            let streaks = &ticket.notes().streaks;
            streaks.pool.failed(what);
            streaks.instance_failed(ticket.instance(), what);
        }
    }
}

/// A failure as people say it.
fn in_words(session: &Session, error: &Error) -> String {
    use ErrorType as E;
    let what = match error.etype() {
        E::ConnectRefused => "connect refused",
        E::ConnectTimedout => "connect timed out",
        _ => match refusal(error) {
            Some(Refusal::ConnectFailed) => "connect failed",
            Some(Refusal::UpstreamInvalid) => "the answer is not HTTP",
            _ => "connection closed before the end of the answer",
        },
    };
    let request = session.req_header();
    format!("{} {}: {what}", request.method, request.uri.path())
}

/// What to tell a client of an error; nothing, if it was the client who left.
pub(crate) fn refusal(error: &Error) -> Option<Refusal> {
    use ErrorType as E;
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            E::ReadTimedout => Some(Refusal::RequestTimeout),
            E::InvalidHTTPHeader | E::HTTPStatus(_) => Some(Refusal::BadRequest),
            // What pingora says of chunks that are none; the names of these are not public.
            E::Custom("InvalidChunk" | "InvalidTrailerEnd") => Some(Refusal::BadRequest),
            _ => None,
        },
        ErrorSource::Upstream => Some(match error.etype() {
            E::ConnectTimedout => Refusal::ConnectTimeout,
            E::ConnectRefused
            | E::ConnectNoRoute
            | E::ConnectError
            | E::BindError
            | E::SocketError => Refusal::ConnectFailed,
            E::InvalidHTTPHeader | E::H1Error => Refusal::UpstreamInvalid,
            _ => Refusal::UpstreamClosed,
        }),
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Internal),
    }
}
