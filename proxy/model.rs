//! The proof of the switch's promise: every interleaving of picks, a split and a retirement, by
//! loom. Run with `RUSTFLAGS="--cfg loom" cargo test -p hotctl-proxy --no-default-features
//! --release --target-dir target/loom loom_`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use hotctl_config::{Address, ReleaseId, ServiceName, Slot};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::switch::Service;
use crate::{Ask, Limits, NoRoute, Pool, Route, Split, Switch, Table, Tried};

/// Every interleaving with at most three preemptions (`LOOM_MAX_PREEMPTIONS` for more): each known
/// kind of race needs two, and without a bound the longest of these would take hours.
fn explore(story: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(story);
}

fn name() -> ServiceName {
    "web".parse().unwrap()
}

fn pool(number: u32, shards: usize) -> Pool {
    let release = ReleaseId {
        service: name(),
        number,
    };
    Pool::new(
        release,
        Slot(number),
        Address::Inet(([127, 0, 0, 1], 1).into()),
        &[],
        NonZeroUsize::new(shards).unwrap(),
    )
}

/// A service of so many shards that the first pool serves, and two pools.
fn flipped_between(shards: usize) -> (Arc<Service>, Pool, Pool) {
    let service = Arc::new(Service::new(name(), shards));
    let (old, new) = (pool(1, shards), pool(2, shards));
    service.set(Split::all(old.clone()));
    (service, old, new)
}

#[test]
fn loom_no_request_chooses_the_old_pool_once_split_has_returned() {
    explore(|| {
        let (service, old, new) = flipped_between(2);
        let split_returned = Arc::new(AtomicBool::new(false));
        let picks: Vec<_> = (0..2)
            .map(|shard| {
                let (service, split_returned) = (service.clone(), split_returned.clone());
                loom::thread::spawn(move || {
                    let late = split_returned.load(SeqCst);
                    let ticket = service.pick_on(shard, 0, &Tried::default()).unwrap();
                    assert!(!late || ticket.release().number == 2);
                })
            })
            .collect();
        service.set(Split::all(new));
        split_returned.store(true, SeqCst);
        picks.into_iter().for_each(|pick| pick.join().unwrap());
        assert_eq!(old.tickets(), 0);
    });
}

#[test]
fn loom_the_change_is_one_for_all_shards() {
    explore(|| {
        let (service, _old, new) = flipped_between(2);
        let pick = {
            let service = service.clone();
            loom::thread::spawn(move || {
                let first = service
                    .pick_on(1, 0, &Tried::default())
                    .unwrap()
                    .release()
                    .number;
                let second = service
                    .pick_on(0, 0, &Tried::default())
                    .unwrap()
                    .release()
                    .number;
                assert!(first <= second, "the new release was seen, then the old");
            })
        };
        let other = {
            let service = service.clone();
            loom::thread::spawn(move || {
                let first = service
                    .pick_on(0, 0, &Tried::default())
                    .unwrap()
                    .release()
                    .number;
                let second = service
                    .pick_on(1, 0, &Tried::default())
                    .unwrap()
                    .release()
                    .number;
                assert!(first <= second, "the new release was seen, then the old");
            })
        };
        service.set(Split::all(new));
        pick.join().unwrap();
        other.join().unwrap();
    });
}

/// Two requests, each on its own shard, while the service is flipped and the old pool drained.
/// loom fails by itself where the drain sleeps for ever, which is a lost wake-up.
#[test]
fn loom_a_drain_ends_and_never_before_the_last_ticket_is_back() {
    explore(|| {
        let (service, old, new) = flipped_between(2);
        let serving = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..2)
            .map(|shard| {
                let (service, serving) = (service.clone(), serving.clone());
                loom::thread::spawn(move || {
                    let ticket = service.pick_on(shard, 0, &Tried::default()).unwrap();
                    if ticket.release().number == 1 {
                        serving.fetch_add(1, SeqCst);
                        serving.fetch_sub(1, SeqCst);
                    }
                    drop(ticket);
                })
            })
            .collect();
        service.set(Split::all(new));
        loom::future::block_on(old.drained());
        assert_eq!(serving.load(SeqCst), 0, "a request was still served");
        assert_eq!(old.tickets(), 0);
        requests.into_iter().for_each(|it| it.join().unwrap());
    });
}

