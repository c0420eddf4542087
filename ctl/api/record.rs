//! The shape of a deployment's record: what `hotctl history` lists and `hotctl show` shows.

use std::fmt;

use hotctl_config::names::{ReleaseId, ServiceName};
use hotctl_deploy::why::Why;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::events::Summary;
use crate::who::Giver;

/// One deployment, from its order to its end. Times of day are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentRecord {
    /// Counts the service's deployments.
    pub number: u32,
    /// The service.
    pub service: ServiceName,
    /// What was asked for.
    pub verb: Verb,
    /// Who asked, and by which way.
    #[serde(flatten)]
    pub by: Giver,
    /// When it was ordered.
    pub ordered_ms: u64,
    /// When its turn came; none if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When nothing more could become of it; none as long as it waits, runs, or keeps the old
    /// release warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// What was live when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ReleaseId>,
    /// Its candidate.
    pub to: ReleaseId,
    /// The phases it went through, in order; the last may be going on.
    pub phases: Vec<PhaseTook>,
    /// What has become of it.
    pub result: Outcome,
    /// Why it is not live; none if it is, or may still become so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Its figures, once it was live and the old release had given its last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Make new content live.
    Deploy,
    /// Go back to an earlier release.
    Rollback,
    /// Start what was stopped.
    Start,
    /// The same release in fresh processes.
    Restart,
    /// Take it out of service. Never a deployment of its own.
    Stop,
    /// End a deployment. Never one of its own.
    Cancel,
    /// Let requests wait. Never a deployment of its own.
    Pause,
    /// End a pause. Never one of its own.
    Resume,
    /// Begin or end maintenance. Never one of its own.
    Maintenance,
}

/// A phase that a deployment went through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PhaseTook {
    /// `stopping`, `starting`, `step`, `warm` or `reverting`.
    pub phase: String,
    /// When it began.
    pub began_ms: u64,
    /// How long it took; none as long as it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
}

/// What has become of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It waits for its turn.
    Queued,
    /// It runs and is not live yet.
    UnderWay,
    /// It went live.
    Live,
    /// It did not, and what was live was not touched.
    Failed,
    /// A newer order took its place before its turn came.
    Superseded,
    /// Somebody cancelled it before it was live.
    Cancelled,
    /// It went live, and traffic went back while the old release was warm.
    FlippedBack,
    /// The daemon ended before it did.
    Interrupted,
    /// When its turn came, what it asked for was live already.
    Unchanged,
}

/// The query of `GET /v1/services/NAME/deployments`.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How many, newest first; default: all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Maintenance => "maintenance",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::UnderWay => "under way",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::FlippedBack => "flipped back",
            Self::Interrupted => "interrupted",
            Self::Unchanged => "unchanged",
        })
    }
}
