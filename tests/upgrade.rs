//! hotctl replaces itself: nobody who sends requests notices, no app is touched, and one that cannot
//! take over changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::support::daemon::web;
use crate::support::http;
use crate::support::load::Plan;
use crate::support::program::{self, lives, send};
use crate::support::status::Status;
use crate::support::{Class, Daemon, Load, eventually, eventually_some};

#[test]
fn ten_upgrades_in_a_row_under_every_class_of_traffic_lose_no_request() {
    const TIMES: usize = 10;
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let app = daemon.live().pid;
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    load.wait_for(100);
    for time in 1..=TIMES {
        daemon.upgrade(&[]);
        load.wait_for(100);
        assert_eq!(daemon.live().pid, app, "after upgrade {time}");
        // The one that was there took the whole way.
        assert_eq!(daemon.metric("hotctl_upgrades_total", &["replaced"]), 1.0);
    }
    // The last one steers as the first did.
    load.flipping("v0", "v1", || daemon.deploy("v1", &[]));
    load.wait_for(100);
    let outcomes = load.finish();
    println!("{TIMES} upgrades: {outcomes}");
    outcomes.assert_none_failed();
    let events = daemon.hotctl(["events"]).exits(0);
    let told = &events.stdout;
    assert_eq!(told.matches(" in place of ").count(), TIMES, "{told}");
}

/// An idle connection that is closed races with the next request, the more the longer a client thinks.
#[test]
fn clients_that_think_for_up_to_two_seconds_notice_no_upgrade() {
    const TIMES: usize = 8;
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let thinking = [0, 50, 300, 1000, 2000].map(|think| {
        let plan = Plan::to(daemon.listen())
            .clients(Class::KeepAlive, 6)
            .every(Duration::from_millis(think));
        let load = plan.start();
        load.expect(&["v0"]);
        load
    });
    for _ in 0..TIMES {
        // So that those of a second have come round once.
        thinking[3].wait_for(6);
        daemon.upgrade(&[]);
    }
    for load in thinking {
        let outcomes = load.finish();
        println!("{TIMES} upgrades: {outcomes}");
        outcomes.assert_none_failed();
        assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
    }
}

#[test]
fn a_signal_upgrades_to_the_same_binary() {
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let (app, first) = (daemon.live().pid, daemon.pid());
    send(first, Signal::USR2);
    eventually("the first one has left", || !lives(first));
    daemon.finds_successor();
    assert_eq!(daemon.live().pid, app);
    daemon.get("/").has_status(200);
}

#[test]
fn what_cannot_take_over_changes_nothing() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let app = daemon.live().pid;
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    load.wait_for(100);
    let script = |name: &str, text: &str| {
        let path = daemon.folder().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let ended = script("ends", "exit 3");
    let hangs = script("hangs", "exec sleep 60");
    let nothing = daemon.folder().join("nothing");
    let refused = |binary: &PathBuf, why: &str| {
        let binary = binary.to_str().unwrap();
        daemon
            .hotctl(["upgrade", "--binary", binary])
            .exits(1)
            .says(why)
            .says("try: ");
        assert_eq!(daemon.live().pid, app, "{why}");
        load.wait_for(50);
    };
    refused(&ended, "exited with 3 before it was prepared");
    refused(&hangs, "said nothing for 10s: killed");
    refused(&nothing, "nothing: cannot be started: No such file");
    // It finds the configuration wrong.
    let file = daemon.folder().join("hotctl.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\nnonsense = 1\n")).unwrap();
    daemon.hotctl(["upgrade"]).exits(1).says("nonsense");
    fs::write(&file, good).unwrap();
    // It dies with the sockets, before and after the services are its own.
    let failpoints = daemon.folder().join("failpoints");
    fs::create_dir_all(&failpoints).unwrap();
    for (point, when) in [("before-prepared", "prepared"), ("before-ready", "ready")] {
        fs::write(failpoints.join("passed"), "").unwrap();
        fs::write(failpoints.join("die"), format!("{point} 1")).unwrap();
        daemon
            .hotctl(["upgrade"])
            .exits(1)
            .says(&format!("was ended by signal 9 before it was {when}"));
        assert_eq!(daemon.live().pid, app, "{point}");
        load.wait_for(50);
    }
    fs::remove_dir_all(&failpoints).unwrap();
    assert_eq!(daemon.metric("hotctl_upgrades_total", &["failed"]), 6.0);
    // It steers on.
    load.flipping("v0", "v1", || daemon.deploy("v1", &[]));
    load.wait_for(50);
    let outcomes = load.finish();
    println!("upgrades that fail: {outcomes}");
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
    let events = daemon.hotctl(["events"]).exits(0).stdout;
    assert_eq!(
        events.matches("hotctl was not replaced").count(),
        6,
        "{events}"
    );
}

