//! The daemon's end of one shim's line: passes on what is asked, takes down what is reported, and
//! sees the shim out.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{Ask, Ended, Exit, Inner, MARK, Process, STOP_LIMIT, State};
use crate::cgroup::Leaf;
use crate::notify::Notice;
use crate::wire::{self, Order, Report};
use crate::{sys, tree};

/// How long a shim may take to tell of the end of its app, last words included, until it is killed.
const TELLS: Duration = Duration::from_secs(4);

/// What is known of an app when its attendant begins.
pub(super) struct Known {
    pub(super) pid: u32,
    pub(super) shim: u32,
    pub(super) started: SystemTime,
    pub(super) exec_at: Instant,
    pub(super) notice: Notice,
    pub(super) exit: Option<Exit>,
    /// As in [`crate::confine::Confines`].
    pub(super) cgroup: Option<PathBuf>,
    pub(super) ties: Ties,
}

/// What becomes of an app when its daemon is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ties {
    /// It ends.
    Bound,
    /// It lives on, and is found by this socket of its shim.
    Loose(PathBuf),
}

/// The process that is a shim.
#[derive(Debug)]
pub(super) enum Shim {
    /// Started by this daemon.
    Child(Child),
    /// Started by another one.
    Adopted(AsyncFd<OwnedFd>),
}

impl Shim {
    fn kill(&mut self) {
        // Gone already: the same.
        match self {
            Self::Child(child) => drop(child.start_kill()),
            Self::Adopted(held) => drop(rustix::process::pidfd_send_signal(
                held.get_ref(),
                Signal::KILL,
            )),
        }
    }

    /// Let it go on, where somebody has stopped it.
    fn go_on(&self) {
        // Gone already: the same.
        match self {
            Self::Child(child) => {
                let number = child.id().and_then(|pid| i32::try_from(pid).ok());
                if let Some(pid) = number.and_then(Pid::from_raw) {
                    // Not waited for yet: the number is its own.
                    let _ = rustix::process::kill_process(pid, Signal::CONT);
                }
            }
            Self::Adopted(held) => drop(rustix::process::pidfd_send_signal(
                held.get_ref(),
                Signal::CONT,
            )),
        }
    }

    async fn gone(&mut self) {
        match self {
            // Looked after by hand: while a thread of a process that has ended hangs in a write to the
            // disk, the system says both that it can be waited for and that it cannot, and tokio
            // asks in a circle.
            Self::Child(child) => {
                let mut pause = Duration::from_millis(1);
                while let Ok(None) = child.try_wait() {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
            }
            Self::Adopted(held) => drop(held.readable().await),
        }
    }
}

/// What a shim says, line by line.
pub(super) type Reports = Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>;

/// Read line by line.
pub(super) fn reports(from: impl AsyncRead + Send + Unpin + 'static) -> Reports {
    let from: Box<dyn AsyncRead + Send + Unpin> = Box::new(from);
    BufReader::with_capacity(256, from).lines()
}

/// See the head of this file.
pub(super) struct Attendant {
    pid: u32,
    number_of_shim: u32,
    cgroup: Option<PathBuf>,
    ties: Ties,
    shim: Shim,
    /// The app's own process, until its end is seen. A shim that is stopped does not tell of it.
    app: Option<AsyncFd<OwnedFd>>,
    lines: Reports,
    write: OwnedWriteHalf,
    state: watch::Sender<State>,
}

/// Why an attendant goes.
enum End {
    /// The shim's line has ended, and this is what it said of the app's end, if it did.
    Told(Option<Ended>),
    /// The app was let go of.
    Left,
}

impl Attendant {
    /// Attend to a shim, in a task that ends with it.
    pub(super) fn hire(known: Known, shim: Shim, lines: Reports, write: OwnedWriteHalf) -> Process {
        let app = match known.exit {
            Some(_) => None,
            None => held(known.pid, known.shim),
        };
        let (state, seen) = watch::channel(State {
            notice: known.notice,
            exit: known.exit,
            ended: None,
        });
        let (asks, asked) = mpsc::channel(8);
        let attendant = Self {
            pid: known.pid,
            number_of_shim: known.shim,
            cgroup: known.cgroup,
            ties: known.ties,
            shim,
            app,
            lines,
            write,
            state,
        };
        // Ends when the shim has ended, which it does when the last handle is gone, or when the app
        // is let go of.
        tokio::spawn(attendant.attend(asked));
        Process {
            inner: Arc::new(Inner {
                pid: known.pid,
                shim: known.shim,
                started: known.started,
                exec_at: known.exec_at,
                asks,
                state: seen,
            }),
        }
    }

