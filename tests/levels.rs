//! The log level of an app: changed by its own signal or request, in what is live and in nothing else,
//! and never at the cost of a process.

use std::fs;

use crate::support::program::lives;
use crate::support::status::Running;
use crate::support::{Daemon, eventually, http, leftovers};

/// What each process of a release says its level is.
fn levels(running: &Running) -> Vec<String> {
    let instances = running.instances.iter();
    let levels = instances.map(|one| http::get(one.address.inet(), "/level").text());
    levels.map(|text| text.trim().to_owned()).collect()
}

fn in_role(daemon: &Daemon, role: &str) -> Running {
    let status = daemon.status();
    let mut all = status.service("web").running.iter();
    all.find(|one| one.role == role).cloned().unwrap()
}

#[test]
fn a_request_reaches_each_process_that_is_live_and_none_that_is_on_its_way_out() {
    let daemon = Daemon::of_web(
        "instances = 2\nkeep_warm = \"1m\"\nlog_level = { request = \"PUT /level?to={level}\" }",
    );
    daemon.deploy("v1", &[]);
    let changed = daemon.hotctl(["log-level", "web", "debug"]).exits(0);
    changed.says("debug: PUT /level taken by 2 processes of web@1");
    assert_eq!(levels(&daemon.live()), ["debug", "debug"]);
    // The daemon's own is another.
    daemon.hotctl(["log-level"]).exits(0).says("info");
    daemon.deploy("v2", &[]);
    // In the app's words, whatever they are.
    let changed = daemon.hotctl(["log-level", "web", "a=b,c"]).exits(0);
    changed.says("2 processes of web@2");
    assert_eq!(levels(&daemon.live()), ["a%3Db%2Cc", "a%3Db%2Cc"]);
    assert_eq!(levels(&in_role(&daemon, "warm")), ["debug", "debug"]);
    let pids: Vec<String> = daemon
        .live()
        .instances
        .iter()
        .filter_map(|one| Some(one.pid?.to_string()))
        .collect();
    daemon
        .hotctl(["events", "web"])
        .exits(0)
        .says("log level a=b,c by PUT /level, as ")
        .says(&format!("wanted: pid {}", pids.join(", ")));
}

#[test]
fn a_candidate_that_is_up_is_told_as_well() {
    let daemon = Daemon::of_web(
        "warmup = [\"/hold?name=warm\"]\nlog_level = { request = \"PUT /level?to={level}\" }",
    );
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    let deploy = daemon.alongside(["deploy", path, "--service", "web", "--wait", "live"]);
    // It has proved itself, and is held back by what warms it up.
    eventually("it is up", || {
        let status = daemon.status();
        let mut running = status.service("web").running.iter();
        running.any(|one| one.role == "candidate" && one.instances[0].state == "up")
    });
    let changed = daemon.hotctl(["log-level", "web", "debug"]).exits(0);
    changed.says("taken by 1 process of web@1");
    let candidate = in_role(&daemon, "candidate");
    assert_eq!(levels(&candidate), ["debug"]);
    http::get(candidate.address.inet(), "/let-go?name=warm").has_status(200);
    deploy.wait().exits(0);
    assert_eq!(daemon.get("/level").text(), "debug\n");
}

#[test]
fn a_request_can_have_a_body_and_goes_to_a_unix_socket_as_well() {
    let daemon = Daemon::of_web(
        "address = \"unix\"\n[service.web.log_level]\nrequest = \"POST /level\"\n\
         body = '{\"level\":\"{level}\"}'\ncontent_type = \"application/json\"",
    );
    daemon.deploy("v1", &[]);
    daemon.hotctl(["log-level", "web", "debug"]).exits(0);
    assert_eq!(daemon.get("/level").text(), "{\"level\":\"debug\"}\n");
}

#[test]
fn a_signal_reaches_the_app_and_not_what_it_has_started() {
    let mut daemon = Daemon::of_web("instances = 2\nlog_level = { signal = \"USR1\" }");
    daemon.deploy("v1", &["--level-by-signal", "--fork-children"]);
    let before = daemon.live();
    let children: Vec<u32> = before
        .instances
        .iter()
        .flat_map(|one| leftovers::descendants(one.pid.unwrap()))
        .collect();
    assert!(children.len() >= 4, "{children:?}");
    let sent = daemon.hotctl(["log-level", "web", "debug"]).exits(0);
    sent.says("USR1 sent to 2 processes of web@1; a signal names no level");
    eventually("both have heard of it", || {
        levels(&daemon.live()) == ["debug", "debug"]
    });
    // The daemon that has adopted them can do it, too.
    daemon.kill();
    daemon.start_again();
    daemon.hotctl(["log-level", "web", "info"]).exits(0);
    eventually("both have heard of it", || {
        levels(&daemon.live()) == ["info", "info"]
    });
    assert_eq!(daemon.live().pid, before.pid);
    assert!(children.iter().all(|pid| lives(*pid)), "{children:?}");
    daemon
        .hotctl(["events", "web"])
        .exits(0)
        .says("log level debug by USR1, as ");
}

