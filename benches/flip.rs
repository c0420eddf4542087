//! What users notice of deploys: a steady load on a real daemon with real processes, some time
//! without a deploy, then one after the other, then some time without again. Every request is
//! looked at; the slowest within a second of a flip are compared with the slowest of quiet times.
//!
//! `cargo bench --bench flip -- [--deploys N] [--rate PER_SECOND] [--steady SECONDS]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use report::{Report, flag};
use support::load::{Class, Plan};
use support::outcomes::{Outcomes, Timed};
use support::{Daemon, eventually};

const KEEP_ALIVE: usize = 64;
const NEW_CONNECTIONS: usize = 8;
/// How far from a flip a request still counts as one of a flip.
const NEAR: Duration = Duration::from_secs(1);
/// From flip to flip: the windows around two flips touch, and do not overlap.
const BETWEEN: Duration = Duration::from_secs(2);
/// Caches, connections and the processor's clock settle in this time.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("flip");
    let deploys = flag("--deploys", 200);
    let rate = flag("--rate", 3_000);
    let steady = Duration::from_secs(flag("--steady", 30));
    let longest =
        BETWEEN * u32::try_from(deploys).unwrap() * 4 + steady * 2 + Duration::from_secs(60);

    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let clients = KEEP_ALIVE + NEW_CONNECTIONS;
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, KEEP_ALIVE)
        .clients(Class::NewConnection, NEW_CONNECTIONS)
        .every(Duration::from_secs_f64(clients as f64 / rate as f64))
        .at_most(u64::MAX, longest)
        .keep_times()
        .start();
    load.expect(&["v0"]);
    thread::sleep(WARM_UP + steady);

    let mut flips = Vec::new();
    let mut published = Vec::new();
    for number in 1..=deploys {
        let began = Instant::now();
        let path = daemon.release(&format!("v{number}"));
        let (old, new) = (format!("v{}", number - 1), format!("v{number}"));
        let ran = load.flipping(&old, &new, || daemon.try_deploy(&path, &[]).exits(0));
        flips.push(load.begun().elapsed());
        let events = ran.events();
        let flipped = events
            .iter()
            .find(|event| event["event"] == "flipped")
            .expect("a flip");
        published.push(flipped["took_us"].as_f64().expect("a number"));
        eventually("the old release has been stopped", || {
            daemon.status().service("web").running.len() == 1
        });
        std::fs::remove_file(path).expect("the copy");
        thread::sleep(BETWEEN.saturating_sub(began.elapsed()));
    }
    let last = load.begun().elapsed();
    thread::sleep(NEAR + steady);
    let outcomes = load.finish();

    report.note_others();
    report.note(&format!(
        "{deploys} deploys, {} requests, {} failed, {} idle connections closed; {KEEP_ALIVE} \
         keep-alive and {NEW_CONNECTIONS} new-connection clients, {rate} requests a second",
        outcomes.total(),
        outcomes.failed(),
        outcomes.closed_idle()
    ));
    report.row(
        "flip: from the order until nobody can pick the old pool",
        "µs",
        &published,
    );
    let sum = daemon.metric("hotctl_switch_duration_seconds_sum", &["web"]);
    let count = daemon.metric("hotctl_switch_duration_seconds_count", &["web"]);
    report.row("the same by the metric, mean", "µs", &[sum / count * 1e6]);
    compare(&mut report, &outcomes, &flips, last);
    report.append();
    outcomes.assert_none_failed();
    if deploys >= 200 {
        assert!(
            outcomes.total() >= 1_000_000,
            "only {} requests",
            outcomes.total()
        );
    }
}

/// The slowest near a flip beside the slowest of quiet times.
fn compare(report: &mut Report, outcomes: &Outcomes, flips: &[Duration], last: Duration) {
    let first = flips.first().copied().unwrap_or_default();
    let micros = |time: Duration| time.as_micros() as u64;
    let (warm, quiet_until, quiet_from) = (
        micros(WARM_UP),
        micros(first.saturating_sub(NEAR * 2)),
        micros(last + NEAR),
    );
    let near = micros(NEAR);
    let flips: Vec<u64> = flips.iter().map(|flip| micros(*flip)).collect();
    let is_near = |at: u64| {
        let after = flips.partition_point(|flip| *flip <= at);
        let before = after.checked_sub(1).and_then(|i| flips.get(i));
        before.is_some_and(|flip| at - flip <= near)
            || flips.get(after).is_some_and(|flip| flip - at <= near)
    };
    let times = |keep: &dyn Fn(u64) -> bool| -> Vec<u32> {
        let all = outcomes.classes.values().flat_map(|tally| &tally.times);
        let kept = all.filter(|Timed { at, .. }| keep(u64::from(*at)));
        let mut took: Vec<u32> = kept.map(|timed| timed.took).collect();
        took.sort_unstable();
        took
    };
    let near = times(&is_near);
    let steady = times(&|at| at >= warm && (at < quiet_until || at > quiet_from));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        let (near, steady) = (percentile(&near, share), percentile(&steady, share));
        report.row(&format!("{name} within 1 s of a flip"), "µs", &[near]);
        report.row(&format!("{name} without a deploy"), "µs", &[steady]);
        report.row(&format!("{name}, ratio"), "×", &[near / steady]);
    }
    report.note(&format!(
        "{} requests near a flip, {} in quiet times",
        near.len(),
        steady.len()
    ));
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at)
        .or(sorted.last())
        .map_or(f64::NAN, |took| f64::from(*took))
}
