//! What is tried again, and what is not.

use std::time::Duration;

use hotctl_proxy::{Closed, Open, Split};
use tokio::net::TcpListener;

use crate::wire::{get, post};
use crate::world::{Manners, Upstream, World, all, eventually, web};

/// An address where nobody listens, and cannot by accident.
async fn nowhere() -> (std::net::SocketAddr, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_connect_goes_to_the_release_that_comes_next() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let (address, _held) = nowhere().await;
    let broken = world.flip(address);
    let mut client = world.connect().await;
    client.send(post("/", "body")).await.unwrap();
    let retries = "hotctl_retries_total{service=\"web\"}";
    eventually("it was tried twice", || world.metric(retries) >= 2.0).await;
    world.flip(&upstream);
    assert_eq!(client.answer("").await.unwrap().text(), "a 4");
    let limits = all(Duration::from_secs(10));
    let cut = world.switch.retire(&broken, &limits).await;
    assert_eq!(cut, Open::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_listens_a_moment_late_is_waited_for() {
    let world = World::start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    world.flip(socket.local_addr().unwrap());
    let mut client = world.connect().await;
    client.send(get("/")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    Upstream::on(socket.listen(16).unwrap(), "late", Manners::Kind);
    assert_eq!(client.answer("").await.unwrap().text(), "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_is_given_up_in_time() {
    let world = World::with(|it| it.timeouts.retry = Duration::from_millis(50)).await;
    let (address, _held) = nowhere().await;
    world.flip(address);
    let _switching = world.metrics.switching(&web());
    let mut client = world.connect().await;
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("connect_failed"));
    let count = |series: &str| {
        world.metric(&format!(
            "{series}{{kind=\"connect_failed\",service=\"web\"}}"
        ))
    };
    assert!(count("hotctl_upstream_errors_total") > 1.0);
    assert_eq!(count("hotctl_switch_errors_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_while_a_request_tries_to_connect_says_so() {
    let world = World::start().await;
    let (address, _held) = nowhere().await;
    world.flip(address);
    let mut client = world.connect().await;
    client.send(get("/")).await.unwrap();
    let retries = "hotctl_retries_total{service=\"web\"}";
    eventually("it was tried again", || world.metric(retries) >= 1.0).await;
    world
        .switch
        .split(&web(), Split::Closed(Closed::Stopped))
        .unwrap();
    let answer = client.answer("").await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_without_an_answer_is_asked_once_more() {
    let upstream = Upstream::start("a", Manners::Mute(1)).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    assert_eq!(client.ask(&get("/")).await.unwrap().text(), "a");
    assert_eq!(upstream.heads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_without_an_answer_is_not_asked_a_third_time() {
    let upstream = Upstream::start("a", Manners::Mute(9)).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("upstream_closed"));
    assert_eq!(upstream.heads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_received_and_has_effects_is_not_sent_twice() {
    for method in ["POST", "PATCH", "PUT", "DELETE"] {
        let upstream = Upstream::start("a", Manners::Mute(1)).await;
        let world = World::start().await;
        world.flip(&upstream);
        let mut client = world.connect().await;
        let request = post("/", "body").replace("POST", method);
        let answer = client.ask(&request).await.unwrap();
        assert_eq!(answer.status(), 502, "{method}");
        assert_eq!(upstream.heads().len(), 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_began_is_not_begun_again() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    for path in ["/torn", "/torn-chunks"] {
        for version in ["1.0", "1.1"] {
            let mut client = world.connect().await;
            client
                .send(format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n"))
                .await
                .unwrap();
            // Also where the end of the connection would be the end of the body.
            let torn = client.answer("").await;
            assert!(torn.is_err(), "{path} {version}: {torn:?}");
        }
    }
    assert_eq!(upstream.heads().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_is_a_bad_gateway() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client.ask(&get("/nonsense")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("upstream_invalid"));
}

/// One client, so that each request finds the connection that the last one left, and the upstream
/// has closed it by then, or is about to.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_closed_while_idle_cost_no_request() {
    for manners in [Manners::Rude(1), Manners::Rude(2), Manners::Rude(5)] {
        let upstream = Upstream::start("a", manners).await;
        let world = World::start().await;
        world.flip(&upstream);
        let mut client = world.connect().await;
        for number in 0..300 {
            let request = match number % 3 {
                0 => post("/", "body"),
                1 => post("/", "body").replace("POST", "DELETE"),
                _ => get("/"),
            };
            let answer = client.ask(&request).await.unwrap();
            assert_eq!(answer.status(), 200, "{manners:?}: {request}");
        }
        assert_eq!(upstream.bodies().len(), 100, "{manners:?}");
    }
}

/// After a thousand requests kept connections are trusted with a `POST`, and then closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_survives_a_release_that_closes_idle_connections_it_used_to_keep() {
    let upstream = Upstream::start("a", Manners::Rude(1200)).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..1100 {
        assert_eq!(client.ask(&get("/")).await.unwrap().status(), 200);
    }
    assert_eq!(upstream.connections(), 1);
    for _ in 0..99 {
        assert_eq!(client.ask(&post("/", "body")).await.unwrap().status(), 200);
    }
    assert_eq!(upstream.connections(), 1, "trusted, and so kept");
    assert_eq!(client.ask(&get("/")).await.unwrap().status(), 200);
    // The upstream has closed now. Give it the moment that makes the connection idle.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(client.ask(&post("/", "body")).await.unwrap().status(), 200);
    assert_eq!(upstream.connections(), 2);
    assert_eq!(upstream.bodies().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_is_waited_for() {
    let world = World::start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let listener: TcpListener = socket.listen(1).unwrap();
    // Nobody accepts, so these fill it.
    let mut fill = Vec::new();
    for _ in 0..3 {
        let connect = tokio::net::TcpStream::connect(address);
        fill.push(tokio::time::timeout(Duration::from_millis(50), connect).await);
    }
    world.flip(address);
    let mut client = world.connect().await;
    client.send(get("/")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(fill);
    Upstream::on(listener, "busy", Manners::Kind);
    assert_eq!(client.answer("").await.unwrap().text(), "busy");
}
