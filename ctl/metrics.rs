//! What the controller counts: deployments, phases, drains, probes. Requests are the proxy's.
//! The registry is handed in; nothing here is global.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotctl_config::names::ServiceName;
use hotctl_deploy::why::Kind;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::site::{Loss, Renewal, Shown};

/// 5 ms to 10 min: phases of a deployment, drains.
const PHASES: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// 0.5 ms to 10 s: one probe.
const PROBES: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0,
];

/// The controller's metrics. Names, labels and buckets are a documented contract.
#[derive(Debug)]
pub struct Metrics {
    deployments: IntCounterVec,
    phases: HistogramVec,
    drains: HistogramVec,
    probes: HistogramVec,
    restarts: IntCounterVec,
    adopted: IntCounterVec,
    crash_loops: IntCounterVec,
    renewals: IntCounterVec,
    flip_backs: IntCounterVec,
    started: GaugeVec,
    last: GaugeVec,
    builds: IntCounterVec,
    build_times: HistogramVec,
    edit_to_live: HistogramVec,
    write_errors: IntCounter,
    upgrades: IntCounterVec,
    reload_successful: IntGauge,
    config_revision: IntGauge,
    releases: Releases,
}

/// What became of an upgrade of hotctl itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// This process took the place of another.
    Replaced,
    /// Another was to take the place of this one, and did not.
    Failed,
}

/// What became of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    Done,
    Failed,
    Cancelled,
}

impl Built {
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a configuration that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    InForce,
    Refused,
}

/// One release that runs, as `hotctl_release_info` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseInfo {
    /// `web@7`.
    pub release: String,
    /// `live`, `candidate`, `warm` or `draining`.
    pub role: &'static str,
    /// The first 12 digits of its digest.
    pub hash: String,
}

/// What is true of one service at a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scraped {
    /// Which service.
    pub service: ServiceName,
    /// What runs of it.
    pub releases: Vec<ReleaseInfo>,
    /// Instances by role and state.
    pub instances: Vec<(&'static str, Shown, i64)>,
}

impl Metrics {
    /// An upgrade has ended.
    pub fn upgrade(&self, result: Upgrade) {
        let result = match result {
            Upgrade::Replaced => "replaced",
            Upgrade::Failed => "failed",
        };
        self.upgrades.with_label_values(&[result]).inc();
    }

