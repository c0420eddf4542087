//! From a save to the first answer of the new version, at the desk: `hotctl dev` with a build that takes
//! no time, beside what others do with the same app, build and saves, each under the same steady load.
//!
//! Peers are those of `PATH` and of `target/peers`, see `./dev bench desk`; one that is not there is named.
//!
//! `cargo bench --bench desk -- [--saves N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use report::{Report, flag};
use rustix::process::Signal;
use support::desk::Desk;
use support::eventually::within;
use support::leftovers;
use support::load::Plan;
use support::outcomes::Outcomes;
use support::program::{self, lives, send};
use support::{Class, Load, http, sample};
use tempfile::TempDir;

/// What is edited is the name of the version; what is built is a copy of the app that says it.
const BUILD: &str = "cp ../releases/$(cat version) ../out/new && mv ../out/new ../out/app\n";
const CONFIG: &str = "[service.web.build]\n\
    command = [\"sh\", \"build.sh\"]\nroot = \"src\"\noutput = \"../out/app\"\n";
/// How others do it: build, and be the app.
const RUN: &str = "cd src && sh build.sh && cd .. && exec out/app\n";

struct Peer {
    name: &'static str,
    args: &'static [&'static str],
}

/// With their own defaults, but for what they print.
const PEERS: [Peer; 3] = [
    Peer {
        name: "nodemon",
        args: &[
            "--quiet",
            "--watch",
            "src",
            "--ext",
            "*",
            "--exec",
            "sh run.sh",
        ],
    },
    Peer {
        name: "watchexec",
        args: &[
            "--quiet",
            "--restart",
            "--watch",
            "src",
            "--",
            "sh",
            "run.sh",
        ],
    },
    Peer {
        name: "air",
        args: &[
            "--build.cmd",
            "true",
            "--build.bin",
            "sh run.sh",
            "--build.include_dir",
            "src",
            "--build.include_file",
            "src/version",
        ],
    },
];

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("desk");
    let saves = flag("--saves", 30);

    let desk = Desk::open(&files(), &[]);
    prepare(desk.folder.path(), saves);
    desk.answers("v0\n");
    let clients = load(desk.listen, true);
    let took = edit(desk.folder.path(), desk.listen, saves, &clients);
    tell(&mut report, "hotctl dev", &took, clients.finish());
    desk.close();

    for peer in &PEERS {
        let Some(program) = find(peer.name) else {
            report.note(&format!("{}: not to be had here", peer.name));
            continue;
        };
        let folder = project(saves);
        let listen = free();
        let mut command = Command::new(program);
        command
            .args(peer.args)
            .current_dir(folder.path())
            .env("PORT", listen.port().to_string())
            .env("HOST", "127.0.0.1");
        let running = program::start(&mut command);
        let began = within(Duration::from_secs(20), || {
            (answer(listen) == "v0").then_some(())
        });
        began.unwrap_or_else(|| panic!("{} does not begin\n{}", peer.name, running.both()));
        let clients = load(listen, false);
        let took = edit(folder.path(), listen, saves, &clients);
        tell(&mut report, peer.name, &took, clients.finish());
        let all = leftovers::descendants(running.pid());
        running.signal(Signal::TERM);
        // Some leave the app behind, with the output that is waited for.
        all.into_iter()
            .filter(|pid| lives(*pid))
            .for_each(|pid| send(pid, Signal::KILL));
        let _ = running.wait();
    }
    report.note_others();
    report.append();
}

fn files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("hotctl.toml", CONFIG),
        ("run.sh", RUN),
        ("src/build.sh", BUILD),
        ("src/version", "none\n"),
        ("out/.keep", ""),
    ]
}

/// Every version, ready to be built; the first one is.
fn prepare(folder: &Path, saves: u64) {
    let releases = folder.join("releases");
    fs::create_dir(&releases).unwrap();
    for save in 0..=saves {
        let version = format!("v{save}");
        let made = sample::release(folder, &version);
        fs::rename(made, releases.join(&version)).unwrap();
    }
    save(folder, "v0");
}

fn project(saves: u64) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("hotctl-test-")
        .tempdir()
        .unwrap();
    for (name, text) in files() {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    prepare(folder.path(), saves);
    folder
}

/// As editors do it.
fn save(folder: &Path, version: &str) {
    let beside = folder.join("src/version~");
    fs::write(&beside, format!("{version}\n")).unwrap();
    fs::rename(beside, folder.join("src/version")).unwrap();
}

/// Steady, with what stays open where it can.
fn load(to: SocketAddr, open: bool) -> Load {
    let mut plan = Plan::to(to)
        .clients(Class::KeepAlive, 2)
        .clients(Class::NewConnection, 1)
        .clients(Class::Post, 1);
    if open {
        plan = plan
            .clients(Class::WebSocket, 1)
            .clients(Class::EventStream, 1);
    }
    let load = plan.every(Duration::from_millis(10)).start();
    load.wait_for(100);
    load
}

fn edit(folder: &Path, listen: SocketAddr, saves: u64, load: &Load) -> Vec<f64> {
    let mut took = Vec::new();
    for number in 1..=saves {
        let version = format!("v{number}");
        let began = Instant::now();
        save(folder, &version);
        let answered = within(Duration::from_secs(20), || {
            (answer(listen) == version).then(|| began.elapsed())
        });
        took.push(answered.expect("it goes live").as_secs_f64() * 1000.0);
        // About a second: it is edited, not stormed.
        load.wait_for(300);
    }
    took
}

fn answer(from: SocketAddr) -> String {
    let asked = http::try_ask(
        from,
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
    );
    asked.map_or_else(|_| String::new(), |answer| answer.text().trim().to_owned())
}

fn tell(report: &mut Report, name: &str, took: &[f64], outcomes: Outcomes) {
    println!("{name}: {outcomes}");
    report.row(
        &format!("{name}: save to the first answer of the new version"),
        "ms",
        took,
    );
    report.note(&format!(
        "{name}: {} saves, {} requests meanwhile, {} failed",
        took.len(),
        outcomes.total(),
        outcomes.failed()
    ));
}

fn find(name: &str) -> Option<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let own = [peers.join("node_modules/.bin"), peers.join("bin")];
    let path = env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain(env::split_paths(&path));
    all.map(|folder| folder.join(name)).find(|it| it.is_file())
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
