//! The answers that hotctl gives itself, since no release can. Pure.
//!
//! The reasons are a documented contract: they stand in the header `x-hotctl-error`, in the body,
//! and as `kind` in the metrics.

use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::split::{Closed, Notice};

/// Why hotctl answers instead of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoRoute,
    NothingDeployed,
    Stopped,
    NotRunning,
    StateDamaged,
    CrashLoop,
    Maintenance,
    ParkFull,
    ParkTimeout,
    ConnectFailed,
    ConnectTimeout,
    UpstreamClosed,
    UpstreamInvalid,
    BadRequest,
    MethodNotAllowed,
    RequestTimeout,
    Internal,
}

impl From<&Closed> for Refusal {
    fn from(closed: &Closed) -> Self {
        match closed {
            Closed::NothingDeployed => Self::NothingDeployed,
            Closed::Stopped => Self::Stopped,
            Closed::NotRunning => Self::NotRunning,
            Closed::StateDamaged => Self::StateDamaged,
            Closed::CrashLoop => Self::CrashLoop,
            Closed::Maintenance(_) => Self::Maintenance,
        }
    }
}

impl Refusal {
    /// Those that a release can cause.
    pub(crate) const OF_RELEASES: [Self; 4] = [
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamClosed,
        Self::UpstreamInvalid,
    ];

    /// Status, reason, and a sentence for people.
    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NoRoute => (404, "no_route", "No service has this host and path."),
            Self::NothingDeployed => (
                503,
                "nothing_deployed",
                "Nothing has been deployed for this service yet.",
            ),
            Self::Stopped => (503, "stopped", "This service is stopped."),
            Self::NotRunning => (503, "not_running", "This service could not be started."),
            Self::StateDamaged => (
                503,
                "state_damaged",
                "What is known of this service cannot be read.",
            ),
            Self::CrashLoop => (
                503,
                "crash_loop",
                "This service ends again and again. It will be tried again.",
            ),
            Self::Maintenance => (503, "maintenance", "This service is being worked on."),
            Self::ParkFull => (
                503,
                "park_full",
                "This service is away for a moment, and too many wait for it already.",
            ),
            Self::ParkTimeout => (
                503,
                "park_timeout",
                "This service was away for longer than a request waits.",
            ),
            Self::ConnectFailed => (502, "connect_failed", "The service cannot be reached."),
            Self::ConnectTimeout => (
                504,
                "connect_timeout",
                "The service does not accept connections.",
            ),
            Self::UpstreamClosed => (
                502,
                "upstream_closed",
                "The service closed the connection before it had answered.",
            ),
            Self::UpstreamInvalid => (
                502,
                "upstream_invalid",
                "The service gave an answer that is not HTTP.",
            ),
            Self::BadRequest => (400, "bad_request", "The request is not valid HTTP."),
            Self::MethodNotAllowed => (
                405,
                "method_not_allowed",
                "Requests of this method are not served here.",
            ),
            Self::RequestTimeout => (
                408,
                "request_timeout",
                "The rest of the request did not arrive in time.",
            ),
            Self::Internal => (500, "internal", "The request could not be passed on."),
        }
    }

    pub(crate) fn status(self) -> u16 {
        self.parts().0
    }

    /// As in the header and in metrics.
    pub(crate) fn reason(self) -> &'static str {
        self.parts().1
    }

    /// In how many seconds it may be otherwise, where that can be said.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::ParkFull | Self::ParkTimeout => Some(5),
            // The longest pause between two starts.
            Self::CrashLoop => Some(30),
            Self::Maintenance => Some(60),
            _ => None,
        }
    }

    /// The answer for a client that accepts this, with its body; `notice` is what an operator wants
    /// said instead of our own sentence. A page of HTML goes through `page`.
    pub(crate) fn answer(
        self,
        accept: Option<&[u8]>,
        notice: Option<&Notice>,
        page: impl FnOnce(String) -> String,
    ) -> Result<(ResponseHeader, String)> {
        let (status, reason, own) = self.parts();
        let sentence = match notice {
            Some(Notice::Message(message)) => message,
            Some(Notice::Plain | Notice::Page(_)) | None => own,
        };
        let phrase = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        let (kind, body) = match wants_json(accept.unwrap_or_default()) {
            true => (
                "application/json",
                format!(
                    "{{\"status\":{status},\"error\":\"{reason}\",\"message\":{}}}\n",
                    serde_json::Value::from(sentence)
                ),
            ),
            false => (
                "text/html; charset=utf-8",
                page(match notice {
                    Some(Notice::Page(own)) => own.clone(),
                    Some(Notice::Plain | Notice::Message(_)) | None => format!(
                        "<!doctype html>\n<title>{status} {phrase}</title>\n<h1>{status} {phrase}</h1>\n<p>{}</p>\n<p><small>hotctl: {reason}</small></p>\n",
                        as_html(sentence)
                    ),
                }),
            ),
        };
        let mut header = ResponseHeader::build(status, Some(7))?;
        header.insert_header(header::CONTENT_TYPE, kind)?;
        header.insert_header(header::CONTENT_LENGTH, body.len())?;
        header.insert_header(header::CACHE_CONTROL, "no-store")?;
        header.insert_header("X-Hotctl-Error", reason)?;
        if let Some(seconds) = self.retry_after() {
            header.insert_header(header::RETRY_AFTER, seconds)?;
        }
        Ok((header, body))
    }
}

/// Text as HTML shows it, whatever is in it.
fn as_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// JSON where a client names it, and does not name HTML before it, as browsers do.
fn wants_json(accept: &[u8]) -> bool {
    let position = |kind: &[u8]| {
        accept
            .windows(kind.len())
            .position(|window| window.eq_ignore_ascii_case(kind))
    };
    let json = match (position(b"application/json"), position(b"+json")) {
        (Some(plain), Some(suffix)) => Some(plain.min(suffix)),
        (plain, suffix) => plain.or(suffix),
    };
    match (json, position(b"text/html")) {
        (Some(json), Some(html)) => json < html,
        (json, _) => json.is_some(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_an_operator_says_is_shown_as_text_and_a_page_as_it_is() {
        let say = |accept: &str, notice: &Notice| {
            let answer =
                Refusal::Maintenance.answer(Some(accept.as_bytes()), Some(notice), |it| it);
            answer.unwrap().1
        };
        let message = Notice::Message("back at <b>8</b> & \"sharp\"".into());
        assert!(
            say("text/html", &message).contains("back at &lt;b&gt;8&lt;/b&gt; &amp; \"sharp\"")
        );
        let json: serde_json::Value =
            serde_json::from_str(&say("application/json", &message)).unwrap();
        assert_eq!(json["message"], "back at <b>8</b> & \"sharp\"");
        let page = Notice::Page("<h1>soon</h1>".into());
        assert_eq!(say("*/*", &page), "<h1>soon</h1>");
        assert!(say("application/json", &page).contains("maintenance"));
    }

    #[test]
    fn json_is_for_those_who_name_it_first() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("application/json", true),
            ("Application/JSON, text/plain, */*", true),
            ("application/problem+json", true),
            (
                "text/html,application/xhtml+xml,application/json;q=0.1",
                false,
            ),
            ("application/json, text/html", true),
        ] {
            assert_eq!(wants_json(accept.as_bytes()), json, "{accept}");
        }
    }
}
