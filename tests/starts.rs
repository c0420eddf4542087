//! Every kind of start: each kind of address, one process or a pool, each kind of proof, and the
//! commands around it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::Upload;
use crate::support::load::Plan;
use crate::support::program::{self, Ran};
use crate::support::{Class, Daemon, eventually, eventually_some, leftovers};

/// A pace and a mix at which a release drains as soon as it is asked to.
fn load(daemon: &Daemon) -> Plan {
    Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 4)
        .clients(Class::NewConnection, 2)
        .clients(Class::Post, 2)
        .every(Duration::from_millis(4))
}

fn thirty_deploys(address: &str, instances: usize) {
    let daemon = Daemon::of_web(&format!(
        "keep_warm = \"0s\"\naddress = \"{address}\"\ninstances = {instances}"
    ));
    daemon.deploy("v0", &[]);
    assert_eq!(daemon.live().instances.len(), instances);
    let load = load(&daemon).start();
    load.expect(&["v0"]);
    load.wait_for(50);
    for number in 1..=30 {
        eventually("at most two releases wait for their end", || {
            daemon.status().service("web").running.len() <= 3
        });
        let (old, new) = (format!("v{}", number - 1), format!("v{number}"));
        load.flipping(&old, &new, || daemon.deploy(&new, &[]));
        load.wait_for(50);
    }
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
    assert_eq!(daemon.metric("hotctl_switch_errors_total", &["web"]), 0.0);
    eventually("nothing of the old releases runs", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn thirty_deploys_by_port_lose_no_request() {
    thirty_deploys("port", 1);
}

#[test]
fn thirty_deploys_of_a_pool_by_port_lose_no_request() {
    thirty_deploys("port", 4);
}

#[test]
fn thirty_deploys_by_unix_socket_lose_no_request() {
    thirty_deploys("unix", 1);
}

#[test]
fn thirty_deploys_of_a_pool_by_unix_socket_lose_no_request() {
    thirty_deploys("unix", 4);
}

#[test]
fn thirty_deploys_by_inherited_socket_lose_no_request() {
    thirty_deploys("socket", 1);
}

#[test]
fn thirty_deploys_of_a_pool_by_inherited_socket_lose_no_request() {
    thirty_deploys("socket", 4);
}

#[test]
fn a_unix_socket_is_told_by_variable_and_by_argument_and_is_removed() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\naddress = \"unix\"");
    daemon.deploy("v1", &["--marker", "{socket}"]);
    let told = daemon.get("/env?name=SOCKET").text();
    let live = daemon.live();
    assert_eq!(live.address.to_string(), format!("unix:{told}"));
    let pid = live.pid.unwrap();
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.contains(&told), "{line:?}");
    assert_eq!(daemon.get("/env?name=PORT").text(), "");
    daemon.deploy("v2", &[]);
    eventually("the old socket is gone", || !fs::exists(&told).unwrap());
}

#[test]
fn sockets_that_nobody_uses_are_removed_at_the_next_start_and_no_other() {
    let mut daemon = Daemon::of_web("keep_warm = \"1m\"\naddress = \"unix\"");
    daemon.deploy("v1", &[]);
    let live = daemon.deploy("v2", &[]);
    let run = daemon.folder().join("state/services/web/run");
    daemon.kill();
    fs::write(run.join("99.0.sock"), "").unwrap();
    daemon.start_again();
    assert_eq!(daemon.get("/").text(), "v2\n");
    assert_eq!(daemon.live().pid, Some(live.pid));
    assert!(!fs::exists(run.join("99.0.sock")).unwrap());
    // The warm one is there, too: one goes back to it at once.
    daemon.hotctl(["rollback"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn an_app_that_is_slow_to_accept_finds_the_connections_of_its_socket() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\naddress = \"socket\"");
    daemon.deploy("v1", &[]);
    // It does not even look at its socket for a while; the probe waits in it, and is answered.
    daemon.deploy("v2", &["--start-delay-ms", "500"]);
    assert_eq!(daemon.get("/").text(), "v2\n");
}

#[test]
fn an_instance_that_is_killed_takes_down_only_what_was_in_flight_on_it() {
    let daemon = Daemon::of_web("instances = 4");
    daemon.deploy("v1", &[]);
    let before = daemon.live().instances;
    // The least busy comes first: two for each.
    let uploads: Vec<Upload> = (0..8)
        .map(|_| Upload::begin(daemon.listen(), "test"))
        .collect();
    // Bodies that have been sent are not sent twice, so these can only go where nothing breaks.
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 4)
        .clients(Class::NewConnection, 2)
        .every(Duration::from_millis(4))
        .start();
    load.wait_for(50);
    let killed = before[1].pid.unwrap();
    program::send(killed, Signal::KILL);
    load.wait_for(200);
    let mut failed = 0;
    let mut answered = BTreeSet::new();
    for upload in uploads {
        match upload.try_end() {
            Ok(answer) if answer.head.status == 200 => {
                answered.insert(answer.header("x-pid").parse::<u32>().unwrap());
            }
            Ok(answer) => {
                assert_eq!(answer.head.status, 502, "{answer}");
                failed += 1;
            }
            Err(_) => failed += 1,
        }
    }
    assert_eq!(failed, 2, "those of the killed one");
    let others: BTreeSet<u32> = before
        .iter()
        .filter_map(|one| one.pid)
        .filter(|pid| *pid != killed)
        .collect();
    assert_eq!(answered, others);
    eventually("it is started again", || {
        let now = daemon.live().instances;
        let up = |one: &crate::support::status::Instance| one.state == "up";
        now.iter().all(up) && now[1].pid.is_some_and(|pid| pid != killed)
    });
    let now = daemon.live().instances;
    for number in [0, 2, 3] {
        assert_eq!(now[number].pid, before[number].pid, "untouched");
    }
    load.wait_for(50);
    load.finish().assert_none_failed();
    let restarts = daemon.metric("hotctl_process_restarts_total", &["web"]);
    assert_eq!(restarts, 1.0);
}

