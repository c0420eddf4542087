//! The journal: every event of every service gets a number, a time and a line, and readers take up
//! where they left off. Noting costs a lock and a copy; files are written by a task, and one that
//! cannot be written holds up nothing. Knows lines and numbers; what they mean is for others.

mod files;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hotctl_config::names::ServiceName;
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use crate::api::Noted;
use crate::history::now_ms;
use files::Files;

/// Lines kept in memory. More than may be on their way to the file, so that what is not here is
/// there.
const KEPT: usize = 1024;
/// Lines on their way to the file. When it is full, the file misses some, and readers are told.
const UNWRITTEN: usize = 512;
/// Lines written, or read, at a time.
const BATCH: usize = 256;

/// The journal of a daemon; a cheap handle.
#[derive(Debug, Clone)]
pub struct Journal {
    kept: Arc<Mutex<Kept>>,
    /// The number of the newest line; 0 = none yet.
    newest: watch::Sender<u64>,
    file: mpsc::Sender<Job>,
    files: Arc<Files>,
}

/// The newest lines.
#[derive(Debug)]
struct Kept {
    last: u64,
    lines: VecDeque<Line>,
}

/// One event.
#[derive(Debug, Clone)]
struct Line {
    number: u64,
    service: Option<ServiceName>,
    /// With its end of line.
    text: Bytes,
}

#[derive(Debug)]
enum Job {
    Write(Bytes),
    /// Answer when all before it is written.
    Flush(oneshot::Sender<()>),
}

/// A line as it is written.
#[derive(Serialize)]
struct Entry<'a> {
    number: u64,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a ServiceName>,
    #[serde(flatten)]
    what: &'a Noted,
}

/// What is read of a line again.
#[derive(Deserialize)]
struct Header {
    number: u64,
    #[serde(default)]
    service: Option<ServiceName>,
}

/// What takes the place of lines that are not kept any more.
#[derive(Serialize)]
#[serde(tag = "event", rename = "gap")]
struct Gap {
    missed: u64,
    after: u64,
}

impl Journal {
    /// Open the journal of a state folder, and go on with its numbers. Must be called within the
    /// runtime: a task of it writes the file until the last handle is gone.
    ///
    /// Writes that fail are counted in `errors`.
    ///
    /// # Errors
    /// If what is there can neither be read nor put aside.
    pub fn open(state: &Path, errors: IntCounter) -> io::Result<Self> {
        let files = Arc::new(Files::of(state, errors));
        let mut lines: VecDeque<Line> = VecDeque::new();
        let mut last = 0;
        let read = files.each_line(|line| {
            last = last.max(line.number);
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(line);
        });
        match read {
            Ok(0) => {}
            Ok(passed_over) => warn!(state = %state.display(), lines = passed_over,
                "some events of the past cannot be read: readers are told that they are missing"),
            Err(cause) => {
                let aside = files.put_aside()?;
                error!(%cause, aside = %aside.display(),
                    "the events of the past cannot be read: they are put aside, and new ones begin");
            }
        }
        let (file, jobs) = mpsc::channel(UNWRITTEN);
        tokio::spawn(write(files.clone(), jobs));
        Ok(Self {
            kept: Arc::new(Mutex::new(Kept { last, lines })),
            newest: watch::Sender::new(last),
            file,
            files,
        })
    }

    /// Take note of something. Never waits.
    pub fn note(&self, service: Option<&ServiceName>, what: Noted) {
        let mut kept = self.kept();
        let number = kept.last + 1;
        let entry = Entry {
            number,
            at_ms: now_ms(),
            service,
            what: &what,
        };
        let mut text = match serde_json::to_vec(&entry) {
            Ok(text) => text,
            // Only a shape that JSON has no words for.
            Err(cause) => return error!(%cause, "an event cannot be written down"),
        };
        text.push(b'\n');
        let text = Bytes::from(text);
        kept.last = number;
        if kept.lines.len() == KEPT {
            kept.lines.pop_front();
        }
        kept.lines.push_back(Line {
            number,
            service: service.cloned(),
            text: text.clone(),
        });
        // Full: see `UNWRITTEN`. Under the lock, so that the file has the same order.
        let _ = self.file.try_send(Job::Write(text));
        drop(kept);
        self.newest.send_replace(number);
    }

