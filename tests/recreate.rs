//! What cannot run twice is replaced without losing a request: the old one goes first, and requests
//! wait for the new one.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::support::load::{Load, Plan};
use crate::support::{Class, Daemon, eventually, http, leftovers};

/// Short enough for a test.
const QUICK: &str = "stop_timeout = \"2s\"\nstart_timeout = \"3s\"\n";

fn load(daemon: &Daemon) -> Load {
    Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 3)
        .clients(Class::NewConnection, 2)
        .clients(Class::Post, 2)
        .clients(Class::Slow, 1)
        .every(Duration::from_millis(4))
        .start()
}

/// A port that nobody else has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn outcome(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric("hotctl_park_outcomes_total", &["web", outcome])
}

fn events(daemon: &Daemon) -> Vec<Value> {
    let ran = daemon.hotctl(["events", "--json"]).exits(0);
    ran.events()
}

/// Deploy v2 and v3 under load, and see that nothing failed and nothing ran twice.
fn replaces_without_loss(daemon: &Daemon, args: &[&str]) {
    daemon.deploy("v1", args);
    let load = load(daemon);
    load.expect(&["v1"]);
    load.wait_for(50);
    for (from, to) in [("v1", "v2"), ("v2", "v3")] {
        load.flipping(from, to, || daemon.deploy(to, args));
        load.wait_for(50);
    }
    load.finish().assert_none_failed();
    let served = outcome(daemon, "served");
    eprintln!("{served} requests were parked and served");
    assert!(served > 0.0, "nobody was parked");
    let others = ["full", "timeout", "refused"].map(|it| outcome(daemon, it));
    assert_eq!(others, [0.0; 3]);
    // Each was ended before the next was started.
    let told: Vec<(String, String)> = events(daemon)
        .iter()
        .filter_map(|event| {
            let name = event["event"].as_str()?.to_owned();
            let release = event["release"].as_str()?.to_owned();
            matches!(name.as_str(), "stopped" | "started" | "flipped").then_some((name, release))
        })
        .collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        told,
        [
            ("started", "web@1"),
            ("flipped", "web@1"),
            ("stopped", "web@1"),
            ("started", "web@2"),
            ("flipped", "web@2"),
            ("stopped", "web@2"),
            ("started", "web@3"),
            ("flipped", "web@3"),
        ]
    );
}

