//! The command line: what it says, and how it ends. 0 done, 1 failed, 2 usage or configuration, 3 no
//! daemon reached, 5 superseded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::support::daemon::hotctl;
use crate::support::program::{self, Ran};
use crate::support::status::Summary;
use crate::support::{Daemon, eventually};

const TWO: &str = r#"
admin = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
[service.shop]
hosts = ["shop.test"]
[service.web]
"#;

/// A command where there is no daemon.
fn alone(args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    program::run(hotctl(folder.path()).args(args))
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    alone(&[]).exits(2).says("Usage");
    alone(&["deploi"]).exits(2).says("deploy");
    alone(&["deploy"]).exits(2).says("PATH");
    alone(&["status", "--jsno"]).exits(2).says("--json");
    alone(&["serve", "--listen", "nowhere"])
        .exits(2)
        .says("nowhere");
    alone(&["serve", "--admin", "maybe"]).exits(2).says("off");
    alone(&["rollback", "No Such Name"])
        .exits(2)
        .says("No Such Name");
}

#[test]
fn help_has_examples_and_every_command() {
    let ran = alone(&["--help"])
        .exits(0)
        .says("hotctl deploy ./app-v2")
        .says("Exit status");
    for command in [
        "serve", "deploy", "rollback", "status", "releases", "logs", "stop", "start", "restart",
        "check", "init",
    ] {
        assert!(
            ran.stdout.contains(&format!("\n  {command}")),
            "{command} is missing\n{ran}"
        );
        alone(&[command, "--help"]).exits(0);
    }
    alone(&["deploy", "--help"])
        .exits(0)
        .says("-- node server.js")
        .says("{port}");
    alone(&["--version"])
        .exits(0)
        .says(env!("CARGO_PKG_VERSION"));
    assert!(
        !ran.stdout.contains("shim"),
        "the hidden command is shown\n{ran}"
    );
}

#[test]
fn without_a_daemon_a_command_ends_with_3_and_names_the_socket() {
    alone(&["status"])
        .exits(3)
        .says("control.sock")
        .says("hotctl serve");
    for command in ["rollback", "releases", "logs", "stop", "start", "restart"] {
        alone(&[command]).exits(3).says("control.sock");
    }
}

#[test]
fn without_a_daemon_a_user_is_told_both_places() {
    // As root the two are one: go on as nobody, who needs a place to start from.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("hotctl");
    fs::copy(env!("CARGO_BIN_EXE_hotctl"), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .env_clear()
        .env("XDG_RUNTIME_DIR", folder.path())
        .arg("status");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let own = folder.path().join("hotctl/control.sock");
    let ran = program::run(&mut command).exits(3);
    ran.says(own.to_str().unwrap())
        .says("/run/hotctl/control.sock");
}

#[test]
fn a_socket_path_that_the_system_would_cut_is_refused_with_the_reason() {
    let long = format!("/tmp/{}/control.sock", "long".repeat(30));
    alone(&["--socket", &long, "status"]).exits(2).says("107");
}

#[test]
fn a_path_that_cannot_be_deployed_ends_with_2_before_anything_is_asked() {
    alone(&["deploy", "./no-such-file"])
        .exits(2)
        .says("no-such-file");
    let daemon = Daemon::of_web("");
    daemon
        .hotctl(["deploy", "./no-such-file"])
        .exits(2)
        .says("no-such-file");
    let plain = daemon.release("v1");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    daemon
        .hotctl(["deploy", plain.to_str().unwrap()])
        .exits(2)
        .says("chmod +x");
    fs::create_dir(daemon.folder().join("site")).unwrap();
    fs::write(daemon.folder().join("site/index.html"), "hello").unwrap();
    daemon.hotctl(["deploy", "./site"]).exits(2).says("run");
}

#[test]
fn where_there_are_several_services_one_must_be_named() {
    let daemon = Daemon::start(TWO);
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    daemon.hotctl(["deploy", path]).exits(2).says("shop, web");
    daemon.hotctl(["rollback"]).exits(2).says("shop, web");
    daemon
        .hotctl(["deploy", path, "--service", "wbe"])
        .exits(2)
        .says("no service named wbe; did you mean web?")
        .says("shop, web");
    daemon
        .hotctl(["deploy", path, "--service", "shop"])
        .exits(0);
    daemon.hotctl(["status", "shop"]).exits(0).says("shop@1");
    daemon.hotctl(["status", "wbe"]).exits(2);
}

#[test]
fn a_deploy_tells_each_phase_and_sums_up() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let path = daemon.release("v1");
    let ran = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(0);
    let mut at = 0;
    for phase in [
        "web@1 starting",
        "started on 127.0.0.1:",
        "healthy",
        "live",
        "total",
    ] {
        let found = ran.stdout[at..].find(phase);
        at += found.unwrap_or_else(|| panic!("no {phase:?} after byte {at}\n{ran}"));
    }
    assert_eq!(ran.stderr, "", "{ran}");
    assert!(!ran.stdout.contains('\x1b'), "colours in a pipe\n{ran}");
    let path = daemon.release("v2");
    daemon
        .hotctl(["deploy", path.to_str().unwrap()])
        .exits(0)
        .says("drain");
}

