//! The configuration is read again while requests come in: whole or not at all, and nobody whom it
//! does not concern notices.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{self, Answer};
use crate::support::load::Plan;
use crate::support::program::send;
use crate::support::{Class, Daemon, eventually};

const HEAD: &str = r#"
admin = "127.0.0.1:0"

[[listen]]
address = "127.0.0.1:0"
"#;

const TWO: &str = r#"
[service.web]
keep_warm = "0s"
hosts = ["web.test", "moves.test"]
[service.api]
keep_warm = "0s"
hosts = ["api.test"]
"#;

fn start(services: &str) -> Daemon {
    Daemon::start(&format!("{HEAD}{services}"))
}

fn write(daemon: &Daemon, services: &str) {
    let path = daemon.folder().join("hotctl.toml");
    fs::write(path, format!("{HEAD}{services}")).unwrap();
}

#[track_caller]
fn deploy(daemon: &Daemon, service: &str, version: &str) {
    let path = daemon.release(version);
    daemon
        .hotctl(["deploy", path.to_str().unwrap(), "--service", service])
        .exits(0);
}

fn get(daemon: &Daemon, host: &str) -> Answer {
    http::ask(
        daemon.listen(),
        &format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
}

fn pid(daemon: &Daemon, service: &str) -> Option<u32> {
    let status = daemon.status();
    status.service(service).live.as_ref()?.pid
}

#[test]
fn a_route_moves_from_one_service_to_another_at_one_instant_and_no_request_fails() {
    let daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    deploy(&daemon, "api", "a1");
    let pids = || (pid(&daemon, "web"), pid(&daemon, "api"));
    let before = pids();
    let load = |host: &str| {
        let plan = Plan::to(daemon.listen())
            .clients(Class::KeepAlive, 2)
            .clients(Class::NewConnection, 1)
            .clients(Class::Slow, 2)
            .host(host);
        plan.every(Duration::from_millis(4)).start()
    };
    let (moves, stays) = (load("moves.test"), load("api.test"));
    moves.expect(&["w1"]);
    stays.expect(&["a1"]);
    let home = TWO;
    let moved = TWO
        .replace(", \"moves.test\"", "")
        .replace("[\"api.test\"]", "[\"api.test\", \"moves.test\"]");
    let reload = || daemon.hotctl(["reload"]).exits(0);
    for _ in 0..5 {
        moves.wait_for(20);
        write(&daemon, &moved);
        moves.flipping("w1", "a1", reload);
        moves.wait_for(20);
        write(&daemon, home);
        moves.flipping("a1", "w1", reload);
    }
    for load in [moves, stays] {
        load.finish().assert_none_failed();
    }
    assert_eq!(pids(), before, "no process was touched");
    assert_eq!(daemon.metric("hotctl_config_revision", &[]), 11.0);
}

#[test]
fn a_wrong_configuration_is_refused_whole_and_says_where() {
    let daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    let before = pid(&daemon, "web");
    // What is right in it does not count either.
    let wrong = TWO.replace("web.test", "other.test") + "start_timeout = \"30 parsecs\"\n";
    write(&daemon, &wrong);
    let ran = daemon.hotctl(["reload"]).exits(2);
    let ran = ran.says("parsecs").says("hotctl.toml:13").says("try: ");
    let checked = daemon.hotctl(["check", "--config", "hotctl.toml"]).exits(2);
    let said = checked.stderr.lines().next().unwrap();
    let place = said.split("hotctl.toml").nth(1).unwrap();
    assert!(ran.stderr.contains(place), "{ran}\n{said}");
    let last = |daemon: &Daemon| daemon.metric("hotctl_config_last_reload_successful", &[]);
    assert_eq!(last(&daemon), 0.0);
    assert_eq!(daemon.metric("hotctl_config_revision", &[]), 1.0);
    assert_eq!(get(&daemon, "web.test").text(), "w1\n");
    get(&daemon, "other.test").has_status(404);
    assert_eq!(pid(&daemon, "web"), before);
    daemon.hotctl(["events"]).exits(0).says("parsecs");
    // A file that is not there is wrong, too.
    fs::remove_file(daemon.folder().join("hotctl.toml")).unwrap();
    daemon.hotctl(["reload"]).exits(2).says("hotctl.toml");
    write(&daemon, TWO);
    daemon
        .hotctl(["reload"])
        .exits(0)
        .says("nothing has changed");
    assert_eq!(last(&daemon), 1.0);
}

#[test]
fn a_service_comes_goes_and_comes_back_as_it_was() {
    let daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    let before = pid(&daemon, "web");
    let more = format!("{TWO}[service.new]\nhosts = [\"new.test\"]\nkeep_warm = \"0s\"\n");
    write(&daemon, &more);
    daemon
        .hotctl(["reload", "--dry-run"])
        .exits(0)
        .says("new: added");
    get(&daemon, "new.test").has_status(404);
    daemon.hotctl(["reload"]).exits(0).says("new: added");
    get(&daemon, "new.test").has_status(503);
    deploy(&daemon, "new", "n1");
    assert_eq!(get(&daemon, "new.test").text(), "n1\n");
    let app = pid(&daemon, "new").unwrap();
    // What it has begun is finished, and nothing new is begun.
    let (listen, live) = (daemon.listen(), daemon.status());
    let address = live.service("new").live.clone().unwrap().address.inet();
    let held = thread::spawn(move || {
        let ask = "GET /hold?name=x HTTP/1.1\r\nhost: new.test\r\n\r\n";
        http::ask(listen, ask)
    });
    eventually("a request is in flight", || {
        let status = daemon.status();
        let live = status.service("new").live.clone();
        live.is_some_and(|live| live.tickets > 0)
    });
    write(&daemon, TWO);
    daemon.hotctl(["reload"]).exits(0).says("new: removed");
    get(&daemon, "new.test").has_status(404);
    let status: Value = daemon.hotctl(["status", "--json"]).exits(0).json();
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.len(), 2, "{status:#}");
    daemon
        .hotctl(["stop", "new"])
        .exits(2)
        .says("no service named new");
    // Coming back is refused as long as that goes on.
    write(&daemon, &more);
    daemon
        .hotctl(["reload"])
        .exits(1)
        .says("still being finished");
    write(&daemon, TWO);
    http::get(address, "/let-go?name=x").has_status(200);
    held.join().unwrap().has_status(200);
    let proc = PathBuf::from(format!("/proc/{app}"));
    eventually("its app has ended", || !proc.exists());
    // It is there again as it was: its state was kept.
    write(&daemon, &more);
    eventually("it may come back", || {
        daemon.hotctl(["reload"]).status.success()
    });
    assert_eq!(get(&daemon, "new.test").has_status(200).text(), "n1\n");
    assert_ne!(pid(&daemon, "new"), Some(app));
    assert_eq!(pid(&daemon, "web"), before);
}

