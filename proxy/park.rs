//! The park: where requests wait while nothing can serve their service for a moment. One for each
//! service, as long as the service is in the routes.
//!
//! Knows who waits, in which order, and that the split has changed; nothing of HTTP, of clocks or of
//! why the service is parked. What it promises: who enters and then finds the service still parked
//! is told of the next split. For that the split is changed first and the bell rung after, and a
//! request enters first and looks at the split after. `model` has the proof.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sync::{Mutex, lock};

/// How many requests may wait in a park, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait at a time; the next one is refused. 0: all are.
    pub max: usize,
    /// How long one waits, from when it came, before it is refused.
    pub time: Duration,
}

/// See the head of this file.
#[derive(Default)]
pub struct Park {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// The last number given to one who waits.
    last: u64,
    /// How often the bell was rung.
    rung: u64,
    /// Who waits, by number: first come, first called. Nobody to wake where the look at the split is
    /// still to come.
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl Park {
    /// Takes a place, the last in the row; none if `max` are taken. Whoever has one must look at the
    /// split once more before waiting for the bell.
    pub(crate) fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let mut inside = lock(&self.inside);
        if inside.waiting.len() >= max {
            return None;
        }
        inside.last += 1;
        let number = inside.last;
        inside.waiting.insert(number, None);
        Some(Place {
            number,
            heard: inside.rung,
            park: self.clone(),
        })
    }

    /// The split has changed: everybody looks again, who came first being called first. All of them
    /// at once, so that no end of one of them can keep the word from the next.
    pub(crate) fn ring(&self) {
        let wakers: Vec<Waker> = {
            let mut inside = lock(&self.inside);
            inside.rung = inside.rung.wrapping_add(1);
            let waiting = inside.waiting.values_mut();
            waiting.filter_map(Option::take).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.inside).waiting.len()
    }
}

impl fmt::Debug for Park {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Park")
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// A place in a park; given up by being dropped, on whatever path.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    /// The bell, as far as it was heard.
    heard: u64,
    park: Arc<Park>,
}

impl Place {
    /// Whether it is in this park.
    pub(crate) fn is_in(&self, park: &Arc<Park>) -> bool {
        Arc::ptr_eq(&self.park, park)
    }

    /// Resolves when the bell was rung since the place was taken, or since this last resolved.
    pub(crate) fn rung(&mut self) -> Rung<'_> {
        Rung { place: self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = lock(&self.park.inside).waiting.remove(&self.number);
        // With the lock returned: a waker may do anything when it is dropped.
        drop(gone);
    }
}

/// See [`Place::rung`].
#[must_use = "a future does nothing unless it is awaited"]
pub(crate) struct Rung<'a> {
    place: &'a mut Place,
}

impl Future for Rung<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let place = &mut *self.place;
        let mut inside = lock(&place.park.inside);
        if inside.rung != place.heard {
            place.heard = inside.rung;
            return Poll::Ready(());
        }
        let before = inside
            .waiting
            .insert(place.number, Some(cx.waker().clone()));
        drop(inside);
        drop(before);
        Poll::Pending
    }
}

/// What a request is told that finds its service parked.
#[derive(Clone, Debug)]
pub struct Parked {
    /// How long it may wait, and beside how many others.
    pub limits: Limits,
    /// Where.
    pub(crate) park: Arc<Park>,
}

impl PartialEq for Parked {
    fn eq(&self, other: &Self) -> bool {
        self.limits == other.limits && Arc::ptr_eq(&self.park, &other.park)
    }
}

impl Eq for Parked {}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Mutex as Shared;
    use std::task::Wake;

    use super::*;

    /// Writes its number down when it is woken.
    struct Called(u64, Arc<Shared<Vec<u64>>>);

    impl Wake for Called {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn poll(place: &mut Place, waker: &Waker) -> Poll<()> {
        Pin::new(&mut place.rung()).poll(&mut Context::from_waker(waker))
    }

    #[test]
    fn who_came_first_is_called_first_and_keeps_the_place_until_it_is_given_up() {
        let (park, called) = (
            Arc::new(Park::default()),
            Arc::<Shared<Vec<u64>>>::default(),
        );
        let mut places: Vec<Place> = (0..3).map(|_| park.enter(3).unwrap()).collect();
        assert!(park.enter(3).is_none(), "all places are taken");
        let wakers: Vec<Waker> = (0..3)
            .map(|n| Waker::from(Arc::new(Called(n, called.clone()))))
            .collect();
        // In another order than they came in.
        for n in [2, 0, 1] {
            assert!(poll(&mut places[n], &wakers[n]).is_pending());
        }
        park.ring();
        assert_eq!(*called.lock().unwrap(), [0, 1, 2]);
        for n in 0..3 {
            assert!(poll(&mut places[n], &wakers[n]).is_ready());
            assert!(poll(&mut places[n], &wakers[n]).is_pending(), "once a ring");
        }
        assert_eq!(park.waiting(), 3);
        drop(places.remove(1));
        assert_eq!(park.waiting(), 2);
        assert!(park.enter(3).is_some());
    }

    #[test]
    fn a_bell_that_rang_before_anybody_waited_for_it_is_heard() {
        let park = Arc::new(Park::default());
        park.ring();
        let mut place = park.enter(1).unwrap();
        assert!(
            poll(&mut place, Waker::noop()).is_pending(),
            "that was before"
        );
        park.ring();
        assert!(poll(&mut place, Waker::noop()).is_ready());
    }

    #[test]
    fn a_park_without_places_takes_nobody() {
        assert!(Arc::new(Park::default()).enter(0).is_none());
    }
}