#[test]
fn a_release_that_takes_the_place_of_the_old_one_loses_no_request() {
    let daemon = Daemon::of_web(&format!("{QUICK}strategy = \"recreate\""));
    replaces_without_loss(&daemon, &["--start-delay-ms", "200"]);
    let history: Value = daemon.hotctl(["show", "3", "--json"]).exits(0).json();
    let phases = history["phases"].as_array().unwrap();
    let phases: Vec<_> = phases
        .iter()
        .map(|it| it["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["stopping", "starting", "warm"]);
}

#[test]
fn an_app_that_ignores_port_is_deployed_at_its_own_port_without_losing_a_request() {
    let port = free_port().to_string();
    let daemon = Daemon::of_web(&format!("{QUICK}address = \"fixed:{port}\""));
    // Whatever it is told, it listens there.
    replaces_without_loss(&daemon, &["--listen-on", &port, "--start-delay-ms", "200"]);
    assert_eq!(daemon.live().address.inet().port().to_string(), port);
}

/// It had failed, and its end took longer than the next order.
#[test]
fn what_is_started_in_the_place_of_another_waits_for_its_end() {
    let port = free_port().to_string();
    let lines = "start_timeout = \"1s\"\nstop_timeout = \"2s\"\n";
    let daemon = Daemon::of_web(&format!("{lines}address = \"fixed:{port}\""));
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    let listens = ["--listen-on", &port];
    let mut args = vec!["deploy", path, "--", "--always-500", "--ignore-term"];
    args.extend(listens);
    daemon.hotctl(args).exits(1).says("status 500");
    // It holds the port for two seconds from here.
    daemon.deploy("v2", &listens);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
}

#[test]
fn an_app_that_listens_at_another_port_is_told_to_be_given_that_port() {
    let port = free_port().to_string();
    let daemon = Daemon::of_web("start_timeout = \"1s\"");
    let path = daemon.release("v1");
    let args = ["deploy", path.to_str().unwrap(), "--", "--listen-on", &port];
    let ran = daemon.hotctl(args).exits(1).says("not on PORT");
    let last = ran.stderr.trim_end().lines().last().unwrap().to_owned();
    assert_eq!(last.trim(), format!("try: address = \"fixed:{port}\""));
}

#[test]
fn somebody_else_at_the_fixed_port_is_not_taken_for_the_app() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let pid = std::process::id();
    let daemon = Daemon::of_web(&format!("address = \"fixed:{port}\""));
    let path = daemon.release("v1");
    let args = ["deploy", path.to_str().unwrap()];
    daemon
        .hotctl(args)
        .exits(1)
        .says(&format!(
            "127.0.0.1:{port}: taken by another process, pid {pid}: "
        ))
        .says(&format!("try: kill {pid}, where it is not needed"));
}

#[test]
fn a_release_that_fails_in_the_place_of_the_old_one_leaves_it_live_and_no_request_lost() {
    let daemon = Daemon::of_web(&format!("{QUICK}strategy = \"recreate\""));
    daemon.deploy("v1", &[]);
    let before = daemon.live();
    let load = load(&daemon);
    load.expect(&["v1"]);
    load.wait_for(50);
    for (args, reason) in [
        (vec!["--crash-at-start", "3"], "exit status 3"),
        (vec!["--never-listen"], "not healthy within 3s"),
    ] {
        let path = daemon.release("v2");
        let mut all = vec!["deploy", path.to_str().unwrap(), "--"];
        all.extend(args);
        daemon
            .hotctl(all)
            .exits(1)
            .says(reason)
            .says("web@1 live again");
        load.wait_for(50);
    }
    load.finish().assert_none_failed();
    assert!(outcome(&daemon, "served") > 0.0);
    let now = daemon.live();
    assert_eq!((&now.release, now.role.as_str()), (&before.release, "live"));
    assert_ne!(now.pid, before.pid, "it was started again");
    eventually("nothing else runs", || {
        // Its shim and itself.
        leftovers::processes(daemon.folder()).len() <= 3
    });
}

#[test]
fn what_cannot_be_started_at_all_does_not_touch_what_is_live() {
    let daemon = Daemon::start_with(
        &crate::support::daemon::web("strategy = \"recreate\"\nenv_file = \"web.env\""),
        &[("web.env", "A=1\n")],
    );
    daemon.deploy("v1", &[]);
    let before = daemon.live();
    std::fs::remove_file(daemon.folder().join("web.env")).unwrap();
    daemon.hotctl(["restart"]).exits(1).says("web.env");
    let now = daemon.live();
    assert_eq!((now.pid, now.restarts), (before.pid, 0));
}

#[test]
fn a_cancel_while_the_new_one_starts_brings_the_old_one_back() {
    let daemon = Daemon::of_web("start_timeout = \"20s\"\nstrategy = \"recreate\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    let args = ["deploy", path.to_str().unwrap(), "--", "--never-listen"];
    let deploy = daemon.alongside(args);
    eventually("the old one is gone", || {
        daemon.status().service("web").state == "parked"
            && daemon.status().service("web").count("candidate") == 1
    });
    let (to, daemon) = (daemon.listen(), daemon);
    let waiter = std::thread::spawn(move || http::get(to, "/"));
    daemon.hotctl(["cancel"]).exits(0);
    deploy.wait().exits(1).says("cancelled");
    assert_eq!(waiter.join().unwrap().has_status(200).text(), "v1\n");
    assert_eq!(daemon.status().service("web").state, "serving");
}

#[test]
fn a_rollback_and_a_restart_of_it_take_the_same_way() {
    let daemon = Daemon::of_web(&format!("{QUICK}strategy = \"recreate\""));
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &[]);
    let load = load(&daemon);
    load.expect(&["v2"]);
    load.wait_for(20);
    daemon.hotctl(["restart"]).exits(0);
    load.wait_for(20);
    load.flipping("v2", "v1", || daemon.hotctl(["rollback"]).exits(0));
    load.wait_for(20);
    load.finish().assert_none_failed();
    assert_eq!(daemon.live().release, "web@1");
}
