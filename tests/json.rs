//! `--json`: what every command answers is what its schema says, and a failure too.

use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use crate::support::daemon::hotctl;
use crate::support::program::{self, Ran};
use crate::support::{Daemon, eventually};

/// The schema of a command, as the program prints it.
fn schema(subject: &str) -> Validator {
    let folder = tempfile::tempdir().unwrap();
    let schema: Value = program::run(hotctl(folder.path()).args(["schema", subject]))
        .exits(0)
        .json();
    jsonschema::validator_for(&schema).unwrap_or_else(|e| panic!("{subject}: {e}"))
}

#[track_caller]
fn fits(subject: &str, value: &Value) {
    let errors: Vec<String> = schema(subject)
        .iter_errors(value)
        .map(|e| format!("{e} at {}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{subject}: {errors:#?}\n{value:#}");
}

/// Every line of standard output fits; there is at least one.
#[track_caller]
fn lines_fit(subject: &str, ran: &Ran) {
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(!lines.is_empty(), "{ran}");
    for line in &lines {
        fits(subject, line);
    }
}

/// The last line of standard error fits, and says how the command ended.
#[track_caller]
fn failure_fits(ran: &Ran) {
    let last = ran.stderr.lines().last().unwrap_or_default();
    let failure: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}\n{ran}"));
    fits("failure", &failure);
    assert_eq!(
        failure["exit"].as_i64(),
        ran.status.code().map(i64::from),
        "{ran}"
    );
}

#[test]
fn every_command_that_looks_answers_as_its_schema_says() {
    let way = "log_level = { request = \"PUT /level?to={level}\" }";
    let mut daemon = Daemon::of_web(way);
    let whole = |args: &[&str], subject: &str| {
        let words = args.iter().copied().chain(["--json"]);
        let value: Value = daemon.hotctl(words).exits(0).json();
        fits(subject, &value);
    };
    whole(&["status"], "status");
    whole(&["releases"], "releases");
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &[]);
    whole(&["status"], "status");
    whole(&["status", "web"], "status");
    whole(&["releases"], "releases");
    whole(&["history"], "history");
    whole(&["show", "2"], "show");
    whole(&["version"], "version");
    whole(&["reload"], "reload");
    whole(&["log-level"], "log-level");
    whole(&["log-level", "debug"], "log-level");
    whole(&["log-level", "web", "debug"], "log-level");
    whole(&["check"], "check");
    whole(&["init", "fresh.toml"], "init");
    std::fs::write(daemon.folder().join("Procfile"), "web: a $PORT\n# end\n").unwrap();
    whole(&["init", "made.toml", "--from", "Procfile"], "init");
    std::fs::create_dir(daemon.folder().join("man")).unwrap();
    whole(&["man", "--out", "man"], "man");
    eventually("the app has written something", || {
        !daemon.hotctl(["logs"]).stdout.is_empty()
    });
    lines_fit("logs", &daemon.hotctl(["logs", "--json"]).exits(0));
    let one = daemon.hotctl(["logs", "web@1", "--json"]).exits(0);
    lines_fit("logs", &one);
    one.says(r#""release":"web@1""#);
    daemon
        .hotctl(["logs", "web", "--release", "1", "--json"])
        .exits(0)
        .says(r#""release":"web@1""#);
    lines_fit("events", &daemon.hotctl(["events", "--json"]).exits(0));
    let upgraded = daemon.hotctl(["upgrade", "--json"]).exits(0).json();
    fits("upgrade", &upgraded);
    daemon.finds_successor();
}

#[test]
fn every_order_tells_what_becomes_of_it_as_its_schema_says() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    for version in ["v1", "v2"] {
        let path = daemon.release(version);
        let path = path.to_str().unwrap();
        lines_fit(
            "deploy",
            &daemon.hotctl(["deploy", path, "--json"]).exits(0),
        );
        // Unchanged.
        lines_fit(
            "deploy",
            &daemon.hotctl(["deploy", path, "--json"]).exits(0),
        );
    }
    for order in [
        "rollback", "restart", "stop", "stop", "start", "pause", "resume", "cancel",
    ] {
        lines_fit(order, &daemon.hotctl([order, "--json"]).exits(0));
    }
    let path = daemon.release("v3");
    let path = path.to_str().unwrap();
    let failed = daemon
        .hotctl(["deploy", path, "--json", "--", "--crash-at-start", "9"])
        .exits(1);
    lines_fit("deploy", &failed);
    failure_fits(&failed);
}

#[test]
fn a_command_that_fails_says_so_as_the_schema_of_failures_says() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program::run(hotctl(folder.path()).args(args));
    for (args, exit) in [
        (&["status", "--json"][..], 3),
        (&["--json", "statsu"], 2),
        (&["status", "--jsno", "--json"], 2),
        (&["check", "--json"], 2),
        (&["serve", "--json"], 2),
        (&["deploy", "./missing", "--json"], 2),
        (&["man", "--out", "missing", "--json"], 2),
    ] {
        let ran = run(args).exits(exit);
        failure_fits(&ran);
        assert_eq!(ran.stdout, "", "{ran}");
    }
    // What is for people stays so.
    run(&["statsu"]).exits(2).says("status");
}

#[test]
fn a_daemon_with_a_log_of_json_says_in_json_too_why_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program::run(hotctl(folder.path()).args(args));
    failure_fits(&run(&["serve", "--log-format", "json"]).exits(2));
    run(&["serve"])
        .exits(2)
        .says("hotctl: no configuration found");
    run(&["serve", "--log-level", "loud"])
        .exits(2)
        .says("loud")
        .says("debug");
}

#[test]
fn doctor_answers_as_its_schema_says_whatever_it_finds() {
    let folder = tempfile::tempdir().unwrap();
    let good: Value = program::run(hotctl(folder.path()).args(["doctor", "--json"])).json();
    fits("doctor", &good);
    std::fs::write(folder.path().join("hotctl.toml"), "mine = true").unwrap();
    let ran = program::run(hotctl(folder.path()).args(["doctor", "--json"])).exits(1);
    failure_fits(&ran);
    let wrong: Value = ran.json();
    fits("doctor", &wrong);
    assert!(wrong["wrong"].as_u64() >= Some(1), "{wrong:#}");
}

#[test]
fn what_is_written_for_other_programs_is_what_they_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program::run(hotctl(folder.path()).args(args)).exits(0);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        run(&["completions", shell]).says("rollback");
    }
    let api: Value = run(&["openapi"]).json();
    assert_eq!(api["openapi"], "3.1.0", "{api:#}");
    run(&["man"]).says(".TH hotctl 1");
    std::fs::create_dir(folder.path().join("man")).unwrap();
    run(&["man", "--out", "man"]);
    let pages = std::fs::read_dir(folder.path().join("man"))
        .unwrap()
        .count();
    let commands = run(&["--help"]).stdout;
    let (_, list) = commands.split_once("Commands:\n").unwrap();
    let listed = list.lines().take_while(|line| !line.is_empty()).count();
    // One of its own, and none for `help`.
    assert_eq!(pages, listed, "{}", Path::new("man").display());
    let subjects = run(&["schema"]).stdout;
    for subject in subjects.lines() {
        schema(subject);
    }
}
