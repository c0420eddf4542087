//! What a request costs: hotctl beside pingora alone, nginx, HAProxy, sozu, Envoy and Caddy, each in front
//! of the same backend and under the same load, in turns. The proxy has one core, load and backend have
//! the others. The figure to quote is the processor time of a request: it is the steady one.
//!
//! Peers are those of `PATH` and of `target/peers`, see `./dev bench proxy`; one that is not there is named.
//! `ROUNDS`, `ROUND_SECONDS`, `CASES` and `PEERS` in the environment make it short, and `RECORD=no` keeps
//! what it says out of `RESULTS.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "field/mod.rs"]
mod field;
#[path = "plot.rs"]
mod plot;
#[path = "report.rs"]
mod report;

#[path = "proxy/cases.rs"]
mod cases;
#[path = "proxy/memory.rs"]
mod memory;
#[path = "proxy/round.rs"]
mod round;
#[path = "proxy/tables.rs"]
mod tables;

use std::time::Duration;

use cases::Case;
use field::peers::{self, Peer};
use field::process::{self, Cores};
use field::running::{App, Running};
use field::{wanted, word};
use report::Report;
use round::Sample;
use tables::Rows;

fn main() {
    if !report::is_wanted() {
        return;
    }
    let Some(cores) = Cores::of_this_machine() else {
        eprintln!("proxy: one core is not enough: the load would be measured with the proxy");
        return;
    };
    process::raise_descriptors();
    process::settle_self(&cores.load);
    let mut report = Report::of("proxy");
    let rounds = word("ROUNDS", 5_usize);
    let during = Duration::from_secs(word("ROUND_SECONDS", 2));
    let mut drawn = Vec::new();
    for case in cases::all(&cores) {
        if wanted("CASES", case.name) {
            let rows = run(&case, rounds, during, &cores, &mut report);
            tables::tell(&case, &rows, &mut report);
            drawn.push((case.name, case.what, tables::panels(&case, &rows)));
        }
    }
    if wanted("CASES", "memory") {
        let panels = memory::run(rounds.min(3), &cores, &mut report);
        drawn.push(("memory", memory::WHAT, panels));
    }
    report.note_others();
    if word("RECORD", "yes".to_string()) == "yes" {
        report.append();
        for (name, what, panels) in drawn {
            plot::write(&format!("proxy-{name}"), what, &panels);
        }
    }
}

/// All rounds of a case, in each of which every peer has its turn; who begins changes.
fn run(case: &Case, rounds: usize, during: Duration, cores: &Cores, report: &mut Report) -> Rows {
    let mut running: Vec<(String, Running, Vec<Sample>)> = Vec::new();
    for (peer, name, setting) in entrants(case) {
        match Running::start(peer, setting, &App::Quick, cores) {
            Ok(one) => running.push((name, one, Vec::new())),
            Err(why) => report.note(&format!("{}: {name}: {why}", case.name)),
        }
    }
    for (_, one, _) in &running {
        round::warm_up(one, case, cores);
    }
    for round in 0..rounds {
        for at in 0..running.len() {
            let at = (at + round) % running.len();
            let (name, one, samples) = &mut running[at];
            let sample = round::measure(one, case, during, cores);
            println!("{} {}: {name}: {sample}", case.name, round + 1);
            samples.push(sample);
        }
    }
    running
        .into_iter()
        .map(|(name, _, samples)| (name, samples))
        .collect()
}

/// Who takes part, with which setting. Where the case has a setting to be compared with, each has both.
fn entrants(case: &Case) -> Vec<(Peer, String, &peers::Setting)> {
    let all = peers::ALL.into_iter();
    let wanted = all.filter(|peer| wanted("PEERS", peer.name()) && peer.can(&case.setting));
    let mut entrants = Vec::new();
    for peer in wanted {
        let name = peer.name();
        match &case.beside {
            None => entrants.push((peer, name.to_string(), &case.setting)),
            Some((words, beside, its)) => {
                entrants.push((peer, format!("{name}, {its}"), beside));
                entrants.push((peer, format!("{name}, {words}"), &case.setting));
            }
        }
    }
    entrants
}
