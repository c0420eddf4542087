//! Failures in a row: the evidence that a release, or one of its instances, does not work.
//!
//! What a failure is, is decided in `request`; what follows from it, by whoever waits here. As
//! long as all goes well nothing is written.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many requests have failed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    /// How many, since the last one that went well.
    pub count: u32,
    /// The last of them in words, such as `GET /x: status 500`.
    pub last: String,
}

/// The streaks of a pool.
pub(crate) struct Streaks {
    pub(crate) pool: Row,
    /// By index.
    pub(crate) instances: Box<[Row]>,
}

impl Streaks {
    pub(crate) fn of(instances: usize) -> Self {
        Self {
            pool: Row::default(),
            instances: (0..instances).map(|_| Row::default()).collect(),
        }
    }

    /// An instance has answered well, and so has the pool.
    pub(crate) fn well(&self, instance: usize) {
        self.pool.well();
        self.forget(instance);
    }

    /// What was held against an instance is forgotten.
    pub(crate) fn forget(&self, instance: usize) {
        if let Some(row) = self.instances.get(instance) {
            row.well();
        }
    }

    /// A request has failed at an instance.
    pub(crate) fn instance_failed(&self, instance: usize, what: &str) {
        if let Some(row) = self.instances.get(instance) {
            row.failed(what);
        }
    }

    /// Resolves with the first instance whose streak is as long as `limit`. From then on its
    /// failures are counted anew, so that this can be called again.
    pub(crate) async fn instance(&self, limit: u32) -> (usize, Streak) {
        let rows = self.instances.iter();
        let mut waits: Vec<_> = rows.map(|row| Box::pin(row.reached(limit))).collect();
        let (index, streak) = std::future::poll_fn(|cx| {
            let polled = waits.iter_mut().enumerate();
            polled
                .map(|(index, wait)| wait.as_mut().poll(cx).map(|streak| (index, streak)))
                .find(std::task::Poll::is_ready)
                .unwrap_or(std::task::Poll::Pending)
        })
        .await;
        drop(waits);
        self.forget(index);
        (index, streak)
    }
}

/// One streak.
#[derive(Default)]
pub(crate) struct Row {
    count: AtomicU32,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: String,
    waiting: Vec<Waiting>,
}

struct Waiting {
    limit: u32,
    tell: oneshot::Sender<Streak>,
}

impl Row {
    /// Where there was no failure, which is nearly always, this only reads.
    pub(crate) fn well(&self) {
        if self.count.load(Ordering::Relaxed) != 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, what: &str) {
        let mut told = self.told();
        let count = self.count.load(Ordering::Relaxed).saturating_add(1);
        self.count.store(count, Ordering::Relaxed);
        told.last = what.into();
        let (reached, waiting) = std::mem::take(&mut told.waiting)
            .into_iter()
            .filter(|it| !it.tell.is_closed())
            .partition(|it| it.limit <= count);
        told.waiting = waiting;
        let reached: Vec<Waiting> = reached;
        for one in reached {
            // Whoever has stopped waiting misses nothing.
            let _ = one.tell.send(Streak {
                count,
                last: what.into(),
            });
        }
    }

    /// Resolves once the streak is as long as `limit`, which is at once if it is already. Told at the
    /// failure itself: a success right after it does not take it back. 0: never.
    pub(crate) async fn reached(&self, limit: u32) -> Streak {
        if limit == 0 {
            return std::future::pending().await;
        }
        let told = {
            let mut told = self.told();
            let count = self.count.load(Ordering::Relaxed);
            if count >= limit {
                return Streak {
                    count,
                    last: told.last.clone(),
                };
            }
            let (tell, hear) = oneshot::channel();
            told.waiting.push(Waiting { limit, tell });
            hear
        };
        match told.await {
            Ok(streak) => streak,
            // The sender goes only after it has spoken.
            Err(_) => std::future::pending().await,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let row = Row::default();
        let mut three = pin!(row.reached(3));
        assert!(poll(three.as_mut()).is_pending());
        for what in ["a", "b"] {
            row.failed(what);
        }
        row.well();
        for what in ["c", "d"] {
            row.failed(what);
        }
        assert!(poll(three.as_mut()).is_pending());
        row.failed("e");
        // Too late to change anything.
        row.well();
        let streak = Streak {
            count: 3,
            last: "e".into(),
        };
        assert_eq!(poll(three), Poll::Ready(streak));
    }

    #[test]
    fn whoever_comes_late_hears_at_once_and_limit_0_never() {
        let row = Row::default();
        (0..5).for_each(|_| row.failed("x"));
        assert!(poll(pin!(row.reached(5))).is_ready());
        assert!(poll(pin!(row.reached(6))).is_pending());
        assert!(poll(pin!(row.reached(0))).is_pending());
    }

    #[test]
    fn an_instance_that_was_told_of_is_counted_anew() {
        let streaks = Streaks::of(3);
        (0..2).for_each(|_| streaks.instance_failed(1, "x"));
        let mut first = pin!(streaks.instance(2));
        assert!(matches!(poll(first.as_mut()), Poll::Ready((1, _))));
        let mut second = pin!(streaks.instance(2));
        assert!(poll(second.as_mut()).is_pending());
        streaks.instance_failed(2, "y");
        streaks.instance_failed(1, "x");
        assert!(poll(second.as_mut()).is_pending());
        streaks.instance_failed(2, "y");
        assert!(matches!(poll(second.as_mut()), Poll::Ready((2, _))));
    }
}
