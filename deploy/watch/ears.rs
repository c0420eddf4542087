//! What the system tells of changes: one watch a folder, none below it. An event only wakes; what has
//! changed is decided by a look. Where the system tells nothing, or has no room for more watches, the
//! look comes by the clock.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, MetadataKind, ModifyKind};
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Explain, Polling};

/// How many events may lie unread. Of what comes beyond that is only known that there was something.
const UNREAD: usize = 1024;
/// How long a change that was made to hear it may take to be heard.
const ECHO: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) paths: Vec<PathBuf>,
    /// In a word or two.
    pub(super) what: String,
    /// Whether content can be another after it.
    pub(super) counts: bool,
    /// Whether what bears these names now may be another than before.
    pub(super) moved: bool,
    /// Something may not have been heard, or is not watched any more: every folder is to be watched
    /// anew.
    pub(super) lost: bool,
}

/// The watches there are.
pub(super) struct Ears {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Why the clock is needed, if it is.
    polling: Option<Polling>,
    /// Whether an event found no room to lie unread.
    missed: Arc<AtomicBool>,
}

impl Ears {
    /// None yet.
    pub(super) fn open(explain: Explain) -> (Self, mpsc::Receiver<Heard>) {
        let (tell, heard) = mpsc::channel(UNREAD);
        let missed = Arc::new(AtomicBool::new(false));
        let full = missed.clone();
        let watcher = notify::recommended_watcher(move |event| {
            let heard = Heard::of(event);
            // Who reads, reads much.
            if !heard.counts && explain == Explain::Nothing {
                return;
            }
            if tell.try_send(heard).is_err() {
                full.store(true, Ordering::SeqCst);
                // All that is unread may be read by now: then this is what wakes. Else something is still
                // to be read after it was said.
                let _ = tell.try_send(Heard::lost("more than could be heard"));
            }
        });
        let ears = match watcher {
            Ok(watcher) => Self {
                watcher: Some(watcher),
                watched: BTreeSet::new(),
                polling: None,
                missed,
            },
            Err(cause) => Self {
                watcher: None,
                watched: BTreeSet::new(),
                polling: Some(Polling::of(&cause)),
                missed,
            },
        };
        (ears, heard)
    }

    /// Watch a folder, if it is not watched.
    pub(super) fn watch(&mut self, folder: &Path) {
        if self.watched.contains(folder) {
            return;
        }
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_path_buf());
            }
            Err(cause) if is_gone(&cause) => {}
            Err(cause) => self.polling = Some(Polling::of(&cause)),
        }
    }

    /// Watch no other folders than these.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<PathBuf>) {
        let gone: Vec<PathBuf> = self.watched.difference(wanted).cloned().collect();
        for folder in gone {
            self.forget(&folder);
        }
    }

    /// This is not what it was, with all that is below it: its watches may be of something else.
    pub(super) fn distrust(&mut self, path: &Path) {
        // Sorted by their parts: what is below a path follows it.
        let from = self.watched.range(path.to_path_buf()..);
        let below: Vec<PathBuf> = from
            .take_while(|it| it.starts_with(path))
            .cloned()
            .collect();
        for folder in below {
            self.forget(&folder);
        }
    }

    /// Begin anew.
    pub(super) fn distrust_all(&mut self) {
        self.distrust(Path::new("/"));
    }

    fn forget(&mut self, folder: &Path) {
        self.watched.remove(folder);
        if let Some(watcher) = &mut self.watcher {
            // It went with its folder, as a rule.
            let _ = watcher.unwatch(folder);
        }
    }

    /// Whether something was not heard since this was asked last. To be asked whenever something was.
    pub(super) fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::SeqCst)
    }

    /// How many folders are watched.
    pub(super) fn count(&self) -> usize {
        self.watched.len()
    }

    /// Why it is to be looked by the clock, if it is.
    pub(super) fn polling(&self) -> Option<&Polling> {
        self.polling.as_ref()
    }

    /// Where a file system is known for telling nothing, see whether it does: by a file of a moment,
    /// in a folder that is watched.
    pub(super) async fn try_out(&mut self, folder: &Path, heard: &mut mpsc::Receiver<Heard>) {
        let Some(name) = silent(folder) else { return };
        if self.polling.is_some() {
            return;
        }
        let probe = folder.join(format!(".hotctl-{}.tmp", std::process::id()));
        let is_made = File::create(&probe).is_ok();
        let _ = fs::remove_file(&probe);
        let echo = async {
            while let Some(heard) = heard.recv().await {
                if heard.paths.contains(&probe) {
                    return;
                }
            }
        };
        if !is_made || tokio::time::timeout(ECHO, echo).await.is_err() {
            self.polling = Some(Polling::Silent(name));
        }
    }
}

impl Heard {
    fn of(event: notify::Result<notify::Event>) -> Self {
        match event {
            Ok(event) => Self {
                counts: event.need_rescan() || counts(event.kind),
                lost: event.need_rescan(),
                moved: matches!(
                    event.kind,
                    EventKind::Create(_)
                        | EventKind::Remove(_)
                        | EventKind::Modify(ModifyKind::Name(_))
                ),
                what: words(event.kind),
                paths: event.paths,
            },
            Err(cause) => Self {
                paths: cause.paths,
                ..Self::lost("an error of the watcher")
            },
        }
    }

    /// Something was not heard, for this reason.
    fn lost(why: &str) -> Self {
        Self {
            paths: Vec::new(),
            what: why.to_owned(),
            counts: true,
            moved: true,
            lost: true,
        }
    }
}

/// Whether content can be another after it. Who only reads changes nothing.
fn counts(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn words(kind: EventKind) -> String {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => "written and closed",
        EventKind::Access(_) => "read",
        EventKind::Create(_) => "created",
        EventKind::Modify(ModifyKind::Metadata(_)) => "its mode or times changed",
        EventKind::Modify(ModifyKind::Name(_)) => "renamed",
        EventKind::Modify(_) => "written",
        EventKind::Remove(_) => "removed",
        EventKind::Any | EventKind::Other => "changed",
    }
    .to_owned()
}

fn is_gone(cause: &notify::Error) -> bool {
    match &cause.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(cause) => matches!(
            cause.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
        _ => false,
    }
}

/// The name of a file system that is known for telling nothing of what others change on it.
fn silent(folder: &Path) -> Option<&'static str> {
    const KNOWN: [(u32, &str); 7] = [
        (0x6969, "NFS"),
        (0x0102_1997, "9p"),
        (0x6573_5546, "FUSE"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB"),
        (0x794C_7630, "overlay"),
        (0x5346_414F, "AFS"),
    ];
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    let known = KNOWN.iter();
    let mut known = known.filter(|(number, _)| i64::from(*number) == kind);
    known.next().map(|(_, name)| *name)
}

impl Polling {
    fn of(cause: &notify::Error) -> Self {
        match &cause.kind {
            ErrorKind::MaxFilesWatch => Self::Watches,
            ErrorKind::Io(cause) if cause.raw_os_error() == Some(libc::ENOSPC) => Self::Watches,
            ErrorKind::Io(cause) if cause.raw_os_error() == Some(libc::EMFILE) => Self::Instances,
            _ => Self::Broken(cause.to_string()),
        }
    }
}
