//! What waits while nothing can serve its service for a moment, and what becomes of it.

use std::time::Duration;

use hotctl_proxy::{Closed, Limits, Open, Split};

use crate::wire::{Wire, get, post};
use crate::world::{Manners, Upstream, World, all, eventually, web};

/// Nobody is refused because it took too long.
const LONG: Duration = Duration::from_secs(60);

impl World {
    fn park(&self, max: usize, time: Duration) {
        let split = Split::Parked(Limits { max, time });
        self.switch.split(&web(), split).unwrap();
    }

    fn parked(&self) -> f64 {
        self.metric("hotctl_parked_requests{service=\"web\"}")
    }

    fn became(&self, outcome: &str) -> f64 {
        self.metric(&format!(
            "hotctl_park_outcomes_total{{outcome=\"{outcome}\",service=\"web\"}}"
        ))
    }

    /// A client whose request waits, beside so many others.
    async fn waiter(&self, request: &str, others: usize) -> Wire {
        let mut client = self.connect().await;
        client.send(request).await.unwrap();
        let all = (others + 1) as f64;
        eventually("it is parked", || self.parked() == all).await;
        client
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_request_waits_with_its_body_unread_and_goes_to_the_release_that_comes() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.park(10, LONG);
    // Larger than what is buffered on the way: it cannot have been read.
    let body = "x".repeat(8 << 20);
    let mut client = world
        .waiter(
            &format!(
                "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ),
            0,
        )
        .await;
    let mut get_client = world.waiter(&get("/"), 1).await;
    let live = world.pool(&upstream);
    assert_eq!(live.tickets(), 0);
    world.flip_to(&live);
    client.send(&body).await.unwrap();
    let text = format!("a {}", body.len());
    assert_eq!(client.answer("").await.unwrap().text(), text);
    assert_eq!(get_client.answer("").await.unwrap().text(), "a");
    assert_eq!((world.parked(), world.became("served")), (0.0, 2.0));
    // The connection is as good as any.
    assert_eq!(client.ask(&post("/", "more")).await.unwrap().text(), "a 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_finds_its_service_parked_again_keeps_its_place() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.park(1, LONG);
    let mut first = world.waiter(&get("/"), 0).await;
    for _ in 0..100 {
        world.park(1, LONG);
    }
    // Nobody has got in instead.
    let mut second = world.connect().await;
    let answer = second.ask(&get("/")).await.unwrap();
    assert_eq!(answer.head.get("x-hotctl-error"), Some("park_full"));
    world.flip(&upstream);
    assert_eq!(first.answer("").await.unwrap().text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_the_park_is_full_is_told_when_to_come_again() {
    let world = World::start().await;
    world.park(2, LONG);
    let _one = world.waiter(&get("/"), 0).await;
    let _two = world.waiter(&get("/"), 1).await;
    let mut client = world.connect().await;
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("park_full"));
    assert_eq!(answer.head.get("retry-after"), Some("5"));
    assert_eq!((world.parked(), world.became("full")), (2.0, 1.0));
    // A park of no places is none.
    world.park(0, LONG);
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.head.get("x-hotctl-error"), Some("park_full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_too_long_is_told_when_to_come_again() {
    let world = World::start().await;
    world.park(10, Duration::from_millis(50));
    let mut client = world.connect().await;
    // Whatever happens meanwhile, the time is counted from when the request came.
    let ringing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            world.park(10, Duration::from_millis(50));
        }
    };
    let answer = tokio::select! {
        answer = client.ask("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody") => answer.unwrap(),
        () = ringing => unreachable!(),
    };
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("park_timeout"));
    assert_eq!(answer.head.get("retry-after"), Some("5"));
    assert_eq!((world.parked(), world.became("timeout")), (0.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_gives_up_its_place_also_with_its_body_unread() {
    let world = World::start().await;
    world.park(10, LONG);
    let unread = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4000000\r\n\r\n";
    let requests = [
        get("/"),
        format!("{unread}{}", "x".repeat(20_000)),
        // Another request behind it.
        format!("{}{}", get("/"), get("/")),
    ];
    for (gone, request) in requests.iter().enumerate() {
        let client = world.waiter(request, 0).await;
        drop(client);
        eventually("it is not", || world.parked() == 0.0).await;
        assert_eq!(world.became("left"), (gone + 1) as f64);
    }
    assert_eq!(
        world.metric("hotctl_requests_total{code=\"499\",service=\"web\"}"),
        3.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_one_that_is_parked_is_served_after_it() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.park(10, LONG);
    let two = format!("{}{}", get("/?1"), post("/?2", "body"));
    let mut client = world.waiter(&two, 0).await;
    world.flip(&upstream);
    assert_eq!(client.answer("").await.unwrap().text(), "a");
    assert_eq!(client.answer("").await.unwrap().text(), "a 4");
    let lines: Vec<_> = upstream.heads().into_iter().map(|it| it.line).collect();
    assert_eq!(lines, ["GET /?1 HTTP/1.1", "POST /?2 HTTP/1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_while_requests_wait_says_so_to_them() {
    let world = World::start().await;
    world.park(10, LONG);
    let mut client = world.waiter(&get("/"), 0).await;
    let stopped = Split::Closed(Closed::Stopped);
    world.switch.split(&web(), stopped).unwrap();
    let answer = client.answer("").await.unwrap();
    assert_eq!(answer.head.get("x-hotctl-error"), Some("stopped"));
    assert_eq!(world.became("refused"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_connect_is_parked_and_its_old_release_is_retired_without_it() {
    let upstream = Upstream::start("b", Manners::Kind).await;
    let world = World::with(|it| it.timeouts.retry = Duration::from_secs(2)).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = world.flip(socket.local_addr().unwrap());
    let mut client = world.connect().await;
    client.send(post("/", "body")).await.unwrap();
    let retries = "hotctl_retries_total{service=\"web\"}";
    eventually("it was tried again", || world.metric(retries) >= 1.0).await;
    world.park(10, LONG);
    eventually("it is parked", || world.parked() == 1.0).await;
    // It has no ticket, so it is neither waited for nor cut.
    let limits = all(Duration::ZERO);
    assert_eq!(world.switch.retire(&dead, &limits).await, Open::default());
    // Longer than it may try to connect: the time in the park is another one.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let late = tokio::net::TcpSocket::new_v4().unwrap();
    late.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    world.flip(late.local_addr().unwrap());
    eventually("it is tried", || world.parked() == 0.0).await;
    world.flip(&upstream);
    assert_eq!(client.answer("").await.unwrap().text(), "b 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_that_wait_are_all_served_and_no_one_beyond_is_taken() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.park(1000, LONG);
    let clients: Vec<_> = (0..1010)
        .map(|_| {
            let address = world.address;
            tokio::spawn(async move {
                let mut client = Wire::new(tokio::net::TcpStream::connect(address).await.unwrap());
                client.ask(&get("/")).await.unwrap().status()
            })
        })
        .collect();
    eventually("the park is full", || world.became("full") == 10.0).await;
    assert_eq!(world.parked(), 1000.0);
    world.flip(&upstream);
    let mut served = 0;
    for client in clients {
        served += usize::from(client.await.unwrap() == 200);
    }
    assert_eq!((served, world.became("served")), (1000, 1000.0));
}
