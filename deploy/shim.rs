//! The small parent of one app: it starts the app, writes down its output, tells how it ended, and
//! sees to it that nothing the app started stays behind. One process for each app, run by the hidden
//! command `shim`; single purpose, no runtime, asleep unless something happens.
//!
//! It outlives the daemon that started it, if it was told to, and tells the next one all that it must
//! know. It is a subreaper: whatever the app starts, by whatever double fork or new session, becomes its
//! child in the end. So "no child left" is not a guess but what the kernel answers.

mod keeper;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Access, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::cgroup::Leaf;
use crate::line::Line;
use crate::notify::Ear;
use crate::oom::Memory;
use crate::output::{self, Output};
use crate::process::{MARK, Notify};
use crate::refused::Refused;
use crate::wire::{self, Held, Report, Start};
use crate::{inspect, sys};
use keeper::{Around, Door, Keeper};

/// How long a program that somebody still has open for writing is tried again.
const BUSY: Duration = Duration::from_secs(2);

/// The whole life of a shim. Its standard input is the socket to the daemon that started it.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("hotctl shim: {cause}; it is started by `hotctl serve`, not by hand");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    sys::close_inherited();
    // The place of a listening socket, kept before anything else takes it: what the child needs to
    // say that it could not be started must not lie there.
    let mut place = OwnedFd::from(File::open("/dev/null")?);
    if place.as_raw_fd() != sys::LISTEN_FD {
        return Err(io::Error::other("a standard descriptor is closed"));
    }
    // Away from the daemon's terminal: its Ctrl-C is not for apps.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let signals = sys::child_signals()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut line = Line::new(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));

    let mut start: Start = serde_json::from_slice(&line.wait()?)?;
    if start.v != wire::VERSION {
        let text = format!("its shim speaks version {}, not {}", wire::VERSION, start.v);
        tell(&mut line, &Report::Failed { text, hint: None });
        return Ok(());
    }
    let held: Vec<(Held, OwnedFd)> = start.holds.drain(..).zip(line.take_passed()).collect();
    let listener = held.iter().find(|(held, _)| *held == Held::Listener);
    let inherits = match listener {
        Some((_, listener)) => {
            rustix::io::dup3(listener, &mut place, rustix::io::DupFlags::CLOEXEC)?;
            start.env.retain(|(name, _)| !name.starts_with("LISTEN_"));
            sys::Inherits::Listener
        }
        None => sys::Inherits::Nothing,
    };
    let door = match &start.outlive {
        Some(outlive) => match Door::open(outlive) {
            Ok(door) => {
                start
                    .env
                    .push((MARK.into(), door.path().display().to_string()));
                Some(door)
            }
            Err(cause) => {
                let folder = outlive.folder.display();
                let text = format!("no socket for its shim in {folder}: {cause}");
                let hint = Some("mend the permissions of the state folder, or free space".into());
                tell(&mut line, &Report::Failed { text, hint });
                return Ok(());
            }
        },
        None => None,
    };
    let ear = match start.notify {
        Notify::Yes => {
            let ear = Ear::open()?;
            start.env.retain(|(name, _)| name != "NOTIFY_SOCKET");
            start.env.push(("NOTIFY_SOCKET".into(), ear.address()));
            Some(ear)
        }
        Notify::No => None,
    };
    if line.is_over() {
        // Nobody wants it any more.
        return Ok(());
    }
    // There before the app is, so that a reader finds an empty file and not none.
    let _ = output::open(&start.log);
    let (ours, theirs) = pipes()?;
    let memory = Memory::now();
    let leaf = start.confines.cgroup.clone().map(|prefix| {
        // Without one it runs as well; its processes are then found by who started them.
        Leaf::make(prefix, number(rustix::process::getpid())).ok()
    });
    let leaf = leaf.flatten();
    let app = match spawn(&start, inherits, leaf.as_ref(), theirs) {
        Ok(app) => app,
        Err(Refused { text, hint }) => {
            tell(&mut line, &Report::Failed { text, hint });
            return Ok(());
        }
    };
    let began = Instant::now();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_nanos());
    tell(
        &mut line,
        &Report::Started {
            pid: number(app),
            unix_ns: u64::try_from(since).unwrap_or(u64::MAX),
        },
    );
    let output = Output::new(ours, &start.log, start.log_size, start.log_files)?;
    let cgroup = start.confines.cgroup.filter(|_| leaf.is_some());
    let note = start
        .outlive
        .map_or_else(String::new, |outlive| outlive.note);
    // The app has it now. What is kept of a listening socket is kept in `held`.
    drop(place);
    // Only if the app can be adopted: else its port would not be free when the app is gone.
    let held = match &door {
        Some(_) => held,
        None => Vec::new(),
    };
    let surroundings = Around {
        cgroup,
        leaf,
        memory,
    };
    Keeper::new(
        app,
        began,
        note,
        line,
        door,
        held,
        signals,
        output,
        ear,
        surroundings,
    )
    .keep();
    Ok(())
}

