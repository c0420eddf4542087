//! What a build leaves at a path, looked after: each time it has changed and come to rest, that is
//! told. Knows nothing of services; what is done with a change is decided elsewhere.
//!
//! A look at names, sizes and times decides whether there is something else than before; events only
//! say when to look. So nothing that the system does not tell, or tells twice, makes a difference for
//! longer than until the next look.

mod debounce;
mod ears;
mod known;
mod route;
mod snapshot;
mod stamp;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use debounce::Debounce;
use ears::{Ears, Heard};
use known::{Known, Verdict};
use snapshot::Snapshot;

/// How often it is looked where the system tells nothing.
const POLL: Duration = Duration::from_millis(500);
/// Where something is still being written, or cannot be read, how soon it is looked again.
const AGAIN: Duration = Duration::from_millis(100);

/// What to watch, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// A file, a folder, or a link to one, absolute; it may not be there yet.
    pub path: PathBuf,
    /// What is left out of a folder, beside what each `.hotctlignore` in it says; as in a deploy.
    pub ignore: Vec<String>,
    /// Absolute paths that are left out whatever any pattern says: what hotctl itself writes.
    pub never: Vec<PathBuf>,
    /// What it is.
    pub kind: Kind,
    /// How long nothing may change before it counts as come to rest.
    pub settle: Duration,
    /// It is looked after so long in any case, where something changes on and on.
    pub max_wait: Duration,
    /// Whether it is told of each event why it counts or does not.
    pub explain: Explain,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// What is deployed, as it is.
    Output,
    /// Sources: what is made of them is left out, too, and what version control leaves out.
    Sources {
        /// Only these, as patterns of `.gitignore`; empty = all.
        only: Vec<String>,
        /// What a build leaves among them.
        output: Option<PathBuf>,
    },
}

/// Whether events are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explain {
    /// Each.
    Events,
    /// None.
    Nothing,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It has begun: what is there now is where changes are counted from.
    Begins {
        /// Whether there is something.
        found: Found,
        /// How many folders are watched.
        folders: usize,
    },
    /// Something else is there than before, and it has come to rest.
    Changed {
        /// Where, within what is watched; empty if that is a file.
        paths: Vec<PathBuf>,
        /// Since when it was known that something happens.
        since: Instant,
    },
    /// There is nothing any more.
    Gone,
    /// It is looked by the clock, for this reason.
    Polls(Polling),
    /// It is waited for whoever still writes this.
    Waits(PathBuf),
    /// It cannot be looked at now; it is tried again.
    Cannot(String),
    /// Why an event counts, or does not.
    Explained(String),
}

/// Whether there is something to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is.
    Something,
    /// It is waited for.
    Nothing,
}

/// Why it is looked by the clock. `Display` is a sentence with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polling {
    /// No more folders may be watched.
    Watches,
    /// No more watchers may be opened.
    Instances,
    /// The file system of this name does not tell what changes.
    Silent(&'static str),
    /// The system's watcher does not work.
    Broken(String),
}

impl fmt::Display for Polling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = POLL.as_millis();
        match self {
            Self::Watches => write!(
                f,
                "no more folders can be watched: looking every {every} ms (raise the sysctl fs.inotify.max_user_watches)"
            ),
            Self::Instances => write!(
                f,
                "no more watchers can be opened: looking every {every} ms (raise the sysctl fs.inotify.max_user_instances)"
            ),
            Self::Silent(name) => write!(
                f,
                "the file system ({name}) does not tell what changes: looking every {every} ms"
            ),
            Self::Broken(why) => write!(
                f,
                "changes cannot be watched ({why}): looking every {every} ms"
            ),
        }
    }
}

