//! Answers for people: a line an event, a live line on a terminal, tables. Decides nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hotctl_config::names::ReleaseId;
use hotctl_config::units::brief;
use hotctl_deploy::why::{Kind, Why};

use crate::api::{Progress, ReleaseLine, RunningRelease, ServiceStatus, Status};
use crate::fault::{Exit, Fault};

/// Shorter waits are not worth a line: every app refuses connections at first.
const WORTH_SAYING: Duration = Duration::from_millis(500);

/// Where the events of an order are printed.
#[derive(Debug)]
pub struct Paper {
    kind: Form,
    /// A live line stands on the terminal and has to be wiped before the next line.
    live_line: bool,
    /// What is waited for; events come only when the answer changes.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    release: ReleaseId,
    probe: String,
    since: Instant,
    /// A plain paper has told it.
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Terminal,
    Plain,
}

impl Paper {
    /// JSON if asked for, else for whatever standard output is.
    pub fn new(json: bool) -> Self {
        Self {
            kind: match (json, io::stdout().is_terminal()) {
                (true, _) => Form::Json,
                (false, true) => Form::Terminal,
                (false, false) => Form::Plain,
            },
            live_line: false,
            waiting: None,
        }
    }

    /// Print one event; `line` is how it came.
    ///
    /// # Errors
    /// If standard output is broken in another way than its reader having left.
    pub fn print(&mut self, progress: &Progress, line: &str) -> Result<(), Fault> {
        let printed = match (self.kind, progress) {
            (Form::Json, _) => self::line(line),
            (
                _,
                Progress::Waiting {
                    release,
                    probe,
                    for_ms,
                },
            ) => {
                let ago = Duration::from_secs_f64(for_ms.max(0.0) / 1e3);
                let now = Instant::now();
                self.waiting = Some(Waiting {
                    release: release.clone(),
                    probe: probe.clone(),
                    since: now.checked_sub(ago).unwrap_or(now),
                    told: false,
                });
                self.show_waiting()
            }
            _ => {
                self.waiting = None;
                self.wipe()
                    .and_then(|()| event(progress).map_or(Ok(()), |text| self::line(&text)))
            }
        };
        printed.map_err(|cause| Fault::failed(format!("standard output: {cause}")))
    }

    /// Time has passed: show how long is being waited.
    ///
    /// # Errors
    /// As [`Paper::print`].
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.show_waiting()
            .map_err(|cause| Fault::failed(format!("standard output: {cause}")))
    }

    /// Say something beside the events.
    pub fn note(&mut self, text: &str) {
        // What cannot be wiped stays.
        let _ = self.wipe();
        eprintln!("hotctl: {text}");
    }

    fn show_waiting(&mut self) -> io::Result<()> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        let waited = waiting.since.elapsed();
        if waited < WORTH_SAYING {
            return Ok(());
        }
        if self.kind == Form::Plain {
            if std::mem::replace(&mut waiting.told, true) {
                return Ok(());
            }
            return line(&format!("{} waiting: {}", waiting.release, waiting.probe));
        }
        let waited =
            Duration::from_millis(100 * u64::try_from(waited.as_millis() / 100).unwrap_or(0));
        let text = format!(
            "{} waiting {}: {}",
            waiting.release,
            brief(waited),
            waiting.probe
        );
        // A longer one would wrap, and could not be wiped.
        let text: String = text.chars().take(width().saturating_sub(1)).collect();
        let mut out = io::stdout().lock();
        out.write_all(b"\r\x1b[K")?;
        out.write_all(text.as_bytes())?;
        self.live_line = true;
        out.flush()
    }

    /// Take the live line away.
    fn wipe(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.live_line, false) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(b"\r\x1b[K")?;
        out.flush()
    }
}

/// An event as a line, if it has one of its own.
fn event(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Ordered { .. } => return None,
        Progress::Queued { behind } => format!("waiting for {behind} to end"),
        Progress::Starting { release, .. } => format!("{release} starting"),
        Progress::Started {
            release,
            address,
            pid,
            took_ms,
        } => format!(
            "{release} started on {address}, pid {pid} ({})",
            time(*took_ms)
        ),
        Progress::Waiting { .. } => return None,
        Progress::Healthy {
            release,
            took_ms,
            probes,
        } => format!(
            "{release} healthy after {} ({probes} probe{})",
            time(*took_ms),
            plural(usize::try_from(*probes).unwrap_or(0))
        ),
        Progress::Flipped { release, took_us } => {
            format!("{release} live: flipped in {}", time(took_us / 1e3))
        }
        Progress::Draining { release, requests } => format!(
            "{release} draining: {requests} request{} in flight",
            plural(*requests)
        ),
        Progress::Drained {
            release,
            took_ms,
            open: 0,
        } => format!("{release} drained in {}", time(*took_ms)),
        Progress::Drained {
            release,
            took_ms,
            open,
        } => format!(
            "{release} still has {open} request{} open after {} (drain.requests): cut when it stops",
            plural(*open),
            time(*took_ms)
        ),
        Progress::Reverting { release, .. } => format!("{release} taken back"),
        Progress::Summary(s) => {
            let mut parts = vec![format!("start {}", time(s.start_ms))];
            parts.push(format!("health {}", time(s.health_ms)));
            parts.push(format!("flip {}", time(s.flip_us / 1e3)));
            parts.extend(s.drain_ms.map(|drain| format!("drain {}", time(drain))));
            parts.push(format!("total {}", time(s.total_ms)));
            format!(
                "{} is live on {}: {}",
                s.release,
                s.address,
                parts.join(", ")
            )
        }
        Progress::Settled { release, .. } => format!("{release} settled"),
        Progress::Unchanged { release } => {
            format!("{release} is live already: unchanged, nothing to do")
        }
        Progress::Done { text } => text.clone(),
        // Printed as the command's failure.
        Progress::Failed { live, .. } => match live {
            Some(live) => format!("{live} is live and was not touched"),
            None => return None,
        },
    })
}

