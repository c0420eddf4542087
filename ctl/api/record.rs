//! The words of a deployment's record.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
}
