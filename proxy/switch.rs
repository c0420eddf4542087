//! The switch: the only way to change where requests go, and the only way for a request to learn
//! where it goes. Knows nothing of HTTP, of processes or of health.
//!
//! What it promises: once [`Switch::split`] has returned, no request can choose by the old split
//! any more, and every request that did is already counted, so [`Switch::retire`] cannot miss one.
//!
//! How: everything a pick reads exists once per shard, and a thread uses one shard. A pick chooses
//! and counts under a read lock of its own shard, which no other core touches. `split` takes the
//! locks of all shards of that one service for writing, then changes them all, so the change is
//! one for all cores: nobody sees the old release after anybody saw the new one. It costs the
//! same with one service or ten thousand. `model` has the proof.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use hotctl_config::ServiceName;

use crate::park::{Park, Parked};
use crate::pool::{Pool, Ticket, Tried, WeakPool};
use crate::split::{Choice, Closed, NoTicket, Split};
use crate::sync::{Mutex, Padded, RwLock, lock, read, write};
use crate::table::Table;

/// What a request asks the switch.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The host as the request has it, with or without a port, in any case; empty if it has none.
    pub host: &'a str,
    /// The path as the request has it, without the query.
    pub path: &'a str,
    /// The dice, 0 to 99: the candidate gets the rolls below its percentage.
    pub roll: u8,
    /// Instances that were tried and would rather not be tried again.
    pub tried: Tried,
}

/// Why there is no ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No service has this host and path.
    NoService,
    /// The service is there, but nothing serves it.
    Closed(ServiceName, Closed),
    /// The service is there, and nothing serves it for a moment: the request may wait.
    Parked(ServiceName, Parked),
}

/// The switch has no service of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownService(pub ServiceName);

impl fmt::Display for UnknownService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: not in the routes", self.0)
    }
}

impl std::error::Error for UnknownService {}

/// The routes are older than those in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The revision that was offered.
    pub offered: u64,
    /// The revision in force.
    pub in_force: u64,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offered, in_force } = self;
        write!(
            f,
            "routes: revision {offered} is not newer than {in_force}, which is in force"
        )
    }
}

impl std::error::Error for Stale {}

/// See the head of this file.
pub struct Switch {
    /// Each shard's own pointer to the routes.
    routes: Box<[Padded<RwLock<Arc<Routes>>>]>,
    control: Mutex<Control>,
    /// The connections that requests come on.
    #[cfg(feature = "serve")]
    lines: Arc<crate::lines::Lines>,
}

impl Switch {
    /// A switch without a service. `shards`: as many as threads will pick, the number of cores.
    pub fn new(shards: NonZeroUsize) -> Self {
        let routes = Arc::new(Routes {
            table: Table::new([]),
            services: Box::new([]),
        });
        Self {
            routes: (0..shards.get())
                .map(|_| Padded(RwLock::new(routes.clone())))
                .collect(),
            control: Mutex::new(Control {
                revision: None,
                services: HashMap::new(),
                gone: Vec::new(),
            }),
            #[cfg(feature = "serve")]
            lines: Arc::default(),
        }
    }

