//! What a shim is once its app runs: it waits for whatever happens to the app, hears what daemons
//! order, and ends when nothing of the app is left and a daemon knows.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::number;
use crate::cgroup::Leaf;
use crate::exit::{Exit, signal_number};
use crate::line::{Heard, Line};
use crate::notify::{Ear, Notice};
use crate::oom::Memory;
use crate::output::Output;
use crate::tree;
use crate::wire::{self, Held, Hello, Order, Outlive, Report};

/// What an app lives in.
pub(super) struct Around {
    /// As in [`crate::confine::Confines`], if it has a cgroup of its own,
    pub(super) cgroup: Option<PathBuf>,
    /// which is this one.
    pub(super) leaf: Option<Leaf>,
    /// What the memory of the machine was like when it began.
    pub(super) memory: Memory,
}

/// What is left of an app that ended by itself gets this long to end, too.
const REMAINS: Duration = Duration::from_millis(250);
/// How long the last words of an app may take to the disk before its end is told.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often killing is repeated while something is left,
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// and for how long: what is left then cannot be killed, by us or at all.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How many daemons may be connected: the one that steers, the one that takes over, and two that are
/// about to leave. Another one is told to come later.
const LINES: usize = 4;
/// How often it is looked whether a daemon can still come, once the app is gone.
const LOOK: Duration = Duration::from_secs(60);

/// Where the next daemon comes in. Its file goes with it.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Its path may be longer than a socket's may be: it is made from inside the folder.
    pub(super) fn open(outlive: &Outlive) -> io::Result<Self> {
        let own = std::process::id();
        let name = format!("{}.{own}.shim", outlive.name);
        std::env::set_current_dir(&outlive.folder)?;
        let opened = match fs::remove_file(&name) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => UnixListener::bind(&name),
        };
        std::env::set_current_dir("/")?;
        let listener = opened?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: outlive.folder.join(name),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Gone already, or a folder that nobody can write to: whoever finds it learns that nobody
        // answers.
        let _ = fs::remove_file(&self.path);
    }
}

/// What a shim is once its app runs.
pub(super) struct Keeper {
    own: u32,
    /// The app's own process, and since when it runs.
    number: u32,
    began: Instant,
    note: String,
    /// To the daemon that started it, and to those that came later.
    lines: Vec<Line>,
    /// `None` if the app does not live on without its daemon.
    door: Option<Door>,
    /// What is kept for whoever comes later.
    held: Vec<(Held, OwnedFd)>,
    signals: OwnedFd,
    output: Output,
    /// Where the app speaks of itself, if it was told where,
    ear: Option<Ear>,
    /// and what it has said so far.
    notice: Notice,
    around: Around,
    /// Until it is reaped. As long as it is not, its group's number cannot belong to another.
    app: Option<Pid>,
    exit: Option<Exit>,
    /// The daemon knows of the start: without it, the app lives on.
    independent: bool,
    /// The daemon ordered the end.
    stopping: bool,
    /// When the grace is over.
    kill_at: Option<Instant>,
    /// Since when everything is being killed.
    killing: Option<Instant>,
    /// Whether something had to be killed.
    killed: bool,
    /// No child is left.
    alone: bool,
    /// Nothing more is done about the app.
    over: bool,
    /// A daemon knows of the end.
    dismissed: bool,
}

/// What woke a shim up.
struct Woken {
    pipes: Vec<usize>,
    lines: Vec<usize>,
    door: bool,
}

impl Keeper {
    #[allow(clippy::too_many_arguments)] // Each is a part of its own, and made in a place of its own.
    pub(super) fn new(
        app: Pid,
        began: Instant,
        note: String,
        line: Line,
        door: Option<Door>,
        held: Vec<(Held, OwnedFd)>,
        signals: OwnedFd,
        output: Output,
        ear: Option<Ear>,
        around: Around,
    ) -> Self {
        Self {
            own: number(rustix::process::getpid()),
            number: number(app),
            began,
            note,
            lines: vec![line],
            door,
            held,
            signals,
            output,
            ear,
            notice: Notice::default(),
            around,
            app: Some(app),
            exit: None,
            independent: false,
            stopping: false,
            kill_at: None,
            killing: None,
            killed: false,
            alone: false,
            over: false,
            dismissed: false,
        }
    }

