//! What commands answer in JSON beside the shapes of the control API. A documented contract, as
//! those are: fields are added, never changed.

use std::fmt;

use hotctl_config::names::{ReleaseId, ServiceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{LevelChanged, Logging, Progress};

/// What a command that fails prints as its last line on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What is wrong, object first.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit status.
    pub exit: u8,
}

/// `hotctl check --json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Checked {
    /// The file, which is good.
    pub file: String,
    /// The services it has.
    pub services: Vec<ServiceName>,
}

/// `hotctl init --json`, `hotctl man --out DIR --json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    /// The files.
    pub files: Vec<String>,
    /// With `init --from`: what of that file has no equivalent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmapped: Vec<Unmapped>,
}

/// What a configuration of another tool says, and hotctl has no equivalent for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unmapped {
    /// The file it stands in, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The setting, such as `build.poll`.
    pub field: String,
    /// Its value, as it would be written.
    pub value: String,
    /// Why there is none, and what there is instead.
    pub reason: String,
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            field,
            value,
            reason,
        } = self;
        write!(f, "{file}:{line}: {field} = {value}: {reason}")
    }
}

/// `hotctl version --json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Version {
    /// Of this program.
    pub version: String,
    /// Of the daemon; none if none was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<String>,
}

/// `hotctl log-level --json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Levels {
    /// Of the daemon's own log.
    Daemon(Logging),
    /// Of an app.
    Service(LevelChanged),
}

/// A line of `hotctl logs --json`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Whose output; none where the output of a service is followed from release to release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// The line, without its end.
    pub line: String,
}

/// A line of `hotctl watch --json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Watched {
    /// What becomes of a deployment.
    #[expect(
        dead_code,
        reason = "passed on as the daemon says it; named for the schema"
    )]
    Deployment(Progress),
    /// Of what is watched.
    Watch(WatchLine),
}

/// A line of `hotctl watch --json`, between the events of its deployments.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchLine {
    /// `watch_begins`, `watch_changed`, `watch_gone`, `watch_polls`, `watch_waits`, `watch_cannot`,
    /// `watch_explained`.
    pub event: &'static str,
    /// The same for people.
    pub text: String,
    /// What has changed, within what is watched; empty where that is a file.
    pub paths: Vec<String>,
}

/// `hotctl doctor --json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diagnosis {
    /// How many checks found something wrong.
    pub wrong: usize,
    /// Everything that was looked at.
    pub checks: Vec<Finding>,
}

/// One check of `hotctl doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// What was looked at, such as `listen` or `state`.
    pub check: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was found, object first.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Nothing is wrong, and something is worth knowing.
    Note,
    /// It will not work, or not for long.
    Wrong,
}
