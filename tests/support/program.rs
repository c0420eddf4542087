//! Running a command to its end, or alongside: bounded in time, its output kept and shown when
//! something is not as expected.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::eventually::{eventually, within};

/// No command may take longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command that runs.
pub struct Running {
    child: Child,
    line: String,
    begun: Instant,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

/// A command that has ended.
pub struct Ran {
    line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Run it to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    start(command).wait()
}

/// The same command, begun by `words`: a program that executes what follows its own arguments, in the
/// same folder and with the same environment. No words: itself.
pub fn through<S: AsRef<OsStr>>(words: &[S], direct: Command) -> Command {
    let Some((first, rest)) = words.split_first() else {
        return direct;
    };
    let mut command = Command::new(first);
    let set = direct.get_envs();
    command
        .args(rest)
        .arg(direct.get_program())
        .args(direct.get_args())
        .env_clear()
        .envs(set.filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = direct.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

/// Let it run alongside.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    let line = format!("{command:?}");
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let (stdout, stderr) = (Arc::default(), Arc::default());
    let readers = vec![
        keep(child.stdout.take().unwrap(), Arc::clone(&stdout)),
        keep(child.stderr.take().unwrap(), Arc::clone(&stderr)),
    ];
    Running {
        child,
        line,
        begun,
        stdout,
        stderr,
        readers,
    }
}

fn keep(from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(1..) = from.read_until(b'\n', &mut line) {
            into.lock().unwrap().append(&mut line);
        }
    })
}

impl Running {
    /// What it has written to standard output so far, whole lines.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// Wait until it has written this to standard output or standard error.
    #[track_caller]
    pub fn until_it_says(&mut self, needle: &str) {
        eventually(
            &format!("{} says {needle:?}; it says {}", self.line, self.both()),
            || self.both().contains(needle),
        );
    }

    /// The same, and what it has written to standard error.
    pub fn both(&self) -> String {
        text(&self.stdout) + &text(&self.stderr)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Send it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Wait for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let ended = within(PATIENCE, || self.child.try_wait().unwrap());
        let Some(status) = ended else {
            let said = self.both();
            panic!(
                "{}: has not ended within {PATIENCE:?}; it says\n{said}",
                self.line
            );
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ran {
            line: self.line.clone(),
            status,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            took: self.begun.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// Its exit status; panics with all it wrote if that is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.status.code() == Some(code),
            "expected exit {code}\n{self}"
        );
        self
    }

    /// That this text stands in its output; panics with all of it if not.
    #[track_caller]
    pub fn says(self, needle: &str) -> Self {
        let said = self.stdout.contains(needle) || self.stderr.contains(needle);
        assert!(said, "expected the words {needle:?}\n{self}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no such JSON: {e}\n{self}"))
    }

    /// Standard output as one JSON value a line.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let value = |line| serde_json::from_str(line);
        let events: Result<_, _> = self.stdout.lines().map(value).collect();
        events.unwrap_or_else(|e| panic!("not a line of JSON: {e}\n{self}"))
    }

    /// The last line of standard output as JSON, which must be this event.
    #[track_caller]
    pub fn last_event<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        let last = self
            .events()
            .pop()
            .unwrap_or_else(|| panic!("no events\n{self}"));
        assert!(
            last["event"] == name,
            "expected the event {name} at the end\n{self}"
        );
        serde_json::from_value(last).unwrap_or_else(|e| panic!("{name}: {e}\n{self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self
            .status
            .code()
            .or(self.status.signal().map(|signal| -signal));
        writeln!(f, "$ {}\n  exit {code:?} after {:?}", self.line, self.took)?;
        writeln!(
            f,
            "--- stdout\n{}--- stderr\n{}---",
            self.stdout, self.stderr
        )
    }
}

/// Where python really is; version managers put scripts in its place that need their user's home.
#[track_caller]
pub fn python() -> String {
    let ran = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let ran = ran.ok().filter(|ran| ran.status.success());
    let ran = ran.unwrap_or_else(|| panic!("python3 is not installed, and this test needs it"));
    String::from_utf8_lossy(&ran.stdout).trim().to_string()
}

/// Send a signal, if the process is still there.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a pid"), signal);
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}

/// Whether a process is there, and has not ended.
pub fn lives(pid: u32) -> bool {
    // Its first thread may have ended while another still holds what is open.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    })
}
