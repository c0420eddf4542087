//! What a build leaves goes live by itself, and what fails changes nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::daemon::web;
use crate::support::program::{self, Running};
use crate::support::{Daemon, Load, eventually, sample};

/// A service of one version and a watch of `path`, which is that of the sample app.
fn watched(daemon: &Daemon, path: &Path) -> Running {
    let path = path.to_str().unwrap();
    let mut watch = daemon.alongside(["watch", path, "--service", "web"]);
    watch.until_it_says("watching");
    watch
}

fn now(daemon: &Daemon) -> String {
    daemon.get("/").text().trim().to_owned()
}

/// Put another version where it is watched, at once.
fn built(daemon: &Daemon, place: &Path, version: &str) {
    let release = daemon.release(version);
    fs::rename(release, place).unwrap();
}

fn is_live(daemon: &Daemon, version: &str) {
    eventually(&format!("{version} is live"), || now(daemon) == version);
}

/// How many deployments there were.
fn deployments(daemon: &Daemon) -> usize {
    let history = daemon.hotctl(["history", "web", "--json"]).exits(0);
    history.json::<Vec<serde_json::Value>>().len()
}

#[test]
fn what_is_built_goes_live_and_what_cannot_run_changes_nothing() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nstart_timeout = \"30s\"");
    let place = daemon.folder().join("out/app");
    fs::create_dir(place.parent().unwrap()).unwrap();
    let mut watch = watched(&daemon, &place);
    watch.until_it_says("not there yet");
    built(&daemon, &place, "v1");
    is_live(&daemon, "v1");
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v1"]);
    load.wait_for(50);
    // Half of a program, and then what is no program at all.
    let whole = fs::read(sample::sample()).unwrap();
    fs::write(&place, &whole[..whole.len() / 2]).unwrap();
    watch.until_it_says("truncated");
    fs::write(&place, "#!/bin/sh\necho broken build >&2\nexit 7\n").unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    watch.until_it_says("broken build");
    load.wait_for(50);
    // One that never becomes healthy is not waited for when there is something better.
    fs::write(&place, "#!/bin/sh\nexec sleep 600\n").unwrap();
    eventually("it is tried", || {
        daemon.status().service("web").count("candidate") == 1
    });
    load.flipping("v1", "v2", || {
        built(&daemon, &place, "v2");
        is_live(&daemon, "v2");
    });
    let history = daemon.hotctl(["history", "web", "--json"]).exits(0);
    let before = &history.json::<Vec<serde_json::Value>>()[1];
    assert_eq!(before["result"], "cancelled", "{before}");
    // The same content again is no deployment.
    let before = deployments(&daemon);
    fs::copy(&place, daemon.folder().join("same")).unwrap();
    fs::rename(daemon.folder().join("same"), &place).unwrap();
    watch.until_it_says("unchanged");
    // What is gone stays live.
    fs::remove_file(&place).unwrap();
    watch.until_it_says("is gone");
    load.wait_for(50);
    assert_eq!(deployments(&daemon), before);
    load.flipping("v2", "v3", || {
        built(&daemon, &place, "v3");
        is_live(&daemon, "v3");
    });
    load.wait_for(50);
    let outcomes = load.finish();
    println!("{outcomes}");
    outcomes.assert_none_failed();
    // It ends by Ctrl-C, and the service goes on.
    watch.signal(Signal::INT);
    watch.wait().exits(0);
    assert_eq!(now(&daemon), "v3");
}

#[test]
fn a_hundred_saves_in_a_row_end_with_the_last_one() {
    const SAVES: usize = 100;
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let place = daemon.folder().join("app");
    built(&daemon, &place, "v0");
    let watch = watched(&daemon, &place);
    is_live(&daemon, "v0");
    let load = Load::of_everything(daemon.listen());
    let program = fs::read(sample::sample()).unwrap();
    for n in 1..=SAVES {
        // As a linker does: removed, written anew in pieces, made executable.
        let _ = fs::remove_file(&place);
        let mut file = File::create(&place).unwrap();
        for piece in program.chunks(program.len() / 3 + 1) {
            file.write_all(piece).unwrap();
        }
        write!(file, "\nsample-version:v{n}\n").unwrap();
        drop(file);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }
    is_live(&daemon, &format!("v{SAVES}"));
    load.wait_for(100);
    let outcomes = load.finish();
    println!(
        "{SAVES} saves, {} deployments: {outcomes}",
        deployments(&daemon)
    );
    outcomes.assert_none_failed();
    drop(watch);
}

#[test]
fn a_folder_and_a_link_that_is_swapped_are_deployed_once_a_change() {
    let daemon = Daemon::start(&web("keep_warm = \"0s\"\nrun = [\"./app\"]"));
    let release = |n: u32| -> PathBuf {
        let folder = daemon.folder().join(format!("releases/{n}"));
        fs::create_dir_all(&folder).unwrap();
        fs::rename(daemon.release(&format!("v{n}")), folder.join("app")).unwrap();
        folder
    };
    release(1);
    let current = daemon.folder().join("current");
    symlink("releases/1", &current).unwrap();
    let watch = watched(&daemon, &current);
    is_live(&daemon, "v1");
    for n in 2..5 {
        release(n);
        let new = daemon.folder().join("current.new");
        symlink(format!("releases/{n}"), &new).unwrap();
        fs::rename(&new, &current).unwrap();
        is_live(&daemon, &format!("v{n}"));
    }
    assert_eq!(deployments(&daemon), 4);
    drop(watch);
}