#[test]
fn nobody_else_can_take_the_folder_or_the_socket_of_an_upgraded_daemon() {
    let mut daemon = Daemon::of_web("");
    daemon.upgrade(&[]);
    let config = daemon.folder().join("hotctl.toml");
    let serve = ["serve", "--config", config.to_str().unwrap()];
    daemon.hotctl(serve).exits(2).says("another hotctl");
}

#[test]
fn an_upgrade_is_refused_when_a_deployment_takes_longer_than_a_moment() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let slow = daemon.release("v1");
    let args = [
        "deploy",
        slow.to_str().unwrap(),
        "--service",
        "web",
        "--",
        "--start-delay-ms",
        "40000",
    ];
    let deploy = daemon.alongside(args);
    eventually("it is under way", || {
        daemon.status().service("web").count("candidate") == 1
    });
    daemon
        .hotctl(["upgrade"])
        .exits(1)
        .says("web: deployment 2 is under way");
    // Who is told to end meanwhile does so, and does not wait first.
    let upgrade = daemon.alongside(["upgrade"]);
    eventually("it waits again", || {
        let log = daemon.log();
        log.matches("an upgrade waits: web: deployment 2").count() == 2
    });
    send(daemon.pid(), Signal::TERM);
    upgrade.wait().exits(1).says("told to end");
    deploy.wait();
}

#[test]
fn who_asks_for_an_upgrade_beside_another_is_answered() {
    let mut daemon = Daemon::of_web("");
    let slow = daemon.release("v1");
    let slow = slow.to_str().unwrap();
    let args = ["deploy", slow, "--", "--start-delay-ms", "40000"];
    let deploy = daemon.alongside(args);
    eventually("it is under way", || {
        daemon.status().service("web").count("candidate") == 1
    });
    let first = daemon.alongside(["upgrade"]);
    eventually("it waits", || daemon.log().contains("an upgrade waits"));
    // One waits behind it, the other finds no place.
    let others = [daemon.alongside(["upgrade"]), daemon.alongside(["upgrade"])];
    daemon.hotctl(["cancel", "web"]).exits(0);
    first.wait().exits(0);
    for other in others {
        let ran = other.wait();
        // Where it came late enough, it is the new one that is replaced.
        let told = [
            "replaced already",
            "another one is under way",
            "serves, pid",
        ];
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(told.iter().any(|text| all.contains(text)), "{ran}");
    }
    deploy.wait();
    daemon.finds_successor();
}

#[test]
fn an_upgrade_waits_for_the_last_answers_of_an_old_release() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let load = Plan::to(daemon.listen()).clients(Class::Slow, 4).start();
    load.expect(&["v0"]);
    eventually("they are in flight", || daemon.live().tickets == 4);
    load.flipping("v0", "v1", || daemon.deploy("v1", &[]));
    // Each takes two seconds.
    assert_eq!(daemon.status().service("web").count("draining"), 1);
    daemon.upgrade(&[]);
    load.wait_for(8);
    load.finish().assert_none_failed();
}

