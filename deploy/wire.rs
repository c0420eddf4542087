//! What the daemon and a shim say to each other: JSON lines over one socket. Orders go down, reports
//! come up. A shim may be older than its daemon one day, so the first line carries a version.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::notify::Notice;
use crate::process::{Exit, Notify};

/// The version of the words below.
pub(crate) const VERSION: u32 = 2;

/// The first line down: what to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) v: u32,
    pub(crate) program: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) log_size: u64,
    pub(crate) notify: Notify,
    pub(crate) inherit: Inherit,
}

/// Whether a descriptor came along with the first line, which is the app's to inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Inherit {
    /// None did.
    Nothing,
    /// A listening socket did.
    Listener,
}

/// Further lines down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Send this signal to the app's group: `TERM`, `HUP`, `USR1` and so on.
    Signal(String),
    /// End the app, and after the grace all that it started.
    Stop { grace_ms: u64 },
}

/// Lines up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs, since this time of the system clock.
    Started { pid: u32, unix_ns: u64 },
    /// It does not, for this reason; the shim ends.
    Failed { text: String, hint: Option<String> },
    /// The app said something of itself: this is now true.
    Notice(Notice),
    /// The app's own process ended; what it started may still be there.
    Exited(Exit),
    /// Nothing of it is left, or `left` processes that cannot be killed; the shim ends.
    Ended { killed: bool, left: usize },
}

/// A line to send.
pub(crate) fn line<T: Serialize>(word: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    Ok(line)
}
