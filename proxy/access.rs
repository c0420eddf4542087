//! The access log: a line of JSON for each request.
//!
//! A request only hands its facts over. They are put into words and written by a thread of its own,
//! so that a slow disk holds up nobody; what it cannot take in time, or cannot write, is counted
//! and lost.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use hotctl_config::{ReleaseId, ServiceName};
use http::Method;
use prometheus::IntCounter;
use serde::Serialize;

/// See the head of this file. A clone writes to the same log; when the last one goes, what is
/// waiting is written.
#[derive(Clone, Default)]
pub struct AccessLog(Option<Arc<Shared>>);

struct Shared {
    /// Only gone in `drop`.
    entries: Option<SyncSender<(SystemTime, Entry)>>,
    reopen: Arc<AtomicBool>,
    /// Counts what is lost, once somebody counts.
    dropped: Arc<OnceLock<IntCounter>>,
    ended: Mutex<Receiver<()>>,
}

/// What is known of a request when it is over.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Nothing where no service has the host and path.
    pub(crate) service: Option<ServiceName>,
    /// Nothing where no release had it.
    pub(crate) release: Option<ReleaseId>,
    pub(crate) method: Method,
    /// Without the query, which may hold secrets.
    pub(crate) path: String,
    /// 499 where the client left before the answer.
    pub(crate) status: u16,
    /// Of the answer's body, as they were sent.
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
    /// From the connection to the answer's header, of the last try.
    pub(crate) upstream: Option<Duration>,
    pub(crate) request_id: String,
    pub(crate) retries: u32,
    pub(crate) client: Option<IpAddr>,
}

impl Entry {
    /// Say it in the daemon's own log, by the id under which the app has got it, too.
    pub(crate) fn tell(&self) {
        let Self { method, path, .. } = self;
        let release = self.release.as_ref().map(tracing::field::display);
        let took_ms = self.took.as_secs_f64() * 1000.0;
        tracing::debug!(
            release,
            request_id = self.request_id,
            took_ms,
            retries = self.retries,
            "{method} {path}: {}",
            self.status
        );
    }
}

/// Lines that may wait: some MiB at most.
const WAITING: usize = 8192;

