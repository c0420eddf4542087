//! While nothing can serve a service for a moment, its requests wait, within bounds, instead of failing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::{secret, web};
use crate::support::http::{self, Upload};
use crate::support::load::{Load, Plan};
use crate::support::outcomes::Failure;
use crate::support::program::send;
use crate::support::{Class, Daemon, eventually, eventually_some};

/// A daemon with v1 live, whose app reads `SAMPLE_ARGS` from a file at each start.
fn serving(lines: &str) -> Daemon {
    let daemon = Daemon::start_with(
        &web(&format!(
            "keep_warm = \"0s\"\nenv_file = \"web.env\"\n{lines}"
        )),
        &[("web.env", "")],
    );
    daemon.deploy("v1", &[]);
    daemon
}

/// From its next start on the app does this.
fn from_now_on(daemon: &Daemon, args: &str) {
    let file = daemon.folder().join("web.env");
    secret(&file, &format!("SAMPLE_ARGS={args}\n"));
}

/// Kill the processes of what is live, and wait until all of that is known.
fn kill_live(daemon: &Daemon) {
    let live = daemon.live();
    for one in &live.instances {
        send(one.pid.expect("a process"), Signal::KILL);
    }
    eventually("their end is known", || {
        let now = daemon.live();
        let mut both = now.instances.iter().zip(&live.instances);
        both.all(|(now, before)| now.pid != before.pid)
    });
}

/// Requests that may be sent twice, and those that may not.
fn load(daemon: &Daemon, class: Class) -> Load {
    let plan = Plan::to(daemon.listen()).clients(class, 3);
    plan.every(Duration::from_millis(4)).start()
}

fn parked(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric("hotctl_park_outcomes_total", &["web", outcome])
}

fn waiting(daemon: &Daemon) -> usize {
    let status: Value = daemon.hotctl(["status", "--json"]).exits(0).json();
    let waiting = status["services"][0]["parked"].as_u64().expect("a number");
    usize::try_from(waiting).unwrap()
}

/// A client whose request waits; its answer.
fn ask_alongside(daemon: &Daemon, path: &str) -> std::thread::JoinHandle<http::Answer> {
    let (to, path) = (daemon.listen(), path.to_owned());
    std::thread::spawn(move || http::get(to, &path))
}

/// The events of that name.
fn events(daemon: &Daemon, name: &str) -> Vec<Value> {
    let ran = daemon.hotctl(["events", "--json"]).exits(0);
    let mut events = ran.events();
    events.retain(|event| event["event"] == name);
    events
}

#[test]
fn an_app_that_is_killed_under_load_takes_with_it_only_what_it_had_begun() {
    let daemon = serving("");
    // Long enough that requests come while nobody is there.
    from_now_on(&daemon, "--start-delay-ms 300");
    let uploads: Vec<Upload> = (0..3)
        .map(|_| Upload::begin(daemon.listen(), "test"))
        .collect();
    eventually("they are in flight", || daemon.live().tickets >= 3);
    let safe = load(&daemon, Class::KeepAlive);
    let fresh = load(&daemon, Class::NewConnection);
    let unsafe_ = load(&daemon, Class::Post);
    const KILLS: u64 = 3;
    for _ in 0..KILLS {
        safe.wait_for(50);
        unsafe_.wait_for(50);
        kill_live(&daemon);
        eventually("it serves again", || {
            daemon.live().instances[0].state == "up"
        });
    }
    safe.wait_for(50);
    let failed = uploads.into_iter().map(Upload::try_end);
    let failed = failed.filter(|ended| match ended {
        Ok(answer) => answer.head.status != 200,
        Err(_) => true,
    });
    assert_eq!(
        failed.count(),
        3,
        "they were in flight on the killed process"
    );
    safe.finish().assert_none_failed();
    fresh.finish().assert_none_failed();
    // Of each client, the request whose bytes the killed process may have had.
    let outcomes = unsafe_.finish();
    eprintln!("{outcomes}");
    assert!(outcomes.failed() <= 3 * KILLS, "{outcomes}");
    let cut = outcomes.count(Failure::Status)
        + outcomes.count(Failure::Reset)
        + outcomes.count(Failure::ClosedEarly);
    assert_eq!(outcomes.failed(), cut, "{outcomes}");
    let served = parked(&daemon, "served");
    eprintln!("{served} requests were parked and served");
    assert!(served >= 3.0, "nobody was parked");
    let others = ["full", "timeout", "refused"].map(|it| parked(&daemon, it));
    assert_eq!(others, [0.0; 3]);
    assert_eq!(events(&daemon, "instance_exited").len(), 3);
    assert_eq!(events(&daemon, "instance_restarted").len(), 3);
}

