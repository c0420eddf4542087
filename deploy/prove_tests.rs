//! Real processes proving themselves, and failing to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hotctl_config::file::{Health, HealthKind, Ownership};

use super::{Healthy, Unhealthy, UnhealthyKind, prove};
use crate::process::{Exit, Process};
use crate::testing::{House, test_app};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn app(house: &House, words: &[&str]) -> Process {
    let program = test_app();
    let words: Vec<&str> = [program.to_str().unwrap(), "app"]
        .into_iter()
        .chain(words.iter().copied())
        .collect();
    house.start(&words).await.unwrap()
}

/// Prove it, and collect what is said meanwhile.
async fn proved(
    process: &Process,
    address: SocketAddr,
    health: &Health,
    timeout: Duration,
) -> (Result<Healthy, Unhealthy>, Vec<String>) {
    let mut said = Vec::new();
    let done = prove(process, address, health, timeout, |text| {
        said.push(text.to_owned())
    })
    .await;
    process.stop(Duration::ZERO).await;
    (done, said)
}

#[tokio::test]
async fn an_app_is_healthy_soon_after_it_listens() {
    let house = House::new();
    let address = free();
    let app = app(&house, &["200", &address.to_string(), "200"]).await;
    let (done, said) = proved(&app, address, &Health::default(), LONG).await;
    let healthy = done.unwrap();
    assert_eq!(said, [format!("GET {address}/: connection refused")]);
    assert_eq!(healthy.warning, None);
    let listening = healthy.listening.unwrap();
    assert!(listening >= Duration::from_millis(200), "{listening:?}");
    // A tenth later at most, and what a busy machine adds.
    assert!(listening < Duration::from_millis(350), "{listening:?}");
    assert!((5..60).contains(&healthy.probes), "{}", healthy.probes);
}

#[tokio::test]
async fn an_early_end_is_told_at_once() {
    let house = House::new();
    let app = house.sh("sleep 0.1; echo 'no database' >&2; exit 7").await;
    let began = Instant::now();
    let (done, _) = proved(&app, free(), &Health::default(), LONG).await;
    let unhealthy = done.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(
        unhealthy.to_string(),
        "ended before it was healthy: exit status 7"
    );
    assert_eq!(unhealthy.kind, UnhealthyKind::Exited);
    assert_eq!(unhealthy.exit, Some(Exit::Code(7)));
    assert_eq!(crate::process::tail(&house.path("log"), 5), ["no database"]);
}

#[tokio::test]
async fn an_app_that_never_listens_is_given_up() {
    let house = House::new();
    let address = free();
    let app = house.sh("sleep 30").await;
    let (done, _) = proved(&app, address, &Health::default(), SHORT).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(unhealthy.kind, UnhealthyKind::Timeout);
    assert_eq!(
        unhealthy.to_string(),
        format!("not healthy within 300ms: GET {address}/: connection refused")
    );
    let kept: Unhealthy =
        serde_json::from_str(&serde_json::to_string(&unhealthy).unwrap()).unwrap();
    assert_eq!(kept, unhealthy);
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_told_where() {
    let house = House::new();
    let (address, other) = (free(), free());
    let app_there = app(&house, &["0", &other.to_string(), "200"]).await;
    let (done, _) = proved(&app_there, address, &Health::default(), SHORT).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(unhealthy.kind, UnhealthyKind::WrongPort);
    let end = format!(
        "listens on {}, not on PORT {}",
        other.port(),
        address.port()
    );
    assert!(unhealthy.to_string().ends_with(&end), "{unhealthy}");
    assert!(unhealthy.hint.unwrap().contains("PORT"));

    let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let app_there = app(&house, &["0", &other.to_string(), "200"]).await;
    let (done, _) = proved(&app_there, address, &Health::default(), SHORT).await;
    let end = format!("listens on {other}, not on {address}");
    assert!(done.unwrap_err().to_string().ends_with(&end));
}

#[tokio::test]
async fn it_is_said_early_that_an_app_listens_elsewhere() {
    let house = House::new();
    let (address, other) = (free(), free());
    let app = app(&house, &["0", &other.to_string(), "200"]).await;
    let (_, said) = proved(
        &app,
        address,
        &Health::default(),
        Duration::from_millis(1500),
    )
    .await;
    assert!(
        said.len() >= 2 && said[1].contains("not on PORT"),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_app_that_warms_up_is_waited_for() {
    let house = House::new();
    let address = free();
    let words = ["0", &address.to_string(), "503", "300", "200"];
    let app = app(&house, &words).await;
    let health = Health {
        interval: Duration::from_millis(50),
        ..Health::default()
    };
    let (done, said) = proved(&app, address, &health, LONG).await;
    let healthy = done.unwrap();
    assert!(healthy.took >= Duration::from_millis(250));
    assert!(
        said.iter()
            .any(|text| text.contains("status 503, want 100-499")),
        "{said:?}"
    );
    // The same answer is said once.
    let mut unique = said.clone();
    unique.dedup();
    assert_eq!(unique, said);
    assert!(healthy.probes < 30, "{}", healthy.probes);
}

#[tokio::test]
async fn as_many_probes_must_succeed_as_are_asked_for() {
    let house = House::new();
    let address = free();
    let app = app(&house, &["0", &address.to_string(), "200"]).await;
    let health = Health {
        rise: 3,
        kind: HealthKind::Tcp,
        ..Health::default()
    };
    let (done, _) = proved(&app, address, &health, LONG).await;
    assert!(done.unwrap().probes >= 3);
}

#[tokio::test]
async fn answers_of_another_process_are_not_taken_for_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    });
    let house = House::new();
    let with = |ownership| Health {
        ownership,
        ..Health::default()
    };
    let text = format!("{address} is answered by another process");

    let app_away = house.sh("sleep 30").await;
    let (done, said) = proved(&app_away, address, &with(Ownership::Require), LONG).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(
        (unhealthy.kind, unhealthy.text.as_str()),
        (UnhealthyKind::NotOwned, text.as_str())
    );
    assert_eq!(said, [text.as_str()]);

    let app_away = house.sh("sleep 30").await;
    let (done, _) = proved(&app_away, address, &with(Ownership::Warn), LONG).await;
    assert_eq!(done.unwrap().warning.as_deref(), Some(text.as_str()));

    let app_away = house.sh("sleep 30").await;
    let (done, _) = proved(&app_away, address, &with(Ownership::Off), LONG).await;
    assert_eq!(done.unwrap().warning, None);

    // The usual case: the port is taken, and the app says so and ends.
    let app_there = app(&house, &["100", &address.to_string(), "200"]).await;
    let (done, _) = proved(&app_there, address, &with(Ownership::Warn), LONG).await;
    assert_eq!(done.unwrap_err().kind, UnhealthyKind::Exited);
}

#[tokio::test]
async fn a_socket_of_a_descendant_in_another_session_is_its_own() {
    let house = House::new();
    let address = free();
    let program = test_app();
    let script = format!(
        "setsid {} app 0 {address} 200 & sleep 30",
        program.display()
    );
    let app = house.sh(&script).await;
    let strict = Health {
        ownership: Ownership::Require,
        ..Health::default()
    };
    let (done, _) = proved(&app, address, &strict, LONG).await;
    assert_eq!(done.unwrap().warning, None);
}