impl AccessLog {
    /// Opens the log and starts its thread; for `off`, neither.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn start(config: &hotctl_config::AccessLog) -> io::Result<Self> {
        let sink = match config {
            hotctl_config::AccessLog::Off => return Ok(Self(None)),
            hotctl_config::AccessLog::Stdout => Sink::Stdout,
            hotctl_config::AccessLog::File(path) => Sink::File {
                file: open(path)?,
                path: path.clone(),
            },
        };
        Self::to(sink)
    }

    fn to(sink: Sink) -> io::Result<Self> {
        // When it is full, lines are dropped and counted.
        let (entries, incoming) = sync_channel(WAITING);
        let (over, ended) = sync_channel(1);
        let reopen = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(OnceLock::new());
        let mut writer = Writer {
            sink,
            reopen: reopen.clone(),
            dropped: dropped.clone(),
            torn: false,
            failing: false,
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                writer.run(&incoming);
                // Whoever does not wait for it needs not know.
                let _ = over.send(());
            })?;
        Ok(Self(Some(Arc::new(Shared {
            entries: Some(entries),
            reopen,
            dropped,
            ended: Mutex::new(ended),
        }))))
    }

    /// Opens the file anew, after it was put aside. Does nothing where there is no file. What cannot
    /// be opened is said in the daemon's log, and the old file is written on.
    pub fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.reopen.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn count_dropped(&self, counter: IntCounter) {
        if let Some(shared) = &self.0 {
            shared.dropped.get_or_init(|| counter);
        }
    }

    /// Never waits.
    pub(crate) fn write(&self, entry: Entry) {
        let Some(shared) = &self.0 else {
            return;
        };
        let entries = shared.entries.as_ref();
        let taken = entries.is_some_and(|it| it.try_send((SystemTime::now(), entry)).is_ok());
        if !taken && let Some(dropped) = shared.dropped.get() {
            dropped.inc();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_on() {
            true => "AccessLog(on)",
            false => "AccessLog(off)",
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        /// A disk that takes nothing must not hold up the end of the program.
        const PATIENCE: Duration = Duration::from_secs(1);
        drop(self.entries.take());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(PATIENCE);
    }
}

/// Where the lines go.
enum Sink {
    Stdout,
    File {
        file: File,
        path: PathBuf,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write(bytes)?;
                stdout.flush()?;
                Ok(written)
            }
            Self::File { file, .. } => file.write(bytes),
            #[cfg(test)]
            Self::Test(test) => test.write(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// The thread.
struct Writer {
    sink: Sink,
    reopen: Arc<AtomicBool>,
    dropped: Arc<OnceLock<IntCounter>>,
    /// Whether the last line was written in part.
    torn: bool,
    /// Whether it was said that writing fails.
    failing: bool,
}

impl Writer {
    fn run(&mut self, entries: &Receiver<(SystemTime, Entry)>) {
        /// How long a wish to reopen may wait where there are no requests.
        const LOOK: Duration = Duration::from_millis(500);
        /// Bytes at once.
        const MOST: usize = 64 * 1024;
        let mut lines = Vec::new();
        loop {
            let first = entries.recv_timeout(LOOK);
            if self.reopen.swap(false, Ordering::Relaxed) {
                self.open_anew();
            }
            match first {
                Ok((time, entry)) => line(time, &entry, &mut lines),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while lines.len() < MOST
                && let Ok((time, entry)) = entries.try_recv()
            {
                line(time, &entry, &mut lines);
            }
            self.write(&lines);
            lines.clear();
        }
    }

    fn open_anew(&mut self) {
        if let Sink::File { file, path } = &mut self.sink {
            match open(path) {
                Ok(new) => {
                    *file = new;
                    self.torn = false;
                }
                Err(error) => {
                    tracing::error!(
                        "access log {}: cannot open it anew: {error}",
                        path.display()
                    );
                }
            }
        }
    }

    /// Writes lines; what does not go is lost.
    fn write(&mut self, lines: &[u8]) {
        let mended = match self.torn {
            true => self.write_all(b"\n").map_err(|(_, error)| (lines, error)),
            false => Ok(()),
        };
        self.torn &= mended.is_err();
        match mended.and_then(|()| self.write_all(lines)) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("access log: it can be written again");
                }
            }
            Err((rest, error)) => {
                let written = lines.len() - rest.len();
                self.torn |= written > 0 && lines[written - 1] != b'\n';
                let lost = rest.iter().filter(|byte| **byte == b'\n').count();
                if let Some(dropped) = self.dropped.get() {
                    dropped.inc_by(lost as u64);
                }
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("access log: cannot be written, lines are lost: {error}");
                }
            }
        }
    }

    /// On an error, what was not written comes back with it.
    fn write_all<'a>(&mut self, bytes: &'a [u8]) -> Result<(), (&'a [u8], io::Error)> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err((rest, io::ErrorKind::WriteZero.into())),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((rest, error)),
            }
        }
        Ok(())
    }
}

