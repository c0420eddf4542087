//! Answers of every kind, from real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hotctl_config::file::{Health, HealthKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::{Address, Answer, Miss, ask};

/// A server that does the same to everybody; it ends with the test.
async fn server<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(each(stream));
        }
    });
    address
}

/// Read the request to its end.
async fn request(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0);
    }
    String::from_utf8(got).unwrap()
}

/// A server that answers everybody with the same bytes, then closes.
async fn answers(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes: std::sync::Arc<[u8]> = bytes.into().into();
    server(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            request(&mut stream).await;
            // The prober may have heard enough before the end.
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await
}

async fn probe(address: impl Into<Address>, health: &Health) -> Result<Answer, Miss> {
    ask(&address.into(), health, health.timeout).await.0
}

fn health() -> Health {
    Health {
        timeout: Duration::from_millis(300),
        path: "/up".into(),
        ..Health::default()
    }
}

async fn good(bytes: &str, health: &Health) -> Answer {
    probe(answers(bytes).await, health).await.unwrap()
}

/// What is said of a miss, after the request.
async fn miss(bytes: impl Into<Vec<u8>>, health: &Health) -> String {
    let address = answers(bytes).await;
    said(address, &probe(address, health).await.unwrap_err())
}

fn said(address: SocketAddr, miss: &Miss) -> String {
    let text = miss.to_string();
    let request = format!("GET {address}/up: ");
    text.strip_prefix(&request).expect(&text).to_owned()
}

#[tokio::test]
async fn a_good_answer_is_good_however_it_is_written() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200\n\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(good(bytes, &health()).await.status, Some(200), "{bytes}");
    }
    assert_eq!(
        good("HTTP/1.1 404 Not Found\r\n\r\n", &health())
            .await
            .status,
        Some(404)
    );
}

#[tokio::test]
async fn the_request_says_who_asks() {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let address = server(move |mut stream| {
        let send = send.clone();
        async move {
            send.send(request(&mut stream).await).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        }
    })
    .await;
    let mut health = health();
    probe(address, &health).await.unwrap();
    let plain = receive.recv().await.unwrap();
    assert!(plain.starts_with("GET /up HTTP/1.1\r\n"), "{plain}");
    assert!(
        plain.contains(&format!("\r\nHost: {address}\r\n")),
        "{plain}"
    );
    assert!(
        plain.contains("\r\nUser-Agent: hotctl-probe\r\n"),
        "{plain}"
    );
    assert!(plain.contains("\r\nConnection: close\r\n"), "{plain}");
    health.host = Some("example.com".into());
    health.method = "HEAD".into();
    probe(address, &health).await.unwrap();
    let other = receive.recv().await.unwrap();
    assert!(
        other.starts_with("HEAD /up HTTP/1.1\r\nHost: example.com\r\n"),
        "{other}"
    );
}

#[tokio::test]
async fn a_wrong_status_is_told_with_what_explains_it() {
    assert_eq!(
        miss(
            "HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nX-Other: 1\r\nServer: x\r\n\r\n\
             <h1>Internal error</h1>\n",
            &health()
        )
        .await,
        "status 500, want 100-499; content-type text/html; server x; body \"<h1>Internal error</h1>\""
    );
    let strict = Health {
        status: "200".parse().unwrap(),
        ..health()
    };
    let address = answers("HTTP/1.1 301 Moved\r\nLocation: https://a.example/login\r\n\r\n").await;
    let moved = probe(address, &strict).await.unwrap_err();
    assert_eq!(
        said(address, &moved),
        "status 301 to https://a.example/login, want 200"
    );
    assert!(moved.hint().unwrap().starts_with("point health.path at"));
    let kept: Miss = serde_json::from_str(&serde_json::to_string(&moved).unwrap()).unwrap();
    assert_eq!(kept, moved);
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let began = Instant::now();
    let refused = probe(address, &health()).await.unwrap_err();
    assert_eq!(said(address, &refused), "connection refused");
    assert!(began.elapsed() < Duration::from_millis(200));
    let tcp = Health {
        kind: HealthKind::Tcp,
        ..health()
    };
    let refused = probe(address, &tcp).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("connect {address}: connection refused")
    );
}

