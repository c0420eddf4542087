//! The daemon: what it refuses before it starts anything, how it ends, and what it remembers.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use rustix::process::Signal;

use crate::support::daemon::{hotctl, web};
use crate::support::http::{self, Client, Trouble, Upload, run_on};
use crate::support::program::{self, Ran, send};
use crate::support::{Daemon, eventually, leftovers};

/// `hotctl serve` with this configuration, which must be refused.
fn refused(config: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hotctl.toml");
    fs::write(&file, config).unwrap();
    let ran = program::run(hotctl(folder.path()).args(["serve", "--config"]).arg(&file)).exits(2);
    assert_eq!(
        leftovers::files(folder.path()).len(),
        1,
        "something was begun\n{ran}"
    );
    // Reading and checking alone says the same.
    let check = program::run(hotctl(folder.path()).args(["check", "--config"]).arg(&file)).exits(2);
    assert_eq!(ran.stderr, check.stderr);
    ran
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_field_value_reason_and_remedy() {
    let start = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    refused(&format!(
        "{start}[service.web]\nstart_timeout = \"30 parsecs\"\n"
    ))
    .says("hotctl.toml:4")
    .says("service.web.start_timeout")
    .says("30 parsecs")
    .says("try:");
    refused(&format!("{start}[service.web]\nstart_timout = \"30s\"\n"))
        .says("hotctl.toml:4")
        .says("start_timout")
        .says("start_timeout");
    refused(&format!("{start}tls = \"cert.pem\"\n[service.web]\n")).says("not yet supported");
    refused(&format!("{start}[service.web]\nkeep_releases = 0\n")).says("keep_releases");
    refused(&format!("{start}[service.web]\n[service.shop]\n"))
        .says("shop")
        .says("service.web");
    refused("[service.web]\n").says("listen");
    refused("[[listen\n").says("hotctl.toml:1");
    // All that is wrong at once.
    refused(&format!(
        "ports = \"x\"\n{start}[service.web]\nkeep_warm = \"y\"\n"
    ))
    .says("hotctl.toml:1: ports: \"x\"")
    .says("hotctl.toml:5: service.web.keep_warm: \"y\"");
}

#[test]
fn without_any_configuration_the_two_ways_on_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ran = program::run(hotctl(folder.path()).arg("serve")).exits(2);
    ran.says("--listen").says("hotctl init");
    let ran = program::run(hotctl(folder.path()).args(["serve", "--config", "no.toml"])).exits(2);
    ran.says("no.toml");
}

#[test]
fn without_a_file_listen_gives_one_service_that_takes_every_request() {
    let folder = tempfile::Builder::new()
        .prefix("hotctl-test-")
        .tempdir()
        .unwrap();
    let mut command = hotctl(folder.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "off"]);
    let serve = program::start(&mut command);
    let run = |args: &[&str]| program::run(hotctl(folder.path()).args(args));
    eventually("it answers", || run(&["status"]).status.success());
    let release = crate::support::sample::release(folder.path(), "v1");
    run(&["deploy", release.to_str().unwrap()])
        .exits(0)
        .says("app@1");
    let status: crate::support::status::Status = run(&["status", "--json"]).exits(0).json();
    assert_eq!(status.admin, None);
    assert_eq!(
        http::get(status.listen[0], "/anything").head.version(),
        "v1"
    );
    serve.signal(Signal::INT);
    serve.wait().exits(0);
}

#[test]
fn a_configuration_in_json_means_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hotctl.json");
    let config =
        r#"{"listen": [{"address": "127.0.0.1:0"}], "service": {"web": {"keep_warm": "5s"}}}"#;
    fs::write(&file, config).unwrap();
    let check =
        |file: &Path| program::run(hotctl(folder.path()).args(["check", "--config"]).arg(file));
    check(&file).exits(0).says("web");
    fs::write(&file, config.replace("5s", "5 parsecs")).unwrap();
    check(&file).exits(2).says("5 parsecs");
}

#[test]
fn an_address_in_use_is_told_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for config in [
        web("").replacen(
            "address = \"127.0.0.1:0\"",
            &format!("address = \"{taken}\""),
            1,
        ),
        web("").replacen(
            "admin = \"127.0.0.1:0\"",
            &format!("admin = \"{taken}\""),
            1,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hotctl.toml"), config).unwrap();
        let ran = program::run(hotctl(folder.path()).arg("serve")).exits(2);
        ran.says(&taken).says("address in use").says("try:");
        assert!(!folder.path().join("control.sock").exists());
    }
}

#[test]
fn a_second_daemon_on_the_same_places_is_refused_and_the_first_not_disturbed() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let ran = program::run(daemon.command(["serve"]).current_dir(daemon.folder())).exits(2);
    ran.says("another hotctl");
    assert_eq!(daemon.get("/").text(), "v1\n");
    daemon.hotctl(["status"]).exits(0);
}