/// A request that ends on another core than the one that it began on, as tokio's tasks do.
#[test]
fn loom_a_ticket_may_come_back_on_another_thread() {
    explore(|| {
        let (service, old, new) = flipped_between(2);
        let tickets = [0, 1].map(|shard| service.pick_on(shard, 0, &Tried::default()).unwrap());
        service.set(Split::all(new));
        let ends = tickets.map(|ticket| loom::thread::spawn(move || drop(ticket)));
        loom::future::block_on(old.drained());
        assert_eq!(old.tickets(), 0);
        for end in ends {
            end.join().unwrap();
        }
    });
}

#[test]
fn loom_two_drains_of_one_pool_both_end() {
    explore(|| {
        let (service, old, new) = flipped_between(1);
        let ticket = service.pick_on(0, 0, &Tried::default()).unwrap();
        service.set(Split::all(new));
        let other = {
            let old = old.clone();
            loom::thread::spawn(move || loom::future::block_on(old.drained()))
        };
        let end = loom::thread::spawn(move || drop(ticket));
        loom::future::block_on(old.drained());
        other.join().unwrap();
        end.join().unwrap();
    });
}

#[test]
fn loom_a_pick_that_races_with_new_routes_gets_a_ticket_or_no_service() {
    explore(|| {
        let one = NonZeroUsize::MIN;
        let switch = Arc::new(Switch::new(one));
        let routes = || Route {
            service: name(),
            hosts: vec![],
            paths: vec![],
        };
        switch.publish(Table::new([routes()]), 1).unwrap();
        let old = pool(1, 1);
        switch.split(&name(), Split::all(old.clone())).unwrap();
        let request = {
            let switch = switch.clone();
            loom::thread::spawn(move || {
                let ask = Ask {
                    host: "",
                    path: "/",
                    roll: 0,
                    tried: Tried::default(),
                };
                match switch.pick_on(0, &ask) {
                    Ok(ticket) => assert_eq!(ticket.release().number, 1),
                    Err(why) => assert_eq!(why, NoRoute::NoService),
                }
            })
        };
        switch.publish(Table::new([]), 2).unwrap();
        loom::future::block_on(old.drained());
        assert_eq!(old.tickets(), 0);
        request.join().unwrap();
    });
}

/// What a request does that finds its service parked, up to its ticket.
async fn through_the_park(service: &Service, shard: usize) -> u32 {
    let pick = || service.pick_on(shard, 0, &Tried::default());
    if let Ok(ticket) = pick() {
        return ticket.release().number;
    }
    let mut place = service.park().enter(8).unwrap();
    loop {
        match pick() {
            Ok(ticket) => return ticket.release().number,
            Err(_) => place.rung().await,
        }
    }
}

fn parked() -> Split {
    Split::Parked(Limits {
        max: 8,
        time: std::time::Duration::MAX,
    })
}

/// loom fails by itself where a request sleeps for ever, which is a lost wake-up.
#[test]
fn loom_a_request_that_is_parked_hears_of_the_split_that_serves_it() {
    explore(|| {
        let (service, _old, new) = flipped_between(2);
        service.set(parked());
        let requests: Vec<_> = (0..2)
            .map(|shard| {
                let service = service.clone();
                loom::thread::spawn(move || {
                    let number = loom::future::block_on(through_the_park(&service, shard));
                    assert_eq!(number, 2);
                })
            })
            .collect();
        service.set(Split::all(new));
        requests.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(service.park().waiting(), 0);
    });
}

#[test]
fn loom_a_request_that_finds_the_service_parked_again_keeps_its_place_until_it_is_served() {
    explore(|| {
        let (service, old, new) = flipped_between(1);
        service.set(parked());
        let request = {
            let service = service.clone();
            loom::thread::spawn(move || {
                loom::future::block_on(through_the_park(&service, 0));
            })
        };
        service.set(Split::all(old.clone()));
        service.set(parked());
        loom::future::block_on(old.drained());
        service.set(Split::all(new));
        request.join().unwrap();
        assert_eq!(service.park().waiting(), 0);
    });
}

/// One of two gives up its place in the very moment in which the bell rings.
#[test]
fn loom_who_leaves_the_park_takes_no_word_from_who_stays() {
    explore(|| {
        let (service, _old, new) = flipped_between(1);
        service.set(parked());
        let leaver = {
            let service = service.clone();
            loom::thread::spawn(move || drop(service.park().enter(8)))
        };
        let stays = {
            let service = service.clone();
            loom::thread::spawn(move || loom::future::block_on(through_the_park(&service, 0)))
        };
        service.set(Split::all(new));
        leaver.join().unwrap();
        assert_eq!(stays.join().unwrap(), 2);
    });
}