    /// All of its life.
    pub(super) fn keep(mut self) {
        for line in &self.lines {
            // If it fails, a daemon that stands still could hold up the app: it never does fail.
            let _ = line.never_wait();
        }
        self.reap();
        while !self.alone {
            self.turn();
            self.reap();
            let now = Instant::now();
            self.output.release(now);
            if self.kill_at.is_some_and(|at| at <= now) && !self.alone && !self.kill(now) {
                break;
            }
        }
        self.output.drain(Duration::from_secs(2));
        self.over = true;
        let ended = self.ended();
        self.tell(&ended);
        // Nobody can take the port, or reach the app, any more; only its end is still to be told.
        self.held.clear();
        self.around.leaf = None;
        self.kill_at = None;
        self.killing = None;
        while !self.dismissed && self.is_awaited() {
            self.turn();
        }
    }

    fn ended(&self) -> Report {
        let left = match self.alone {
            true => 0,
            false => tree::descendants(self.own).len(),
        };
        Report::Ended {
            killed: self.killed,
            left,
        }
    }

    /// Whether a daemon may come, or is there, that wants to know how it ended.
    fn is_awaited(&self) -> bool {
        self.independent && self.door.as_ref().is_some_and(|door| door.path.exists())
    }

    /// Sleep until something happens, and take in what did.
    fn turn(&mut self) {
        match self.wait() {
            Ok(woken) => self.take_in(woken),
            Err(cause) => {
                // Cannot happen, save that the system is out of memory; then wait for better times.
                eprintln!("hotctl shim: poll: {cause}");
                std::thread::sleep(KILL_AGAIN);
            }
        }
    }

