//! Orders wait their turn, the newest first of all; each has a number, a giver and a record; and
//! whoever ends one, in whatever phase, leaves a service that says what is true and serves it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::daemon::{hotctl, web};
use crate::support::load::Plan;
use crate::support::program::{self, Ran, Running};
use crate::support::{Class, Daemon, eventually, eventually_some, leftovers};

/// One request to the control API, as any HTTP client would make it: status and body.
fn api(socket: &Path, request: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    let length = body.len();
    let head = format!("{request} HTTP/1.0\r\nhost: hotctl\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn socket(daemon: &Daemon) -> std::path::PathBuf {
    daemon.folder().join("control.sock")
}

/// A value of the control API.
#[track_caller]
fn get(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = api(&socket(daemon), &format!("GET {path}"), "");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The lines that the control API answers.
#[track_caller]
fn lines(daemon: &Daemon, request: &str, body: &str) -> Vec<Value> {
    let (status, answer) = api(&socket(daemon), request, body);
    assert_eq!(status, 200, "{request}: {answer}");
    let lines = answer.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The records of `web`, newest first.
fn history(daemon: &Daemon) -> Vec<Value> {
    let history = get(daemon, "/v1/services/web/deployments");
    history.as_array().unwrap().clone()
}

fn deploy(daemon: &Daemon, version: &str, options: &[&str], delay_ms: &str) -> Running {
    let path = daemon.release(version);
    let mut args = vec!["deploy", path.to_str().unwrap()];
    args.extend(options);
    args.extend(["--", "--start-delay-ms", delay_ms]);
    daemon.alongside(args)
}

#[test]
fn of_three_deploys_ordered_at_once_the_first_and_the_newest_run() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let mut first = deploy(&daemon, "v2", &[], "1500");
    first.until_it_says("started on");
    let mut second = deploy(&daemon, "v3", &[], "0");
    second.until_it_says("waiting for web@2");
    let status = get(&daemon, "/v1/status");
    let web = &status["services"][0];
    assert_eq!(web["waiting"]["to"], "web@3", "{web}");
    assert_eq!(web["waiting"]["by"], web["deployment"]["by"], "{web}");
    let third = deploy(&daemon, "v4", &[], "0");
    second.wait().exits(5).says("superseded by web@4");
    first.wait().exits(0);
    third.wait().exits(0);
    assert_eq!(daemon.get("/").text(), "v4\n");
    let released: Vec<Value> = daemon.hotctl(["releases", "--json"]).exits(0).json();
    let released: Vec<&Value> = released.iter().map(|one| &one["release"]).collect();
    assert_eq!(
        released,
        ["web@1", "web@2", "web@4"],
        "the middle one left again"
    );
    assert_eq!(daemon.deploy("v5", &[]).release, "web@5");
    let told: Vec<(u64, String, String)> = history(&daemon).iter().map(outcome).collect();
    let expected = [
        (5, "web@5", "live"),
        (4, "web@4", "live"),
        (3, "web@3", "superseded"),
        (2, "web@2", "live"),
        (1, "web@1", "live"),
    ];
    let expected = expected.map(|(n, to, result)| (n, to.to_owned(), result.to_owned()));
    assert_eq!(told, expected);
}

fn outcome(record: &Value) -> (u64, String, String) {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    (
        record["number"].as_u64().unwrap(),
        text("to"),
        text("result"),
    )
}

#[test]
fn who_is_not_to_wait_is_refused_with_holder_phase_and_age() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let mut first = deploy(&daemon, "v2", &[], "1500");
    first.until_it_says("started on");
    let path = daemon.release("v3");
    let refused = ["deploy", path.to_str().unwrap(), "--no-wait"];
    let ran = daemon.hotctl(refused).exits(4);
    ran.says("web: deployment 2 of web@2 by ")
        .says(" is starting for ")
        .says("hotctl cancel web");
    for order in ["rollback", "restart", "stop"] {
        let request = format!("POST /v1/services/web/{order}");
        let told = lines(&daemon, &request, r#"{"no_wait":true}"#);
        assert_eq!(told[0]["why"]["kind"], "busy", "{order}: {told:?}");
    }
    first.wait().exits(0);
    // The hold that only keeps web@1 warm is nothing to wait for.
    daemon.hotctl(refused).exits(0).says("web@3");
}

/// In which phase a deployment is met.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Queued,
    Starting,
    Warm,
}

/// How it is met there.
#[derive(Clone, Copy, Debug)]
enum Way {
    CtrlC,
    KilledClient,
    Cancel,
}

#[test]
fn whoever_ends_a_deployment_leaves_a_consistent_service() {
    use Phase::{Queued, Starting, Warm};
    use Way::{Cancel, CtrlC, KilledClient};
    let daemon = Daemon::of_web("keep_warm = \"60s\"\nstop_timeout = \"500ms\"");
    daemon.deploy("v0", &[]);
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 2)
        .clients(Class::NewConnection, 1)
        .every(Duration::from_millis(10))
        .start();
    // Whether the deployment that is met goes live.
    let cases = [
        (Queued, CtrlC, "cancelled"),
        (Queued, Cancel, "cancelled"),
        (Queued, KilledClient, "live"),
        (Starting, CtrlC, "cancelled"),
        (Starting, Cancel, "cancelled"),
        (Starting, KilledClient, "live"),
        (Warm, CtrlC, "live"),
        (Warm, Cancel, "live"),
        (Warm, KilledClient, "live"),
    ];
    for (n, (phase, way, result)) in cases.into_iter().enumerate() {
        let case = format!("{phase:?}, {way:?}");
        load.wait_for(5);
        meet(&daemon, n, phase, way);
        let record = eventually_some(&format!("{case}: it is {result}"), || {
            let newest = history(&daemon).into_iter().next()?;
            (newest["result"] == result).then_some(newest)
        });
        let status = eventually_some(&format!("{case}: nothing is under way"), || {
            let status = daemon.status();
            let waits = status.service("web").deployment.as_ref();
            let busy = waits.is_some_and(|d| d["phase"] != "warm");
            (!busy).then_some(status)
        });
        let live = status.service("web").live.clone().unwrap();
        assert_eq!(
            live.release == record["to"],
            result == "live",
            "{case}: {record}"
        );
        assert_eq!(
            record["why"].is_null(),
            result == "live",
            "{case}: {record}"
        );
        assert_eq!(live.restarts, 0, "{case}");
        load.wait_for(5);
    }
    load.finish().assert_none_failed();
}

