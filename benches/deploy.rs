//! What a deploy takes besides the app's own start: a file of 10 MB, a folder of 40,000 files, and
//! the same file while an open WebSocket holds every drain before.
//!
//! `cargo bench --bench deploy -- [--deploys N] [--folders N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use report::{Report, flag};
use serde_json::Value;
use support::http::{run_on, runtime};
use support::status::Summary;
use support::websocket::WebSocket;
use support::{Daemon, eventually, sample};

const SIZE: u64 = 10_000_000;
const FOLDERS: usize = 200;
const FILES: usize = 200;

/// One deploy, as seen by who typed it and as told by the daemon. Milliseconds.
struct Deployed {
    /// From the start of the command to its line that tells the flip.
    command_to_flip: f64,
    /// Its last line, if it waited for the end of the drain.
    summary: Option<Summary>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Live,
    Drained,
}

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("deploy");
    file(&mut report, flag("--deploys", 40));
    folder(&mut report, flag("--folders", 7));
    report.append();
}

fn file(report: &mut Report, deploys: u64) {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\ndrain.requests = \"1h\"");
    let release = |version: &str| sample::release_of_size(daemon.folder(), version, SIZE);
    deploy(&daemon, &release("v0"), &[], Until::Live);
    let mut free = Vec::new();
    let mut held = Vec::new();
    // In turn, so that both see the same machine.
    for number in 0..deploys {
        let path = release(&format!("free-{number}"));
        let deployed = deploy(&daemon, &path, &[], Until::Drained);
        fs::remove_file(path).expect("the copy");
        settled(&daemon, 1);
        free.push(deployed);

        // A drain that lasts, and a deploy meanwhile.
        let runtime = runtime();
        let socket = run_on(&runtime, WebSocket::connect(daemon.listen()));
        let path = release(&format!("drains-{number}"));
        deploy(&daemon, &path, &[], Until::Live);
        settled(&daemon, 2);
        let path = release(&format!("held-{number}"));
        let deployed = deploy(&daemon, &path, &[], Until::Live);
        held.push(deployed.command_to_flip);
        let still = daemon
            .status()
            .service("web")
            .running
            .iter()
            .any(|one| one.tickets > 0);
        assert!(still, "the WebSocket was cut");
        drop(socket);
        settled(&daemon, 1);
    }
    overhead(report, "10 MB file", &free);
    let free: Vec<f64> = free
        .iter()
        .map(|deployed| deployed.command_to_flip)
        .collect();
    report.row("10 MB file: command to flip", "ms", &free);
    report.row(
        "10 MB file: command to flip, a WebSocket holds the last drain",
        "ms",
        &held,
    );
    report.note_others();
    report.row(
        "ratio of the two, medians",
        "×",
        &[median(&held) / median(&free)],
    );
}

fn folder(report: &mut Report, deploys: u64) {
    let daemon = Daemon::of_web("keep_warm = \"0s\"\nkeep_releases = 1");
    let site = daemon.folder().join("site");
    for folder in 0..FOLDERS {
        let folder = site.join(format!("modules/{folder}"));
        fs::create_dir_all(&folder).expect("a folder");
        for file in 0..FILES - 1 {
            let text = format!("exports.number = {file};\n").repeat(20);
            fs::write(folder.join(format!("{file}.js")), text).expect("a file");
        }
    }
    fs::rename(sample::release(daemon.folder(), "v1"), site.join("app")).expect("the app");
    let mut all = Vec::new();
    for number in 0..=deploys {
        // One edit between two deploys, as it is in life.
        fs::write(site.join("modules/0/edited.js"), format!("// {number}")).expect("a file");
        let deployed = deploy(&daemon, &site, &["./app"], Until::Drained);
        settled(&daemon, 1);
        // The first one reads a cold folder.
        if number > 0 {
            all.push(deployed);
        }
    }
    let files = support::leftovers::files(&site).len();
    let what = format!("folder of {files} files and folders");
    overhead(report, &what, &all);
    let times: Vec<f64> = all
        .iter()
        .map(|deployed| deployed.command_to_flip)
        .collect();
    report.row(&format!("{what}: command to flip"), "ms", &times);
}

/// What is left of a deploy's time when the app's own way from exec to listening is taken away.
fn overhead(report: &mut Report, what: &str, deployed: &[Deployed]) {
    let each = |of: &dyn Fn(f64, &Summary) -> Option<f64>| -> Vec<f64> {
        let all = deployed.iter();
        all.filter_map(|one| of(one.command_to_flip, one.summary.as_ref()?))
            .collect()
    };
    let listen = each(&|_, summary| summary.listen_ms);
    let inside = each(&|_, summary| Some(summary.live_ms - summary.listen_ms?));
    let whole = each(&|to_flip, summary| Some(to_flip - summary.listen_ms?));
    report.row(
        &format!("{what}: exec to listen (the app's own)"),
        "ms",
        &listen,
    );
    report.row(&format!("{what}: order to flip, less that"), "ms", &inside);
    report.row(&format!("{what}: command to flip, less that"), "ms", &whole);
}

/// Wait until only so many releases run, so that one deploy does not pay for the end of another.
fn settled(daemon: &Daemon, running: usize) {
    eventually("what was replaced has ended", || {
        daemon.status().service("web").running.len() <= running
    });
}

fn deploy(daemon: &Daemon, path: &Path, args: &[&str], until: Until) -> Deployed {
    let wait = match until {
        Until::Live => "live",
        Until::Drained => "drained",
    };
    let mut command = daemon.command(["deploy", "--json", "--wait", wait]);
    command
        .arg(path)
        .arg("--")
        .args(args)
        .stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().expect("hotctl starts");
    let mut deployed = None;
    let mut summary = None;
    let stdout = child.stdout.take().expect("a pipe");
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        match event["event"].as_str() {
            Some("flipped") => deployed = Some(milliseconds(began.elapsed())),
            Some("summary") => summary = Some(serde_json::from_value(event).expect("a summary")),
            _ => {}
        }
    }
    let status = child.wait().expect("a child");
    assert!(
        status.success(),
        "hotctl deploy: {status}\n{}",
        daemon.log()
    );
    Deployed {
        command_to_flip: deployed.expect("a flip"),
        summary,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
