//! What a probe got instead of a healthy answer, as a value and in words. Pure.

use std::fmt;
use std::time::Duration;

use hotctl_config::units;
use serde::{Deserialize, Serialize};

use crate::process::Exit;

/// A probe that did not succeed. `Display` is one line: the request, then what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// What was asked, such as `GET 127.0.0.1:41207/up`, `connect 127.0.0.1:41207`, `NOTIFY_SOCKET`, or
    /// the command.
    pub request: String,
    /// What came of it.
    pub cause: Cause,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody listens there.
    Refused,
    /// It could not be connected for another reason, or the connection broke.
    Broken(String),
    /// The time for one probe was over.
    Timeout {
        /// That time.
        after: Duration,
        /// How far it had come.
        stage: Stage,
    },
    /// It stands in the socket that the process inherits, and the process did not take it in this
    /// time.
    NotAccepted(Duration),
    /// The connection was closed before a whole header came; how many bytes had come.
    Closed(usize),
    /// What came is not HTTP/1; its first bytes as text.
    NotHttp(String),
    /// The header is longer than is read: 64 KiB.
    TooLong,
    /// A whole answer that is not the one that is wanted.
    Status(Refusal),
    /// The process has not said yet that it is ready; what it says of itself instead.
    NotReady(Option<String>),
    /// The process lives, and has not for so long yet.
    TooYoung(Duration),
    /// The process has ended.
    Ended(Exit),
    /// The command did not answer with exit status 0.
    Exited {
        /// How it ended.
        exit: Exit,
        /// The end of what it wrote, as text.
        output: String,
    },
    /// The command did not end in time.
    Unfinished {
        /// That time.
        after: Duration,
        /// The end of what it wrote, as text.
        output: String,
    },
    /// The command could not be run, for this reason.
    NotRun(String),
    /// The status is good, but the text does not occur in the body.
    Body {
        /// The text that must occur.
        wanted: String,
        /// The answer.
        got: Refusal,
    },
}

/// How far a probe had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Connecting.
    Connect,
    /// Connected, and waiting for the whole header.
    Header,
    /// The header had come, the text in the body had not.
    Body,
}

/// An answer that was not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its status code.
    pub status: u16,
    /// The codes that are wanted, as they are configured.
    pub want: String,
    /// Headers that say something about it, names in lower case: `location`, `content-type`,
    /// `retry-after`, `www-authenticate`, `server`.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the body, as text.
    pub body: String,
}

impl Miss {
    /// Whether nothing of an answer came: it hangs, say. One that answers badly is not silent.
    pub fn is_silence(&self) -> bool {
        match &self.cause {
            Cause::Refused
            | Cause::Broken(_)
            | Cause::Timeout {
                stage: Stage::Connect | Stage::Header,
                ..
            }
            | Cause::NotAccepted(_)
            | Cause::Closed(0)
            | Cause::Ended(_)
            | Cause::Unfinished { .. } => true,
            Cause::Timeout {
                stage: Stage::Body, ..
            }
            | Cause::Closed(_)
            | Cause::NotHttp(_)
            | Cause::TooLong
            | Cause::Status(_)
            | Cause::NotReady(_)
            | Cause::TooYoung(_)
            | Cause::Exited { .. }
            | Cause::NotRun(_)
            | Cause::Body { .. } => false,
        }
    }

    /// What to do about it, if anything can be said.
    pub fn hint(&self) -> Option<String> {
        match &self.cause {
            Cause::Status(got) if (300..400).contains(&got.status) => {
                let to = got.header("location")?;
                Some(format!(
                    "point health.path at a page that answers by itself (this one goes to {to}), or allow the status in health.status"
                ))
            }
            Cause::Status(got) if matches!(got.status, 401 | 403) => Some(
                "point health.path at a page that needs no login, or allow the status in health.status".into(),
            ),
            Cause::Status(got) if matches!(got.status, 400 | 421) => {
                Some("it may want another host name: health.host sets it".into())
            }
            Cause::NotReady(_) => Some(
                r#"let the app send READY=1 to NOTIFY_SOCKET (sd_notify(3)), or set health.kind = "http""#.into(),
            ),
            Cause::NotRun(_) => Some("health.command is run in the folder of the process, with its PATH".into()),
            Cause::Unfinished { .. } => Some("health.timeout gives it more time".into()),
            Cause::NotHttp(_) => Some(r#"health.kind = "tcp" only connects"#.into()),
            Cause::Timeout { stage: Stage::Header, .. } => {
                Some("health.path should answer at once; health.timeout gives it more time".into())
            }
            _ => None,
        }
    }
}

impl Refusal {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = (300..400).contains(&self.status);
        for (name, value) in &self.headers {
            // Where a redirect leads has been said.
            if !(page && name == "location") {
                write!(f, "; {name} {value}")?;
            }
        }
        match self.body.as_str() {
            "" => Ok(()),
            body => write!(f, "; body {body:?}"),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.request)?;
        match &self.cause {
            Cause::Refused => f.write_str("connection refused"),
            Cause::Broken(why) => f.write_str(why),
            Cause::Timeout { after, stage } => {
                let after = units::brief(*after);
                match stage {
                    Stage::Connect => write!(f, "no connection within {after}"),
                    Stage::Header => write!(f, "connected, no answer within {after}"),
                    Stage::Body => write!(f, "answered, body not complete within {after}"),
                }
            }
            Cause::NotAccepted(after) => {
                write!(f, "connected, not accepted within {}", units::brief(*after))
            }
            Cause::Closed(0) => f.write_str("connection closed without an answer"),
            Cause::Closed(bytes) => {
                write!(
                    f,
                    "connection closed within the header, after {bytes} bytes"
                )
            }
            Cause::NotHttp(bytes) => write!(f, "not an HTTP/1 answer: {bytes:?}"),
            Cause::TooLong => f.write_str("header longer than 64 KiB"),
            Cause::Status(got) => {
                write!(f, "status {}", got.status)?;
                match got.header("location") {
                    Some(to) if (300..400).contains(&got.status) => write!(f, " to {to}")?,
                    _ => {}
                }
                write!(f, ", want {}", got.want)?;
                got.describe(f)
            }
            Cause::NotReady(None) => f.write_str("no READY=1 yet"),
            Cause::NotReady(Some(status)) => write!(f, "no READY=1 yet: {status}"),
            Cause::TooYoung(least) => {
                write!(f, "has not lived for {} yet", units::brief(*least))
            }
            Cause::Ended(exit) => write!(f, "the process has ended: {exit}"),
            Cause::Exited { exit, output } => {
                write!(f, "{exit}")?;
                quote(f, output)
            }
            Cause::Unfinished { after, output } => {
                write!(f, "not done within {}", units::brief(*after))?;
                quote(f, output)
            }
            Cause::NotRun(why) => write!(f, "cannot be run: {why}"),
            Cause::Body { wanted, got } => {
                write!(
                    f,
                    "status {}, but {wanted:?} is not in the body",
                    got.status
                )?;
                got.describe(f)
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, output: &str) -> fmt::Result {
    match output {
        "" => Ok(()),
        output => write!(f, ": {output:?}"),
    }
}

impl std::error::Error for Miss {}
