//! Who is inside, and whether they are asked to leave. One door for each listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// What the connections of a listener are told. Each says all that the ones before it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing.
    Serve = 0,
    /// Answers tell the client to close.
    Finish = 1,
    /// Connections between two requests close.
    CloseIdle = 2,
    /// Connections that never had a request close, too.
    CloseNew = 3,
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
}

impl Door {
    pub(crate) fn new() -> Self {
        Self {
            inside: Arc::new(Inside {
                order: AtomicU8::new(Order::Serve as u8),
                guests: AtomicUsize::new(0),
                left: Notify::new(),
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
            1 => Order::Finish,
            2 => Order::CloseIdle,
            _ => Order::CloseNew,
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
