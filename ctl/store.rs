//! The state folder: one daemon at a time, one record a service, each written whole or not at all,
//! with the one before it kept. Knows files; what the records mean is the ledger's.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hotctl_config::names::ServiceName;
use hotctl_deploy::ledger::Ledger;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::fault::Fault;
use crate::history::now_ms;
use crate::places;
use crate::sealed::{self, Outlives, Unreadable};

/// The version of the record's shape. Schema 1 had no checksum. A later one is refused rather than
/// guessed at; so whoever adds something that must not be lost on the way through an older hotctl
/// raises it.
const SCHEMA: u32 = 2;
/// The record's file in the service's folder.
const RECORD: &str = "record.json";

/// A record as it stands in its file.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    ledger: Ledger,
}

/// What was found of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What is true of it.
    pub ledger: Ledger,
    /// How that is known.
    pub source: Source,
}

/// From where a ledger was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// There is no record yet.
    Nothing,
    /// The record.
    Record,
    /// The last good copy, since the record cannot be used for this reason.
    LastGood(String),
}

/// An open state folder; the lock is held as long as it lives.
#[derive(Debug)]
pub struct StateFolder {
    root: PathBuf,
    outlives: Outlives,
    /// None once another hotctl goes on with it.
    lock: Mutex<Option<File>>,
}

