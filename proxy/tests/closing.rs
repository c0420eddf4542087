//! How connections end: by their own deadlines, and when the proxy is told to stop.

use std::time::{Duration, Instant};

use hotctl_proxy::Stage;
use tokio::net::TcpStream;

use crate::wire::{Wire, get};
use crate::world::{Manners, Upstream, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn closing_finishes_what_is_in_flight_and_takes_no_more() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let mut slow = world.connect().await;
    slow.send(get("/slow?400")).await.unwrap();
    let mut idle = world.connect().await;
    idle.ask(&get("/")).await.unwrap();
    eventually("the slow one is in flight", || pool.tickets() == 1).await;

    world.stage.send(Stage::Closing).unwrap();
    // The last request of a connection that was kept is answered, and told to close.
    let answer = idle.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.closes());
    assert!(idle.rest().await.unwrap().is_empty());

    let answer = slow.answer("").await.unwrap();
    assert_eq!(answer.text(), "a");
    assert!(answer.head.closes());
    let refused = TcpStream::connect(world.address).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    tokio::time::timeout(Duration::from_secs(5), world.serving)
        .await
        .expect("serve returns when the last connection is gone")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_does_not_wait_for_connections_that_ask_nothing() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut idle = world.connect().await;
    idle.ask(&get("/")).await.unwrap();
    let mut new = world.connect().await;
    // So that it is known to be accepted: the next one has been.
    world.connect().await.ask(&get("/")).await.unwrap();
    world.stage.send(Stage::Closing).unwrap();
    let begun = Instant::now();
    assert!(idle.rest().await.unwrap().is_empty());
    assert!(new.rest().await.unwrap().is_empty());
    world.serving.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// Many clients, each with one request after another, while the proxy stops. A client that is told
/// to close, or refused, has lost nothing. One whose kept connection is closed between two requests
/// may have sent the next one already, which is the race of HTTP itself (RFC 9112, 9.5): it must be
/// rare, and such a request must not have reached the release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_lost_when_the_proxy_stops_under_load() {
    let mut races = 0;
    for _ in 0..20 {
        let upstream = Upstream::start("a", Manners::Kind).await;
        let world = World::start().await;
        let pool = world.flip(&upstream);
        let address = world.address;
        let mut clients = Vec::new();
        for _ in 0..16 {
            clients.push(tokio::spawn(async move {
                let (mut asked, mut raced) = (0, 0);
                while let Ok(stream) = TcpStream::connect(address).await {
                    let mut wire = Wire::new(stream);
                    let mut before = 0;
                    loop {
                        match wire.ask(&get("/")).await {
                            Ok(answer) => {
                                assert_eq!(answer.text(), "a");
                                asked += 1;
                                before += 1;
                                if answer.head.closes() {
                                    break;
                                }
                            }
                            Err(error) => {
                                assert!(before > 0, "on a new connection: {error}");
                                raced += 1;
                                break;
                            }
                        }
                    }
                }
                (asked, raced)
            }));
        }
        eventually("the load is on", || upstream.heads().len() > 200).await;
        world.stage.send(Stage::Closing).unwrap();
        let mut answered = 0;
        for client in clients {
            let (asked, raced) = client.await.unwrap();
            answered += asked;
            races += raced;
        }
        world.serving.await.unwrap();
        assert_eq!(upstream.heads().len(), answered);
        assert_eq!(pool.tickets(), 0);
    }
    assert!(races <= 3, "{races} requests met a closing connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_that_is_dropped_cuts_what_is_left() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/events?2000")).await.unwrap();
    client.head().await.unwrap().unwrap();
    world.serving.abort();
    let end = loop {
        match client.chunk().await {
            Ok(Some(_event)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "the stream looks complete");
    eventually("its ticket is back", || pool.tickets() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_comes_drop_by_drop_is_cut_off_as_a_whole() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::with(|it| it.timeouts.header = Duration::from_millis(300)).await;
    world.flip(&upstream);
    let begun = Instant::now();
    let mut client = world.connect().await;
    for byte in get("/").bytes().cycle() {
        if client.send([byte]).await.is_err() || begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if byte == b'\r' {
            // Never to the end of it.
            client.send("\nX-Slow: 1").await.ok();
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Before the first byte the same limit holds.
    let mut silent = world.connect().await;
    assert!(silent.rest().await.unwrap().is_empty());
}

/// As one does that has got its answer while it was to send more.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_more_after_its_answer_is_not_waited_for_long() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    for expects in ["", "Expect: 100-continue\r\n"] {
        let mut client = world.connect().await;
        client
            .send(format!(
                "POST /unread HTTP/1.1\r\nHost: a\r\n{expects}Content-Length: 1000000\r\n\r\n"
            ))
            .await
            .unwrap();
        if expects.is_empty() {
            client.send("some of it").await.unwrap();
        }
        let begun = Instant::now();
        let answer = client.answer("").await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(answer.head.get("connection"), Some("close"));
        assert!(client.rest().await.unwrap().is_empty());
        assert!(begun.elapsed() < Duration::from_secs(20));
        eventually("its ticket is back", || pool.tickets() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_in_time_and_not_before() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::with(|it| {
        it.timeouts.idle = Duration::from_millis(300);
        it.timeouts.header = Duration::from_secs(30);
    })
    .await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..4 {
        client.ask(&get("/")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    client.ask(&get("/slow?600")).await.unwrap();
    let begun = Instant::now();
    assert!(client.rest().await.unwrap().is_empty());
    assert!(begun.elapsed() > Duration::from_millis(200));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
