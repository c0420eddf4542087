//! The shapes of what happens: the lines of an order's answer, and the events of the journal.

use std::collections::BTreeMap;

use hotctl_config::names::{ReleaseId, ServiceName, Slot};
use hotctl_config::{Address, PortName};
use hotctl_deploy::diagnosis::Diagnosis;
use hotctl_deploy::why::Why;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, OneOf, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::OpenRequests;
use super::record::Verb;
use crate::who::Giver;

/// One line of the answer to an order: what has just happened. The last line is `settled`,
/// `unchanged`, `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// The order stands: it is a deployment of its own, begun now or when its turn comes.
    Ordered {
        /// The candidate.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
        /// What was asked for.
        verb: Verb,
        /// Who asked.
        by: Giver,
    },
    /// Another deployment of the service is under way; this order waits for its end.
    Queued {
        /// The candidate of the deployment under way.
        behind: ReleaseId,
    },
    /// What is live is being ended, so that the candidate can take its place. Requests wait.
    Stopping {
        /// The old release.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
    },
    /// Nothing of the old release runs any more.
    Stopped {
        /// The old release.
        release: ReleaseId,
        /// How long its end took, from when requests had to wait.
        took_ms: f64,
        /// What was ended because its time was over.
        #[serde(default)]
        cut: OpenRequests,
    },
    /// The candidate failed in the place of the old release, which was started again.
    Restored {
        /// The old release.
        release: ReleaseId,
        /// From the end of the candidate to here.
        took_ms: f64,
        /// Why it is not healthy, if it is not; it is tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The candidate's process is being started.
    Starting {
        /// The candidate.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
    },
    /// The command that runs before the candidate is started has begun.
    BeforeStart {
        /// The candidate.
        release: ReleaseId,
        /// The command, as a shell would read it.
        command: String,
    },
    /// It has ended well.
    BeforeStartDone {
        /// The candidate.
        release: ReleaseId,
        /// How long it took.
        took_ms: f64,
    },
    /// An instance of the candidate runs and is being probed.
    Started {
        /// The candidate.
        release: ReleaseId,
        /// Which of its instances, from 0.
        #[serde(default)]
        instance: usize,
        /// Where it must listen: `127.0.0.1:20417`, or `unix:` and a path.
        #[schema(value_type = String)]
        address: Address,
        /// Its further ports, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        ports: BTreeMap<PortName, u16>,
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
    /// An instance of the candidate was asked for a path of `warmup`.
    Warmed {
        /// The candidate.
        release: ReleaseId,
        /// Which of its instances, from 0.
        instance: usize,
        /// What was asked for.
        path: String,
        /// The status of the answer; none if there was no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why there was no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// How long it took.
        took_ms: f64,
    },
    /// The command that runs after the flip has ended.
    OnLive {
        /// The release that is live.
        release: ReleaseId,
        /// The command, as a shell would read it.
        command: String,
        /// How long it took.
        took_ms: f64,
        /// Why it failed, if it did; the release stays live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
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
        /// The same by kind.
        #[serde(default)]
        open: OpenRequests,
    },
    /// The old release has no request any more, or its time is over.
    Drained {
        /// The old release.
        release: ReleaseId,
        /// Since the flip.
        took_ms: f64,
        /// How many were still open when the time of their kind was over, and were ended.
        open: usize,
        /// The same by kind.
        #[serde(default)]
        cut: OpenRequests,
    },
    /// Traffic was taken back from the candidate.
    Reverting {
        /// The candidate.
        release: ReleaseId,
        /// Why.
        why: Why,
    },
    /// A deployment is live, and the old release has given its last answer.
    Summary(Summary),
    /// The old release is no longer kept warm: traffic does not flip back by itself any more.
    Settled {
        /// What is live.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
    },
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
    /// The order failed. What was live before is live still, or again.
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
            Self::Settled { .. } | Self::Unchanged { .. } | Self::Done { .. } | Self::Failed { .. }
        )
    }
}

