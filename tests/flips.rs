//! A deploy, a rollback, a restart: nobody who sends requests meanwhile notices.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::support::http::{self, Client, Trouble, Upload, run_on};
use crate::support::load::Plan;
use crate::support::websocket::WebSocket;
use crate::support::{Class, Daemon, Load, eventually};

/// Wait until the next deploy cuts nobody: three releases may drain, and a load with two-second
/// requests would have more of them.
fn there_is_room(daemon: &Daemon) {
    eventually("at most two releases wait for their end", || {
        daemon.status().service("web").running.len() <= 3
    });
}

#[test]
fn thirty_deploys_under_every_class_of_traffic_lose_no_request() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    load.wait_for(100);
    for number in 1..=30 {
        there_is_room(&daemon);
        let (old, new) = (format!("v{}", number - 1), format!("v{number}"));
        load.flipping(&old, &new, || daemon.deploy(&new, &[]));
        load.wait_for(100);
    }
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
    assert_eq!(daemon.metric("hotctl_switch_errors_total", &["web"]), 0.0);
    assert_eq!(daemon.metric("hotctl_drain_cut_total", &["web"]), 0.0);
    let live = daemon.metric("hotctl_deployments_total", &["web", "result=\"live\""]);
    assert!((live - 31.0).abs() < 0.5, "{live} deployments went live");
}

#[test]
fn deploys_with_the_old_release_kept_warm_lose_no_request() {
    let daemon = Daemon::of_web("keep_warm = \"1m\"");
    daemon.deploy("v0", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    for number in 1..=5 {
        there_is_room(&daemon);
        let (old, new) = (format!("v{}", number - 1), format!("v{number}"));
        load.flipping(&old, &new, || daemon.deploy(&new, &[]));
        load.wait_for(100);
        assert_eq!(daemon.status().service("web").count("warm"), 1);
    }
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
}

#[test]
fn a_rollback_while_the_old_release_is_warm_is_at_once_and_loses_no_request() {
    let daemon = Daemon::of_web("keep_warm = \"1m\"");
    let first = daemon.deploy("v1", &[]);
    let load = Load::of_everything(daemon.listen());
    load.flipping("v1", "v2", || daemon.deploy("v2", &[]));
    load.wait_for(100);
    load.flipping("v2", "v1", || daemon.hotctl(["rollback"]).exits(0));
    load.wait_for(100);
    load.finish().assert_none_failed();
    let live = daemon.live();
    assert_eq!(
        (live.release.as_str(), live.pid),
        ("web@1", Some(first.pid)),
        "the same process"
    );
}

#[test]
fn a_rollback_after_the_warm_time_starts_the_stored_release_and_loses_no_request() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let first = daemon.deploy("v1", &[]);
    let load = Load::of_everything(daemon.listen());
    load.flipping("v1", "v2", || daemon.deploy("v2", &[]));
    eventually("the old release has been stopped", || {
        daemon.status().service("web").running.len() == 1
    });
    load.flipping("v2", "v1", || daemon.hotctl(["rollback"]).exits(0));
    load.wait_for(100);
    load.finish().assert_none_failed();
    let live = daemon.live();
    assert_eq!(live.release, "web@1");
    assert_ne!(live.pid, Some(first.pid), "another process");
}

#[test]
fn a_restart_takes_fresh_processes_and_loses_no_request() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let first = daemon.deploy("v1", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v1"]);
    load.wait_for(100);
    for _ in 0..3 {
        there_is_room(&daemon);
        daemon.hotctl(["restart"]).exits(0);
    }
    load.wait_for(100);
    load.finish().assert_none_failed();
    let live = daemon.live();
    assert_eq!(live.release, "web@1");
    assert_ne!(live.pid, Some(first.pid));
}

#[test]
fn an_upload_in_flight_survives_the_flip() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let upload = Upload::begin(daemon.listen(), "test");
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").text(), "v2\n");
    assert_eq!(upload.end().has_status(200).header("x-version"), "v1");
    eventually("the old release ends after its last answer", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn a_request_that_waits_for_its_answer_survives_the_flip() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let first = daemon.deploy("v1", &[]);
    let listen = daemon.listen();
    let held = thread::spawn(move || http::get(listen, "/hold?name=it"));
    eventually("the request is counted", || daemon.live().tickets == 1);
    daemon.deploy("v2", &[]);
    eventually("the old release drains, with one request", || {
        let status = daemon.status();
        let old = status.service("web").running.iter();
        old.filter(|one| one.release == first.release)
            .any(|one| one.role == "draining" && one.tickets == 1)
    });
    http::get(first.address.inet(), "/let-go?name=it").has_status(200);
    let answer = held.join().unwrap().has_status(200);
    assert_eq!(
        (answer.header("x-version"), answer.text().as_str()),
        ("v1", "held it\n")
    );
}

#[test]
fn a_download_in_flight_survives_the_flip() {
    const BYTES: usize = 20_000_000;
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let runtime = http::runtime();
    // More than all buffers on the way hold, so that the app is in the middle of it.
    let request = format!("GET /big?bytes={BYTES} HTTP/1.1\r\nhost: test\r\n\r\n");
    let begun = run_on(&runtime, async {
        let mut client = Client::connect(daemon.listen()).await?;
        client.send(request.as_bytes()).await?;
        let head = client.head().await?;
        Ok::<_, Trouble>((client, head))
    });
    let (mut client, head) = begun.unwrap();
    assert_eq!(head.version(), "v1");
    daemon.deploy("v2", &[]);
    let body = run_on(&runtime, client.body()).unwrap();
    assert_eq!(body.len(), BYTES);
}

