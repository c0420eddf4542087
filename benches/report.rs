//! What a bench has measured: printed, and appended to `RESULTS.md` with date, commit and machine.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Rows of one bench.
pub struct Report {
    bench: &'static str,
    rows: Vec<String>,
    /// Whole tables, for what has more to say than three numbers.
    tables: Vec<String>,
    notes: Vec<String>,
    begun: Busy,
    /// Held as long as the bench runs; a name without a file, gone with its holder.
    _turn: UnixListener,
}

/// Processor time since the machine started, in hundredths of a second.
#[derive(Clone, Copy)]
struct Busy {
    /// There is, idle or not.
    all: u64,
    /// Used by programs.
    used: u64,
    /// Used by this one and all that it has started.
    own: u64,
}

/// Whether this program was started by `cargo bench`. `cargo test --benches` starts it, too, and a
/// bench that takes minutes has no place there.
pub fn is_wanted() -> bool {
    std::env::args().any(|word| word == "--bench")
}

/// The number after a flag, as in `cargo bench --bench flip -- --deploys 50`.
#[allow(dead_code)] // Some benches have none.
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
    /// Nothing yet. Waits until no other bench runs on this machine: each would measure the other.
    pub fn of(bench: &'static str) -> Self {
        let name = SocketAddr::from_abstract_name("hotctl-bench").expect("a short name");
        let turn = loop {
            match UnixListener::bind_addr(&name) {
                Ok(turn) => break turn,
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        };
        Self {
            bench,
            rows: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            begun: Busy::now(),
            _turn: turn,
        }
    }

    /// Say how much of the machine others have used since the report was begun. Called while what
    /// the bench has started is still there.
    pub fn note_others(&mut self) {
        let (now, begun) = (Busy::now(), self.begun);
        let used = (now.used - begun.used).saturating_sub(now.own - begun.own);
        let share = used as f64 / (now.all - begun.all).max(1) as f64 * 100.0;
        self.note(&format!(
            "Other programs used {share:.1} % of the processors meanwhile"
        ));
    }

    /// Add measurements of one thing.
    #[allow(dead_code)] // Some benches have tables instead.
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

    /// Add a table of its own, with a line above it; its first column is words, the others are figures.
    #[allow(dead_code)] // Most benches have none.
    pub fn table(&mut self, title: &str, columns: &[String], rows: &[Vec<String>]) {
        println!("\n{title}");
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells
                .chain(columns.get(at))
                .map(|cell| cell.chars().count())
                .max()
        };
        for row in [columns].into_iter().chain(rows.iter().map(Vec::as_slice)) {
            let cells = row.iter().enumerate();
            let line: String = cells
                .map(|(at, cell)| format!("{cell:>width$}  ", width = width(at).unwrap_or(0)))
                .collect();
            println!("{}", line.trim_end());
        }
        let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
        let rule = format!("|---|{}\n", "--:|".repeat(columns.len().saturating_sub(1)));
        let rows: String = rows.iter().map(|row| line(row)).collect();
        self.tables
            .push(format!("{title}\n\n{}{rule}{rows}", line(columns)));
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
        for (at, table) in self.tables.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            let _ = write!(text, "{gap}{table}");
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

impl Busy {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two.
        let times = first.split_whitespace().skip(1).take(8);
        let times: Vec<u64> = times.filter_map(|time| time.parse().ok()).collect();
        Self {
            all: times.iter().sum(),
            used: times.iter().take(3).sum(),
            own: own(),
        }
    }
}

/// Processor time of this process, of all below it, and of those that have ended.
fn own() -> u64 {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        // The name in front may hold anything, parentheses too.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<u64> = rest
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        if let (Ok(pid), Some(&parent), Some(times)) = (pid, fields.get(1), fields.get(11..15)) {
            processes.push((u64::from(pid), parent, times.iter().sum::<u64>()));
        }
    }
    let mut family = vec![u64::from(std::process::id())];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        at += 1;
        let children = processes.iter().filter(|(_, p, _)| *p == parent);
        family.extend(children.map(|(pid, ..)| *pid));
    }
    let ours = processes.iter().filter(|(pid, ..)| family.contains(pid));
    ours.map(|(.., time)| time).sum()
}

/// Commit, processors, kernel, memory, compiler.
fn machine(folder: &Path) -> String {
    let git = |args: &[&str]| {
        let folder = folder.display().to_string();
        said("git", &[&["-C", &folder], args].concat())
    };
    let mut commit = git(&["rev-parse", "--short=10", "HEAD"]);
    // The results themselves do not count.
    if !git(&[
        "status",
        "--porcelain",
        "--",
        "..",
        ":!RESULTS.md",
        ":!plots",
    ])
    .is_empty()
    {
        commit.push_str(" with changes");
    }
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let model = model.unwrap_or("processor").trim();
    // All of them, also where this program may not run on each.
    let cores = info.lines().filter(|line| line.starts_with("processor\t"));
    let cores = cores.count();
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
pub fn number(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        few if few >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
