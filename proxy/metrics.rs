//! What the proxy counts. The names, labels and buckets here are a documented contract.
//!
//! The registry is handed in. A request does not look anything up: the handles of its service are
//! kept with the pool that it was given. Knows nothing of HTTP beyond status codes.

mod at_scrape;
mod tally;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hotctl_config::{ReleaseId, ServiceName};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::access::AccessLog;
use crate::answer::Refusal;
use crate::kinds::Open;
use crate::switch::Switch;
use at_scrape::{InFlight, Waiting};
pub(crate) use tally::Classes;
use tally::{Answered, Releases, Requests};

/// All metrics of the proxy.
pub struct Metrics {
    requests: Requests,
    upstream_errors: IntCounterVec,
    retries: IntCounterVec,
    switch_duration: HistogramVec,
    switch_errors: IntCounterVec,
    drain_cut: IntCounterVec,
    access_log_dropped: IntCounter,
    park_outcomes: IntCounterVec,
    in_flight: InFlight,
    parked: Waiting,
    releases: Releases,
    meters: RwLock<HashMap<ServiceName, Arc<Meter>>>,
}

impl Metrics {
    /// Makes them and registers them. `threads`: as many as serve requests; with another number it works, and
    /// threads share counters, or some stay unused.
    pub fn new(registry: &Registry, threads: NonZeroUsize) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: Requests::new(threads)?,
            upstream_errors: IntCounterVec::new(
                Opts::new(
                    "hotctl_upstream_errors_total",
                    "Failed attempts to reach a release or to get an answer from it, retried ones included.",
                ),
                &["service", "kind"],
            )?,
            retries: IntCounterVec::new(
                Opts::new("hotctl_retries_total", "Attempts that were made again."),
                &["service"],
            )?,
            switch_duration: HistogramVec::new(
                HistogramOpts::new(
                    "hotctl_switch_duration_seconds",
                    "Time from the order to flip until no request can choose the old release any more.",
                )
                .buckets(vec![
                    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3,
                    5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1,
                ]),
                &["service"],
            )?,
            switch_errors: IntCounterVec::new(
                Opts::new(
                    "hotctl_switch_errors_total",
                    "Requests that hotctl answered with an error, or cut, between the start of a flip and the end of its drain; WebSockets and streams that came to the end of their time are not errors.",
                ),
                &["service", "kind"],
            )?,
            drain_cut: IntCounterVec::new(
                Opts::new(
                    "hotctl_drain_cut_total",
                    "Requests still open when the time of a drain was over, by kind: requests, websockets, streams.",
                ),
                &["service", "kind"],
            )?,
            access_log_dropped: IntCounter::new(
                "hotctl_access_log_dropped_total",
                "Lines of the access log that could not be written, or not in time.",
            )?,
            park_outcomes: IntCounterVec::new(
                Opts::new(
                    "hotctl_park_outcomes_total",
                    "What became of requests whose service was parked: served, refused (it was closed meanwhile), full, timeout, left (the client went away).",
                ),
                &["service", "outcome"],
            )?,
            releases: Releases::new(threads)?,
            in_flight: InFlight::new()?,
            parked: Waiting::new()?,
            meters: RwLock::default(),
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.upstream_errors.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.switch_duration.clone()))?;
        registry.register(Box::new(metrics.switch_errors.clone()))?;
        registry.register(Box::new(metrics.drain_cut.clone()))?;
        registry.register(Box::new(metrics.access_log_dropped.clone()))?;
        registry.register(Box::new(metrics.park_outcomes.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.parked.clone()))?;
        registry.register(Box::new(metrics.releases.clone()))?;
        Ok(metrics)
    }

    /// Makes `hotctl_requests_in_flight` count the tickets of this switch, and
    /// `hotctl_parked_requests` those who wait at it.
    pub(crate) fn watch(&self, switch: &Arc<Switch>) {
        *locked(&self.in_flight.switch) = Arc::downgrade(switch);
        *locked(&self.parked.switch) = Arc::downgrade(switch);
    }

    /// Lets the series of a service exist before their first event, so that an increase can be seen.
    pub fn prepare(&self, service: &ServiceName) {
        self.meter(service);
        for refusal in Refusal::OF_RELEASES {
            let labels = [service.as_str(), refusal.reason()];
            self.upstream_errors.with_label_values(&labels);
            self.switch_errors.with_label_values(&labels);
        }
        self.switch_errors
            .with_label_values(&[service.as_str(), "cut"]);
        self.count_cut(service, &Open::default());
        for outcome in ParkOutcome::ALL {
            let labels = [service.as_str(), outcome.label()];
            self.park_outcomes.with_label_values(&labels);
        }
    }

    /// Counts what became of a request whose service was parked.
    pub(crate) fn parked(&self, meter: &Meter, outcome: ParkOutcome) {
        let labels = [meter.service.as_str(), outcome.label()];
        self.park_outcomes.with_label_values(&labels).inc();
    }

    /// Makes `hotctl_access_log_dropped_total` count what this log drops.
    pub(crate) fn watch_access_log(&self, log: &AccessLog) {
        log.count_dropped(self.access_log_dropped.clone());
    }

    /// Says that a release is about to get requests: its series of `hotctl_release_requests_total`
    /// begin, at 0, so that an increase can be seen from its first request on.
    pub fn release_begins(&self, release: &ReleaseId) {
        self.releases.begins(release);
    }

    /// Says that a release gets no more requests: its series end 15 minutes later, unless it begins
    /// again.
    pub fn release_retired(&self, release: &ReleaseId) {
        self.releases.retired(release);
    }

    /// The counters of a release.
    pub(crate) fn classes(&self, release: &ReleaseId) -> Arc<Classes> {
        self.releases.classes(release)
    }

    /// Says that a service is being switched, from the start of a flip to the end of its drain. As
    /// long as one guard lives, the service's errors count in `hotctl_switch_errors_total`.
    pub fn switching(self: &Arc<Self>, service: &ServiceName) -> Switching {
        let meter = self.meter(service);
        meter.switching.fetch_add(1, Ordering::AcqRel);
        Switching { meter }
    }

    /// Says how long a flip took until no request could choose the old release any more.
    pub fn switched(&self, service: &ServiceName, took: Duration) {
        self.meter(service)
            .switch_duration
            .observe(took.as_secs_f64());
    }

    /// Says what was ended because the time of a drain was over, as [`Switch::retire`] returns it.
    pub fn cut(&self, service: &ServiceName, cut: &Open) {
        self.count_cut(service, cut);
        let labels = [service.as_str(), "cut"];
        self.switch_errors
            .with_label_values(&labels)
            .inc_by(number(cut.requests));
    }

    fn count_cut(&self, service: &ServiceName, cut: &Open) {
        for (kind, count) in cut.by_kind() {
            let labels = [service.as_str(), kind];
            let counter = self.drain_cut.with_label_values(&labels);
            counter.inc_by(number(count));
        }
    }

    /// The handles of a service. Looked up once per pool; by requests without a pool each time.
    pub(crate) fn meter(&self, service: &ServiceName) -> Arc<Meter> {
        let known = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = known.get(service) {
            return meter.clone();
        }
        drop(known);
        let mut known = self.meters.write().unwrap_or_else(PoisonError::into_inner);
        let meter = known.entry(service.clone()).or_insert_with(|| {
            let label = [service.as_str()];
            Arc::new(Meter {
                answered: self.requests.of(service),
                retries: self.retries.with_label_values(&label),
                switch_duration: self.switch_duration.with_label_values(&label),
                switching: AtomicUsize::new(0),
                service: service.clone(),
            })
        });
        meter.clone()
    }

    /// Counts a request that is over.
    pub(crate) fn request(&self, meter: Option<&Meter>, code: u16, took: Duration) {
        let answered = match meter {
            Some(meter) => &meter.answered,
            None => &self.requests.unrouted,
        };
        answered.count(code, took);
    }

    /// Counts an attempt that failed.
    pub(crate) fn upstream_error(&self, meter: &Meter, kind: &str) {
        let labels = [meter.service.as_str(), kind];
        self.upstream_errors.with_label_values(&labels).inc();
    }

    /// Counts an error that a client got to see.
    pub(crate) fn refused(&self, meter: &Meter, kind: &str) {
        if meter.switching.load(Ordering::Acquire) > 0 {
            let labels = [meter.service.as_str(), kind];
            self.switch_errors.with_label_values(&labels).inc();
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// What became of a request whose service was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkOutcome {
    /// Something served again in time.
    Served,
    /// It was closed for good: stopped, in maintenance, in a crash loop.
    Refused,
    /// There was no place.
    Full,
    /// Nothing served in time.
    Timeout,
    /// The client went away.
    Left,
}

impl ParkOutcome {
    const ALL: [Self; 5] = [
        Self::Served,
        Self::Refused,
        Self::Full,
        Self::Timeout,
        Self::Left,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Left => "left",
        }
    }
}

