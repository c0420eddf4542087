//! A release of several instances, and instances at unix sockets.

use std::path::Path;
use std::time::Duration;

use hotctl_config::Address;
use hotctl_proxy::Standing;
use tokio::net::UnixListener;

use crate::wire::{Wire, get, post};
use crate::world::{Manners, Upstream, World, eventually};

async fn upstreams(names: &[&str]) -> Vec<Upstream> {
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::start(name, Manners::Kind).await);
    }
    upstreams
}

fn addresses(upstreams: &[Upstream]) -> Vec<Address> {
    upstreams.iter().map(Address::from).collect()
}

/// A listener with a backlog that is full, and what fills it.
fn full(path: &Path) -> (UnixListener, Vec<std::os::unix::net::UnixStream>) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    // One more than this is taken.
    listen(&listener, 0).unwrap();
    let fill = std::os::unix::net::UnixStream::connect(path).unwrap();
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true).unwrap();
    (UnixListener::from_std(listener).unwrap(), vec![fill])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_with_the_least_to_do_gets_the_next_request() {
    let world = World::start().await;
    let two = upstreams(&["a", "b"]).await;
    world.flip_to(&world.pool_of(&addresses(&two)));
    let mut long = world.connect().await;
    long.send(get("/events?2000")).await.unwrap();
    long.head().await.unwrap().unwrap();
    let busy = two.iter().position(|it| it.heads().len() == 1).unwrap();
    for _ in 0..10 {
        world.connect().await.ask(&get("/")).await.unwrap();
    }
    assert_eq!(two[busy].heads().len(), 1);
    assert_eq!(two[1 - busy].heads().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_gone_costs_no_request_while_another_is_there() {
    let world = World::start().await;
    let kind = upstreams(&["a"]).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = gone.local_addr().unwrap();
    drop(gone);
    world.flip_to(&world.pool_of(&[nowhere.into(), Address::from(&kind[0])]));
    let mut client = world.connect().await;
    for number in 0..20 {
        let request = match number % 2 {
            0 => get("/"),
            _ => post("/", "body"),
        };
        assert_eq!(client.ask(&request).await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_one_instance_does_not_answer_goes_to_another() {
    let world = World::start().await;
    let mute = Upstream::start("mute", Manners::Mute(usize::MAX)).await;
    let kind = Upstream::start("kind", Manners::Kind).await;
    world.flip_to(&world.pool_of(&addresses(&[mute.clone(), kind])));
    for _ in 0..10 {
        let answer = world.connect().await.ask(&get("/")).await.unwrap();
        assert_eq!(answer.text(), "kind");
    }
    assert!(!mute.heads().is_empty(), "nothing was tried there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_down_gets_nothing_until_it_is_the_last() {
    let world = World::start().await;
    let two = upstreams(&["a", "b"]).await;
    let pool = world.pool_of(&addresses(&two));
    world.flip_to(&pool);
    pool.set(0, Standing::Down);
    let mut client = world.connect().await;
    for _ in 0..5 {
        assert_eq!(client.ask(&get("/")).await.unwrap().text(), "b");
    }
    pool.set(1, Standing::Down);
    assert_eq!(client.ask(&get("/")).await.unwrap().text(), "b");
    pool.set(0, Standing::Up);
    assert_eq!(client.ask(&get("/")).await.unwrap().text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_at_a_unix_socket_is_served_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("app")).unwrap();
    let upstream = Upstream::on_unix(listener, "a", Manners::Kind);
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let mut client = world.connect().await;
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/")).await.unwrap().text(), "a");
        assert_eq!(client.ask(&post("/", "body")).await.unwrap().text(), "a 4");
    }
    assert!(upstream.connections() < 40, "none is kept");
    client
        .send(
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(client.answer("").await.unwrap().status(), 101);
    client.send("x").await.unwrap();
    assert_eq!(client.exactly(2).await.unwrap(), b"ax");
    drop(client);
    eventually("it is over", || pool.tickets() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_unix_socket_that_were_closed_while_idle_cost_no_request() {
    for manners in [Manners::Rude(1), Manners::Rude(3)] {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("app")).unwrap();
        let upstream = Upstream::on_unix(listener, "a", manners);
        let world = World::start().await;
        world.flip(&upstream);
        let mut client = world.connect().await;
        for number in 0..200 {
            let request = match number % 2 {
                0 => post("/", "body"),
                _ => get("/"),
            };
            let answer = client.ask(&request).await.unwrap();
            assert_eq!(answer.status(), 200, "{manners:?}: {request}");
        }
        assert_eq!(upstream.bodies().len(), 100, "{manners:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_is_not_there_yet_or_full_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app");
    let world = World::start().await;
    world.flip(Address::Unix(path.as_path().into()));
    let retries = || world.metric("hotctl_retries_total{service=\"web\"}");
    let mut client = world.connect().await;
    client.send(post("/", "body")).await.unwrap();
    eventually("it is missed", || retries() >= 2.0).await;
    let (listener, fill) = full(&path);
    let before = retries();
    eventually("it is full", || retries() >= before + 3.0).await;
    drop(fill);
    Upstream::on_unix(listener, "late", Manners::Kind);
    assert_eq!(client.answer("").await.unwrap().text(), "late 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_nobody_listens_at_is_given_up_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let world = World::with(|it| it.timeouts.retry = Duration::from_millis(50)).await;
    world.flip(Address::Unix(path.as_path().into()));
    for request in [
        get("/"),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
    ] {
        let mut client: Wire = world.connect().await;
        let answer = client.ask(&request).await.unwrap();
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.head.get("x-hotctl-error"), Some("connect_failed"));
    }
}
