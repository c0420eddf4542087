//! Real processes proving themselves, and failing to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hotctl_config::file::{Health, HealthKind, Ownership};

use super::{Address, Healthy, Unhealthy, UnhealthyKind, prove};
use crate::ports::{self, Ports};
use crate::probe::probe;
use crate::process::{Exit, Notify, Process, Spec};
use crate::testing::{House, launcher, test_app};

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
    let spec = House::new().spec(&["app"]);
    proved_as(process, &address.into(), &spec, health, timeout).await
}

async fn proved_as(
    process: &Process,
    address: &Address,
    spec: &Spec,
    health: &Health,
    timeout: Duration,
) -> (Result<Healthy, Unhealthy>, Vec<String>) {
    let mut said = Vec::new();
    let done = prove(process, address, spec, health, timeout, |text| {
        said.push(text.to_owned())
    })
    .await;
    process.stop(Duration::ZERO).await;
    (done, said)
}

/// What the program of test_app.rs is started with.
fn spec(house: &House, words: &[&str]) -> Spec {
    let program = test_app();
    let words: Vec<&str> = [program.to_str().unwrap()]
        .into_iter()
        .chain(words.iter().copied())
        .collect();
    house.spec(&words)
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
    assert_eq!(crate::logs::tail(&house.path("log"), 5), ["no database"]);
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

#[tokio::test]
async fn an_app_on_a_unix_socket_proves_itself_and_that_it_is_its_own() {
    let house = House::new();
    let path = house.path("app.sock");
    let address = Address::Unix(path.clone().into());
    let spec = spec(&house, &["app", "100", path.to_str().unwrap(), "200"]);
    let strict = Health {
        ownership: Ownership::Require,
        ..Health::default()
    };
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, said) = proved_as(&app, &address, &spec, &strict, LONG).await;
    assert_eq!(done.unwrap().warning, None);
    assert_eq!(said, [format!("GET {address}:/: connection refused")]);

    // Its socket is still there, and nobody behind it.
    let away = house.sh("sleep 30").await;
    let (done, _) = proved_as(&away, &address, &spec, &strict, SHORT).await;
    assert_eq!(done.unwrap_err().kind, UnhealthyKind::Timeout);
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let only_connects = Health {
        kind: HealthKind::Tcp,
        ..strict
    };
    let away = house.sh("sleep 30").await;
    let (done, _) = proved_as(&away, &address, &spec, &only_connects, LONG).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(unhealthy.kind, UnhealthyKind::NotOwned);
    assert_eq!(
        unhealthy.to_string(),
        format!("{address} is answered by another process")
    );
}

#[tokio::test]
async fn an_app_that_ignores_its_unix_socket_is_told_where_it_listens() {
    let house = House::new();
    let path = house.path("app.sock");
    let other = free();
    let spec = spec(&house, &["app", "0", &other.to_string(), "200"]);
    let app = launcher().start(spec.clone()).await.unwrap();
    let address = Address::Unix(path.clone().into());
    let (done, _) = proved_as(&app, &address, &spec, &Health::default(), SHORT).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(unhealthy.kind, UnhealthyKind::WrongPort);
    let end = format!("listens on {other}, not on SOCKET {}", path.display());
    assert!(unhealthy.to_string().ends_with(&end), "{unhealthy}");
    assert!(unhealthy.hint.unwrap().contains("SOCKET"));
}

#[tokio::test]
async fn an_app_with_an_inherited_socket_is_healthy_with_its_first_answer() {
    let house = House::new();
    let lease = Ports::new("17130-17139".parse().unwrap()).lease().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], lease.port())).into();
    let strict = Health {
        ownership: Ownership::Require,
        timeout: SHORT,
        ..Health::default()
    };
    let mut spec = spec(&house, &["inherit", "200"]);
    spec.listener = Some(ports::listen(&lease).unwrap());
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, said) = proved_as(&app, &address, &spec, &strict, LONG).await;
    let healthy = done.unwrap();
    assert_eq!((healthy.probes, healthy.warning), (1, None));
    assert_eq!(said, [""; 0]);

    // It listens on a port of its own instead.
    let other = free();
    let program = test_app();
    let ignores = [
        program.to_str().unwrap(),
        "app",
        "0",
        &other.to_string(),
        "200",
    ];
    spec.program = ignores.map(Into::into).into();
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, _) = proved_as(&app, &address, &spec, &strict, SHORT * 4).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(unhealthy.kind, UnhealthyKind::WrongPort);
    let end = format!("listens on {other}, not on the socket that it inherits");
    assert!(unhealthy.to_string().ends_with(&end), "{unhealthy}");
    assert!(unhealthy.hint.unwrap().contains("LISTEN_FDS"));
}