#[test]
fn a_deploy_as_json_is_an_event_a_line_with_the_summary_at_the_end() {
    let daemon = Daemon::of_web("");
    for version in ["v1", "v2"] {
        let path = daemon.release(version);
        let ran = daemon
            .hotctl(["deploy", path.to_str().unwrap(), "--json"])
            .exits(0);
        let events = ran.events();
        let names: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
        let mut order = names.iter();
        for name in ["starting", "started", "healthy", "flipped", "summary"] {
            assert!(
                order.any(|one| *one == name),
                "{name} is missing or late in {names:?}"
            );
        }
        let summary: Summary = ran.last_event("summary");
        let live = daemon.live();
        assert_eq!(summary.release, live.release);
        assert_eq!(Some(summary.pid), live.pid);
        assert_eq!(summary.address, live.address);
        assert!(
            summary.start_ms + summary.health_ms <= summary.total_ms,
            "{summary:?}"
        );
        assert!(
            summary.live_ms <= summary.total_ms && summary.flip_us > 0.0,
            "{summary:?}"
        );
        assert_eq!(summary.open, 0);
        assert_eq!(summary.drain_ms.is_some(), version == "v2", "{summary:?}");
    }
}

#[test]
fn a_failed_deploy_as_json_ends_with_the_reason() {
    let daemon = Daemon::of_web("");
    let path = daemon.release("v1");
    let ran = daemon
        .try_deploy(&path, &["--crash-at-start", "9"])
        .exits(1);
    let failed: Value = ran.last_event("failed");
    assert_eq!(failed["why"]["kind"], "exited", "{failed}");
    assert!(
        failed["why"]["text"]
            .as_str()
            .unwrap()
            .contains("exit status 9"),
        "{failed}"
    );
    assert!(
        failed["why"]["output"][0]
            .as_str()
            .unwrap()
            .contains("as asked"),
        "{failed}"
    );
}

#[test]
fn the_same_content_and_arguments_again_are_unchanged_unless_forced() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    daemon.hotctl(["deploy", path]).exits(0);
    let before = daemon.live();
    daemon.hotctl(["deploy", path]).exits(0).says("unchanged");
    assert_eq!(daemon.live().pid, before.pid);
    let event: Value = daemon
        .hotctl(["deploy", path, "--json"])
        .exits(0)
        .last_event("unchanged");
    assert_eq!(event["release"], "web@1");
    daemon.hotctl(["deploy", path, "--force"]).exits(0);
    let forced = daemon.live();
    assert_ne!(forced.pid, before.pid);
    daemon
        .hotctl(["deploy", path, "--", "--marker", "other"])
        .exits(0);
    assert_ne!(
        daemon.live().pid,
        forced.pid,
        "other arguments are another release"
    );
}

