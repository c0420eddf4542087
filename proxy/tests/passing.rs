//! Connections move to another proxy that has the same listener, and their clients do not notice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hotctl_proxy::{PassSocket, Passed, Past, Pool, Proxy, Stage};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::wire::{Wire, get};
use crate::world::{Manners, Upstream, World, eventually};

/// A proxy that takes over from another: the same listener, and a line on which connections come.
struct Successor {
    stage: watch::Sender<Stage>,
    proxy: Proxy,
    /// How many connections came.
    came: Arc<AtomicUsize>,
    pool: Pool,
    tasks: Vec<JoinHandle<()>>,
    _world: World,
}

impl Successor {
    /// Takes over from a proxy whose stage this is; its own requests go to `upstream`.
    async fn of(
        listener: &std::net::TcpListener,
        old: (&Proxy, &watch::Sender<Stage>),
        upstream: &Upstream,
    ) -> Self {
        let world = World::start().await;
        let pool = world.flip(upstream);
        let proxy = world.proxy.clone();
        let (stage, stages) = watch::channel(Stage::Serving);
        let (ours, theirs) = PassSocket::pair().unwrap();
        let theirs = PassSocket::from_fd(theirs).unwrap();
        let (way, mut leaving) = mpsc::unbounded_channel::<Passed>();
        let (arrive, arriving) = mpsc::unbounded_channel();
        let came = Arc::new(AtomicUsize::new(0));
        let count = came.clone();
        let listener = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        let (taking, taken) = (proxy.clone(), proxy.clone());
        let watches = (stages.clone(), stages);
        let tasks = vec![
            tokio::spawn(async move { taking.serve(listener, watches.0).await }),
            tokio::spawn(async move { taken.serve_passed(arriving, watches.1).await }),
            tokio::spawn(async move {
                while let Some(passed) = leaving.recv().await {
                    ours.send(passed).await.unwrap();
                }
            }),
            tokio::spawn(async move {
                while let Some(passed) = theirs.receive().await.unwrap() {
                    count.fetch_add(1, Ordering::SeqCst);
                    if arrive.send(passed).is_err() {
                        break;
                    }
                }
            }),
        ];
        old.0.passes_to(way);
        old.1.send(Stage::Passing).unwrap();
        Self {
            stage,
            proxy,
            came,
            pool,
            tasks,
            _world: world,
        }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A proxy at a socket that others can have, too.
fn shared() -> (World, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let its = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
    (World::at(its, |_| {}), listener)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_new_connections_go_on_at_the_other_proxy() {
    let (a, b) = (
        Upstream::start("a", Manners::Kind).await,
        Upstream::start("b", Manners::Kind).await,
    );
    let (world, listener) = shared();
    world.flip(&a);
    let mut used = world.connect().await;
    assert_eq!(used.ask(&get("/")).await.unwrap().text(), "a");
    let mut new = world.connect().await;
    // So that it is known to be accepted: the next one has been.
    world.connect().await.ask(&get("/")).await.unwrap();

    let next = Successor::of(&listener, (&world.proxy, &world.stage), &b).await;
    eventually("the old one is empty", || world.serving.is_finished()).await;
    eventually("both came", || next.came() >= 2).await;
    for wire in [&mut used, &mut new] {
        for _ in 0..2 {
            let answer = wire.ask(&get("/")).await.unwrap();
            assert_eq!(answer.text(), "b");
            assert!(!answer.head.closes(), "nobody is sent away");
        }
    }
    assert_eq!(
        world.connect().await.ask(&get("/")).await.unwrap().text(),
        "b"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished_and_its_connection_follows() {
    let (a, b) = (
        Upstream::start("a", Manners::Kind).await,
        Upstream::start("b", Manners::Kind).await,
    );
    let (world, listener) = shared();
    let pool = world.flip(&a);
    let mut slow = world.connect().await;
    slow.send(get("/slow?200")).await.unwrap();
    eventually("it is in flight", || pool.tickets() == 1).await;
    let next = Successor::of(&listener, (&world.proxy, &world.stage), &b).await;
    let answer = slow.answer("").await.unwrap();
    assert_eq!(answer.text(), "a");
    assert!(!answer.head.closes());
    eventually("it came", || next.came() == 1).await;
    assert_eq!(slow.ask(&get("/")).await.unwrap().text(), "b");
}

/// What was read of the next request would be lost with the connection, so it stays until that is
/// answered; and where nobody can tell, it is told to close.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_read_of_the_next_request_is_answered_where_it_was_read() {
    let (a, b) = (
        Upstream::start("a", Manners::Kind).await,
        Upstream::start("b", Manners::Kind).await,
    );
    let (world, listener) = shared();
    let pool = world.flip(&a);
    let (mut split, mut chunked) = (world.connect().await, world.connect().await);
    let second = get("/");
    let (head, tail) = second.split_at(9);
    split
        .send(format!("{}{head}", get("/slow?200")))
        .await
        .unwrap();
    chunked
        .send("POST /slow?200 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await
        .unwrap();
    eventually("both are in flight", || pool.tickets() == 2).await;
    let next = Successor::of(&listener, (&world.proxy, &world.stage), &b).await;
    assert_eq!(split.answer("").await.unwrap().text(), "a");
    assert_eq!(next.came(), 0);
    split.send(tail).await.unwrap();
    assert_eq!(split.answer("").await.unwrap().text(), "a");
    eventually("it came after that", || next.came() == 1).await;
    assert_eq!(split.ask(&get("/")).await.unwrap().text(), "b");

    let answer = chunked.answer("").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.closes());
    eventually("the old one is empty", || world.serving.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_whose_successor_is_gone_closes_its_connections() {
    let a = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&a);
    let mut idle = world.connect().await;
    idle.ask(&get("/")).await.unwrap();
    let (way, gone) = mpsc::unbounded_channel();
    drop(gone);
    world.proxy.passes_to(way);
    world.stage.send(Stage::Passing).unwrap();
    let answer = idle.ask(&get("/")).await.unwrap();
    assert!(answer.head.closes());
    eventually("the old one is empty", || world.serving.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_passed_on_are_closed_with_the_proxy_that_has_them() {
    let a = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&a);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .map(Wire::new)
        .unwrap();
    let (socket, peer) = listener.accept().await.unwrap();
    let socket = socket.into_std().unwrap();
    let (arrive, arriving) = mpsc::unbounded_channel();
    let past = Past::Used;
    arrive.send(Passed { socket, peer, past }).unwrap();
    let (stage, stages) = watch::channel(Stage::Serving);
    let proxy = world.proxy.clone();
    let serving = tokio::spawn(async move { proxy.serve_passed(arriving, stages).await });
    assert_eq!(client.ask(&get("/")).await.unwrap().text(), "a");
    stage.send(Stage::Closing).unwrap();
    assert!(client.rest().await.unwrap().is_empty());
    serving.await.unwrap();
}

/// Clients that keep their connections and pause for up to 40 ms, new connections, and uploads, while
/// one proxy after the other takes over: nothing at all fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_proxies_take_over_from_each_other() {
    const TIMES: usize = 30;
    let upstream = Upstream::start("a", Manners::Kind).await;
    let (world, listener) = shared();
    let first = world.flip(&upstream);
    let address = world.address;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for client in 0..16 {
        let over = over.clone();
        clients.push(tokio::spawn(async move {
            let mut asked = 0;
            let mut wire = Wire::new(TcpStream::connect(address).await?);
            while !over.load(Ordering::SeqCst) {
                if client % 4 == 0 {
                    wire = Wire::new(TcpStream::connect(address).await?);
                }
                let request = match client % 4 {
                    1 => format!(
                        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n{}",
                        "x".repeat(50_000)
                    ),
                    _ => get("/"),
                };
                let answer = wire.ask(&request).await?;
                if answer.status() != 200 || answer.head.closes() {
                    return Err(io::Error::other(answer.head.line));
                }
                asked += 1;
                // It thinks.
                tokio::time::sleep(Duration::from_millis(pause(client, asked) % 40)).await;
            }
            io::Result::Ok(asked)
        }));
    }
    let mut before: Vec<Successor> = Vec::new();
    for _ in 0..TIMES {
        // That much is answered by each of them.
        let pool = before.last().map_or(&first, |last| &last.pool);
        eventually("requests are in flight", || pool.tickets() > 0).await;
        let old = match before.last() {
            Some(last) => (&last.proxy, &last.stage),
            None => (&world.proxy, &world.stage),
        };
        let next = Successor::of(&listener, old, &upstream).await;
        eventually("connections came", || next.came() > 0).await;
        before.push(next);
    }
    over.store(true, Ordering::SeqCst);
    let mut asked = 0;
    for client in clients {
        asked += client.await.unwrap().expect("no request fails");
    }
    let came: usize = before.iter().map(Successor::came).sum();
    println!("{asked} requests, {TIMES} hand-overs, {came} connections passed on, none failed");
    assert!(asked > 100 && came >= TIMES);
}

/// Different for each request, and the same in each run.
fn pause(client: u64, asked: u64) -> u64 {
    (client * 31 + asked).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}
