//! When a request is tried again. Knows nothing of routes and of answers.
//!
//! Three rules. A failure to connect sent nothing, so it is tried again for as long as the
//! configuration says. A kept-alive connection that turns out to be closed is no failure of the
//! release: what may be sent twice is sent on a new one, and what may not is, if the kernel can
//! show that nobody received it; and it only goes on a kept connection at all where the release has
//! said, or shown, that it keeps them. A request without side effects that got no answer from a working
//! connection is sent once more: by then another release may be live.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pingora::ErrorType;
use pingora::http::RequestHeader;

use crate::delivery::{Delivery, Unusable};
use crate::headers::{self, Replay};
use crate::notes::Notes;

/// The tries of one request.
pub(crate) struct Retry {
    replay: Replay,
    /// Whether it must go on a connection that nobody has used.
    fresh: bool,
    /// Whether this try does, and takes the connection with it.
    alone: Alone,
    /// Whether this try is on a connection that was kept.
    reused: bool,
    delivery: Option<Delivery>,
    answered: bool,
    /// Whether it was sent a second time after a failure on a new connection.
    replayed: bool,
    /// Since when connecting fails.
    failing: Option<Instant>,
    pause: Duration,
    next: Next,
}

/// Whether a try gets a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    Yes,
    No,
}

/// Whether there is another instance that has not failed this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Another {
    Yes,
    No,
}

/// What must happen before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Now,
    /// The connection was closed before it was used.
    Unused,
    /// A pause.
    Pause,
    /// To find out whether anybody received the last try.
    Doubt,
}

/// The pauses between two tries to connect: the first, and the longest. Short, since a release
/// that has just begun to listen should be found at once.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Default for Retry {
    fn default() -> Self {
        Self {
            replay: Replay::Never,
            fresh: false,
            alone: Alone::No,
            reused: false,
            delivery: None,
            answered: false,
            replayed: false,
            failing: None,
            pause: PAUSE,
            next: Next::Now,
        }
    }
}

impl Retry {
    /// What can be seen from the request.
    pub(crate) fn learn(&mut self, request: &RequestHeader) {
        self.replay = Replay::of(&request.method);
        // Not all of it could be sent a second time, so it does not go where that may be needed.
        self.fresh = headers::large_body(request);
    }

    /// Whether the next try gets a connection of its own, which is closed behind it.
    pub(crate) fn choose(&mut self, notes: &Notes) -> Alone {
        let risky = self.replay == Replay::Never && !notes.trusted();
        self.alone = match self.fresh || risky {
            true => Alone::Yes,
            false => Alone::No,
        };
        self.alone
    }

    pub(crate) fn is_alone(&self) -> Alone {
        self.alone
    }

    /// Whether the last failure was a kept connection that was closed before anything was sent.
    pub(crate) fn was_unused(&self) -> bool {
        self.next == Next::Unused
    }

    /// Waits for what must be waited for; says whether there may be another try.
    pub(crate) async fn settle(&mut self) -> bool {
        match std::mem::replace(&mut self.next, Next::Now) {
            Next::Now | Next::Unused => true,
            Next::Pause => {
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                true
            }
            Next::Doubt => match self.delivery.take() {
                Some(delivery) => delivery.failed().await,
                None => false,
            },
        }
    }

    /// Whether to try again, which is at once where there is another instance. All kinds of failure
    /// are waited for alike: a release that is not there yet, and one whose backlog is full.
    pub(crate) fn after_connect_failure(&mut self, patience: Duration, another: Another) -> bool {
        let since = *self.failing.get_or_insert_with(Instant::now);
        self.next = match another {
            Another::Yes => Next::Now,
            Another::No => Next::Pause,
        };
        since.elapsed() < patience
    }

    /// The request has waited until something else serves: its time to connect begins anew.
    pub(crate) fn begin_anew(&mut self) {
        self.failing = None;
        self.pause = PAUSE;
    }

    /// How long connecting has failed, up to now.
    pub(crate) fn has_failed_for(&self) -> Duration {
        self.failing.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A connection is there. Fails where it turns out to be none.
    pub(crate) fn connected(
        &mut self,
        reused: bool,
        socket: impl AsFd,
        notes: &Notes,
    ) -> Result<(), Unusable> {
        self.failing = None;
        self.pause = PAUSE;
        self.reused = reused;
        self.next = Next::Now;
        if reused && self.replay == Replay::Never {
            match Delivery::begin(socket) {
                Ok(delivery) => self.delivery = Some(delivery),
                Err(unusable) => {
                    self.next = Next::Unused;
                    notes.deceived();
                    return Err(unusable);
                }
            }
        } else if !reused && self.alone == Alone::No {
            notes.opened();
        }
        Ok(())
    }

    /// Whether the release has begun to answer.
    pub(crate) fn has_answer(&self) -> bool {
        self.answered
    }

    /// The release has begun to answer.
    pub(crate) fn answered(&mut self, notes: &Notes) {
        if self.reused && !self.answered {
            notes.reused();
        }
        self.answered = true;
        self.delivery = None;
    }

    /// The connection failed. `whole`: the body, as far as it was read, can be sent again.
    pub(crate) fn after_failure(&mut self, whole: bool, error: &ErrorType, notes: &Notes) -> bool {
        if self.next == Next::Unused {
            self.fresh = true;
            return true;
        }
        let broke = matches!(
            error,
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        );
        if self.answered || !broke || !whole {
            self.delivery = None;
            return false;
        }
        if self.reused {
            notes.deceived();
        }
        match (self.reused, self.replay) {
            (true, Replay::Safe | Replay::Idempotent) => {
                self.fresh = true;
                true
            }
            (true, Replay::Never) => {
                self.fresh = true;
                self.next = Next::Doubt;
                self.delivery.is_some()
            }
            (false, Replay::Safe) => !std::mem::replace(&mut self.replayed, true),
            (false, _) => false,
        }
    }
}
