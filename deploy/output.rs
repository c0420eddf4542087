//! The output of an app on its way into a file: read from two pipes as it comes, kept in a bounded
//! buffer, written by a thread of its own. Whatever the disk does, the app never waits.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::rotate::Rotation;

/// How much may wait for the disk; beyond it, what waits is dropped and counted.
const PENDING: usize = 1024 * 1024;
/// How much is read at a time.
const CHUNK: usize = 32 * 1024;
/// A line that has no end yet is held back, so that the two pipes do not mix within lines: up to
/// this size,
const HELD: usize = 8 * 1024;
/// and for this long.
const HOLD: Duration = Duration::from_millis(200);
/// What a pipe holds at most, when an app ends and its last words are read.
const LAST_WORDS: usize = 64 * 1024;

/// Both pipes of an app and the file they go to.
pub(crate) struct Output {
    pipes: [Option<Pipe>; 2],
    chunk: Box<[u8]>,
    writer: Writer,
}

struct Pipe {
    from: File,
    held: Vec<u8>,
    /// When `held` is given up waiting for its end.
    due: Option<Instant>,
}

impl Output {
    /// Read from these two, and write into `log`. The reading ends must not block. A file that would
    /// grow beyond `size` bytes is put aside; `files` such are kept.
    pub(crate) fn new(from: [OwnedFd; 2], log: &Path, size: u64, files: u32) -> io::Result<Self> {
        Ok(Self {
            pipes: from.map(|from| {
                Some(Pipe {
                    from: File::from(from),
                    held: Vec::new(),
                    due: None,
                })
            }),
            chunk: vec![0; CHUNK].into(),
            writer: Writer::start(log, size, files)?,
        })
    }

    /// The pipes that are still open, to wait for.
    pub(crate) fn open(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let open = |(n, pipe)| Some((n, Option::as_ref(pipe)?));
        self.pipes
            .iter()
            .enumerate()
            .filter_map(open)
            .map(|(n, pipe): (usize, &Pipe)| (n, pipe.from.as_fd()))
    }

    /// Take in what one pipe has, at most one chunk.
    pub(crate) fn take(&mut self, n: usize) {
        self.read(n);
    }

    /// When a held line is due, if one is held.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pipes
            .iter()
            .flatten()
            .filter_map(|pipe| pipe.due)
            .min()
    }

    /// Let go of lines that were held long enough.
    pub(crate) fn release(&mut self, now: Instant) {
        for pipe in self.pipes.iter_mut().flatten() {
            if pipe.due.is_some_and(|due| due <= now) {
                pipe.let_go(&self.writer);
            }
        }
    }

    /// Take in all that is in the pipes now, and wait until it is written: at most `within`.
    pub(crate) fn drain(&mut self, within: Duration) {
        for n in 0..self.pipes.len() {
            let mut taken = 0;
            while taken < LAST_WORDS {
                match self.read(n) {
                    0 => break,
                    more => taken += more,
                }
            }
        }
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.let_go(&self.writer);
        }
        self.writer.settle(within);
    }

    fn read(&mut self, n: usize) -> usize {
        let Some(slot) = self.pipes.get_mut(n) else {
            return 0;
        };
        let Some(pipe) = slot else { return 0 };
        match pipe.from.read(&mut self.chunk) {
            Ok(0) => {}
            Ok(length) => {
                pipe.accept(self.chunk.get(..length).unwrap_or_default(), &self.writer);
                return length;
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return 0;
            }
            Err(_) => {}
        }
        pipe.let_go(&self.writer);
        *slot = None;
        0
    }
}

impl Pipe {
    fn accept(&mut self, bytes: &[u8], writer: &Writer) {
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map(|at| at + 1);
        if let Some((whole, rest)) = end.and_then(|end| bytes.split_at_checked(end)) {
            if self.held.is_empty() {
                writer.push(whole);
            } else {
                self.held.extend_from_slice(whole);
                self.let_go(writer);
            }
            self.hold(rest);
        } else {
            self.hold(bytes);
        }
        if self.held.len() > HELD {
            self.let_go(writer);
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held.extend_from_slice(bytes);
            self.due.get_or_insert_with(|| Instant::now() + HOLD);
        }
    }

