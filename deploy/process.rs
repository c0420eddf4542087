//! One running app, seen from the daemon: start it under a shim, hear how it ended, end it with all
//! that it started. Knows neither releases nor health.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::notify::Notice;
use crate::ports::Listener;
use crate::tree;
use crate::wire::{self, Inherit, Order, Report, Start};

pub use crate::exit::Exit;

/// How long a shim may take to start its program. It tries a program that is being written for 2 s.
const START_LIMIT: Duration = Duration::from_secs(15);
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
    /// The size in bytes at which that file is renamed to `.1`; one such is kept.
    pub log_size: u64,
    /// A listening socket that it inherits as descriptor 3, in the way of systemd: `LISTEN_FDS`,
    /// `LISTEN_PID` and `LISTEN_FDNAMES` say so in its environment.
    pub listener: Option<Listener>,
    /// Whether it is told of a socket to say that it is ready.
    pub notify: Notify,
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
/// it started.
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
    KillShim,
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

/// How shims are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    program: PathBuf,
}

impl Launcher {
    /// Shims are this very program, even if its file was replaced meanwhile. Its first argument is
    /// then `shim`, upon which it must call [`crate::shim::main`] and do nothing else.
    pub fn own() -> Self {
        Self::at("/proc/self/exe")
    }

    /// Shims are another program that does the same.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// As [`start`]. If the future is dropped, nothing stays behind.
    ///
    /// # Errors
    /// As [`start`].
    pub async fn start(&self, spec: Spec) -> Result<Process, StartError> {
        let name = spec.program.first().cloned().unwrap_or_default();
        let failed = |cause: io::Error| StartError {
            text: format!("{name}: its shim cannot be started: {cause}"),
            hint: None,
        };
        let line = wire::line(&Start {
            v: wire::VERSION,
            program: spec.program,
            env: spec.env,
            cwd: spec.cwd,
            log: spec.log,
            log_size: spec.log_size,
            notify: spec.notify,
            inherit: match spec.listener {
                Some(_) => Inherit::Listener,
                None => Inherit::Nothing,
            },
        })
        .map_err(failed)?;
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        let program = self.program.clone();
        // Away from the threads that serve: until the new program is loaded, the caller stands still.
        let shim = tokio::task::spawn_blocking(move || shim(&program, theirs.into()))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(failed)?;
        let sent = match &spec.listener {
            Some(listener) => send(&ours, &line, listener).map_err(failed)?,
            None => 0,
        };
        ours.set_nonblocking(true).map_err(failed)?;
        let (read, mut write) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let mut lines = BufReader::with_capacity(256, read).lines();
        let began = SystemTime::now();
        let told = timeout(START_LIMIT, async {
            write
                .write_all(line.get(sent..).unwrap_or_default())
                .await?;
            lines.next_line().await
        });
        let report = match told.await {
            Ok(Ok(Some(text))) => serde_json::from_str(&text).map_err(|e| failed(e.into()))?,
            Ok(Ok(None)) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(cause)) => return Err(failed(cause)),
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        let (pid, unix_ns) = match report {
            Report::Started { pid, unix_ns } => (pid, unix_ns),
            Report::Failed { text, hint } => return Err(StartError { text, hint }),
            other => return Err(failed(io::Error::other(format!("it says {other:?}")))),
        };
        let now = (Instant::now(), SystemTime::now());
        let told = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns);
        // Never before we began nor after now, even if the clock was set meanwhile.
        let started = told.clamp(began.min(now.1), now.1);
        let ago = now.1.duration_since(started).unwrap_or_default();
        let (state, seen) = watch::channel(State::default());
        let (asks, asked) = mpsc::channel(8);
        let inner = Inner {
            pid,
            shim: shim.id().unwrap_or_default(),
            started,
            exec_at: now.0.checked_sub(ago).unwrap_or(now.0),
            asks,
            state: seen,
        };
        let attendant = Attendant {
            pid,
            shim,
            lines,
            write: Some(write),
            state,
        };
        // Ends when the shim has ended, which it does when the last handle is gone.
        tokio::spawn(attendant.attend(asked));
        Ok(Process {
            inner: Arc::new(inner),
        })
    }
}

/// Send the beginning of a line, and the socket with it. One byte always finds room.
fn send(to: &StdStream, line: &[u8], listener: &Listener) -> io::Result<usize> {
    let descriptors = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let first = [IoSlice::new(line.get(..1).unwrap_or_default())];
    Ok(sendmsg(to, &first, &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn shim(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    tokio::process::Command::new(program)
        .arg0("hotctl")
        .arg("shim")
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Process {
    /// The number of the app's own process.
    pub fn pid(&self) -> u32 {
        self.inner.pid
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

    /// The numbers of all its processes, its own and all that it started; empty when it has ended.
    pub fn pids(&self) -> Vec<u32> {
        if self.inner.state.borrow().ended.is_some() {
            return Vec::new();
        }
        tree::descendants(self.inner.shim)
    }
}

/// The daemon's end of one shim's line.
struct Attendant {
    pid: u32,
    shim: Child,
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// `None` once all handles are gone; the shim sees the end of its line then.
    write: Option<OwnedWriteHalf>,
    state: watch::Sender<State>,
}

impl Attendant {
    async fn attend(mut self, mut asked: mpsc::Receiver<Ask>) {
        let mut ended = None;
        loop {
            tokio::select! {
                line = self.lines.next_line() => match line {
                    Ok(Some(text)) => match serde_json::from_str(&text) {
                        Ok(Report::Exited(exit)) => self.state.send_modify(|state| {
                            state.exit.get_or_insert(exit);
                        }),
                        Ok(Report::Notice(notice)) => self.state.send_modify(|state| {
                            state.notice = notice;
                        }),
                        Ok(Report::Ended { killed, left }) => ended = Some(Ended { killed, left }),
                        other => tracing::warn!(pid = self.pid, ?other, "a shim says what is not expected"),
                    },
                    Ok(None) | Err(_) => break,
                },
                ask = asked.recv(), if self.write.is_some() => match (ask, &mut self.write) {
                    (Some(Ask::Tell(order)), Some(write)) => {
                        // Broken: the next read says so.
                        if let Ok(line) = wire::line(&order) {
                            let _ = write.write_all(&line).await;
                        }
                    }
                    (Some(Ask::KillShim), _) => drop(self.shim.start_kill()),
                    _ => self.write = None,
                },
            }
        }
        if ended.is_none() {
            drop(self.shim.start_kill());
        }
        if timeout(STOP_LIMIT, self.shim.wait()).await.is_err() {
            drop(self.shim.start_kill());
            drop(self.shim.wait().await);
        }
        let ended = match ended {
            Some(ended) => ended,
            // Without its shim nobody knows the whole tree any more: what is in the app's session is.
            None => Ended {
                killed: true,
                left: sweep(self.pid).await,
            },
        };
        self.state.send_modify(|state| {
            state.exit.get_or_insert(Exit::Lost);
            state.ended = Some(ended);
        });
    }
}

/// Kill what is left of a session; returns how many could not be killed.
async fn sweep(leader: u32) -> usize {
    let alive = || {
        let mut members = tree::session(leader);
        members.retain(|pid| tree::stat(*pid).is_some_and(|stat| stat.state != 'Z'));
        members
    };
    for _ in 0..100 {
        let members = alive();
        if members.is_empty() {
            return 0;
        }
        for pid in members {
            tree::send(pid, rustix::process::Signal::KILL, |stat| {
                stat.session == leader
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    alive().len()
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
            .field("listener", &self.listener)
            .field("notify", &self.notify)
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