#[tokio::test]
async fn a_unix_socket_is_asked_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let address = Address::Unix(path.clone().into());
    let refused = probe(address.clone(), &health()).await.unwrap_err();
    let shown = path.display();
    assert_eq!(
        refused.to_string(),
        format!("GET unix:{shown}:/up: connection refused")
    );
    let listener = UnixListener::bind(&path).unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut got = vec![0; 1000];
            // A probe that only connects sends nothing.
            let length = stream.read(&mut got).await.unwrap_or_default();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            got.truncate(length);
            let _ = send.send(String::from_utf8(got).unwrap()).await;
        }
    });
    let answer = probe(address.clone(), &health()).await.unwrap();
    assert_eq!(answer.status, Some(200));
    let asked = receive.recv().await.unwrap();
    assert!(asked.contains("\r\nHost: localhost\r\n"), "{asked}");
    let tcp = Health {
        kind: HealthKind::Tcp,
        ..health()
    };
    assert_eq!(probe(address, &tcp).await.unwrap().status, None);
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout_and_says_where_it_hangs() {
    let silent = server(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let began = Instant::now();
    let hung = probe(silent, &health()).await.unwrap_err();
    assert_eq!(said(silent, &hung), "connected, no answer within 300 ms");
    assert!(began.elapsed() < Duration::from_secs(2));

    // Byte for byte: the time is for the whole probe, not for each read.
    let slow = server(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain([b'x'; 1000].iter()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let began = Instant::now();
    let hung = probe(slow, &health()).await.unwrap_err();
    assert_eq!(said(slow, &hung), "connected, no answer within 300 ms");
    assert!(began.elapsed() < Duration::from_secs(2));

    // Connecting is all that is asked.
    let tcp = Health {
        kind: HealthKind::Tcp,
        ..health()
    };
    assert_eq!(probe(silent, &tcp).await.unwrap().status, None);
}

#[tokio::test]
async fn a_broken_answer_is_told_as_what_it_is() {
    assert_eq!(
        miss("", &health()).await,
        "connection closed without an answer"
    );
    assert_eq!(
        miss("HTTP/1.1 200 OK\r\nX", &health()).await,
        "connection closed within the header, after 18 bytes"
    );
    assert_eq!(
        miss("SSH-2.0-OpenSSH_9.2\r\n", &health()).await,
        "not an HTTP/1 answer: \"SSH-2.0-OpenSSH_9.2\\r\\n\""
    );
    assert_eq!(
        miss("HTTP/1.1 2xx OK\r\n\r\n", &health()).await,
        "not an HTTP/1 answer: \"HTTP/1.1 2xx OK\\r\\n\\r\\n\""
    );
    assert!(
        miss([0xff, 0xfe, 0x00], &health())
            .await
            .starts_with("not an HTTP/1 answer")
    );
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000));
    assert_eq!(miss(endless, &health()).await, "header longer than 64 KiB");
}

#[tokio::test]
async fn a_text_in_the_body_is_looked_for_in_its_first_64_kib() {
    let wants = |text: &str| Health {
        body: Some(text.into()),
        ..health()
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
    good(&format!("{head}all is well here"), &wants("is well")).await;
    good(
        &format!("{head}{}found", "x".repeat(60_000)),
        &wants("found"),
    )
    .await;
    assert_eq!(
        miss(format!("{head}warming up"), &wants("ready")).await,
        "status 200, but \"ready\" is not in the body; content-type text/plain; body \"warming up\""
    );
    let late = format!("{head}{}found", "x".repeat(70_000));
    assert!(
        miss(late, &wants("found"))
            .await
            .contains("is not in the body")
    );
}

#[tokio::test]
async fn a_big_body_nor_an_endless_one_costs_memory_or_time() {
    let endless = server(|mut stream| async move {
        request(&mut stream).await;
        let chunk = [b'x'; 16 * 1024];
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let began = Instant::now();
    probe(endless, &health()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(250));

    // An event stream: the answer is there, its body never ends.
    let events = server(|mut stream| async move {
        request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let began = Instant::now();
    let answer = probe(events, &health()).await.unwrap();
    assert!(answer.took < Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_millis(250));
}

#[tokio::test]
async fn an_app_sees_its_connection_end_in_peace() {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let address = server(move |mut stream| {
        let send = send.clone();
        async move {
            request(&mut stream).await;
            let body = "x".repeat(20_000);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
            stream.write_all(body.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            send.send(stream.read_to_end(&mut rest).await.is_ok())
                .await
                .unwrap();
        }
    })
    .await;
    probe(address, &health()).await.unwrap();
    assert!(receive.recv().await.unwrap(), "the connection was reset");
}
