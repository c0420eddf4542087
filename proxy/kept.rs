//! The connections to a release that wait for its next request.
//!
//! Who needs one gets the one that was used last, so that there are never more than were needed at once, and
//! those too many grow old and are closed. Each thread puts them by on a shelf of its own, and looks at those
//! of others where it finds nothing.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::switch::home;
use crate::sync::{Mutex, Padded, lock};
use crate::upstream::Upstream;

/// See the head of this file.
pub(crate) struct Kept {
    shelves: Box<[Padded<Mutex<Vec<Idle>>>]>,
    /// How often it was looked after them: all the time that is needed, and no clock is asked.
    looks: AtomicU64,
    /// Whether somebody looks after them.
    tended: AtomicBool,
}

/// How often it is looked after them, as long as there are some.
const LOOK: Duration = Duration::from_millis(250);

struct Idle {
    upstream: Box<Upstream>,
    /// Which of the pool's instances it leads to.
    instance: usize,
    /// At which look it is closed.
    until: u64,
}

impl Kept {
    /// For so many threads.
    pub(crate) fn of(threads: NonZeroUsize) -> Self {
        Self {
            shelves: (0..threads.get())
                .map(|_| Padded(Mutex::new(Vec::new())))
                .collect(),
            looks: AtomicU64::new(0),
            tended: AtomicBool::new(false),
        }
    }

    /// One to an instance that can be used, as far as can be seen.
    pub(crate) fn take(&self, instance: usize) -> Option<Box<Upstream>> {
        let mine = home() % self.shelves.len();
        let (before, after) = self.shelves.split_at(mine);
        for shelf in after.iter().chain(before) {
            loop {
                let idle = {
                    let mut shelf = lock(shelf);
                    let found = shelf.iter().rposition(|idle| idle.instance == instance);
                    found.map(|at| shelf.swap_remove(at))
                };
                let Some(idle) = idle else {
                    break;
                };
                if idle.upstream.is_quiet() {
                    return Some(idle.upstream);
                }
            }
        }
        None
    }

    /// Puts one by, for so long at the most.
    pub(crate) fn put(self: &Arc<Self>, upstream: Box<Upstream>, instance: usize, time: Duration) {
        if time.is_zero() {
            return;
        }
        let looks = u64::try_from(time.as_millis() / LOOK.as_millis()).unwrap_or(u64::MAX);
        let idle = Idle {
            upstream,
            instance,
            until: self.looks.load(Ordering::Relaxed).saturating_add(looks),
        };
        lock(&self.shelves[home() % self.shelves.len()]).push(idle);
        if !self.tended.load(Ordering::Relaxed) && !self.tended.swap(true, Ordering::Relaxed) {
            tokio::spawn(tend(Arc::downgrade(self)));
        }
    }

    /// Closes all; says how many.
    pub(crate) fn close(&self) -> usize {
        let all = self.shelves.iter();
        all.map(|shelf| std::mem::take(&mut *lock(shelf)).len())
            .sum()
    }

    /// Closes those that are too old, or that the release has closed. Says whether there are more.
    fn weed(&self) -> bool {
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let mut any = false;
        for shelf in &self.shelves {
            let mut shelf = lock(shelf);
            let is_gone = |idle: &mut Idle| idle.until <= look || !idle.upstream.is_quiet();
            let gone: Vec<Idle> = shelf.extract_if(.., is_gone).collect();
            any |= !shelf.is_empty();
            // Closed when the lock is no longer held.
            drop(shelf);
            drop(gone);
        }
        any
    }
}

/// Looks after those that nobody takes, until there is none.
async fn tend(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(kept) = kept.upgrade() else {
            return;
        };
        if kept.weed() {
            continue;
        }
        kept.tended.store(false, Ordering::SeqCst);
        // One may have come in between, and have found somebody here.
        if !kept.weed() || kept.tended.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use std::os::fd::{AsFd, AsRawFd};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(60);

    fn kept() -> Arc<Kept> {
        Arc::new(Kept::of(NonZeroUsize::MIN))
    }

    /// A connection, and the release's end of it.
    async fn connected() -> (Box<Upstream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let ours = Upstream::connect(&address, LONG).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    fn number(upstream: &Upstream) -> i32 {
        upstream.as_fd().as_raw_fd()
    }

    #[tokio::test]
    async fn the_one_that_was_used_last_is_next_of_those_to_the_same_instance() {
        let kept = kept();
        let mut others = Vec::new();
        let mut numbers = Vec::new();
        for instance in [0, 1, 0] {
            let (ours, theirs) = connected().await;
            numbers.push(number(&ours));
            others.push(theirs);
            kept.put(ours, instance, LONG);
        }
        let taken = |instance| kept.take(instance).map(|it| number(&it));
        assert_eq!(taken(0), Some(numbers[2]));
        assert_eq!(taken(1), Some(numbers[1]));
        assert_eq!(taken(0), Some(numbers[0]));
        assert_eq!(taken(0), None);
    }

    #[tokio::test]
    async fn one_that_the_release_has_closed_or_spoken_on_is_not_used() {
        let kept = kept();
        let (closed, theirs) = connected().await;
        drop(theirs);
        let (spoken, theirs) = connected().await;
        theirs.try_write(b"HTTP/1.1 408 \r\n\r\n").unwrap();
        for ours in [closed, spoken] {
            // What the runtime has heard of it is what counts.
            while ours.is_quiet() {
                tokio::task::yield_now().await;
            }
            kept.put(ours, 0, LONG);
        }
        assert!(kept.take(0).is_none());
    }

    #[tokio::test]
    async fn those_that_nobody_takes_are_closed_when_their_time_is_over() {
        let kept = kept();
        let (mut others, mut numbers) = (Vec::new(), Vec::new());
        for time in [Duration::from_millis(1), LONG, Duration::ZERO] {
            let (ours, theirs) = connected().await;
            numbers.push(number(&ours));
            others.push(theirs);
            kept.put(ours, 0, time);
        }
        for gone in [0, 2] {
            assert_eq!(others[gone].read(&mut [0]).await.unwrap(), 0);
        }
        assert_eq!(kept.take(0).map(|it| number(&it)), Some(numbers[1]));
    }

    #[tokio::test]
    async fn all_are_closed_where_that_is_asked_for() {
        let kept = kept();
        let (ours, mut theirs) = connected().await;
        kept.put(ours, 0, LONG);
        assert_eq!(kept.close(), 1);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(kept.close(), 0);
    }

    #[tokio::test]
    async fn somebody_looks_after_them_again_after_there_was_none() {
        let kept = kept();
        for _ in 0..2 {
            let (ours, mut theirs) = connected().await;
            kept.put(ours, 0, Duration::from_millis(1));
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
            while kept.tended.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
        }
    }
}
