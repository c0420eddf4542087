//! The small parent of one app: it starts the app, writes down its output, tells how it ended, and
//! sees to it that nothing the app started stays behind. One process for each app, run by the hidden
//! command `shim`; single purpose, no runtime, asleep unless something happens.
//!
//! It is a subreaper: whatever the app starts, by whatever double fork or new session, becomes its
//! child in the end. So "no child left" is not a guess but what the kernel answers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::exit::{Exit, signal_number};
use crate::notify::{Ear, Notice};
use crate::output::{self, Output};
use crate::process::Notify;
use crate::refused::Refused;
use crate::wire::{self, Inherit, Order, Report, Start};
use crate::{inspect, sys, tree};

/// How long a program that somebody still has open for writing is tried again.
const BUSY: Duration = Duration::from_secs(2);
/// What is left of an app that ended by itself gets this long to end, too.
const REMAINS: Duration = Duration::from_millis(250);
/// How long the last words of an app may take to the disk before its end is told.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often killing is repeated while something is left,
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// and for how long: what is left then cannot be killed, by us or at all.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// More than any line a daemon sends.
const LINE: usize = 16 * 1024 * 1024;

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

    let mut start: Start = loop {
        if let Some(text) = line.next() {
            break serde_json::from_slice(&text)?;
        }
        if line.fill(RecvFlags::empty())? == Heard::End {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    if start.v != wire::VERSION {
        let text = format!("its shim speaks version {}, not {}", wire::VERSION, start.v);
        line.tell(&Report::Failed { text, hint: None });
        return Ok(());
    }
    if start.inherit == Inherit::Listener {
        let listener = line.passed.take();
        let listener = listener.ok_or_else(|| io::Error::other("no listening socket came"))?;
        rustix::io::dup3(&listener, &mut place, rustix::io::DupFlags::CLOEXEC)?;
        start.env.retain(|(name, _)| !name.starts_with("LISTEN_"));
    }
    let ear = match start.notify {
        Notify::Yes => {
            let ear = Ear::open()?;
            start.env.retain(|(name, _)| name != "NOTIFY_SOCKET");
            start.env.push(("NOTIFY_SOCKET".into(), ear.address()));
            Some(ear)
        }
        Notify::No => None,
    };
    // There before the app is, so that a reader finds an empty file and not none.
    let _ = output::open(&start.log);
    let (ours, theirs) = pipes()?;
    let app = match spawn(&start, theirs) {
        Ok(app) => app,
        Err(Refused { text, hint }) => {
            line.tell(&Report::Failed { text, hint });
            return Ok(());
        }
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_nanos());
    line.tell(&Report::Started {
        pid: number(app),
        unix_ns: u64::try_from(since).unwrap_or(u64::MAX),
    });
    let output = Output::new(ours, &start.log, start.log_size)?;
    drop(start);
    // The app has it now. Ours would keep its port from being free when the app is gone.
    drop(place);
    let keeper = Keeper {
        own: number(rustix::process::getpid()),
        line,
        signals,
        output,
        ear,
        notice: Notice::default(),
        app: Some(app),
        stopping: false,
        kill_at: None,
        killing: None,
        killed: false,
        heard_all: false,
        alone: false,
    };
    keeper.keep();
    Ok(())
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

fn spawn(start: &Start, [out, err]: [OwnedFd; 2]) -> Result<Pid, Refused> {
    let Some(program) = start.program.first() else {
        return Err(Refused::new("no program to start"));
    };
    let path = find(program, &start.env)
        .ok_or_else(|| Refused::new(format!("{program}: no such program in PATH")))?;
    // Relative to the folder it runs in, not to ours.
    let whole = start.cwd.join(&path);
    inspect::before(&whole, program, &start.env)?;
    let inherits = match start.inherit {
        Inherit::Nothing => sys::Inherits::Nothing,
        Inherit::Listener => sys::Inherits::Listener,
    };
    let image = sys::Image::new(&path, &start.program, &start.env, inherits).map_err(|_| {
        Refused::new(format!(
            "{program}: a zero byte in its arguments or its environment"
        ))
    })?;
    let mut command = Command::new(&path);
    command
        .current_dir(&start.cwd)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    sys::isolate(&mut command, image, rustix::process::getpid());
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

/// What a shim is once its app runs.
struct Keeper {
    own: u32,
    line: Line,
    signals: OwnedFd,
    output: Output,
    /// Where the app speaks of itself, if it was told where,
    ear: Option<Ear>,
    /// and what it has said so far.
    notice: Notice,
    /// Until it is reaped. As long as it is not, its group's number cannot belong to another.
    app: Option<Pid>,
    /// The daemon ordered the end.
    stopping: bool,
    /// When the grace is over.
    kill_at: Option<Instant>,
    /// Since when everything is being killed.
    killing: Option<Instant>,
    /// Whether something had to be killed.
    killed: bool,
    /// The daemon is gone.
    heard_all: bool,
    /// No child is left.
    alone: bool,
}

impl Keeper {
    fn keep(mut self) {
        self.reap();
        while !self.alone {
            if let Err(cause) = self.wait() {
                // Cannot happen, save that the system is out of memory; then do the safe thing.
                eprintln!("hotctl shim: poll: {cause}");
                self.kill_at = Some(Instant::now());
                std::thread::sleep(KILL_AGAIN);
            }
            self.reap();
            let now = Instant::now();
            self.output.release(now);
            if self.kill_at.is_some_and(|at| at <= now) && !self.alone && !self.kill(now) {
                break;
            }
        }
        self.output.drain(Duration::from_secs(2));
        let left = if self.alone {
            0
        } else {
            tree::descendants(self.own).len()
        };
        self.line.tell(&Report::Ended {
            killed: self.killed,
            left,
        });
    }

    /// Sleep until something happens, and take in what did.
    fn wait(&mut self) -> io::Result<()> {
        let (heard, ready) = {
            let again = self.killing.map(|_| Instant::now() + KILL_AGAIN);
            let wake = [again.or(self.kill_at), self.output.due()]
                .into_iter()
                .flatten()
                .min()
                .map(|at| at.saturating_duration_since(Instant::now()))
                // A round millisecond later, or the sleep ends just before its time.
                .and_then(|time| Timespec::try_from(time + Duration::from_micros(50)).ok());
            let mut waited = vec![PollFd::new(&self.signals, PollFlags::IN)];
            let mut pipes = Vec::with_capacity(2);
            for (n, pipe) in self.output.open() {
                pipes.push(n);
                waited.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
            }
            let line = (!self.heard_all).then_some(&self.line.socket);
            waited.extend(line.map(|socket| PollFd::new(socket, PollFlags::IN)));
            waited.extend(self.ear.as_ref().map(|ear| PollFd::new(ear, PollFlags::IN)));
            match poll(&mut waited, wake.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            let has = |at: usize| waited.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let ready: Vec<usize> = pipes
                .iter()
                .enumerate()
                .filter(|(at, _)| has(at + 1))
                .map(|(_, n)| *n)
                .collect();
            (!self.heard_all && has(pipes.len() + 1), ready)
        };
        // Only a bell: who died is asked below. Many deaths may ring once.
        let mut bell = [0; 1024];
        let _ = rustix::io::read(&self.signals, &mut bell);
        for n in ready {
            self.output.take(n);
        }
        self.note();
        if heard {
            self.hear();
        }
        Ok(())
    }

    /// Pass on what the app says of itself.
    fn note(&mut self) {
        if let Some(ear) = &self.ear
            && ear.take(self.own, &mut self.notice)
        {
            self.line.tell(&Report::Notice(self.notice.clone()));
        }
    }

    fn hear(&mut self) {
        let heard = self.line.fill(RecvFlags::DONTWAIT);
        while let Some(text) = self.line.next() {
            match serde_json::from_slice(&text) {
                Ok(Order::Stop { grace_ms }) => self.stop(Duration::from_millis(grace_ms)),
                Ok(Order::Signal(name)) => {
                    if let Some(signal) = signal_number(&name).and_then(Signal::from_named_raw) {
                        self.signal(signal);
                    }
                }
                // A word of a newer daemon: not for us.
                Err(_) => {}
            }
        }
        if !matches!(heard, Ok(Heard::Something)) {
            // The daemon is gone, and nobody could end the app later.
            self.heard_all = true;
            self.kill_at = Some(Instant::now());
        }
    }

    fn stop(&mut self, grace: Duration) {
        let now = Instant::now();
        let at = now.checked_add(grace);
        self.kill_at = match (self.kill_at, at) {
            (Some(before), Some(at)) => Some(before.min(at)),
            (before, at) => before.or(at),
        };
        if !self.stopping && !grace.is_zero() {
            self.signal(Signal::TERM);
            // A stopped process cannot hear it otherwise.
            self.signal(Signal::CONT);
        }
        self.stopping = true;
    }

    /// To the app's group; once the app is gone, to all that is left of it.
    fn signal(&self, signal: Signal) {
        match self.app {
            Some(app) => {
                let _ = rustix::process::kill_process_group(app, signal);
            }
            None => {
                tree::signal(self.own, signal, |_| true);
            }
        }
    }

    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.app => self.app_ended(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => {
                    self.alone = true;
                    return;
                }
            }
        }
    }

    fn app_ended(&mut self, status: WaitStatus) {
        self.app = None;
        self.output.drain(LAST_WORDS);
        self.note();
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => Exit::Signal(signal),
            (code, None) => Exit::Code(code.unwrap_or(-1)),
        };
        self.line.tell(&Report::Exited(exit));
        if self.killing.is_some() {
            return;
        }
        if !self.stopping {
            self.kill_at.get_or_insert(Instant::now() + REMAINS);
        }
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Kill everything that is there. `false` once it has been tried for long enough.
    fn kill(&mut self, now: Instant) -> bool {
        let since = *self.killing.get_or_insert(now);
        if now.duration_since(since) > KILL_LIMIT {
            return false;
        }
        // Stopped first, in rounds, until nobody new is found: what is stopped cannot fork.
        let mut stopped = BTreeSet::new();
        while since.elapsed() < KILL_LIMIT {
            let more = tree::signal(self.own, Signal::STOP, |pid| !stopped.contains(&pid));
            if more.is_empty() {
                break;
            }
            stopped.extend(more);
        }
        let is_alive = |pid| tree::stat(pid).is_some_and(|stat| stat.state != 'Z');
        let killed = tree::signal(self.own, Signal::KILL, is_alive);
        self.killed |= !killed.is_empty();
        true
    }
}

/// The socket to the daemon, line by line.
struct Line {
    socket: UnixStream,
    inbox: Vec<u8>,
    /// A descriptor that came with what was read, and was not taken yet.
    passed: Option<OwnedFd>,
}

/// What reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Something,
    End,
}

impl Line {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            inbox: Vec::new(),
            passed: None,
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.inbox.iter().position(|byte| *byte == b'\n')?;
        let rest = self.inbox.split_off(end + 1);
        Some(std::mem::replace(&mut self.inbox, rest))
    }

    fn fill(&mut self, flags: RecvFlags) -> io::Result<Heard> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&self.socket, &mut into, &mut ancillary, flags).map(|came| came.bytes) {
            Ok(0) => Ok(Heard::End),
            Ok(length) => {
                let descriptors = ancillary.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                    _ => None,
                });
                self.passed = descriptors.flatten().next().or(self.passed.take());
                self.inbox
                    .extend_from_slice(bytes.get(..length).unwrap_or_default());
                match self.inbox.len() {
                    0..LINE => Ok(Heard::Something),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Heard::Something),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Nobody there to hear it is no fault of ours.
    fn tell(&mut self, report: &Report) {
        if let Ok(line) = wire::line(report) {
            let _ = self.socket.write_all(&line);
        }
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
