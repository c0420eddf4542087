//! Sources are built when they change, and what comes of it goes live; a build that fails, hangs or is
//! overtaken touches nothing that serves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::daemon::web;
use crate::support::load::Plan;
use crate::support::program::lives;
use crate::support::{Class, Daemon, Load, eventually, eventually_some};

/// A daemon whose service is built by `build.sh`, from sources in `src`.
fn building(script: &str, lines: &str) -> Daemon {
    let config = web(&format!(
        "keep_warm = \"0s\"\nstart_timeout = \"5s\"\nstop_timeout = \"500ms\"\n[service.web.build]\n\
         command = [\"sh\", \"build.sh\"]\noutput = \"out/app\"\nroot = \"src\"\n{lines}"
    ));
    let script = format!("set -e\n{script}\n");
    Daemon::start_with(
        &config,
        &[("src/build.sh", &script), ("src/version", "none\n")],
    )
}

/// What is named in `src/version` is what is built: beside the sources until it is whole, since what lies among
/// them for a moment is one.
const COPY: &str = "mkdir -p out\ncp \"$(cat version)\" ../new\nmv ../new out/app";

/// Change the source, so that this version comes of it.
fn edit(daemon: &Daemon, version: &str) {
    let release = daemon.release(version);
    write(daemon, "version", &format!("{}\n", release.display()));
}

fn write(daemon: &Daemon, file: &str, text: &str) {
    fs::write(daemon.folder().join("src").join(file), text).unwrap();
}

fn is_live(daemon: &Daemon, version: &str) {
    eventually(&format!("{version} is live"), || {
        daemon.get("/").text().trim() == version
    });
}

fn builds(daemon: &Daemon, result: &str) -> f64 {
    daemon.metric("hotctl_builds_total", &["web", result])
}

fn load(daemon: &Daemon) -> Load {
    let plan = Plan::to(daemon.listen()).clients(Class::KeepAlive, 2);
    plan.clients(Class::NewConnection, 1)
        .every(Duration::from_millis(5))
        .start()
}

