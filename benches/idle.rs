//! What a daemon costs that has nothing to do: two small services, probes on, for a minute.
//!
//! `cargo bench --bench idle -- [--seconds N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use report::{Report, flag};
use support::leftovers::descendants;
use support::{Daemon, eventually};

const TWO: &str = r#"
admin = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
[service.shop]
hosts = ["shop.test"]
keep_warm = "0s"
[service.web]
keep_warm = "0s"
"#;

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("idle");
    let seconds = flag("--seconds", 60);
    let daemon = Daemon::start(TWO);
    let path = daemon.release("v1");
    for service in ["shop", "web"] {
        let args = [
            "deploy",
            path.to_str().expect("UTF-8"),
            "--service",
            service,
        ];
        daemon.hotctl(args).exits(0);
    }
    let pid = daemon.pid();
    // The apps are not the daemon's cost, their shims are.
    let apps: Vec<u32> = daemon
        .status()
        .services
        .iter()
        .filter_map(|one| one.live.clone()?.pid)
        .collect();
    eventually("both run", || descendants(pid).len() >= 4);
    let shims: Vec<u32> = descendants(pid)
        .into_iter()
        .filter(|pid| !apps.contains(pid))
        .collect();

    let began = Instant::now();
    let (busy, shims_busy) = (ran_for(&[pid]), ran_for(&shims));
    let mut memory = Vec::new();
    let mut shims_memory = Vec::new();
    for _ in 0..seconds {
        thread::sleep(Duration::from_secs(1));
        memory.push(resident(pid));
        shims_memory.extend(shims.iter().map(|pid| resident(*pid)));
    }
    let share = |from: Duration, to: Duration| {
        (to - from).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
    };
    let daemon_share = share(busy, ran_for(&[pid]));
    let shims_share = share(shims_busy, ran_for(&shims));

    report.note(&format!(
        "{seconds} s, two services, a probe of each a second, no requests"
    ));
    report.row("daemon: resident memory", "MiB", &memory);
    report.row("daemon: processor", "% of a core", &[daemon_share]);
    report.row("each shim: resident memory", "MiB", &shims_memory);
    report.row("both shims: processor", "% of a core", &[shims_share]);
    report.note_others();
    report.append();
}

/// Resident memory in MiB.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.expect("its resident memory") / 1024.0
}

/// How long these have run, threads that have ended included; counted in hundredths of a second.
fn ran_for(pids: &[u32]) -> Duration {
    let ticks = pids.iter().filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(user + system)
    });
    Duration::from_millis(ticks.sum::<u64>() * 10)
}
