//! What serving remembers about a pool. Kept with the pool, so that a request that holds a ticket
//! holds this too, without looking anything up.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::kept::Kept;
use crate::kinds::{Kind, Kinds};
use crate::lines::{Line, Lines};
use crate::metrics::{Classes, Meter};
use crate::pool::Pool;
use crate::streak::Streaks;

/// See the head of this file.
pub(crate) struct Notes {
    /// The handles of the service's metrics.
    pub(crate) meter: OnceLock<Arc<Meter>>,
    /// Those of the release's.
    pub(crate) classes: OnceLock<Arc<Classes>>,
    pub(crate) streaks: Streaks,
    pub(crate) kinds: Kinds,
    pub(crate) kept: Arc<Kept>,
    /// The connections that its requests come on. Set before it gets the first.
    lines: OnceLock<Arc<Lines>>,
    /// How long the release says that it keeps idle connections, in seconds; 0 if it says nothing.
    says: AtomicU32,
    /// How far its kept connections can be trusted, see [`Notes::trusted`].
    credit: AtomicU32,
    /// Whether it says in its answers that it keeps the connection.
    promises: AtomicBool,
    /// Whether it was found to have closed one.
    lied: AtomicBool,
}

/// How long an upstream connection is kept for the next request where the release does not say how
/// long it keeps it. Below the shortest limit that is common (gunicorn: 2 s).
const IDLE: Duration = Duration::from_secs(1);

/// At most, whatever the release says: a connection that is not used for longer is not missed.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// What a release has to earn before a request that can be sent only once goes on a kept
/// connection, and what it can earn at most.
const TRUST: u32 = 1_000;
const MOST: u32 = 10_000;

/// What a new connection costs: it was needed because an old one is gone.
const NEW: u32 = 32;

impl Notes {
    /// Of a pool of so many instances, used by so many threads.
    pub(crate) fn of(instances: usize, threads: NonZeroUsize) -> Self {
        Self {
            meter: OnceLock::new(),
            classes: OnceLock::new(),
            streaks: Streaks::of(instances),
            kinds: Kinds::default(),
            kept: Arc::new(Kept::of(threads)),
            lines: OnceLock::new(),
            says: AtomicU32::new(0),
            credit: AtomicU32::new(0),
            promises: AtomicBool::new(false),
            lied: AtomicBool::new(false),
        }
    }

    /// The pool is about to get requests, on these connections.
    pub(crate) fn attach(&self, lines: &Arc<Lines>) {
        self.lines.get_or_init(|| lines.clone());
    }

    /// The connections that have a request in flight on the pool of these notes.
    pub(crate) fn lines_of(&self, pool: &Pool) -> Vec<(Arc<Line>, Kind)> {
        let lines = self.lines.get();
        lines.map_or_else(Vec::new, |lines| lines.of(pool.group_key()))
    }

    /// Whether the release can be trusted not to close a connection right after an answer.
    ///
    /// If it does, and a request arrives in between, nobody can tell whether it was read. So a
    /// request that can be sent only once waits for a promise that was not broken, or for a record:
    /// a thousand requests that went well on kept connections, and many for each that was opened.
    pub(crate) fn trusted(&self) -> bool {
        self.credit.load(Ordering::Relaxed) >= TRUST
            || (self.promises.load(Ordering::Relaxed) && !self.lied.load(Ordering::Relaxed))
    }

    /// A connection was opened to be kept.
    pub(crate) fn opened(&self) {
        self.change(|credit| credit.saturating_sub(NEW));
    }

    /// A request was answered on a kept connection.
    pub(crate) fn reused(&self) {
        self.change(|credit| (credit + 1).min(MOST));
    }

    /// A kept connection was found closed.
    pub(crate) fn deceived(&self) {
        self.change(|_| 0);
        self.lied.store(true, Ordering::Relaxed);
    }

    /// It said that it keeps this connection.
    pub(crate) fn promised(&self) {
        if !self.promises.load(Ordering::Relaxed) {
            self.promises.store(true, Ordering::Relaxed);
        }
    }

    /// Not exact where two change it at once, which it need not be; and where nothing changes, as
    /// at the most, nothing is written, so that cores do not fight over it.
    fn change(&self, change: impl Fn(u32) -> u32) {
        let now = self.credit.load(Ordering::Relaxed);
        let then = change(now);
        if then != now {
            self.credit.store(then, Ordering::Relaxed);
        }
    }

    /// Reads the value of a `Keep-Alive` header, such as `timeout=5, max=1000`.
    pub(crate) fn hear(&self, keep_alive: &[u8]) {
        let seconds = std::str::from_utf8(keep_alive)
            .ok()
            .into_iter()
            .flat_map(|text| text.split(','))
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
            .and_then(|(_, value)| value.trim().parse::<u32>().ok());
        if let Some(seconds) = seconds
            && seconds != self.says.load(Ordering::Relaxed)
        {
            self.says.store(seconds, Ordering::Relaxed);
        }
    }

    /// How long to keep an idle connection: a second less than the release does, so that it is not
    /// the release that closes it, in the very moment of the next request.
    pub(crate) fn idle(&self) -> Duration {
        match self.says.load(Ordering::Relaxed) {
            0 => IDLE,
            seconds => {
                let less = Duration::from_secs(seconds.saturating_sub(1).into());
                less.min(LONGEST_IDLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, NEW, Notes};
    use std::num::NonZeroUsize;
    use std::time::Duration;

    fn notes() -> Notes {
        Notes::of(1, NonZeroUsize::MIN)
    }

    #[test]
    fn trust_is_earned_slowly_and_lost_at_once() {
        let notes = notes();
        (0..999).for_each(|_| notes.reused());
        assert!(!notes.trusted());
        notes.reused();
        assert!(notes.trusted());
        notes.opened();
        assert!(!notes.trusted());
        (0..MOST).for_each(|_| notes.reused());
        (0..100).for_each(|_| notes.opened());
        assert!(notes.trusted(), "a burst of new connections is no breach");
        notes.deceived();
        assert!(!notes.trusted());
    }

    #[test]
    fn a_promise_is_believed_until_it_is_broken() {
        let notes = notes();
        notes.promised();
        assert!(notes.trusted());
        notes.deceived();
        notes.promised();
        assert!(!notes.trusted());
        (0..1000).for_each(|_| notes.reused());
        assert!(notes.trusted(), "a record still counts");
    }

    #[test]
    fn who_closes_every_few_answers_never_earns_trust() {
        let notes = notes();
        for _ in 0..10_000 {
            notes.opened();
            (0..NEW - 1).for_each(|_| notes.reused());
            assert!(!notes.trusted());
        }
    }

    #[test]
    fn a_connection_is_kept_a_second_less_than_the_release_says() {
        for (says, kept) in [
            ("timeout=5", 4),
            ("max=100, Timeout = 7", 6),
            ("timeout=1", 0),
            ("timeout=86400", 30),
            ("max=100", 1),
            ("timeout=soon", 1),
            ("", 1),
        ] {
            let notes = notes();
            notes.hear(says.as_bytes());
            assert_eq!(notes.idle(), Duration::from_secs(kept), "{says:?}");
        }
    }
}
