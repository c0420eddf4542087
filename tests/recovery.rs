//! The daemon dies at each of its steps, and nothing is lost by it: what is live goes on with the
//! same process, and the next daemon brings to its end what this one was at.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::daemon::web;
use crate::support::eventually::within;
use crate::support::program::send;
use crate::support::rest::{apps, at_rest};
use crate::support::{Daemon, eventually, leftovers};
use rustix::process::Signal;

/// A place at which the daemon can die, and the how manieth time it is passed.
type Point = (String, usize);

/// What the daemon is at when it dies.
#[derive(Clone, Copy)]
struct Story {
    name: &'static str,
    config: &'static str,
    /// What `web@2` is started with.
    args: &'static [&'static str],
    /// Whether it can become live.
    good: bool,
    /// How it takes over.
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Beside what is live.
    Beside,
    /// In the place of what is live, which is ended first.
    Instead,
}

const STORIES: [Story; 5] = [
    Story {
        name: "a good deploy",
        config: "keep_warm = \"0s\"\nbefore_start = [\"true\"]",
        args: &[],
        good: true,
        way: Way::Beside,
    },
    Story {
        name: "a good deploy of two instances that keeps the old one warm",
        config: "keep_warm = \"300ms\"\ninstances = 2\naddress = \"unix\"",
        args: &[],
        good: true,
        way: Way::Beside,
    },
    Story {
        name: "a deploy that fails",
        config: "keep_warm = \"0s\"",
        args: &["--crash-at-start", "3"],
        good: false,
        way: Way::Beside,
    },
    Story {
        name: "a good deploy of what cannot run twice",
        config: "strategy = \"recreate\"\nbefore_start = [\"true\"]",
        args: &[],
        good: true,
        way: Way::Instead,
    },
    Story {
        name: "a deploy that fails of what cannot run twice",
        config: "strategy = \"recreate\"",
        args: &["--crash-at-start", "3"],
        good: false,
        way: Way::Instead,
    },
];

fn folder(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("failpoints")
}

/// A daemon with `web@1` live, which counts from now on.
fn at_the_start(story: Story) -> Daemon {
    let daemon = Daemon::start(&web(story.config));
    daemon.deploy("v1", &[]);
    eventually("web@1 has settled", || {
        daemon.status().service("web").deployment.is_none()
    });
    fs::create_dir(folder(&daemon)).unwrap();
    fs::write(folder(&daemon).join("passed"), "").unwrap();
    daemon
}

fn deploy(daemon: &Daemon, story: Story) {
    let path = daemon.release("v2");
    daemon.try_deploy(&path, story.args);
}

fn points(story: Story) -> Vec<Point> {
    let daemon = at_the_start(story);
    deploy(&daemon, story);
    eventually("it is at rest", || at_rest(&daemon).is_some());
    let passed = fs::read_to_string(folder(&daemon).join("passed")).unwrap();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let points = passed.lines().map(|name| {
        let times = times.entry(name).or_default();
        *times += 1;
        (name.to_owned(), *times)
    });
    points.collect()
}