    fn wait(&self) -> io::Result<Woken> {
        let again = self.killing.map(|_| Instant::now() + KILL_AGAIN);
        let look = self.exit.as_ref().map(|_| Instant::now() + LOOK);
        let wake = [again.or(self.kill_at), self.output.due(), look]
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
        let lines = self.lines.iter();
        waited.extend(lines.map(|line| PollFd::new(line, PollFlags::IN)));
        let door = self.door.as_ref().map(|door| &door.listener);
        waited.extend(door.map(|door| PollFd::new(door, PollFlags::IN)));
        waited.extend(self.ear.as_ref().map(|ear| PollFd::new(ear, PollFlags::IN)));
        match poll(&mut waited, wake.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        let has = |at: usize| waited.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let first_line = 1 + pipes.len();
        let first_door = first_line + self.lines.len();
        Ok(Woken {
            pipes: pipes
                .iter()
                .enumerate()
                .filter(|(at, _)| has(at + 1))
                .map(|(_, n)| *n)
                .collect(),
            lines: (0..self.lines.len())
                .filter(|n| has(first_line + n))
                .collect(),
            door: self.door.is_some() && has(first_door),
        })
    }

    fn take_in(&mut self, woken: Woken) {
        // Only a bell: who died is asked elsewhere. Many deaths may ring once.
        let mut bell = [0; 1024];
        let _ = rustix::io::read(&self.signals, &mut bell);
        for n in woken.pipes {
            self.output.take(n);
        }
        self.note();
        // From the last on, so that one which is removed does not move the others.
        for n in woken.lines.into_iter().rev() {
            self.hear(n);
        }
        if woken.door {
            self.welcome();
        }
    }

    /// Pass on what the app says of itself.
    fn note(&mut self) {
        if let Some(ear) = &self.ear
            && ear.take(self.own, &mut self.notice)
        {
            let notice = Report::Notice(self.notice.clone());
            self.tell(&notice);
        }
    }

    /// A daemon comes: it is told all that was.
    fn welcome(&mut self) {
        let Some(Ok((socket, _))) = self.door.as_ref().map(|door| door.listener.accept()) else {
            return;
        };
        // Whose daemon died before it knew of the start is about to end: it is not for adoption.
        if !self.independent || !is_ours(&socket) {
            return;
        }
        let mut line = Line::new(socket);
        if self.lines.len() >= LINES {
            // Without a word, we would be taken for gone, and the app for a leftover.
            super::tell(&mut line, &Report::Busy);
            return;
        }
        let hello = Report::Attached(Hello {
            v: wire::VERSION,
            pid: self.number,
            shim: self.own,
            shim_began: tree::stat(self.own).map_or(0, |stat| stat.began),
            boot: tree::boot(),
            age_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            note: self.note.clone(),
            notice: self.notice.clone(),
            cgroup: self.around.cgroup.clone(),
            exit: self.exit.clone(),
            holds: self.held.iter().map(|(held, _)| *held).collect(),
        });
        let along: Vec<BorrowedFd<'_>> = self.held.iter().map(|(_, fd)| fd.as_fd()).collect();
        let sent = wire::line(&hello).and_then(|text| line.send(&text, &along));
        if sent.is_ok() && line.never_wait().is_ok() {
            self.lines.push(line);
            if self.over {
                let ended = self.ended();
                self.tell(&ended);
            }
        }
    }

    fn hear(&mut self, n: usize) {
        let Some(line) = self.lines.get_mut(n) else {
            return;
        };
        let heard = line.fill(RecvFlags::DONTWAIT);
        let mut orders = Vec::new();
        while let Some(text) = line.next() {
            // What is not understood is a word of a newer daemon: not for us.
            orders.extend(serde_json::from_slice::<Order>(&text).ok());
        }
        for order in orders {
            self.obey(order);
        }
        if !matches!(heard, Ok(Heard::Something)) {
            self.lines.remove(n);
            if !self.independent && self.lines.is_empty() {
                // The daemon is gone, and nobody could end the app later.
                self.kill_at = Some(Instant::now());
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop { .. } if self.over => {}
            Order::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms)),
            Order::Signal(name) => {
                if let Some(signal) = signal_number(&name).and_then(Signal::from_named_raw) {
                    self.signal(signal);
                }
            }
            Order::Outlive => self.independent = self.door.is_some(),
            Order::Leave => self.dismissed = true,
        }
    }

    /// Nobody there to hear it is no fault of ours; who does not listen is not waited for.
    fn tell(&mut self, report: &Report) {
        if let Ok(text) = wire::line(report) {
            for line in &mut self.lines {
                // What cannot be told now is told when they come again; the next read says so.
                if line.send(&text, &[]).is_err() {
                    line.hang_up();
                }
            }
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
            (_, Some(libc::SIGKILL)) if self.killing.is_none() => self.killed_by(),
            (_, Some(signal)) => Exit::Signal(signal),
            (code, None) => Exit::Code(code.unwrap_or(-1)),
        };
        self.exit = Some(exit.clone());
        self.tell(&Report::Exited(exit));
        if self.killing.is_some() {
            return;
        }
        if !self.stopping {
            self.kill_at.get_or_insert(Instant::now() + REMAINS);
        }
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Who has sent SIGKILL, if not we.
    fn killed_by(&self) -> Exit {
        let Around { leaf, memory, .. } = &self.around;
        match memory.took(self.number, leaf.as_ref()) {
            Some(certain) => Exit::OutOfMemory { certain },
            None => Exit::Signal(libc::SIGKILL),
        }
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
        // Whoever was born between two looks is in there, too.
        if let Some(leaf) = &self.around.leaf
            && !stopped.is_empty()
        {
            leaf.kill();
            self.killed = true;
        }
        let is_alive = |pid| tree::stat(pid).is_some_and(|stat| stat.state != 'Z');
        let killed = tree::signal(self.own, Signal::KILL, is_alive);
        self.killed |= !killed.is_empty();
        true
    }
}

/// Whether the other end is of our user, or root's: who can come into the folder at all, as a rule.
fn is_ours(socket: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == own)
}
