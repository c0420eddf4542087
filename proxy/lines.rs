//! The clients' connections, as far as a drain must reach them: what each is doing for which pool,
//! and what it is told from outside.
//!
//! A connection has one line for its whole life. Only the task of the connection says on it what it
//! is doing, and only that task obeys, so an order cannot hit a request that came later.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::kinds::Kind;
use crate::pool::Pool;

/// All lines of a proxy.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Known>);

#[derive(Default)]
struct Known {
    lines: Vec<Weak<Line>>,
    /// When there are so many, those that are gone are forgotten.
    most: usize,
}

impl Lines {
    /// The line of a new connection.
    pub(crate) fn add(&self) -> Arc<Line> {
        /// Below this it is not worth looking.
        const FEW: usize = 64;
        let line = Arc::new(Line::new());
        let mut known = locked(&self.0);
        if known.lines.len() >= known.most {
            known.lines.retain(|line| line.strong_count() > 0);
            known.most = (known.lines.len() * 2).max(FEW);
        }
        known.lines.push(Arc::downgrade(&line));
        line
    }

    /// Those that do something for the pool of this key, with what it is.
    pub(crate) fn of(&self, pool: u64) -> Vec<(Arc<Line>, Kind)> {
        let known = locked(&self.0);
        let lines = known.lines.iter().filter_map(Weak::upgrade);
        lines
            .filter_map(|line| {
                let kind = line.doing(pool)?;
                Some((line, kind))
            })
            .collect()
    }
}

/// How a request is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its connection is reset.
    Cut,
    /// Both sides get a Close frame with this code, and a moment to answer it.
    Close(u16),
}

/// See the head of this file.
pub(crate) struct Line {
    /// The key of the pool that the present request has a ticket of; 0: none.
    pool: AtomicU64,
    kind: AtomicU8,
    order: Mutex<Option<(Pool, End)>>,
    bell: Notify,
    /// Where in a spread this one comes, 0 to 1.
    lot: f64,
    /// The code of the Close frames to say; 0: none.
    farewell: AtomicU32,
    /// What the connection is told without words.
    cut: AtomicBool,
    over: AtomicBool,
    client_closed: AtomicBool,
    release_closed: AtomicBool,
}

const NONE: u64 = 0;

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            pool: AtomicU64::new(NONE),
            kind: AtomicU8::new(Kind::Request as u8),
            order: Mutex::new(None),
            bell: Notify::new(),
            lot: fastrand::f64(),
            farewell: AtomicU32::new(0),
            cut: AtomicBool::new(false),
            over: AtomicBool::new(false),
            client_closed: AtomicBool::new(false),
            release_closed: AtomicBool::new(false),
        }
    }

    /// A request has a ticket of this pool.
    pub(crate) fn begin(&self, pool: u64) {
        self.kind.store(Kind::Request as u8, Ordering::Relaxed);
        self.pool.store(pool, Ordering::Release);
    }

    pub(crate) fn becomes(&self, kind: Kind) {
        self.kind.store(kind as u8, Ordering::Release);
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.kind.load(Ordering::Acquire))
    }

    /// The request is over.
    pub(crate) fn end(&self) {
        self.pool.store(NONE, Ordering::Release);
    }

    pub(crate) fn lot(&self) -> f64 {
        self.lot
    }

    fn doing(&self, pool: u64) -> Option<Kind> {
        (self.pool.load(Ordering::Acquire) == pool).then(|| self.kind())
    }

    /// Orders the end of what is done for a pool. It comes to nothing if that is over by then.
    pub(crate) fn tell(&self, pool: &Pool, end: End) {
        *locked(&self.order) = Some((pool.clone(), end));
        self.bell.notify_one();
    }

    /// Resolves when there is an order to obey; for the connection's task, which must then let the
    /// connection go on until it is done.
    pub(crate) async fn told(&self) -> End {
        loop {
            // A permit is kept, so an order that comes in between is not missed.
            self.bell.notified().await;
            let Some((pool, end)) = locked(&self.order).take() else {
                continue;
            };
            let Some(kind) = self.doing(pool.group_key()) else {
                continue;
            };
            if self.is_ending() {
                continue;
            }
            pool.notes().kinds.was_cut(kind);
            match (end, kind) {
                (End::Close(code), Kind::WebSocket) => {
                    self.farewell.store(code.into(), Ordering::Relaxed);
                    return end;
                }
                // It is a WebSocket no longer, or none yet.
                (End::Close(_) | End::Cut, _) => {
                    self.cut.store(true, Ordering::Relaxed);
                    return End::Cut;
                }
            }
        }
    }

    /// Whether an order was obeyed: nothing more will happen on this connection.
    fn is_ending(&self) -> bool {
        self.is_cut() || self.farewell().is_some()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The code of the Close frame that each side is to get, once there is one.
    pub(crate) fn farewell(&self) -> Option<u16> {
        match self.farewell.load(Ordering::Relaxed) {
            0 => None,
            code => u16::try_from(code).ok(),
        }
    }

    /// The client has said its Close frame.
    pub(crate) fn client_closed(&self) {
        self.client_closed.store(true, Ordering::Relaxed);
    }

    /// The release has.
    pub(crate) fn release_closed(&self) {
        self.release_closed.store(true, Ordering::Relaxed);
    }

    /// Whether both have.
    pub(crate) fn is_parted(&self) -> bool {
        self.client_closed.load(Ordering::Relaxed) && self.release_closed.load(Ordering::Relaxed)
    }

    /// What comes from the client is over: nobody waits for more.
    pub(crate) fn hang_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
