//! The shapes of the control API: what goes over the socket as JSON. A documented contract: fields
//! are added, never changed. Knows no handler and no client.

mod config;
mod events;
mod record;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hotctl_config::names::{Digest, ReleaseId, ServiceName, Slot};
use hotctl_config::{Address, PortName};
use hotctl_deploy::diagnosis::Diagnosis;
use hotctl_deploy::why::Why;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use config::{
    ConfigChange, Effect, LevelChanged, LogLevel, LogLevelRequest, Logging, ReloadRequest,
    Reloaded, ServiceLevelRequest, ToldProcess, UpgradeRequest, Upgraded, What,
};
pub use events::{EventLine, EventsQuery, Missing, Noted, NumberedEvent, Progress, Summary};
pub use record::{DeploymentRecord, HistoryQuery, Outcome, PhaseTook, Verb};

/// The query of `PUT /v1/services/NAME/releases`; the body is the file, or a tar of the folder.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutQuery {
    /// What the body is.
    pub kind: UploadKind,
    /// The name of the file or folder.
    pub name: String,
}

/// What is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadKind {
    /// An executable file, as it is.
    File,
    /// A tar of a folder.
    Folder,
}

/// The answer to `PUT /v1/services/NAME/releases`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Put {
    /// The content's digest, to deploy it by.
    pub digest: Digest,
}

/// The body of `POST /v1/services/NAME/deployments`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
    /// Refuse rather than wait for a deployment that is under way.
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of `POST /v1/services/NAME/rollback`, which may be left out.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The number of the release to go to; default: the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Refuse rather than wait for a deployment that is under way.
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of `POST /v1/services/NAME/restart`, `…/start` and `…/stop`, which may be left out.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// Refuse rather than wait for a deployment that is under way.
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of an answer that is not 2xx.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// What is wrong, object first.
    pub error: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Requests in flight, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct OpenRequests {
    /// Ordinary requests.
    pub requests: usize,
    /// WebSockets.
    pub websockets: usize,
    /// Event streams and other answers without a length.
    pub streams: usize,
}

impl From<hotctl_proxy::Open> for OpenRequests {
    fn from(open: hotctl_proxy::Open) -> Self {
        Self {
            requests: open.requests,
            websockets: open.websockets,
            streams: open.streams,
        }
    }
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// hotctl's own version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// Since the daemon started.
    pub uptime_s: f64,
    /// Where requests are taken, ports resolved.
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    /// Where metrics are, if anywhere.
    #[schema(value_type = Option<String>)]
    pub admin: Option<SocketAddr>,
    /// The state folder.
    pub state: String,
    /// Every service, by name.
    pub services: Vec<ServiceStatus>,
}

/// One service.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// `serving`, `paused`, `maintenance`, `parked` (requests wait, as nothing can serve them for a moment), `stopped`,
    /// `nothing_deployed`, `failed` (its live processes end again and again), `down`
    /// (what should be live could not be started) or `damaged` (its state cannot be read).
    pub state: String,
    /// Whether it takes requests; what does not is a worker.
    #[serde(default = "yes")]
    pub http: bool,
    /// Its hosts; empty = any.
    pub hosts: Vec<String>,
    /// Its path prefixes; none of a worker.
    pub paths: Vec<String>,
    /// What of a folder is no part of a release, as patterns of `.gitignore`: whoever packs one leaves
    /// that out.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Of a damaged service: what is wrong with its state, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Refusal>,
    /// What an operator has put between requests and the service, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,
    /// Requests that wait because nothing can serve them for a moment.
    #[serde(default)]
    pub parked: usize,
    /// What gets new requests.
    pub live: Option<RunningRelease>,
    /// Everything of it that runs, the live release too.
    pub running: Vec<RunningRelease>,
    /// What a rollback would go to.
    pub previous: Option<ReleaseId>,
    /// The deployment under way.
    pub deployment: Option<DeploymentStatus>,
    /// The order that waits for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingStatus>,
    /// The last deployment that ended, if it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// The last build since the daemon started, where releases are built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildStatus>,
}

