//! How a process ended, as a value and in words, and the names of signals. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status, 0 to 255.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By SIGKILL of the kernel, for lack of memory; or perhaps so, where it does not say whom it
    /// has ended.
    OutOfMemory {
        /// Whether that is known.
        certain: bool,
    },
    /// It never ran, for this reason.
    NotStarted(String),
    /// Nobody knows: its shim was killed, and it was killed with it; or it had ended, and its shim hung.
    Lost,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match SIGNALS.iter().find(|(n, _)| n == number) {
                Some((_, name)) => write!(f, "killed by SIG{name} ({number})"),
                None => write!(f, "killed by signal {number}"),
            },
            Self::OutOfMemory { certain: true } => {
                f.write_str("killed by SIGKILL (9): the machine or its cgroup was out of memory")
            }
            Self::OutOfMemory { certain: false } => f.write_str(
                "killed by SIGKILL (9), perhaps since memory ran out: the kernel has ended a process for that meanwhile",
            ),
            Self::NotStarted(why) => write!(f, "not started: {why}"),
            Self::Lost => f.write_str("killed together with its shim"),
        }
    }
}

/// The number of a signal, by its name without `SIG`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    SIGNALS
        .iter()
        .find(|(_, n)| *n == name)
        .map(|(number, _)| *number)
}

/// The signals that have a name here. Numbers differ between machines, hence the constants.
const SIGNALS: [(i32, &str); 26] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGSTOP, "STOP"),
    (libc::SIGTSTP, "TSTP"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGXFSZ, "XFSZ"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGWINCH, "WINCH"),
    (libc::SIGSYS, "SYS"),
];
