//! What is lost when everything dies in random order, for ten minutes: nothing but what was in flight
//! on a process that was killed.
//!
//! `cargo bench --bench chaos -- [--seconds N] [--seed N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use report::{Report, flag};
use support::chaos;

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("chaos");
    let seed = flag("--seed", fastrand::u64(..100_000));
    println!("seed {seed}");
    let story = chaos::run(seed, Duration::from_secs(flag("--seconds", 600)));
    for wrong in &story.wrong {
        println!("wrong: {wrong}");
    }
    for (what, times) in &story.next {
        report.row(
            &format!("SIGKILL of {what} to the next answer to anybody"),
            "ms",
            times,
        );
    }
    report.note(&story.to_string());
    report.note_others();
    report.append();
    assert!(story.wrong.is_empty(), "{} were wrong", story.wrong.len());
}
