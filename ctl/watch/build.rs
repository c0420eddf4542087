//! One build of a service: its commands one after the other, their output, and what is wrong if they fail.
//! Decides nothing about when.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotctl_deploy::command::{self, CommandFailed};
use hotctl_deploy::{diagnosis, logs};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::Change;
use crate::api::{BuildState, BuildStatus, Noted};
use crate::history::now_ms;
use crate::metrics::Built;
use crate::site::Site;
use crate::store::on_disk;
use crate::teller::ms;

/// How much of its output is searched for errors, in lines.
const SEARCHED: usize = 1000;
/// How many lines of it are told with a failure.
const TOLD: usize = 20;

/// A build that goes on. If this is dropped, it is ended with all that it has started.
pub(super) struct Building {
    number: u64,
    began: Instant,
    pub change: Change,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<Ended, CommandFailed>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Cancelled,
}

impl Building {
    pub fn begin(site: &Arc<Site>, change: Change) -> Self {
        let number = site.next_build();
        let build = site.config().build.clone();
        let command = shell_words::join(&build.command);
        info!(service = %site.name, build = number, %command, "a build begins");
        // Each build has the file for itself, before anybody looks for it there; one that cannot be removed
        // goes on.
        on_disk(|| logs::remove(&site.build_log()));
        site.show_build(BuildStatus {
            number,
            state: BuildState::Building,
            command: command.clone(),
            began_ms: now_ms(),
            took_ms: None,
            why: None,
            errors: Vec::new(),
            output: Vec::new(),
        });
        site.journal(Noted::BuildStarted {
            build: number,
            command,
            changed: change.names(),
        });
        let stop = CancellationToken::new();
        let (site, stopped) = (site.clone(), stop.clone());
        let task = tokio::spawn(async move {
            for command in [&build.pre, &build.command, &build.post] {
                if command.is_empty() {
                    continue;
                }
                let spec = site.build_spec(command).map_err(|why| CommandFailed {
                    text: why.text,
                    hint: why.hint,
                    output: Vec::new(),
                })?;
                let ran = command::run_until(spec, build.timeout, stopped.cancelled()).await?;
                if ran.is_none() {
                    return Ok(Ended::Cancelled);
                }
            }
            Ok(Ended::Done)
        });
        Self {
            number,
            began: Instant::now(),
            change,
            stop,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Its end.
    pub async fn ended(&mut self) -> Verdict {
        match (&mut self.task).await {
            Ok(Ok(Ended::Done)) => Verdict::Done,
            Ok(Ok(Ended::Cancelled)) => Verdict::Cancelled,
            Ok(Err(failed)) => Verdict::Failed(failed),
            // A panic, which the runtime has logged.
            Err(cause) => Verdict::Failed(CommandFailed {
                text: cause.to_string(),
                hint: None,
                output: Vec::new(),
            }),
        }
    }

    /// It is not needed any more: nothing of it runs when this is done.
    pub async fn cancel(mut self, site: &Site) {
        self.stop.cancel();
        match self.ended().await {
            // In the same moment.
            Verdict::Failed(failed) => self.failed(site, &failed),
            Verdict::Done | Verdict::Cancelled => {
                let took_ms = self.over(site, Built::Cancelled, BuildState::Cancelled);
                site.journal(Noted::BuildCancelled {
                    build: self.number,
                    took_ms,
                });
            }
        }
    }

    /// It was good.
    pub fn done(&self, site: &Site) {
        let took_ms = self.over(site, Built::Done, BuildState::Done);
        info!(service = %site.name, build = self.number, took_ms, "a build is done");
        site.journal(Noted::BuildDone {
            build: self.number,
            took_ms,
        });
    }

    /// It was not: what is live stays.
    pub fn failed(&self, site: &Site, failed: &CommandFailed) {
        let searched = on_disk(|| logs::tail(&site.build_log(), SEARCHED));
        let errors = diagnosis::errors(&searched);
        let skip = searched.len().saturating_sub(TOLD);
        let output: Vec<String> = searched.into_iter().skip(skip).collect();
        warn!(service = %site.name, build = self.number, hint = failed.hint, "a build failed: {failed}");
        let took_ms = self.over(site, Built::Failed, BuildState::Failed);
        site.journal(Noted::BuildFailed {
            build: self.number,
            why: failed.text.clone(),
            hint: failed.hint.clone(),
            took_ms,
            errors: errors.clone(),
            output: output.clone(),
        });
        site.change_build(|build| {
            build.why = Some(failed.text.clone());
            build.errors = errors;
            build.output = output;
        });
    }

    /// It has ended like this; how long it took, in milliseconds.
    fn over(&self, site: &Site, result: Built, state: BuildState) -> f64 {
        let took = self.began.elapsed();
        site.means.metrics.build(&site.name, result, took);
        site.change_build(|build| {
            build.state = state;
            build.took_ms = Some(ms(took));
        });
        ms(took)
    }
}

/// What a build came to.
pub(super) enum Verdict {
    Done,
    Cancelled,
    Failed(CommandFailed),
}

/// Builds that disturb themselves: what they change counts as a source.
#[derive(Debug, Default)]
pub(super) struct Loops {
    /// What changed while the last build went on, and so did it while those before.
    paths: Vec<PathBuf>,
    times: u32,
    /// What the builds themselves change, as it turned out.
    own: Vec<PathBuf>,
}

impl Loops {
    /// So many builds in a row may be disturbed by the same paths until it is looked whether it is the
    /// builds that change them.
    const MOST: u32 = 8;
    /// Nothing changes for so long while none goes on: then it is.
    pub const QUIET: Duration = Duration::from_secs(1);

    /// These have changed while a build went on.
    pub fn disturbed(&mut self, paths: &[PathBuf]) -> Disturbed {
        if !paths.is_empty() && paths.iter().all(|path| self.own.contains(path)) {
            return Disturbed::ByItself;
        }
        if self.paths == paths {
            self.times += 1;
        } else {
            (self.paths, self.times) = (paths.to_vec(), 1);
        }
        match self.times > Self::MOST {
            true => Disturbed::Suspicious,
            false => Disturbed::Really,
        }
    }

    /// Whether it may be builds that change these.
    pub fn is_suspicious(&self, paths: &[PathBuf]) -> bool {
        self.times > Self::MOST && self.paths == paths
    }

    /// Something has changed while none went on.
    pub fn at_rest(&mut self) {
        *self = Self::default();
    }

    /// Nothing has.
    pub fn found(&mut self) -> Vec<PathBuf> {
        self.own = std::mem::take(&mut self.paths);
        self.times = 0;
        self.own.clone()
    }
}

/// What has disturbed a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disturbed {
    /// Somebody.
    Really,
    /// Perhaps the build: it should come to its end.
    Suspicious,
    /// The build, as is known.
    ByItself,
}
