//! A deploy loses nothing: hundreds of flips under every kind of traffic at once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotctl_proxy::Open;

use crate::wire::{Wire, get, post};
use crate::world::{Manners, Upstream, World, all, eventually};

/// What became of the requests, by kind of traffic and outcome.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Tally {
    fn count(&self, kind: &'static str, outcome: &str) {
        let mut tally = self.0.lock().unwrap();
        *tally.entry((kind, outcome.into())).or_default() += 1;
    }

    /// How many went well, by kind; fails if any did not.
    fn all_well(&self) -> HashMap<&'static str, u64> {
        let tally = self.0.lock().unwrap();
        let bad: Vec<_> = tally.iter().filter(|((_, it), _)| it != "ok").collect();
        assert!(bad.is_empty(), "failed: {bad:?}\nof {tally:?}");
        tally.iter().map(|((kind, _), n)| (*kind, *n)).collect()
    }
}

/// Which upstream should answer: the one of the flip in force when a request began, or one since.
struct Turn {
    flips: AtomicU64,
    names: Vec<&'static str>,
}

impl Turn {
    fn check(&self, begun: u64, answer: &str) -> Result<(), String> {
        // A flip is in force a moment before it is counted.
        let now = self.flips.load(Ordering::SeqCst) + 1;
        let mut may = (begun..=now).map(|flip| self.names[flip as usize % self.names.len()]);
        match may.any(|name| name == answer.split(' ').next().unwrap_or_default()) {
            true => Ok(()),
            false => Err(format!("wrong release: {answer:?}")),
        }
    }
}

