//! What is told of one service, and how events change it.

use std::path::{Path, PathBuf};

use hotctl_deploy::diagnosis::{self, Diagnosis};
use hotctl_deploy::why::Kind;
use hotctl_proxy::Split;
use serde::Serialize;

use super::Editor;
use crate::api::{BuildState, Noted, NumberedEvent, Progress};
use crate::site::{Site, Touched};

/// What is told of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sheet {
    /// The release that is live.
    live: Option<String>,
    /// The one before it.
    before: Option<String>,
    /// Whether nothing but style sheets differs between the two.
    only_styles: bool,
    /// Counts the changes of files that pages load, and that need no other release.
    pub assets: u64,
    /// Whether the last of them was of nothing but style sheets.
    only_asset_styles: bool,
    /// Counts what a page that no release has made may wait for.
    pub turn: u64,
    /// What goes on: `building`, `starting`.
    doing: Option<&'static str>,
    problem: Option<Problem>,
}

/// What did not become live, or does not serve any more.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Problem {
    /// `build of web@13 failed`, without when.
    title: String,
    /// When, in milliseconds since 1970.
    at_ms: u64,
    why: String,
    hint: Option<String>,
    errors: Vec<Fault>,
    /// The end of the output, with its colours.
    output: Vec<String>,
    /// Whether it is what was live that ended.
    of_live: bool,
}

/// An error, and where to mend it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Fault {
    /// `src/main.rs:3:5`.
    place: String,
    text: String,
    /// Opens it in an editor.
    link: Option<String>,
}

impl Sheet {
    /// As it is now.
    pub fn of(site: &Site, editor: &Editor) -> Self {
        let mut sheet = Self {
            live: live(site),
            ..Self::default()
        };
        if let Some(build) = site.build_status() {
            match build.state {
                BuildState::Building => sheet.doing = Some("building"),
                BuildState::Failed => {
                    let why = build.why.unwrap_or_default();
                    let mut problem = Problem::of(build_title(site), build.began_ms, why);
                    problem.errors = faults(&build.errors, site, editor);
                    problem.output = build.output;
                    sheet.problem = Some(problem);
                }
                BuildState::Done | BuildState::Cancelled => {}
            }
        }
        sheet
    }

    /// This has happened to it.
    pub fn hear(&mut self, event: &NumberedEvent, site: &Site, editor: &Editor) {
        let at_ms = event.at_ms;
        match &event.what {
            Noted::BuildStarted { .. } => self.doing = Some("building"),
            Noted::BuildDone { .. } | Noted::BuildCancelled { .. } => self.doing = None,
            Noted::BuildFailed {
                why,
                hint,
                errors,
                output,
                ..
            } => {
                self.doing = None;
                self.problem = Some(Problem {
                    hint: hint.clone(),
                    errors: faults(errors, site, editor),
                    output: output.clone(),
                    ..Problem::of(build_title(site), at_ms, why.clone())
                });
            }
            Noted::WatchFailed { error, hint } => {
                self.problem = Some(Problem {
                    hint: hint.clone(),
                    ..Problem::of("not deployed".to_owned(), at_ms, error.clone())
                });
            }
            Noted::InstanceExited {
                release, pid, exit, ..
            } => {
                let title = format!("{release} ended");
                self.problem = Some(Problem {
                    of_live: true,
                    ..Problem::of(title, at_ms, format!("pid {pid}: {exit}"))
                });
            }
            Noted::CrashLoop {
                release,
                deaths,
                exit,
                ..
            } => {
                let title = format!("{release} ends again and again");
                self.problem = Some(Problem {
                    of_live: true,
                    hint: Some(format!("`hotctl logs {}` shows what it said", site.name)),
                    ..Problem::of(title, at_ms, format!("{deaths} times in a row: {exit}"))
                });
            }
            Noted::InstanceRestarted { .. } | Noted::HealthyAgain { .. } => {
                self.turn += 1;
                self.live = live(site);
                if self.problem.as_ref().is_some_and(|it| it.of_live) {
                    self.problem = None;
                }
            }
            Noted::AssetsChanged { only_styles, .. } => {
                self.assets += 1;
                self.only_asset_styles = *only_styles;
                self.turn += 1;
            }
            Noted::Progress(progress) => self.follow(progress, at_ms, site, editor),
            _ => {}
        }
    }

    /// This has happened to a deployment of it.
    fn follow(&mut self, progress: &Progress, at_ms: u64, site: &Site, editor: &Editor) {
        match progress {
            Progress::Starting { .. } => self.doing = Some("starting"),
            Progress::Flipped { release, .. } => {
                self.doing = None;
                self.problem = None;
                self.only_styles = site.take_touched() == Touched::Styles;
                let live = Some(release.to_string());
                if self.live != live {
                    self.before = std::mem::replace(&mut self.live, live);
                }
                self.turn += 1;
            }
            Progress::Restored { .. } => {
                self.live = live(site);
                self.turn += 1;
            }
            Progress::Unchanged { .. } => {
                self.doing = None;
                self.problem = None;
            }
            Progress::Failed { release, why, .. } => {
                self.doing = None;
                // Somebody wanted that.
                if matches!(why.kind, Kind::Cancelled | Kind::Superseded | Kind::Busy) {
                    return;
                }
                let name = match release {
                    Some(release) => release.to_string(),
                    None => site.name.to_string(),
                };
                self.problem = Some(Problem {
                    hint: why.hint.clone(),
                    errors: faults(&diagnosis::errors(&why.output), site, editor),
                    output: why.output.clone(),
                    ..Problem::of(format!("{name} failed"), at_ms, why.text.clone())
                });
                self.live = live(site);
            }
            _ => {}
        }
    }
}

impl Problem {
    fn of(title: String, at_ms: u64, why: String) -> Self {
        Self {
            title,
            at_ms,
            why,
            hint: None,
            errors: Vec::new(),
            output: Vec::new(),
            of_live: false,
        }
    }
}

/// `build of web@13 failed`: it would have been that one.
fn build_title(site: &Site) -> String {
    let next = site.ledger().last.release + 1;
    format!("build of {}@{next} failed", site.name)
}

/// The release that gets requests.
fn live(site: &Site) -> Option<String> {
    match site.means.switch.split_of(&site.name)? {
        Split::Live { live, .. } => Some(live.release().to_string()),
        // It is just being started again.
        Split::Parked(_) => {
            let ledger = site.ledger();
            ledger.live.map(|live| ledger.id(live.release).to_string())
        }
        Split::Closed(_) => None,
    }
}

fn faults(errors: &[Diagnosis], site: &Site, editor: &Editor) -> Vec<Fault> {
    let root = site.config().build.root.clone();
    errors
        .iter()
        .map(|error| {
            let column = error
                .column
                .map_or_else(String::new, |column| format!(":{column}"));
            Fault {
                place: format!("{}:{}{column}", error.file, error.line),
                text: error.text.clone(),
                link: whole(&error.file, root.as_deref())
                    .map(|file| editor.link(&file, error.line, error.column)),
            }
        })
        .collect()
}

/// The whole path of a file as a build has named it, if that is there. cargo names files from the top of
/// its workspace, which may be above.
fn whole(file: &str, root: Option<&Path>) -> Option<PathBuf> {
    let file = Path::new(file);
    if file.is_absolute() {
        return Some(file.to_owned());
    }
    root?
        .ancestors()
        .map(|folder| folder.join(file))
        .find(|path| path.is_file())
}