/// Why an order failed, as a command's failure: reason, last output, remedy.
pub fn failure(why: &Why) -> Fault {
    let mut text = why.text.clone();
    if !why.output.is_empty() {
        text.push_str("\n  its last output:");
        for line in &why.output {
            text.push_str("\n    | ");
            text.push_str(line);
        }
    }
    Fault {
        text,
        hint: why.hint.clone(),
        exit: match why.kind {
            Kind::Superseded => Exit::Superseded,
            _ => Exit::Failed,
        },
    }
}

/// `hotctl status` for people.
pub fn status(status: &Status) -> String {
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let mut out = format!(
        "hotctl {} (pid {}) up {}, listening on {}",
        status.version,
        status.pid,
        seconds(status.uptime_s),
        listen.join(", ")
    );
    if let Some(admin) = status.admin {
        out.push_str(&format!(", metrics at http://{admin}/metrics"));
    }
    for service in &status.services {
        out.push_str("\n\n");
        out.push_str(&one_service(service));
    }
    out
}

fn one_service(service: &ServiceStatus) -> String {
    let hosts = if service.hosts.is_empty() {
        "any host".to_owned()
    } else {
        service.hosts.join(" ")
    };
    let mut out = format!(
        "{}  {}  ({hosts}, {})",
        service.name,
        service.state.replace('_', " "),
        service.paths.join(" ")
    );
    if !service.running.is_empty() {
        let mut rows = vec![
            [
                "RELEASE", "ROLE", "ADDRESS", "PID", "UP", "REQUESTS", "HEALTH",
            ]
            .map(String::from)
            .to_vec(),
        ];
        rows.extend(service.running.iter().map(row));
        out.push('\n');
        out.push_str(&table(&rows));
    }
    if let Some(d) = &service.deployment {
        let from = d
            .from
            .as_ref()
            .map_or(String::new(), |from| format!(", from {from}"));
        out.push_str(&format!(
            "\n  deployment {} of {}{from}: {}, for {}",
            d.number,
            d.to,
            d.phase,
            seconds(d.age_s)
        ));
    }
    if let (Some(previous), "serving") = (&service.previous, service.state.as_str()) {
        out.push_str(&format!("\n  rollback would go to {previous}"));
    }
    if service.state == "down" {
        out.push_str(&format!(
            "\n  its live release could not be started: the daemon's log says why\n  try: hotctl deploy PATH --service {}",
            service.name
        ));
    }
    if service.state == "nothing_deployed" {
        out.push_str(&format!(
            "\n  try: hotctl deploy PATH --service {}",
            service.name
        ));
    }
    out
}

fn row(running: &RunningRelease) -> Vec<String> {
    let restarts = match running.restarts {
        0 => String::new(),
        n => format!(
            ", restarted {n} time{}",
            plural(usize::try_from(n).unwrap_or(0))
        ),
    };
    vec![
        running.release.to_string(),
        running.role.clone(),
        running.address.to_string(),
        running
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        seconds(running.uptime_s),
        running.tickets.to_string(),
        format!("{}{restarts}", running.health),
    ]
}

/// `hotctl releases` for people.
pub fn releases(lines: &[ReleaseLine]) -> String {
    if lines.is_empty() {
        return "nothing is deployed yet\n  try: hotctl deploy PATH".to_owned();
    }
    let mut rows = vec![
        ["RELEASE", "ROLE", "DIGEST", "AGE", "FROM", "ARGS"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(lines.iter().map(|line| {
        let created = UNIX_EPOCH + Duration::from_millis(line.created_ms);
        let age = SystemTime::now()
            .duration_since(created)
            .unwrap_or_default();
        vec![
            line.release.to_string(),
            line.role.clone().unwrap_or_else(|| "stored".to_owned()),
            line.digest.short(),
            seconds(age.as_secs_f64()),
            line.name.clone(),
            line.args.join(" "),
        ]
    }));
    table(&rows)
}

/// Rows in columns, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            format!("  {}", cells.collect::<Vec<_>>().join("  "))
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Print a line to standard output; a reader that has left is no failure.
///
/// # Errors
/// Any other failure of the write.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn time(ms: f64) -> String {
    brief(Duration::from_secs_f64((ms / 1e3).max(0.0)))
}

/// Ages and uptimes: whole seconds are enough, and none is told as 0 s.
fn seconds(s: f64) -> String {
    match Duration::from_secs_f64(s.max(0.0).floor()) {
        Duration::ZERO => "0 s".to_owned(),
        time => brief(time),
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| usize::from(size.ws_col).max(20))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_failure_shows_reason_output_and_remedy() {
        let why = Why {
            output: vec!["panic: no database".into()],
            ..Why::new(
                Kind::Exited,
                "web@3: ended before it was healthy: exit status 1",
            )
            .hint("hotctl logs web@3")
        };
        assert_eq!(
            failure(&why).to_string(),
            "web@3: ended before it was healthy: exit status 1\n  its last output:\n    | panic: no database\n  try: hotctl logs web@3"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["A".into(), "B".into()],
            vec!["long".into(), "x".into()],
        ];
        assert_eq!(table(&rows), "  A     B\n  long  x");
    }
}
