//! A request reaches the service that it names, as it was sent; who cannot be answered learns why.

use std::time::Duration;

use crate::support::http::{self, Answer, Client, Trouble, Upload};
use crate::support::load::Plan;
use crate::support::websocket::WebSocket;
use crate::support::{Class, Daemon, eventually};

const SEVERAL: &str = r#"
admin = "127.0.0.1:0"

[[listen]]
address = "127.0.0.1:0"

[service.exact]
hosts = ["a.test"]
[service.below]
hosts = ["*.test"]
[service.api]
hosts = ["a.test"]
paths = ["/api", "/api/v2/special"]
[service.empty]
hosts = ["empty.test"]
"#;

fn deploy(daemon: &Daemon, service: &str, version: &str) {
    let path = daemon.release(version);
    daemon
        .hotctl(["deploy", path.to_str().unwrap(), "--service", service])
        .exits(0);
}

/// `GET` with these headers, whole lines.
fn get(daemon: &Daemon, target: &str, headers: &str) -> Answer {
    http::ask(
        daemon.listen(),
        &format!("GET {target} HTTP/1.1\r\n{headers}\r\n"),
    )
}

#[test]
fn hosts_and_paths_decide_who_answers() {
    let daemon = Daemon::start(SEVERAL);
    for service in ["exact", "below", "api"] {
        deploy(&daemon, service, service);
    }
    for (host, path, service) in [
        ("a.test", "/up", "exact"),
        ("A.TEST", "/up", "exact"),
        ("a.test:8080", "/up", "exact"),
        ("b.test", "/up", "below"),
        ("deep.b.test", "/up", "below"),
        ("a.test", "/api", "api"),
        ("a.test", "/api/", "api"),
        ("a.test", "/api?x=/", "api"),
        ("a.test", "/api/v1", "api"),
        ("a.test", "/apix", "exact"),
        ("b.test", "/api", "below"),
    ] {
        let answer = get(&daemon, path, &format!("host: {host}\r\n"));
        assert_eq!(
            answer.header("x-version"),
            service,
            "{host} {path}\n{answer}"
        );
    }
    for host in ["test", "elsewhere", "a.test.elsewhere"] {
        let answer = get(&daemon, "/", &format!("host: {host}\r\n")).has_status(404);
        assert_eq!(
            answer.header("x-hotctl-error"),
            "no_route",
            "{host}\n{answer}"
        );
    }
}

#[test]
fn a_deploy_of_one_service_is_nothing_to_another() {
    let daemon = Daemon::start(SEVERAL);
    for service in ["exact", "below"] {
        deploy(&daemon, service, "v1");
    }
    let load = |host: &str| {
        let plan = Plan::to(daemon.listen())
            .clients(Class::KeepAlive, 2)
            .host(host);
        plan.every(Duration::from_millis(5)).start()
    };
    let (flipped, other) = (load("a.test"), load("b.test"));
    other.expect(&["v1"]);
    flipped.flipping("v1", "v2", || deploy(&daemon, "exact", "v2"));
    flipped.wait_for(50);
    other.wait_for(50);
    flipped.finish().assert_none_failed();
    other.finish().assert_none_failed();
    assert_eq!(
        daemon
            .status()
            .service("below")
            .live
            .as_ref()
            .unwrap()
            .release,
        "below@1"
    );
}

#[test]
fn errors_are_pages_for_people_and_json_for_programs() {
    let daemon = Daemon::start(SEVERAL);
    let host = "host: empty.test\r\n";
    let page = get(
        &daemon,
        "/",
        &format!("{host}accept: text/html,*/*;q=0.8\r\n"),
    );
    let page = page.has_status(503);
    assert_eq!(page.header("x-hotctl-error"), "nothing_deployed");
    assert!(
        page.header("content-type").starts_with("text/html"),
        "{page}"
    );
    assert!(page.text().contains("<"), "{page}");
    let json = get(&daemon, "/", &format!("{host}accept: application/json\r\n")).has_status(503);
    assert!(
        json.header("content-type").starts_with("application/json"),
        "{json}"
    );
    let value: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    assert!(value.to_string().contains("nothing_deployed"), "{value}");
    assert!(page.text().len() < 4096, "short: {page}");
}

#[test]
fn an_app_that_ends_in_the_middle_of_a_request_is_502_and_the_request_not_repeated() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let post = "POST /exit HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    let answer = http::ask(daemon.listen(), post).has_status(502);
    assert_eq!(answer.header("x-hotctl-error"), "upstream_closed");
    eventually("it has been started again, once", || {
        let status = daemon.status();
        let live = status.service("web").live.as_ref();
        live.is_some_and(|live| live.restarts == 1 && live.pid.is_some())
    });
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
}

#[test]
fn the_app_learns_who_asks_and_a_client_cannot_pretend() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let lies = "x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n\
                x-forwarded-host: bank.test\r\nx-request-id: mine\r\n";
    let seen = get(
        &daemon,
        "/headers?a=b",
        &format!("host: shop.test:81\r\n{lies}"),
    )
    .text();
    let lower = seen.to_ascii_lowercase();
    assert!(seen.starts_with("GET /headers?a=b HTTP/1.1\r\n"), "{seen}");
    for line in [
        "host: shop.test:81",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.test:81",
    ] {
        assert!(lower.lines().any(|one| one == line), "no {line}\n{seen}");
    }
    for lie in ["1.2.3.4", "https", "bank.test", "mine"] {
        assert!(!seen.contains(lie), "{lie}\n{seen}");
    }
    assert_eq!(lower.matches("x-request-id: ").count(), 1, "{seen}");
}

