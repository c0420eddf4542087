//! What is counted when it is asked for, and not before: requests in flight, and those that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use super::locked;
use crate::switch::Switch;

/// `hotctl_requests_in_flight`: nobody counts it, it is the tickets of the pools when it is asked.
#[derive(Clone)]
pub(super) struct InFlight {
    desc: Desc,
    pub(super) switch: Arc<Mutex<Weak<Switch>>>,
}

impl InFlight {
    const NAME: &str = "hotctl_requests_in_flight";
    const HELP: &str = "Requests that a release is serving now.";
    const LABELS: [&str; 3] = ["service", "release", "kind"];

    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let labels = Self::LABELS.map(str::to_owned).to_vec();
        Ok(Self {
            desc: Desc::new(Self::NAME.into(), Self::HELP.into(), labels, HashMap::new())?,
            switch: Arc::default(),
        })
    }
}

impl Collector for InFlight {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(switch) = locked(&self.switch).upgrade() else {
            return Vec::new();
        };
        let Ok(gauge) = IntGaugeVec::new(Opts::new(Self::NAME, Self::HELP), &Self::LABELS) else {
            return Vec::new();
        };
        for pool in switch.pools() {
            let release = pool.release();
            let (service, name) = (release.service.as_str(), release.to_string());
            for (kind, count) in pool.open().by_kind() {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                // Added, not set: a release that was restarted has two pools for a while.
                gauge.with_label_values(&[service, &name, kind]).add(count);
            }
        }
        gauge.collect()
    }
}

/// `hotctl_parked_requests`: as with those in flight, they are counted when it is asked.
#[derive(Clone)]
pub(super) struct Waiting {
    gauge: IntGaugeVec,
    pub(super) switch: Arc<Mutex<Weak<Switch>>>,
}

impl Waiting {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            gauge: IntGaugeVec::new(
                Opts::new(
                    "hotctl_parked_requests",
                    "Requests that wait because nothing can serve their service for a moment.",
                ),
                &["service"],
            )?,
            switch: Arc::default(),
        })
    }
}

impl Collector for Waiting {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        if let Some(switch) = locked(&self.switch).upgrade() {
            for (service, count) in switch.parked() {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.gauge.with_label_values(&[service.as_str()]).set(count);
            }
        }
        self.gauge.collect()
    }
}
