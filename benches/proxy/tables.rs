//! The samples of a case as a table and as bars. Pure but for what the report prints.

use crate::cases::{Case, Per};
use crate::plot::{Bar, Panel};
use crate::report::{Report, number};
use crate::round::Sample;

/// Who took part, with one sample a round.
pub type Rows = Vec<(String, Vec<Sample>)>;

/// A figure of a sample.
type Figure = fn(&Sample) -> f64;

/// Add the table of a case, and what is to be said about its rounds.
pub fn tell(case: &Case, rows: &Rows, report: &mut Report) {
    let per = match case.per() {
        Per::Requests => "CPU s a 100k",
        Per::Gigabyte(_) => "CPU s a GB",
    };
    let mut figures: Vec<(&str, Figure)> = vec![
        ("requests/s", |one| one.seen.rate()),
        ("p50 ms", |one| one.seen.p50),
        ("p99 ms", |one| one.seen.p99),
        ("p999 ms", |one| one.seen.p999),
    ];
    if case.is_for_wrk() {
        figures.push(("p999 ms, own client", |one| {
            one.checked.as_ref().map_or(f64::NAN, |seen| seen.p999)
        }));
    }
    figures.extend([
        (per, Sample::cost as Figure),
        ("user", |one| one.user),
        ("system", |one| one.system),
    ]);
    let reference = rows.iter().find(|(name, _)| name.starts_with("nginx"));
    let mut columns: Vec<String> = vec![case.name.to_string()];
    columns.extend(figures.iter().map(|(name, _)| (*name).to_string()));
    columns.extend(["× nginx's CPU", "failed", "marked"].map(str::to_string));
    let mut lines = Vec::new();
    for (name, samples) in rows {
        let mut line = vec![name.clone()];
        let values = |figure: Figure| samples.iter().map(figure).collect::<Vec<_>>();
        line.extend(figures.iter().map(|(_, figure)| cell(values(*figure))));
        let ratios = reference.map(|(_, its)| {
            let both = samples.iter().zip(its);
            both.map(|(one, nginx)| one.cost() / nginx.cost()).collect()
        });
        line.push(cell(ratios.unwrap_or_default()));
        let failed: u64 = samples.iter().map(Sample::failures).sum();
        let marked = samples.iter().filter(|one| one.is_marked()).count();
        line.push(failed.to_string());
        line.push(format!("{marked} of {}", samples.len()));
        lines.push(line);
    }
    let title = format!(
        "**{}**: {}. Median (least–most) of the rounds.",
        case.name, case.what
    );
    report.table(&title, &columns, &lines);
    for (name, samples) in rows {
        for one in samples.iter().filter(|one| one.failures() > 0) {
            report.note(&format!("{}: {name}: {}", case.name, one.troubles()));
        }
    }
}

/// The figures that are worth a picture.
pub fn panels(case: &Case, rows: &Rows) -> Vec<Panel> {
    let cost = match case.per() {
        Per::Requests => "CPU seconds for 100,000 requests",
        Per::Gigabyte(_) => "CPU seconds for a GB",
    };
    let figures: [(&str, Figure); 3] = [
        (cost, Sample::cost),
        ("requests a second", |one| one.seen.rate()),
        ("p999, ms", |one| one.seen.p999),
    ];
    let panel = |(title, figure): (&str, Figure)| Panel {
        title: title.to_string(),
        bars: rows
            .iter()
            .map(|(name, samples)| bar(name, samples.iter().map(figure).collect()))
            .collect(),
    };
    figures.map(panel).into()
}

/// Three numbers as a bar.
pub fn bar(name: &str, values: Vec<f64>) -> Bar {
    let [min, median, max] = three(values);
    Bar {
        name: name.to_string(),
        min,
        median,
        max,
    }
}

/// Three numbers as a cell.
pub fn cell(values: Vec<f64>) -> String {
    if values.is_empty() {
        return "–".to_string();
    }
    let many = values.len() > 1;
    let [min, median, max] = three(values).map(number);
    match many {
        true => format!("{median} ({min}–{max})"),
        false => median,
    }
}

/// Least, median, most.
fn three(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    [
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    ]
}
