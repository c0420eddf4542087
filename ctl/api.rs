//! The shapes of the control API: what goes over the socket as JSON. A documented contract: fields
//! are added, never changed. Knows no handler and no client.

use std::net::SocketAddr;

use hotctl_config::names::{Digest, ReleaseId, ServiceName, Slot};
use hotctl_deploy::why::Why;
use serde::{Deserialize, Serialize};

/// The query of `PUT /v1/services/NAME/releases`; the body is the file, or a tar of the folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct PutQuery {
    /// What the body is.
    pub kind: UploadKind,
    /// The name of the file or folder.
    pub name: String,
}

/// What is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadKind {
    /// An executable file, as it is.
    File,
    /// A tar of a folder.
    Folder,
}

/// The answer to `PUT /v1/services/NAME/releases`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Put {
    /// The content's digest, to deploy it by.
    pub digest: Digest,
}

/// The body of `POST /v1/services/NAME/deployments`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// What `PUT …/releases` answered.
    pub digest: Digest,
    /// The file's arguments, or the folder's command.
    #[serde(default)]
    pub args: Vec<String>,
    /// Where it came from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Also if nothing changed.
    #[serde(default)]
    pub force: bool,
}

/// The body of an answer that is not 2xx.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, object first.
    pub error: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One line of the answer to an order: what has just happened. The last line is `summary`,
/// `unchanged`, `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// Another deployment of the service is under way; this order waits for its end.
    Queued {
        /// The candidate of the deployment under way.
        behind: ReleaseId,
    },
    /// The candidate's process is being started.
    Starting {
        /// The candidate.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
    },
    /// The candidate runs and is being probed.
    Started {
        /// The candidate.
        release: ReleaseId,
        /// Where it must listen.
        address: SocketAddr,
        /// Its process.
        pid: u32,
        /// From the order to here.
        took_ms: f64,
    },
    /// Not healthy yet. May be left out when the reader is slow.
    Waiting {
        /// The candidate.
        release: ReleaseId,
        /// What the last probe said.
        probe: String,
        /// Since the process was started.
        for_ms: f64,
    },
    /// The candidate has proved itself healthy.
    Healthy {
        /// The candidate.
        release: ReleaseId,
        /// Since the process was started.
        took_ms: f64,
        /// How many probes that took.
        probes: u32,
    },
    /// Every new request goes to the candidate.
    Flipped {
        /// The candidate.
        release: ReleaseId,
        /// From the order to flip until no request could pick the old pool.
        took_us: f64,
    },
    /// The old release still answers requests that it had begun.
    Draining {
        /// The old release.
        release: ReleaseId,
        /// How many.
        requests: usize,
    },
    /// The old release has no request any more, or its time is over.
    Drained {
        /// The old release.
        release: ReleaseId,
        /// Since the flip.
        took_ms: f64,
        /// How many were still open when `drain.requests` was over.
        open: usize,
    },
    /// Traffic was taken back from the candidate.
    Reverting {
        /// The candidate.
        release: ReleaseId,
        /// Why.
        why: Why,
    },
    /// The order is carried out: a deployment is live.
    Summary(Summary),
    /// Same content and arguments as what is live.
    Unchanged {
        /// What is live.
        release: ReleaseId,
    },
    /// An order without a deployment of its own is carried out: stop, a rollback while warm.
    Done {
        /// What is true now.
        text: String,
    },
    /// The order failed. What was live before is live still.
    Failed {
        /// The candidate, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseId>,
        /// What serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        live: Option<ReleaseId>,
        /// Why.
        why: Why,
    },
}

impl Progress {
    /// Whether it is the last line of an order.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Summary(_) | Self::Unchanged { .. } | Self::Done { .. } | Self::Failed { .. }
        )
    }
}

/// How a deployment went, once live. Times in milliseconds unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What is live now.
    pub release: ReleaseId,
    /// Counts the service's deployments.
    pub deployment: u32,
    /// Where it runs.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// From the order to the process running.
    pub start_ms: f64,
    /// From the process running to its first accepted connection; none if not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_ms: Option<f64>,
    /// From the process running to healthy.
    pub health_ms: f64,
    /// From the order to flip until no request could pick the old pool, in microseconds.
    pub flip_us: f64,
    /// From the order to the flip.
    pub live_ms: f64,
    /// From the flip to the old release's last answer; none if there was no old release or the
    /// command did not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<f64>,
    /// Requests of the old release still open when `drain.requests` was over.
    pub open: usize,
    /// From the order to here.
    pub total_ms: f64,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// hotctl's own version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// Since the daemon started.
    pub uptime_s: f64,
    /// Where requests are taken, ports resolved.
    pub listen: Vec<SocketAddr>,
    /// Where metrics are, if anywhere.
    pub admin: Option<SocketAddr>,
    /// The state folder.
    pub state: String,
    /// Every service, by name.
    pub services: Vec<ServiceStatus>,
}

/// One service.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// `serving`, `stopped` or `nothing_deployed`.
    pub state: String,
    /// Its hosts; empty = any.
    pub hosts: Vec<String>,
    /// Its path prefixes.
    pub paths: Vec<String>,
    /// What gets new requests.
    pub live: Option<RunningRelease>,
    /// Everything of it that runs, the live release too.
    pub running: Vec<RunningRelease>,
    /// What a rollback would go to.
    pub previous: Option<ReleaseId>,
    /// The deployment under way.
    pub deployment: Option<DeploymentStatus>,
}

/// A release that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningRelease {
    /// Which.
    pub release: ReleaseId,
    /// Where.
    pub slot: Slot,
    /// `live`, `candidate`, `warm` or `draining`.
    pub role: String,
    /// Its address.
    pub address: SocketAddr,
    /// The app's process; none while it is being started again.
    pub pid: Option<u32>,
    /// Since the process started.
    pub uptime_s: f64,
    /// Requests in flight.
    pub tickets: usize,
    /// What the last probe said: `healthy`, or why not.
    pub health: String,
    /// How often it died and was started again.
    pub restarts: u32,
}

/// A deployment under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Counts the service's deployments.
    pub number: u32,
    /// The candidate.
    pub to: ReleaseId,
    /// What was live.
    pub from: Option<ReleaseId>,
    /// `starting`, `step 0`, `warm`, `reverting`.
    pub phase: String,
    /// Since it began.
    pub age_s: f64,
}

/// One line of `GET /v1/services/NAME/releases`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseLine {
    /// Which.
    pub release: ReleaseId,
    /// Its content.
    pub digest: Digest,
    /// Where it came from.
    pub name: String,
    /// The arguments it was deployed with.
    pub args: Vec<String>,
    /// When it was deployed first, in milliseconds since 1970.
    pub created_ms: u64,
    /// `live`, `candidate`, `warm`, `draining`, `previous`, `stopped`; none if only stored.
    pub role: Option<String>,
}

/// The query of `DELETE /v1/services/NAME/deployments`; empty = whatever is under way or waits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CancelQuery {
    /// Only the deployment of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Only the order that waits.
    #[serde(default)]
    pub waiting: bool,
}

/// The query of `GET /v1/services/NAME/logs`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct LogsQuery {
    /// How many lines to begin with; default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<usize>,
    /// Go on as it is written.
    #[serde(default)]
    pub follow: bool,
    /// Only this release; default: what is live, across deploys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
}
