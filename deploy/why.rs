//! Why a deployment failed, as a value: it goes unchanged into the record, the API, the metrics
//! and the text that a person reads.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reason that a deployment did not end live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// Its class; the `reason` label of the metrics.
    pub kind: Kind,
    /// One sentence, object first, lower case, no full stop.
    pub text: String,
    /// What to do next, if anything can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines of the candidate's output; empty if it wrote none or has nothing to say here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

impl Why {
    /// A reason without remedy or output.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            hint: None,
            output: Vec::new(),
        }
    }

    /// The same with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The classes of reasons. A closed list: it is the label set of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WhyKind)]
pub enum Kind {
    /// The candidate's process ended by itself.
    Exited,
    /// It was not healthy within `start_timeout`.
    NotHealthy,
    /// It listens, but not where it was told to.
    WrongPort,
    /// The address answers, but what listens there is not the candidate.
    NotOwned,
    /// It could not be started at all: no such program, no permission, a text file busy.
    NotStarted,
    /// The command that runs before it failed.
    BeforeStart,
    /// It failed too many requests in a row, soon after it went live.
    RequestsFailed,
    /// No port was free.
    NoPort,
    /// The release is not in the store, or no longer whole.
    NoRelease,
    /// The state could not be written, so nothing was done.
    NotRecorded,
    /// An operator cancelled it.
    Cancelled,
    /// An operator rolled it back.
    RolledBack,
    /// A newer order took its place in the queue.
    Superseded,
    /// It cannot be done as things stand.
    Refused,
    /// Another one is under way, and the order was not to wait for it.
    Busy,
    /// The daemon ended while it was under way.
    Interrupted,
}

impl Kind {
    /// Every kind, so that a metric can exist before its first failure.
    pub const ALL: [Self; 16] = [
        Self::Exited,
        Self::NotHealthy,
        Self::WrongPort,
        Self::NotOwned,
        Self::NotStarted,
        Self::BeforeStart,
        Self::RequestsFailed,
        Self::NoPort,
        Self::NoRelease,
        Self::NotRecorded,
        Self::Cancelled,
        Self::RolledBack,
        Self::Superseded,
        Self::Refused,
        Self::Busy,
        Self::Interrupted,
    ];

    /// The label: `not_healthy`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::NotHealthy => "not_healthy",
            Self::WrongPort => "wrong_port",
            Self::NotOwned => "not_owned",
            Self::NotStarted => "not_started",
            Self::BeforeStart => "before_start",
            Self::RequestsFailed => "requests_failed",
            Self::NoPort => "no_port",
            Self::NoRelease => "no_release",
            Self::NotRecorded => "not_recorded",
            Self::Cancelled => "cancelled",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
