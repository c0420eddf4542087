//! Answers for people: a line an event, a live line on a terminal, tables. Decides nothing.

mod events;
mod history;
mod status;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use hotctl_config::names::ReleaseId;
use hotctl_config::units::brief;
use hotctl_deploy::why::{Kind, Why};

use crate::api::Progress;
use crate::cli::Form;
use crate::fault::{Exit, Fault};
use crate::paint::{BAD, in_style};

pub use events::{event_line, noted};
pub use history::{history, record};
pub use status::{releases, status};

/// Shorter waits are not worth a line: every app refuses connections at first.
const WORTH_SAYING: Duration = Duration::from_millis(500);

/// Where the events of an order are printed.
#[derive(Debug)]
pub struct Paper {
    sort: Sort,
    /// A live line stands on the terminal and has to be wiped before the next line.
    live_line: bool,
    /// What is waited for; events come only when the answer changes.
    waiting: Option<Waiting>,
    /// What is live was ended for the candidate: whether it is again, where that failed.
    ended: Option<Back>,
}

/// What became of a release that was ended for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    NotYet,
    Live,
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
enum Sort {
    Json,
    Terminal,
    Plain,
}

impl Paper {
    /// JSON if asked for, else for whatever standard output is.
    pub fn new(form: Form) -> Self {
        Self {
            sort: match (form, io::stdout().is_terminal()) {
                (Form::Json, _) => Sort::Json,
                (Form::Words, true) => Sort::Terminal,
                (Form::Words, false) => Sort::Plain,
            },
            live_line: false,
            waiting: None,
            ended: None,
        }
    }

    /// Print one event; `line` is how it came.
    ///
    /// # Errors
    /// If standard output is broken in another way than its reader having left.
    pub fn print(&mut self, progress: &Progress, line: &str) -> Result<(), Fault> {
        match progress {
            Progress::Stopping { .. } => self.ended = Some(Back::NotYet),
            Progress::Restored { error: None, .. } => self.ended = Some(Back::Live),
            _ => {}
        }
        let printed = match (self.sort, progress) {
            (Sort::Json, _) => self::line(line).map(drop),
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
                let text = match (progress, self.ended) {
                    (
                        Progress::Failed {
                            live: Some(live), ..
                        },
                        Some(Back::Live),
                    ) => Some(format!("{live} is live again")),
                    (
                        Progress::Failed {
                            live: Some(live), ..
                        },
                        Some(Back::NotYet),
                    ) => Some(format!(
                        "{live} is to be live again, and is tried: hotctl status"
                    )),
                    _ => events::event(progress),
                };
                self.wipe().and_then(|()| match text {
                    Some(text) => self::line(&text).map(drop),
                    None => Ok(()),
                })
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
        anstream::eprintln!("hotctl: {text}");
    }

    fn show_waiting(&mut self) -> io::Result<()> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        let waited = waiting.since.elapsed();
        if waited < WORTH_SAYING {
            return Ok(());
        }
        if self.sort == Sort::Plain {
            if std::mem::replace(&mut waiting.told, true) {
                return Ok(());
            }
            return line(&format!("{} waiting: {}", waiting.release, waiting.probe)).map(drop);
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
            Kind::Busy => Exit::Busy,
            _ => Exit::Failed,
        },
    }
}

/// Whether somebody reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// Print a line to standard output; a reader that has left is no failure.
///
/// # Errors
/// Any other failure of the write.
pub fn line(text: &str) -> io::Result<Reader> {
    let mut out = anstream::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Ok(()) => Ok(Reader::There),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(cause) => Err(cause),
    }
}

/// Print why a command failed: for people, or as its shape.
pub fn fault(fault: &Fault, form: Form) {
    let text = match form {
        Form::Words => {
            // Problems of a configuration begin with their own file and line.
            format!("{} {fault}", in_style(BAD, "hotctl:"))
        }
        Form::Json => serde_json::to_string(&fault.as_shape()).unwrap_or_default(),
    };
    // Nobody is left to be told that this cannot be told.
    let _ = writeln!(anstream::stderr(), "{text}");
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
}