/// A build of a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BuildStatus {
    /// Counts the service's builds since the daemon started.
    pub number: u64,
    /// How it goes.
    pub state: BuildState,
    /// What is run.
    pub command: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// How long it took; none as long as it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The errors in its output, the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Diagnosis>,
    /// The end of its output, if it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// How a build goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// It goes on.
    Building,
    /// It was good, and what it left is deployed.
    Done,
    /// It failed: what is live stays.
    Failed,
    /// A source changed, and it was ended for a newer one.
    Cancelled,
}

fn yes() -> bool {
    true
}

/// What an operator has put between requests and a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GateStatus {
    /// What.
    pub kind: GateKind,
    /// Since it was.
    pub for_s: f64,
    /// What clients are told in maintenance, if it is a sentence of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What can be between requests and a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// They wait.
    Paused,
    /// They get 503.
    Maintenance,
}

/// The body of `POST /v1/services/NAME/maintenance`, which may be left out. At most one of the two.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// A sentence for clients, on hotctl's own page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A whole page of HTML for them, at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// A deployment that did not end well, with nothing better after it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LastFailure {
    /// Counts the service's deployments.
    pub deployment: u32,
    /// What should have become live.
    pub release: ReleaseId,
    /// What became of it.
    pub result: Outcome,
    /// Since it ended.
    pub ago_s: f64,
    /// Why.
    pub why: Why,
}

/// A release that runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunningRelease {
    /// Which.
    pub release: ReleaseId,
    /// Where.
    pub slot: Slot,
    /// `live`, `candidate`, `warm` or `draining`.
    pub role: String,
    /// Its address; of several instances, the first.
    #[schema(value_type = String)]
    pub address: Address,
    /// Its further ports, by name; of several instances, those of the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<PortName, u16>,
    /// The app's process, of several the first; none while it is being started again.
    pub pid: Option<u32>,
    /// Since the process started; of several, the first.
    pub uptime_s: f64,
    /// Requests in flight.
    pub tickets: usize,
    /// The same by kind.
    pub open: OpenRequests,
    /// What the last probe said: `healthy`, or why not; of several instances, the first that is not.
    pub health: String,
    /// How often its processes died or were replaced.
    pub restarts: u32,
    /// Each of its processes, by number.
    pub instances: Vec<InstanceStatus>,
}

/// One process of a release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    /// Its number within the release, from 0.
    pub instance: usize,
    /// Its address.
    #[schema(value_type = String)]
    pub address: Address,
    /// Its further ports, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<PortName, u16>,
    /// The process; none while it is being started again.
    pub pid: Option<u32>,
    /// `starting`, `up`, `unhealthy`, `replacing`, `dead`, or `failed` when it ends again and again.
    pub state: String,
    /// Since it started.
    pub uptime_s: f64,
    /// What the last probe said: `healthy`, or why not.
    pub health: String,
    /// How often it died or was replaced.
    pub restarts: u32,
}

/// A deployment under way.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentStatus {
    /// Counts the service's deployments.
    pub number: u32,
    /// The candidate.
    pub to: ReleaseId,
    /// What was live.
    pub from: Option<ReleaseId>,
    /// The user who ordered it; none if its record is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// `stopping`, `starting`, `step 0`, `warm`, `reverting`.
    pub phase: String,
    /// Since it began.
    pub age_s: f64,
    /// While the old release is kept warm: until that ends, and with it the way back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_left_s: Option<f64>,
}

/// A deployment that waits for its turn.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingStatus {
    /// Counts the service's deployments.
    pub number: u32,
    /// The candidate.
    pub to: ReleaseId,
    /// The user who ordered it.
    pub by: String,
    /// Since it was ordered.
    pub age_s: f64,
}

/// One line of `GET /v1/services/NAME/releases`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
    /// Whether its files are in the store. Without them it cannot be started again.
    #[serde(default = "yes")]
    pub stored: bool,
}

/// The query of `DELETE /v1/services/NAME/deployments`; empty = whatever is under way or waits.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CancelQuery {
    /// Only the deployment of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Only the order that waits.
    #[serde(default)]
    pub waiting: bool,
}

/// The query of `GET /v1/services/NAME/logs`.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
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
