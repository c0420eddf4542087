//! An app that was started by another daemon: found by its shim's socket, made sure of, and attended
//! to from then on.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::Process;
use super::attend::{Attendant, Known, Shim, Ties, reports};
use crate::line::Line;
use crate::ports::{Lease, Listener};
use crate::wire::{Held, Hello, Report};
use crate::{sys, tree};

pub use super::attend::{sweep_lost, sweep_marked};

/// How long a shim may take to answer: it is asleep, and the machine may be busy.
const ANSWER: Duration = Duration::from_secs(10);

/// An app that was adopted.
#[derive(Debug)]
pub struct Adopted {
    /// The app; it may have ended meanwhile.
    pub process: Process,
    /// What was told of it when it was started.
    pub note: String,
    /// The listening socket that it inherited, if it did.
    pub listener: Option<Listener>,
    /// The leases of its ports.
    pub leases: Vec<Lease>,
}

/// Why a shim's socket leads to no app that could be adopted.
#[derive(Debug)]
pub enum Gone {
    /// Nobody is there any more: what the app may have left is for [`sweep_marked`].
    Nobody,
    /// Somebody is, and does not answer as a shim does, for this reason.
    Strange(String),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("its shim is gone"),
            Self::Strange(why) => f.write_str(why),
        }
    }
}

/// The sockets of shims in a folder, by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn found(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "shim") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Attend to the app behind a shim's socket.
///
/// # Errors
/// [`Gone`].
pub async fn adopt(socket: &Path) -> Result<Adopted, Gone> {
    let path = socket.to_owned();
    let met = tokio::task::spawn_blocking(move || meet(&path)).await;
    let Met {
        hello,
        line,
        held,
        descriptors,
    } = met.unwrap_or_else(|join| Err(Gone::Strange(join.to_string())))?;
    let strange = |cause: io::Error| Gone::Strange(cause.to_string());
    let mut listener = None;
    let mut leases = Vec::new();
    for (held, descriptor) in hello.holds.iter().zip(descriptors) {
        match held {
            Held::Listener => listener = Some(Listener::from(descriptor)),
            Held::Lease(port) => leases.push(Lease::taken_over(*port, descriptor)),
        }
    }
    let (already, stream) = line.into_parts();
    stream.set_nonblocking(true).map_err(strange)?;
    let (read, write) = UnixStream::from_std(stream).map_err(strange)?.into_split();
    let lines = reports(io::Cursor::new(already).chain(read));
    let age = Duration::from_millis(hello.age_ms);
    let now = (Instant::now(), SystemTime::now());
    let known = Known {
        pid: hello.pid,
        shim: hello.shim,
        started: now.1.checked_sub(age).unwrap_or(now.1),
        exec_at: now.0.checked_sub(age).unwrap_or(now.0),
        notice: hello.notice,
        exit: hello.exit,
        cgroup: hello.cgroup,
        ties: Ties::Loose(socket.to_owned()),
    };
    let shim = Shim::Adopted(sys::readable(held).map_err(strange)?);
    Ok(Adopted {
        process: Attendant::hire(known, shim, lines, write),
        note: hello.note,
        listener,
        leases,
    })
}

/// A shim that has answered, and is whom it says it is.
struct Met {
    hello: Hello,
    line: Line,
    /// The shim's own process.
    held: OwnedFd,
    descriptors: Vec<OwnedFd>,
}

fn meet(socket: &Path) -> Result<Met, Gone> {
    let strange = |cause: io::Error| Gone::Strange(cause.to_string());
    let stream = match connect(socket) {
        Ok(stream) => stream,
        Err(cause)
            if matches!(
                cause.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Err(Gone::Nobody);
        }
        Err(cause) => return Err(strange(cause)),
    };
    stream.set_read_timeout(Some(ANSWER)).map_err(strange)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| strange(e.into()))?;
    // One that somebody has stopped would not answer.
    if let Ok(held) = rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()) {
        let _ = rustix::process::pidfd_send_signal(&held, Signal::CONT);
    }
    let mut line = Line::new(stream);
    let text = match line.wait() {
        Ok(text) => text,
        // It went in that very moment.
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Err(Gone::Nobody),
        Err(cause) => return Err(strange(cause)),
    };
    let hello = match serde_json::from_slice(&text) {
        Ok(Report::Attached(hello)) => hello,
        Ok(Report::Busy) => {
            return Err(Gone::Strange(
                "too many daemons attend to it already".into(),
            ));
        }
        Ok(other) => return Err(Gone::Strange(format!("it says {other:?}"))),
        Err(cause) => return Err(Gone::Strange(format!("it cannot be understood: {cause}"))),
    };
    let held = hold(&hello, peer.pid)?;
    let descriptors = line.take_passed();
    Ok(Met {
        hello,
        line,
        held,
        descriptors,
    })
}

/// Hold the shim's process, and make sure that it is this one: a number alone would not say so.
fn hold(hello: &Hello, peer: Pid) -> Result<OwnedFd, Gone> {
    let number = peer.as_raw_nonzero().get().unsigned_abs();
    let held = rustix::process::pidfd_open(peer, PidfdFlags::empty());
    let held = held.map_err(|cause| match cause {
        rustix::io::Errno::SRCH => Gone::Nobody,
        cause => Gone::Strange(format!("its process cannot be held: {cause}")),
    })?;
    let began = tree::stat(number).map(|stat| stat.began);
    if number != hello.shim || began != Some(hello.shim_began) || hello.boot != tree::boot() {
        return Err(Gone::Strange(format!(
            "it says that it is process {} and is {number}",
            hello.shim
        )));
    }
    Ok(held)
}

/// Its path may be longer than a socket's may be: it is reached through its folder.
fn connect(socket: &Path) -> io::Result<StdStream> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    StdStream::connect(through.join(name))
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