    fn let_go(&mut self, writer: &Writer) {
        self.due = None;
        if !self.held.is_empty() {
            writer.push(&std::mem::take(&mut self.held));
        }
    }
}

/// Open a log to append to it; make it if it is not there.
pub(crate) fn open(log: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(log)
}

/// The way to the thread that writes.
struct Writer(Arc<Desk>);

struct Desk {
    pending: Mutex<Pending>,
    /// Something is to be written.
    work: Condvar,
    /// All is written.
    idle: Condvar,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    dropped: u64,
    writing: bool,
}

impl Writer {
    fn start(log: &Path, most: u64, files: u32) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            pending: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let sink = Sink::new(log, most, files);
        let theirs = desk.clone();
        std::thread::Builder::new()
            .name("log".into())
            .stack_size(64 * 1024)
            .spawn(move || theirs.write(sink))?;
        Ok(Self(desk))
    }

    fn push(&self, bytes: &[u8]) {
        let mut pending = self.0.pending();
        if pending.bytes.len() + bytes.len() > PENDING {
            // The newest is worth most: an app that dies says why at the end.
            pending.dropped += count(&pending.bytes);
            pending.bytes.clear();
        }
        pending.bytes.extend_from_slice(bytes);
        self.0.work.notify_one();
    }

    fn settle(&self, within: Duration) {
        let waiting = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        let pending = self.0.pending();
        // Timed out or not: there is nothing more to do about it.
        drop(self.0.idle.wait_timeout_while(pending, within, waiting));
    }
}

impl Desk {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut sink: Sink) {
        let mut batch = Vec::new();
        loop {
            let dropped = {
                let mut pending = self.pending();
                pending.writing = false;
                self.idle.notify_all();
                while pending.bytes.is_empty() {
                    pending = self
                        .work
                        .wait(pending)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                pending.writing = true;
                std::mem::swap(&mut batch, &mut pending.bytes);
                std::mem::take(&mut pending.dropped)
            };
            let lost = sink.write(dropped, &batch);
            if lost > 0 {
                self.pending().dropped += lost;
            }
            batch.clear();
            // A flood that is over must not be paid for in memory for ever.
            batch.shrink_to(HELD);
        }
    }
}

/// The file, opened again whenever it had to be given up.
struct Sink {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// The size at which a new file is begun,
    most: u64,
    /// and where the full one goes.
    rotation: Rotation,
}

impl Sink {
    fn new(path: &Path, most: u64, files: u32) -> Self {
        Self {
            path: path.into(),
            file: None,
            size: 0,
            most,
            rotation: Rotation::new(path, files),
        }
    }

    /// Write, and return how many bytes were lost over it: 0, or all.
    fn write(&mut self, dropped: u64, bytes: &[u8]) -> u64 {
        let mark = match dropped {
            0 => String::new(),
            _ => format!(
                "[hotctl: {dropped} bytes of output dropped here: the disk was too slow or full]\n"
            ),
        };
        if self.size + count(bytes) > self.most && self.size > 0 {
            // If it cannot be renamed, the file grows: better than losing what is in it.
            if self.rotation.put_aside().is_ok() {
                self.file = None;
            }
        }
        if self.file.is_none() {
            self.reopen();
        }
        let written = self.file.as_mut().is_some_and(|file| {
            file.write_all(mark.as_bytes())
                .and_then(|()| file.write_all(bytes))
                .is_ok()
        });
        if written {
            self.size += count(mark.as_bytes()) + count(bytes);
            return 0;
        }
        self.file = None;
        dropped + count(bytes)
    }

    fn reopen(&mut self) {
        self.file = open(&self.path).ok();
        let length = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.size = length.map_or(0, |meta| meta.len());
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
