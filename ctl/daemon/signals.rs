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
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM, SIGINT: it is to end; once more, at once.
    End,
    /// SIGHUP: the configuration is to be read again. A closed terminal does not end a daemon.
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
        Ok(Self {
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
