//! Who is inside, and whether they are asked to leave. One door for each listener.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

use crate::pass::Passed;

/// Where connections go that are passed on. Without a bound, since one that goes cannot wait: there
/// are never more in it than there were connections.
pub(crate) type Way = Arc<OnceLock<UnboundedSender<Passed>>>;

/// What the connections of a listener are told. Each says all that the ones before it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing.
    Serve = 0,
    /// Connections between two requests, and those that never had one, are passed on.
    PassOn = 1,
    /// Answers tell the client to close.
    Finish = 2,
    /// Connections between two requests close.
    CloseIdle = 3,
    /// Connections that never had a request close, too.
    CloseNew = 4,
}

/// See the head of this file. Dropped, all connections end where they stand.
pub(crate) struct Door {
    inside: Arc<Inside>,
    bell: watch::Sender<()>,
}

struct Inside {
    order: AtomicU8,
    guests: AtomicUsize,
    left: Notify,
    way: Way,
}

impl Door {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            inside: Arc::new(Inside {
                order: AtomicU8::new(Order::Serve as u8),
                guests: AtomicUsize::new(0),
                left: Notify::new(),
                way,
            }),
            bell: watch::Sender::new(()),
        }
    }

    /// A connection comes in. The bell rings at each new order, and fails when the door is gone.
    pub(crate) fn enter(&self) -> (Guest, watch::Receiver<()>) {
        self.inside.guests.fetch_add(1, Ordering::Relaxed);
        let guest = Guest(self.inside.clone());
        (guest, self.bell.subscribe())
    }

    /// Tells all connections, those to come included.
    pub(crate) fn tell(&self, order: Order) {
        self.inside.order.store(order as u8, Ordering::Release);
        self.bell.send_replace(());
    }

    /// Resolves when nobody is inside.
    pub(crate) async fn empty(&self) {
        loop {
            // A permit is kept for who comes late, so one that left in between is not missed.
            if self.inside.guests.load(Ordering::Acquire) == 0 {
                return;
            }
            self.inside.left.notified().await;
        }
    }
}

/// One connection inside; it leaves by being dropped.
pub(crate) struct Guest(Arc<Inside>);

impl Guest {
    pub(crate) fn order(&self) -> Order {
        match self.0.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::PassOn,
            2 => Order::Finish,
            3 => Order::CloseIdle,
            _ => Order::CloseNew,
        }
    }

    /// Whether it is to be passed on as soon as that is possible, and somebody takes it.
    pub(crate) fn goes_on(&self) -> bool {
        let way = || self.0.way.get().is_some_and(|way| !way.is_closed());
        self.order() >= Order::PassOn && way()
    }

    /// Passes the connection on. If nobody takes it any more, it closes.
    pub(crate) fn pass(&self, passed: Passed) {
        if let Some(way) = self.0.way.get() {
            let _ = way.send(passed);
        }
    }
}

impl Clone for Guest {
    fn clone(&self) -> Self {
        self.0.guests.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.0.guests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_one();
        }
    }
}
