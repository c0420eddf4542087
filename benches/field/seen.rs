//! What a load has seen. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// The outcomes of one load.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answered as they should be.
    pub done: u64,
    /// What went wrong, and how often.
    pub failed: BTreeMap<String, u64>,
    pub took: Duration,
    /// In milliseconds; of those that were answered.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub worst: f64,
}

impl Seen {
    /// How many failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    /// Count one that failed so.
    pub fn fail(&mut self, what: &str) {
        *self.failed.entry(what.to_string()).or_default() += 1;
    }

    /// What went wrong, in words.
    pub fn troubles(&self) -> String {
        let each = self.failed.iter().map(|(what, n)| format!("{n} {what}"));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Put together what the connections of a load have seen, with the time of each answer in
    /// microseconds.
    pub fn of(took: Duration, parts: Vec<(Seen, Vec<u32>)>) -> Self {
        let mut all = Self {
            took,
            ..Self::default()
        };
        let mut times = Vec::new();
        for (part, its) in parts {
            all.done += part.done;
            for (what, n) in part.failed {
                *all.failed.entry(what).or_default() += n;
            }
            times.extend(its);
        }
        times.sort_unstable();
        let at = |share: f64| {
            let at = (times.len() as f64 * share) as usize;
            let time = times.get(at).or(times.last());
            time.map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
        };
        (all.p50, all.p99, all.p999, all.worst) = (at(0.5), at(0.99), at(0.999), at(1.0));
        all
    }
}
