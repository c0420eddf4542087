//! One turn of one proxy: load, and what the system says of it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::cases::{Case, Per};
use crate::field::client;
use crate::field::process::{self, Cores};
use crate::field::running::Running;
use crate::field::seen::Seen;
use crate::field::wrk::wrk;

/// What was measured in it.
pub struct Sample {
    /// What the load says whose cost is told.
    pub seen: Seen,
    /// What our own client says where that was wrk.
    pub checked: Option<Seen>,
    /// Processor time for 100,000 requests, or for a gigabyte.
    pub user: f64,
    pub system: f64,
    /// The share of its cores that others had meanwhile, other machines included.
    pub others: f64,
}

/// Above this the proxy did not have its core.
const OTHERS: f64 = 0.05;

/// Caches, connections and pools settle.
pub fn warm_up(one: &Running, case: &Case, cores: &Cores) {
    let during = Duration::from_millis(300);
    let ask = one.ask(case.kind);
    client::load(one.listen, &ask, case.connections, during, &cores.load);
}

/// One turn.
pub fn measure(one: &Running, case: &Case, during: Duration, cores: &Cores) -> Sample {
    let ask = one.ask(case.kind);
    let (before, core, ours, begun) = (
        one.spent(),
        process::core_time(&case.setting.cores),
        process::spent_by_us(),
        Instant::now(),
    );
    let by_wrk = || {
        wrk(
            one.listen,
            &ask,
            case.connections,
            during,
            &case.load,
            one.folder(),
        )
    };
    let own = |during| client::load(one.listen, &ask, case.connections, during, &case.load);
    let quick = case.is_for_wrk().then(by_wrk).flatten();
    let is_wrk = quick.is_some();
    let seen = quick.unwrap_or_else(|| own(during));
    let after = one.spent();
    let (now, took) = (process::core_time(&case.setting.cores), begun.elapsed());
    let (user, system) = (after.user - before.user, after.system - before.system);
    // On its own core nobody else is expected; where it shares all of them, load and backend are.
    let expected = match case.setting.cores == cores.proxy {
        true => user + system,
        false => process::spent_by_us() - ours,
    };
    let foreign = (now.used - core.used - expected).max(0.0);
    let stolen = now.stolen - core.stolen;
    let wall = took.as_secs_f64() * case.setting.cores.len() as f64;
    let per = match case.per() {
        Per::Requests => 100_000.0 / seen.done as f64,
        Per::Gigabyte(body) => 1e9 / (seen.done as f64 * body as f64),
    };
    Sample {
        user: user * per,
        system: system * per,
        others: (foreign + stolen) / wall,
        checked: is_wrk.then(|| own(during / 2)),
        seen,
    }
}

impl Sample {
    /// Processor time as a whole.
    pub fn cost(&self) -> f64 {
        self.user + self.system
    }

    /// How many requests failed, of both loads.
    pub fn failures(&self) -> u64 {
        self.seen.failures() + self.checked.as_ref().map_or(0, Seen::failures)
    }

    /// What went wrong with them.
    pub fn troubles(&self) -> String {
        let all = [Some(&self.seen), self.checked.as_ref()];
        let words = all.into_iter().flatten().map(Seen::troubles);
        let words: Vec<String> = words.filter(|words| !words.is_empty()).collect();
        words.join(", ")
    }

    /// Whether others used its core for longer than can be neglected.
    pub fn is_marked(&self) -> bool {
        self.others > OTHERS
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.seen;
        write!(
            f,
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, p999 {:.2} ms, CPU {:.3} s ({:.3} user, {:.3} system)",
            seen.rate(),
            seen.p50,
            seen.p99,
            seen.p999,
            self.cost(),
            self.user,
            self.system
        )?;
        if self.failures() > 0 {
            write!(f, ", {} failed: {}", self.failures(), self.troubles())?;
        }
        if self.is_marked() {
            write!(f, ", others had {:.0} % of its core", self.others * 100.0)?;
        }
        Ok(())
    }
}