/// The events of that name.
fn events(ran: &Ran, name: &str) -> Vec<Value> {
    let mut events = ran.events();
    events.retain(|event| event["event"] == name);
    events
}

#[test]
fn a_command_before_the_start_runs_once_in_the_environment_of_the_release() {
    let command =
        r#"before_start = ["/bin/sh", "-c", "echo $HOTCTL_RELEASE $A >> $HOTCTL_DATA/ran"]"#;
    let daemon = Daemon::of_web(&format!("instances = 2\nenv = {{ A = \"b\" }}\n{command}"));
    daemon.deploy("v1", &[]);
    let ran = daemon.get("/env?name=HOTCTL_DATA").text() + "/ran";
    let release = daemon.live().release;
    assert_eq!(fs::read_to_string(ran).unwrap(), format!("{release} b\n"));
}

#[test]
fn a_command_before_the_start_that_fails_ends_the_deployment_with_its_output() {
    let command = "before_start = [\"/bin/sh\", \"-c\", \"test $HOTCTL_RELEASE = web@1 || { echo row 7 is odd; exit 3; }\"]";
    let daemon = Daemon::of_web(command);
    let first = daemon.deploy("v1", &[]);
    let load = load(&daemon).start();
    load.expect(&["v1"]);
    load.wait_for(50);
    let path = daemon.release("v2");
    let failed = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(1);
    failed
        .says("before_start")
        .says("status 3")
        .says("row 7 is odd");
    load.wait_for(50);
    load.finish().assert_none_failed();
    assert_eq!(daemon.live().pid, Some(first.pid));
    assert_eq!(daemon.status().service("web").running.len(), 1);
}

#[test]
fn a_command_before_the_start_that_never_ends_is_ended() {
    let daemon = Daemon::of_web(
        "before_start = [\"/bin/sh\", \"-c\", \"sleep 3600 & sleep 3600\"]\nbefore_start_timeout = \"300ms\"",
    );
    let path = daemon.release("v1");
    let failed = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(1);
    failed.says("before_start").says("300ms");
}

#[test]
fn a_command_after_the_flip_runs_with_the_new_release_live() {
    let command = r#"on_live = ["/bin/sh", "-c", "echo $HOTCTL_RELEASE >> $HOTCTL_DATA/live"]"#;
    let daemon = Daemon::of_web(command);
    daemon.deploy("v1", &[]);
    let told = daemon.get("/env?name=HOTCTL_DATA").text() + "/live";
    let tells = |all: &str| fs::read_to_string(&told).is_ok_and(|text| text == all);
    eventually("it ran for the first", || tells("web@1\n"));
    daemon.deploy("v2", &[]);
    eventually("it ran for both", || tells("web@1\nweb@2\n"));
}

