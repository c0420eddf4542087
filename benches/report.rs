//! What a bench has measured: printed, and appended to `RESULTS.md` with date, commit and machine.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Rows of one bench.
pub struct Report {
    bench: &'static str,
    rows: Vec<String>,
    notes: Vec<String>,
}

/// Whether this program was started by `cargo bench`. `cargo test --benches` starts it, too, and a
/// bench that takes minutes has no place there.
pub fn is_wanted() -> bool {
    std::env::args().any(|word| word == "--bench")
}

/// The number after a flag, as in `cargo bench --bench flip -- --deploys 50`.
pub fn flag(name: &str, default: u64) -> u64 {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    match words.next() {
        None => default,
        Some(word) => match word.parse() {
            Ok(number) => number,
            Err(_) => panic!("{name} {word}: not a number"),
        },
    }
}

impl Report {
    /// Nothing yet.
    pub fn of(bench: &'static str) -> Self {
        Self {
            bench,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Add measurements of one thing.
    pub fn row(&mut self, what: &str, unit: &str, values: &[f64]) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return self.note(&format!("{what}: nothing was measured"));
        };
        let median = sorted[sorted.len() / 2];
        let n = sorted.len();
        let [min, median, max] = [*min, median, *max].map(number);
        println!("{what:<72} {min:>10} {median:>10} {max:>10} {unit} (n = {n})");
        self.rows.push(format!(
            "| {what} | {min} | {median} | {max} | {unit} | {n} |"
        ));
    }

    /// Say something that is no row.
    pub fn note(&mut self, text: &str) {
        println!("{text}");
        self.notes.push(text.to_string());
    }

    /// Append everything to `RESULTS.md`.
    pub fn append(self) {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let path = benches.join("RESULTS.md");
        let mut text = String::new();
        if !path.exists() {
            text.push_str("# What it costs\n\nAppended by `./dev bench`, newest last.\n");
        }
        let date = said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
        let _ = write!(
            text,
            "\n## {} · {date}\n\n{}\n\n",
            self.bench,
            machine(&benches)
        );
        if !self.rows.is_empty() {
            text.push_str("| what | min | median | max | unit | n |\n|---|--:|--:|--:|---|--:|\n");
            let _ = writeln!(text, "{}", self.rows.join("\n"));
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        let file = File::options().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(e) = written {
            eprintln!("{}: {e}", path.display());
        }
    }
}

/// Commit, processors, kernel, memory, compiler.
fn machine(folder: &Path) -> String {
    let git = |args: &[&str]| {
        let folder = folder.display().to_string();
        said("git", &[&["-C", &folder], args].concat())
    };
    let mut commit = git(&["rev-parse", "--short=10", "HEAD"]);
    // The results themselves do not count.
    if !git(&["status", "--porcelain", "--", "..", ":!RESULTS.md"]).is_empty() {
        commit.push_str(" with changes");
    }
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let model = model.unwrap_or("processor").trim();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    let memory = kib.map_or(0, |kib| kib >> 20);
    let kernel = said("uname", &["-r"]);
    let rustc = said("rustc", &["--version"]);
    format!("commit {commit} · {cores} × {model}, {memory} GiB, Linux {kernel} · {rustc}")
}

fn said(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).output();
    let said = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_string());
    said.unwrap_or_default()
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        few if few >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
