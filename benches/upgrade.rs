//! What replacing hotctl by itself takes, many times in a row under every class of traffic, and
//! whether descriptors or memory grow from one process to the next.
//!
//! `cargo bench --bench upgrade -- [--upgrades N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::time::Instant;

use report::{Report, flag};
use support::{Daemon, Load};

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("upgrade");
    let upgrades = flag("--upgrades", 50);
    let mut daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v0", &[]);
    let app = daemon.live().pid;
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v0"]);
    load.wait_for(200);
    let (mut told, mut command, mut open, mut memory) = (vec![], vec![], vec![], vec![]);
    for _ in 0..upgrades {
        let began = Instant::now();
        told.push(daemon.upgrade(&[]) as f64);
        command.push(began.elapsed().as_secs_f64() * 1000.0);
        load.wait_for(200);
        open.push(descriptors(daemon.pid()));
        memory.push(resident(daemon.pid()));
        assert_eq!(daemon.live().pid, app, "the app was touched");
    }
    let outcomes = load.finish();
    println!("{outcomes}");
    report.row("upgrade, as told", "ms", &told);
    report.row("the command as a whole", "ms", &command);
    let part = open.len() / 5;
    let last = open.len() - part;
    report.row("descriptors, first fifth", "", &open[..part]);
    report.row("descriptors, last fifth", "", &open[last..]);
    report.row("resident memory, first fifth", "MiB", &memory[..part]);
    report.row("resident memory, last fifth", "MiB", &memory[last..]);
    report.note(&format!(
        "{upgrades} upgrades in a row: {} requests, {} failed, {} idle connections closed; the app's pid unchanged",
        outcomes.total(),
        outcomes.failed(),
        outcomes.closed_idle(),
    ));
    report.note_others();
    report.append();
}

/// How many descriptors a process has open.
fn descriptors(pid: u32) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process")
        .count() as f64
}

/// Resident memory in MiB.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.and_then(|kib| kib.parse::<f64>().ok());
    kib.expect("a size") / 1024.0
}
