//! The safety net: a release that goes bad soon after it went live loses its traffic again by itself,
//! and nobody but its own requests notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::http::{self, Answer, Trouble};
use crate::support::{Daemon, eventually, eventually_some};

/// From the evidence until traffic is back, and the time that three probes take to be evidence.
const BACK_WITHIN: Duration = Duration::from_millis(2000 + 500);

/// What one request came to.
#[derive(Debug)]
struct Seen {
    at: Instant,
    answer: Result<Answer, Trouble>,
}

/// Clients that ask again and again, and keep what they saw.
struct Watchers {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Seen>>>,
}

impl Watchers {
    /// Three clients, a connection for each request. Bounded by `finish`, and by their count.
    fn of(daemon: &Daemon) -> Self {
        const MOST: usize = 100_000;
        let stop = Arc::new(AtomicBool::new(false));
        let to = daemon.listen();
        let clients = (0..3).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Acquire) && seen.len() < MOST {
                    let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
                    let answer = http::try_ask(to, request);
                    seen.push(Seen {
                        at: Instant::now(),
                        answer,
                    });
                }
                seen
            })
        });
        Self {
            clients: clients.collect(),
            stop,
        }
    }

    fn finish(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Release);
        let clients = std::mem::take(&mut self.clients);
        let all = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let mut all: Vec<Seen> = all.collect();
        all.sort_by_key(|seen| seen.at);
        all
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Deploys a good release and then one that goes bad with these arguments; waits until traffic is
/// back. What failed must have been the bad release's own; the reason must be told.
#[track_caller]
fn goes_bad(lines: &str, args: &[&str], reason: &str, kind: &str) -> Vec<Seen> {
    let daemon = Daemon::of_web(&format!("keep_warm = \"1m\"\n{lines}"));
    let first = daemon.deploy("good", &[]);
    let watchers = Watchers::of(&daemon);
    let second = daemon.deploy("bad", args);
    let deployment = daemon.status().service("web").deployment.clone().unwrap();
    let left = deployment["hold_left_s"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 60.0, "the countdown: {deployment}");
    eventually("traffic is back with the old release", || {
        daemon.get("/").header("x-version") == "good"
            && daemon.status().service("web").deployment.is_none()
    });
    let seen = watchers.finish();
    let live = daemon.live();
    assert_eq!(
        (live.release.as_str(), live.pid),
        (first.release.as_str(), Some(first.pid)),
        "the same process as before"
    );
    let failed: Vec<&Seen> = seen.iter().filter(|seen| !is_good(seen)).collect();
    for seen in &failed {
        assert!(
            is_its_own(seen),
            "not a failure of the bad release: {seen:?}"
        );
    }
    assert!(seen.iter().any(|seen| version(seen) == Some("bad")));
    assert_eq!(version(seen.last().unwrap()), Some("good"));
    let last_good_of_bad = seen
        .iter()
        .rfind(|seen| is_good(seen) && version(seen) == Some("bad"));
    let begun = last_good_of_bad.unwrap().at;
    let back = seen
        .iter()
        .find(|seen| seen.at > begun && version(seen) == Some("good"));
    let took = back.unwrap().at - begun;
    assert!(took < BACK_WITHIN, "traffic was back only after {took:?}");
    eprintln!(
        "{} requests, {} failed, all of them the bad release's own",
        seen.len(),
        failed.len()
    );
    let why = eventually_some("the record of it", || {
        let record: Value = daemon.hotctl(["show", "2", "--json"]).exits(0).json();
        (record["result"] == "flipped_back").then(|| record["why"].clone())
    });
    assert_eq!(why["kind"], kind, "{why}");
    let text = why["text"].as_str().unwrap();
    assert!(
        text.contains(&second.release) && text.contains(reason),
        "{text}"
    );
    daemon.hotctl(["history"]).exits(0).says("flipped back");
    daemon.hotctl(["show", "2"]).exits(0).says(reason);
    assert!(daemon.metric("hotctl_flip_backs_total", &["web", kind]) == 1.0);
    let events = daemon.hotctl(["events"]).exits(0);
    events.says("flipped back from").says(reason);
    seen
}