/// How a deployment went, once live. Times in milliseconds unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// What is live now.
    pub release: ReleaseId,
    /// Counts the service's deployments.
    pub deployment: u32,
    /// Where it runs; of several instances, the first.
    #[schema(value_type = String)]
    pub address: Address,
    /// Its further ports, by name; of several instances, those of the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<PortName, u16>,
    /// Its process; of several, the first.
    pub pid: u32,
    /// How many instances serve.
    #[serde(default = "one")]
    pub instances: usize,
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
    /// Requests of the old release that were ended when the time of their kind was over.
    pub open: usize,
    /// The same by kind.
    #[serde(default)]
    pub cut: OpenRequests,
    /// From the order to here.
    pub total_ms: f64,
}

fn one() -> usize {
    1
}

/// What the journal holds of one instant: a line of `GET /v1/events`, beside its number, its time and
/// its service. Never arguments or an environment: those may hold secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Noted {
    /// The daemon serves.
    DaemonStarted {
        /// hotctl's own version.
        version: String,
        /// Its process.
        pid: u32,
        /// Whether it took the place of another that served before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<u32>,
    },
    /// Another hotctl was to take its place, and did not: all is as before.
    UpgradeFailed {
        /// Who wanted it.
        by: Giver,
        /// Why not.
        error: String,
    },
    /// What the `watch` of the service is to deploy cannot be deployed as it is: what is live stays.
    WatchFailed {
        /// Why not.
        error: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// A build of the service begins.
    BuildStarted {
        /// Counts its builds since the daemon started.
        build: u64,
        /// What is run.
        command: String,
        /// The first few sources that have changed.
        #[serde(default)]
        changed: Vec<String>,
    },
    /// It was good: what it left is deployed.
    BuildDone {
        /// Which.
        build: u64,
        /// How long it took.
        took_ms: f64,
    },
    /// It failed: what is live stays.
    BuildFailed {
        /// Which.
        build: u64,
        /// The command, and how it ended.
        why: String,
        /// What to do about it, if anything can be said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// How long it took.
        took_ms: f64,
        /// The errors in its output, the first ones.
        #[serde(default)]
        errors: Vec<Diagnosis>,
        /// The end of its output.
        #[serde(default)]
        output: Vec<String>,
    },
    /// A source changed meanwhile, and it was ended for a newer one.
    BuildCancelled {
        /// Which.
        build: u64,
        /// How long it went on.
        took_ms: f64,
    },
    /// Files have changed that pages load as they are: nothing is built or deployed.
    AssetsChanged {
        /// The first few of them.
        paths: Vec<String>,
        /// Whether there are none among them but style sheets.
        only_styles: bool,
    },
    /// Patterns of `build.watch` and `build.assets` that no source has: a change there is not seen.
    WatchMatchesNothing {
        /// Which.
        patterns: Vec<String>,
        /// The folder of the sources.
        root: String,
    },
    /// The builds change their own sources: that does not count any more while one goes on.
    BuildDisturbsItself {
        /// Which sources.
        paths: Vec<String>,
    },
    /// An app writes among the files it runs from: from now on, what changes these alone is deployed less often.
    AppDisturbsItself {
        /// The first few of them.
        paths: Vec<String>,
        /// How often.
        every_ms: f64,
    },
    /// The daemon was told to end.
    DaemonStopping,
    /// The configuration was read again, and is in force.
    ConfigReloaded {
        /// Who asked, and by which way.
        by: Giver,
        /// Counts the configurations since the daemon started.
        revision: u64,
        /// The fields that differ, without their values; `+NAME` and `-NAME` are services.
        changes: Vec<String>,
    },
    /// The configuration was read again, and is not in force.
    ConfigRefused {
        /// Who asked, and by which way.
        by: Giver,
        /// What is wrong with it.
        error: String,
    },
    /// The app's own log level was to be changed, and was where there is no `error`.
    LogLevelChanged {
        /// Who asked, and by which way.
        by: Giver,
        /// The level, in the app's own words. A signal does not say it.
        level: String,
        /// How: the signal, or method and path of the request.
        how: String,
        /// The processes that took it.
        pids: Vec<u32>,
        /// Why others did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// An order was refused before it became a deployment.
    OrderRefused {
        /// What was asked for.
        verb: Verb,
        /// Who asked.
        by: Giver,
        /// Why not.
        why: Why,
    },
    /// Somebody wants a deployment to end.
    CancelOrdered {
        /// Its candidate.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
        /// Who.
        by: Giver,
    },
    /// A process that serves, or is kept warm, ended by itself.
    InstanceExited {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        #[serde(default)]
        instance: usize,
        /// Its process.
        pid: u32,
        /// How: `exit status 1`, `signal SIGKILL`.
        exit: String,
    },
    /// A process that another daemon started was found running, and is looked after from now on.
    InstanceAdopted {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        instance: usize,
        /// Its process, the same as before.
        pid: u32,
    },
    /// A deployment that was under way when the last daemon ended goes on.
    DeploymentResumed {
        /// Its candidate.
        release: ReleaseId,
        /// Counts the service's deployments.
        deployment: u32,
        /// Where it stood.
        phase: String,
    },
    /// It was started again and serves.
    InstanceRestarted {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        #[serde(default)]
        instance: usize,
        /// Its new process.
        pid: u32,
    },
    /// A process that serves ended again and again: it counts as failed, and is tried every 30 s.
    CrashLoop {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        instance: usize,
        /// How often in a row.
        deaths: u32,
        /// How the last time: `exit status 1`, `signal SIGKILL`.
        exit: String,
    },
    /// A process that nobody could attend to any more was ended by hotctl.
    InstanceEnded {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Its number.
        pid: u32,
        /// Why.
        why: String,
    },
    /// The processes of the live release are to be replaced by fresh ones, without anybody asking.
    Renewal {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// `age`, `memory` or `unhealthy`.
        reason: String,
    },
    /// A process that serves has failed `health.fall` probes in a row, or real requests.
    Unhealthy {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        #[serde(default)]
        instance: usize,
        /// What the last probe, or the last request, said.
        text: String,
    },
    /// It is healthy again.
    HealthyAgain {
        /// Of which release.
        release: ReleaseId,
        /// In which slot.
        slot: Slot,
        /// Which of its instances, from 0.
        #[serde(default)]
        instance: usize,
    },
    /// The record of a service could not be used, and the last good copy of it was.
    StateRestored {
        /// What was found, and what was done.
        text: String,
    },
    /// The state of a service cannot be read: the service is left alone, and gets no request.
    StateDamaged {
        /// What is wrong.
        error: String,
        /// The remedy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// Traffic has flipped back without anybody asking.
    FlipBack {
        /// From the release that failed.
        from: ReleaseId,
        /// To the one that was kept warm.
        to: ReleaseId,
        /// Why.
        why: Why,
    },
    /// A line of the answer to an order.
    #[serde(untagged)]
    Progress(Progress),
}

/// A line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventLine {
    /// An event.
    Event(Box<NumberedEvent>),
    /// Events that are not kept any more, in their place.
    Missing(Missing),
}

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Counts all events, across restarts of the daemon.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Of which service; none if it concerns the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// What.
    #[serde(flatten)]
    pub what: Noted,
}