#[test]
fn what_has_changed_is_shown_with_when_it_counts_and_counts_then() {
    let daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    let before = pid(&daemon, "web");
    let env = || {
        let ask = "GET /env?name=GREETING HTTP/1.1\r\nhost: web.test\r\n\r\n";
        http::ask(daemon.listen(), ask).text()
    };
    let changed = TWO.replacen(
        "[service.web]\n",
        "[service.web]\nenv = { GREETING = \"secret hello\" }\n",
        1,
    );
    write(&daemon, &format!("[timeouts]\nidle = \"5s\"\n{changed}"));
    let ran = daemon.hotctl(["reload"]).exits(0);
    let ran = ran
        .says("web.env.GREETING: changed; takes effect with the next deploy or restart of web")
        .says("timeouts.idle: \"75s\" -> \"5s\"; takes effect when hotctl is upgraded or started again");
    assert!(!ran.stdout.contains("secret"), "{ran}");
    assert_eq!(pid(&daemon, "web"), before);
    assert_ne!(env(), "secret hello");
    daemon.hotctl(["restart", "web"]).exits(0);
    assert_eq!(env(), "secret hello");
    // What waits for a restart is not forgotten.
    daemon.hotctl(["reload"]).exits(0).says("timeouts.idle");
    let events = daemon.hotctl(["events"]).exits(0);
    assert!(!events.stdout.contains("secret"), "{events}");
    events.says("web.env.GREETING");
}

#[test]
fn a_hangup_reads_the_configuration_again() {
    let daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    write(&daemon, &TWO.replace("web.test", "other.test"));
    send(daemon.pid(), Signal::HUP);
    eventually("the route has changed", || {
        get(&daemon, "other.test").head.status == 200
    });
    get(&daemon, "web.test").has_status(404);
    write(&daemon, "nonsense = 1\n");
    send(daemon.pid(), Signal::HUP);
    eventually("it is refused", || {
        daemon.log().contains("the configuration stays as it was")
    });
    get(&daemon, "other.test").has_status(200);
}

#[test]
fn a_service_whose_state_was_mended_serves_after_a_reload() {
    let mut daemon = start(TWO);
    deploy(&daemon, "web", "w1");
    daemon.stop();
    let folder = daemon.folder().join("state/services/web");
    let record = folder.join("record.json");
    let good = fs::read(&record).unwrap();
    fs::write(&record, "nonsense").unwrap();
    fs::write(folder.join("record.json.last"), "nonsense").unwrap();
    daemon.start_again();
    get(&daemon, "web.test").has_status(503);
    daemon.hotctl(["reload"]).exits(0).says("record.json");
    get(&daemon, "web.test").has_status(503);
    fs::write(&record, good).unwrap();
    daemon.hotctl(["reload"]).exits(0);
    assert_eq!(get(&daemon, "web.test").has_status(200).text(), "w1\n");
}

#[test]
fn how_much_is_written_can_be_changed_while_it_runs() {
    let daemon = Daemon::of_web("");
    daemon.hotctl(["log-level"]).exits(0).says("info");
    daemon.get("/before").has_status(503);
    let changed = daemon.hotctl(["log-level", "debug"]).exits(0);
    changed.says("debug, before: info");
    daemon.get("/while").has_status(503);
    eventually("what is refused is written", || {
        daemon.log().contains("GET /while: 503")
    });
    assert!(!daemon.log().contains("GET /before"), "{}", daemon.log());
    daemon.hotctl(["log-level", "error"]).exits(0);
    daemon.get("/after").has_status(503);
    // Would be told at any other level.
    daemon.deploy("v1", &[]);
    daemon
        .hotctl(["log-level", "error"])
        .exits(0)
        .says("as before");
    daemon.hotctl(["log-level", "info"]).exits(0).says("error");
    daemon.deploy("v2", &[]);
    eventually("the second is written", || {
        daemon.log().contains("deployment begins release=web@2")
    });
    let log = daemon.log();
    assert!(!log.contains("GET /after"), "{log}");
    assert!(!log.contains("web@1"), "{log}");
    // By its id a request is found on both sides.
    daemon.hotctl(["log-level", "debug"]).exits(0);
    daemon.get("/id").has_status(404);
    eventually("it is written by whom it was answered", || {
        let log = daemon.log();
        let mut lines = log.lines().filter(|line| line.contains("GET /id: 404"));
        lines.any(|line| line.contains("release=web@2") && line.contains("request_id="))
    });
    daemon.hotctl(["log-level", "loud"]).exits(2).says("trace");
}