    /// Make and register all of them.
    ///
    /// # Errors
    /// If a name is taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            deployments: IntCounterVec::new(
                Opts::new(
                    "hotctl_deployments_total",
                    "Deployments that ended, by result and reason.",
                ),
                &["service", "result", "reason"],
            )?,
            phases: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_deployment_phase_duration_seconds",
                    "Time that deployments spent in each phase.",
                )
                .buckets(PHASES.to_vec()),
                &["service", "phase"],
            )?,
            drains: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_drain_duration_seconds",
                    "Time from losing new requests to the last answer, or to the end of its drain.",
                )
                .buckets(PHASES.to_vec()),
                &["service"],
            )?,
            probes: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_probe_duration_seconds",
                    "Duration of the health probes of running releases, by result.",
                )
                .buckets(PROBES.to_vec()),
                &["service", "result"],
            )?,
            restarts: IntCounterVec::new(
                Opts::new(
                    "hotctl_process_restarts_total",
                    "Serving processes that were started again, by reason.",
                ),
                &["service", "reason"],
            )?,
            adopted: IntCounterVec::new(
                Opts::new(
                    "hotctl_adopted_processes_total",
                    "Processes found running when the daemon began, and taken over as they were.",
                ),
                &["service"],
            )?,
            crash_loops: IntCounterVec::new(
                Opts::new(
                    "hotctl_crash_loops_total",
                    "Times that a serving process began to end again and again.",
                ),
                &["service"],
            )?,
            builds: IntCounterVec::new(
                Opts::new("hotctl_builds_total", "Builds that ended, by result."),
                &["service", "result"],
            )?,
            build_times: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_build_duration_seconds",
                    "Duration of builds that were done or failed.",
                )
                .buckets(PHASES.to_vec()),
                &["service"],
            )?,
            edit_to_live: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_edit_to_live_seconds",
                    "Time from the first sign of a change to the flip of what came of it.",
                )
                .buckets(PHASES.to_vec()),
                &["service"],
            )?,
            renewals: IntCounterVec::new(
                Opts::new(
                    "hotctl_renewals_total",
                    "Restarts of the whole live release that were ordered by hotctl itself, by reason.",
                ),
                &["service", "reason"],
            )?,
            flip_backs: IntCounterVec::new(
                Opts::new(
                    "hotctl_flip_backs_total",
                    "Times that traffic went back to the old release by itself, by reason.",
                ),
                &["service", "reason"],
            )?,
            started: GaugeVec::new(
                Opts::new(
                    "hotctl_deployment_started_timestamp_seconds",
                    "When the deployment under way began, in seconds since 1970; only while one is.",
                ),
                &["service"],
            )?,
            last: GaugeVec::new(
                Opts::new(
                    "hotctl_last_deployment_timestamp_seconds",
                    "When a deployment last ended with this result, in seconds since 1970.",
                ),
                &["service", "result"],
            )?,
            write_errors: IntCounter::new(
                "hotctl_state_write_errors_total",
                "Writes to the state folder that failed: records, histories, events.",
            )?,
            upgrades: IntCounterVec::new(
                Opts::new(
                    "hotctl_upgrades_total",
                    "Upgrades of hotctl itself, by result; one that succeeded is counted by the new process.",
                ),
                &["result"],
            )?,
            reload_successful: IntGauge::new(
                "hotctl_config_last_reload_successful",
                "Whether the configuration that was read last is in force: 1, or 0 if it was refused.",
            )?,
            config_revision: IntGauge::new(
                "hotctl_config_revision",
                "The revision of the configuration in force; counts them since the daemon started.",
            )?,
            releases: Releases::new()?,
        };
        let build = IntGaugeVec::new(
            Opts::new(
                "hotctl_build_info",
                "The version of hotctl that runs; always 1.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(metrics.deployments.clone()))?;
        registry.register(Box::new(metrics.phases.clone()))?;
        registry.register(Box::new(metrics.drains.clone()))?;
        registry.register(Box::new(metrics.probes.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))?;
        registry.register(Box::new(metrics.adopted.clone()))?;
        registry.register(Box::new(metrics.crash_loops.clone()))?;
        registry.register(Box::new(metrics.renewals.clone()))?;
        registry.register(Box::new(metrics.flip_backs.clone()))?;
        registry.register(Box::new(metrics.builds.clone()))?;
        registry.register(Box::new(metrics.build_times.clone()))?;
        registry.register(Box::new(metrics.edit_to_live.clone()))?;
        registry.register(Box::new(metrics.started.clone()))?;
        registry.register(Box::new(metrics.last.clone()))?;
        registry.register(Box::new(metrics.write_errors.clone()))?;
        registry.register(Box::new(metrics.upgrades.clone()))?;
        for result in ["replaced", "failed"] {
            metrics.upgrades.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.reload_successful.clone()))?;
        registry.register(Box::new(metrics.config_revision.clone()))?;
        registry.register(Box::new(metrics.releases.clone()))?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// A configuration was read: which is in force now, and whether it is that one.
    pub fn config_read(&self, revision: u64, outcome: Read) {
        self.config_revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.reload_successful
            .set(i64::from(outcome == Read::InForce));
    }

    /// Counts the writes to the state folder that failed; for those who write there.
    pub fn write_errors(&self) -> &IntCounter {
        &self.write_errors
    }

    /// Let a service's series exist before their first event, so that `rate()` sees it.
    pub fn prepare(&self, service: &ServiceName) {
        let name = service.as_str();
        self.deployments.with_label_values(&[name, "live", ""]);
        for kind in Kind::ALL {
            self.deployments
                .with_label_values(&[name, "failed", kind.label()]);
        }
        for result in ["healthy", "unhealthy"] {
            self.probes.with_label_values(&[name, result]);
        }
        self.drains.with_label_values(&[name]);
        self.adopted.with_label_values(&[name]);
        for loss in Loss::ALL {
            self.restarts.with_label_values(&[name, loss.label()]);
        }
        self.crash_loops.with_label_values(&[name]);
        for built in [Built::Done, Built::Failed, Built::Cancelled] {
            self.builds.with_label_values(&[name, built.label()]);
        }
        self.build_times.with_label_values(&[name]);
        self.edit_to_live.with_label_values(&[name]);
        for renewal in Renewal::ALL {
            self.renewals.with_label_values(&[name, renewal.label()]);
        }
        for kind in [Kind::Exited, Kind::NotHealthy, Kind::RequestsFailed] {
            self.flip_backs.with_label_values(&[name, kind.label()]);
        }
    }

    /// A build has ended.
    pub fn build(&self, service: &ServiceName, result: Built, took: Duration) {
        self.builds
            .with_label_values(&[service.as_str(), result.label()])
            .inc();
        if result != Built::Cancelled {
            self.build_times
                .with_label_values(&[service.as_str()])
                .observe(took.as_secs_f64());
        }
    }

    /// What was changed is live.
    pub fn edit_to_live(&self, service: &ServiceName, took: Duration) {
        self.edit_to_live
            .with_label_values(&[service.as_str()])
            .observe(took.as_secs_f64());
    }

    /// A process was taken over from the last daemon.
    pub fn adopted(&self, service: &ServiceName) {
        self.adopted.with_label_values(&[service.as_str()]).inc();
    }

    /// A serving process was started again.
    pub fn restarted(&self, service: &ServiceName, loss: Loss) {
        self.restarts
            .with_label_values(&[service.as_str(), loss.label()])
            .inc();
    }

    /// The live release is restarted by hotctl itself.
    pub fn renewal(&self, service: &ServiceName, why: Renewal) {
        self.renewals
            .with_label_values(&[service.as_str(), why.label()])
            .inc();
    }

    /// A serving process ends again and again.
    pub fn crash_loop(&self, service: &ServiceName) {
        self.crash_loops
            .with_label_values(&[service.as_str()])
            .inc();
    }

    /// Traffic goes back to the old release by itself.
    pub fn flipped_back(&self, service: &ServiceName, kind: Kind) {
        self.flip_backs
            .with_label_values(&[service.as_str(), kind.label()])
            .inc();
    }

    /// A deployment begins.
    pub fn deployment_begins(&self, service: &ServiceName) {
        self.started
            .with_label_values(&[service.as_str()])
            .set(now());
    }

    /// A deployment ended: live, or failed for this kind of reason.
    pub fn deployment(&self, service: &ServiceName, failed: Option<Kind>) {
        let (result, reason) = failed.map_or(("live", ""), |kind| ("failed", kind.label()));
        self.deployments
            .with_label_values(&[service.as_str(), result, reason])
            .inc();
        self.last
            .with_label_values(&[service.as_str(), result])
            .set(now());
        // An error only says that there was none.
        let _ = self.started.remove_label_values(&[service.as_str()]);
    }

    /// A phase of a deployment took so long.
    pub fn phase(&self, service: &ServiceName, phase: &str, took: Duration) {
        self.phases
            .with_label_values(&[service.as_str(), phase])
            .observe(took.as_secs_f64());
    }

    /// A release was drained.
    pub fn drain(&self, service: &ServiceName, took: Duration) {
        self.drains
            .with_label_values(&[service.as_str()])
            .observe(took.as_secs_f64());
    }

    /// One probe of a running release.
    pub fn probe(&self, service: &ServiceName, healthy: bool, took: Duration) {
        let result = if healthy { "healthy" } else { "unhealthy" };
        self.probes
            .with_label_values(&[service.as_str(), result])
            .observe(took.as_secs_f64());
    }

    /// Where `hotctl_release_info` and `hotctl_instances` get their lines from at each scrape.
    pub fn releases_from(&self, source: impl Fn() -> Vec<Scraped> + Send + Sync + 'static) {
        *self
            .releases
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }
}