    /// How many shards it has; a [`Pool`] wants the same number.
    pub fn shards(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.routes.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// Replaces all routes as one document. A service that stays keeps its split, a new one is
    /// closed as [`Closed::NothingDeployed`], one that is gone gets no request any more.
    ///
    /// Refused unless `revision` is greater than that of the last publication: of two documents
    /// that race, the newer one wins.
    pub fn publish(&self, table: Table, revision: u64) -> Result<(), Stale> {
        let mut control = lock(&self.control);
        if let Some(in_force) = control.revision.filter(|&it| revision <= it) {
            return Err(Stale {
                offered: revision,
                in_force,
            });
        }
        let services: Box<[Arc<Service>]> = table
            .services()
            .iter()
            .map(|name| match control.services.get(name) {
                Some(service) => service.clone(),
                None => Arc::new(Service::new(name.clone(), self.routes.len())),
            })
            .collect();
        let by_name: HashMap<_, _> = services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect();
        let new = Arc::new(Routes { table, services });
        let mut old = Vec::with_capacity(self.routes.len());
        {
            let mut shards: Vec<_> = self.routes.iter().map(|shard| write(shard)).collect();
            for shard in &mut shards {
                old.push(std::mem::replace(&mut **shard, new.clone()));
            }
        }
        // With the locks returned, the old routes are freed, however long they are.
        drop(old);
        let before = std::mem::replace(&mut control.services, by_name);
        control.bury(before);
        control.revision = Some(revision);
        Ok(())
    }

    /// Changes who serves a service. One atomic publication: once it has returned, no request can
    /// choose by the old split, and each that did is counted in the tickets of its pool.
    pub fn split(&self, service: &ServiceName, split: Split) -> Result<(), UnknownService> {
        #[cfg(feature = "serve")]
        split
            .pools()
            .for_each(|pool| pool.notes().attach(&self.lines));
        let handle = lock(&self.control).services.get(service).cloned();
        match handle {
            Some(handle) => {
                handle.set(split);
                Ok(())
            }
            None => Err(UnknownService(service.clone())),
        }
    }

    /// The split in force, for those who show it.
    pub fn split_of(&self, service: &ServiceName) -> Option<Split> {
        let handle = lock(&self.control).services.get(service).cloned();
        handle.map(|handle| lock(&handle.state).split.clone())
    }

    /// All services of the routes in force, in no order.
    pub fn services(&self) -> Vec<ServiceName> {
        lock(&self.control).services.keys().cloned().collect()
    }

    /// All pools that were ever in a split and are still held by anybody: live ones, candidates,
    /// those that drain, those kept warm.
    pub fn pools(&self) -> Vec<Pool> {
        let control = lock(&self.control);
        let services = control.services.values().chain(&control.gone);
        services.flat_map(|service| service.pools()).collect()
    }

    /// Waits until the requests of a pool are done; those that take longer than `drain` allows are
    /// ended. Returns what was ended, by kind. The pool must be out of every split, or it never comes
    /// to its end.
    ///
    /// At the end of its time a request is cut: its connection is reset, so that nobody takes half an
    /// answer for a whole one. So is a stream; an answer of unknown length is a request until the time
    /// for requests is over, and a stream from then on. A WebSocket gets a Close frame in both
    /// directions, between two frames, and its ends have 3 s to answer. Streams and WebSockets end at
    /// random times within `drain.spread` before their time is over, and never earlier.
    ///
    /// Dropped before it is done, it ends nothing more: what was told to end by then still does.
    #[cfg(feature = "serve")]
    pub async fn retire(&self, pool: &Pool, drain: &hotctl_config::Drain) -> crate::Open {
        crate::drain::drain(pool, drain).await
    }

    #[cfg(feature = "serve")]
    pub(crate) fn lines(&self) -> &Arc<crate::lines::Lines> {
        &self.lines
    }

    /// Finds the service, chooses the release and counts the request, in one step.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<Ticket, NoRoute> {
        self.pick_on(home(), ask)
    }

    /// As `pick`, on a given shard.
    pub(crate) fn pick_on(&self, shard: usize, ask: &Ask<'_>) -> Result<Ticket, NoRoute> {
        let shard = shard % self.routes.len();
        let routes = read(&self.routes[shard]);
        let service = routes
            .table
            .find(ask.host, ask.path)
            .and_then(|index| routes.services.get(index))
            .ok_or(NoRoute::NoService)?;
        service
            .pick_on(shard, ask.roll, &ask.tried)
            .map_err(|why| match why {
                NoTicket::Closed(why) => NoRoute::Closed(service.name.clone(), why),
                NoTicket::Parked(limits) => {
                    let park = service.park.clone();
                    NoRoute::Parked(service.name.clone(), Parked { limits, park })
                }
            })
    }

    /// How many requests wait for a service now; none for one that is not in the routes.
    pub fn waiting(&self, service: &ServiceName) -> usize {
        let handle = lock(&self.control).services.get(service).cloned();
        handle.map_or(0, |handle| handle.park.waiting())
    }

    /// How many requests wait for each service now, in no order.
    pub fn parked(&self) -> Vec<(ServiceName, usize)> {
        let control = lock(&self.control);
        let services = control.services.iter();
        services
            .map(|(name, service)| (name.clone(), service.park.waiting()))
            .collect()
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = lock(&self.control);
        f.debug_struct("Switch")
            .field("shards", &self.routes.len())
            .field("revision", &control.revision)
            .field("services", &control.services.len())
            .finish()
    }
}

/// The routes in force: a table, and the service for each index that it answers with.
struct Routes {
    table: Table,
    services: Box<[Arc<Service>]>,
}