#[test]
fn the_newest_waiting_order_supersedes_the_one_before() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let [v2, v3, v4] = ["v2", "v3", "v4"].map(|version| daemon.release(version));
    let deploy = |path: &std::path::Path, delay: &str| {
        let path = path.to_str().unwrap();
        daemon.alongside(["deploy", path, "--", "--start-delay-ms", delay])
    };
    let mut first = deploy(&v2, "1500");
    first.until_it_says("started on");
    let mut second = deploy(&v3, "0");
    second.until_it_says("waiting for web@2");
    let third = deploy(&v4, "0");
    second.wait().exits(5).says("superseded");
    first.wait().exits(0);
    third.wait().exits(0);
    assert_eq!(daemon.get("/").text(), "v4\n");
}

#[test]
fn status_shows_what_runs_where() {
    let daemon = Daemon::of_web("");
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("nothing deployed")
        .says("hotctl deploy");
    daemon.deploy("v1", &[]);
    let v2 = daemon.deploy("v2", &[]);
    let (listen, pid) = (daemon.listen().to_string(), v2.pid.to_string());
    let ran = daemon
        .hotctl(["status"])
        .exits(0)
        .says(&listen)
        .says("/metrics");
    let line = |word: &str| ran.stdout.lines().find(|line| line.contains(word));
    let live = line("web@2").unwrap_or_else(|| panic!("{ran}"));
    for word in ["live", &v2.address.to_string(), &pid, "healthy"] {
        assert!(live.contains(word), "no {word}\n{ran}");
    }
    assert!(
        line("web@1").is_some_and(|line| line.contains("warm")),
        "{ran}"
    );
    ran.says("rollback would go to web@1");
}

#[test]
fn releases_are_listed_and_the_oldest_pruned() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nkeep_releases = 2");
    for number in 1..=5 {
        daemon.deploy(&format!("v{number}"), &[]);
        eventually("the old release has been stopped", || {
            daemon.status().service("web").running.len() == 1
        });
    }
    eventually("old releases are pruned", || {
        let releases: Vec<Value> = daemon.hotctl(["releases", "--json"]).exits(0).json();
        releases.len() <= 4 && !releases.iter().any(|one| one["release"] == "web@1")
    });
    let ran = daemon
        .hotctl(["releases"])
        .exits(0)
        .says("web@5")
        .says("live")
        .says("app-v5");
    ran.says("web@4").says("previous");
    // What is listed can be gone back to.
    daemon.hotctl(["rollback"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v4\n");
}

#[test]
fn logs_show_what_the_app_wrote_and_follow_it_across_deploys() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let first = daemon.deploy("v1", &[]);
    let listening = format!("sample: listening on {}", first.address);
    eventually("the line is there", || {
        daemon.hotctl(["logs"]).stdout.contains(&listening)
    });
    let mut following = daemon.alongside(["logs", "-f"]);
    following.until_it_says(&listening);
    let second = daemon.deploy("v2", &[]);
    following.until_it_says(&format!("sample: listening on {}", second.address));
    assert!(!following.has_ended());
    let last = daemon.hotctl(["logs", "web@1", "-n", "1"]).exits(0);
    assert_eq!(last.stdout.lines().count(), 1, "{last}");
    daemon.hotctl(["logs", "web@7"]).exits(2).says("web@7");
}

