//! One running app, seen from the daemon: start it under a shim, hear how it ended, end it with all
//! that it started. Knows neither releases nor health.

mod adopt;
mod attend;
mod launch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::confine::Confines;
use crate::exit::signal_number;
use crate::heed::{Heed, heed};
use crate::notify::Notice;
use crate::ports::{Lease, Listener};
use crate::tree;
use crate::wire::Order;

pub use crate::exit::Exit;
pub use adopt::{Adopted, Gone, adopt, found, sweep_lost, sweep_marked};
pub use launch::{Launcher, remedy};

/// The variable that tells an app's processes from all others: the path of its shim's socket.
pub(crate) const MARK: &str = "HOTCTL_SHIM";
/// How long a shim may take to kill a whole tree, beyond the grace, until it is killed itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    /// The program and its arguments. A program without `/` is looked for in the `PATH` of `env`.
    pub program: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The folder it is started in.
    pub cwd: PathBuf,
    /// The file that its output is appended to.
    pub log: PathBuf,
    /// The size in bytes at which that file is put aside.
    pub log_size: u64,
    /// How many files put aside are kept: `.1` as it is, older ones as `.2.gz` and so on. 1 or more.
    pub log_files: u32,
    /// A listening socket that it inherits as descriptor 3, in the way of systemd: `LISTEN_FDS`,
    /// `LISTEN_PID` and `LISTEN_FDNAMES` say so in its environment.
    pub listener: Option<Listener>,
    /// Ports beside its address that it was given: that it listens there too is as it should be.
    pub ports: Vec<u16>,
    /// Whether it is told of a socket to say that it is ready.
    pub notify: Notify,
    /// As whom it runs, and how much it may take.
    pub confines: Confines,
    /// Whether it lives on when the daemon dies, and how the next one finds it; `None` ends it with
    /// the daemon.
    pub outlive: Option<Outlive>,
}

/// How an app that lives on without its daemon is found by the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlive {
    /// The folder of the shim's socket, which only the daemon's user may enter.
    pub folder: PathBuf,
    /// What the socket's name begins with; `.NUMBER.shim` follows.
    pub name: String,
    /// What the next daemon is told of it; for a shim it means nothing.
    pub note: String,
    /// The leases of its ports, which then last as long as the app.
    pub leases: Vec<Lease>,
}

/// Whether a process has a `NOTIFY_SOCKET` in its environment (sd_notify(3)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notify {
    /// It has none.
    #[default]
    No,
    /// It has, and what it says there is its [`Process::notice`].
    Yes,
}

/// What is left after [`Process::stop`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// How the app's own process ended.
    pub exit: Exit,
    /// Whether something of it had to be killed, the grace being over.
    pub killed: bool,
    /// How many of its processes could not be killed; 0 as a rule.
    pub left: usize,
}

/// Why a program could not be started. `Display` is one sentence, the program first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    text: String,
    hint: Option<String>,
}

/// A running app. Cheap to clone; when the last clone is gone, the app is ended at once, with all that
/// it started, unless it was let go of by [`Process::leave`]. If the daemon dies, see [`Spec::outlive`].
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pid: u32,
    shim: u32,
    started: SystemTime,
    exec_at: Instant,
    /// Eight may wait for a shim that is busy; the sender waits then.
    asks: mpsc::Sender<Ask>,
    state: watch::Receiver<State>,
}

#[derive(Debug)]
enum Ask {
    Tell(Order),
    SignalApp(Signal, oneshot::Sender<io::Result<()>>),
    KillShim,
    Leave,
}

#[derive(Debug, Default)]
struct State {
    notice: Notice,
    exit: Option<Exit>,
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    killed: bool,
    left: usize,
}

/// Start a program, with this very program as its shim.
///
/// # Errors
/// Why the program does not run: no such file, not executable, not for this machine.
pub async fn start(spec: Spec) -> Result<Process, StartError> {
    Launcher::own().start(spec).await
}

impl Process {
    /// The number of the app's own process.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Whether both are handles of the same app; numbers may be given again.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The number of its shim.
    pub fn shim_pid(&self) -> u32 {
        self.inner.shim
    }

    /// When the program began to run, by the system's clock.
    pub fn started(&self) -> SystemTime {
        self.inner.started
    }

    /// When the program began to run.
    pub fn exec_at(&self) -> Instant {
        self.inner.exec_at
    }