#[test]
fn a_command_after_the_flip_ends_with_the_traffic_of_its_release() {
    let daemon = Daemon::of_web(
        "on_live = [\"/bin/sh\", \"-c\", \"echo $$ > $HOTCTL_DATA/pid; setsid sleep 3600 & sleep 3600\"]\non_live_timeout = \"1h\"",
    );
    daemon.deploy("v1", &[]);
    let told = daemon.get("/env?name=HOTCTL_DATA").text() + "/pid";
    let pid = eventually_some("it runs", || {
        fs::read_to_string(&told).ok()?.trim().parse::<u32>().ok()
    });
    daemon.hotctl(["stop"]).exits(0);
    eventually("it is gone with all that it started", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
            && leftovers::processes(daemon.folder())
                .iter()
                .all(|process| !process.line.contains("sleep 3600"))
    });
}

#[test]
fn a_port_in_the_command_of_a_service_that_has_none_is_refused_by_name() {
    let daemon = Daemon::of_web("address = \"socket\"");
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    let failed = daemon
        .hotctl(["deploy", path, "--", "--marker", "{port}"])
        .exits(1);
    failed.says("{port}").says("\"socket\"").says("`address`");
}

#[test]
fn a_command_after_the_flip_that_fails_is_told_whenever_it_does() {
    let daemon = Daemon::of_web("on_live = [\"/bin/sh\", \"-c\", \"exit 9\"]");
    daemon.deploy("v1", &[]);
    eventually("an event tells it", || {
        let events = daemon.hotctl(["events"]).exits(0);
        events.stdout.contains("on_live failed") && events.stdout.contains("exit status 9")
    });
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn an_app_is_live_when_it_says_so_and_what_it_says_before_is_shown() {
    let daemon = Daemon::of_web("health.kind = \"notify\"");
    daemon.deploy("v1", &["--notify-after-ms", "0"]);
    let path = daemon.release("v2");
    let path = path.to_str().unwrap();
    let mut deploy = daemon.alongside(["deploy", path, "--", "--notify-after-ms", "1500"]);
    deploy.until_it_says("warming up");
    // It has listened for a while, and would answer.
    assert_eq!(daemon.get("/").text(), "v1\n");
    deploy.wait().exits(0);
    assert_eq!(daemon.get("/").text(), "v2\n");
}

#[test]
fn an_app_that_never_says_that_it_is_ready_is_not_live() {
    let daemon = Daemon::of_web("health.kind = \"notify\"\nstart_timeout = \"500ms\"");
    let first = daemon.deploy("v1", &["--notify-after-ms", "0"]);
    daemon
        .hotctl(["deploy", daemon.release("v2").to_str().unwrap()])
        .exits(1)
        .says("READY=1");
    assert_eq!(daemon.live().pid, Some(first.pid));
}

#[test]
fn a_command_may_say_what_is_healthy() {
    let daemon = Daemon::of_web(
        "start_timeout = \"2s\"\n[service.web.health]\nkind = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"test -e $HOTCTL_DATA/$HOTCTL_RELEASE || { echo no licence; exit 4; }\"]",
    );
    let path = daemon.release("v1");
    let failed = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(1);
    failed.says("status 4").says("no licence");
    let data = daemon.folder().join("state");
    let data = crate::support::leftovers::files(&data)
        .into_iter()
        .find(|path| path.ends_with("data/web") || path.ends_with("web/data"))
        .expect("the data folder of web");
    for release in ["web@2", "web@3"] {
        fs::write(data.join(release), "").unwrap();
    }
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").text(), "v2\n");
}

#[test]
fn each_instance_is_asked_for_the_warm_up_paths_before_the_flip_and_the_answers_are_shown() {
    let daemon = Daemon::of_web("instances = 2\nwarmup = [\"/\", \"/status?code=503\"]");
    let deployed = daemon.try_deploy(&daemon.release("v1"), &[]).exits(0);
    let warmed: BTreeSet<(u64, String, u64)> = events(&deployed, "warmed")
        .iter()
        .map(|event| {
            let number = |name: &str| event[name].as_u64().unwrap();
            let path = event["path"].as_str().unwrap().to_string();
            (number("instance"), path, number("status"))
        })
        .collect();
    let expected = [0, 1].into_iter().flat_map(|instance| {
        let one = |path: &str, status| (instance, path.to_string(), status);
        [one("/", 200), one("/status?code=503", 503)]
    });
    assert_eq!(warmed, expected.collect());
    let all = deployed.events();
    let at = |name: &str| all.iter().rposition(|event| event["event"] == name);
    assert!(at("warmed") < at("flipped"), "{deployed}");
}
