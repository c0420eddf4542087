//! What an operator has put between requests and a service: nothing, a pause, a notice. Pure.

use serde::{Deserialize, Serialize};

/// What happens to requests, whatever runs behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// They go to what is live.
    #[default]
    Open,
    /// They wait, within the bounds of the park.
    Paused {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
    /// They are answered with this.
    Maintenance {
        /// What clients see.
        notice: Notice,
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
}

/// What clients see of a service that is being worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// That it is.
    #[default]
    Plain,
    /// A sentence.
    Message(String),
    /// A whole page of HTML.
    Page(String),
}

impl Gate {
    /// Whether requests go to what is live.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}
