//! What lasts longer than a request ends in order when its release retires: each kind has a time of
//! its own, a WebSocket gets a Close frame, and no deploy waits for any of them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::http::{self, Client};
use crate::support::websocket::WebSocket;
use crate::support::{Daemon, eventually};

/// Between two messages of a WebSocket.
const BEAT: Duration = Duration::from_millis(200);

#[test]
fn two_hundred_websockets_get_a_close_frame_and_none_before_its_time() {
    const SOCKETS: usize = 200;
    let daemon = Daemon::of_web(
        "keep_warm = \"0s\"\ndrain = { requests = \"1s\", websockets = \"6s\", streams = \"2s\", spread = \"2s\" }",
    );
    daemon.deploy("v1", &[]);
    let runtime = http::runtime();
    let to = daemon.listen();
    let sockets = http::run_on(&runtime, async move {
        join_all((0..SOCKETS).map(|_| WebSocket::connect(to))).await
    });
    assert!(sockets.iter().all(|socket| socket.version == "v1"));
    let talks: Vec<_> = sockets
        .into_iter()
        .map(|socket| runtime.spawn(socket.talk_until_farewell(BEAT)))
        .collect();
    let before_flip = Instant::now();
    daemon.deploy("v2", &[]);
    // The next one does not wait for them.
    daemon.deploy("v3", &[]);
    assert!(
        talks.iter().all(|talk| !talk.is_finished()),
        "all are open when two more releases are live"
    );
    let open = daemon.metric("hotctl_requests_in_flight", &["web@1", "websockets"]);
    assert!((open - SOCKETS as f64).abs() < 0.5, "{open} are counted");
    let ended = http::run_on(&runtime, async move {
        tokio::time::timeout(Duration::from_secs(30), join_all(talks)).await
    });
    let farewells: Vec<_> = ended
        .expect("all end in their time")
        .into_iter()
        .map(|talk| talk.unwrap().expect("a Close frame"))
        .collect();
    assert_eq!(farewells.len(), SOCKETS);
    for farewell in &farewells {
        assert_eq!(farewell.code, 1012, "{farewell:?}");
        assert!(!farewell.reason.is_empty(), "{farewell:?}");
        assert!(farewell.answered > 0, "{farewell:?}");
        let after = farewell.at - before_flip;
        assert!(
            after >= Duration::from_secs(4),
            "told {after:?} after the flip: before its deadline less the spread"
        );
    }
    let first = farewells.iter().map(|farewell| farewell.at).min().unwrap();
    let last = farewells.iter().map(|farewell| farewell.at).max().unwrap();
    eprintln!(
        "{SOCKETS} Close frames over {:?}, from {:?} after the flip on",
        last - first,
        first - before_flip
    );
    assert!(
        last - first > Duration::from_millis(500),
        "spread, so that not all come back at once: {:?}",
        last - first
    );
    let cut = "hotctl_drain_cut_total";
    assert!((daemon.metric(cut, &["web", "websockets"]) - SOCKETS as f64).abs() < 0.5);
    assert!(daemon.metric(cut, &["web", "kind=\"requests\""]) == 0.0);
    eventually("the old release ends with them", || {
        daemon.status().service("web").running.len() == 1
    });
}

#[test]
fn an_event_stream_has_a_time_of_its_own_and_a_request_keeps_its_own() {
    let daemon = Daemon::of_web(
        "keep_warm = \"0s\"\ndrain = { requests = \"30s\", websockets = \"1m\", streams = \"1s\", spread = \"0s\" }",
    );
    daemon.deploy("v1", &[]);
    let runtime = http::runtime();
    let to = daemon.listen();
    let (mut stream, mut slow) = http::run_on(&runtime, async move {
        let mut stream = Client::connect(to).await.unwrap();
        let request = "GET /sse?every=50&count=10000 HTTP/1.1\r\nhost: test\r\n\r\n";
        stream.send(request.as_bytes()).await.unwrap();
        assert_eq!(stream.head().await.unwrap().status, 200);
        let mut slow = Client::connect(to).await.unwrap();
        let request = "GET /slow?ms=3000 HTTP/1.1\r\nhost: test\r\n\r\n";
        slow.send(request.as_bytes()).await.unwrap();
        (stream, slow)
    });
    eventually("both are in flight", || daemon.live().tickets == 2);
    let path = daemon.release("v2");
    let began = Instant::now();
    let deployed = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(0);
    deployed.says("1 request, 1 stream").says("1 stream ended");
    let (cut, answered) = http::run_on(&runtime, async move {
        let cut = loop {
            match stream.piece().await {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let head = slow.head().await.unwrap();
        (cut, head.status == 200 && head.version() == "v1")
    });
    assert!(cut, "a stream that is cut must not look complete");
    assert!(
        answered,
        "the request was answered by the release that began it"
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(daemon.metric("hotctl_drain_cut_total", &["web", "streams"]) == 1.0);
    assert!(daemon.metric("hotctl_drain_cut_total", &["web", "kind=\"requests\""]) == 0.0);
}

#[test]
fn a_websocket_is_told_to_go_away_by_the_code_that_is_configured() {
    let daemon = Daemon::of_web(
        "keep_warm = \"0s\"\ndrain = { websockets = \"300ms\", spread = \"0s\", close_code = 1001 }",
    );
    daemon.deploy("v1", &[]);
    let runtime = http::runtime();
    let to = daemon.listen();
    let socket = http::run_on(&runtime, WebSocket::connect(to));
    daemon.deploy("v2", &[]);
    let farewell = http::run_on(&runtime, socket.talk_until_farewell(BEAT));
    assert_eq!(farewell.expect("a Close frame").code, 1001);
}