    async fn attend(mut self, mut asked: mpsc::Receiver<Ask>) {
        match self.listen(&mut asked).await {
            End::Left => {}
            End::Told(ended) => {
                let ended = self.see_out(ended).await;
                self.state.send_modify(|state| {
                    state.exit.get_or_insert(Exit::Lost);
                    state.ended = Some(ended);
                });
            }
        }
    }

    async fn listen(&mut self, asked: &mut mpsc::Receiver<Ask>) -> End {
        let mut ended = None;
        let mut is_held = true;
        let mut told_by = None;
        loop {
            tokio::select! {
                () = is_over(self.app.as_ref()) => {
                    self.app_is_over();
                    told_by = Some(tokio::time::Instant::now() + TELLS);
                }
                () = until(told_by) => {
                    self.is_due();
                    told_by = None;
                }
                line = self.lines.next_line() => match line {
                    Ok(Some(text)) => match serde_json::from_str(&text) {
                        Ok(Report::Exited(exit)) => self.state.send_modify(|state| {
                            state.exit.get_or_insert(exit);
                        }),
                        Ok(Report::Notice(notice)) => self.state.send_modify(|state| {
                            state.notice = notice;
                        }),
                        Ok(Report::Ended { killed, left }) => {
                            ended = Some(Ended { killed, left });
                            self.order(&Order::Leave).await;
                        }
                        other => tracing::warn!(pid = self.pid, ?other, "a shim says what is not expected"),
                    },
                    Ok(None) | Err(_) => return End::Told(ended),
                },
                ask = asked.recv(), if is_held => match ask {
                    Some(Ask::Tell(order)) => {
                        if matches!(order, Order::Stop { .. }) {
                            self.shim.go_on();
                        }
                        self.order(&order).await;
                    }
                    // Whoever asked may have left.
                    Some(Ask::SignalApp(signal, tell)) => drop(tell.send(self.signal_app(signal))),
                    Some(Ask::KillShim) => self.shim.kill(),
                    Some(Ask::Leave) if self.ties != Ties::Bound => return End::Left,
                    Some(Ask::Leave) => {}
                    None => {
                        is_held = false;
                        // Nobody cares for it any more.
                        self.shim.go_on();
                        self.order(&Order::Stop { grace_ms: 0 }).await;
                    }
                },
            }
        }
    }

    /// By the process that is held, whose number cannot be another's; whatever the shim knows.
    fn signal_app(&self, signal: Signal) -> io::Result<()> {
        match &self.app {
            Some(app) => Ok(rustix::process::pidfd_send_signal(app.get_ref(), signal)?),
            None => Err(io::Error::other("it has ended")),
        }
    }

    /// The app has ended. A shim that somebody has stopped would not tell of it.
    fn app_is_over(&mut self) {
        self.app = None;
        let shim = self.number_of_shim;
        if tree::stat(shim).is_some_and(|stat| stat.state == 'T') {
            tracing::warn!(
                pid = self.pid,
                shim,
                "an app has ended while its shim is stopped: the shim is told to go on"
            );
        }
        self.shim.go_on();
    }

    /// That was a while ago: a shim that has not told of it hangs.
    fn is_due(&mut self) {
        if self.state.borrow().exit.is_some() {
            return;
        }
        tracing::error!(
            pid = self.pid,
            shim = self.number_of_shim,
            "an app has ended, and its shim does not say so: killing the shim"
        );
        // Whoever waits for this end does not wait for that of a shim that hangs.
        self.state.send_modify(|state| {
            state.exit.get_or_insert(Exit::Lost);
        });
        self.shim.kill();
    }

