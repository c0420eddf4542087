//! Answers and connections that last.

use std::time::{Duration, Instant};

use hotctl_proxy::Open;

use crate::wire::{Wire, get};
use crate::world::{Manners, Upstream, World, all, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/events?200")).await.unwrap();
    let begun = Instant::now();
    client.head().await.unwrap().unwrap();
    let first = client.chunk().await.unwrap().unwrap();
    assert_eq!(first, b"data: a 0\n\n");
    assert!(begun.elapsed() < Duration::from_millis(900), "held back");
    let mut events = 1;
    while client.chunk().await.unwrap().is_some() {
        events += 1;
    }
    assert!(events > 100, "gathered into {events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_half_of_a_slow_answer_of_known_length_is_not_held_back() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/halves?2000")).await.unwrap();
    let begun = Instant::now();
    client.head().await.unwrap().unwrap();
    assert_eq!(client.exactly(4).await.unwrap(), b"half");
    assert!(begun.elapsed() < Duration::from_millis(1000), "held back");
    assert_eq!(client.exactly(4).await.unwrap(), b"full");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_protocol_can_be_switched_to_except_those_between_neighbours() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    for (protocol, switched) in [("websocket", true), ("spdy/9", true), ("h2c", false)] {
        let mut client = world.connect().await;
        client
            .send(format!(
                "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAA\r\n\r\n"
            ))
            .await
            .unwrap();
        let answer = client.answer("").await.unwrap();
        assert_eq!(answer.status() == 101, switched, "{protocol}");
        if switched {
            assert_eq!(answer.head.get("upgrade"), Some(protocol));
            assert_eq!(client.exactly(1).await.unwrap(), b"a");
            client.send("ping").await.unwrap();
            assert_eq!(client.exactly(4).await.unwrap(), b"ping");
            assert_eq!(pool.tickets(), 1, "{protocol}");
            client.shut().await.unwrap();
        }
        drop(client);
        eventually("it is over", || pool.tickets() == 0).await;
    }
}

/// As WebSockets end: the client waits for the other side to close.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_switch_the_end_of_either_side_is_the_end_of_both() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    for word in ["bye.", "bye"] {
        let mut client = world.connect().await;
        client
            .send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(client.answer("").await.unwrap().status(), 101);
        client.send(word).await.unwrap();
        let all = format!("a{word}");
        assert_eq!(client.exactly(all.len()).await.unwrap(), all.as_bytes());
        if word == "bye" {
            client.shut().await.unwrap();
        }
        assert!(client.rest().await.unwrap().is_empty());
        eventually("it is over", || pool.tickets() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_client_left_does_not_hold_up_a_drain() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/events?2000")).await.unwrap();
    client.head().await.unwrap().unwrap();
    world.flip(&upstream);
    let long = all(Duration::from_secs(60));
    let retired = world.switch.retire(&old, &long);
    let left = async {
        eventually("it is a stream", || old.open().streams == 1).await;
        drop(client);
    };
    let (cut, ()) = tokio::join!(retired, left);
    assert_eq!(cut, Open::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_passes_both_ways() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let length = 20 << 20;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await
        .unwrap();
    client.send(vec![b'x'; length]).await.unwrap();
    let answer = client.answer("").await.unwrap();
    assert_eq!(answer.text(), format!("a {length}"));
}

/// Those of a quick release on a busy machine, where pingora alone loses some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_switch_of_protocols_is_lost() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut clients = Vec::new();
    for _ in 0..16 {
        let address = world.address;
        clients.push(tokio::spawn(async move {
            for number in 0..100 {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let mut client = Wire::new(stream);
                client
                    .send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .await
                    .unwrap();
                assert_eq!(client.answer("").await.unwrap().status(), 101);
                client.send([number]).await.unwrap();
                assert_eq!(client.exactly(2).await.unwrap(), [b'a', number]);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}