struct Load {
    world: World,
    turn: Turn,
    tally: Tally,
    ids: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Makes exchanges until it is over. `connect`: before each, or only where there is none.
    async fn keep_asking<F>(self: Arc<Self>, kind: &'static str, fresh: bool, exchange: F)
    where
        F: AsyncFn(&Self, &mut Wire) -> io::Result<Result<String, String>>,
    {
        let mut wire = None;
        while !self.over.load(Ordering::Relaxed) {
            let mut connection = match wire.take() {
                Some(connection) if !fresh => connection,
                _ => self.world.connect().await,
            };
            let begun = self.turn.flips.load(Ordering::SeqCst);
            let outcome = match exchange(&self, &mut connection).await {
                Ok(Ok(answer)) => self.turn.check(begun, &answer),
                Ok(Err(wrong)) => Err(wrong),
                Err(error) => Err(format!("{:?}", error.kind())),
            };
            match outcome {
                Ok(()) => {
                    self.tally.count(kind, "ok");
                    wire = Some(connection);
                }
                Err(what) => self.tally.count(kind, &what),
            }
        }
    }
}

async fn ask(wire: &mut Wire, request: &str) -> io::Result<Result<String, String>> {
    let answer = wire.ask(request).await?;
    Ok(match (answer.status(), answer.head.get("x-hotctl-error")) {
        (200, None) => Ok(answer.text()),
        (status, reason) => Err(format!("{status} {reason:?}")),
    })
}

async fn flip_under_load(manners: [Manners; 4], flips: u64) {
    let names = ["a", "b", "c", "d"];
    let mut upstreams = Vec::new();
    for (name, manners) in names.into_iter().zip(manners) {
        upstreams.push(Upstream::start(name, manners).await);
    }
    let load = Arc::new(Load {
        world: World::start().await,
        turn: Turn {
            flips: AtomicU64::new(0),
            names: names.to_vec(),
        },
        tally: Tally::default(),
        ids: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut live = load.world.flip(&upstreams[0]);

    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(load.clone().keep_asking(
            "get, kept",
            false,
            async |_, wire| ask(wire, &get("/")).await,
        )));
    }
    for _ in 0..2 {
        clients.push(tokio::spawn(load.clone().keep_asking(
            "get, new connection",
            true,
            async |_, wire| ask(wire, &get("/")).await,
        )));
    }
    for _ in 0..4 {
        clients.push(tokio::spawn(load.clone().keep_asking(
            "post, kept",
            false,
            async |load, wire| {
                let id = load.ids.fetch_add(1, Ordering::SeqCst);
                ask(wire, &post("/", &format!("number {id}"))).await
            },
        )));
    }
    clients.push(tokio::spawn(load.clone().keep_asking(
        "post, 200 kB in chunks",
        false,
        async |load, wire| {
            let id = load.ids.fetch_add(1, Ordering::SeqCst);
            let body = format!("number {id} {}", "x".repeat(200_000));
            let length = body.len();
            let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.send(head).await?;
            let half = length / 2;
            wire.send(format!("{half:x}\r\n{}\r\n", &body[..half]))
                .await?;
            let rest = &body[half..];
            wire.send(format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len()))
                .await?;
            let answer = wire.answer("POST ").await?;
            Ok(match answer.text().ends_with(&format!(" {length}")) {
                true => Ok(answer.text()),
                false => Err(format!("{} {}", answer.status(), answer.text())),
            })
        },
    )));
    clients.push(tokio::spawn(load.clone().keep_asking(
        "slow, 100 ms",
        false,
        async |_, wire| ask(wire, &get("/slow?100")).await,
    )));
    clients.push(tokio::spawn(load.clone().keep_asking(
        "events, 40",
        false,
        async |_, wire| {
            let answer = wire.ask(&get("/events?40")).await?;
            let name = answer.text().chars().nth("data: ".len()).unwrap_or('?');
            let whole: String = (0..40).map(|n| format!("data: {name} {n}\n\n")).collect();
            Ok(match answer.text() == whole {
                true => Ok(name.to_string()),
                false => Err(format!("{} {}", answer.status(), answer.text())),
            })
        },
    )));
    clients.push(tokio::spawn(load.clone().keep_asking(
        "websocket, 20 echoes",
        true,
        async |_, wire| {
            wire.send(
                "GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await?;
            let answer = wire.answer("GET ").await?;
            if answer.status() != 101 {
                return Ok(Err(answer.status().to_string()));
            }
            let name = String::from_utf8_lossy(&wire.exactly(1).await?).into_owned();
            for byte in 0..20 {
                wire.send([byte]).await?;
                if wire.exactly(1).await? != [byte] {
                    return Ok(Err("wrong echo".into()));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(Ok(name))
        },
    )));

    let mut drains = Vec::new();
    for flip in 1..=flips {
        tokio::time::sleep(Duration::from_millis(8)).await;
        let switching = load.world.metrics.switching(&crate::world::web());
        let next = load.world.flip(&upstreams[flip as usize % 4]);
        load.turn.flips.store(flip, Ordering::SeqCst);
        let old = std::mem::replace(&mut live, next);
        let switch = load.world.switch.clone();
        drains.push(tokio::spawn(async move {
            let _switching = switching;
            switch.retire(&old, &all(Duration::from_secs(20))).await
        }));
    }
    let mut cut = Open::default();
    for drain in drains {
        cut += drain.await.unwrap();
    }
    load.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let well = load.tally.all_well();
    println!("{flips} flips: {well:?}");
    assert_eq!(well.len(), 7, "a kind of traffic never finished: {well:?}");
    assert_eq!(cut, Open::default(), "requests cut by a drain");
    eventually("all tickets are back", || live.tickets() == 0).await;

    // Each body was received once, whole: none lost, none twice.
    let mut numbers: Vec<usize> = upstreams
        .iter()
        .flat_map(Upstream::bodies)
        .map(|body| body.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    let sent: Vec<usize> = (0..load.ids.load(Ordering::SeqCst)).collect();
    assert_eq!(numbers, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_flips_lose_nothing() {
    flip_under_load([Manners::Kind; 4], 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_lose_nothing_where_releases_close_connections_without_a_word() {
    let manners = [
        Manners::Rude(2),
        Manners::Kind,
        Manners::Rude(1),
        Manners::Rude(3),
    ];
    flip_under_load(manners, 300).await;
}
