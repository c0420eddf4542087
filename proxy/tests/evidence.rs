//! What the proxy says of a release that does not work.

use std::time::Duration;

use hotctl_config::Address;

use crate::wire::get;
use crate::world::{Manners, Upstream, World, eventually};

/// Fails after ten seconds.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let soon = tokio::time::timeout(Duration::from_secs(10), future);
    soon.await.expect("within 10 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_app_count_in_a_row_and_a_success_begins_anew() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let failing = tokio::spawn(pool.failing(3));
    let mut client = world.connect().await;
    for status in [500, 503, 404, 599, 500] {
        client
            .ask(&get(&format!("/status?{status}")))
            .await
            .unwrap();
    }
    assert!(!failing.is_finished());
    client.ask(&get("/status?502")).await.unwrap();
    let streak = soon(failing).await.unwrap();
    assert_eq!(
        (streak.count, &*streak.last),
        (3, "GET /status: status 502")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_whole_answer_count_each_once() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    for _ in 0..2 {
        let mut client = world.connect().await;
        client.send(get("/torn")).await.unwrap();
        client.answer("").await.unwrap_err();
        world.connect().await.ask(&get("/nonsense")).await.unwrap();
    }
    let streak = soon(pool.failing(4)).await;
    assert_eq!(
        (streak.count, &*streak.last),
        (4, "GET /nonsense: the answer is not HTTP")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_not_there_is_told_of_while_its_requests_still_wait() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = gone.local_addr().unwrap();
    drop(gone);
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(nowhere);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = world.connect().await;
        client.send(get("/")).await.unwrap();
        clients.push(client);
    }
    let streak = soon(pool.failing(3)).await;
    assert_eq!((streak.count, &*streak.last), (3, "GET /: connect refused"));
    // So the flip back comes in time for them.
    world.flip(&upstream);
    for mut client in clients {
        assert_eq!(client.answer("").await.unwrap().text(), "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_can_be_reached_again_has_a_clean_record() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let world = World::start().await;
    let pool = world.flip(socket.local_addr().unwrap());
    let mut client = world.connect().await;
    client.send(get("/")).await.unwrap();
    soon(pool.failing(1)).await;
    Upstream::on(socket.listen(16).unwrap(), "late", Manners::Kind);
    assert_eq!(client.answer("").await.unwrap().text(), "late");
    eventually("it is over", || pool.tickets() == 0).await;
    client.ask(&get("/status?500")).await.unwrap();
    assert_eq!(soon(pool.failing(1)).await.count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_says_nothing_of_the_release() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let pool = world.flip(&upstream);
    let mut client = world.connect().await;
    client.ask(&get("/status?500")).await.unwrap();
    let mut impatient = world.connect().await;
    impatient.send(get("/slow?60000")).await.unwrap();
    eventually("it is there", || pool.tickets() == 1).await;
    drop(impatient);
    eventually("it is gone", || pool.tickets() == 0).await;
    assert_eq!(
        soon(pool.failing(1)).await.count,
        1,
        "neither one more nor none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fails_is_named_while_the_others_serve() {
    let kind = Upstream::start("kind", Manners::Kind).await;
    let mute = Upstream::start("mute", Manners::Mute(usize::MAX)).await;
    let world = World::start().await;
    let pool = world.pool_of(&[Address::from(&kind), Address::from(&mute)]);
    world.flip_to(&pool);
    let failing = tokio::spawn(pool.instance_failing(3));
    let whole = tokio::spawn(pool.failing(1));
    for _ in 0..20 {
        let answer = world.connect().await.ask(&get("/")).await.unwrap();
        assert_eq!(answer.text(), "kind");
    }
    let (instance, streak) = soon(failing).await.unwrap();
    assert_eq!((instance, streak.count), (1, 3));
    assert!(!whole.is_finished(), "no request has failed");
}