#[test]
fn a_rollback_without_a_release_before_is_refused() {
    let daemon = Daemon::of_web("");
    daemon
        .hotctl(["rollback"])
        .exits(1)
        .says("no release before");
    daemon.deploy("v1", &[]);
    daemon
        .hotctl(["rollback"])
        .exits(1)
        .says("no release before");
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn stop_takes_a_service_out_and_start_brings_it_back() {
    let daemon = Daemon::of_web("");
    daemon
        .hotctl(["start"])
        .exits(1)
        .says("nothing is deployed");
    daemon.deploy("v1", &[]);
    daemon.hotctl(["stop"]).exits(0).says("stopped");
    let answer = daemon.get("/").has_status(503);
    assert_eq!(answer.header("x-hotctl-error"), "stopped");
    eventually("its process is gone", || {
        daemon.status().service("web").running.is_empty()
    });
    daemon.hotctl(["stop"]).exits(0).says("stopped");
    daemon.hotctl(["status"]).exits(0).says("stopped");
    daemon.hotctl(["start"]).exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    daemon.hotctl(["start"]).exits(0);
}

#[test]
fn init_writes_a_configuration_that_check_finds_good_and_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program::run(hotctl(folder.path()).args(args));
    run(&["check"]).exits(2).says("hotctl init");
    run(&["init"]).exits(0).says("hotctl.toml");
    run(&["check"]).exits(0);
    fs::write(folder.path().join("hotctl.toml"), "mine = true").unwrap();
    run(&["init"]).exits(2).says("not overwritten");
    assert_eq!(
        fs::read_to_string(folder.path().join("hotctl.toml")).unwrap(),
        "mine = true"
    );
    run(&["check"]).exits(2).says("hotctl.toml:1").says("mine");
}

#[test]
fn an_output_that_nobody_reads_any_more_is_no_failure() {
    let daemon = Daemon::of_web("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = daemon.command(["status"]);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_deployment_that_failed_is_told_in_status_history_and_show_until_a_better_one() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    daemon
        .try_deploy(&path, &["--crash-at-start", "9"])
        .exits(1);
    daemon
        .hotctl(["status"])
        .exits(0)
        .says("deployment 2 of web@2 failed")
        .says("hotctl show 2 web");
    daemon
        .hotctl(["show", "2"])
        .exits(0)
        .says("deploy to web@2, from web@1")
        .says("exit status 9");
    daemon.hotctl(["show", "7"]).exits(2).says("hotctl history");
    daemon.deploy("v3", &[]);
    let status = daemon.hotctl(["status"]).exits(0);
    assert!(!status.stdout.contains("failed"), "{status}");
    let history = daemon.hotctl(["history"]).exits(0);
    let rows: Vec<&str> = history.stdout.lines().collect();
    // The heading, then the newest first.
    assert_eq!(rows.len(), 4, "{history}");
    assert!(
        rows[1].contains("web@3") && rows[1].contains("live"),
        "{history}"
    );
    assert!(
        rows[2].contains("web@2") && rows[2].contains("failed"),
        "{history}"
    );
    daemon.hotctl(["history", "-n", "1"]).exits(0).says("web@3");
}

#[test]
fn a_rollback_goes_to_the_release_that_is_named() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    for version in ["v1", "v2", "v3"] {
        daemon.deploy(version, &[]);
    }
    daemon.hotctl(["rollback", "--to", "1"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v1\n");
    daemon.hotctl(["rollback", "--to", "web@3"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v3\n");
    daemon
        .hotctl(["rollback", "web", "--to", "shop@3"])
        .exits(2)
        .says("shop@3");
    daemon
        .hotctl(["rollback", "--to", "latest"])
        .exits(2)
        .says("web@7");
    daemon.hotctl(["rollback", "--to", "99"]).says("99");
}

#[test]
fn colours_are_for_terminals_and_for_who_asks_for_them() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let plain = daemon.hotctl(["status"]).exits(0);
    let coloured = daemon.hotctl(["status", "--color", "always"]).exits(0);
    assert!(!plain.stdout.contains('\x1b'), "{plain}");
    assert!(
        coloured.stdout.contains("\x1b[32mserving\x1b[0m"),
        "{coloured}"
    );
    let json = daemon
        .hotctl(["status", "--color", "always", "--json"])
        .exits(0);
    assert!(!json.stdout.contains('\x1b'), "{json}");
    let failed = daemon.hotctl(["logs", "web@7"]).exits(2);
    assert!(!failed.stderr.contains('\x1b'), "{failed}");
}

#[test]
fn a_stream_ends_when_its_reader_has_left() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = daemon.command(["events", "-f"]);
    let mut following = command.stdout(writer).spawn().unwrap();
    drop(command);
    drop(reader);
    eventually("it has ended", || {
        following
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success())
    });
}
