//! What a request costs without a clock: instructions under valgrind's callgrind, and system calls under
//! strace, each as the difference of two loads of which one is longer, so that the start and what happens
//! by itself fall out. For comparisons of one build with the next; on the same binary they repeat.
//!
//! `ROUNDS` and `PEERS` in the environment make it short, and `RECORD=no` keeps what it says out of
//! `RESULTS.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "field/mod.rs"]
mod field;
#[path = "report.rs"]
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use field::client::{self, Kind};
use field::peers::{Peer, Setting, Under};
use field::process::{self, Cores};
use field::running::{App, Running};
use field::{find, wanted, word};
use report::Report;
use rustix::process::{Pid, Signal, kill_process};

/// Who is counted by which tool. valgrind cannot follow hotctl's daemon, which starts itself anew as the
/// shim of each app, and holds it by a descriptor that older ones do not know.
const TOOLS: [(&str, &str, &[Peer]); 2] = [
    (
        "valgrind",
        "instructions a request, one connection, keep-alive",
        &[
            Peer::Datapath,
            Peer::Hall,
            Peer::Bare,
            Peer::Nginx,
            Peer::Haproxy,
        ],
    ),
    (
        "strace",
        "system calls a request, 64 connections, keep-alive",
        &[Peer::Hotctl, Peer::Bare, Peer::Nginx, Peer::Haproxy],
    ),
];
/// A short load and a long one, of one connection under valgrind.
const REQUESTS: [u64; 2] = [1000, 5000];
/// The same under strace, of 64 connections.
const TIMES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
const CONNECTIONS: usize = 64;

fn main() {
    if !report::is_wanted() {
        return;
    }
    let Some(cores) = Cores::of_this_machine() else {
        eprintln!("cost: one core is not enough");
        return;
    };
    process::raise_descriptors();
    process::settle_self(&cores.load);
    let mut report = Report::of("cost");
    let rounds = word("ROUNDS", 3_usize);
    for (tool, what, peers) in TOOLS {
        if find(tool).is_none() {
            report.note(&format!("{tool}: not to be had here"));
            continue;
        }
        for &peer in peers {
            if !wanted("PEERS", peer.name()) {
                continue;
            }
            let measured = match tool {
                "valgrind" => (0..rounds).map(|_| instructions(peer, &cores)).collect(),
                _ => (0..rounds).map(|_| calls(peer, &cores)).collect(),
            };
            let all: Result<Vec<(f64, String)>, String> = measured;
            match all {
                Ok(all) => {
                    let values: Vec<f64> = all.iter().map(|(value, _)| *value).collect();
                    report.row(&format!("{}: {what}", peer.name()), "", &values);
                    if let Some((_, words)) = all.last().filter(|(_, words)| !words.is_empty()) {
                        report.note(&format!("{}: {words}", peer.name()));
                    }
                }
                Err(why) => report.note(&format!("{}: {tool}: {why}", peer.name())),
            }
        }
    }
    if find("valgrind").is_some() && wanted("PEERS", "pick") {
        for services in SERVICES {
            let what = format!("a pick of {services} services: instructions");
            match (0..rounds)
                .map(|_| picks(services))
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(counts) => report.row(&what, "", &counts),
                Err(why) => report.note(&format!("{what}: {why}")),
            }
        }
    }
    report.note_others();
    if word("RECORD", "yes".to_string()) == "yes" {
        report.append();
    }
}

/// How many services there are to pick from.
const SERVICES: [u32; 2] = [1, 10_000];

/// Those of a route, a split and a ticket, without requests.
fn picks(services: u32) -> Result<f64, String> {
    /// Each service is asked as often as the others.
    const PICKS: [u32; 2] = [10_000, 50_000];
    let folder = tempfile::tempdir().map_err(|e| format!("a folder: {e}"))?;
    let mut counts = Vec::new();
    for (at, picks) in PICKS.into_iter().enumerate() {
        let out = folder.path().join(format!("callgrind.{at}"));
        let status = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(field::example("picks"))
            .args([services.to_string(), picks.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| format!("valgrind: {e}"))?;
        if !status.success() {
            return Err(format!("valgrind: {status}"));
        }
        counts.push(counted(&out)?);
    }
    let [short, long] = PICKS.map(f64::from);
    Ok((counts[1] - counts[0]) / (long - short))
}

/// What callgrind has counted, by its file.
fn counted(path: &Path) -> Result<f64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let totals = totals.and_then(|n| n.trim().parse().ok());
    totals.ok_or_else(|| format!("{}: no totals", path.display()))
}

