//! What every request counts: on lines of its own for each thread, so that cores do not fight over them, and
//! summed when somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hotctl_config::{ReleaseId, ServiceName};
use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use super::locked;
use crate::switch::home;
use crate::sync::Padded;

/// One of each for each thread. With fewer than there are threads, some share.
struct Each<T>(Box<[Padded<T>]>);

impl<T: Default> Each<T> {
    fn of(threads: NonZeroUsize) -> Self {
        Self((0..threads.get()).map(|_| Padded(T::default())).collect())
    }

    /// That of this thread.
    fn mine(&self) -> &T {
        &self.0[home() % self.0.len()]
    }

    fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().map(|one| of(one)).sum()
    }
}

/// The upper bounds of `hotctl_request_duration_seconds`. What takes longer is in the last bucket, which
/// has none.
const BOUNDS: [Duration; 15] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// The requests of one service that are over.
pub(super) struct Answered(Each<Part>);

/// What one thread has counted.
#[derive(Default)]
struct Part {
    codes: Codes,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Of all durations, in nanoseconds: enough for 584 years.
    took: AtomicU64,
}

impl Answered {
    pub(super) fn of(threads: NonZeroUsize) -> Self {
        Self(Each::of(threads))
    }

    pub(super) fn count(&self, code: u16, took: Duration) {
        let mine = self.0.mine();
        mine.codes.count(code);
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        mine.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        mine.took.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many there were of each code, in their order.
    fn by_code(&self) -> BTreeMap<u16, u64> {
        let mut sums = BTreeMap::new();
        for part in &self.0.0 {
            part.codes
                .each(|code, count| *sums.entry(code).or_default() += count);
        }
        sums
    }

    fn durations(&self) -> Histogram {
        let mut so_far = 0;
        let mut bounded = Vec::with_capacity(BOUNDS.len());
        for (at, bound) in BOUNDS.iter().enumerate() {
            so_far += self.bucket(at);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(so_far);
            bounded.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(bounded);
        histogram.set_sample_count(so_far + self.bucket(BOUNDS.len()));
        let took = self.0.sum(|part| part.took.load(Ordering::Relaxed));
        histogram.set_sample_sum(Duration::from_nanos(took).as_secs_f64());
        histogram
    }

    fn bucket(&self, at: usize) -> u64 {
        self.0.sum(|part| part.buckets[at].load(Ordering::Relaxed))
    }
}

/// Counts by status code: 100 to 599 in rows of 100 that are made when they are needed, since hardly any
/// service uses more than three of them.
#[derive(Default)]
struct Codes {
    rows: [OnceLock<Box<[AtomicU64; 100]>>; 5],
    /// No codes that HTTP knows: rare enough to be looked up.
    odd: Mutex<BTreeMap<u16, u64>>,
}

impl Codes {
    fn count(&self, code: u16) {
        let (class, rest) = (usize::from(code / 100), usize::from(code % 100));
        match class.checked_sub(1).and_then(|class| self.rows.get(class)) {
            Some(row) => {
                let row = row.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
                row[rest].fetch_add(1, Ordering::Relaxed);
            }
            None => *locked(&self.odd).entry(code).or_default() += 1,
        }
    }

    /// Those that have occurred.
    fn each(&self, mut tell: impl FnMut(u16, u64)) {
        for (first, row) in (100..).step_by(100).zip(&self.rows) {
            let counts = row.get().into_iter().flat_map(|row| row.iter());
            for (code, count) in (first..).zip(counts) {
                match count.load(Ordering::Relaxed) {
                    0 => {}
                    count => tell(code, count),
                }
            }
        }
        for (code, count) in &*locked(&self.odd) {
            tell(*code, *count);
        }
    }
}

/// `hotctl_requests_total` and `hotctl_request_duration_seconds`.
#[derive(Clone)]
pub(super) struct Requests {
    counted: Desc,
    lasted: Desc,
    threads: NonZeroUsize,
    services: Arc<Mutex<HashMap<ServiceName, Arc<Answered>>>>,
    /// Those of no service.
    pub(super) unrouted: Arc<Answered>,
}

/// The `service` label of requests that belong to no service. No service can have this name.
const NO_SERVICE: &str = "-";

impl Requests {
    pub(super) fn new(threads: NonZeroUsize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            counted: Opts::new(
                "hotctl_requests_total",
                "Requests answered, by status code; 499 where the client left first; service \"-\" where no service had the host and path.",
            )
            .variable_labels(labels(&["service", "code"]))
            .describe()?,
            lasted: Opts::new(
                "hotctl_request_duration_seconds",
                "Time from the header of a request to the last byte of its answer; for WebSockets and event streams, their whole life.",
            )
            .variable_labels(labels(&["service"]))
            .describe()?,
            threads,
            services: Arc::default(),
            unrouted: Arc::new(Answered::of(threads)),
        })
    }

    /// Those of a service, from 0 where it is new.
    pub(super) fn of(&self, service: &ServiceName) -> Arc<Answered> {
        let mut services = locked(&self.services);
        let made = || Arc::new(Answered::of(self.threads));
        services.entry(service.clone()).or_insert_with(made).clone()
    }
}