/// One that is kept warm is not waited for, and what it still answers in the old process counts.
#[test]
fn an_old_release_has_drained_when_the_daemon_before_has_given_its_last_answer() {
    const TAKES: u64 = 3000;
    let mut daemon = Daemon::of_web("keep_warm = \"60s\"");
    daemon.deploy("v0", &[]);
    let sent = SystemTime::now();
    let to = daemon.listen();
    let slow = std::thread::spawn(move || http::get(to, &format!("/slow?ms={TAKES}")));
    eventually("it is in flight", || daemon.live().tickets == 1);
    daemon.deploy("v1", &[]);
    daemon.upgrade(&[]);
    let drained = eventually_some("it has drained", || {
        let events = daemon.hotctl(["events", "web", "--json"]).exits(0).events();
        events.into_iter().find(|event| event["event"] == "drained")
    });
    let at = Duration::from_millis(drained["at_ms"].as_u64().unwrap());
    let after = at.saturating_sub(sent.duration_since(UNIX_EPOCH).unwrap());
    assert!(
        after >= Duration::from_millis(TAKES),
        "after {after:?}: {drained}"
    );
    slow.join().unwrap().has_status(200);
}

/// Its locks are with the new one, and go with it.
#[test]
fn where_the_new_one_dies_while_the_old_one_still_drains_another_can_be_started() {
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let app = daemon.live().pid;
    let to = daemon.listen();
    let slow = std::thread::spawn(move || http::get(to, "/slow?ms=4000"));
    eventually("it is in flight", || daemon.live().tickets == 1);
    daemon.upgrade(&[]);
    let new = daemon.pid();
    send(new, Signal::KILL);
    eventually("it has ended", || !lives(new));
    let config = daemon.folder().join("hotctl.toml");
    let serve = daemon.alongside(["serve", "--config", config.to_str().unwrap()]);
    let status = eventually_some("another one serves", || {
        let ran = daemon.hotctl(["status", "--json"]);
        let status: Option<Status> = ran.status.success().then(|| ran.json());
        status.filter(|status| status.pid == serve.pid())
    });
    let answer = http::get(status.listen[0], "/").has_status(200);
    assert_eq!(answer.text(), "v0\n");
    assert_eq!(daemon.live().pid, app);
    slow.join().unwrap().has_status(200);
    serve.signal(Signal::TERM);
    serve.wait().exits(0);
}

#[test]
fn what_a_binary_that_cannot_take_over_has_started_keeps_no_socket_and_no_lock() {
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v0", &[]);
    let path = daemon.folder().join("leaves-a-child");
    let text = "#!/bin/sh\nsleep 444 &\necho $! > child\nexit 1\n";
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = path.to_str().unwrap();
    daemon
        .hotctl(["upgrade", "--binary", binary])
        .exits(1)
        .says("exited with 1 before it was prepared");
    let child = fs::read_to_string(daemon.folder().join("child")).unwrap();
    assert!(!lives(child.trim().parse().unwrap()));
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v0\n");
}

/// Those that wait there are told what those who come now are.
#[test]
fn requests_that_wait_at_an_upgrade_are_refused_when_the_next_daemon_refuses_its_own() {
    for (order, reason) in [
        (&["stop", "web"][..], "stopped"),
        (&["maintenance", "on", "web"], "maintenance"),
    ] {
        let mut daemon = Daemon::of_web("park = { max = 100, time = \"60s\" }");
        daemon.deploy("v0", &[]);
        daemon.hotctl(["pause", "web"]).exits(0);
        let to = daemon.listen();
        let waits = std::thread::spawn(move || http::get(to, "/"));
        eventually("it waits", || {
            daemon.metric("hotctl_parked_requests", &[]) == 1.0
        });
        daemon.upgrade(&[]);
        daemon.hotctl(order.iter().copied()).exits(0);
        let answer = waits.join().unwrap().has_status(503);
        assert_eq!(answer.header("x-hotctl-error"), reason, "{answer}");
    }
}

