//! The state folder: one daemon at a time, one record a service, each written whole or not at all.
//! Knows files; what the records mean is the ledger's.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hotctl_config::names::ServiceName;
use hotctl_deploy::ledger::Ledger;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::places;

/// The version of the record's shape; a later one is refused rather than guessed at.
const SCHEMA: u32 = 1;
/// The record's file in the service's folder.
const RECORD: &str = "record.json";

/// A record as it stands in its file.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    ledger: Ledger,
}

/// An open state folder; the lock is held as long as it lives.
#[derive(Debug)]
pub struct StateFolder {
    root: PathBuf,
    _lock: File,
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
            .map_err(fault)?;
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
            _lock: lock,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one service: its record, releases, logs and data.
    pub fn service(&self, name: &ServiceName) -> PathBuf {
        self.root.join("services").join(name.as_str())
    }

    /// Read the record of a service; a new one if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read: it is never silently taken for empty.
    pub fn load(&self, name: &ServiceName) -> Result<Ledger, Fault> {
        let path = self.record(name);
        let damaged = |reason: String| {
            Fault::config(format!("state {}: {reason}", path.display())).hint(format!(
                "restore the file from a copy, or move it away and deploy {name} again"
            ))
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok(Ledger::new(name.clone()));
            }
            Err(cause) => return Err(damaged(cause.to_string())),
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|cause| damaged(format!("damaged: {cause}")))?;
        if record.schema != SCHEMA {
            return Err(damaged(format!(
                "written by another version of hotctl (schema {}, this one reads {SCHEMA})",
                record.schema
            )));
        }
        if record.ledger.service != *name {
            return Err(damaged(format!(
                "is the record of {}",
                record.ledger.service
            )));
        }
        Ok(record.ledger)
    }

    /// Write the record of a service: beside it, to the disk, then over it by rename.
    ///
    /// # Errors
    /// If any of it fails; the record before is whole then.
    pub fn save(&self, ledger: &Ledger) -> io::Result<()> {
        let record = Record {
            schema: SCHEMA,
            ledger: ledger.clone(),
        };
        let folder = self.service(&ledger.service);
        write_whole(&folder, RECORD, &record)
    }

    fn record(&self, name: &ServiceName) -> PathBuf {
        self.service(name).join(RECORD)
    }
}

/// Write a file of a folder as JSON: beside it, to the disk, then over it by rename.
///
/// # Errors
/// If any of it fails; what was there before is whole then.
pub fn write_whole(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".record-")
        .tempfile_in(folder)?;
    // Whole first: the writer of JSON would make a system call for each word.
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_second_daemon_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(temp.path()).unwrap();
        let name: ServiceName = "web".parse().unwrap();
        let mut ledger = folder.load(&name).unwrap();
        ledger.last.release = 7;
        folder.save(&ledger).unwrap();
        assert_eq!(folder.load(&name).unwrap(), ledger);
        let refused = StateFolder::open(temp.path()).unwrap_err();
        assert!(refused.text.contains("another hotctl"), "{refused}");
        drop(folder);
        StateFolder::open(temp.path()).unwrap();
    }

    #[test]
    fn a_damaged_record_is_reported_and_never_taken_for_empty() {
        let temp = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(temp.path()).unwrap();
        let name: ServiceName = "web".parse().unwrap();
        folder.save(&Ledger::new(name.clone())).unwrap();
        let path = folder.record(&name);
        for text in ["", "{}", "{\"schema\":99,\"ledger\":null}", "garbage"] {
            fs::write(&path, text).unwrap();
            assert!(folder.load(&name).is_err(), "{text:?}");
        }
    }
}