#[test]
fn with_two_instances_nothing_fails_that_may_be_sent_twice_also_if_both_are_killed() {
    let daemon = serving("instances = 2");
    from_now_on(&daemon, "--start-delay-ms 200");
    let loads = [Class::KeepAlive, Class::NewConnection].map(|class| load(&daemon, class));
    for load in &loads {
        load.wait_for(50);
    }
    send(daemon.live().instances[0].pid.unwrap(), Signal::KILL);
    loads[0].wait_for(100);
    eventually("both are up", || {
        daemon.live().instances.iter().all(|one| one.state == "up")
    });
    assert_eq!(parked(&daemon, "served"), 0.0, "the other one has served");
    kill_live(&daemon);
    for load in &loads {
        load.wait_for(50);
    }
    for load in loads {
        load.finish().assert_none_failed();
    }
    assert!(parked(&daemon, "served") > 0.0);
}

#[test]
fn what_waits_is_bound_by_count_and_by_time_and_who_leaves_makes_room() {
    let daemon = serving("park = { max = 2, time = \"4s\" }");
    from_now_on(&daemon, "--start-delay-ms 60000");
    kill_live(&daemon);
    let began = Instant::now();
    let first = ask_alongside(&daemon, "/");
    eventually("it waits", || waiting(&daemon) == 1);
    let mut leaver = TcpStream::connect(daemon.listen()).unwrap();
    let unread = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf";
    leaver.write_all(unread.as_bytes()).unwrap();
    eventually("it waits too", || waiting(&daemon) == 2);
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("2 requests wait until it serves again");
    let refused = daemon.get("/");
    assert_eq!(refused.head.status, 503);
    assert_eq!(refused.header("x-hotctl-error"), "park_full");
    assert_eq!(refused.header("retry-after"), "5");
    drop(leaver);
    eventually("its place is free", || waiting(&daemon) == 1);
    assert_eq!(parked(&daemon, "left"), 1.0);
    let second = ask_alongside(&daemon, "/");
    eventually("it is taken", || waiting(&daemon) == 2);
    for waiter in [first, second] {
        let answer = waiter.join().unwrap();
        assert_eq!(answer.head.status, 503);
        assert_eq!(answer.header("x-hotctl-error"), "park_timeout");
        assert_eq!(answer.header("retry-after"), "5");
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "too early");
    assert_eq!(waiting(&daemon), 0);
}

#[test]
fn without_a_park_a_request_tries_to_connect_as_long_as_it_may() {
    let daemon = serving("park = { max = 0 }");
    from_now_on(&daemon, "--start-delay-ms 300");
    let load = load(&daemon, Class::KeepAlive);
    load.wait_for(20);
    kill_live(&daemon);
    load.wait_for(20);
    load.finish().assert_none_failed();
    assert_eq!(parked(&daemon, "served"), 0.0);
    assert_eq!(parked(&daemon, "full"), 0.0);
}

#[test]
fn what_was_live_is_waited_for_when_the_daemon_starts_again() {
    let mut daemon = serving("");
    from_now_on(&daemon, "--start-delay-ms 500");
    daemon.stop();
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    assert!(parked(&daemon, "served") >= 1.0);
}

#[test]
fn an_app_that_ends_again_and_again_counts_as_failed_until_it_serves() {
    let daemon = serving("crash_loop = { deaths = 3 }");
    from_now_on(&daemon, "--crash-at-start 3");
    kill_live(&daemon);
    eventually("it counts as failed", || {
        daemon.status().service("web").state == "failed"
    });
    let answer = daemon.get("/");
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.header("x-hotctl-error"), "crash_loop");
    assert_eq!(answer.header("retry-after"), "30");
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("failed")
        .says("try: hotctl logs web, hotctl rollback web");
    let told = events(&daemon, "crash_loop");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["deaths"], 3);
    assert_eq!(told[0]["exit"], "exit status 3");
    assert_eq!(daemon.metric("hotctl_crash_loops_total", &["web"]), 1.0);
    let failed = ["role=\"live\"", "state=\"failed\""];
    assert_eq!(daemon.metric("hotctl_instances", &failed), 1.0);
    // The way out: another release.
    from_now_on(&daemon, "");
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    assert_eq!(daemon.status().service("web").state, "serving");
}

#[test]
fn an_app_that_ends_again_and_again_is_left_for_the_release_before_where_that_is_wanted() {
    let daemon = serving("crash_loop = { deaths = 2 }\non_crash_loop = \"rollback\"");
    let crash = daemon.folder().join("crash");
    // Only v2 looks at that file.
    let script = format!(
        "test -e {0} && exit 7; exec {1}",
        crash.display(),
        daemon.release("v2").display()
    );
    let folder = daemon.folder().join("v2");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("start"), script).unwrap();
    daemon.deploy_path(&folder, &["sh", "start"]);
    assert_eq!(daemon.get("/").text(), "v2\n");
    std::fs::write(&crash, "").unwrap();
    kill_live(&daemon);
    eventually("v1 is live again", || {
        let live = &daemon.status();
        let live = live.service("web").live.as_ref();
        live.is_some_and(|live| live.release == "web@1")
    });
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    let ordered = events(&daemon, "ordered");
    let last = ordered.last().unwrap();
    assert_eq!(
        (&last["verb"], &last["by"]["via"]),
        (&"rollback".into(), &"daemon".into())
    );
    let state = || daemon.status().service("web").state.clone();
    eventually_some("it serves", || (state() == "serving").then_some(()));
}