/// Nobody there to hear it is no fault of ours.
fn tell(line: &mut Line, report: &Report) {
    if let Ok(text) = wire::line(report) {
        let _ = line.send(&text, &[]);
    }
}

/// Two pipes, of which our ends do not block.
fn pipes() -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
    let (out, out_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err, err_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in [&out, &err] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
    }
    Ok(([out, err], [out_theirs, err_theirs]))
}

fn spawn(
    start: &Start,
    inherits: sys::Inherits,
    leaf: Option<&Leaf>,
    [out, err]: [OwnedFd; 2],
) -> Result<Pid, Refused> {
    let Some(program) = start.program.first() else {
        return Err(Refused::new("no program to start"));
    };
    let path = find(program, &start.env).ok_or_else(|| {
        Refused::new(format!("{program}: no such program in PATH"))
            .hint(format!("install {program}, or name its whole path"))
    })?;
    // Relative to the folder it runs in, not to ours.
    let whole = start.cwd.join(&path);
    inspect::before(&whole, program, &start.env)?;
    let image = sys::Image::new(&path, &start.program, &start.env, inherits).map_err(|_| {
        Refused::new(format!(
            "{program}: a zero byte in its arguments or its environment"
        ))
    })?;
    let confines = start.confines.prepare(leaf).map_err(|why| Refused {
        text: format!("{program}: {}", why.text),
        ..why
    })?;
    let mut command = Command::new(&path);
    command
        .current_dir(&start.cwd)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    sys::isolate(&mut command, image, confines, rustix::process::getpid());
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match command.spawn() {
            // Reaped by number: the handle of the standard library is not needed.
            Ok(child) => {
                return pid(child.id()).ok_or_else(|| Refused::new("no process number"));
            }
            // Another process was forked while the file was being written, and still holds it.
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) && began.elapsed() < BUSY => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(e) => return Err(explain(&e, &whole, program, &start.cwd)),
        }
    }
}

/// Where a program is: as it stands if it has a `/`, else the first of `PATH` that can be run.
pub(crate) fn find(program: &str, env: &[(String, String)]) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value);
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok())
}

/// Why a program cannot be started, in words that say what to look at.
pub(crate) fn explain(cause: &io::Error, path: &Path, program: &str, cwd: &Path) -> Refused {
    Refused::new(match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) if !cwd.is_dir() => {
            format!("{program}: its folder {} is not there", cwd.display())
        }
        Some(libc::ENOENT) if path.exists() => return inspect::no_loader(path, program),
        Some(libc::ENOENT) => format!("{program}: no such file"),
        Some(libc::EACCES) => {
            format!("{program}: not executable, or on a file system without exec")
        }
        Some(libc::ENOEXEC) => return inspect::no_program(path, program),
        Some(libc::ETXTBSY) => format!("{program}: still being written by another process"),
        Some(libc::E2BIG) => format!("{program}: its arguments and environment are too long"),
        _ => format!("{program}: {cause}"),
    })
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