fn version(seen: &Seen) -> Option<&str> {
    let answer = seen.answer.as_ref().ok()?;
    answer.head.header("x-version")
}

fn is_good(seen: &Seen) -> bool {
    seen.answer.as_ref().is_ok_and(|it| it.head.status == 200)
}

/// It was answered by the bad release, or was in flight on it when it ended.
fn is_its_own(seen: &Seen) -> bool {
    let Ok(answer) = &seen.answer else {
        return false;
    };
    let in_flight = ["upstream_closed", "connect_failed"];
    answer.head.header("x-version") == Some("bad")
        || answer
            .head
            .header("x-hotctl-error")
            .is_some_and(|error| in_flight.contains(&error))
}

#[test]
fn a_release_that_dies_after_the_flip_loses_its_traffic_by_itself() {
    goes_bad(
        "",
        &["--exit-after-ms", "5000"],
        "ended after the flip",
        "exited",
    );
}

#[test]
fn a_release_that_fails_its_probes_after_the_flip_loses_its_traffic_by_itself() {
    goes_bad(
        "max_failures = 0\nhealth.path = \"/up\"\nhealth.status = \"200\"\nhealth.interval = \"100ms\"",
        &["--fail-after-ms", "4000"],
        "no longer healthy after the flip",
        "not_healthy",
    );
}

#[test]
fn a_release_that_answers_500_to_real_requests_loses_its_traffic_by_itself() {
    let seen = goes_bad(
        "health.path = \"/up\"\nhealth.status = \"200\"",
        &["--fail-real-after-ms", "3000"],
        "10 requests in a row",
        "requests_failed",
    );
    let failed = seen.iter().filter(|seen| !is_good(seen)).count();
    assert!(
        (10..1000).contains(&failed),
        "{failed} requests failed until ten in a row were evidence"
    );
}

#[test]
fn a_release_that_goes_bad_while_its_deployer_waits_is_told_to_him() {
    let daemon = Daemon::of_web("keep_warm = \"1m\"");
    daemon.deploy("good", &[]);
    let bad = daemon.release("bad");
    let bad = bad.to_str().unwrap();
    let args = [
        "deploy",
        bad,
        "--wait",
        "settled",
        "--",
        "--exit-after-ms",
        "1500",
    ];
    let ran = daemon.hotctl(args).exits(1);
    ran.says("ended after the flip").says("hotctl logs web@2");
    assert_eq!(daemon.get("/").text(), "good\n");
}

#[test]
fn a_release_that_stays_well_is_settled_when_the_warm_time_is_over() {
    let daemon = Daemon::of_web("keep_warm = \"1s\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    let args = [
        "deploy",
        path.to_str().unwrap(),
        "--wait",
        "settled",
        "--json",
    ];
    let events = daemon.hotctl(args).exits(0).events();
    let last = events.last().unwrap();
    assert_eq!(last["event"], "settled", "{last}");
    eventually("only the new release is left", || {
        daemon.status().service("web").running.len() == 1
    });
    assert_eq!(daemon.live().release, "web@2");
}

#[test]
fn without_a_warm_release_nothing_flips_back_and_the_process_is_started_again() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &["--exit-after-ms", "1000"]);
    eventually("it was started again", || daemon.live().restarts > 0);
    assert_eq!(daemon.live().release, "web@2");
    assert!(daemon.metric("hotctl_process_restarts_total", &["web", "exited"]) >= 1.0);
    assert!(daemon.metric("hotctl_flip_backs_total", &["web"]) == 0.0);
    // It would go on for ever.
    daemon.deploy("v3", &[]);
    eventually("v3 alone runs", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn failed_requests_with_good_ones_between_them_are_no_reason_to_go_back() {
    let daemon = Daemon::of_web("keep_warm = \"1m\"");
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &[]);
    for _ in 0..5 {
        for _ in 0..9 {
            daemon.get("/status?code=500").has_status(500);
        }
        daemon.get("/").has_status(200);
    }
    // Ten that are the client's fault are none of the release's.
    for _ in 0..20 {
        daemon.get("/status?code=404").has_status(404);
    }
    assert_eq!(daemon.get("/").text(), "v2\n");
    assert!(daemon.metric("hotctl_flip_backs_total", &["web"]) == 0.0);
}