/// See [`Metrics::switching`].
#[must_use = "the switch is over when it is dropped"]
pub struct Switching {
    meter: Arc<Meter>,
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.meter.switching.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Switching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switching({})", self.meter.service)
    }
}

/// The handles of one service.
pub(crate) struct Meter {
    service: ServiceName,
    answered: Arc<Answered>,
    pub(crate) retries: IntCounter,
    switch_duration: Histogram,
    /// How many switches are going on.
    switching: AtomicUsize,
}

impl Meter {
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn text(registry: &Registry) -> String {
        let encoder = prometheus::TextEncoder::new();
        encoder.encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn errors_count_against_a_switch_only_while_it_goes_on() {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, NonZeroUsize::MIN).unwrap());
        let service = "web".parse().unwrap();
        let meter = metrics.meter(&service);
        metrics.refused(&meter, "stopped");
        let (one, two) = (metrics.switching(&service), metrics.switching(&service));
        metrics.refused(&meter, "stopped");
        drop(one);
        metrics.refused(&meter, "stopped");
        drop(two);
        metrics.refused(&meter, "stopped");
        let cut = Open {
            requests: 3,
            websockets: 2,
            streams: 0,
        };
        metrics.prepare(&service);
        metrics.cut(&service, &cut);
        let text = text(&registry);
        for line in [
            "hotctl_switch_errors_total{kind=\"stopped\",service=\"web\"} 2",
            "hotctl_switch_errors_total{kind=\"cut\",service=\"web\"} 3",
            "hotctl_drain_cut_total{kind=\"requests\",service=\"web\"} 3",
            "hotctl_drain_cut_total{kind=\"websockets\",service=\"web\"} 2",
            "hotctl_drain_cut_total{kind=\"streams\",service=\"web\"} 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn requests_count_by_code_also_where_the_code_is_none() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, NonZeroUsize::MIN).unwrap();
        let meter = metrics.meter(&"web".parse().unwrap());
        for code in [200, 200, 599, 999, 0] {
            metrics.request(Some(&meter), code, Duration::from_millis(3));
        }
        metrics.request(None, 404, Duration::ZERO);
        metrics.switched(&"web".parse().unwrap(), Duration::from_micros(2));
        let text = text(&registry);
        for line in [
            "hotctl_requests_total{code=\"200\",service=\"web\"} 2",
            "hotctl_requests_total{code=\"599\",service=\"web\"} 1",
            "hotctl_requests_total{code=\"999\",service=\"web\"} 1",
            "hotctl_requests_total{code=\"0\",service=\"web\"} 1",
            "hotctl_requests_total{code=\"404\",service=\"-\"} 1",
            "hotctl_request_duration_seconds_count{service=\"web\"} 5",
            "hotctl_switch_duration_seconds_bucket{service=\"web\",le=\"0.0000025\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
    #[tokio::test(start_paused = true)]
    async fn the_series_of_a_release_are_there_from_its_beginning_until_15_minutes_after_its_end() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, NonZeroUsize::MIN).unwrap();
        let [one, two] = ["web@1", "web@2"].map(|it| it.parse::<ReleaseId>().unwrap());
        for release in [&one, &two] {
            metrics.release_begins(release);
        }
        metrics.classes(&one).count(503);
        metrics.classes(&one).count(999);
        let series = |text: &str, release: &str| {
            let release = format!("release=\"{release}\"");
            text.lines().filter(|line| line.contains(&release)).count()
        };
        assert_eq!(series(&text(&registry), "web@1"), 5);
        let line =
            "hotctl_release_requests_total{class=\"5xx\",release=\"web@1\",service=\"web\"} 1";
        assert!(text(&registry).contains(line));
        for release in [&one, &two] {
            metrics.release_retired(release);
        }
        tokio::time::advance(Duration::from_secs(14 * 60)).await;
        // A rollback.
        metrics.release_begins(&one);
        tokio::time::advance(Duration::from_secs(61)).await;
        let now = text(&registry);
        assert_eq!((series(&now, "web@1"), series(&now, "web@2")), (5, 0));
    }
}