/// Bring a deployment to a phase and meet it there.
fn meet(daemon: &Daemon, n: usize, phase: Phase, way: Way) {
    let (before, version) = (format!("before{n}"), format!("met{n}"));
    let holder = matches!(phase, Phase::Queued).then(|| {
        let mut holder = deploy(daemon, &before, &["--wait", "live"], "700");
        holder.until_it_says("started on");
        holder
    });
    let delay = if matches!(phase, Phase::Starting) {
        "1500"
    } else {
        "0"
    };
    let mut met = deploy(daemon, &version, &["--wait", "settled"], delay);
    met.until_it_says(match phase {
        Phase::Queued => "waiting for",
        Phase::Starting => "started on",
        Phase::Warm => "is live on",
    });
    let flipped = matches!(phase, Phase::Warm);
    match way {
        Way::CtrlC => {
            met.signal(Signal::INT);
            met.wait().exits(if flipped { 0 } else { 1 });
        }
        Way::KilledClient => {
            met.signal(Signal::KILL);
            drop(met);
        }
        Way::Cancel if flipped => {
            daemon.hotctl(["cancel"]).exits(1).says("is live already");
            assert!(!met.has_ended(), "it waits on");
        }
        Way::Cancel => {
            let number = history(daemon)[0]["number"].clone();
            let request = format!("DELETE /v1/services/web/deployments?number={number}");
            let told = lines(daemon, &request, "");
            assert_eq!(told.last().unwrap()["event"], "done", "{told:?}");
            met.wait().exits(1).says("cancelled by ");
        }
    }
    if let Some(holder) = holder {
        holder.wait().exits(0);
    }
}

#[test]
fn a_deployment_that_is_cancelled_before_it_starts_leaves_nothing_of_its_command() {
    let daemon = Daemon::of_web("before_start = [\"sleep\", \"600\"]");
    let mut met = deploy(&daemon, "v1", &[], "0");
    met.until_it_says("before_start: sleep 600");
    daemon.hotctl(["cancel"]).exits(0).says("nothing is live");
    met.wait().exits(1).says("cancelled by ");
    let runs = || leftovers::processes(daemon.folder()).into_iter();
    eventually("its command does not run any more", || {
        !runs().any(|process| process.line.contains("sleep"))
    });
    assert_eq!(history(&daemon)[0]["result"], "cancelled");
}