    /// How the app's own process ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.inner.state.borrow().exit.clone()
    }

    /// Resolves when the app's own process has ended, whatever it started and left behind. By then
    /// its last words are in the log.
    pub async fn exited(&self) -> Exit {
        let mut state = self.inner.state.clone();
        let state = state.wait_for(|state| state.exit.is_some()).await;
        state
            .ok()
            .and_then(|state| state.exit.clone())
            .unwrap_or(Exit::Lost)
    }

    /// What the app has said of itself so far; nothing if it has no [`Spec::notify`].
    pub fn notice(&self) -> Notice {
        self.inner.state.borrow().notice.clone()
    }

    /// Resolves when the app has said something else than `known`, or has ended with all that it
    /// started.
    pub async fn noticed(&self, known: &Notice) -> Notice {
        let mut state = self.inner.state.clone();
        let changed = state.wait_for(|state| state.notice != *known || state.ended.is_some());
        match changed.await {
            Ok(state) => state.notice.clone(),
            Err(_) => known.clone(),
        }
    }

    /// Send a signal to the app's group, by its name: `HUP`, `USR1`. Nothing happens if there is no
    /// such signal, or the app has ended.
    pub async fn signal(&self, name: &str) {
        let order = Order::Signal(name.into());
        let _ = self.inner.asks.send(Ask::Tell(order)).await;
    }

    /// Send a signal to the app's own process and to nothing that it has started, by its name: `USR1`.
    ///
    /// # Errors
    /// If there is no such signal, the app has ended, or the system refuses.
    pub async fn signal_app(&self, name: &str) -> io::Result<()> {
        let signal = signal_number(name).and_then(Signal::from_named_raw);
        let signal = signal.ok_or(io::ErrorKind::InvalidInput)?;
        let (tell, told) = oneshot::channel();
        let gone = || io::Error::other("it has ended");
        let asked = self.inner.asks.send(Ask::SignalApp(signal, tell)).await;
        asked.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// What the app's own process does about a signal, by its name; `None` where nobody can say.
    pub fn heeds(&self, name: &str) -> Option<Heed> {
        heed(self.inner.pid, signal_number(name)?).filter(|_| self.runs())
    }

    /// End it: SIGTERM to its group, after `grace` SIGKILL to all that it started, and resolves when
    /// nothing is left, its shim included. A grace of 0 kills at once; a second call can shorten the
    /// grace, not lengthen it. Ended already: resolves at once. If the future is dropped, the end
    /// goes on.
    pub async fn stop(&self, grace: Duration) -> Stopped {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        // Closed if it has ended already.
        let _ = self
            .inner
            .asks
            .send(Ask::Tell(Order::Stop { grace_ms }))
            .await;
        let mut state = self.inner.state.clone();
        let limit = grace.saturating_add(STOP_LIMIT);
        if timeout(limit, state.wait_for(|state| state.ended.is_some()))
            .await
            .is_err()
        {
            let _ = self.inner.asks.send(Ask::KillShim).await;
        }
        let ended = state.wait_for(|state| state.ended.is_some()).await;
        let told = ended
            .ok()
            .and_then(|state| Some((state.exit.clone()?, state.ended?)));
        let (exit, ended) = told.unwrap_or((
            Exit::Lost,
            Ended {
                killed: true,
                left: self.pids().len(),
            },
        ));
        Stopped {
            exit,
            killed: ended.killed,
            left: ended.left,
        }
    }

    /// Let go of it: it lives on when the last handle is gone, for another daemon to adopt. Resolves
    /// when that is so. Only for apps that [`Spec::outlive`] their daemon.
    pub async fn leave(&self) {
        // Closed: it has ended.
        if self.inner.asks.send(Ask::Leave).await.is_ok() {
            self.inner.asks.closed().await;
        }
    }

    /// Whether the app's own process runs, as the system sees it: [`Process::exit`] may hear of its
    /// end a moment later, when its last words are written.
    pub fn runs(&self) -> bool {
        let own = tree::stat(self.inner.pid);
        // A number that was given to another process has another parent.
        own.is_some_and(|stat| stat.state != 'Z' && stat.parent == self.inner.shim)
    }

    /// The numbers of all its processes, its own and all that it started; empty when it has ended.
    pub fn pids(&self) -> Vec<u32> {
        if self.inner.state.borrow().ended.is_some() {
            return Vec::new();
        }
        tree::descendants(self.inner.shim)
    }

    /// The memory of all its processes, in bytes, if that is above `limit`. What several of them share
    /// counts once where the system says so, and it is not asked as long as it makes no difference.
    /// Reads /proc: not for a thread that serves.
    pub fn memory_above(&self, limit: u64) -> Option<u64> {
        let pids = self.pids();
        let above = |bytes: u64| (bytes > limit).then_some(bytes);
        above(tree::resident(&pids))?;
        above(tree::shares(&pids))
    }
}

/// Without the values of its environment: they may be secrets.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Spec")
            .field("program", &self.program)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("log", &self.log)
            .field("log_size", &self.log_size)
            .field("log_files", &self.log_files)
            .field("listener", &self.listener)
            .field("ports", &self.ports)
            .field("notify", &self.notify)
            .field("confines", &self.confines)
            .field("outlive", &self.outlive)
            .finish()
    }
}

impl StartError {
    /// What to do about it, if anything can be said.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