#[test]
fn systemd_is_told_which_process_to_watch() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let notify = format!("NOTIFY_SOCKET={}", place.display());
    let through = ["env", "SYSTEMD_EXEC_PID=1", &notify];
    let mut daemon = Daemon::start_through(&through, &web(""), &[]);
    for _ in 0..2 {
        daemon.upgrade(&[]);
        let mut said = [0; 256];
        let told = loop {
            let length = socket.recv(&mut said).unwrap();
            let text = String::from_utf8_lossy(&said[..length]).into_owned();
            if text.contains("MAINPID") {
                break text;
            }
        };
        assert_eq!(told.trim(), format!("MAINPID={}", daemon.pid()));
    }
}

#[test]
fn where_systemd_cannot_be_told_an_upgrade_is_refused() {
    let daemon = Daemon::start_through(&["env", "SYSTEMD_EXEC_PID=1"], &web(""), &[]);
    let ran = daemon.hotctl(["upgrade"]).exits(1);
    ran.says("systemd watches this process").says("Type=notify");
    daemon.get("/").has_status(503);
}

#[test]
fn a_release_is_not_ended_while_the_daemon_before_has_requests_on_it() {
    let mut daemon = Daemon::of_web("strategy = \"recreate\"\nstop_timeout = \"100ms\"");
    daemon.deploy("v0", &[]);
    let load = Plan::to(daemon.listen()).clients(Class::Slow, 6).start();
    load.expect(&["v0"]);
    load.wait_for(6);
    eventually("they are in flight", || daemon.live().tickets == 6);
    daemon.upgrade(&[]);
    load.flipping("v0", "v1", || daemon.deploy("v1", &[]));
    load.wait_for(6);
    let outcomes = load.finish();
    println!("recreate after an upgrade: {outcomes}");
    outcomes.assert_none_failed();
}

#[test]
fn who_follows_events_or_logs_goes_on_with_the_next_daemon() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let mut events = daemon.alongside(["events", "-f"]);
    let mut logs = daemon.alongside(["logs", "-f"]);
    events.until_it_says("web@1 settled");
    logs.until_it_says("listening on");
    daemon.upgrade(&[]);
    daemon.deploy("v1", &[]);
    events.until_it_says("web@2 settled");
    eventually("both apps are heard", || {
        logs.stdout().matches("listening on").count() == 2
    });
    let told = events.stdout();
    let numbers = told
        .lines()
        .map(|line| line.split_whitespace().next().unwrap());
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    let all: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, all, "each once, none left out\n{told}");
    // The same where it dies and is started again.
    daemon.kill();
    daemon.start_again();
    events.until_it_says(&format!("serves, pid {}", daemon.pid()));
    assert!(!events.has_ended() && !logs.has_ended());
    // And where there is none any more, that is said.
    daemon.stop();
    events.wait().exits(3).says("broke");
    logs.wait().exits(3);
}

#[test]
fn who_speaks_another_protocol_of_upgrades_is_told_so() {
    let daemon = Daemon::of_web("");
    let config = daemon.folder().join("hotctl.toml");
    let mut serve = daemon.command(["serve", "--config", config.to_str().unwrap()]);
    let ran = program::run(serve.env("HOTCTL_UPGRADE", "9"));
    ran.exits(2)
        .says("speaks protocol 9, and this one 1")
        .says("try: ");
}

/// What waits in the old one would else wait for processes that it does not see any more.
#[test]
fn requests_that_wait_at_an_upgrade_go_where_the_next_daemon_sends_its_own() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"\npark = { max = 100, time = \"20s\" }");
    daemon.deploy("v0", &[]);
    daemon.hotctl(["pause", "web"]).exits(0);
    let to = daemon.listen();
    let waiting: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || http::get(to, "/")))
        .collect();
    eventually("they wait", || {
        daemon.metric("hotctl_parked_requests", &[]) == 4.0
    });
    daemon.upgrade(&[]);
    // Another release, at another address, in a process that the old one never knew.
    daemon.deploy("v1", &[]);
    daemon.hotctl(["resume", "web"]).exits(0);
    for waiting in waiting {
        let answer = waiting.join().unwrap();
        assert_eq!(answer.text(), "v1\n", "{answer}");
    }
}
