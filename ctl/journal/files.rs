//! The journal's two files: the one that grows, and the one before it. Knows how lines are appended,
//! put aside and found again.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounter;
use tracing::warn;

use super::{Header, Line};
use crate::history::now_ms;

/// A file that would grow beyond this is put aside; one such is kept.
const SIZE: u64 = 4 * 1024 * 1024;

/// Where lines are appended, and read again.
#[derive(Debug)]
pub struct Files {
    newer: PathBuf,
    older: PathBuf,
    size: u64,
    /// Counts the writes that failed.
    errors: IntCounter,
    open: Mutex<Open>,
}

#[derive(Debug)]
enum Open {
    Not,
    At {
        file: File,
        size: u64,
    },
    /// The last write failed; that was told.
    Failing,
}

impl Files {
    /// `events.ndjson` in that folder, and `events.ndjson.1` beside it.
    pub fn of(folder: &Path, errors: IntCounter) -> Self {
        Self::of_size(folder, SIZE, errors)
    }

    /// The same, put aside at another size.
    pub fn of_size(folder: &Path, size: u64, errors: IntCounter) -> Self {
        Self {
            newer: folder.join("events.ndjson"),
            older: folder.join("events.ndjson.1"),
            size,
            errors,
            open: Mutex::new(Open::Not),
        }
    }

    /// Append whole lines. What cannot be written is lost, and told once.
    pub fn append(&self, text: &[u8]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *open, Open::Not);
        let told = matches!(before, Open::Failing);
        *open = match self.append_to(before, text) {
            Ok(now) => now,
            Err(cause) => {
                self.errors.inc();
                if !told {
                    warn!(path = %self.newer.display(), %cause, "events are not kept: cannot write them");
                }
                Open::Failing
            }
        };
    }

    fn append_to(&self, before: Open, text: &[u8]) -> io::Result<Open> {
        let adds = text.len() as u64;
        let (mut file, size) = match before {
            Open::At { file, size } => (file, size),
            Open::Not | Open::Failing => self.open()?,
        };
        let (mut file, size) = if size > 0 && size + adds > self.size {
            drop(file);
            fs::rename(&self.newer, &self.older)?;
            self.open()?
        } else {
            file.seek(SeekFrom::End(0))?;
            (file, size)
        };
        file.write_all(text)?;
        Ok(Open::At {
            file,
            size: size + adds,
        })
    }

    /// The newer file, at a place where a line may begin.
    fn open(&self) -> io::Result<(File, u64)> {
        let mut file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&self.newer)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            // A write that broke off in the middle of a line.
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok((file, size))
    }

    /// The first lines after one number and before another, at most so many.
    pub fn between(&self, after: u64, before: u64, most: usize) -> Vec<Line> {
        let mut found = Vec::new();
        let read = self.each_line(|line| {
            if line.number > after && line.number < before && found.len() < most {
                found.push(line);
            }
        });
        if let Err(cause) = read {
            warn!(path = %self.newer.display(), %cause, "old events cannot be read");
        }
        found
    }

    /// Put what is there under another name; where.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = self
            .newer
            .with_file_name(format!("events.damaged-{}.ndjson", now_ms()));
        for (from, to) in [
            (&self.newer, aside.clone()),
            (&self.older, aside.with_extension("ndjson.1")),
        ] {
            match fs::rename(from, to) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        Ok(aside)
    }

    /// Each line that is kept, oldest first. What is no line of ours is passed over; how many.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn each_line(&self, mut each: impl FnMut(Line)) -> io::Result<usize> {
        // Both are opened at once, lest the newer one is put aside between them.
        let both = {
            let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            [if_there(&self.older)?, if_there(&self.newer)?]
        };
        let mut passed_over = 0;
        for file in both.into_iter().flatten() {
            let mut reader = BufReader::new(file);
            let mut text = Vec::new();
            while reader.read_until(b'\n', &mut text)? > 0 {
                if text.ends_with(b"\n")
                    && let Ok(header) = serde_json::from_slice::<Header>(&text)
                {
                    each(Line {
                        number: header.number,
                        service: header.service,
                        text: std::mem::take(&mut text).into(),
                    });
                } else if text != b"\n" {
                    passed_over += 1;
                }
                text.clear();
            }
        }
        Ok(passed_over)
    }
}

fn if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}
