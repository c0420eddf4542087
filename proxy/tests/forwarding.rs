//! What passes through the proxy, and what it says of its own.

use std::time::Duration;

use hotctl_proxy::{Closed, Split};

use crate::wire::{get, post};
use crate::world::{Manners, Upstream, World, eventually, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_say_who_it_is() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client
        .ask("GET / HTTP/1.1\r\nHost: Example.com\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: mine\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let head = &upstream.heads()[0];
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["Example.com"]);
    assert_eq!(head.get("host"), Some("Example.com"));
    for gone in ["x-forwarded-port", "forwarded", "x-real-ip"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
    let id = head.get("x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::with(|it| it.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    client
        .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Request-Id: mine\r\n\r\n")
        .await
        .unwrap();
    let head = &upstream.heads()[0];
    assert_eq!(head.all("x-forwarded-for"), ["1.2.3.4, 127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["https"]);
    assert_eq!(head.all("x-forwarded-host"), ["b"]);
    assert_eq!(head.get("x-request-id"), Some("mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_one_connection_ends_at_the_proxy() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client
        .ask("GET /hop-by-hop HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Yours: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n")
        .await
        .unwrap();
    let head = &upstream.heads()[0];
    for gone in ["x-mine", "keep-alive", "te", "upgrade", "http2-settings"] {
        assert_eq!(head.get(gone), None, "{gone}");
        assert_eq!(answer.head.get(gone), None, "{gone} of the answer");
    }
    assert_eq!(head.get("x-yours"), Some("1"));
    assert_eq!(answer.head.get("x-yours"), Some("1"));
    assert_eq!(answer.head.get("trailer"), None);
    assert_eq!(answer.head.all("connection"), ["keep-alive"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..50 {
        assert_eq!(client.ask(&get("/")).await.unwrap().text(), "a");
        assert_eq!(client.ask(&get("/chunked")).await.unwrap().text(), "a");
        let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(client.ask(head).await.unwrap().text(), "");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_all_at_once_are_answered_in_order() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let requests = [get("/slow?20"), post("/", "four"), get("/chunked")].concat();
    client.send(requests).await.unwrap();
    for text in ["a", "a 4", "a"] {
        assert_eq!(client.answer("").await.unwrap().text(), text);
    }
    // And one while another is being answered.
    client.send(get("/slow?50")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    client.send(post("/", "sixsix")).await.unwrap();
    for text in ["a", "a 6"] {
        assert_eq!(client.answer("").await.unwrap().text(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_what_it_understands() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    for path in ["/", "/chunked", "/until-end", "/early"] {
        let mut client = world.connect().await;
        client
            .send(format!("GET {path} HTTP/1.0\r\n\r\n"))
            .await
            .unwrap();
        let answer = String::from_utf8(client.rest().await.unwrap()).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{path}: {answer}"
        );
        assert!(answer.ends_with("\r\n\r\na"), "{path}: {answer}");
        assert!(!answer.contains("chunked"), "{path}: {answer}");
        assert!(answer.contains("Connection: close"), "{path}: {answer}");
    }
    // It may ask to keep the connection.
    let mut client = world.connect().await;
    let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(client.ask(request).await.unwrap().text(), "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_http_1_0_is_served_to_clients_of_1_1() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..2 {
        let answer = client.ask(&get("/until-end")).await.unwrap();
        assert_eq!(answer.head.line, "HTTP/1.1 200 OK");
        assert_eq!(answer.text(), "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_and_100_continue_pass() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/early")).await.unwrap();
    assert_eq!(client.head().await.unwrap().unwrap().status(), 103);
    assert_eq!(client.answer("").await.unwrap().text(), "a");
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(client.head().await.unwrap().unwrap().status(), 100);
    client.send("body").await.unwrap();
    assert_eq!(client.answer("").await.unwrap().text(), "a 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_host_reaches_the_release_as_a_path() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for host in ["Host: example.com\r\n", ""] {
        let request = format!("GET http://example.com/x?y HTTP/1.1\r\n{host}\r\n");
        assert_eq!(client.ask(&request).await.unwrap().status(), 200);
    }
    for head in upstream.heads() {
        assert_eq!(head.second(), "/x?y");
        assert_eq!(head.all("host"), ["example.com"]);
        assert_eq!(head.get("x-forwarded-host"), Some("example.com"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_hotctl_itself_say_why() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("nothing_deployed"));
    assert_eq!(
        answer.head.get("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(answer.text().contains("Nothing has been deployed"));

    world
        .switch
        .split(&web(), Split::Closed(Closed::Stopped))
        .unwrap();
    let answer = client
        .ask("GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.text(),
        "{\"status\":503,\"error\":\"stopped\",\"message\":\"This service is stopped.\"}\n"
    );
    let head = client
        .ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(head.head.get("x-hotctl-error"), Some("stopped"));

    world
        .switch
        .publish(hotctl_proxy::Table::new([]), 2)
        .unwrap();
    let answer = client.ask(&get("/")).await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("no_route"));
    let answer = client
        .ask("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer.status(), 405);

    assert_eq!(
        world.metric("hotctl_requests_total{code=\"503\",service=\"web\"}"),
        3.0
    );
    assert_eq!(
        world.metric("hotctl_requests_total{code=\"404\",service=\"-\"}"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_refused_gets_its_answer_before_the_connection_closes() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let length = 8 << 20;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await
        .unwrap();
    // Nobody reads it; the client goes on until it cannot, and then looks for the answer.
    let _ = client.send(vec![0; 1 << 20]).await;
    let answer = client.answer("POST ").await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.head.closes());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_where_they_are() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let in_flight =
        "hotctl_requests_in_flight{kind=\"requests\",release=\"web@1\",service=\"web\"}";
    assert_eq!(world.metric(in_flight), 0.0);
    let mut client = world.connect().await;
    client.send(get("/slow?100")).await.unwrap();
    crate::world::eventually("it is in flight", || pool.tickets() == 1).await;
    assert_eq!(world.metric(in_flight), 1.0);
    client.answer("").await.unwrap();
    crate::world::eventually("it is over", || world.metric(in_flight) == 0.0).await;
    assert_eq!(
        world.metric("hotctl_requests_total{code=\"200\",service=\"web\"}"),
        1.0
    );
    assert_eq!(
        world.metric("hotctl_request_duration_seconds_count{service=\"web\"}"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_protocols_that_nobody_asked_for_is_no_answer() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client.ask(&get("/unasked")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.head.get("x-hotctl-error"), Some("upstream_invalid"));
    eventually("it is over", || pool.tickets() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_none_are_a_bad_request() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    for chunks in ["zz\r\n", "2\r\nokXX\r\n"] {
        let mut client = world.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
            .await
            .unwrap();
        let answer = client.answer("").await.unwrap();
        assert_eq!(answer.status(), 400, "{chunks:?}");
        assert_eq!(answer.head.get("x-hotctl-error"), Some("bad_request"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_the_answer_to_an_upload_leaves_the_connection_open() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        assert!(client.head().await.unwrap().unwrap().line.contains(" 100 "));
        client.send("body").await.unwrap();
        let answer = client.answer("").await.unwrap();
        assert_eq!(answer.text(), "a 4");
        assert_eq!(answer.head.get("connection"), Some("keep-alive"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_always_gets_a_host() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    let mut client = world.connect().await;
    let answer = client.ask("GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(answer.status(), 400);
    let mut client = world.connect().await;
    let answer = client.ask("GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(answer.text(), "a");
    assert_eq!(upstream.heads().len(), 1);
    assert_eq!(upstream.heads()[0].get("host"), Some("localhost"));
}

/// A reset would take from a client what is on its way to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_of_an_answer_arrives_where_its_end_is_missed() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    world.flip(&upstream);
    for (path, last) in [("/torn", "half"), ("/torn-chunks", "4\r\nhalf\r\n")] {
        let mut client = world.connect().await;
        client.send(get(path)).await.unwrap();
        assert!(client.head().await.unwrap().is_some());
        let rest = client.rest().await.unwrap();
        assert_eq!(rest, last.as_bytes(), "{path}");
    }
}
