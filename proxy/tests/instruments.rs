//! What the proxy counts and writes of each request.

use hotctl_proxy::AccessLog;
use serde_json::Value;

use crate::wire::{get, post};
use crate::world::{Manners, Upstream, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_line_in_the_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&hotctl_config::AccessLog::File(path.clone())).unwrap();
    let upstream = Upstream::start("abc", Manners::Mute(1)).await;
    let world = World::with(|it| it.access_log = log).await;
    let mut client = world.connect().await;
    client.ask(&get("/early")).await.unwrap();
    world.flip(&upstream);
    client.ask(&get("/x?secret=1")).await.unwrap();
    client.ask(&post("/", "body")).await.unwrap();
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines();
        lines
            .map(|it| serde_json::from_str::<Value>(it).unwrap())
            .collect::<Vec<_>>()
    };
    eventually("three lines", || lines().len() == 3).await;
    let lines = lines();
    let all = |field: &str| {
        lines
            .iter()
            .map(|it| it[field].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("service"), [r#""web""#; 3]);
    assert_eq!(all("release"), ["null", r#""web@1""#, r#""web@1""#]);
    assert_eq!(all("method"), [r#""GET""#, r#""GET""#, r#""POST""#]);
    assert_eq!(all("path"), [r#""/early""#, r#""/x""#, r#""/""#]);
    assert_eq!(all("status"), ["503", "200", "200"]);
    assert_eq!(all("bytes")[1..], ["3", "5"]);
    assert_eq!(all("retries"), ["0", "1", "0"]);
    assert_eq!(all("client"), [r#""127.0.0.1""#; 3]);
    assert_eq!(lines[0]["upstream_ms"], Value::Null);
    assert!(lines[1]["upstream_ms"].as_f64() <= lines[1]["duration_ms"].as_f64());
    let ids: Vec<_> = upstream
        .heads()
        .iter()
        .map(|head| head.get("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(lines[1]["request_id"], *ids[0]);
    assert_eq!(lines[2]["request_id"], *ids[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_release_and_class_and_in_flight_by_kind() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    world.metrics.release_begins(pool.release());
    let class = |class: &str| {
        world.metric(&format!(
            "hotctl_release_requests_total{{class=\"{class}\",release=\"web@1\",service=\"web\"}}"
        ))
    };
    let mut client = world.connect().await;
    for status in [200, 404, 500, 204] {
        client
            .ask(&get(&format!("/status?{status}")))
            .await
            .unwrap();
    }
    eventually("they are counted", || class("2xx") == 2.0).await;
    assert_eq!((class("4xx"), class("5xx"), class("3xx")), (1.0, 1.0, 0.0));

    let in_flight = |kind: &str| {
        world.metric(&format!(
            "hotctl_requests_in_flight{{kind=\"{kind}\",release=\"web@1\",service=\"web\"}}"
        ))
    };
    let mut events = world.connect().await;
    events.send(get("/events?60000")).await.unwrap();
    events.head().await.unwrap();
    client.send(get("/slow?60000")).await.unwrap();
    eventually("both are there", || pool.tickets() == 2).await;
    assert_eq!((in_flight("requests"), in_flight("streams")), (1.0, 1.0));
    assert_eq!(in_flight("websockets"), 0.0);
}
