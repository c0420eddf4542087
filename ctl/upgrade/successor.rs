//! The hotctl that takes our place, as the old one sees it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use hotctl_proxy::{PassSocket, Passed};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{PROTOCOL, Serving, Word, holders};
use crate::daemon::inherit::{LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, UPGRADE, name};
use crate::fault::Fault;
use crate::socket::Socket;
use crate::store::StateFolder;
use crate::sys;

/// Set by systemd for what it starts (systemd.exec(5)).
const UNDER_SYSTEMD: &str = "SYSTEMD_EXEC_PID";
/// Where systemd listens, if it does.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// What it gets of us: further descriptors of what is open here. They must be closed before the
/// listeners are, or connections would be taken in that nobody answers.
#[derive(Debug)]
pub struct Held {
    http: Vec<TcpListener>,
    admin: Option<TcpListener>,
    control: OwnedFd,
    socket_lock: OwnedFd,
    state_lock: OwnedFd,
}

impl Held {
    /// Of what a daemon has open.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn of(
        http: &[TcpListener],
        admin: Option<&TcpListener>,
        control: impl AsFd,
        socket: &Socket,
        state: &StateFolder,
    ) -> io::Result<Self> {
        Ok(Self {
            http: http
                .iter()
                .map(TcpListener::try_clone)
                .collect::<Result<_, _>>()?,
            admin: admin.map(TcpListener::try_clone).transpose()?,
            control: control.as_fd().try_clone_to_owned()?,
            socket_lock: socket.lock()?,
            state_lock: state.lock()?,
        })
    }

    /// The control socket was bound again.
    ///
    /// # Errors
    /// If no descriptor is left; it is as it was then.
    pub fn renew_control(&mut self, control: impl AsFd, socket: &Socket) -> io::Result<()> {
        let (control, lock) = (control.as_fd().try_clone_to_owned()?, socket.lock()?);
        (self.control, self.socket_lock) = (control, lock);
        Ok(())
    }
}

/// A hotctl that was started to take our place.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    line: BufReader<tokio::net::UnixStream>,
    pass: PassSocket,
    binary: PathBuf,
    /// Whether it has said anything that is understood.
    known: bool,
    /// Its end of the line, by the number that the system gives a socket: whoever has that was started by
    /// it.
    socket: u64,
}

/// Whether whoever started us can bear that our process ends and another goes on.
///
/// # Errors
/// If not, with the reason.
pub fn is_possible() -> Result<(), Fault> {
    let refused = |whom: &str, hint: &str| {
        Err(Fault::failed(format!(
            "upgrade: {whom} watches this process, and would take its end for the end of hotctl"
        ))
        .hint(hint))
    };
    if std::process::id() == 1 {
        return refused(
            "the container (this is its PID 1)",
            "start a container of the new version, and stop this one",
        );
    }
    if std::env::var_os(UNDER_SYSTEMD).is_some() && std::env::var_os(NOTIFY_SOCKET).is_none() {
        return refused(
            "systemd",
            "set Type=notify in its unit, so that systemd can be told of the new process",
        );
    }
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    match name.trim() {
        whom @ ("runsv" | "supervisord" | "s6-supervise" | "tini" | "dumb-init" | "docker-init"
        | "catatonit") => refused(
            whom,
            "set on_exit = \"keep\" and restart hotctl by it: the apps live on",
        ),
        _ => Ok(()),
    }
}

