//! One release's addresses, and the tickets of the requests that it is serving.
//!
//! Knows nothing of routes, of splits or of HTTP. A pool counts on one seat per shard, so that
//! requests on different cores do not write to the same cache line; the sum is taken only by the
//! one who waits for it.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use hotctl_config::{Address, ReleaseId, ServiceName, Slot};

use crate::instances::{Instances, Standing, bit};
#[cfg(feature = "serve")]
use crate::kinds::{Kind, Open};
#[cfg(feature = "serve")]
use crate::streak::Streak;
use crate::sync::{AtomicUsize, Mutex, Padded, lock};

/// The addresses of one running release. A clone is another handle to the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    seats: Arc<[Arc<Seat>]>,
}

impl Pool {
    /// A pool of `release` in `slot`, with no ticket taken.
    ///
    /// Each address is an instance, and its number is its place: `first` is 0. There is always a
    /// `first`, so a pool cannot be empty. A request goes to the instance with the fewest requests in
    /// flight, of equals in turn. `shards` should be what the switch was made with: another number works,
    /// it only makes cores share counters.
    pub fn new(
        release: ReleaseId,
        slot: Slot,
        first: Address,
        more: &[Address],
        shards: NonZeroUsize,
    ) -> Self {
        // Unique in the process, never reused: what a connection does for one pool can then not be
        // taken for another's. 0 says that it does nothing.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let instances = Instances::new(first, more);
        let shared = Arc::new(Shared {
            release,
            slot,
            #[cfg(feature = "serve")]
            notes: crate::notes::Notes::of(instances.addresses().count(), shards),
            instances,
            group_key: NEXT.fetch_add(1, Ordering::Relaxed),
            waiting: Mutex::new(Vec::new()),
        });
        let seats = (0..shards.get())
            .map(|_| {
                Arc::new(Seat {
                    tickets: Padded(AtomicUsize::new(0)),
                    turn: AtomicU64::new(0),
                    shared: shared.clone(),
                })
            })
            .collect();
        Self { shared, seats }
    }

    /// The release that the pool serves.
    pub fn release(&self) -> &ReleaseId {
        &self.shared.release
    }

    /// Where the release runs.
    pub fn slot(&self) -> Slot {
        self.shared.slot
    }

    /// The addresses of all instances in their order, at least one.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.shared.instances.addresses()
    }

    /// Says whether an instance may get new requests. At first all are up.
    ///
    /// One that comes up begins with a clean record. One that is down gets none while another is up. The last one never leaves: it goes on until
    /// another comes up, and leaves then. A number that no instance has changes nothing.
    pub fn set(&self, instance: usize, standing: Standing) {
        #[cfg(feature = "serve")]
        if standing == Standing::Up {
            self.notes().streaks.forget(instance);
        }
        self.shared.instances.set(instance, standing);
    }

    /// Whether an instance gets new requests, which the last one does, whatever was said of it.
    /// Nothing if no instance has that number.
    pub fn standing(&self, instance: usize) -> Option<Standing> {
        self.shared.instances.standing(instance)
    }

    /// A number that no other pool of this process has or had.
    pub fn group_key(&self) -> u64 {
        self.shared.group_key
    }

    /// The requests in flight on this pool, now. Exact once the pool is out of every split;
    /// while it is in one, a number that was about right a moment ago.
    pub fn tickets(&self) -> usize {
        self.seats
            .iter()
            .map(|seat| seat.tickets.load(Ordering::Acquire) & !RETIRING)
            .sum()
    }

    /// Resolves when no ticket is out. It can be awaited by several at once, and again.
    ///
    /// It only means something for a pool that is out of every split, see [`crate::Switch::split`].
    pub fn drained(&self) -> Drained<'_> {
        Drained { pool: self }
    }

    /// The seat that a shard of the switch counts on.
    pub(crate) fn seat(&self, shard: usize) -> Arc<Seat> {
        // Never empty, see `new`.
        self.seats[shard % self.seats.len()].clone()
    }

    /// Is it the same pool, not only the same release?
    pub(crate) fn is(&self, other: &Pool) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn downgrade(&self) -> WeakPool {
        WeakPool {
            shared: Arc::downgrade(&self.shared),
            seats: Arc::downgrade(&self.seats),
        }
    }
}