#[test]
fn a_trusted_proxy_in_front_is_believed() {
    let config = crate::support::daemon::web("");
    let daemon = Daemon::start(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{config}"));
    daemon.deploy("v1", &[]);
    let told = "host: shop.test\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n\
                x-request-id: theirs\r\n";
    let seen = get(&daemon, "/headers", told).text().to_ascii_lowercase();
    for line in [
        "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        "x-forwarded-proto: https",
        "x-request-id: theirs",
    ] {
        assert!(seen.lines().any(|one| one == line), "no {line}\n{seen}");
    }
}

#[test]
fn headers_of_the_connection_are_not_passed_on() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let headers = "host: test\r\nconnection: keep-alive, x-private\r\nkeep-alive: timeout=5\r\n\
                   x-private: secret\r\nproxy-connection: keep-alive\r\nte: gzip\r\n";
    let seen = get(&daemon, "/headers", headers)
        .text()
        .to_ascii_lowercase();
    for name in ["x-private:", "keep-alive:", "proxy-connection:"] {
        assert!(
            !seen.lines().any(|line| line.starts_with(name)),
            "{name}\n{seen}"
        );
    }
}

#[test]
fn old_clients_bare_answers_and_asked_for_bodies_go_through() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let listen = daemon.listen();
    let old = http::ask(listen, "GET / HTTP/1.0\r\nhost: test\r\n\r\n").has_status(200);
    assert_eq!(old.text(), "v1\n");
    for code in [204, 304, 404, 418, 500] {
        daemon.get(&format!("/status?code={code}")).has_status(code);
    }
    Upload::begin(listen, "test").end().has_status(200);
    let head = http::block_on(async {
        let mut client = Client::connect(listen).await?;
        client
            .send(b"HEAD / HTTP/1.1\r\nhost: test\r\n\r\n")
            .await?;
        let head = client.head().await?;
        // Nothing of a body may stand between it and the next answer.
        client
            .send(b"GET /up HTTP/1.1\r\nhost: test\r\n\r\n")
            .await?;
        let next = client.any_head().await?;
        assert_eq!(next.status, 200);
        Ok::<_, Trouble>(head)
    });
    assert_eq!(head.unwrap().header("content-length"), Some("3"));
}

#[test]
fn several_requests_sent_at_once_are_answered_in_order() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let answers = http::block_on(async {
        let mut client = Client::connect(daemon.listen()).await?;
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
        let all = [get("/slow?ms=50"), get("/"), get("/up")].concat();
        client.send(all.as_bytes()).await?;
        let mut answers = Vec::new();
        for _ in 0..3 {
            client.head().await?;
            answers.push(client.body().await?);
        }
        Ok(answers)
    });
    assert_eq!(answers.unwrap(), ["slow\n", "v1\n", "ok\n"]);
}

#[test]
fn a_websocket_is_open_both_ways_once_its_handshake_is_answered() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let listen = daemon.listen();
    // Again and again, with a busy machine: in pingora the answer can overtake the end of the
    // request (cloudflare/pingora#946), and the client's first words were lost then.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cut = runtime.block_on(async {
        let clients = (0..16).map(|_| {
            tokio::spawn(async move {
                let mut cut = Vec::new();
                for _ in 0..250 {
                    let mut socket = WebSocket::connect(listen).await;
                    cut.extend(socket.echo("hello").await.err());
                    socket.close().await;
                }
                cut
            })
        });
        let mut cut = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            cut.extend(client.await.unwrap());
        }
        cut
    });
    assert!(
        cut.is_empty(),
        "{} of 4000, the first: {:?}",
        cut.len(),
        cut[0]
    );
}

#[test]
fn an_event_reaches_the_client_when_it_happens() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let seen = http::block_on(async {
        let mut client = Client::connect(daemon.listen()).await?;
        // The second event is an hour away: the first must not wait for it.
        client
            .send(b"GET /sse?every=3600000 HTTP/1.1\r\nhost: test\r\n\r\n")
            .await?;
        client.head().await?;
        client.piece().await
    });
    assert_eq!(seen.unwrap().unwrap(), "id: 0\ndata: v1\n\n");
}

#[test]
fn an_app_that_closes_idle_connections_without_a_word_is_no_trouble() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &["--drop-idle-after", "20"]);
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 4)
        .clients(Class::Post, 4)
        .every(Duration::from_millis(20))
        .start();
    load.expect(&["v1"]);
    load.wait_for(1000);
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
}

#[test]
fn large_bodies_stream_through_in_both_directions() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    let load = Plan::to(daemon.listen()).clients(Class::Upload, 4).start();
    load.wait_for(8);
    load.finish().assert_none_failed();
    let body = daemon.get("/big?bytes=50000000").has_status(200).body;
    assert_eq!(body.len(), 50_000_000);
}