#[test]
fn a_pause_loses_no_request_and_outlives_the_daemon() {
    let mut daemon = serving("park = { max = 100, time = \"30s\" }");
    let loads = [Class::KeepAlive, Class::Post].map(|class| load(&daemon, class));
    for load in &loads {
        load.wait_for(20);
    }
    daemon.hotctl(["pause"]).exits(0).says("web is paused");
    eventually("all clients wait", || waiting(&daemon) == 6);
    daemon.hotctl(["pause"]).exits(0).says("paused already");
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("paused for")
        .says("6 requests wait")
        .says("try: hotctl resume web");
    // What is deployed meanwhile is what they get.
    daemon.deploy("v2", &[]);
    assert_eq!(waiting(&daemon), 6);
    daemon.hotctl(["resume"]).exits(0).says("web is resumed");
    for load in &loads {
        load.wait_for(20);
    }
    for load in loads {
        load.finish().assert_none_failed();
    }
    assert_eq!(daemon.get("/").text(), "v2\n");
    daemon.hotctl(["pause"]).exits(0);
    daemon.stop();
    daemon.start_again();
    assert_eq!(daemon.status().service("web").state, "paused");
    let waiter = ask_alongside(&daemon, "/");
    eventually("it waits", || waiting(&daemon) == 1);
    daemon.hotctl(["resume"]).exits(0);
    assert_eq!(waiter.join().unwrap().has_status(200).text(), "v2\n");
    daemon.hotctl(["resume"]).exits(0).says("is not paused");
}

#[test]
fn a_service_without_a_park_cannot_be_paused() {
    let daemon = serving("park = { max = 0 }");
    daemon
        .hotctl(["pause"])
        .exits(1)
        .says("park.max is 0")
        .says("hotctl maintenance on web");
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn in_maintenance_clients_get_what_the_operator_wants_them_to_see() {
    let mut daemon = serving("");
    let status_of = |daemon: &Daemon| daemon.status().service("web").state.clone();
    daemon
        .hotctl(["maintenance", "on", "--message", "Back at <eight>."])
        .exits(0)
        .says("in maintenance");
    assert_eq!(status_of(&daemon), "maintenance");
    let answer = daemon.get("/");
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.header("x-hotctl-error"), "maintenance");
    assert_eq!(answer.header("retry-after"), "60");
    assert!(answer.text().contains("Back at &lt;eight&gt;."), "{answer}");
    // A deploy goes on behind it.
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").head.status, 503);
    daemon
        .hotctl(["pause"])
        .exits(1)
        .says("hotctl maintenance off web");
    daemon.stop();
    daemon.start_again();
    assert!(daemon.get("/").text().contains("Back at"), "it is recorded");
    std::fs::write(daemon.folder().join("page.html"), "<h1>Closed</h1>").unwrap();
    daemon
        .hotctl(["maintenance", "on", "web", "--page", "page.html"])
        .exits(0);
    let answer = daemon.get("/");
    assert_eq!(
        (answer.head.status, answer.text().as_str()),
        (503, "<h1>Closed</h1>")
    );
    daemon
        .hotctl(["maintenance", "off", "--message", "x"])
        .exits(2)
        .says("leave out --message");
    daemon
        .hotctl(["maintenance", "on", "--page", "missing.html"])
        .exits(2)
        .says("missing.html");
    daemon.hotctl(["maintenance", "off"]).exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    daemon
        .hotctl(["maintenance", "off"])
        .exits(0)
        .says("is not in maintenance");
}

#[test]
fn processes_of_some_age_are_replaced_by_fresh_ones_without_losing_a_request() {
    let daemon = serving("recycle = \"1s\"\n[service.web.health]\ninterval = \"50ms\"");
    let load = load(&daemon, Class::KeepAlive);
    load.expect(&["v1"]);
    let first = daemon.live().pid;
    eventually("it is replaced, and again", || {
        daemon.metric("hotctl_renewals_total", &["web", "age"]) >= 2.0 && daemon.live().pid != first
    });
    load.finish().assert_none_failed();
    assert_eq!(daemon.live().release, "web@1");
    let renewal = events(&daemon, "renewal");
    assert_eq!(
        (&renewal[0]["reason"], &renewal[0]["release"]),
        (&"age".into(), &"web@1".into())
    );
    let ordered = events(&daemon, "ordered");
    let by_itself = ordered.iter().find(|it| it["verb"] == "restart").unwrap();
    assert_eq!(by_itself["by"]["via"], "daemon");
}