#[cfg(feature = "serve")]
impl Pool {
    /// The requests in flight by kind. All together they are [`Pool::tickets`].
    pub fn open(&self) -> Open {
        self.notes().kinds.open(self.tickets())
    }

    /// Resolves when `limit` requests in a row have failed, over the whole pool; at once if they have
    /// already. 0: never.
    ///
    /// A request fails that gets no usable answer after all tries, or one of 500 to 599, or that could
    /// not be connected for half a second, whatever becomes of it then. One whose client left counts
    /// neither way. It may be awaited by several at once.
    pub fn failing(&self, limit: u32) -> impl Future<Output = Streak> + Send + use<> {
        let pool = self.clone();
        async move { pool.notes().streaks.pool.reached(limit).await }
    }

    /// Resolves with the first instance at which `limit` requests in a row have failed. Here a try
    /// that failed counts, too, if the request was then given to another instance. 0: never.
    ///
    /// The failures of that instance are then counted from the beginning, so that it can be called
    /// again for the next.
    pub fn instance_failing(
        &self,
        limit: u32,
    ) -> impl Future<Output = (usize, Streak)> + Send + use<> {
        let pool = self.clone();
        async move { pool.notes().streaks.instance(limit).await }
    }

    /// Ends all requests in flight now and waits until they are over, which takes a moment where
    /// there are WebSockets: these get a Close frame (1012) and 3 s to answer, all else is reset. Says
    /// what was ended. The pool must be out of every split.
    pub async fn cut_now(&self) -> Open {
        crate::drain::cut(self).await
    }

    /// Closes the upstream connections that are kept for the next request, so that a server which
    /// waits for them can stop at once. Says how many. Those with a request in flight stay. The pool
    /// must be out of every split, or new ones come.
    pub fn close_idle(&self) -> usize {
        self.notes().kept.close()
    }

    /// What serving remembers about it.
    pub(crate) fn notes(&self) -> &crate::notes::Notes {
        &self.shared.notes
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("release", &self.shared.release.to_string())
            .field("slot", &self.shared.slot.0)
            .field("addresses", &self.addresses().collect::<Vec<_>>())
            .field("tickets", &self.tickets())
            .finish()
    }
}

/// A pool that may be gone. It is there as long as anybody holds it, a ticket does not count.
pub(crate) struct WeakPool {
    shared: std::sync::Weak<Shared>,
    seats: std::sync::Weak<[Arc<Seat>]>,
}

impl WeakPool {
    pub(crate) fn upgrade(&self) -> Option<Pool> {
        Some(Pool {
            shared: self.shared.upgrade()?,
            seats: self.seats.upgrade()?,
        })
    }
}

/// One request in flight. It counts until it is dropped, on whatever path, panics included.
pub struct Ticket {
    seat: Arc<Seat>,
    instance: usize,
    #[cfg(feature = "serve")]
    kind: Kind,
}

impl Ticket {
    /// Where this request goes.
    pub fn address(&self) -> &Address {
        self.seat.shared.instances.address(self.instance)
    }

    /// The instance that it goes to, by its place in the pool.
    pub fn instance(&self) -> usize {
        self.instance
    }

    /// Whether the pool has an instance that may serve and that a request has not tried yet.
    pub fn has_untried(&self, tried: &Tried) -> bool {
        let tried = tried.of(&self.seat.shared);
        self.seat.shared.instances.has_untried(tried)
    }

    /// The release that serves it.
    pub fn release(&self) -> &ReleaseId {
        &self.seat.shared.release
    }

    /// The service that it belongs to.
    pub fn service(&self) -> &ServiceName {
        &self.seat.shared.release.service
    }

    /// The slot that the release runs in.
    pub fn slot(&self) -> Slot {
        self.seat.shared.slot
    }

    /// The number of the pool, see [`Pool::group_key`].
    pub fn group_key(&self) -> u64 {
        self.seat.shared.group_key
    }