#[test]
fn a_rollback_in_the_hold_fails_whoever_waits_for_the_deployment_to_settle() {
    let daemon = Daemon::of_web("keep_warm = \"60s\"");
    daemon.deploy("v1", &[]);
    let mut waiting = deploy(&daemon, "v2", &["--wait", "settled"], "0");
    waiting.until_it_says("is live on");
    daemon.hotctl(["rollback"]).exits(0).says("web@1 is live");
    waiting.wait().exits(1).says("rolled back by ");
    assert_eq!(daemon.get("/").text(), "v1\n");
    let record = &history(&daemon)[0];
    assert_eq!(record["result"], "flipped_back", "{record}");
    assert_eq!(record["why"]["kind"], "rolled_back", "{record}");
    let phases: Vec<&Value> = list(record, "phases").iter().map(|p| &p["phase"]).collect();
    assert_eq!(phases, ["starting", "warm", "reverting"]);
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn a_deployment_settles_when_the_hold_is_over() {
    let daemon = Daemon::of_web("keep_warm = \"300ms\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    let path = path.to_str().unwrap();
    let ran = daemon.hotctl(["deploy", path, "--json", "--wait", "settled"]);
    let settled: Value = ran.exits(0).last_event("settled");
    assert_eq!(settled["release"], "web@2");
    eventually("web@1 does not run any more", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn one_goes_back_to_any_release_that_was_live_and_to_no_other() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nstart_timeout = \"5s\"");
    for version in ["v1", "v2", "v3"] {
        daemon.deploy(version, &[]);
    }
    let broken = daemon.release("v4");
    daemon
        .try_deploy(&broken, &["--crash-at-start", "1"])
        .exits(1);
    let back = |body: &str| lines(&daemon, "POST /v1/services/web/rollback", body);
    let to_first = back(r#"{"to":1}"#);
    assert_eq!(to_first.last().unwrap()["event"], "settled", "{to_first:?}");
    assert_eq!(daemon.get("/").text(), "v1\n");
    let again = back(r#"{"to":1}"#);
    assert_eq!(again[0], json!({"event": "unchanged", "release": "web@1"}));
    for (to, reason) in [(4, "never been live"), (9, "not stored")] {
        let refused = back(&format!("{{\"to\":{to}}}"));
        let why = &refused[0]["why"];
        assert!(why["text"].as_str().unwrap().contains(reason), "{why}");
        let hint = why["hint"].as_str().unwrap();
        assert_eq!(hint, "one of: web@1, web@2, web@3");
    }
    assert_eq!(history(&daemon)[0]["verb"], "rollback");
}

#[test]
fn the_record_of_a_deployment_tells_what_has_happened() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    let path = path.to_str().unwrap();
    let args = ["deploy", path, "--json", "--wait", "settled"];
    let ran = daemon.hotctl(args.into_iter().chain(["--", "--start-delay-ms", "300"]));
    let events = ran.exits(0).events();
    let event = |name: &str| events.iter().find(|e| e["event"] == name).unwrap().clone();
    let broken = daemon.release("v3");
    daemon
        .try_deploy(&broken, &["--crash-at-start", "7"])
        .exits(1);

    let good = get(&daemon, "/v1/services/web/deployments/2");
    assert_eq!(good["from"], "web@1");
    assert_eq!(good["to"], "web@2");
    assert_eq!(
        (&good["verb"], &good["via"]),
        (&"deploy".into(), &"cli".into())
    );
    assert_eq!(good["who"]["uid"], rustix::process::geteuid().as_raw());
    let mut summary = event("summary");
    summary.as_object_mut().unwrap().remove("event");
    assert_eq!(good["summary"], summary);
    let phases = list(&good, "phases");
    assert_eq!(phases[0]["phase"], "starting");
    let starting = phases[0]["took_ms"].as_f64().unwrap();
    let healthy = event("healthy")["took_ms"].as_f64().unwrap();
    assert!(starting >= healthy && healthy >= 300.0, "{good}");
    let time = |name: &str| good[name].as_u64().unwrap();
    assert!(time("ordered_ms") <= time("started_ms"), "{good}");
    assert!(time("started_ms") + 300 <= time("ended_ms"), "{good}");

    let bad = get(&daemon, "/v1/services/web/deployments/3");
    assert_eq!(bad["result"], "failed");
    let why = bad["why"]["text"].as_str().unwrap();
    assert!(why.contains("exit status 7"), "{bad}");
    assert!(!list(&bad["why"], "output").is_empty(), "{bad}");
    let (status, _) = api(&socket(&daemon), "GET /v1/services/web/deployments/99", "");
    assert_eq!(status, 404);
    let newest = get(&daemon, "/v1/services/web/deployments?limit=1");
    assert_eq!(newest, json!([bad]));
}

#[test]
fn what_happened_is_told_by_number_across_a_restart_of_the_daemon() {
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let before = lines(&daemon, "GET /v1/events", "");
    assert_eq!(before[0]["event"], "daemon_started");
    assert!(
        before
            .iter()
            .any(|e| e["event"] == "flipped" && e["release"] == "web@1")
    );
    let known = numbers(&before);
    let last = *known.last().unwrap();
    assert_eq!(known, (1..=last).collect::<Vec<_>>());
    // Met in the middle of a deployment, without a warning.
    let mut starting = deploy(&daemon, "v2", &[], "60000");
    starting.until_it_says("started on");
    daemon.kill();
    starting.wait().exits(3);
    daemon.start_again();
    assert_eq!(history(&daemon)[0]["result"], "under_way");
    daemon.hotctl(["cancel"]).exits(0);
    eventually("it is cancelled", || {
        history(&daemon)[0]["result"] == "cancelled"
    });
    daemon.deploy("v3", &[]);
    let after = lines(&daemon, &format!("GET /v1/events?after={last}"), "");
    let new = numbers(&after);
    assert_eq!(new, (last + 1..=*new.last().unwrap()).collect::<Vec<_>>());
    let told = |event: &str, release: &str| {
        after
            .iter()
            .any(|e| e["event"] == event && e["release"] == release)
    };
    assert!(told("starting", "web@2"), "{after:?}");
    assert!(told("flipped", "web@3"), "{after:?}");
    assert!(after.iter().any(|e| e["event"] == "daemon_started"));
    assert_eq!(history(&daemon).len(), 3);
}

fn numbers(events: &[Value]) -> Vec<u64> {
    let numbers = events.iter().filter_map(|event| event["number"].as_u64());
    numbers.collect()
}

/// A group of the system; one that was made for the test is taken away again.
struct Group {
    name: String,
    made: bool,
}

impl Group {
    fn some() -> Self {
        let name = format!("hotctl-{}", std::process::id());
        let made = rustix::process::geteuid().is_root()
            && Command::new("groupadd")
                .arg(&name)
                .status()
                .is_ok_and(|s| s.success());
        if made {
            return Self { name, made };
        }
        let own = program::run(Command::new("id").arg("-gn")).exits(0);
        Self {
            name: own.stdout.trim().to_owned(),
            made,
        }
    }

    fn id(&self) -> u32 {
        let entry = program::run(Command::new("getent").args(["group", &self.name])).exits(0);
        entry.stdout.split(':').nth(2).unwrap().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.made {
            let _ = Command::new("groupdel").arg(&self.name).status();
        }
    }
}

#[test]
fn members_of_the_group_may_steer_and_are_named_and_others_may_not() {
    let group = Group::some();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.path().join("hotctl.toml");
    let text = format!("{}\n[control]\ngroup = {:?}\n", web(""), group.name);
    fs::write(&config, text).unwrap();
    let socket = folder.path().join("run/control.sock");
    let at = |mut command: Command| {
        command.env("HOTCTL_SOCKET", &socket);
        command
    };
    let mut serve = at(hotctl(folder.path()));
    serve.args(["serve", "--config"]).arg(&config);
    let mut serving = program::start(&mut serve);
    serving.until_it_says(&format!("members of group {} may steer", group.name));
    eventually("it answers", || {
        let mut status = at(hotctl(folder.path()));
        program::run(status.arg("status")).status.success()
    });
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&socket), mode(socket.parent().unwrap())),
        (0o660, 0o710)
    );
    if !rustix::process::geteuid().is_root() {
        println!("tested with the group of this user; others cannot be tried without root");
        return;
    }
    println!("tested as root with user 65534 in group {}", group.name);
    let program = folder.path().join("hotctl");
    fs::copy(env!("CARGO_BIN_EXE_hotctl"), &program).unwrap();
    let as_nobody = |gid: u32, args: &[&str]| -> Ran {
        let mut command = at(Command::new(&program));
        command.uid(65534).gid(gid).args(args).current_dir("/");
        program::run(&mut command)
    };
    as_nobody(65534, &["status"])
        .exits(3)
        .says("permission denied");
    as_nobody(group.id(), &["status"]).exits(0).says("web");
    as_nobody(group.id(), &["rollback"]).exits(1);
    let (_, events) = api(&socket, "GET /v1/events", "");
    let refused = events.lines().find(|line| line.contains("order_refused"));
    let refused: Value = serde_json::from_str(refused.unwrap()).unwrap();
    assert_eq!(refused["by"]["who"]["uid"], 65534, "{refused}");
    assert_eq!(refused["verb"], "rollback");
}

#[test]
fn a_group_that_is_not_there_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hotctl.toml");
    let text = web("") + "[control]\ngroup = \"no-such-group\"\n";
    fs::write(&config, text).unwrap();
    let mut serve = hotctl(folder.path());
    serve.args(["serve", "--config"]).arg(&config);
    program::run(&mut serve)
        .exits(2)
        .says("control.group")
        .says("groupadd no-such-group");
}
