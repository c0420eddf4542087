//! From a save to the first answer of the new version: `hotctl watch` of an executable that begins to
//! listen in no time, under a steady load in which no request may fail.
//!
//! `cargo bench --bench watch -- [--saves N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use report::{Report, flag};
use support::eventually::within;
use support::load::Plan;
use support::{Class, Daemon};

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("watch");
    let saves = flag("--saves", 50);
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    let place = daemon.folder().join("app");
    fs::rename(daemon.release("v0"), &place).unwrap();
    let mut watch = daemon.alongside(["watch", place.to_str().unwrap()]);
    watch.until_it_says("web@1 live");
    // Steady, with what stays open: a desk, not a storm.
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 2)
        .clients(Class::NewConnection, 1)
        .clients(Class::Post, 1)
        .clients(Class::WebSocket, 1)
        .clients(Class::EventStream, 1)
        .every(Duration::from_millis(10))
        .start();
    load.wait_for(100);
    let mut took = Vec::new();
    for save in 1..=saves {
        let version = format!("v{save}");
        // The copy is what a build does, and not counted: it is there at once.
        let built = daemon.release(&version);
        let began = Instant::now();
        fs::rename(built, &place).unwrap();
        let answered = within(Duration::from_secs(20), || {
            (daemon.get("/").text().trim() == version).then(|| began.elapsed())
        });
        took.push(answered.expect("it goes live").as_secs_f64() * 1000.0);
        // About a second: no more than three releases drain at a time, the oldest would be cut.
        load.wait_for(400);
    }
    let outcomes = load.finish();
    println!("{outcomes}");
    report.row("save to the first answer of the new version", "ms", &took);
    report.note(&format!(
        "{saves} saves, settle 50 ms: {} requests of every class meanwhile, {} failed",
        outcomes.total(),
        outcomes.failed()
    ));
    report.note_others();
    report.append();
}
