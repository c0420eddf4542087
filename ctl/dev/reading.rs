//! Reading a log that is put aside when it is full, as it grows: what stands in the full one is read to its
//! end before the next. Knows files, and no build.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hotctl_deploy::logs;

/// So much is read at a time, in bytes.
const CHUNK: u64 = 64 * 1024;

/// A place in a log.
#[derive(Debug)]
pub struct Reading {
    file: File,
}

/// What followed there.
#[derive(Debug)]
pub struct Read {
    pub reading: Reading,
    /// None at the end of what there is.
    pub bytes: Vec<u8>,
    /// Files may have come and gone between the last look and this.
    pub missed: bool,
}

impl Read {
    fn of(reading: Reading, bytes: Vec<u8>) -> Self {
        Self {
            reading,
            bytes,
            missed: false,
        }
    }
}

impl Reading {
    /// What follows, from the beginning where nothing was read yet.
    ///
    /// # Errors
    /// If there is no log, or it cannot be read.
    pub fn go_on(before: Option<Self>, log: &Path) -> io::Result<Read> {
        let Some(mut reading) = before else {
            return Self::open(log);
        };
        let bytes = reading.chunk()?;
        if !bytes.is_empty() {
            return Ok(Read::of(reading, bytes));
        }
        let own = id(&reading.file.metadata()?);
        // Not there: it is put aside in this moment.
        let now = fs::metadata(log).ok();
        if now.is_none_or(|now| id(&now) == own) {
            return Ok(Read::of(reading, bytes));
        }
        // What was written to it after it was read, and before it was put aside.
        let bytes = reading.chunk()?;
        if !bytes.is_empty() {
            return Ok(Read::of(reading, bytes));
        }
        let aside = fs::metadata(logs::before(log)).ok();
        if aside.is_none_or(|aside| id(&aside) == own) {
            return Self::open(log);
        }
        // The one between is read as well, as far as it is still there.
        let read = Self::open(&logs::before(log)).or_else(|_| Self::open(log))?;
        Ok(Read {
            missed: true,
            ..read
        })
    }

    fn open(path: &Path) -> io::Result<Read> {
        let mut reading = Self {
            file: File::open(path)?,
        };
        let bytes = reading.chunk()?;
        Ok(Read::of(reading, bytes))
    }

    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.file).take(CHUNK).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::Write as _;

    /// All that is there, and how often something was missed.
    fn all(reading: &mut Option<Reading>, log: &Path) -> (String, usize) {
        let (mut text, mut missed) = (String::new(), 0);
        while let Ok(read) = Reading::go_on(reading.take(), log) {
            *reading = Some(read.reading);
            missed += usize::from(read.missed);
            if read.bytes.is_empty() {
                break;
            }
            text.push_str(std::str::from_utf8(&read.bytes).unwrap());
        }
        (text, missed)
    }

    fn add(log: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_log_that_is_put_aside_is_read_to_its_end_and_what_is_missed_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("build.log");
        let aside = || fs::rename(&log, logs::before(&log)).unwrap();
        let mut reading = None;
        assert_eq!(all(&mut reading, &log), (String::new(), 0));
        add(&log, "one\n");
        assert_eq!(all(&mut reading, &log), ("one\n".to_owned(), 0));
        add(&log, "two\n");
        aside();
        assert_eq!(all(&mut reading, &log), ("two\n".to_owned(), 0));
        add(&log, "three\n");
        assert_eq!(all(&mut reading, &log), ("three\n".to_owned(), 0));
        let long = "x".repeat(100_000) + "\n";
        add(&log, &long);
        assert_eq!(all(&mut reading, &log), (long, 0));
        // One comes and goes unseen, and the next is still there.
        aside();
        add(&log, "four\n");
        aside();
        add(&log, "five\n");
        assert_eq!(all(&mut reading, &log), ("four\nfive\n".to_owned(), 1));
    }
}