/// A path that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    told: mpsc::Receiver<Told>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Begin.
    pub fn begin(plan: Plan) -> Self {
        // Who does not listen for a while hears of the last changes all the same: sixteen may lie
        // unread, the watcher waits then, and looks afterwards.
        let (tell, told) = mpsc::channel(16);
        let task = tokio::spawn(run(plan, tell));
        Self {
            told,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next thing to be told. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// What is there to be told already.
    pub fn ready(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }
}

/// A look at the path.
struct Look {
    ears: Ears,
    seen: Result<Known, String>,
}

async fn run(plan: Plan, tell: mpsc::Sender<Told>) {
    let (ears, mut heard) = Ears::open(plan.explain);
    let Some(Look { mut ears, mut seen }) = look(&plan, &Snapshot::default(), ears).await else {
        return;
    };
    if let (Kind::Sources { .. }, Ok(seen)) = (&plan.kind, &mut seen) {
        seen.leave_open(&Known::nothing(&plan));
    }
    let mut watcher = Watcher {
        known: Known::nothing(&plan),
        polls: None,
        kind: plan.kind.clone(),
        trouble: None,
        unsettled: None,
        since: None,
    };
    let cannot = match seen {
        // What is not whole yet is not what changes are counted from. In a folder it may be a file that
        // stays open, and the rest of it is whole.
        Ok(seen) if seen.is_open_file(&watcher.known) => None,
        Ok(seen) => {
            watcher.known = seen;
            None
        }
        Err(why) => Some(Told::Cannot(why)),
    };
    let nearest = watcher.known.route.folders.iter().next_back().cloned();
    if let Some(folder) = nearest {
        ears.try_out(&folder, &mut heard).await;
    }
    let begins = Told::Begins {
        found: match watcher.known.snapshot.is_empty() {
            true => Found::Nothing,
            false => Found::Something,
        },
        folders: ears.count(),
    };
    let mut debounce = Debounce::new(plan.settle, plan.max_wait);
    // What was heard while that was tried out is not known.
    debounce.stir(Instant::now());
    let mut told: Vec<Told> = [begins].into_iter().chain(cannot).collect();
    loop {
        for one in told.drain(..) {
            if tell.send(one).await.is_err() {
                return;
            }
        }
        wait(
            &plan,
            &mut ears,
            &watcher.known,
            &mut heard,
            &mut debounce,
            &tell,
        )
        .await;
        watcher.since = watcher.since.or(debounce.since());
        debounce.looked();
        let Some(Look { ears: same, seen }) = look(&plan, &watcher.known.snapshot, ears).await
        else {
            return;
        };
        ears = same;
        told.extend(watcher.hear_polling(ears.polling()));
        let (news, again) = watcher.judge(seen);
        told.extend(news);
        if let Some(pause) = again {
            debounce.stir(Instant::now() + pause);
        }
        if tell.is_closed() {
            return;
        }
    }
}

/// What has been seen and told so far.
struct Watcher {
    known: Known,
    kind: Kind,
    /// Why it is looked by the clock, as far as that is told.
    polls: Option<Polling>,
    /// What keeps a change from being told; said once.
    trouble: Option<Told>,
    /// Where nobody says that changes go on: what the last look saw.
    unsettled: Option<Snapshot>,
    /// When the first sign came of what is not told yet.
    since: Option<Instant>,
}

impl Watcher {
    fn hear_polling(&mut self, why: Option<&Polling>) -> Option<Told> {
        if self.polls.as_ref() == why {
            return None;
        }
        self.polls = why.cloned();
        self.polls.clone().map(Told::Polls)
    }

    /// What is to be told of a look, and after what pause to look again in any case.
    fn judge(&mut self, seen: Result<Known, String>) -> (Option<Told>, Option<Duration>) {
        let mut now = match seen {
            Ok(now) => now,
            Err(why) => return (self.troubled(Told::Cannot(why)), Some(AGAIN)),
        };
        if matches!(self.kind, Kind::Sources { .. }) {
            now.leave_open(&self.known);
        }
        let changed = now.snapshot.since(&self.known.snapshot);
        if changed.is_empty() {
            self.known = now;
            self.trouble = None;
            self.unsettled = None;
            self.since = None;
            return (None, None);
        }
        // It has come to rest when two looks see the same.
        if self.polls.is_some() && self.unsettled.as_ref() != Some(&now.snapshot) {
            self.unsettled = Some(now.snapshot);
            return (None, Some(Duration::ZERO));
        }
        self.unsettled = None;
        if let Some(open) = now.first_open(&self.known) {
            return (self.troubled(Told::Waits(open)), Some(AGAIN));
        }
        self.trouble = None;
        let since = self.since.take().unwrap_or_else(Instant::now);
        let told = match now.snapshot.is_empty() {
            true => Told::Gone,
            false => Told::Changed {
                paths: changed.into_iter().map(Path::to_path_buf).collect(),
                since,
            },
        };
        self.known = now;
        (Some(told), None)
    }

    /// It is tried again and again, and said once.
    fn troubled(&mut self, trouble: Told) -> Option<Told> {
        let before = self.trouble.replace(trouble.clone());
        (before.as_ref() != Some(&trouble)).then_some(trouble)
    }
}

/// Look, away from the threads that serve, and watch every folder that is kept.
async fn look(plan: &Plan, before: &Snapshot, mut ears: Ears) -> Option<Look> {
    let (plan, before) = (plan.clone(), before.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let seen = Known::look(&plan, &before, &mut ears).map_err(|refused| refused.text);
        Look { ears, seen }
    });
    // Only where the runtime ends.
    looked.await.ok()
}

/// Wait until it is time to look.
async fn wait(
    plan: &Plan,
    ears: &mut Ears,
    known: &Known,
    heard: &mut mpsc::Receiver<Heard>,
    debounce: &mut Debounce,
    tell: &mpsc::Sender<Told>,
) {
    let poll = tokio::time::Instant::now() + POLL;
    loop {
        let polls = ears.polling().is_some();
        let due = debounce.due();
        tokio::select! {
            Some(mut heard) = heard.recv() => {
                heard.lost |= ears.missed();
                if heard.lost {
                    ears.distrust_all();
                }
                let why = known.judge(&heard);
                if plan.explain == Explain::Events {
                    let paths: Vec<String> =
                        heard.paths.iter().map(|path| path.display().to_string()).collect();
                    let text = format!("{}: {}: {}", paths.join(", "), heard.what, why.text());
                    // Nobody reads any more: the next change finds out.
                    let _ = tell.send(Told::Explained(text)).await;
                }
                if why == Verdict::Counts {
                    if heard.moved {
                        heard.paths.iter().for_each(|path| ears.distrust(path));
                    }
                    debounce.stir(Instant::now());
                }
            }
            () = at(due) => return,
            () = tokio::time::sleep_until(poll), if polls && due.is_none() => return,
            () = tell.closed() => return,
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