impl Collector for Requests {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.counted, &self.lasted]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let services = locked(&self.services);
        let (mut counts, mut durations) = (Vec::new(), Vec::new());
        let named = services.iter().map(|(name, one)| (name.as_str(), one));
        for (service, answered) in named.chain([(NO_SERVICE, &self.unrouted)]) {
            for (code, count) in answered.by_code() {
                let labels = [("code", code.to_string()), ("service", service.to_owned())];
                counts.push(counted(labels, count));
            }
        }
        for (service, answered) in services.iter() {
            let mut metric = Metric::from_label(pairs([("service", service.to_string())]));
            metric.set_histogram(answered.durations());
            durations.push(metric);
        }
        vec![
            family(&self.counted, MetricType::COUNTER, counts),
            family(&self.lasted, MetricType::HISTOGRAM, durations),
        ]
    }
}

/// The requests of one release, by class of status code.
pub(crate) struct Classes(Each<[AtomicU64; 5]>);

impl Classes {
    /// A code that HTTP does not know counts nowhere.
    pub(crate) fn count(&self, code: u16) {
        let class = usize::from(code / 100).checked_sub(1);
        if let Some(count) = class.and_then(|class| self.0.mine().get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `hotctl_release_requests_total`: the series of a release end some time after it does.
#[derive(Clone)]
pub(super) struct Releases {
    desc: Desc,
    threads: NonZeroUsize,
    known: Arc<Mutex<HashMap<ReleaseId, Known>>>,
}

struct Known {
    classes: Arc<Classes>,
    retired: Option<Instant>,
}

impl Releases {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

    /// How long the series of a release that is retired are kept: long enough for what is computed
    /// from them over some minutes.
    const KEPT: Duration = Duration::from_secs(15 * 60);

    pub(super) fn new(threads: NonZeroUsize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            desc: Opts::new(
                "hotctl_release_requests_total",
                "Requests that a release was given, by class of status code, those included that hotctl answered in its place.",
            )
            .variable_labels(labels(&["service", "release", "class"]))
            .describe()?,
            threads,
            known: Arc::default(),
        })
    }

    /// Those of a release, from 0 where it is new.
    pub(super) fn classes(&self, release: &ReleaseId) -> Arc<Classes> {
        let mut known = locked(&self.known);
        let one = known.entry(release.clone()).or_insert_with(|| Known {
            classes: Arc::new(Classes(Each::of(self.threads))),
            retired: None,
        });
        one.classes.clone()
    }

    /// It gets requests, for the first time or again.
    pub(super) fn begins(&self, release: &ReleaseId) {
        self.classes(release);
        if let Some(one) = locked(&self.known).get_mut(release) {
            one.retired = None;
        }
    }

    pub(super) fn retired(&self, release: &ReleaseId) {
        if let Some(one) = locked(&self.known).get_mut(release) {
            one.retired = Some(Instant::now());
        }
    }
}

impl Collector for Releases {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    /// When the metrics are asked for is when it matters which there are.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut known = locked(&self.known);
        known.retain(|_, one| one.retired.is_none_or(|since| since.elapsed() < Self::KEPT));
        let mut counts = Vec::new();
        for (release, one) in known.iter() {
            for (at, class) in Self::CLASSES.into_iter().enumerate() {
                let count = one.classes.0.sum(|part| part[at].load(Ordering::Relaxed));
                let labels = [
                    ("class", class.to_owned()),
                    ("release", release.to_string()),
                    ("service", release.service.to_string()),
                ];
                counts.push(counted(labels, count));
            }
        }
        vec![family(&self.desc, MetricType::COUNTER, counts)]
    }
}

fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn counted<const N: usize>(labels: [(&str, String); N], count: u64) -> Metric {
    let mut counter = Counter::default();
    // As the counters of the library: exact up to 2^53.
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

/// In the order of their names, as the library has them.
fn pairs<const N: usize>(labels: [(&str, String); N]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const THREE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

    #[test]
    fn what_several_threads_have_counted_is_one_sum() {
        let answered = Answered::of(THREE);
        thread::scope(|scope| {
            for _ in 0..7 {
                scope.spawn(|| {
                    for code in [200, 204, 700] {
                        answered.count(code, Duration::from_millis(1));
                    }
                });
            }
        });
        let codes: Vec<_> = answered.by_code().into_iter().collect();
        assert_eq!(codes, [(200, 7), (204, 7), (700, 7)]);
        assert_eq!(answered.durations().get_sample_count(), 21);
    }

    #[test]
    fn a_duration_is_in_every_bucket_from_its_own_on() {
        let answered = Answered::of(THREE);
        for millis in [1, 3, 60_000] {
            answered.count(200, Duration::from_millis(millis));
        }
        let durations = answered.durations();
        let counts: Vec<(f64, u64)> = durations
            .get_bucket()
            .iter()
            .map(|one| (one.upper_bound(), one.cumulative_count()))
            .collect();
        assert_eq!(
            counts[..4],
            [(0.0005, 0), (0.001, 1), (0.0025, 1), (0.005, 2)]
        );
        assert_eq!(counts[14], (30.0, 2));
        assert_eq!(durations.get_sample_count(), 3);
        assert!((durations.get_sample_sum() - 60.004).abs() < 1e-9);
    }
}
