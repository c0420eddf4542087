//! Processes that somebody has stopped (SIGSTOP), or that hang: they do not end, and do nothing. That
//! is found out, and somebody else does their work.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::secret;
use crate::support::load::Plan;
use crate::support::program::{lives, send};
use crate::support::{Class, Daemon, eventually, eventually_some, leftovers};

const HEALTH: &str = "\n[service.web.health]\ninterval = \"50ms\"\ntimeout = \"300ms\"\nfall = 3\n";

/// A daemon with v1 live, whose next processes get what stands in `web.env`.
fn serving(lines: &str) -> Daemon {
    let warm = match lines.contains("keep_warm") {
        true => "",
        false => "keep_warm = \"0s\"\n",
    };
    let quick = format!("{warm}start_timeout = \"3s\"\nstop_timeout = \"500ms\"");
    let lines = format!("{quick}\nenv_file = \"web.env\"\n{lines}\n{HEALTH}");
    let config = crate::support::daemon::web(&lines);
    let daemon = Daemon::start_with(&config, &[("web.env", "")]);
    daemon.deploy("v1", &[]);
    daemon
}

fn renewals(daemon: &Daemon) -> f64 {
    daemon.metric("hotctl_renewals_total", &["web", "unhealthy"])
}

#[test]
fn an_only_process_that_is_stopped_is_replaced_by_one_that_has_proved_itself() {
    for lines in [
        "",
        "strategy = \"recreate\"",
        "instances = 2\nmax_failures = 0",
    ] {
        let daemon = serving(lines);
        let before = daemon.live();
        let pids: Vec<u32> = before.instances.iter().filter_map(|one| one.pid).collect();
        for pid in &pids {
            send(*pid, Signal::STOP);
        }
        eventually("somebody else does its work", || {
            // None for a moment, where only one can run.
            let now = daemon.status().service("web").live.clone();
            now.is_some_and(|now| {
                let mut all = now.instances.iter();
                all.len() == pids.len()
                    && all.all(|one| {
                        one.state == "up" && one.pid.is_some_and(|it| !pids.contains(&it))
                    })
            })
        });
        assert_eq!(daemon.get("/").has_status(200).text(), "v1\n", "{lines}");
        eventually("it has ended", || !pids.iter().any(|pid| lives(*pid)));
        let events = daemon.hotctl(["events", "web"]).exits(0).says("unhealthy");
        // Of two, the first that is replaced is well when the other's turn comes.
        if pids.len() == 1 {
            assert_eq!(renewals(&daemon), 1.0, "{lines}");
            events.says("to be replaced by fresh processes, as none is healthy");
        }
    }
}

/// What is live is mended, and nobody goes back to what hangs.
#[test]
fn after_a_hang_was_mended_traffic_never_goes_back_to_what_hung() {
    // Kept warm, as is the default; the hung one is not, since it is not well.
    let daemon = serving("keep_warm = \"1m\"");
    let first = daemon.live().pid.unwrap();
    send(first, Signal::STOP);
    let again = |before: u32| {
        eventually_some("another serves", || {
            let live = daemon.status().service("web").live.clone()?;
            live.pid
                .filter(|pid| *pid != before && live.instances[0].state == "up")
        })
    };
    let second = again(first);
    send(second, Signal::KILL);
    let third = again(second);
    assert_ne!(third, first);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    // It hangs once more, soon: that is mended, too.
    send(third, Signal::STOP);
    let fourth = again(third);
    assert_ne!(fourth, first);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    let by = daemon.hotctl(["history", "web"]).exits(0);
    by.says("hotctl itself");
}

#[test]
fn a_rollback_to_what_hangs_starts_it_anew() {
    let daemon = serving("keep_warm = \"1m\"");
    let first = daemon.live().pid.unwrap();
    daemon.deploy("v2", &[]);
    send(first, Signal::STOP);
    eventually("that is seen", || {
        let status = daemon.status();
        let running = &status.service("web").running;
        running
            .iter()
            .any(|one| one.role == "warm" && one.instances[0].state == "unhealthy")
    });
    daemon.hotctl(["rollback", "web"]).exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    assert_ne!(daemon.live().pid, Some(first));
}

/// The database is away, say: nobody else would do better.
#[test]
fn an_unhealthy_process_serves_on_where_no_other_proves_itself() {
    let daemon = serving("");
    secret(
        &daemon.folder().join("web.env"),
        "SAMPLE_ARGS=--fail-after-ms 1000\n",
    );
    daemon.hotctl(["restart", "web"]).exits(0);
    let before = daemon.live().pid;
    secret(
        &daemon.folder().join("web.env"),
        "SAMPLE_ARGS=--always-500\n",
    );
    eventually("another was tried", || {
        let history = daemon.hotctl(["history", "web"]).exits(0).stdout;
        history.contains("failed")
    });
    assert_eq!(daemon.live().pid, before);
    daemon.get("/").has_status(500);
    eventually("nothing is left of the other", || {
        daemon.status().service("web").running.len() == 1
    });
    // It is not tried again and again.
    assert_eq!(renewals(&daemon), 1.0);
}

/// It would be ended first.
#[test]
fn where_only_one_can_run_one_that_answers_badly_is_not_ended_for_it() {
    let daemon = serving("strategy = \"recreate\"");
    secret(
        &daemon.folder().join("web.env"),
        "SAMPLE_ARGS=--fail-after-ms 500\n",
    );
    daemon.hotctl(["restart", "web"]).exits(0);
    let before = daemon.live().pid;
    let looked = || daemon.metric("hotctl_probe_duration_seconds_count", &["web"]);
    eventually("it was looked at again and again", || looked() > 30.0);
    assert_eq!((daemon.live().pid, renewals(&daemon)), (before, 0.0));
}

#[test]
fn the_end_of_an_app_is_heard_of_though_its_shim_is_stopped() {
    let daemon = serving("");
    let app = daemon.live().pid.unwrap();
    let shim = leftovers::parent(app).unwrap();
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 3)
        .every(Duration::from_millis(10))
        .start();
    load.expect(&["v1"]);
    load.wait_for(20);
    send(shim, Signal::STOP);
    eventually("it is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    });
    send(app, Signal::KILL);
    eventually("it was started again", || {
        let live = daemon.live();
        live.pid != Some(app) && live.instances[0].state == "up"
    });
    load.wait_for(20);
    // What may be sent twice waited for it.
    load.finish().assert_none_failed();
    daemon.hotctl(["events", "web"]).exits(0).says("SIGKILL");
    assert!(daemon.log().contains("the shim is told to go on"));
    assert_eq!(renewals(&daemon), 0.0);
    eventually("its shim has ended", || !lives(shim));
}

#[test]
fn a_stopped_shim_ends_its_app_and_is_taken_over_like_any_other() {
    let mut daemon = serving("");
    let app = daemon.live().pid.unwrap();
    send(leftovers::parent(app).unwrap(), Signal::STOP);
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.live().pid, Some(app));
    send(leftovers::parent(app).unwrap(), Signal::STOP);
    daemon.deploy("v2", &[]);
    eventually("it has ended", || !lives(app));
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
}
