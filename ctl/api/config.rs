//! The shapes of a reload, of an upgrade and of the log level: what is asked for, and what came of it.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use hotctl_config::names::{ReleaseId, ServiceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `POST /v1/reload`, which may be left out.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to `POST /v1/reload`: the configuration was read, and is in force unless it was a dry
/// run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The file that was read.
    pub file: String,
    /// The revision that is in force; counts the configurations since the daemon started, from 1.
    pub revision: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What differs from what was in force before.
    pub changes: Vec<ConfigChange>,
    /// What else there is to know, such as a service whose state cannot be read.
    pub notes: Vec<String>,
}

/// The body of `POST /v1/upgrade`, which may be left out.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// The program that is to take over, as an absolute path; left out: the file that the daemon was
    /// started from, as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub binary: Option<PathBuf>,
}

/// The answer to `POST /v1/upgrade`: another process serves now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upgraded {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How much the daemon writes of what happens; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What failed and should not have.
    Error,
    /// And what may need somebody.
    Warn,
    /// And what happens to services and to hotctl itself.
    Info,
    /// And each request, and what goes wrong without harm.
    Debug,
    /// And what the libraries say.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// The body of `PUT /v1/log-level`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevelRequest {
    /// How much is to be written, until the daemon ends or is upgraded.
    pub level: LogLevel,
}

/// The answer to `GET` and `PUT /v1/log-level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Logging {
    /// How much is written now.
    pub level: LogLevel,
    /// How much it was before the request.
    pub before: LogLevel,
}

/// The body of `PUT /v1/services/NAME/log-level`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceLevelRequest {
    /// The level, in the app's own words: 1 to 64 letters, digits and `-_.:=,`. A signal names none.
    #[schema(pattern = "^[A-Za-z0-9_.:=,-]{1,64}$")]
    pub level: String,
}

/// The answer to `PUT /v1/services/NAME/log-level`: every process that is live was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LevelChanged {
    /// The service.
    pub service: ServiceName,
    /// The level that was asked for.
    pub level: String,
    /// The signal that was sent, such as `USR1`. It does not say the level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The request that was sent instead, as method and path without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Those who were told; never empty.
    pub processes: Vec<ToldProcess>,
}

/// A process that was told another log level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToldProcess {
    /// Of which release.
    pub release: ReleaseId,
    /// Which of its instances, from 0.
    pub instance: usize,
    /// Its number.
    pub pid: u32,
    /// The status that it answered; none where it was sent a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChange {
    /// What has become of it.
    pub what: What,
    /// The service; none where it concerns the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The field, such as `health.path`; none where it is the service as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What it was; left out where it may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is; left out where it may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// From when on it counts.
    pub effect: Effect,
}

/// What has become of a part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A service is there that was not.
    Added,
    /// A service is not there any more.
    Removed,
    /// A field has another value.
    Changed,
}

/// From when on a change counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At once.
    Now,
    /// With the next deploy of the service.
    NextDeploy,
    /// With the next deploy or restart of the service, or where a process is started again.
    NextStart,
    /// When hotctl itself is upgraded or started again.
    Restart,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (&self.service, &self.field) {
            (Some(service), Some(field)) => format!("{service}.{field}"),
            (Some(service), None) => service.to_string(),
            (None, field) => field.clone().unwrap_or_default(),
        };
        write!(f, "{name}: ")?;
        match (self.what, &self.from, &self.to) {
            (What::Added, ..) => f.write_str("added")?,
            (What::Removed, ..) => f.write_str(
                "removed: what it has begun is finished, then it is stopped; its state is kept",
            )?,
            (What::Changed, Some(from), Some(to)) => write!(f, "{from} -> {to}")?,
            (What::Changed, ..) => f.write_str("changed")?,
        }
        let service = self.service.as_ref().map_or("", ServiceName::as_str);
        match self.effect {
            Effect::Now => Ok(()),
            Effect::NextDeploy => write!(f, "; takes effect with the next deploy of {service}"),
            Effect::NextStart => {
                write!(
                    f,
                    "; takes effect with the next deploy or restart of {service}"
                )
            }
            Effect::Restart => {
                f.write_str("; takes effect when hotctl is upgraded or started again")
            }
        }
    }
}