    async fn order(&mut self, order: &Order) {
        // Broken: the next read says so.
        if let Ok(line) = wire::line(order) {
            let _ = self.write.write_all(&line).await;
        }
    }

    /// The line has ended. Nothing of the app may be there when this is done.
    async fn see_out(&mut self, ended: Option<Ended>) -> Ended {
        if ended.is_none() {
            self.shim.kill();
        }
        if timeout(STOP_LIMIT, self.shim.gone()).await.is_err() {
            self.shim.kill();
            self.shim.gone().await;
        }
        let Some(ended) = ended else {
            // Without its shim nobody knows the whole tree any more: what is in the app's session
            // is, and what has its mark.
            if let Some(cgroup) = self.cgroup.take() {
                let leaf = Leaf::of(cgroup, self.number_of_shim);
                // Waits for the kernel.
                let _ = tokio::task::spawn_blocking(move || leaf.end()).await;
            }
            let leader = self.pid;
            let left = sweep(move || tree::session(leader)).await;
            let marked = match &self.ties {
                Ties::Bound => 0,
                Ties::Loose(socket) => sweep_marked(socket.clone()).await,
            };
            return Ended {
                killed: true,
                left: left.max(marked),
            };
        };
        ended
    }
}

/// The app's own process, to see its end; none where it has ended, or cannot be held.
fn held(pid: u32, shim: u32) -> Option<AsyncFd<OwnedFd>> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let held = rustix::process::pidfd_open(number, PidfdFlags::empty()).ok()?;
    // Looked at once it is held: a number that was given again has another parent.
    tree::stat(pid).filter(|stat| stat.parent == shim)?;
    sys::readable(held).ok()
}

/// The end of a process; never, where none is held.
async fn is_over(app: Option<&AsyncFd<OwnedFd>>) {
    match app {
        Some(app) => drop(app.readable().await),
        None => std::future::pending().await,
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Kill every process of an app whose shim, at this socket, is gone, and remove the socket; returns
/// how many could not be killed.
pub async fn sweep_marked(socket: PathBuf) -> usize {
    let mark = socket.display().to_string();
    let left = sweep(move || tree::marked(MARK, &mark)).await;
    // Gone already: the same.
    let _: io::Result<()> = std::fs::remove_file(&socket);
    left
}

/// Kill every process of an app whose shim had its socket in this folder, which is there no more: nobody
/// can attend to it. Returns the numbers of the apps' own processes.
pub async fn sweep_lost(folder: PathBuf) -> Vec<u32> {
    let beginning = format!("{}/", folder.display());
    let those = move || -> Vec<u32> {
        let marked = tree::marked_like(MARK, &beginning);
        let lost = marked
            .into_iter()
            .filter(|(_, socket)| !Path::new(socket).exists());
        lost.map(|(pid, _)| pid).collect()
    };
    let look = those.clone();
    let apps = move || -> (usize, Vec<u32>) {
        let found = look();
        let is_app = |pid: &u32| tree::stat(*pid).is_some_and(|stat| stat.session == *pid);
        (found.len(), found.into_iter().filter(is_app).collect())
    };
    let (count, apps) = tokio::task::spawn_blocking(apps).await.unwrap_or_default();
    if count > 0 {
        sweep(those).await;
    }
    apps
}

/// Kill those, again and again until there are none; returns how many could not be killed.
async fn sweep(those: impl Fn() -> Vec<u32> + Clone + Send + 'static) -> usize {
    for _ in 0..100 {
        let those = those.clone();
        // A look at every process of the machine: not on a thread that serves.
        let found = tokio::task::spawn_blocking(move || {
            let mut members = those();
            members.retain(|pid| tree::stat(*pid).is_some_and(|stat| stat.state != 'Z'));
            for pid in &members {
                let again = those.clone();
                let pid = *pid;
                tree::send(pid, Signal::KILL, |_| again().contains(&pid));
            }
            members.len()
        });
        match found.await {
            Ok(0) | Err(_) => return 0,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    tokio::task::spawn_blocking(move || those().len())
        .await
        .unwrap_or_default()
}
