//! Metrics are a contract: a real Prometheus reads them, and what stands in them is true.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Daemon, eventually, eventually_some, http, program};

/// A daemon that has deployed, failed, and flipped.
fn with_a_past() -> Daemon {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    daemon.try_deploy(&path, &["--crash-at-start"]).exits(1);
    // This one holds the old release warm: it is live, and not at its end.
    daemon.deploy("v3", &[]);
    for _ in 0..10 {
        daemon.get("/").has_status(200);
    }
    daemon.get("/status?code=404").has_status(404);
    daemon
}

fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|ran| ran.status.success())
}

#[test]
fn what_is_counted_is_what_happened() {
    let daemon = with_a_past();
    let is = |name: &str, words: &[&str], expected: f64| {
        eventually(&format!("{name} {words:?} is {expected}"), || {
            daemon.metric(name, words) == expected
        });
    };
    is(
        "hotctl_requests_total",
        &["service=\"web\"", "code=\"200\""],
        10.0,
    );
    is(
        "hotctl_requests_total",
        &["service=\"web\"", "code=\"404\""],
        1.0,
    );
    is(
        "hotctl_request_duration_seconds_count",
        &["service=\"web\""],
        11.0,
    );
    is(
        "hotctl_deployments_total",
        &["service=\"web\"", "result=\"live\""],
        1.0,
    );
    is(
        "hotctl_deployments_total",
        &["result=\"failed\"", "reason=\"exited\""],
        1.0,
    );
    is(
        "hotctl_switch_duration_seconds_count",
        &["service=\"web\""],
        2.0,
    );
    is("hotctl_switch_errors_total", &["service=\"web\""], 0.0);
    is(
        "hotctl_release_info",
        &["release=\"web@3\"", "role=\"live\""],
        1.0,
    );
    is(
        "hotctl_release_info",
        &["release=\"web@1\"", "role=\"warm\""],
        1.0,
    );
    is("hotctl_requests_in_flight", &["service=\"web\""], 0.0);
    is(
        "hotctl_build_info",
        &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    assert!(daemon.metric("process_resident_memory_bytes", &[]) > 1e6);
    eventually("what runs has been probed", || {
        daemon.metric(
            "hotctl_probe_duration_seconds_count",
            &["result=\"healthy\""],
        ) >= 1.0
    });
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    assert!(
        installed("promtool"),
        "promtool is not installed: apt-get install prometheus"
    );
    let metrics = with_a_past().metrics();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let ran = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(
        ran.status.success() && said.is_empty(),
        "{}: {said}\n{metrics}",
        ran.status
    );
}

#[test]
fn a_real_prometheus_scrapes_them() {
    assert!(
        installed("prometheus"),
        "Prometheus is not installed: apt-get install prometheus"
    );
    let daemon = with_a_past();
    let admin = daemon.status().admin.unwrap();
    let config = daemon.folder().join("prometheus.yml");
    let scrape = format!(
        "scrape_configs:\n- job_name: hotctl\n  scrape_interval: 1s\n  static_configs:\n  \
         - targets: [\"{admin}\"]\n"
    );
    fs::write(&config, scrape).unwrap();
    // It cannot be asked which port it took: this one was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            daemon.folder().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={free}"));
    let prometheus = program::start(&mut command);
    let query = "/api/v1/query?query=hotctl_deployments_total%7Bresult%3D%22live%22%7D";
    let request = format!("GET {query} HTTP/1.1\r\nhost: test\r\n\r\n");
    let value = eventually_some("Prometheus has a value", || {
        let answer = http::try_ask(free, &request).ok()?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(
            answer["data"]["result"][0]["value"][1]
                .as_str()?
                .to_string(),
        )
    });
    assert_eq!(value, "1");
    prometheus.signal(rustix::process::Signal::TERM);
    prometheus.wait();
}

#[test]
fn the_alert_rules_fire_when_they_should_and_only_then() {
    assert!(
        installed("promtool"),
        "promtool is not installed: apt-get install prometheus"
    );
    let ran = Command::new("promtool")
        .args(["test", "rules", "tests/alerts.yml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success(), "{said}");
}

#[test]
fn the_alert_rules_name_metrics_that_there_are() {
    let rules = include_str!("../ctl/alerts/hotctl.yml");
    let daemon = with_a_past();
    let metrics = daemon.metrics();
    let named = rules
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("hotctl_"));
    let mut count = 0;
    for name in named {
        // There only while a deployment runs.
        if name != "hotctl_deployment_started_timestamp_seconds" {
            assert!(metrics.contains(&format!("\n{name}{{")), "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 5, "metrics named by the rules");
}