impl StateFolder {
    /// Open or make the folder, 0700, and lock it against a second daemon.
    ///
    /// # Errors
    /// If it cannot be made private, or another daemon holds it.
    pub fn open(root: &Path) -> Result<Self, Fault> {
        places::private_folder(root, "state")?;
        let path = root.join("lock");
        let fault = |cause: io::Error| Fault::config(format!("state {}: {cause}", root.display()));
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            // Nothing is written to it. On a disk that is read-only what is there serves all the same.
            .or_else(|cause| match cause.kind() {
                io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
                _ => Err(cause),
            })
            .map_err(|cause| {
                fault(cause).hint("mend its permissions, or free the disk; then start hotctl again")
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Fault::config(format!(
                    "state {}: another hotctl uses this folder",
                    root.display()
                ))
                .hint("stop it first, or choose another folder with --state"));
            }
            Err(fs::TryLockError::Error(cause)) => return Err(fault(cause)),
        }
        Ok(Self {
            root: root.to_owned(),
            outlives: Outlives::PowerCut,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// The same, with the lock that the hotctl has passed on that is being replaced. It is one lock
    /// for both, so nobody comes in between.
    ///
    /// # Errors
    /// If it is the lock of another folder.
    pub fn with_lock(root: &Path, lock: OwnedFd) -> Result<Self, Fault> {
        places::private_folder(root, "state")?;
        let lock = File::from(lock);
        if !places::is_same_file(&lock, &root.join("lock")) {
            return Err(Fault::config(format!(
                "state {}: is not the folder of the hotctl that is being replaced",
                root.display()
            ))
            .hint("stop hotctl and start it again, to have it use another folder"));
        }
        Ok(Self {
            root: root.to_owned(),
            outlives: Outlives::PowerCut,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// What its records must outlive; a power cut, unless something else is said.
    pub fn which_outlives(self, outlives: Outlives) -> Self {
        Self { outlives, ..self }
    }

    /// What that is, for what is kept beside the records.
    pub fn outlives(&self) -> Outlives {
        self.outlives
    }

    /// The lock, for the hotctl that takes our place.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = lock.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(lock.try_clone()?.into())
    }

    /// What tells it from every other folder of the machine.
    pub fn mark(&self) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(&self.root);
        meta.map_or_else(
            |_| "0".to_owned(),
            |it| format!("{:x}-{:x}", it.dev(), it.ino()),
        )
    }

    /// Let go of the lock: another hotctl has it, and goes on with the folder. Should that one die while
    /// we finish what is in flight, a third can take its place.
    pub fn let_go(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one service: its record, releases, logs and data.
    pub fn service(&self, name: &ServiceName) -> PathBuf {
        self.root.join("services").join(name.as_str())
    }

    /// Read the record of a service; its last good copy if that cannot be used; a new one if there is
    /// neither. Writes nothing.
    ///
    /// # Errors
    /// If there is something, and it cannot be read: it is never taken for empty.
    pub fn load(&self, name: &ServiceName) -> Result<Found, Fault> {
        let folder = self.service(name);
        let (record, last) = (folder.join(RECORD), sealed::last_of(&folder, RECORD));
        let reason = match read(&record, name) {
            Ok(Some(ledger)) => {
                return Ok(Found {
                    ledger,
                    source: Source::Record,
                });
            }
            Ok(None) => "is not there".to_owned(),
            // Its last good copy would be from before somebody went on with a later hotctl.
            Err(later @ Unreadable::Later { .. }) => {
                let text = format!("state {}: {later}", record.display());
                return Err(
                    Fault::config(text).hint("start the hotctl that wrote it, or a later one")
                );
            }
            Err(Unreadable::Damaged(reason)) => reason,
        };
        let is_new = !record.exists();
        match read(&last, name) {
            Ok(Some(ledger)) => Ok(Found {
                ledger,
                source: Source::LastGood(reason),
            }),
            Ok(None) if is_new => Ok(Found {
                ledger: Ledger::new(name.clone()),
                source: Source::Nothing,
            }),
            copy => {
                let copy = match copy {
                    Ok(_) => "is not there".to_owned(),
                    Err(unreadable) => unreadable.to_string(),
                };
                let text = format!(
                    "state {}: {reason}, and the last good copy beside it {copy}",
                    record.display()
                );
                Err(Fault::config(text).hint(format!(
                    "restore {RECORD} from a copy, then `hotctl reload`; without one, move it and {RECORD}.last away, `hotctl reload` (what still runs of {name} is ended then), and deploy {name} again"
                )))
            }
        }
    }

    /// The same, to go on with: what cannot be read is put aside for whoever wants to look at it, the
    /// last good copy takes its place, and that is told; as text, too, where it was so.
    ///
    /// # Errors
    /// As [`StateFolder::load`]; nothing has been touched then.
    pub fn take_up(&self, name: &ServiceName) -> Result<(Ledger, Option<String>), Fault> {
        let Found { ledger, source } = self.load(name)?;
        let folder = self.service(name);
        // What a writer that was killed has left; that there is no folder yet is no news.
        let _ = sealed::sweep(&folder);
        let reason = match source {
            Source::Record => return Ok((ledger, None)),
            Source::Nothing => {
                if has_entries(&folder.join("releases")) {
                    warn!(service = %name, folder = %folder.display(),
                        "there are releases and no record of them: nothing is live, and what still runs of it is ended");
                }
                return Ok((ledger, None));
            }
            Source::LastGood(reason) => reason,
        };
        let mut told = format!(
            "{RECORD} {reason}: going on with the last good copy of it, from {}",
            match &ledger.live {
                Some(live) => format!("when {} was live", live.release_of(name)),
                None => "when nothing was live".to_owned(),
            }
        );
        let aside = format!("record.damaged-{}.json", now_ms());
        let put = match fs::rename(folder.join(RECORD), folder.join(&aside)) {
            Ok(()) => {
                told.push_str(&format!("; what cannot be read is kept as {aside}"));
                Ok(())
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        };
        error!(service = %name, folder = %folder.display(), "{told}");
        if let Err(cause) = put.and_then(|()| self.save(&ledger)) {
            // The next change is written there all the same, or is told to have failed.
            warn!(service = %name, folder = %folder.display(), %cause, "{RECORD} cannot be put right yet");
        }
        Ok((ledger, Some(told)))
    }

    /// Write the record of a service; see [`sealed::write`].
    ///
    /// # Errors
    /// If any of it fails; the record before is whole then.
    pub fn save(&self, ledger: &Ledger) -> io::Result<()> {
        let record = Record {
            schema: SCHEMA,
            ledger: ledger.clone(),
        };
        let folder = self.service(&ledger.service);
        sealed::write(&folder, RECORD, &record, self.outlives)
    }
}

/// Do what waits for the disk, within a task: the thread serves others meanwhile. Not within the
/// runtime of a command, which has one thread.
pub fn on_disk<R>(work: impl FnOnce() -> R) -> R {
    tokio::task::block_in_place(work)
}

/// The ledger in a file, if there is one.
fn read(path: &Path, name: &ServiceName) -> Result<Option<Ledger>, Unreadable> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Unreadable::Damaged(format!("cannot be read: {cause}"))),
    };
    let record: Record = sealed::understand(&text, SCHEMA)?;
    if record.ledger.service != *name {
        let text = format!("is the record of {}", record.ledger.service);
        return Err(Unreadable::Damaged(text));
    }
    Ok(Some(record.ledger))
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