/// Appends a request that was over at this time.
fn line(time: SystemTime, entry: &Entry, out: &mut Vec<u8>) {
    /// The names are a documented contract.
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        service: Option<&'a str>,
        release: Option<String>,
        method: &'a str,
        path: &'a str,
        status: u16,
        bytes: usize,
        duration_ms: f64,
        upstream_ms: Option<f64>,
        request_id: &'a str,
        retries: u32,
        client: Option<IpAddr>,
    }
    let before = out.len();
    let written = serde_json::to_writer(
        &mut *out,
        &Line {
            time: DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true),
            service: entry.service.as_ref().map(ServiceName::as_str),
            release: entry.release.as_ref().map(ReleaseId::to_string),
            method: entry.method.as_str(),
            path: &entry.path,
            status: entry.status,
            bytes: entry.bytes,
            duration_ms: millis(entry.took),
            upstream_ms: entry.upstream.map(millis),
            request_id: &entry.request_id,
            retries: entry.retries,
            client: entry.client,
        },
    );
    match written {
        Ok(()) => out.push(b'\n'),
        // Of these values, none can fail.
        Err(_) => out.truncate(before),
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use serde_json::{Value, json};

    fn entry(path: &str) -> Entry {
        Entry {
            service: Some("web".parse().unwrap()),
            release: Some("web@7".parse().unwrap()),
            method: Method::GET,
            path: path.into(),
            status: 200,
            bytes: 12,
            took: Duration::from_micros(1500),
            upstream: Some(Duration::from_micros(250)),
            request_id: "abc".into(),
            retries: 1,
            client: Some([10, 0, 0, 1].into()),
        }
    }

    fn lines(text: &str) -> Vec<Value> {
        let lines = text.lines();
        lines.map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    #[test]
    fn a_line_is_json_and_says_all_there_is_to_say() {
        let mut out = Vec::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        line(time, &entry("/a\"b\n"), &mut out);
        let found: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.123Z", "service": "web", "release": "web@7",
            "method": "GET", "path": "/a\"b\n", "status": 200, "bytes": 12, "duration_ms": 1.5,
            "upstream_ms": 0.25, "request_id": "abc", "retries": 1, "client": "10.0.0.1",
        });
        assert_eq!(found, expected);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_file_that_was_put_aside_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = AccessLog::start(&hotctl_config::AccessLog::File(path.clone())).unwrap();
        log.write(entry("/1"));
        while std::fs::read_to_string(&path).unwrap().is_empty() {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &aside).unwrap();
        log.reopen();
        log.write(entry("/2"));
        drop(log);
        let path_of = |file| lines(&std::fs::read_to_string(file).unwrap())[0]["path"].clone();
        assert_eq!((path_of(aside), path_of(path)), (json!("/1"), json!("/2")));
    }

    /// A disk that is full after so many bytes, until it is not.
    struct Disk {
        free: Arc<Mutex<usize>>,
        file: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut free = self.free.lock().unwrap();
            let written = bytes.len().min(*free);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *free -= written;
            self.file
                .lock()
                .unwrap()
                .extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let (free, file) = (Arc::new(Mutex::new(250)), Arc::new(Mutex::new(Vec::new())));
        let disk = Disk {
            free: free.clone(),
            file: file.clone(),
        };
        let log = AccessLog::to(Sink::Test(Box::new(disk))).unwrap();
        let dropped = IntCounter::new("dropped", "Lost.").unwrap();
        log.count_dropped(dropped.clone());
        (0..10).for_each(|_| log.write(entry("/before")));
        while dropped.get() < 9 {
            std::thread::yield_now();
        }
        *free.lock().unwrap() = usize::MAX;
        (0..10).for_each(|_| log.write(entry("/after")));
        drop(log);
        let text = String::from_utf8(file.lock().unwrap().clone()).unwrap();
        let whole: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let count = |path| whole.iter().filter(|it| it["path"] == path).count();
        assert_eq!((count("/before"), count("/after")), (1, 10), "{text}");
        assert_eq!(dropped.get(), 9);
    }

    #[test]
    fn a_log_that_takes_nothing_holds_up_nobody() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go_on, stuck) = std::sync::mpsc::channel();
        let log = AccessLog::to(Sink::Test(Box::new(Stuck(stuck)))).unwrap();
        let dropped = IntCounter::new("dropped", "Lost.").unwrap();
        log.count_dropped(dropped.clone());
        (0..3 * WAITING).for_each(|_| log.write(entry("/")));
        assert!(dropped.get() > 0);
        drop(go_on);
    }
}