/// By hand, because the derived one gives the variant without a tag of its own a tag.
impl PartialSchema for NumberedEvent {
    fn schema() -> RefOr<Schema> {
        let mut what = match Noted::schema() {
            RefOr::T(Schema::OneOf(what)) => what,
            other => OneOf {
                items: vec![other],
                ..OneOf::new()
            },
        };
        what.items.pop();
        what.items
            .push(Ref::from_schema_name(Progress::name()).into());
        let head = ObjectBuilder::new()
            .property(
                "number",
                count("Counts all events, across restarts of the daemon."),
            )
            .required("number")
            .property("at_ms", count("When, in milliseconds since 1970."))
            .required("at_ms")
            .property("service", Ref::from_schema_name(ServiceName::name()));
        AllOfBuilder::new()
            .description(Some("An event of the journal."))
            .item(head)
            .item(Schema::OneOf(what))
            .into()
    }
}

impl ToSchema for NumberedEvent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ServiceName::name().into(), ServiceName::schema()));
        schemas.push((Progress::name().into(), Progress::schema()));
        Noted::schemas(schemas);
    }
}

fn count(what: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some(what))
}

/// What takes the place of events that are not kept any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Missing {
    /// They were there once.
    Gap {
        /// How many.
        missed: u64,
        /// After which number.
        after: u64,
    },
}

/// The query of `GET /v1/events`; empty = everything that is kept.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only what came after the event of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Begin with the newest so many, where `after` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Only of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Go on as it happens.
    #[serde(default)]
    pub follow: bool,
}