type Source = Box<dyn Fn() -> Vec<Scraped> + Send + Sync>;

/// `hotctl_release_info` and `hotctl_instances`, made at each scrape: gauges kept up to date by hand
/// would go on naming releases that are gone.
#[derive(Clone)]
struct Releases {
    info: IntGaugeVec,
    instances: IntGaugeVec,
    source: Arc<Mutex<Option<Source>>>,
}

impl std::fmt::Debug for Releases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Releases")
    }
}

impl Releases {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            info: IntGaugeVec::new(
                Opts::new(
                    "hotctl_release_info",
                    "Releases that run, with their role; always 1.",
                ),
                &["service", "release", "role", "hash"],
            )?,
            instances: IntGaugeVec::new(
                Opts::new(
                    "hotctl_instances",
                    "Processes of the releases that run, by role and state.",
                ),
                &["service", "role", "state"],
            )?,
            source: Arc::default(),
        })
    }
}

impl Collector for Releases {
    fn desc(&self) -> Vec<&Desc> {
        [self.info.desc(), self.instances.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        self.info.reset();
        self.instances.reset();
        for scraped in source.iter().flat_map(|list| list()) {
            let service = scraped.service.as_str();
            for release in &scraped.releases {
                self.info
                    .with_label_values(&[service, &release.release, release.role, &release.hash])
                    .set(1);
            }
            // 0 is said too: an alert must see that there is none.
            for (role, state, count) in &scraped.instances {
                self.instances
                    .with_label_values(&[service, role, state.label()])
                    .set(*count);
            }
        }
        [self.info.collect(), self.instances.collect()].concat()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
