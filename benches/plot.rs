//! A picture of a table: one panel a figure, one bar a row, with a line from the least to the most that
//! was measured. SVG, readable in light and in dark, and of no size to speak of.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::report::number;

/// Bars that can be compared.
pub struct Panel {
    /// What is shown, with its unit.
    pub title: String,
    pub bars: Vec<Bar>,
}

/// One of them.
pub struct Bar {
    pub name: String,
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

const BARS: f64 = 170.0;
/// Of a letter, about.
const LETTER: f64 = 6.6;
const NUMBERS: f64 = 56.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 52.0;

/// Write `plots/NAME.svg`.
pub fn write(name: &str, title: &str, panels: &[Panel]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/plots");
    let path = folder.join(format!("{name}.svg"));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, draw(title, panels)));
    if let Err(e) = written {
        eprintln!("{}: {e}", path.display());
    }
}

fn draw(title: &str, panels: &[Panel]) -> String {
    let rows = panels.iter().map(|panel| panel.bars.len()).max();
    let names = panels.iter().flat_map(|panel| &panel.bars);
    let longest = names.map(|bar| bar.name.chars().count()).max();
    let names = longest.unwrap_or(0) as f64 * LETTER + 16.0;
    let one = names + BARS + NUMBERS;
    let height = HEAD + rows.unwrap_or(0) as f64 * ROW + 12.0;
    let width = panels.len() as f64 * one;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #24292f }} .bar {{ fill: #8c9bb0 }} .own {{ fill: #d9622b }} \
         .span {{ stroke: #24292f }} @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} \
         .span {{ stroke: #e6edf3 }} }}</style>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for (at, panel) in panels.iter().enumerate() {
        let left = at as f64 * one;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"40\">{}</text>",
            left + 8.0,
            escaped(&panel.title)
        );
        let all = panel.bars.iter().map(|bar| bar.max);
        let most = all
            .filter(|max| max.is_finite())
            .fold(f64::MIN_POSITIVE, f64::max);
        let scale = BARS / most;
        for (row, bar) in panel.bars.iter().enumerate() {
            let top = HEAD + row as f64 * ROW;
            draw_bar(&mut svg, bar, left + names, top, scale);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_bar(svg: &mut String, bar: &Bar, x: f64, top: f64, scale: f64) {
    if !bar.median.is_finite() {
        return;
    }
    let class = match bar.name.starts_with("hotctl") {
        true => "own",
        false => "bar",
    };
    let (middle, y) = (top + 7.0, top + 11.0);
    let (from, to) = (x + bar.min * scale, x + bar.max * scale);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{x:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"14\"/>\
         <line class=\"span\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>\
         <text x=\"{:.1}\" y=\"{y}\">{}</text>",
        x - 6.0,
        escaped(&bar.name),
        bar.median * scale,
        to + 6.0,
        number(bar.median)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