#[test]
fn a_build_that_fails_is_told_with_its_errors_and_what_is_live_stays() {
    let script = format!("if [ -e broken ]; then cat broken >&2; exit 3; fi\n{COPY}");
    let daemon = building(&script, "");
    // Nothing can be built of what is there at first.
    eventually("it has failed", || builds(&daemon, "failed") == 1.0);
    edit(&daemon, "v1");
    is_live(&daemon, "v1");
    let load = load(&daemon);
    load.expect(&["v1"]);
    load.wait_for(20);
    write(
        &daemon,
        "broken",
        "error[E0308]: expected `Vec<T>`\n  --> src/main.rs:3:5\n",
    );
    eventually("it has failed", || builds(&daemon, "failed") == 2.0);
    for view in [&["status"][..], &["events", "web"]] {
        daemon
            .hotctl(view.iter().copied())
            .exits(0)
            .says("failed")
            .says("sh build.sh: exit status 3")
            .says("src/main.rs:3:5: expected `Vec<T>`");
    }
    assert_eq!(daemon.get("/").text(), "v1\n");
    load.flipping("v1", "v2", || {
        fs::remove_file(daemon.folder().join("src/broken")).unwrap();
        edit(&daemon, "v2");
        is_live(&daemon, "v2");
    });
    // It builds, and what comes of it does not run.
    let crashes = daemon.folder().join("crashes");
    fs::write(&crashes, "#!/bin/sh\necho no such table >&2\nexit 7\n").unwrap();
    fs::set_permissions(
        &crashes,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    write(&daemon, "version", &format!("{}\n", crashes.display()));
    eventually("that is told", || {
        let events = daemon.hotctl(["events", "web"]).exits(0).stdout;
        events.contains("exit status 7")
    });
    load.flipping("v2", "v3", || {
        edit(&daemon, "v3");
        is_live(&daemon, "v3");
    });
    load.wait_for(20);
    load.finish().assert_none_failed();
    let status = daemon.hotctl(["status"]).exits(0).stdout;
    assert!(!status.contains("build"), "{status}");
    assert!(daemon.metric("hotctl_edit_to_live_seconds_count", &["web"]) >= 3.0);
    assert!(daemon.metric("hotctl_build_duration_seconds_count", &["web"]) >= 5.0);
}

#[test]
fn a_build_that_is_overtaken_is_ended_with_all_it_has_started_and_the_newest_goes_live() {
    let hangs = "if [ -e hang ]; then setsid sleep 600 & echo $! > ../pid; wait; fi";
    let daemon = building(&format!("{hangs}\n{COPY}"), "");
    edit(&daemon, "v1");
    is_live(&daemon, "v1");
    let load = load(&daemon);
    load.expect(&["v1"]);
    write(&daemon, "hang", "");
    let pid: u32 = eventually_some("it hangs", || {
        let text = fs::read_to_string(daemon.folder().join("pid")).ok()?;
        text.trim().parse().ok()
    });
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("goes on")
        .says("sh build.sh");
    load.flipping("v1", "v2", || {
        fs::remove_file(daemon.folder().join("src/hang")).unwrap();
        edit(&daemon, "v2");
        is_live(&daemon, "v2");
    });
    eventually("nothing of it runs any more", || !lives(pid));
    assert!(builds(&daemon, "cancelled") >= 1.0);
    // Many saves in a row: the last one counts.
    load.flipping("v2", "v9", || {
        let release = daemon.release("v9");
        for n in 0..100 {
            write(&daemon, "version", &format!("/nowhere/{n}\n"));
        }
        write(&daemon, "version", &format!("{}\n", release.display()));
        is_live(&daemon, "v9");
    });
    load.finish().assert_none_failed();
}

#[test]
fn a_build_that_should_finish_does_and_the_newest_follows() {
    let slow = "echo . >> ../begun; while [ -e ../gate ]; do sleep 0.05; done";
    let daemon = building(&format!("{slow}\n{COPY}"), "on_change = \"finish\"\n");
    edit(&daemon, "v1");
    is_live(&daemon, "v1");
    let begun = || {
        let text = fs::read_to_string(daemon.folder().join("begun")).unwrap();
        text.lines().count()
    };
    let before = begun();
    fs::write(daemon.folder().join("gate"), "").unwrap();
    edit(&daemon, "v2");
    eventually("it has begun", || begun() == before + 1);
    write(&daemon, "other", "changed meanwhile");
    // That it is left alone can only be seen when it is asked afterwards.
    fs::remove_file(daemon.folder().join("gate")).unwrap();
    is_live(&daemon, "v2");
    edit(&daemon, "v3");
    is_live(&daemon, "v3");
    assert_eq!(builds(&daemon, "cancelled"), 0.0);
}

#[test]
fn what_is_no_source_builds_nothing() {
    let script = format!("echo . >> ../begun\n{COPY}");
    let daemon = building(&script, "watch = [\"version\", \"*.go\", \"/deep\"]\n");
    write(&daemon, ".gitignore", "*.log\n/deep/generated.go\n");
    edit(&daemon, "v1");
    is_live(&daemon, "v1");
    let folder = daemon.folder().join("src");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::create_dir_all(folder.join("node_modules/x")).unwrap();
    let begun = || {
        let text = fs::read_to_string(daemon.folder().join("begun")).unwrap();
        text.lines().count()
    };
    let before = begun();
    for file in [
        "node_modules/x/y.go",
        "app.log",
        "deep/generated.go",
        "main.go~",
        ".main.go.swp",
        "readme.md",
        "out/other",
    ] {
        write(&daemon, file, "changed");
    }
    // What counts afterwards is built once: nothing of that was still to come.
    for (n, file) in ["main.go", "deep/er/b.txt"].into_iter().enumerate() {
        write(&daemon, file, "changed");
        eventually("it is built", || begun() == before + n + 1);
    }
    edit(&daemon, "v2");
    is_live(&daemon, "v2");
    assert_eq!(begun(), before + 3);
}

#[test]
fn a_build_that_changes_its_own_sources_does_not_go_on_for_ever() {
    // Over before that is seen, and after.
    for takes in ["", "sleep 0.2\n"] {
        is_found_out(&format!(
            "echo . >> ../begun\ndate +%s%N > stamp\n{takes}{COPY}"
        ));
    }
}

fn is_found_out(script: &str) {
    let daemon = building(script, "");
    edit(&daemon, "v1");
    let events = eventually_some("it is found out", || {
        let events = daemon.hotctl(["events", "web"]).exits(0).stdout;
        events.contains("changes its own sources").then_some(events)
    });
    assert!(events.contains("build.ignore = [\"/stamp\"]"), "{events}");
    is_live(&daemon, "v1");
    let path = daemon.folder().join("begun");
    let begun = || fs::read_to_string(&path).unwrap().lines().count();
    edit(&daemon, "v2");
    is_live(&daemon, "v2");
    assert!(begun() < 40, "{} builds", begun());
}

#[test]
fn a_build_without_what_it_leaves_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hotctl.toml");
    let config = web("[service.web.build]\ncommand = [\"make\"]\n");
    fs::write(&file, config).unwrap();
    let check = |path: &Path| {
        let mut command = crate::support::daemon::hotctl(folder.path());
        crate::support::program::run(command.arg("check").arg("--config").arg(path))
    };
    check(&file)
        .exits(2)
        .says("service.web.build.output: a build without what it leaves");
}