    /// The request has turned out to be of this kind.
    #[cfg(feature = "serve")]
    pub(crate) fn becomes(&mut self, kind: Kind) {
        if self.kind != kind {
            self.notes().kinds.change(self.kind, kind);
            self.kind = kind;
        }
    }

    /// What serving remembers about the pool.
    #[cfg(feature = "serve")]
    pub(crate) fn notes(&self) -> &crate::notes::Notes {
        &self.seat.shared.notes
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket of {} at {}", self.release(), self.address())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.seat.shared.instances.give_back(self.instance);
        #[cfg(feature = "serve")]
        self.becomes(Kind::Request);
        // Release: what the request did happens before the end of the drain. Acquire: if the
        // mark is seen, so is the waker that was registered before it was set.
        let before = self.seat.tickets.fetch_sub(1, Ordering::AcqRel);
        // The sum over the seats can only have become 0 where one seat became 0.
        if before == RETIRING | 1 {
            self.seat.shared.wake();
        }
    }
}

/// The instances that a request has tried, as far as they are of the pool that it tried last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// The key of that pool.
    pool: u64,
    /// A bit for each instance.
    instances: u64,
}

impl Tried {
    /// Adds the instance of a ticket.
    pub fn add(&mut self, ticket: &Ticket) {
        let shared = &ticket.seat.shared;
        *self = Self {
            pool: shared.group_key,
            instances: self.of(shared) | bit(ticket.instance),
        };
    }

    /// Whether it has the instance of this ticket.
    pub fn has(&self, ticket: &Ticket) -> bool {
        self.of(&ticket.seat.shared) & bit(ticket.instance) != 0
    }

    fn of(&self, pool: &Shared) -> u64 {
        match self.pool == pool.group_key {
            true => self.instances,
            false => 0,
        }
    }
}

/// Set in a seat's count once somebody has waited for the pool to drain: from then on the last
/// ticket of the seat wakes the waiters. It stays set: a pool that goes live again pays one
/// look into an empty list for it, now and then.
const RETIRING: usize = 1 << (usize::BITS - 1);

/// What the tickets of one shard share. Only that shard's picks write to it, and the ends of
/// the requests that it picked for.
pub(crate) struct Seat {
    tickets: Padded<AtomicUsize>,
    turn: AtomicU64,
    shared: Arc<Shared>,
}

impl Seat {
    /// Takes a ticket. The caller must hold its shard of the split for reading, or the ticket
    /// could be missed by a retirement.
    pub(crate) fn take(self: &Arc<Self>, tried: &Tried) -> Ticket {
        // Relaxed is enough: the lock that the caller holds orders it before the end of `split`.
        self.tickets.fetch_add(1, Ordering::Relaxed);
        // Only what matters of a number that wraps around is its rest.
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let instance = self.shared.instances.take(turn, tried.of(&self.shared));
        Ticket {
            seat: self.clone(),
            instance,
            #[cfg(feature = "serve")]
            kind: Kind::Request,
        }
    }
}

/// What a pool is, apart from its counts. Read by every pick, written by none, except for the
/// counters of the instances where there are several.
struct Shared {
    release: ReleaseId,
    slot: Slot,
    instances: Instances,
    group_key: u64,
    waiting: Mutex<Vec<Waker>>,
    #[cfg(feature = "serve")]
    notes: crate::notes::Notes,
}

impl Shared {
    fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for waker in waiting {
            waker.wake();
        }
    }
}

/// See [`Pool::drained`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Drained<'a> {
    pool: &'a Pool,
}

impl Future for Drained<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The order is the protocol: first the waker, then the mark, and the count is what the
        // mark was set on. A ticket that ends before the mark is missing from the count; one that
        // ends after it finds the mark, and with it the waker.
        {
            let mut waiting = lock(&self.pool.shared.waiting);
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        let open: usize = self
            .pool
            .seats
            .iter()
            .map(|seat| seat.tickets.fetch_or(RETIRING, Ordering::AcqRel) & !RETIRING)
            .sum();
        match open {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
