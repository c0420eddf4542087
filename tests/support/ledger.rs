//! The ledger app, whose data must outlive its releases, and a load of writers that remember what
//! they were told is on disk.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::eventually::eventually;
use super::http::{Client, Trouble, run_on, runtime};

/// Time between two rows of one writer: a ledger is no log.
const BETWEEN: Duration = Duration::from_millis(10);

/// A release of it that calls itself `version` and brings a note, as `folder/ledger-VERSION`.
pub fn release(folder: &Path, version: &str) -> PathBuf {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ledger-app/app.py");
    let release = folder.join(format!("ledger-{version}"));
    fs::create_dir_all(release.join("data")).expect("a folder");
    fs::copy(app, release.join("app.py")).expect("a copy of the app");
    fs::write(release.join("version"), format!("{version}\n")).expect("its version");
    fs::write(release.join("data/note"), format!("brought by {version}\n")).expect("its note");
    release
}

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Written>>,
}

/// What writers have seen.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows that the app said are on disk.
    pub rows: Vec<String>,
    /// Those that it did not, and why.
    pub failed: Vec<String>,
}

impl Writers {
    /// Start so many: every second one opens a connection for each row.
    pub fn start(to: SocketAddr, count: usize) -> Self {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..count).map(|number| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            thread::spawn(move || write(to, number, &stop, &written))
        });
        let threads = threads.collect();
        Self {
            stop,
            written,
            threads,
        }
    }

    /// Wait until so many more rows are written.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let until = self.written.load(Ordering::Relaxed) + more;
        eventually(&format!("{more} more rows"), || {
            self.written.load(Ordering::Relaxed) >= until
        });
    }

    /// Let each finish its row, and see what came of them all.
    pub fn finish(mut self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for thread in self.threads.drain(..) {
            let one = thread.join().expect("a writer that does not panic");
            all.rows.extend(one.rows);
            all.failed.extend(one.failed);
        }
        all
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Written {
    /// That nothing failed, and that the ledger holds each row once and no other. Prints how many.
    #[track_caller]
    pub fn assert_kept_in(&self, ledger: &str) {
        let failed = self.failed.len();
        eprintln!("{} rows written, {failed} failed", self.rows.len());
        assert!(failed == 0, "{failed} failed, such as {:?}", self.failed[0]);
        let mut there: BTreeMap<&str, usize> = BTreeMap::new();
        for row in ledger.lines() {
            *there.entry(row).or_default() += 1;
        }
        let lost: Vec<&String> = self
            .rows
            .iter()
            .filter(|row| !there.contains_key(row.as_str()))
            .collect();
        let some = &lost[..lost.len().min(3)];
        assert!(
            lost.is_empty(),
            "{} rows lost, such as {some:?}",
            lost.len()
        );
        let twice: Vec<_> = there.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "written twice: {twice:?}");
        assert_eq!(there.len(), self.rows.len(), "rows that nobody wrote");
    }
}

fn write(to: SocketAddr, number: usize, stop: &AtomicBool, written: &AtomicU64) -> Written {
    let runtime = runtime();
    let mut all = Written::default();
    let mut kept = None;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let row = format!("writer {number} row {turn}");
        match run_on(&runtime, add(to, kept.take(), &row)) {
            Ok(client) => {
                kept = client.filter(|_| number.is_multiple_of(2));
                written.fetch_add(1, Ordering::Relaxed);
                all.rows.push(row);
            }
            Err(trouble) => all.failed.push(format!("{row}: {trouble}")),
        }
        // The pace of a writer; nothing is waited for.
        thread::sleep(BETWEEN);
    }
    all
}

/// Add a row; the connection comes back if it goes on.
async fn add(to: SocketAddr, kept: Option<Client>, row: &str) -> Result<Option<Client>, Trouble> {
    let mut reused = kept;
    if reused.as_mut().is_some_and(Client::is_over) {
        reused = None;
    }
    let mut client = match reused {
        Some(client) => client,
        None => Client::connect(to).await?,
    };
    let length = row.len();
    let request =
        format!("POST /rows HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{row}");
    let answer = client.ask(request.as_bytes()).await?;
    match (answer.head.status, answer.text().as_str()) {
        (200, "written\n") => Ok(Some(client).filter(Client::goes_on)),
        _ => Err(Trouble::Garbled(answer.to_string())),
    }
}
