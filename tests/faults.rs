//! What the machine can do to hotctl, by real means: damaged state, a full disk, no descriptors. What
//! serves goes on, and what cannot be done is said.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::web;
use crate::support::http::{self, Answer};
use crate::support::load::Plan;
use crate::support::program;
use crate::support::{Class, Daemon, Load, eventually, eventually_some};

const TWO: &str = r#"
admin = "127.0.0.1:0"

[[listen]]
address = "127.0.0.1:0"

[service.web]
keep_warm = "0s"
[service.api]
paths = ["/api"]
"#;

#[track_caller]
fn deploy(daemon: &Daemon, service: &str, version: &str) {
    let path = daemon.release(version);
    daemon
        .hotctl(["deploy", path.to_str().unwrap(), "--service", service])
        .exits(0);
}

/// A file of a service's state.
fn state(daemon: &Daemon, service: &str, file: &str) -> PathBuf {
    let folder = daemon.folder().join("state/services").join(service);
    folder.join(file)
}

/// Change one byte in the middle.
fn flip_a_byte(path: &Path) {
    let mut text = fs::read(path).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(path, text).unwrap();
}

#[track_caller]
fn refused_for(answer: Answer, reason: &str) {
    let answer = answer.has_status(503);
    assert_eq!(answer.header("x-hotctl-error"), reason, "{answer}");
}

#[test]
fn a_damaged_record_gives_way_to_its_last_good_copy_and_that_is_told() {
    let mut daemon = Daemon::start(TWO);
    deploy(&daemon, "web", "v1");
    deploy(&daemon, "web", "v2");
    // What is written last is that the old release has ended.
    eventually("v1 has ended", || {
        daemon.status().service("web").running.len() == 1
    });
    daemon.stop();
    flip_a_byte(&state(&daemon, "web", "record.json"));
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    let log = daemon.log();
    assert!(log.contains("going on with the last good copy"), "{log}");
    daemon
        .hotctl(["events", "web"])
        .exits(0)
        .says("state restored");
    daemon.stop();
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    let restored = daemon.hotctl(["events", "web"]).exits(0).stdout;
    assert_eq!(restored.matches("state restored").count(), 1, "{restored}");
}

#[test]
fn a_service_whose_state_cannot_be_read_is_left_alone_and_the_others_serve() {
    let mut daemon = Daemon::start(TWO);
    deploy(&daemon, "web", "v1");
    deploy(&daemon, "api", "a1");
    daemon.stop();
    for file in ["record.json", "record.json.last"] {
        flip_a_byte(&state(&daemon, "web", file));
    }
    let folder = state(&daemon, "web", "");
    let files = || {
        let folder = fs::read_dir(&folder).unwrap();
        let mut files: Vec<_> = folder
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = path.is_file().then(|| fs::read(&path).unwrap());
                (path, text)
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    daemon.start_again();
    let api = || http::get(daemon.listen(), "/api");
    assert_eq!(api().header("x-version"), "a1");
    refused_for(daemon.get("/"), "state_damaged");
    let status = daemon.status();
    assert_eq!(status.service("web").state, "damaged");
    assert_eq!(status.service("api").state, "serving");
    for words in [
        "damaged",
        "its checksum is not that of its content",
        "try: restore record.json from a copy",
    ] {
        daemon.hotctl(["status"]).exits(0).says(words);
    }
    let path = daemon.release("v2");
    let path = path.to_str().unwrap();
    for order in [
        &["deploy", path, "--service", "web"][..],
        &["rollback", "web"],
        &["stop", "web"],
        &["restart", "web"],
        &["releases", "web"],
        &["logs", "web"],
    ] {
        let ran = daemon.hotctl(order.iter().copied()).exits(1);
        ran.says("record.json").says("try: restore");
    }
    let events = daemon.hotctl(["events", "web"]).exits(0);
    events.says("state damaged");
    assert_eq!(files(), before, "nothing of it was touched");
    let admin = status.admin.unwrap();
    http::get(admin, "/readyz").has_status(503);
    assert_eq!(api().header("x-version"), "a1");
    let doctor = daemon.hotctl(["doctor"]).exits(1);
    doctor.says("web: state").says("record.json");
}

/// What the hint says that helps, but with a restart.
#[test]
fn where_a_damaged_record_is_moved_away_no_number_is_given_twice() {
    let mut daemon = Daemon::start(TWO);
    deploy(&daemon, "web", "v1");
    deploy(&daemon, "web", "v2");
    daemon.kill();
    for file in ["record.json", "record.json.last"] {
        fs::remove_file(state(&daemon, "web", file)).unwrap();
    }
    daemon.start_again();
    refused_for(daemon.get("/"), "nothing_deployed");
    deploy(&daemon, "web", "v3");
    assert_eq!(daemon.get("/").has_status(200).text(), "v3\n");
    let history = daemon.hotctl(["history", "web", "--json"]).exits(0);
    let history: Vec<serde_json::Value> = history.json();
    let numbers: Vec<_> = history
        .iter()
        .map(|one| (one["number"].clone(), one["to"].clone()))
        .collect();
    let expected = [(3, "web@3"), (2, "web@2"), (1, "web@1")];
    let expected = expected.map(|(number, to)| (number.into(), to.into()));
    assert_eq!(numbers, expected);
}

#[test]
fn what_nobody_can_attend_to_any_more_is_ended_before_another_one_is_started() {
    let fixed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for lines in [
        String::new(),
        format!("address = \"fixed:{fixed}\"\nkeep_warm = \"0s\""),
    ] {
        let mut daemon = Daemon::of_web(&lines);
        daemon.deploy("v1", &[]);
        let before = daemon.live().pid.unwrap();
        fs::remove_dir_all(state(&daemon, "web", "run")).unwrap();
        daemon.kill();
        daemon.start_again();
        eventually("another one serves", || daemon.get("/").head.status == 200);
        assert_ne!(daemon.live().pid, Some(before), "{lines}");
        assert!(!program::lives(before), "{lines}");
        daemon
            .hotctl(["events", "web"])
            .exits(0)
            .says("somebody removed the socket of its shim");
    }
}

/// It sees none of their shims.
#[test]
fn a_daemon_in_a_world_of_its_own_ends_no_app_of_others() {
    let namespace = ["unshare", "-rpf", "--mount-proc", "--kill-child"];
    let allowed = Command::new(namespace[0])
        .args(&namespace[1..])
        .arg("true")
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("not tested: no process namespace of our own is allowed here");
        return;
    }
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let app = daemon.live().pid;
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", app.unwrap())).unwrap();
    let has_own = cgroup.contains("hotctl-apps");
    eprintln!("tested with a cgroup for each app: {has_own}");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    fs::write(folder.path().join("hotctl.toml"), web("")).unwrap();
    let mut direct = crate::support::daemon::hotctl(folder.path());
    direct
        .args(["serve", "--config"])
        .arg(folder.path().join("hotctl.toml"));
    let other = program::start(&mut program::through(&namespace, direct));
    eventually("it serves", || {
        let mut status = crate::support::daemon::hotctl(folder.path());
        program::run(status.arg("status")).status.success()
    });
    other.signal(rustix::process::Signal::KILL);
    other.wait();
    assert_eq!(daemon.live().pid, app);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
}