/// How long it took from the start of the next daemon to its first answer; `None` where this point
/// was not passed this time.
fn dies_at(story: Story, (name, times): &Point) -> Option<Duration> {
    let mut daemon = at_the_start(story);
    let before = daemon.live();
    fs::write(folder(&daemon).join("die"), format!("{name} {times}")).unwrap();
    deploy(&daemon, story);
    // What comes after the end of the command has its time, too.
    eventually("it has died or is at rest", || {
        daemon.has_ended() || at_rest(&daemon).is_some()
    });
    within(Duration::from_secs(2), || daemon.has_ended().then_some(()));
    let has_died = daemon.has_ended();
    if !has_died {
        fs::remove_file(folder(&daemon).join("die")).unwrap();
        // It may still pass the place in this very moment.
        daemon.kill();
        daemon.start_again();
        return None;
    }
    let about = format!("{}: killed at {name} #{times}", story.name);
    let lives = |pid: u32| fs::exists(format!("/proc/{pid}")).unwrap();
    // Its number is given with the first phase that is written down.
    let record = daemon.folder().join("state/services/web/record.json");
    let record = fs::read_to_string(record).unwrap();
    let ordered =
        record.contains("\"number\":2,\"from\"") || record.contains("\"live\":{\"release\":2");
    fs::remove_file(folder(&daemon).join("die")).unwrap();
    let began = Instant::now();
    daemon.start_again();
    let answer = daemon.get("/").text();
    let took = began.elapsed();
    assert!(answer == "v1\n" || answer == "v2\n", "{about}: {answer:?}");
    eventually(&format!("{about}: it comes to rest"), || {
        at_rest(&daemon).is_some()
    });
    let live = daemon.live();
    let answer = daemon.get("/").text();
    match live.release.as_str() {
        "web@1" => {
            assert_eq!(answer, "v1\n", "{about}");
            assert!(!story.good || !ordered, "{about}: it should have gone on");
            if story.way == Way::Beside {
                assert_eq!(live.pid, before.pid, "{about}: another process");
            }
        }
        "web@2" => {
            assert_eq!(answer, "v2\n", "{about}");
            assert!(story.good, "{about}: a bad release is live");
            let old = before.pid.unwrap();
            assert!(!lives(old), "{about}: the old release still runs");
        }
        other => panic!("{about}: {other} is live"),
    }
    // It is a daemon like any other.
    daemon.deploy("v3", &[]);
    assert_eq!(daemon.get("/").text(), "v3\n");
    Some(took)
}

fn dies_everywhere(story: Story) {
    let points = points(story);
    println!("{}: {} points", story.name, points.len());
    let mut died = Vec::new();
    for point in &points {
        let took = dies_at(story, point);
        println!("  {} #{}: {took:?}", point.0, point.1);
        died.extend(took);
    }
    died.sort();
    println!(
        "  died at {} of {} points; start to first answer, `hotctl status` included: median {:?}",
        died.len(),
        points.len(),
        died.get(died.len() / 2)
    );
    // Which of two tasks is first may differ from run to run; not more than that.
    assert!(
        died.len() * 10 >= points.len() * 9,
        "too many points were not passed"
    );
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_good_deploy_loses_nothing() {
    dies_everywhere(STORIES[0]);
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_deploy_of_a_pool_loses_nothing() {
    dies_everywhere(STORIES[1]);
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_bad_deploy_loses_nothing() {
    dies_everywhere(STORIES[2]);
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_deploy_of_what_cannot_run_twice_loses_nothing() {
    dies_everywhere(STORIES[3]);
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_bad_deploy_of_what_cannot_run_twice_loses_nothing() {
    dies_everywhere(STORIES[4]);
}

#[test]
fn an_app_that_ended_while_no_daemon_was_there_is_told_and_started_again() {
    let mut daemon = Daemon::of_web("");
    let before = daemon.deploy("v1", &[]);
    daemon.kill();
    send(before.pid, Signal::ABORT);
    eventually("the app is gone", || {
        !fs::exists(format!("/proc/{}", before.pid)).unwrap()
    });
    daemon.start_again();
    eventually("it serves again", || daemon.get("/").text() == "v1\n");
    assert_ne!(daemon.live().pid, Some(before.pid));
    daemon.hotctl(["events"]).exits(0).says("SIGABRT");
}

#[test]
fn what_is_left_of_an_app_whose_shim_was_killed_with_the_daemon_is_ended() {
    let mut daemon = Daemon::of_web("");
    let before = daemon.deploy("v1", &["--fork-children"]);
    let shim = leftovers::parent(before.pid).unwrap();
    daemon.kill();
    send(shim, Signal::KILL);
    eventually("the app is gone", || {
        !fs::exists(format!("/proc/{}", before.pid)).unwrap()
    });
    daemon.start_again();
    eventually("it serves again", || daemon.get("/").text() == "v1\n");
    let live = daemon.live().pid.unwrap();
    assert_ne!(live, before.pid);
    eventually("only what is live runs", || {
        let family = leftovers::descendants(leftovers::parent(live).unwrap());
        apps(&daemon).iter().all(|pid| family.contains(pid))
    });
}
