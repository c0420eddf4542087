//! What a daemon and a shim say to each other: JSON lines over a socket. Orders go down, reports
//! come up. A shim may be older than the daemon that adopts it, so the first line of either side
//! carries a version, words are only ever added, and what is not known is passed over.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::confine::Confines;
use crate::notify::Notice;
use crate::process::{Exit, Notify};

/// The version of the words below.
pub(crate) const VERSION: u32 = 3;

/// The first line down of the daemon that starts a shim: what to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) v: u32,
    pub(crate) program: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) log_size: u64,
    pub(crate) log_files: u32,
    pub(crate) notify: Notify,
    #[serde(default)]
    pub(crate) confines: Confines,
    /// What came along with this line, a descriptor each, in this order.
    #[serde(default)]
    pub(crate) holds: Vec<Held>,
    /// Whether the app may live on without its daemon, and where the next one finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outlive: Option<Outlive>,
}

/// How a shim lives on without its daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outlive {
    /// The folder of its socket.
    pub(crate) folder: PathBuf,
    /// What the name of its socket begins with; its own number and `.shim` follow.
    pub(crate) name: String,
    /// What is told, as it is, to whoever comes: it means nothing to a shim.
    pub(crate) note: String,
}

/// A descriptor that a shim keeps for whoever adopts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    /// A listening socket, which the app inherits.
    Listener,
    /// What keeps this port from being given to another.
    Lease(u16),
}

/// Further lines down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Send this signal to the app's group: `TERM`, `HUP`, `USR1` and so on.
    Signal(String),
    /// End the app, and after the grace all that it started.
    Stop { grace_ms: u64 },
    /// The start has been heard of: from now on the app lives on without its daemon.
    Outlive,
    /// The end has been heard of: a shim whose app is gone may go, too.
    Leave,
}

/// Lines up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs, since this time of the system clock.
    Started { pid: u32, unix_ns: u64 },
    /// It does not, for this reason; the shim ends.
    Failed { text: String, hint: Option<String> },
    /// The first line to a daemon that comes later.
    Attached(Hello),
    /// The only line to one that comes where enough are attended to already: all is well here.
    Busy,
    /// The app said something of itself: this is now true.
    Notice(Notice),
    /// The app's own process ended; what it started may still be there.
    Exited(Exit),
    /// Nothing of it is left, or `left` processes that cannot be killed. The shim ends, at once or
    /// when it is told to leave.
    Ended { killed: bool, left: usize },
}

/// All that a daemon must know to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) v: u32,
    /// The app's own process.
    pub(crate) pid: u32,
    /// The shim, when it began (proc_pid_stat(5), field 22), and the boot of the system in which
    /// these numbers mean something.
    pub(crate) shim: u32,
    pub(crate) shim_began: u64,
    pub(crate) boot: String,
    /// For how long the program has been running.
    pub(crate) age_ms: u64,
    pub(crate) note: String,
    pub(crate) notice: Notice,
    /// As in [`Confines`]: what its cgroup's path begins with.
    #[serde(default)]
    pub(crate) cgroup: Option<PathBuf>,
    /// How the app's own process ended, if it did.
    pub(crate) exit: Option<Exit>,
    /// What came along with this line, a descriptor each, in this order.
    pub(crate) holds: Vec<Held>,
}

/// A line to send.
pub(crate) fn line<T: Serialize>(word: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    Ok(line)
}