#[tokio::test]
async fn an_app_that_says_itself_that_it_is_ready_is_believed() {
    let house = House::new();
    let address = free().into();
    let health = Health {
        kind: HealthKind::Notify,
        ownership: Ownership::Require,
        ..Health::default()
    };
    let mut spec = spec(
        &house,
        &["notify", "STATUS=reading 3 of 9", "200", "READY=1"],
    );
    spec.notify = Notify::Yes;
    let app = launcher().start(spec.clone()).await.unwrap();
    let mut said = Vec::new();
    let done = prove(&app, &address, &spec, &health, LONG, |text| {
        said.push(text.to_owned());
    })
    .await;
    let healthy = done.unwrap();
    assert!(healthy.took < Duration::from_secs(2), "{healthy:?}");
    assert!(healthy.probes <= 3, "{}", healthy.probes);
    assert_eq!(
        said.last().unwrap(),
        "NOTIFY_SOCKET: no READY=1 yet: reading 3 of 9"
    );
    // As long as it lives.
    probe(&app, &address, &spec, &health).await.unwrap();
    app.stop(Duration::ZERO).await;
    let dead = probe(&app, &address, &spec, &health).await.unwrap_err();
    assert_eq!(
        dead.to_string(),
        "NOTIFY_SOCKET: the process has ended: killed by SIGKILL (9)"
    );

    spec.program = vec!["sleep".into(), "30".into()];
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, _) = proved_as(&app, &address, &spec, &health, SHORT).await;
    let unhealthy = done.unwrap_err();
    assert_eq!(
        unhealthy.to_string(),
        "not healthy within 300ms: NOTIFY_SOCKET: no READY=1 yet"
    );
    assert!(unhealthy.hint.unwrap().contains("READY=1"));
}

#[tokio::test]
async fn a_command_says_whether_an_app_is_healthy() {
    let house = House::new();
    let address = free();
    let health = Health {
        kind: HealthKind::Command,
        command: ["sh", "-c", "echo no file >&2; test -f ready"]
            .map(Into::into)
            .into(),
        interval: Duration::from_millis(50),
        ..Health::default()
    };
    let spec = spec(&house, &["app", "0", &address.to_string(), "200"]);
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, said) = {
        let made = async {
            tokio::time::sleep(SHORT).await;
            std::fs::write(house.path("ready"), "").unwrap();
        };
        let address = address.into();
        let proving = proved_as(&app, &address, &spec, &health, LONG);
        tokio::join!(proving, made).0
    };
    assert_eq!(done.unwrap().warning, None);
    assert_eq!(
        said,
        [r#"sh -c echo no file >&2; test -f ready: exit status 1: "no file""#]
    );
}

#[tokio::test]
async fn a_connection_that_only_waits_in_an_inherited_socket_proves_nothing() {
    let house = House::new();
    let lease = Ports::new("17140-17149".parse().unwrap()).lease().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], lease.port())).into();
    let health = Health {
        kind: HealthKind::Tcp,
        ..Health::default()
    };
    let program = test_app();
    let script = format!("sleep 0.3; exec {} inherit 200", program.display());
    let mut spec = house.spec(&["sh", "-c", &script]);
    spec.listener = Some(ports::listen(&lease).unwrap());
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, _) = proved_as(&app, &address, &spec, &health, LONG).await;
    assert!(done.unwrap().took >= Duration::from_millis(250));

    spec.program = vec!["sleep".into(), "30".into()];
    let app = launcher().start(spec.clone()).await.unwrap();
    let (done, _) = proved_as(&app, &address, &spec, &health, SHORT).await;
    let text = done.unwrap_err().to_string();
    let said = format!("connect {address}: connected, not accepted within");
    assert!(text.contains(&said), "{text}");
}
