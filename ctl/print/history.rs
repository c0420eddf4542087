//! The records of deployments: a table of them, and one in full.

use std::time::{SystemTime, UNIX_EPOCH};

use anstyle::Style;

use super::events::{summary, when};
use super::table::{Cell, heading, table};
use super::{plural, time};
use crate::api::{DeploymentRecord, Outcome, PhaseTook};
use crate::paint::{BAD, GOOD, LOOK, in_style};

/// `hotctl history` for people, newest first.
pub fn history(records: &[DeploymentRecord]) -> String {
    if records.is_empty() {
        return "nothing has been deployed yet\n  try: hotctl deploy PATH".to_owned();
    }
    let mut rows = vec![heading([
        "N", "RESULT", "WHAT", "TO", "FROM", "BY", "ORDERED", "TOOK",
    ])];
    rows.extend(records.iter().map(|record| {
        let from = record
            .from
            .as_ref()
            .map_or("-".to_owned(), ToString::to_string);
        vec![
            Cell::plain(record.number.to_string()),
            Cell {
                text: record.result.to_string(),
                style: style(record.result),
            },
            Cell::plain(record.verb.to_string()),
            Cell::plain(record.to.to_string()),
            Cell::plain(from),
            Cell::plain(record.by.said()),
            Cell::plain(when(record.ordered_ms)),
            Cell::plain(took(record)),
        ]
    }));
    table(&rows)
}

/// `hotctl show` for people.
pub fn record(record: &DeploymentRecord) -> String {
    let from = record
        .from
        .as_ref()
        .map(|from| format!(", from {from}"))
        .unwrap_or_default();
    let mut lines = vec![
        format!(
            "{}: deployment {}: {} to {}{from}",
            record.service, record.number, record.verb, record.to
        ),
        line(
            "result",
            &in_style(style(record.result), &record.result.to_string()),
        ),
        line("by", &format!("{} ({})", record.by.said(), record.by.via)),
        line("ordered", &when(record.ordered_ms)),
    ];
    lines.extend(record.started_ms.map(|at| line("started", &when(at))));
    lines.extend(record.ended_ms.map(|at| line("ended", &when(at))));
    lines.extend(record.phases.iter().map(|it| phase(it, record)));
    if let Some(summary_of) = &record.summary {
        lines.push(line("figures", &summary(summary_of)));
    }
    if let Some(why) = &record.why {
        lines.push(line("why", &why.text));
        lines.extend(
            why.hint
                .as_ref()
                .map(|hint| line("", &format!("try: {hint}"))),
        );
        if !why.output.is_empty() {
            let n = why.output.len();
            lines.push(line("output", &format!("its last {n} line{}:", plural(n))));
            lines.extend(why.output.iter().map(|text| format!("    | {text}")));
        }
    }
    lines.join("\n")
}

fn line(name: &str, text: &str) -> String {
    format!("  {name:<8} {text}")
}

fn phase(phase: &PhaseTook, record: &DeploymentRecord) -> String {
    let took = match (phase.took_ms, record.ended_ms) {
        (Some(ms), _) => time(ms),
        (None, None) => format!("going on, for {}", time(since(phase.began_ms))),
        // The daemon ended within it.
        (None, Some(_)) => "cut short".to_owned(),
    };
    line("phase", &format!("{:<9} {took}", phase.phase))
}

/// From the order to the flip where there was one, else to the end.
fn took(record: &DeploymentRecord) -> String {
    match (&record.summary, record.ended_ms) {
        (Some(summary), _) => time(summary.live_ms),
        (None, Some(ended)) => time(ms(ended.saturating_sub(record.ordered_ms))),
        (None, None) => format!("{}…", time(since(record.ordered_ms))),
    }
}

fn since(at_ms: u64) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ms(u64::try_from(now.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_sub(at_ms))
}

/// Of times that fit into a life.
fn ms(time: u64) -> f64 {
    std::time::Duration::from_millis(time).as_secs_f64() * 1e3
}

fn style(result: Outcome) -> Style {
    match result {
        Outcome::Live | Outcome::Unchanged => GOOD,
        Outcome::Failed | Outcome::FlippedBack | Outcome::Interrupted => BAD,
        Outcome::UnderWay | Outcome::Queued => LOOK,
        Outcome::Superseded | Outcome::Cancelled => Style::new(),
    }
}