#[test]
fn the_control_socket_and_the_state_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let mode = |name: &str| {
        let meta = fs::metadata(daemon.folder().join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!((mode("state"), mode("control.sock")), (0o700, 0o600));
}

#[test]
fn a_control_socket_that_was_removed_comes_back() {
    let mut daemon = Daemon::of_web("");
    let place = daemon.folder().join("control.sock");
    for _ in 0..2 {
        fs::remove_file(&place).unwrap();
        eventually("it is there again", || place.exists());
        let first = daemon.status();
        assert_eq!(first.pid, daemon.pid());
        // Whoever takes over has it, too.
        daemon.upgrade(&[]);
    }
    daemon.deploy("v1", &[]);
    assert_eq!(
        daemon
            .log()
            .matches("the control socket was removed")
            .count(),
        2
    );
}

#[test]
fn on_sigterm_what_is_in_flight_is_answered_and_nobody_new_taken() {
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let listen = daemon.listen();
    let upload = Upload::begin(listen, "test");
    let runtime = http::runtime();
    let mut idle = run_on(&runtime, async {
        let mut client = Client::connect(listen).await?;
        client.ask(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await?;
        assert!(client.goes_on());
        Ok::<_, Trouble>(client)
    })
    .unwrap();
    send(daemon.pid(), Signal::TERM);
    eventually("new connections are refused", || {
        TcpStream::connect(listen).is_err()
    });
    // An idle connection is closed; what is in flight is answered, and told that it is the last.
    run_on(&runtime, idle.closed()).unwrap();
    let answer = upload.end().has_status(200);
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(daemon.ends().code(), Some(0));
}

#[test]
fn the_end_comes_in_time_whoever_is_still_there() {
    let config = web("stop_timeout = \"500ms\"");
    let mut daemon = Daemon::start(&format!("shutdown_timeout = \"300ms\"\n{config}"));
    daemon.deploy("v1", &["--ignore-term", "--fork-children"]);
    let _held = Upload::begin(daemon.listen(), "test");
    assert_eq!(daemon.stop().code(), Some(0));
    let log = daemon.log();
    assert!(log.contains("shutdown_timeout"), "{log}");
}

#[test]
fn after_a_restart_of_the_daemon_its_live_releases_are_started_again() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    daemon.deploy_path(&path, &["--marker", "args are kept, too"]);
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(
        leftovers::processes(daemon.folder()).is_empty(),
        "apps end with the daemon"
    );
    daemon.start_again();
    // It is asked at once: until the app listens, the request waits.
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    assert_eq!(daemon.live().release, "web@2");
    daemon
        .hotctl([
            "deploy",
            path.to_str().unwrap(),
            "--",
            "--marker",
            "args are kept, too",
        ])
        .exits(0)
        .says("unchanged");
    daemon.hotctl(["rollback"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn with_on_exit_keep_apps_live_on_and_the_next_daemon_adopts_them() {
    let mut daemon = Daemon::start(&format!(
        "on_exit = \"keep\"\n{}",
        web("address = \"unix\"")
    ));
    let before = daemon.deploy("v1", &[]);
    assert_eq!(daemon.stop().code(), Some(0));
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    assert_eq!(daemon.live().pid, Some(before.pid));
    daemon.deploy("v2", &[]);
    // Or the app would live on after this test, too.
    daemon.hotctl(["stop"]).exits(0);
    eventually("nothing of it runs", || {
        daemon.status().service("web").running.is_empty()
    });
}

#[test]
fn a_stopped_service_stays_stopped_after_a_restart_of_the_daemon() {
    let mut daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    daemon.hotctl(["stop"]).exits(0);
    assert_eq!(daemon.stop().code(), Some(0));
    daemon.start_again();
    daemon.get("/").has_status(503);
    daemon.hotctl(["start"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn the_app_runs_where_and_with_what_is_promised() {
    let daemon = Daemon::of_web("");
    let live = daemon.deploy("v1", &[]);
    let env = |name: &str| daemon.get(&format!("/env?name={name}")).text();
    assert_eq!(env("PORT"), live.address.inet().port().to_string());
    assert_eq!(env("HOST"), "127.0.0.1");
    assert_eq!(env("HOTCTL_SERVICE"), "web");
    assert_eq!(env("HOTCTL_RELEASE"), "web@1");
    for secret in [
        "HOTCTL_SOCKET",
        "HOTCTL_STATE",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
    ] {
        assert_eq!(env(secret), "", "{secret}");
    }
    let cwd = daemon.get("/cwd").text();
    assert!(
        cwd.starts_with(daemon.folder().join("state").to_str().unwrap()),
        "{cwd}"
    );
}

#[test]
fn health_of_the_daemon_itself_is_told() {
    let daemon = Daemon::of_web("");
    let admin = daemon.status().admin.unwrap();
    http::get(admin, "/healthz").has_status(200);
    http::get(admin, "/readyz").has_status(200);
    daemon.deploy("v1", &[]);
    http::get(admin, "/readyz").has_status(200);
    http::get(admin, "/").has_status(404);
    // It only tells: nothing is steered here.
    let post = "POST /v1/services/web/stop HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    http::ask(admin, post).has_status(404);
}
