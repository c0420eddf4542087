//! What tells one content from another: what the system says of a file, and where that is in doubt, its
//! bytes.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A larger file counts as another when it was written, whatever was written: reading all that lies
/// among sources must not take longer than building them.
const MOST_READ: u64 = 1 << 20;
/// The same of a file whose times do not tell; there are never many.
const MOST_DOUBTFUL: u64 = 16 << 20;
/// Within so many nanoseconds a file may be written twice and bear the same times: the system's clock
/// for them goes on by up to half of that at once.
const TICK: u128 = 20_000_000;
/// The same where whole seconds are counted.
const COARSE_TICK: u128 = 2_000_000_000;

/// Of which files the bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Of what was written: what is saved as it was is no change.
    Changed,
    /// Of those only whose times do not tell: what is read anyway when it is deployed.
    Doubtful,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    Folder,
    File(FileStamp),
    Link(PathBuf),
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    said: Said,
    /// Whether it may have been written since, and the system would say the same of it.
    doubtful: bool,
    /// Of its bytes, if they were read.
    content: Option<blake3::Hash>,
}

/// What the system says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    size: u64,
    executable: bool,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same; this one nobody can set, so that a file that was given an old time is seen, too.
    changed: (i64, i64),
    inode: (u64, u64),
}

/// A look at files, in one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    reads: Reads,
    /// Nanoseconds since 1970.
    began: u128,
}

impl Look {
    pub fn now(reads: Reads) -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            reads,
            began: began.map_or(0, |since| since.as_nanos()),
        }
    }

    /// None for what is of this machine and not of a release: sockets, pipes, devices. What was there
    /// `before` need not be read again.
    pub fn stamp(&self, path: &Path, meta: &Metadata, before: Option<&Stamp>) -> Option<Stamp> {
        if meta.is_dir() {
            return Some(Stamp::Folder);
        }
        if meta.is_symlink() {
            return Some(Stamp::Link(fs::read_link(path).unwrap_or_default()));
        }
        if !meta.is_file() {
            return None;
        }
        let said = Said::of(meta);
        let doubtful = self.is_doubtful(&said);
        let before = match before {
            Some(Stamp::File(before)) => Some(before),
            _ => None,
        };
        if let Some(same) = before.filter(|it| it.said == said && !it.doubtful) {
            return Some(Stamp::File(same.clone()));
        }
        let most = match self.reads {
            _ if doubtful || before.is_some_and(|before| before.doubtful) => MOST_DOUBTFUL,
            Reads::Changed => MOST_READ,
            Reads::Doubtful => 0,
        };
        let content = (said.size <= most).then(|| hash(path));
        Some(Stamp::File(FileStamp {
            said,
            doubtful,
            content: content.flatten(),
        }))
    }

    fn is_doubtful(&self, said: &Said) -> bool {
        let (seconds, nanoseconds) = said.changed;
        let tick = match nanoseconds {
            0 => COARSE_TICK,
            _ => TICK,
        };
        let changed = u128::try_from(seconds).unwrap_or(0) * 1_000_000_000
            + u128::try_from(nanoseconds).unwrap_or(0);
        changed + tick > self.began
    }
}

/// None where it cannot be read: then it is as if it were too large.
fn hash(path: &Path) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).ok()?;
    hasher.update_reader(file).ok()?;
    Some(hasher.finalize())
}

impl Stamp {
    /// Whether there is the same content.
    pub fn is_as(&self, other: &Self) -> bool {
        let (Self::File(one), Self::File(other)) = (self, other) else {
            return self == other;
        };
        match (one.content, other.content) {
            (Some(content), Some(others)) => {
                content == others && one.said.executable == other.said.executable
            }
            _ => one.said == other.said,
        }
    }
}

impl Said {
    fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            executable: meta.permissions().mode() & 0o111 != 0,
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            inode: (meta.dev(), meta.ino()),
        }
    }
}
