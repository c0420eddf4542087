//! What a change of the backend costs those who use it: each proxy's own way to a new version under load,
//! the old backend killed as soon as the proxy says that it is done. Failed requests of every kind, the time
//! from the order to the first answer of the new version and to the last of the old, and the longest wait.
//! hotctl starts and proves the new version itself, others have it ready; so for hotctl the first answer is
//! also counted from its own order to flip.
//!
//! `SWITCHES`, `CASES` and `PEERS` in the environment make it short, and `RECORD=no` keeps what it says out
//! of `RESULTS.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "field/mod.rs"]
mod field;
#[path = "plot.rs"]
mod plot;
#[path = "report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

#[path = "switch/crowd.rs"]
mod crowd;
#[path = "switch/watcher.rs"]
mod watcher;

use std::thread;

use crowd::Crowd;
use field::peers::{self, Peer, Setting};
use field::process::{self, Cores};
use field::running::{App, Running};
use field::switching::{Way, ways};
use field::{wanted, word};
use plot::{Bar, Panel};
use report::{Report, number};
use support::outcomes::Outcomes;
use watcher::{Seen, Watcher};

/// What came of all switches of one way.
struct Outcome {
    name: &'static str,
    total: u64,
    failed: u64,
    troubles: String,
    seen: Vec<Seen>,
}

fn main() {
    if !report::is_wanted() {
        return;
    }
    let Some(cores) = Cores::of_this_machine() else {
        eprintln!("switch: one core is not enough: the load would be measured with the proxy");
        return;
    };
    process::raise_descriptors();
    process::settle_self(&cores.load);
    let mut report = Report::of("switch");
    let switches = word("SWITCHES", 10_usize);
    let mut drawn = Vec::new();
    for crowd in crowd::ALL {
        if !wanted("CASES", crowd.name()) {
            continue;
        }
        let mut results = Vec::new();
        for peer in peers::ALL {
            for (way, name) in ways(peer) {
                if !wanted("PEERS", peer.name()) {
                    continue;
                }
                match run(peer, *way, name, crowd, switches, &cores) {
                    Ok(result) => results.push(result),
                    Err(why) => report.note(&format!("{}: {name}: {why}", crowd.name())),
                }
            }
        }
        tell(&mut report, crowd, switches, &results);
        drawn.push((crowd, panels(&results)));
    }
    report.note_others();
    if word("RECORD", "yes".to_string()) == "yes" {
        report.append();
        for (crowd, panels) in drawn {
            plot::write(&format!("switch-{}", crowd.name()), crowd.what(), &panels);
        }
    }
}

fn run(
    peer: Peer,
    way: Way,
    name: &'static str,
    crowd: Crowd,
    switches: usize,
    cores: &Cores,
) -> Result<Outcome, String> {
    let setting = Setting::plain(&cores.proxy);
    let first = App::Version("v0".to_string());
    let mut running = Running::start(peer, &setting, &first, cores)?;
    let load = crowd.start(running.listen);
    let watcher = Watcher::start(running.listen);
    load.wait_for(100);
    thread::sleep(crowd.pause());
    let mut switched = Vec::new();
    let mut wrong = Ok(());
    for number in 1..=switches {
        match running.switch(&format!("v{number}"), way, cores) {
            Ok(one) => switched.push(one),
            Err(why) => {
                wrong = Err(why);
                break;
            }
        }
        thread::sleep(crowd.pause());
    }
    let watched = watcher.finish();
    let outcomes = load.finish();
    wrong?;
    let flips = match way {
        Way::Deploy => running.flips()?,
        _ => Vec::new(),
    };
    let numbered = switched.into_iter().enumerate();
    let seen = numbered.map(|(at, one)| {
        let (from, to) = (format!("v{at}"), format!("v{}", at + 1));
        let flip = flips.iter().find(|(version, _)| *version == to);
        watched.of(one, &from, &to, flip.map(|(_, at)| *at))
    });
    let failures = watched.failures();
    Ok(Outcome {
        name,
        total: outcomes.total() + watched.total(),
        failed: outcomes.failed() + failures.len() as u64,
        troubles: troubles(&failures, &outcomes),
        seen: seen.collect(),
    })
}

/// What failed, in a line.
fn troubles(watched: &[&str], outcomes: &Outcomes) -> String {
    let classes = outcomes.classes.iter();
    let mut all: Vec<String> = classes
        .filter(|(_, tally)| tally.failed() > 0)
        .map(|(class, tally)| format!("{} of {class:?}", tally.failed()))
        .collect();
    if let Some(first) = watched.first() {
        let first = first.lines().next().unwrap_or_default();
        all.push(format!("{} of GET /, such as {first}", watched.len()));
    }
    all.join(", ")
}

/// A figure of a switch, and what it is called.
type Figure = (&'static str, fn(&Seen) -> f64);

const FIGURES: [Figure; 5] = [
    ("first new, ms", |one| one.first_new),
    ("last old, ms", |one| one.last_old),
    ("longest wait, ms", |one| one.worst),
    ("command, ms", |one| one.command),
    ("first new since hotctl's own flip, ms", |one| {
        one.since_flip
    }),
];

fn tell(report: &mut Report, crowd: Crowd, switches: usize, outcomes: &[Outcome]) {
    let mut columns: Vec<String> = [crowd.name(), "requests", "failed"].map(Into::into).into();
    columns.extend(FIGURES.map(|(name, _)| name.to_string()));
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|one| {
            let mut row = vec![
                one.name.to_string(),
                one.total.to_string(),
                one.failed.to_string(),
            ];
            row.extend(FIGURES.map(|(_, figure)| {
                three(&one.seen, figure).map_or("–".to_string(), |[min, median, max]| {
                    format!("{} ({}–{})", number(median), number(min), number(max))
                })
            }));
            row
        })
        .collect();
    let title = format!(
        "**{}**: {}; {switches} switches. Median (least–most), counted from the order.",
        crowd.name(),
        crowd.what()
    );
    report.table(&title, &columns, &rows);
    for one in outcomes {
        if one.failed > 0 {
            report.note(&format!(
                "{}: {}: failed {}",
                crowd.name(),
                one.name,
                one.troubles
            ));
        }
    }
}

fn panels(outcomes: &[Outcome]) -> Vec<Panel> {
    let failed = Panel {
        title: "failed requests".to_string(),
        bars: outcomes
            .iter()
            .map(|one| {
                let failed = one.failed as f64;
                Bar {
                    name: one.name.to_string(),
                    min: failed,
                    median: failed,
                    max: failed,
                }
            })
            .collect(),
    };
    let others = FIGURES.iter().take(3).map(|(title, figure)| Panel {
        title: (*title).to_string(),
        bars: outcomes
            .iter()
            .filter_map(|one| {
                let [min, median, max] = three(&one.seen, *figure)?;
                Some(Bar {
                    name: one.name.to_string(),
                    min,
                    median,
                    max,
                })
            })
            .collect(),
    });
    [failed].into_iter().chain(others).collect()
}

/// Least, median, most of what there is.
fn three(seen: &[Seen], figure: fn(&Seen) -> f64) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = seen
        .iter()
        .map(figure)
        .filter(|it| it.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (values.first()?, values.last()?);
    Some([*min, *values.get(values.len() / 2)?, *max])
}