/// Starts what follows with so many descriptors.
fn with_descriptors(count: u32) -> [String; 4] {
    let script = format!("ulimit -n {count} && exec \"$@\"");
    ["sh".into(), "-c".into(), script, "sh".into()]
}

#[test]
fn clients_cannot_use_up_the_descriptors_that_serving_and_steering_take() {
    let through = with_descriptors(160);
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let daemon = Daemon::start_through(&through, &web("keep_warm = \"0s\""), &[]);
    daemon.deploy("v1", &[]);
    let plan = Plan::to(daemon.listen()).clients(Class::KeepAlive, 3);
    let load = plan.every(Duration::from_millis(5)).start();
    load.wait_for(50);
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(daemon.listen()).unwrap())
        .collect();
    eventually("it says so", || {
        daemon.log().contains("nearly out of descriptors")
    });
    // Those who are in go on, and so does whoever steers.
    load.wait_for(200);
    load.flipping("v1", "v2", || daemon.deploy("v2", &[]));
    load.wait_for(200);
    drop(idle);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    load.finish().assert_none_failed();
    let log = daemon.log();
    assert!(log.contains("there are descriptors again"), "{log}");
}

#[test]
fn a_deploy_for_which_there_are_not_enough_descriptors_fails_and_what_is_live_serves() {
    let through = with_descriptors(96);
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let daemon = Daemon::start_through(&through, &web("keep_warm = \"0s\""), &[]);
    let v1 = daemon.deploy("v1", &[]);
    let plan = Plan::to(daemon.listen()).clients(Class::KeepAlive, 2);
    let load = plan.every(Duration::from_millis(5)).start();
    let config = fs::read_to_string(daemon.folder().join("hotctl.toml")).unwrap();
    let many = format!("{config}instances = 64\n");
    fs::write(daemon.folder().join("hotctl.toml"), many).unwrap();
    daemon.hotctl(["reload"]).exits(0);
    let ran = daemon.try_deploy(&daemon.release("v2"), &[]).exits(1);
    ran.says("Too many open files").says("\"hint\"");
    assert_eq!(daemon.live().pid, Some(v1.pid));
    load.finish().assert_none_failed();
    fs::write(daemon.folder().join("hotctl.toml"), config).unwrap();
    daemon.hotctl(["reload"]).exits(0);
    daemon.deploy("v2", &[]);
}

fn two_free_ports() -> (u16, u16) {
    let both = || {
        let first = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = first.local_addr().ok()?.port();
        TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
        Some((port, port + 1))
    };
    eventually_some("two ports side by side are free", both)
}