    /// Another process has written to the files meanwhile: go on with its numbers.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn read_again(&self) -> io::Result<()> {
        let journal = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut lines: VecDeque<Line> = VecDeque::new();
            journal.files.each_line(|line| {
                if lines.len() == KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
            })?;
            let mut kept = journal.kept();
            if let Some(line) = lines.back()
                && line.number > kept.last
            {
                kept.last = line.number;
                kept.lines = lines;
                journal.newest.send_replace(kept.last);
            }
            Ok(())
        });
        read.await
            .unwrap_or_else(|join| Err(io::Error::other(join)))
    }

    /// The number of the newest event; 0 if there has never been one.
    pub fn newest(&self) -> u64 {
        self.kept().last
    }

    /// Wait until everything noted so far is in the file, or could not be written.
    pub async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        if self.file.send(Job::Flush(done)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// A place to read from: after the event of this number. A number that was never given, such
    /// as one from before the state was lost, is taken for the newest.
    pub fn after(&self, number: u64, service: Option<ServiceName>) -> Reader {
        Reader {
            journal: self.clone(),
            after: number.min(self.newest()),
            service,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the journal. Two readers do not disturb each other, and a slow one holds up nobody.
#[derive(Debug)]
pub struct Reader {
    journal: Journal,
    after: u64,
    service: Option<ServiceName>,
}

impl Reader {
    /// Some of what follows, lines with their ends; none when all that is there has been read.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let lines = self.take().await;
            let last = lines.last()?.number;
            let mut text = Vec::new();
            for line in lines {
                if line.number > self.after + 1 {
                    text.extend(gap(self.after, line.number));
                }
                self.after = line.number;
                if self.service.is_none() || self.service == line.service {
                    text.extend_from_slice(&line.text);
                }
            }
            self.after = last;
            if !text.is_empty() {
                return Some(text.into());
            }
        }
    }

    /// The same, waiting for it; none when the journal is closed.
    pub async fn follow(&mut self) -> Option<Bytes> {
        let mut newest = self.journal.newest.subscribe();
        loop {
            if let Some(text) = self.next().await {
                return Some(text);
            }
            let after = self.after;
            newest.wait_for(|newest| *newest > after).await.ok()?;
        }
    }

    /// The lines that follow, from memory, else from the files.
    async fn take(&self) -> Vec<Line> {
        let (after, first) = {
            let kept = self.journal.kept();
            let first = kept.lines.front().map_or(u64::MAX, |line| line.number);
            if self.after.saturating_add(1) >= first {
                let newer = kept.lines.iter().filter(|line| line.number > self.after);
                return newer.take(BATCH).cloned().collect();
            }
            (self.after, first)
        };
        let files = self.journal.files.clone();
        let older = tokio::task::spawn_blocking(move || files.between(after, first, BATCH)).await;
        match older {
            Ok(lines) if !lines.is_empty() => lines,
            // Not there any more: go on with what is.
            _ => {
                let kept = self.journal.kept();
                kept.lines.iter().take(BATCH).cloned().collect()
            }
        }
    }
}

fn gap(after: u64, next: u64) -> Vec<u8> {
    let gap = Gap {
        missed: next - after - 1,
        after,
    };
    let mut line = serde_json::to_vec(&gap).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Write what is noted, until the last handle is gone.
async fn write(files: Arc<Files>, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let mut text = Vec::new();
        let mut flushed = Vec::new();
        for job in batch.drain(..) {
            match job {
                Job::Write(line) => text.extend_from_slice(&line),
                Job::Flush(done) => flushed.push(done),
            }
        }
        let files = files.clone();
        let written = tokio::task::spawn_blocking(move || files.append(&text)).await;
        if let Err(cause) = written {
            error!(%cause, "the journal's file is not written any more");
            return;
        }
        for done in flushed {
            // Who does not wait any more does not need to know.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