#[test]
fn who_watches_goes_on_with_the_next_daemon() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    let place = daemon.folder().join("app");
    built(&daemon, &place, "v1");
    let mut watch = watched(&daemon, &place);
    is_live(&daemon, "v1");
    daemon.upgrade(&[]);
    built(&daemon, &place, "v2");
    is_live(&daemon, "v2");
    daemon.kill();
    built(&daemon, &place, "v3");
    watch.until_it_says("broke");
    daemon.start_again();
    is_live(&daemon, "v3");
}

#[test]
fn each_event_can_be_explained() {
    let daemon = Daemon::of_web("");
    let folder = daemon.folder().join("out");
    fs::create_dir_all(folder.join("logs")).unwrap();
    fs::write(folder.join(".hotctlignore"), "logs\n*.log\n").unwrap();
    let path = folder.to_str().unwrap();
    let mut watch = daemon.alongside(["watch", path, "--explain", "--", "sh", "-c", "exit 1"]);
    watch.until_it_says("2 folders");
    fs::write(folder.join("today.log"), "x").unwrap();
    watch.until_it_says("today.log: written: does not count: it is left out");
    fs::read(folder.join(".hotctlignore")).unwrap();
    fs::write(folder.join("main.js"), "x").unwrap();
    watch.until_it_says("main.js: created: counts");
    watch.until_it_says("changed: main.js");
}

#[test]
fn a_watch_of_no_service_or_without_a_daemon_says_so() {
    let mut daemon = Daemon::of_web("");
    daemon
        .hotctl(["watch", ".", "--service", "wbe"])
        .exits(2)
        .says("did you mean web?");
    daemon
        .hotctl(["watch", ".", "--settle", "fast"])
        .exits(2)
        .says("settle");
    let pipe = daemon.folder().join("pipe");
    program::run(Command::new("mkfifo").arg(&pipe)).exits(0);
    for (path, what) in [
        ("/dev/null", "a device"),
        (pipe.to_str().unwrap(), "a named pipe"),
    ] {
        daemon
            .hotctl(["watch", path])
            .exits(2)
            .says(&format!(
                "{path}: {what}: only a file or a folder can be watched"
            ))
            .says("try: name the executable or the folder that your build leaves");
    }
    daemon.stop();
    daemon.hotctl(["watch", "."]).exits(3).says("hotctl serve");
}

#[test]
fn where_no_more_folders_may_be_watched_it_goes_on_by_the_clock() {
    let namespace = ["--user", "--map-root-user"];
    let allowed = Command::new("unshare").args(namespace).arg("true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("not tested: the system gives no user namespace, and so no limit of its own");
        return;
    }
    println!("tested by a limit in a user namespace");
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nrun = [\"./app\"]");
    let out = daemon.folder().join("out");
    for n in 0..8 {
        fs::create_dir_all(out.join(format!("{n}"))).unwrap();
    }
    built(&daemon, &out.join("app"), "v1");
    // A limit of its own, in a user namespace of its own.
    let limited = "echo 3 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let watch = daemon.command(["watch", out.to_str().unwrap()]);
    let words = ["unshare"].into_iter().chain(namespace);
    let words: Vec<_> = words.chain(["sh", "-c", limited, "sh"]).collect();
    let mut watch = program::start(&mut program::through(&words, watch));
    watch.until_it_says("fs.inotify.max_user_watches");
    is_live(&daemon, "v1");
    built(&daemon, &out.join("app"), "v2");
    is_live(&daemon, "v2");
    // Where nothing is watched.
    fs::write(out.join("7/new"), "x").unwrap();
    watch.until_it_says("changed: 7/new");
}

#[test]
fn what_a_service_watches_is_deployed_by_the_daemon_itself() {
    let folder = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(folder.path()).unwrap().join("app");
    let config = web(&format!(
        "keep_warm = \"0s\"\nwatch = {{ path = \"{}\" }}",
        place.display()
    ));
    let mut daemon = Daemon::start(&config);
    built(&daemon, &place, "v1");
    is_live(&daemon, "v1");
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v1"]);
    load.wait_for(50);
    fs::write(&place, "#!/bin/sh\nexit 7\n").unwrap();
    eventually("its failure is told", || {
        daemon.hotctl(["events"]).stdout.contains("exit status 7")
    });
    fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).unwrap();
    eventually("and that it cannot be run", || {
        daemon.hotctl(["events"]).stdout.contains("not executable")
    });
    load.flipping("v1", "v2", || {
        built(&daemon, &place, "v2");
        is_live(&daemon, "v2");
    });
    load.wait_for(50);
    load.finish().assert_none_failed();
    let record = daemon.hotctl(["history", "web", "--json"]).exits(0);
    let record = &record.json::<Vec<serde_json::Value>>()[0];
    assert_eq!(record["via"], "watch", "{record}");
    // Who went back stays there, whatever is started again, until there is something new.
    daemon.hotctl(["rollback"]).exits(0);
    assert_eq!(now(&daemon), "v1");
    daemon.upgrade(&[]);
    daemon.kill();
    daemon.start_again();
    assert_eq!(now(&daemon), "v1");
    built(&daemon, &place, "v3");
    is_live(&daemon, "v3");
    assert_eq!(deployments(&daemon), 5);
    // Another configuration counts at once.
    let file = daemon.folder().join("hotctl.toml");
    fs::write(&file, web("keep_warm = \"0s\"")).unwrap();
    daemon.hotctl(["reload"]).exits(0).says("watch");
    built(&daemon, &place, "v4");
    fs::write(&file, config).unwrap();
    assert_eq!(now(&daemon), "v3");
    daemon.hotctl(["reload"]).exits(0);
    is_live(&daemon, "v4");
}
