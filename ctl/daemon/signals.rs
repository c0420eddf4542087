//! The signals that a daemon hears; what is done about each is for others.

use std::io;

use futures_util::FutureExt as _;
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What each means to a daemon.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    reopen: Stream,
    again: Stream,
    /// Whether whoever started this, `nohup` say, wants that a closed terminal does nothing.
    hangup_ignored: bool,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM, SIGINT: it is to end; once more, at once.
    End,
    /// SIGHUP: the configuration is to be read again. A closed terminal does not end a daemon, but what is run
    /// at the desk.
    Reload,
    /// SIGUSR1: the access log is to be opened anew.
    Reopen,
    /// SIGUSR2: the file that this program was started from, as it is now, is to take over.
    Upgrade,
}

impl Signals {
    /// From now on none of them ends the process.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn new() -> io::Result<Self> {
        let hangup_ignored = is_ignored(Signal::HUP);
        Ok(Self {
            hangup_ignored,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            again: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. May be dropped and called again.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::End,
            _ = self.interrupt.recv() => Heard::End,
            _ = self.hangup.recv() => Heard::Reload,
            _ = self.reopen.recv() => Heard::Reopen,
            _ = self.again.recv() => Heard::Upgrade,
        }
    }

    /// Whether SIGHUP was ignored when this began.
    pub fn is_hangup_ignored(&self) -> bool {
        self.hangup_ignored
    }

    /// Resolves when it is to end, the others passed over.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The signal that was sent meanwhile for it to end, if one was.
    pub fn unheard_end(&mut self) -> Option<Signal> {
        let terminate = self.terminate.recv().now_or_never();
        let interrupt = self.interrupt.recv().now_or_never();
        terminate
            .map(|_| Signal::TERM)
            .or(interrupt.map(|_| Signal::INT))
    }
}

/// Whether the process came into the world with this signal ignored (proc(5), SigIgn: a bit for each).
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}