#[test]
fn a_signal_that_would_end_a_process_is_not_sent() {
    for (signal, told) in [
        ("USR1", "has no handler for it, and would be ended by it"),
        ("TTIN", "has no handler for it, and would be stopped"),
        ("WINCH", "ignores it"),
    ] {
        let daemon = Daemon::of_web(&format!("log_level.signal = \"{signal}\""));
        let first = daemon.deploy("v1", &[]);
        let refused = daemon.hotctl(["log-level", "web", "debug"]).exits(1);
        refused
            .says(&format!(
                "web@1: {signal} not sent: process {} {told}",
                first.pid
            ))
            .says("request = ");
        daemon.get("/").has_status(200);
        assert_eq!(daemon.live().pid, Some(first.pid));
    }
}

#[test]
fn what_stands_in_the_way_is_told_with_what_to_do() {
    let way =
        |request: &str| format!("log_level = {{ request = \"{request}\", timeout = \"300ms\" }}");
    for (lines, level, code, words) in [
        (
            String::new(),
            "debug",
            2,
            &["[service.web.log_level]", "signal = \"USR1\""][..],
        ),
        (
            way("PUT /level?to={level}"),
            "loud",
            1,
            &[
                "PUT 127.0.0.1:",
                "/level: answered 400: no level loud",
                "hotctl logs web",
            ],
        ),
        (
            way("GET /redirect?to={level}"),
            "debug",
            1,
            &["answered 301: moved"],
        ),
        (
            way("GET /slow?ms=5000&key=secret"),
            "debug",
            1,
            &["/slow: no answer within 300ms"],
        ),
        (
            way("PUT /level?to={level}"),
            "a b",
            2,
            &["a b", "1 to 64 letters"],
        ),
    ] {
        let daemon = Daemon::of_web(&lines);
        if !lines.is_empty() && code == 1 {
            let nobody = daemon.hotctl(["log-level", "web", level]).exits(1);
            nobody.says("web: no process of it is up");
        }
        let first = daemon.deploy("v1", &[]);
        let mut ran = daemon.hotctl(["log-level", "web", level]).exits(code);
        for word in words {
            ran = ran.says(word);
        }
        assert!(
            !ran.stderr.contains("others") && !ran.stderr.contains("secret"),
            "{ran}"
        );
        assert_eq!(daemon.live().pid, Some(first.pid));
        if code == 1 {
            daemon.hotctl(["events"]).exits(0).says("not changed");
        }
        daemon
            .hotctl(["log-level", "wep", "debug"])
            .exits(2)
            .says("web");
        let words = daemon.hotctl(["log-level", "web"]).exits(2);
        words.says("hotctl log-level web LEVEL").says("trace");
        daemon
            .hotctl(["log-level", "No", "debug"])
            .exits(2)
            .says("No");
        daemon.hotctl(["log-level"]).exits(0).says("info");
    }
}

#[test]
fn a_service_may_be_named_like_a_level_and_a_way_counts_at_once() {
    let config =
        "admin = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n[service.debug]\n";
    let daemon = Daemon::start(config);
    let path = daemon.release("v1");
    daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(0);
    let file = daemon.folder().join("hotctl.toml");
    let way = "log_level = { request = \"PUT /level?to={level}\" }";
    fs::write(file, format!("{config}{way}\n")).unwrap();
    let reloaded = daemon.hotctl(["reload"]).exits(0).says("log_level.request");
    assert!(!reloaded.stdout.contains("takes effect"), "{reloaded}");
    daemon
        .hotctl(["log-level", "debug"])
        .exits(0)
        .says("before: info");
    assert_eq!(daemon.get("/level").text(), "info\n");
    let changed = daemon.hotctl(["log-level", "debug", "trace"]).exits(0);
    changed.says("1 process of debug@1");
    assert_eq!(daemon.get("/level").text(), "trace\n");
    daemon.hotctl(["log-level"]).exits(0).says("debug");
}
