//! What takes no requests is deployed, supervised and rolled back like what does.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::web;
use crate::support::program::send;
use crate::support::{Daemon, eventually, http};

/// Quick enough for a test.
const QUICK: &str = "http = false\nstop_timeout = \"2s\"\nstart_timeout = \"5s\"\n";
const YOUNG: &str = "\n[service.web.health]\nmin_uptime = \"200ms\"\n";

/// A worker that writes what it is, again and again, and notices if it is not alone.
const WORK: &str = r#"
mkdir "$HOTCTL_DATA/alone" 2> /dev/null || echo twice >> "$HOTCTL_DATA/twice"
trap 'rmdir "$HOTCTL_DATA/alone"; exit 0' TERM
test -e "$HOTCTL_DATA/crash" && exit 3
while :; do
    echo "VERSION $HOTCTL_RELEASE ${PORT-none}" >> "$HOTCTL_DATA/done"
    sleep 0.02
done
"#;

fn worker(daemon: &Daemon, version: &str) -> PathBuf {
    let folder = daemon.folder().join(version);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("work"), WORK.replace("VERSION", version)).unwrap();
    folder
}

fn data(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("state/services/web/data")
}

/// What has been done last.
fn last(data: &Path) -> String {
    let done = fs::read_to_string(data.join("done")).unwrap_or_default();
    done.lines().last().unwrap_or_default().to_owned()
}

fn deploy(daemon: &Daemon, version: &str) {
    let path = worker(daemon, version);
    let args = ["deploy", path.to_str().unwrap(), "--", "sh", "work"];
    daemon.hotctl(args).exits(0).says("nowhere");
}

#[test]
fn a_worker_is_deployed_supervised_and_rolled_back() {
    let daemon = Daemon::of_web(&format!("{QUICK}{YOUNG}"));
    deploy(&daemon, "v1");
    let data = data(&daemon);
    // It is told of no port.
    eventually("v1 works", || last(&data) == "v1 web@1 none");
    deploy(&daemon, "v2");
    eventually("v2 works", || last(&data) == "v2 web@2 none");
    eventually("v1 has ended", || {
        daemon.status().service("web").running.len() == 1
    });
    // There is no way to it.
    assert_eq!(
        http::get(daemon.listen(), "/").header("x-hotctl-error"),
        "no_route"
    );
    let killed = daemon.live().pid.unwrap();
    send(killed, Signal::KILL);
    eventually("it is started again", || {
        let live = daemon.live();
        live.restarts == 1 && live.instances[0].state == "up"
    });
    daemon.hotctl(["rollback"]).exits(0);
    eventually("v1 works", || last(&data) == "v1 web@1 none");
    assert_eq!(daemon.status().service("web").state, "serving");
    daemon.hotctl(["status"]).exits(0).says("worker");
    daemon.hotctl(["pause"]).exits(1).says("takes no requests");
    daemon.hotctl(["stop"]).exits(0);
    eventually("nothing runs", || {
        daemon.status().service("web").running.is_empty()
    });
}

#[test]
fn a_worker_that_does_not_live_long_enough_is_not_deployed() {
    let daemon = Daemon::of_web(&format!("{QUICK}{YOUNG}"));
    deploy(&daemon, "v1");
    let before = daemon.live();
    let path = worker(&daemon, "v2");
    fs::write(path.join("work"), "sleep 0.05; echo no queue; exit 4").unwrap();
    let args = ["deploy", path.to_str().unwrap(), "--", "sh", "work"];
    daemon
        .hotctl(args)
        .exits(1)
        .says("exit status 4")
        .says("no queue");
    assert_eq!(daemon.live().pid, before.pid);
}

#[test]
fn two_workers_that_must_not_overlap_never_run_at_the_same_time() {
    let daemon = Daemon::of_web(&format!("{QUICK}overlap = false{YOUNG}"));
    for version in ["v1", "v2", "v3"] {
        deploy(&daemon, version);
    }
    let data = data(&daemon);
    eventually("v3 works", || last(&data).starts_with("v3"));
    daemon.hotctl(["rollback"]).exits(0);
    eventually("v2 works", || last(&data).starts_with("v2"));
    // One that fails leaves the old one at work.
    let path = worker(&daemon, "v4");
    fs::write(path.join("work"), "exit 4").unwrap();
    let args = ["deploy", path.to_str().unwrap(), "--", "sh", "work"];
    daemon
        .hotctl(args)
        .exits(1)
        .says("exit status 4")
        .says("web@2 live again");
    let before = fs::metadata(data.join("done")).unwrap().len();
    eventually("v2 goes on", || {
        fs::metadata(data.join("done")).unwrap().len() > before
    });
    assert!(!data.join("twice").exists(), "two have run at once");
}

#[test]
fn a_worker_can_say_itself_that_it_is_ready() {
    let health = "\n[service.web.health]\nkind = \"notify\"\n";
    let daemon = Daemon::of_web(&format!("{QUICK}{health}"));
    let path = daemon.release("v1");
    let args = [
        "deploy",
        path.to_str().unwrap(),
        "--",
        "--listen-on",
        "0",
        "--notify-after-ms",
        "100",
    ];
    daemon.hotctl(args).exits(0);
    let silent = daemon.release("v2");
    let args = ["deploy", silent.to_str().unwrap(), "--", "--listen-on", "0"];
    daemon.hotctl(args).exits(1).says("READY=1");
    assert_eq!(daemon.live().release, "web@1");
}

#[test]
fn a_worker_that_ends_again_and_again_counts_as_failed() {
    let loops = "crash_loop = { deaths = 2 }";
    let daemon = Daemon::of_web(&format!("{QUICK}{loops}{YOUNG}"));
    deploy(&daemon, "v1");
    fs::write(data(&daemon).join("crash"), "").unwrap();
    send(daemon.live().pid.unwrap(), Signal::KILL);
    eventually("it counts as failed", || {
        daemon.status().service("web").state == "failed"
    });
    let events = daemon.hotctl(["events", "--json"]).exits(0).events();
    let loops = |event: &&Value| event["event"] == "crash_loop";
    assert_eq!(events.iter().filter(loops).count(), 1);
}

#[test]
fn what_only_a_service_with_requests_has_is_refused_of_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hotctl.toml");
    fs::write(
        &file,
        web("http = false\nhosts = [\"a.test\"]\naddress = \"unix\""),
    )
    .unwrap();
    let mut command = crate::support::daemon::hotctl(folder.path());
    let ran = crate::support::program::run(command.arg("check"));
    ran.exits(2)
        .says("service.web.hosts")
        .says("service.web.address")
        .says("takes no requests");
}

#[test]
fn a_worker_and_a_service_stand_side_by_side() {
    let config = format!(
        "{}\n[service.jobs]\nhttp = false\n[service.jobs.health]\nmin_uptime = \"100ms\"\n",
        web("keep_warm = \"0s\"")
    );
    let daemon = Daemon::start(&config);
    daemon.deploy("v1", &[]);
    let path = worker(&daemon, "jobs");
    let path = path.to_str().unwrap();
    daemon
        .hotctl(["deploy", path, "--service", "jobs", "--", "sh", "work"])
        .exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    daemon
        .hotctl(["status", "jobs"])
        .exits(0)
        .says("jobs@1")
        .says("worker");
}