/// What only those who change something look at.
struct Control {
    revision: Option<u64>,
    services: HashMap<ServiceName, Arc<Service>>,
    /// Services that are out of the routes while somebody still holds pools of theirs.
    gone: Vec<Arc<Service>>,
}

impl Control {
    /// Keeps what left the routes and is not over yet, and forgets what is over.
    fn bury(&mut self, before: HashMap<ServiceName, Arc<Service>>) {
        let left = before
            .into_values()
            .filter(|service| match self.services.get(&service.name) {
                Some(now) => !Arc::ptr_eq(now, service),
                None => true,
            });
        for service in left {
            // Nobody picks there any more; this lets go of the pools.
            service.set(Split::Closed(Closed::NothingDeployed));
            self.gone.push(service);
        }
        self.gone.retain(|service| service.pools().next().is_some());
    }
}

/// One service: its split, and what each shard sees of it.
pub(crate) struct Service {
    name: ServiceName,
    park: Arc<Park>,
    state: Mutex<State>,
    shards: Box<[Padded<RwLock<Choice>>]>,
}

/// What a pick does not look at.
struct State {
    split: Split,
    /// All pools that were in a split of this service, as long as they live.
    pools: Vec<WeakPool>,
}

impl Service {
    pub(crate) fn new(name: ServiceName, shards: usize) -> Self {
        let split = Split::Closed(Closed::NothingDeployed);
        Self {
            name,
            park: Arc::default(),
            shards: (0..shards)
                .map(|shard| Padded(RwLock::new(split.choice(shard))))
                .collect(),
            state: Mutex::new(State {
                split,
                pools: Vec::new(),
            }),
        }
    }

    pub(crate) fn pick_on(
        &self,
        shard: usize,
        roll: u8,
        tried: &Tried,
    ) -> Result<Ticket, NoTicket> {
        read(&self.shards[shard]).take(roll, tried)
    }

    /// Where its requests wait while it is parked.
    #[cfg(all(test, loom))]
    pub(crate) fn park(&self) -> &Arc<Park> {
        &self.park
    }

    pub(crate) fn set(&self, split: Split) {
        // Held to the end: of two splits, one is last on every shard.
        let mut state = lock(&self.state);
        let mut choices: Vec<Choice> = (0..self.shards.len())
            .map(|shard| split.choice(shard))
            .collect();
        {
            let mut shards = Vec::with_capacity(self.shards.len());
            shards.extend(self.shards.iter().map(|shard| write(shard)));
            for (shard, choice) in shards.iter_mut().zip(&mut choices) {
                std::mem::swap(&mut **shard, choice);
            }
        }
        // With the locks returned, the old choices are freed.
        drop(choices);
        state.replace(split);
        drop(state);
        // After the change, never before: see `park`.
        self.park.ring();
    }

    fn pools(&self) -> impl Iterator<Item = Pool> + use<> {
        let state = lock(&self.state);
        let pools: Vec<Pool> = state.pools.iter().filter_map(WeakPool::upgrade).collect();
        pools.into_iter()
    }
}

impl State {
    fn replace(&mut self, split: Split) {
        self.pools.retain(|weak| weak.upgrade().is_some());
        for pool in split.pools() {
            let mut known = self.pools.iter().filter_map(WeakPool::upgrade);
            if !known.any(|it| it.is(pool)) {
                self.pools.push(pool.downgrade());
            }
        }
        self.split = split;
    }
}

