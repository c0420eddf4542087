//! What is: the services and what runs of them, and what is stored.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotctl_config::{Address, PortName};

use super::events::{apart_from, further_ports, kinds, what_is_wrong};
use super::table::{Cell, heading, table};
use super::{plural, seconds};
use crate::api::{
    BuildState, BuildStatus, GateKind, InstanceStatus, ReleaseLine, RunningRelease, ServiceStatus,
    Status,
};
use crate::paint::{BAD, GOOD, LOOK, in_style, of_word};

/// How the last build went; nothing where it was good.
fn build(build: &BuildStatus) -> String {
    let ended = build.began_ms as f64 + build.took_ms.unwrap_or(0.0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ago = seconds((now.as_secs_f64() - ended / 1e3).max(0.0));
    let (number, command) = (build.number, &build.command);
    match build.state {
        BuildState::Building => format!("\n  build {number} goes on for {ago}: {command}"),
        BuildState::Failed => format!(
            "\n  build {number} {} {ago} ago: {}{}",
            in_style(BAD, "failed"),
            build.why.as_deref().unwrap_or(command),
            what_is_wrong(&build.errors, &build.output).replace('\n', "\n  ")
        ),
        BuildState::Done | BuildState::Cancelled => String::new(),
    }
}

/// `hotctl status` for people.
pub fn status(status: &Status) -> String {
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let mut out = format!(
        "hotctl {} (pid {}) up {}, listening on {}",
        status.version,
        status.pid,
        seconds(status.uptime_s),
        listen.join(", ")
    );
    if let Some(admin) = status.admin {
        out.push_str(&format!(", metrics at http://{admin}/metrics"));
    }
    for service in &status.services {
        out.push_str("\n\n");
        out.push_str(&one_service(service));
    }
    out
}

fn one_service(service: &ServiceStatus) -> String {
    let hosts = if service.hosts.is_empty() {
        "any host".to_owned()
    } else {
        service.hosts.join(" ")
    };
    let mut out = format!(
        "{}  {}  ({})",
        service.name,
        in_style(of_word(&service.state), &service.state.replace('_', " ")),
        match service.http {
            true => format!("{hosts}, {}", service.paths.join(" ")),
            false => "worker".to_owned(),
        }
    );
    if !service.running.is_empty() {
        let mut rows = vec![heading([
            "RELEASE", "ROLE", "ADDRESS", "PID", "UP", "REQUESTS", "HEALTH",
        ])];
        for running in &service.running {
            rows.push(row(running));
            if running.instances.len() > 1 {
                rows.extend(running.instances.iter().map(instance));
            }
        }
        out.push('\n');
        out.push_str(&table(&rows));
    }
    for running in &service.running {
        if running.open.websockets + running.open.streams > 0 {
            out.push_str(&format!(
                "\n  {} has {} open",
                running.release,
                kinds(&running.open)
            ));
        }
    }
    if let Some(d) = &service.deployment {
        let from = d
            .from
            .as_ref()
            .map_or(String::new(), |from| format!(", from {from}"));
        let by =
            d.by.as_ref()
                .map_or(String::new(), |by| format!(" by {by}"));
        out.push_str(&format!(
            "\n  deployment {} of {}{from}{by}: {}, for {}",
            d.number,
            d.to,
            d.phase,
            seconds(d.age_s)
        ));
        if let Some(left) = d.hold_left_s {
            out.push_str(&format!(
                "\n  flips back by itself if it fails within {}",
                seconds(left)
            ));
        }
    }
    if let Some(w) = &service.waiting {
        out.push_str(&format!(
            "\n  deployment {} of {} by {} waits for its turn, for {}",
            w.number,
            w.to,
            w.by,
            seconds(w.age_s)
        ));
    }
    if let Some(build) = &service.build {
        out.push_str(&self::build(build));
    }
    if let Some(gate) = &service.gate {
        let (what, remedy) = match gate.kind {
            GateKind::Paused => ("paused", "resume"),
            GateKind::Maintenance => ("in maintenance", "maintenance off"),
        };
        let says = gate
            .message
            .as_ref()
            .map_or(String::new(), |message| format!(": {message:?}"));
        out.push_str(&format!(
            "\n  {what} for {}{says}\n  try: hotctl {remedy} {}",
            seconds(gate.for_s),
            service.name
        ));
    }
    if service.parked > 0 {
        let waits = if service.parked == 1 { "waits" } else { "wait" };
        out.push_str(&format!(
            "\n  {} request{} {waits} until it serves again",
            service.parked,
            plural(service.parked)
        ));
    }
    if service.state == "failed" {
        out.push_str(&format!(
            "\n  its processes end again and again, and are tried every 30s: requests are refused\n  try: hotctl logs {0}, hotctl rollback {0}",
            service.name
        ));
    }
    if let (Some(previous), "serving") = (&service.previous, service.state.as_str()) {
        out.push_str(&format!("\n  rollback would go to {previous}"));
    }
    if let Some(last) = &service.last_failure {
        out.push_str(&format!(
            "\n  deployment {} of {} {} {} ago: {}\n  try: hotctl show {} {}",
            last.deployment,
            last.release,
            in_style(BAD, &last.result.to_string()),
            seconds(last.ago_s),
            apart_from(&last.why, &last.release),
            last.deployment,
            service.name
        ));
    }
    if let Some(damage) = &service.damage {
        out.push_str(&format!("\n  {}", damage.error));
        if let Some(hint) = &damage.hint {
            out.push_str(&format!("\n  try: {hint}"));
        }
    }
    if service.state == "down" {
        out.push_str(&format!(
            "\n  its live release could not be started: the daemon's log says why\n  try: hotctl deploy PATH --service {}",
            service.name
        ));
    }
    if service.state == "nothing_deployed" {
        out.push_str(&format!(
            "\n  try: hotctl deploy PATH --service {}",
            service.name
        ));
    }
    out
}

fn row(running: &RunningRelease) -> Vec<Cell> {
    vec![
        Cell::plain(running.release.to_string()),
        Cell::word(&running.role),
        Cell::plain(at(&running.address, &running.ports)),
        Cell::plain(
            running
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        ),
        Cell::plain(seconds(running.uptime_s)),
        Cell::plain(running.tickets.to_string()),
        health(&running.health, running.restarts),
    ]
}

/// One of several processes, under its release.
fn instance(one: &InstanceStatus) -> Vec<Cell> {
    let pid = one
        .pid
        .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    vec![
        Cell::plain(format!("  #{}", one.instance)),
        Cell::word(&one.state),
        Cell::plain(at(&one.address, &one.ports)),
        Cell::plain(pid),
        Cell::plain(seconds(one.uptime_s)),
        Cell::plain(""),
        health(&one.health, one.restarts),
    ]
}

/// Where it is: `127.0.0.1:20417, debug 20418`.
fn at(address: &Address, ports: &BTreeMap<PortName, u16>) -> String {
    format!("{address}{}", further_ports(ports))
}

/// What the last probe said, and how often it died.
fn health(health: &str, restarts: u32) -> Cell {
    let restarts = match restarts {
        0 => String::new(),
        n => format!(
            ", restarted {n} time{}",
            plural(usize::try_from(n).unwrap_or(0))
        ),
    };
    Cell {
        text: format!("{health}{restarts}"),
        style: if health == "healthy" { GOOD } else { LOOK },
    }
}

/// `hotctl releases` for people.
pub fn releases(lines: &[ReleaseLine]) -> String {
    if lines.is_empty() {
        return "nothing is deployed yet\n  try: hotctl deploy PATH".to_owned();
    }
    let mut rows = vec![heading([
        "RELEASE", "ROLE", "DIGEST", "AGE", "FROM", "ARGS",
    ])];
    rows.extend(lines.iter().map(|line| {
        let created = UNIX_EPOCH + Duration::from_millis(line.created_ms);
        let age = SystemTime::now()
            .duration_since(created)
            .unwrap_or_default();
        vec![
            Cell::plain(line.release.to_string()),
            match (line.role.as_deref(), line.stored) {
                (Some(role), true) => Cell::word(role),
                (Some(role), false) => Cell::word(&format!("{role}, files gone")),
                (None, true) => Cell::word("stored"),
                (None, false) => Cell::word("files gone"),
            },
            Cell::plain(line.digest.short()),
            Cell::plain(seconds(age.as_secs_f64())),
            Cell::plain(line.name.clone()),
            Cell::plain(line.args.join(" ")),
        ]
    }));
    table(&rows)
}
