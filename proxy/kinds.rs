//! What kinds of requests a pool has in flight: they end in different ways, and may take different
//! times to do so.

use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Numbers of requests in flight, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Those that have an end in sight.
    pub requests: usize,
    /// WebSockets.
    pub websockets: usize,
    /// Event streams, connections upgraded to something else than WebSocket, and answers of unknown
    /// length that go on after the time for requests was over.
    pub streams: usize,
}

impl Open {
    /// All of them.
    pub fn total(&self) -> usize {
        self.requests + self.websockets + self.streams
    }

    /// As labels name them.
    pub(crate) fn by_kind(&self) -> [(&'static str, usize); 3] {
        [
            ("requests", self.requests),
            ("websockets", self.websockets),
            ("streams", self.streams),
        ]
    }
}

impl Add for Open {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            websockets: self.websockets + other.websockets,
            streams: self.streams + other.streams,
        }
    }
}

impl AddAssign for Open {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Open {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

/// What a request has turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing else, so far.
    #[default]
    Request = 0,
    /// An answer of unknown length: a request, until the time for requests is over.
    Long = 1,
    Stream = 2,
    WebSocket = 3,
}

impl Kind {
    pub(crate) fn of(number: u8) -> Self {
        match number {
            1 => Self::Long,
            2 => Self::Stream,
            3 => Self::WebSocket,
            _ => Self::Request,
        }
    }
}

/// Counts the kinds of a pool. Ordinary requests are not counted here, so they cost nothing: they
/// are the tickets that are not anything else.
#[derive(Default)]
pub(crate) struct Kinds {
    long: AtomicUsize,
    streams: AtomicUsize,
    websockets: AtomicUsize,
    /// Whether the time for requests is over.
    late: AtomicBool,
    /// Rung when a request becomes something else.
    pub(crate) changed: Notify,
    cut: [AtomicUsize; 3],
}

impl Kinds {
    /// A request that was `before` is now `after`.
    pub(crate) fn change(&self, before: Kind, after: Kind) {
        if let Some(count) = self.count(before) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(count) = self.count(after) {
            count.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// Says whether long answers count as streams from now on.
    pub(crate) fn set_late(&self, late: bool) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// What so many tickets are.
    pub(crate) fn open(&self, tickets: usize) -> Open {
        let websockets = self.websockets.load(Ordering::Relaxed);
        let long = match self.late.load(Ordering::Relaxed) {
            true => self.long.load(Ordering::Relaxed),
            false => 0,
        };
        let streams = self.streams.load(Ordering::Relaxed) + long;
        Open {
            requests: tickets.saturating_sub(websockets + streams),
            websockets,
            streams,
        }
    }

    /// A request of this kind was ended from outside.
    pub(crate) fn was_cut(&self, kind: Kind) {
        let [requests, websockets, streams] = &self.cut;
        let count = match kind {
            Kind::Request => requests,
            Kind::Long | Kind::Stream => streams,
            Kind::WebSocket => websockets,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What was ended from outside since this was asked last.
    pub(crate) fn take_cut(&self) -> Open {
        let [requests, websockets, streams] =
            self.cut.each_ref().map(|it| it.swap(0, Ordering::Relaxed));
        Open {
            requests,
            websockets,
            streams,
        }
    }

    fn count(&self, kind: Kind) -> Option<&AtomicUsize> {
        match kind {
            Kind::Request => None,
            Kind::Long => Some(&self.long),
            Kind::Stream => Some(&self.streams),
            Kind::WebSocket => Some(&self.websockets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_a_stream_only_once_the_time_for_requests_is_over() {
        let kinds = Kinds::default();
        for kind in [Kind::Long, Kind::WebSocket, Kind::Stream] {
            kinds.change(Kind::Request, kind);
        }
        let open = |requests, websockets, streams| Open {
            requests,
            websockets,
            streams,
        };
        assert_eq!(kinds.open(5), open(3, 1, 1));
        kinds.set_late(true);
        assert_eq!(kinds.open(5), open(2, 1, 2));
        kinds.change(Kind::Long, Kind::Request);
        assert_eq!(kinds.open(4), open(2, 1, 1));
    }
}