/// The shard of this thread: threads are dealt out in the order of their first pick.
pub(crate) fn home() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HOME: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    HOME.with(|home| *home)
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::table::Route;
    use hotctl_config::{Address, ReleaseId, Slot};

    const SHARDS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

    fn name(service: &str) -> ServiceName {
        service.parse().unwrap()
    }

    /// A table with a path for each service.
    fn table(services: &[&str]) -> Table {
        Table::new(services.iter().map(|service| Route {
            service: name(service),
            hosts: vec![],
            paths: vec![format!("/{service}").parse().unwrap()],
        }))
    }

    fn pool(service: &str, number: u32, ports: &[u16]) -> Pool {
        let release = ReleaseId {
            service: name(service),
            number,
        };
        let mut addresses = ports
            .iter()
            .map(|port| Address::Inet(([127, 0, 0, 1], *port).into()));
        let first = addresses.next().unwrap();
        let more: Vec<_> = addresses.collect();
        Pool::new(release, Slot(number), first, &more, SHARDS)
    }

    fn pick(switch: &Switch, service: &str) -> Result<Ticket, NoRoute> {
        let path = format!("/{service}");
        let ask = Ask {
            host: "any",
            path: &path,
            roll: 0,
            tried: Tried::default(),
        };
        switch.pick(&ask)
    }

    #[test]
    fn a_service_that_stays_keeps_its_split_and_its_tickets() {
        let switch = Switch::new(SHARDS);
        switch.publish(table(&["a", "b"]), 1).unwrap();
        let live = pool("a", 1, &[1]);
        switch.split(&name("a"), Split::all(live.clone())).unwrap();
        let ticket = pick(&switch, "a").unwrap();
        switch.publish(table(&["c", "a"]), 2).unwrap();
        assert_eq!(pick(&switch, "a").unwrap().release().number, 1);
        assert_eq!(pick(&switch, "b").unwrap_err(), NoRoute::NoService);
        let closed = NoRoute::Closed(name("c"), Closed::NothingDeployed);
        assert_eq!(pick(&switch, "c").unwrap_err(), closed);
        assert_eq!(live.tickets(), 1);
        drop(ticket);
        assert_eq!(live.tickets(), 0);
    }

    #[test]
    fn an_older_document_does_not_replace_a_newer_one() {
        let switch = Switch::new(SHARDS);
        switch.publish(table(&["a"]), 5).unwrap();
        for offered in [4, 5] {
            let stale = Stale {
                offered,
                in_force: 5,
            };
            assert_eq!(switch.publish(table(&["b"]), offered), Err(stale));
        }
        assert_eq!(switch.services(), [name("a")]);
    }

    #[test]
    fn a_split_of_a_service_without_routes_is_refused() {
        let switch = Switch::new(SHARDS);
        let refused = switch.split(&name("a"), Split::Closed(Closed::Stopped));
        assert_eq!(refused, Err(UnknownService(name("a"))));
    }

    #[test]
    fn pools_are_known_as_long_as_somebody_holds_them() {
        let switch = Switch::new(SHARDS);
        switch.publish(table(&["a"]), 1).unwrap();
        let first = pool("a", 1, &[1]);
        switch.split(&name("a"), Split::all(first.clone())).unwrap();
        switch
            .split(&name("a"), Split::all(pool("a", 2, &[2])))
            .unwrap();
        let known = || {
            let mut numbers: Vec<_> = switch
                .pools()
                .iter()
                .map(|it| it.release().number)
                .collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(known(), [1, 2]);
        // Also when the routes are gone, and it still drains.
        switch.publish(table(&[]), 2).unwrap();
        assert_eq!(known(), [1]);
        drop(first);
        assert_eq!(known(), [0; 0]);
    }

    #[test]
    fn requests_take_the_addresses_of_a_pool_in_turn() {
        let switch = Switch::new(SHARDS);
        switch.publish(table(&["a"]), 1).unwrap();
        let live = pool("a", 1, &[1, 2, 3]);
        switch.split(&name("a"), Split::all(live)).unwrap();
        let ports: Vec<_> = (0..6)
            .filter_map(|_| pick(&switch, "a").unwrap().address().port())
            .collect();
        assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn no_two_pools_have_the_same_key() {
        let (one, two) = (pool("a", 1, &[1]), pool("a", 1, &[1]));
        assert_ne!(one.group_key(), two.group_key());
        assert_ne!(one.group_key(), 0);
    }

    /// The model proves it for two threads; here are more, and the real primitives.
    #[test]
    fn picks_on_all_cores_are_counted_while_a_service_is_flipped() {
        use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

        let switch = Switch::new(SHARDS);
        switch.publish(table(&["a"]), 1).unwrap();
        let mut live = pool("a", 0, &[1]);
        switch.split(&name("a"), Split::all(live.clone())).unwrap();
        let (over, flips) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let returned = flips.load(Ordering::SeqCst);
                        let ticket = pick(&switch, "a").unwrap();
                        assert!(ticket.release().number >= returned);
                    }
                });
            }
            for flip in 1..=2_000 {
                let next = pool("a", flip, &[1]);
                switch.split(&name("a"), Split::all(next.clone())).unwrap();
                flips.store(flip, Ordering::SeqCst);
                let old = std::mem::replace(&mut live, next);
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                while std::pin::pin!(old.drained()).poll(&mut cx).is_pending() {
                    std::thread::yield_now();
                }
                assert_eq!(old.tickets(), 0);
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(live.tickets(), 0);
    }
}
