//! What the switch costs: a request's route, split and ticket, and one flip. With 1 and with 10,000
//! services, on 1 and on 2 threads, beside a map under one lock that does less.
//!
//! `cargo bench --bench pick -- [--rounds N]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "report.rs"]
mod report;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::Instant;

use hotctl_config::{PathPrefix, ReleaseId, ServiceName, Slot};
use hotctl_proxy::{Ask, Pool, Route, Split, Switch, Table, Tried};
use report::{Report, flag};

/// Picks in a round.
const PICKS: u32 = 200_000;
const FLIPS: usize = 2_000;

fn main() {
    if !report::is_wanted() {
        return;
    }
    let mut report = Report::of("pick");
    for services in [1, 10_000] {
        let switch = Arc::new(switch(services));
        let hosts: Vec<String> = (0..services).map(host).collect();
        let peer: Arc<RwLock<HashMap<String, Peer>>> = Arc::new(RwLock::new(
            hosts
                .iter()
                .map(|host| (host.clone(), Peer::default()))
                .collect(),
        ));
        // One service has all the requests, or every service has as many: then each pick finds the
        // processor's caches cold.
        for (asked, which) in [(1, "one is asked"), (services, "all are asked in turn")] {
            for threads in [1, 2] {
                let host_of = |turn: usize| hosts[turn % asked].as_str();
                let picked = rounds(threads, |turn| {
                    let ask = Ask {
                        host: host_of(turn),
                        path: "/cart/7",
                        roll: 50,
                        tried: Tried::default(),
                    };
                    drop(black_box(switch.pick(&ask).expect("a ticket")));
                });
                let looked_up = rounds(threads, |turn| {
                    let map = peer.read().expect("no panic under this lock");
                    let ticket = map[host_of(turn)].clone();
                    drop(map);
                    ticket.0.fetch_add(1, Ordering::AcqRel);
                    ticket.0.fetch_sub(1, Ordering::AcqRel);
                    drop(black_box(ticket));
                });
                let of = format!("{services} services, {which}, {threads} threads");
                report.row(&format!("route + split + ticket, {of}"), "ns", &picked);
                report.row(&format!("a map under one lock, {of}"), "ns", &looked_up);
                report.row(&format!("ratio, {of}"), "×", &ratio(&picked, &looked_up));
            }
            if services == 1 {
                break;
            }
        }
        report.row(
            &format!("flip, {services} services, nobody picks"),
            "µs",
            &flips(&switch, 0),
        );
        report.row(
            &format!("flip, {services} services, 1 thread picks"),
            "µs",
            &flips(&switch, 1),
        );
        report.row(
            &format!("flip, {services} services, 2 threads pick"),
            "µs",
            &flips(&switch, 2),
        );
    }
    report.note_others();
    report.append();
}

/// What somebody would write first: a counter behind a pointer.
#[derive(Clone, Default)]
struct Peer(Arc<AtomicUsize>);

fn host(number: usize) -> String {
    format!("shop-{number}.example.com")
}

fn name(number: usize) -> ServiceName {
    format!("shop-{number}").parse().expect("a name")
}

fn shards() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn pool(service: usize, release: u32) -> Pool {
    let id = ReleaseId {
        service: name(service),
        number: release,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 20_000));
    Pool::new(id, Slot(release), address.into(), &[], shards())
}

fn switch(services: usize) -> Switch {
    let switch = Switch::new(shards());
    let routes = (0..services).map(|number| Route {
        service: name(number),
        hosts: vec![host(number).parse().expect("a host")],
        paths: vec![PathPrefix::default()],
    });
    switch
        .publish(Table::new(routes), 1)
        .expect("the first routes");
    for number in 0..services {
        switch
            .split(&name(number), Split::all(pool(number, 1)))
            .expect("a service");
    }
    switch
}

/// Nanoseconds for one turn, each value the mean of a round; all threads run at once.
fn rounds(threads: usize, turn: impl Fn(usize) + Sync) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let times = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (turn, barrier) = (&turn, &barrier);
                scope.spawn(move || {
                    let mut times = Vec::new();
                    // Far apart, so that threads do not walk over the services together.
                    let mut at = worker * 4_999;
                    for _ in 0..=flag("--rounds", 25) {
                        barrier.wait();
                        let began = Instant::now();
                        for _ in 0..PICKS {
                            at += 1;
                            turn(at);
                        }
                        times.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(PICKS));
                    }
                    // The first one warms up.
                    times.split_off(1)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    times.concat()
}

fn ratio(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// Microseconds for one flip, while so many threads pick from the same service.
fn flips(switch: &Switch, threads: usize) -> Vec<f64> {
    let over = AtomicBool::new(false);
    let ready = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let host = host(0);
                ready.wait();
                while !over.load(Ordering::Relaxed) {
                    let ask = Ask {
                        host: &host,
                        path: "/",
                        roll: 50,
                        tried: Tried::default(),
                    };
                    drop(black_box(switch.pick(&ask)));
                }
            });
        }
        ready.wait();
        let service = name(0);
        let mut times = Vec::with_capacity(FLIPS);
        for release in 2..FLIPS as u32 + 2 {
            let split = Split::all(pool(0, release));
            let began = Instant::now();
            switch.split(&service, split).expect("a service");
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        over.store(true, Ordering::Relaxed);
        times
    })
}
