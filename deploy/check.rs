//! A health check that is a command: run beside the process it asks about, bounded in time and in
//! what it may say, and ended with all of its process group.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::miss::Cause;
use crate::process::{Exit, Spec};
use crate::{shim, sys};

/// How much of its output is read; what is more is thrown away.
const OUTPUT: usize = 64 * 1024;
/// How much of that is quoted, in characters: the end of it, where the reason stands.
const QUOTED: usize = 200;

/// Run a command in the folder and the environment of `spec`; exit status 0 is healthy.
///
/// # Errors
/// What it did instead, within that time.
pub(crate) async fn check(command: &[String], spec: &Spec, within: Duration) -> Result<(), Cause> {
    let mut run = start(command, spec).map_err(Cause::NotRun)?;
    match timeout(within, run.end()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Cause::Exited {
            exit: exit(status),
            output: quote(&run.output),
        }),
        Ok(Err(cause)) => Err(Cause::NotRun(cause.to_string())),
        Err(_) => Err(Cause::Unfinished {
            after: within,
            output: quote(&run.output),
        }),
    }
}

/// A check that runs. Dropping it ends its group.
struct Run {
    child: Child,
    /// Its number; it is not given to another before the child is reaped, which only happens after
    /// its group was killed.
    group: Pid,
    held: AsyncFd<OwnedFd>,
    says: pipe::Receiver,
    output: Vec<u8>,
}

fn start(command: &[String], spec: &Spec) -> Result<Run, String> {
    let (name, args) = command.split_first().ok_or("no command")?;
    let path = shim::find(name, &spec.env).ok_or("no such program in PATH")?;
    // Relative to the folder it runs in, not to the daemon's.
    let path = spec.cwd.join(path);
    let failed = |cause: io::Error| shim::explain(&cause, &path, name, &spec.cwd).text;
    let (says, to) = io::pipe().map_err(failed)?;
    let confines = spec.confines.prepare(None).map_err(|why| why.text)?;
    let mut command = Command::new(&path);
    sys::confine(command.as_std_mut(), confines);
    let child = command
        .arg0(name)
        .args(args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.cwd)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(to.try_clone().map_err(failed)?)
        .stderr(to)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let lost = || "its process is gone".to_owned();
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let group = group.and_then(Pid::from_raw).ok_or_else(lost)?;
    let held = rustix::process::pidfd_open(group, PidfdFlags::empty());
    let held = held.map_err(io::Error::from).and_then(sys::readable);
    Ok(Run {
        child,
        group,
        held: held.map_err(failed)?,
        says: pipe::Receiver::from_owned_fd(says.into()).map_err(failed)?,
        output: Vec::new(),
    })
}

impl Run {
    /// Wait until it has ended, whoever still holds its output, and reap it.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        let mut chunk = [0; 4096];
        let mut open = true;
        loop {
            tokio::select! {
                ended = self.held.readable() => {
                    ended?.retain_ready();
                    break;
                }
                read = self.says.read(&mut chunk), if open => match read {
                    Ok(0) | Err(_) => open = false,
                    Ok(length) => self.keep(chunk.get(..length).unwrap_or_default()),
                },
            }
        }
        self.last_words();
        self.kill();
        self.child.wait().await
    }

    /// What is in the pipe already.
    fn last_words(&mut self) {
        let mut chunk = [0; 4096];
        let mut taken = 0;
        while taken < OUTPUT
            && let Ok(length @ 1..) = self.says.try_read(&mut chunk)
        {
            self.keep(chunk.get(..length).unwrap_or_default());
            taken += length;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        let surplus = self.output.len().saturating_sub(OUTPUT);
        self.output.drain(..surplus);
    }

    fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Not after it was reaped: the number may be another's by then.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}

/// The end of it, as text.
fn quote(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(QUOTED);
    let end: String = text.chars().skip(skip).collect();
    match skip {
        0 => end,
        _ => format!("…{end}"),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