#[test]
fn without_a_free_port_a_deploy_fails_and_says_what_to_widen() {
    let (first, last) = two_free_ports();
    let daemon = Daemon::start(&format!("ports = \"{first}-{last}\"\n{}", web("")));
    let v1 = daemon.deploy("v1", &[]);
    let other = match v1.address.inet().port() == first {
        true => last,
        false => first,
    };
    let _taken = TcpListener::bind(("127.0.0.1", other)).unwrap();
    let ran = daemon.try_deploy(&daemon.release("v2"), &[]).exits(1);
    ran.says("no free port").says("widen `ports`");
    assert_eq!(daemon.live().pid, Some(v1.pid));
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
}

#[test]
fn a_release_whose_files_were_deleted_serves_on_and_is_said_to_be_gone() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let v2 = daemon.deploy("v2", &[]);
    for entry in fs::read_dir(state(&daemon, "web", "releases")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    for (order, release) in [("restart", "web@2"), ("rollback", "web@1")] {
        daemon
            .hotctl([order, "web"])
            .exits(1)
            .says(&format!("{release}: its files are not in the store"))
            .says("try: deploy it again from its source");
    }
    assert_eq!(daemon.live().pid, Some(v2.pid));
    daemon
        .hotctl(["releases", "web"])
        .exits(0)
        .says("live, files gone");
    // That is what helps.
    daemon.deploy_path(&daemon.release("v2"), &["--marker", "again"]);
    daemon.hotctl(["restart", "web"]).exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
}

/// A pipe in the place of a file: who reads it waits, as for a disk that does not answer.
#[test]
fn a_disk_that_does_not_answer_holds_up_nobody_but_who_needs_it() {
    let daemon = Daemon::start(&format!("threads = 1\n{TWO}"));
    deploy(&daemon, "web", "v1");
    let stored = fs::read_dir(state(&daemon, "web", "releases")).unwrap();
    let about = stored.map(|entry| entry.unwrap().path().join("about.json"));
    let about = about.into_iter().find(|path| path.exists()).unwrap();
    let text = fs::read(&about).unwrap();
    fs::remove_file(&about).unwrap();
    program::run(Command::new("mkfifo").arg(&about)).exits(0);
    let plan = Plan::to(daemon.listen()).clients(Class::KeepAlive, 2);
    let load = plan.every(Duration::from_millis(5)).start();
    let restart = daemon.alongside(["restart", "web"]);
    // Opened for writing, it has been opened for reading.
    let mut pipe = File::options().write(true).open(&about).unwrap();
    load.wait_for(100);
    deploy(&daemon, "api", "a1");
    daemon.hotctl(["status"]).exits(0);
    let whole = about.with_extension("whole");
    fs::write(&whole, &text).unwrap();
    fs::rename(&whole, &about).unwrap();
    pipe.write_all(&text).unwrap();
    drop(pipe);
    restart.wait().exits(0);
    load.wait_for(50);
    load.finish().assert_none_failed();
}

/// Debian's `faketime`: where it has put its library.
fn false_clock() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|path| path.exists());
    found.expect("faketime is not installed, and this test needs it")
}

#[test]
fn a_clock_that_is_set_back_or_forward_ends_nothing_and_hurries_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let clock = outside.path().join("clock");
    let set = |to: &str| fs::write(&clock, to).unwrap();
    set("+0");
    let preload = format!("LD_PRELOAD={}", false_clock().display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let plain = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let through = ["env", &preload, &file, plain[0], plain[1]];
    let config = web("keep_warm = \"0s\"\nrecycle = \"1h\"\ninstances = 2");
    let mut daemon = Daemon::start_through(&through, &config, &[]);
    daemon.deploy("v0", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    for (turn, to) in ["-400d", "+400d", "-1d", "+0"].into_iter().enumerate() {
        let (from, next) = (format!("v{turn}"), format!("v{}", turn + 1));
        let before = daemon.live().pid;
        set(to);
        load.wait_for(100);
        assert_eq!(
            daemon.live().pid,
            before,
            "{to}: its processes were replaced"
        );
        load.flipping(&from, &next, || daemon.deploy(&next, &[]));
        load.wait_for(100);
        for view in ["status", "history", "releases", "events"] {
            daemon.hotctl([view]).exits(0);
        }
    }
    // It did see that clock: its own log tells of years apart.
    let log = daemon.log();
    let years: BTreeSet<&str> = log.lines().filter_map(|line| line.get(..4)).collect();
    assert!(years.len() > 2, "{years:?}");
    let outcomes = load.finish();
    println!("a clock that jumps by 400 days: {outcomes}");
    outcomes.assert_none_failed();
    // What the next daemon finds is as old as it is, whatever the clock says.
    let before = daemon.live().pid;
    set("+400d");
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.live().pid, before);
    assert_eq!(daemon.metric("hotctl_renewals_total", &[]), 0.0);
}
