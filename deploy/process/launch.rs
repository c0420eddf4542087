//! The start of a shim, and through it of an app.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use super::attend::{Attendant, Known, Shim, Ties, reports};
use super::{Process, Spec, StartError};
use crate::line::send_along;
use crate::notify::Notice;
use crate::wire::{self, Held, Order, Report, Start};

/// How long a shim may take to start its program. It tries a program that is being written for 2 s.
const START_LIMIT: Duration = Duration::from_secs(15);

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

    /// As [`super::start`]. If the future is dropped, nothing stays behind.
    ///
    /// # Errors
    /// As [`super::start`].
    pub async fn start(&self, spec: Spec) -> Result<Process, StartError> {
        let name = spec.program.first().cloned().unwrap_or_default();
        let failed = |cause: io::Error| StartError {
            text: format!("{name}: its shim cannot be started: {cause}"),
            hint: remedy(&cause).map(Into::into),
        };
        let leases = spec.outlive.iter().flat_map(|it| &it.leases);
        let listener = spec.listener.iter().map(|it| (Held::Listener, it.as_fd()));
        let leases = leases.map(|it| (Held::Lease(it.port()), it.as_fd()));
        let (holds, along): (Vec<Held>, Vec<BorrowedFd<'_>>) = listener.chain(leases).unzip();
        let line = wire::line(&Start {
            v: wire::VERSION,
            program: spec.program,
            env: spec.env,
            cwd: spec.cwd,
            log: spec.log,
            log_size: spec.log_size,
            log_files: spec.log_files,
            notify: spec.notify,
            confines: spec.confines.clone(),
            holds,
            outlive: spec.outlive.as_ref().map(|it| wire::Outlive {
                folder: it.folder.clone(),
                name: it.name.clone(),
                note: it.note.clone(),
            }),
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
        let sent = match along.as_slice() {
            [] => 0,
            along => send_along(&ours, &line, along).map_err(failed)?,
        };
        ours.set_nonblocking(true).map_err(failed)?;
        let (read, mut write) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let mut lines = reports(read);
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
        let ties = match spec.outlive {
            None => Ties::Bound,
            Some(it) => {
                // Not before this line is the app independent of us: had we been dropped, it would
                // have ended. Nothing is awaited from here on.
                let line = wire::line(&Order::Outlive).map_err(failed)?;
                match write.try_write(&line) {
                    Ok(written) if written == line.len() => {}
                    Ok(_) => return Err(failed(io::ErrorKind::WriteZero.into())),
                    // It has ended already: what is read next says how.
                    Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
                    Err(cause) => return Err(failed(cause)),
                }
                let shim = shim.id().unwrap_or_default();
                let socket = format!("{}.{shim}.shim", it.name);
                Ties::Loose(it.folder.join(socket))
            }
        };
        Ok(Attendant::hire(
            Known {
                pid,
                shim: shim.id().unwrap_or_default(),
                started,
                exec_at: now.0.checked_sub(ago).unwrap_or(now.0),
                notice: Notice::default(),
                exit: None,
                cgroup: spec.confines.cgroup,
                ties,
            },
            Shim::Child(shim),
            lines,
            write,
        ))
    }
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

/// What the machine is out of, and what to do about that.
pub fn remedy(cause: &io::Error) -> Option<&'static str> {
    match cause.raw_os_error()? {
        libc::EMFILE => Some(
            "raise the limit of descriptors (ulimit -n, or LimitNOFILE in a unit) and start hotctl again, or fewer `instances`",
        ),
        libc::ENFILE => Some("raise fs.file-max of the system"),
        libc::EAGAIN | libc::ENOMEM => {
            Some("free memory, or raise the limit of processes (ulimit -u, or TasksMax in a unit)")
        }
        libc::ENOSPC | libc::EDQUOT | libc::EROFS => {
            Some("free space in the state folder, or mend the disk")
        }
        _ => None,
    }
}