/// A WebSocket that is open, on a runtime of its own.
struct Socket {
    runtime: Runtime,
    socket: WebSocket,
}

impl Socket {
    fn open(daemon: &Daemon) -> Self {
        let runtime = http::runtime();
        let socket = run_on(&runtime, WebSocket::connect(daemon.listen()));
        Self { runtime, socket }
    }

    /// Whether a message still comes back.
    fn echoes(&mut self) -> bool {
        run_on(&self.runtime, self.socket.echo("still there?")).is_ok()
    }
}

#[test]
fn a_websocket_stays_with_its_release_and_no_deploy_waits_for_it() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\ndrain.websockets = \"1h\"");
    let first = daemon.deploy("v1", &[]);
    let mut socket = Socket::open(&daemon);
    assert_eq!(socket.socket.version, "v1");
    let began = Instant::now();
    for version in ["v2", "v3", "v4"] {
        daemon.deploy(version, &[]);
        assert_eq!(daemon.get("/").text(), format!("{version}\n"));
        assert!(socket.echoes(), "after the deploy of {version}");
    }
    // Far less than its drain would take; each is well under a second on an idle machine.
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    let status = daemon.status();
    let old = status
        .service("web")
        .running
        .iter()
        .find(|one| one.release == first.release);
    assert_eq!(old.and_then(|one| one.pid), Some(first.pid), "{status:#?}");
    drop(socket);
    eventually("its release ends with the WebSocket", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn when_the_drain_time_is_over_what_is_open_is_cut_counted_and_shown() {
    let daemon =
        Daemon::of_web("keep_warm = \"0s\"\ndrain.websockets = \"200ms\"\ndrain.spread = \"0s\"");
    daemon.deploy("v1", &[]);
    let mut socket = Socket::open(&daemon);
    let path = daemon.release("v2");
    let deployed = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(0);
    deployed.says("1 WebSocket").says("drain");
    eventually("the WebSocket is cut", || !socket.echoes());
    eventually("and counted", || {
        daemon.metric("hotctl_drain_cut_total", &["web"]) == 1.0
    });
}

#[test]
fn several_releases_may_drain_but_not_any_number_of_them() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\ndrain.websockets = \"1h\"");
    daemon.deploy("v0", &[]);
    let mut sockets = Vec::new();
    for number in 1..=4 {
        sockets.push(Socket::open(&daemon));
        daemon.deploy(&format!("v{number}"), &[]);
    }
    eventually("the oldest is cut", || !sockets[0].echoes());
    for socket in &mut sockets[1..] {
        assert!(socket.echoes(), "{} was cut, too", socket.socket.version);
    }
    assert_eq!(daemon.metric("hotctl_drain_cut_total", &["web"]), 1.0);
}

#[test]
fn an_app_that_ignores_sigterm_and_leaves_children_everywhere_is_gone_after_the_flip() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nstop_timeout = \"300ms\"");
    daemon.deploy(
        "v1",
        &["--ignore-term", "--fork-children", "--flood-stdout"],
    );
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 2)
        .every(Duration::from_millis(5))
        .start();
    load.flipping("v1", "v2", || daemon.deploy("v2", &[]));
    load.wait_for(50);
    load.finish().assert_none_failed();
    eventually("nothing of the old release is left", || {
        let processes = crate::support::leftovers::processes(daemon.folder());
        let of_it = |line: &str| line.contains("--child") || line.contains("--ignore-term");
        !processes.iter().any(|process| of_it(&process.line))
    });
}

#[test]
fn an_app_that_dies_is_started_again() {
    let daemon = Daemon::of_web("");
    let first = daemon.deploy("v1", &[]);
    let _ = http::try_ask(
        first.address.inet(),
        "GET /exit?code=7 HTTP/1.1\r\nhost: test\r\n\r\n",
    );
    eventually("another process serves", || {
        let status = daemon.status();
        let live = status.service("web").live.as_ref();
        live.is_some_and(|live| live.restarts == 1 && live.pid.is_some_and(|pid| pid != first.pid))
    });
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
}

#[test]
fn a_service_that_is_stopped_while_the_old_release_is_warm_starts_again_as_what_was_live() {
    let daemon = Daemon::of_web("keep_warm = \"1h\"");
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").text(), "v2\n");
    daemon.hotctl(["stop"]).exits(0);
    daemon.hotctl(["start"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v2\n");
}

#[test]
fn an_order_that_waits_for_a_start_does_not_wait_for_the_warm_time_after_it() {
    let daemon = Daemon::of_web("keep_warm = \"1h\"");
    daemon.deploy("v1", &[]);
    let slow = daemon.release("v2");
    let slow = slow.to_str().unwrap();
    let mut first = daemon.alongside(["deploy", slow, "--", "--start-delay-ms", "500"]);
    first.until_it_says("started on");
    // Ends at all: an hour is longer than any patience here.
    daemon.deploy("v3", &[]);
    assert_eq!(daemon.get("/").text(), "v3\n");
    first.wait().exits(0);
}
