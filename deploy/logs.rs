//! The log files of a service's processes: their last lines, and no more of them than may be kept.
//! Knows no process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::rotate::{self, Part};

/// How much of a log is looked at for its last lines.
const TAIL: u64 = 256 * 1024;
/// The longest line that is quoted, in characters.
const QUOTED: usize = 1000;

/// The last lines of a log, oldest first, as text whatever the bytes; a line of more than 1000
/// characters is cut. Looks into the file before it when a new one was just begun. Empty if there
/// is no log.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let mut found = last_lines(log, lines);
    if found.len() < lines {
        let mut before = last_lines(&rotate::aside(log, 1), lines - found.len());
        before.append(&mut found);
        found = before;
    }
    found
}

/// The file that was this log until it was full.
pub fn before(log: &Path) -> PathBuf {
    rotate::aside(log, 1)
}

/// Remove a log, and what was put aside of it a moment ago; what cannot be removed stays.
pub fn remove(log: &Path) {
    for path in [log.to_path_buf(), rotate::aside(log, 1)] {
        let _ = fs::remove_file(path);
    }
}

/// Remove the oldest logs of a folder until all that is there has at most `total_size` bytes; returns
/// the files that were removed. What was put aside and compressed goes file by file, a log that is
/// written with what was put aside of it a moment ago as one. Only logs are looked at. Those of
/// `in_use` are counted, and of them only what is compressed is removed.
///
/// # Errors
/// If the folder cannot be read, or a file not be removed. A folder that is not there has no logs.
pub fn trim(folder: &Path, total_size: u64, in_use: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let logs = match logs(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        logs => logs?,
    };
    let mut total: u64 = logs.values().map(|log| log.size).sum();
    let mut idle: Vec<(PathBuf, Log)> = logs
        .into_iter()
        .filter(|(path, _)| !in_use.contains(path))
        .collect();
    idle.sort_by_key(|(_, log)| log.written);
    let mut removed = Vec::new();
    for (_, log) in idle {
        if total <= total_size {
            break;
        }
        total = total.saturating_sub(log.size);
        for file in log.files {
            match fs::remove_file(&file) {
                Ok(()) => removed.push(file),
                // Removed by somebody else: as well.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause),
            }
        }
    }
    Ok(removed)
}

/// What is written under one name.
struct Log {
    files: Vec<PathBuf>,
    /// Bytes of all files.
    size: u64,
    /// When it was last written to.
    written: SystemTime,
}

fn logs(folder: &Path) -> io::Result<BTreeMap<PathBuf, Log>> {
    let mut logs = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = match rotate::log_of(&path) {
            Some((log, Part::Plain)) => log,
            Some((_, Part::Packed)) => path.clone(),
            None => continue,
        };
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => meta,
            // Something else, or a file that was renamed just now.
            _ => continue,
        };
        let log = logs.entry(name).or_insert(Log {
            files: Vec::new(),
            size: 0,
            written: SystemTime::UNIX_EPOCH,
        });
        log.size += meta.len();
        log.written = log.written.max(meta.modified()?);
        log.files.push(path);
    }
    Ok(logs)
}

/// Every file of a log, that which is written and those put aside; none if there is no such log.
pub fn files(log: &Path) -> Vec<PathBuf> {
    let beside = log.parent().and_then(|folder| fs::read_dir(folder).ok());
    let all = beside.into_iter().flatten().flatten().map(|it| it.path());
    all.filter(|file| rotate::log_of(file).is_some_and(|(of, _)| of == log))
        .collect()
}

fn last_lines(log: &Path, lines: usize) -> Vec<String> {
    let read = || -> io::Result<(Vec<u8>, bool)> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        let from = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok((bytes, from == 0))
    };
    let Ok((bytes, whole)) = read() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut all: Vec<&str> = text.lines().collect();
    if !whole && all.len() > 1 {
        // Its beginning was not read.
        all.remove(0);
    }
    let skip = all.len().saturating_sub(lines);
    all.into_iter().skip(skip).map(cut).collect()
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_lines_come_from_the_file_before_when_a_new_one_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert!(tail(&log, 5).is_empty());
        fs::write(folder.path().join("log.1"), "a\nb\nc\n").unwrap();
        fs::write(&log, format!("d \u{fffd}\n{}\n", "x".repeat(2000))).unwrap();
        let last = tail(&log, 4);
        assert_eq!(last[..3], ["b", "c", "d \u{fffd}"]);
        assert_eq!(last[3].chars().count(), 1001);
        assert_eq!(tail(&log, 1).len(), 1);
        assert!(tail(&log, 0).is_empty());
    }

    #[test]
    fn the_oldest_logs_go_first_and_those_in_use_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, size: usize, age: u64| {
            let file = File::create(path(name)).unwrap();
            file.set_len(size as u64).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).unwrap();
        };
        write("1.1.log", 100, 500);
        write("2.2.log", 100, 300);
        // Put aside long ago, and still being written.
        write("2.2.log.1", 100, 900);
        // Of one that is in use, and older than all.
        write("1.1.log.2.gz", 50, 9000);
        write("3.3.log", 100, 200);
        write("4.4.log", 100, 100);
        write("notes.txt", 1000, 9000);
        assert!(trim(folder.path(), 550, &[]).unwrap().is_empty());
        let used = [path("1.1.log")];
        let packed = [path("1.1.log.2.gz")];
        assert_eq!(trim(folder.path(), 500, &used).unwrap(), packed);
        let mut removed = trim(folder.path(), 350, &used).unwrap();
        removed.sort();
        assert_eq!(removed, [path("2.2.log"), path("2.2.log.1")]);
        assert_eq!(trim(folder.path(), 250, &[]).unwrap(), [path("1.1.log")]);
        let all = [path("3.3.log"), path("4.4.log")];
        assert!(trim(folder.path(), 0, &all).unwrap().is_empty());
        assert_eq!(trim(folder.path(), 0, &[]).unwrap(), all);
        assert!(path("notes.txt").exists());
        assert!(trim(&path("none"), 0, &[]).unwrap().is_empty());
    }
}