impl Successor {
    /// Start it with all that we hold.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(binary: Option<&Path>, held: &Held) -> Result<Self, Fault> {
        let failed = |cause: io::Error| Fault::failed(format!("upgrade: {cause}"));
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => ours().map_err(failed)?,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let line = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        let socket = rustix::fs::fstat(&theirs)
            .map_err(|cause| failed(cause.into()))?
            .st_ino;
        let (pass, arrive) = PassSocket::pair().map_err(failed)?;
        let http = held.http.iter().map(|one| (name::HTTP, one.as_fd()));
        let admin = held.admin.iter().map(|one| (name::ADMIN, one.as_fd()));
        let rest = [
            (name::CONTROL, held.control.as_fd()),
            (name::SOCKET_LOCK, held.socket_lock.as_fd()),
            (name::STATE_LOCK, held.state_lock.as_fd()),
            (name::LINK, theirs.as_fd()),
            (name::PASS, arrive.as_fd()),
        ];
        let mut names = Vec::new();
        let mut mappings = Vec::new();
        for ((name, fd), number) in http.chain(admin).chain(rest).zip(sys::FIRST..) {
            names.push(name);
            mappings.push(FdMapping {
                parent_fd: fd.try_clone_to_owned().map_err(failed)?,
                child_fd: number,
            });
        }
        let mut command = std::process::Command::new(&binary);
        command
            .args(std::env::args_os().skip(1))
            .env(UPGRADE, PROTOCOL)
            .env(LISTEN_PID, std::process::id().to_string())
            .env(LISTEN_FDS, names.len().to_string())
            .env(LISTEN_FDNAMES, names.join(":"))
            // It is the one that is watched once it has taken over, by a number not known yet.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null());
        command
            .fd_mappings(mappings)
            .map_err(|cause| Fault::failed(format!("upgrade: {cause}")))?;
        let child = Command::from(command).spawn().map_err(|cause| {
            Fault::failed(format!(
                "upgrade: {}: cannot be started: {cause}",
                binary.display()
            ))
            .hint(match cause.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    "no descriptor is left: raise LimitNOFILE, or `ulimit -n`, of hotctl"
                }
                _ => "name an executable hotctl with --binary",
            })
        })?;
        Ok(Self {
            child,
            line: BufReader::new(line),
            pass,
            binary,
            known: false,
            socket,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Wait until configuration, state and sockets are good there; its version.
    ///
    /// # Errors
    /// If they are not, or nothing is heard of it.
    pub async fn prepared(&mut self) -> Result<String, Fault> {
        loop {
            match self.hear("prepared").await? {
                Word::Prepared { version } => return Ok(version),
                Word::Busy => {}
                other => return Err(self.odd(&other)),
            }
        }
    }

    /// Give it the services, and wait until it has taken them up.
    ///
    /// # Errors
    /// As [`Successor::prepared`].
    pub async fn take_over(&mut self) -> Result<(), Fault> {
        let mut text = serde_json::to_vec(&Word::Yours).unwrap_or_default();
        text.push(b'\n');
        // One that has ended is found out by what it says: nothing.
        let _ = self.line.get_mut().write_all(&text).await;
        loop {
            match self.hear("ready").await? {
                Word::Ready => return Ok(()),
                Word::Busy => {}
                other => return Err(self.odd(&other)),
            }
        }
    }

    /// Kill it with all that it has started, and wait for its end: whoever has its sockets could take
    /// connections in, and keep the locks.
    pub async fn end(&mut self) {
        if let Err(cause) = self.child.kill().await {
            debug!(%cause, "the hotctl that did not take over");
        }
        let socket = self.socket;
        let left = tokio::task::spawn_blocking(move || holders::kill(socket)).await;
        match left {
            Ok(0) => {}
            Ok(count) => warn!(
                count,
                "what the hotctl that did not take over had started is killed"
            ),
            Err(cause) => debug!(%cause, "what it had started"),
        }
    }

    /// Send connections after it, and what it says of services to `serves`, until all that are here
    /// have come to their end.
    pub async fn see_off(
        &mut self,
        finished: impl Future<Output = ()>,
        leaving: mpsc::UnboundedReceiver<Passed>,
        serves: impl Fn(Serving),
    ) {
        let Self { line, pass, .. } = self;
        let mut lines = line.lines();
        let heard = async {
            while let Ok(Some(text)) = lines.next_line().await {
                match serde_json::from_str(&text) {
                    Ok(Word::Serves(serving)) => serves(serving),
                    other => debug!(?other, "the hotctl that has taken over"),
                }
            }
            // It has ended. What is here goes on all the same.
            std::future::pending().await
        };
        tokio::select! {
            () = Self::pass_on(pass, finished, leaving) => {}
            () = heard => {}
        }
    }

    async fn pass_on(
        pass: &PassSocket,
        finished: impl Future<Output = ()>,
        mut leaving: mpsc::UnboundedReceiver<Passed>,
    ) {
        let mut finished = std::pin::pin!(finished.fuse());
        loop {
            // What leaves is sent before the end is seen.
            let passed = tokio::select! {
                biased;
                passed = leaving.recv() => passed,
                () = &mut finished => {
                    // Nothing more comes, and what is there is sent.
                    leaving.close();
                    continue;
                }
            };
            let Some(passed) = passed else { break };
            if let Err((passed, cause)) = pass.send(passed).await {
                debug!(%cause, peer = %passed.peer, "a connection cannot be passed on");
                // Those that are left are told to close.
                leaving.close();
            }
        }
        if !finished.is_terminated() {
            finished.await;
        }
    }

    /// Hand a signal on to it.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It is our child, and not waited for: the number is its own.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    async fn hear(&mut self, wanted: &str) -> Result<Word, Fault> {
        let binary = self.binary.display().to_string();
        let mut said = String::new();
        let read = tokio::time::timeout(SILENCE, self.line.read_line(&mut said));
        let read = tokio::select! {
            biased;
            read = read => read,
            // Somebody else may have its end of the line; what it has said is there.
            _ = self.child.wait() => match self.line.buffer().is_empty() {
                true => Ok(Ok(0)),
                false => tokio::time::timeout(SILENCE, self.line.read_line(&mut said)).await,
            },
        };
        let (text, hint) = match read {
            Err(_) => {
                let text = format!("was not {wanted}, and said nothing for {SILENCE:?}: killed");
                (
                    text,
                    "its own words are in the log of this hotctl".to_owned(),
                )
            }
            Ok(Ok(1..)) => match serde_json::from_str(&said) {
                Ok(Word::Failed { error, hint }) => {
                    let fault = Fault::failed(format!("upgrade: {binary}: {error}"));
                    return Err(Fault { hint, ..fault });
                }
                Ok(word) => {
                    self.known = true;
                    return Ok(word);
                }
                Err(_) => {
                    let text = format!("says `{}`, which this hotctl does not know", said.trim());
                    (text, "name an executable hotctl with --binary".to_owned())
                }
            },
            Ok(_) => {
                let how = tokio::time::timeout(SILENCE, self.child.wait()).await;
                let status = how.ok().and_then(Result::ok);
                // Whoever kills it, it is not for what it does not know.
                let hint = match (status.and_then(|status| status.code()), self.known) {
                    (Some(_), false) => {
                        format!("is that a hotctl that knows `upgrade`? `{binary} --version`")
                    }
                    _ => "its own words are in the log of this hotctl; upgrade again".to_owned(),
                };
                let how = status.map_or_else(|| "hung up".to_owned(), shown);
                (format!("{how} before it was {wanted}"), hint)
            }
        };
        Err(Fault::failed(format!("upgrade: {binary}: {text}")).hint(hint))
    }

    fn odd(&self, word: &Word) -> Fault {
        Fault::failed(format!(
            "upgrade: {}: says {word:?} out of turn",
            self.binary.display()
        ))
    }
}

fn shown(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The file that we were started from. Where another was put in its place it is that one.
fn ours() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(match text.strip_suffix(" (deleted)") {
        Some(place) => PathBuf::from(place),
        None => path,
    })
}