/// Those of two lives, of which one answers more.
fn instructions(peer: Peer, cores: &Cores) -> Result<(f64, String), String> {
    let setting = Setting {
        under: Under::Callgrind,
        ..Setting::plain(&cores.proxy)
    };
    let mut counts = Vec::new();
    for requests in REQUESTS {
        let mut running = Running::start(peer, &setting, &App::Quick, cores)?;
        let ask = running.ask(Kind::Small);
        let seen = client::count(running.listen, &ask, requests, &cores.load);
        if seen.failures() > 0 {
            return Err(seen.troubles());
        }
        running.stop(Duration::from_secs(60));
        let mut sum = 0.0;
        for file in fs::read_dir(running.folder()).map_err(|e| e.to_string())? {
            let path = file.map_err(|e| e.to_string())?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with("callgrind.")) {
                sum += counted(&path)?;
            }
        }
        counts.push(sum);
    }
    let [short, long] = REQUESTS.map(|n| n as f64);
    Ok(((counts[1] - counts[0]) / (long - short), String::new()))
}

/// Those of a longer load less those of a shorter, of one life; and which they are.
fn calls(peer: Peer, cores: &Cores) -> Result<(f64, String), String> {
    let setting = Setting::plain(&cores.proxy);
    let running = Running::start(peer, &setting, &App::Quick, cores)?;
    let ask = running.ask(Kind::Small);
    let mut counted = Vec::new();
    for (at, during) in TIMES.into_iter().enumerate() {
        let out = running.folder().join(format!("calls.{at}"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o"]).arg(&out);
        for pid in running.family() {
            strace.args(["-p", &pid.to_string()]);
        }
        let mut strace = strace
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("strace: {e}"))?;
        // Until it has them all, which it does not say where it can be heard.
        thread::sleep(Duration::from_millis(500));
        let seen = client::load(running.listen, &ask, CONNECTIONS, during, &cores.load);
        let pid = i32::try_from(strace.id()).ok().and_then(Pid::from_raw);
        pid.map(|pid| kill_process(pid, Signal::INT));
        strace.wait().map_err(|e| format!("strace: {e}"))?;
        if seen.failures() > 0 {
            return Err(seen.troubles());
        }
        counted.push((
            seen.done,
            summary(&fs::read_to_string(&out).unwrap_or_default()),
        ));
    }
    let (short, long) = (&counted[0], &counted[1]);
    if long.1.is_empty() {
        return Err("has counted nothing: may this user trace others?".to_string());
    }
    let requests = (long.0 - short.0) as f64;
    let mut each: Vec<(f64, &String)> = long
        .1
        .iter()
        .map(|(name, n)| {
            let before = short.1.get(name).copied().unwrap_or(0);
            ((*n as f64 - before as f64) / requests, name)
        })
        .collect();
    each.sort_by(|a, b| b.0.total_cmp(&a.0));
    let sum = each.iter().map(|(n, _)| n).sum();
    let words = each.iter().filter(|(n, _)| *n >= 0.01);
    let words: Vec<String> = words.map(|(n, name)| format!("{name} {n:.2}")).collect();
    Ok((sum, words.join(", ")))
}

/// How often each call was made, from strace's table: share, seconds, µs a call, calls, errors, name.
fn summary(table: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(calls), Some(name)) = (words.get(3), words.last()) else {
            continue;
        };
        if let (Ok(calls), true) = (calls.parse(), *name != "total") {
            counts.insert((*name).to_string(), calls);
        }
    }
    counts
}
