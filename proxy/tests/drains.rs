//! The end of a release: each kind of request has its time, and an end that its client understands.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hotctl_config::Drain;
use hotctl_proxy::Open;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::wire::{Wire, get};
use crate::world::{Manners, Upstream, World, all, eventually};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

/// A client with a request under way, its answer begun.
async fn begun(world: &World, path: &str) -> Wire {
    let mut client = world.connect().await;
    client.send(get(path)).await.unwrap();
    client.head().await.unwrap().unwrap();
    client
}

/// Reads chunks to the end; an error is the end of a connection that was cut.
async fn chunks(client: &mut Wire) -> io::Result<()> {
    while client.chunk().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_cut_at_the_end_of_its_own_time() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut waiting = world.connect().await;
    waiting.send(get("/slow?60000")).await.unwrap();
    let mut drip = begun(&world, "/drip?60000").await;
    let mut events = begun(&world, "/events?60000").await;
    eventually("all are there", || old.tickets() == 3).await;
    world.flip(&upstream);
    let limits = Drain {
        requests: SHORT,
        streams: 3 * SHORT,
        ..all(LONG)
    };
    let at = Instant::now();
    let ends = async {
        tokio::join!(
            async { (waiting.head().await.is_err(), at.elapsed()) },
            async { (chunks(&mut drip).await.is_err(), at.elapsed()) },
            async { (chunks(&mut events).await.is_err(), at.elapsed()) },
        )
    };
    let (cut, (waiting, drip, events)) = tokio::join!(world.switch.retire(&old, &limits), ends);
    let expected = Open {
        requests: 1,
        websockets: 0,
        streams: 2,
    };
    assert_eq!(cut, expected);
    for (what, (reset, after), time) in [
        ("a request", waiting, SHORT),
        ("a long answer", drip, 3 * SHORT),
        ("a stream", events, 3 * SHORT),
    ] {
        assert!(reset, "{what} looks complete");
        assert!(after >= time, "{what} was cut after {after:?}");
    }
    assert_eq!(old.open(), Open::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_still_connects_is_cut_too() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = silent.local_addr().unwrap();
    drop(silent);
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(nowhere);
    let mut client = world.connect().await;
    client.send(get("/")).await.unwrap();
    eventually("it is there", || old.tickets() == 1).await;
    // It would be sent to the next release, if that came in time: then it is no longer of this one.
    world.flip(&upstream);
    let cut = world.switch.retire(&old, &all(LONG)).await;
    assert_eq!(cut, Open::default());
    assert_eq!(client.answer("").await.unwrap().text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_called_off_cuts_nothing() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut client = world.connect().await;
    client.send(get("/slow?600")).await.unwrap();
    eventually("it is there", || old.tickets() == 1).await;
    let next = world.flip(&upstream);
    let limits = all(SHORT);
    let drain = world.switch.retire(&old, &limits);
    let called_off = tokio::time::timeout(SHORT / 4, drain).await;
    assert!(called_off.is_err());
    world.flip_to(&old);
    assert_eq!(client.answer("").await.unwrap().text(), "a");
    assert_eq!(world.switch.retire(&next, &limits).await, Open::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_with_the_next_release_after_a_request_of_the_old_one() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut client = world.connect().await;
    client.ask(&get("/")).await.unwrap();
    world.flip(&upstream);
    client.send(get("/slow?300")).await.unwrap();
    assert_eq!(old.cut_now().await, Open::default());
    assert_eq!(client.answer("").await.unwrap().text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_kept_to_a_retired_release_can_be_closed() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut events = begun(&world, "/events?200").await;
    for _ in 0..3 {
        // At once, so that there are several.
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = world.connect().await;
            client.send(get("/slow?30")).await.unwrap();
            clients.push(client);
        }
        for mut client in clients {
            client.answer("").await.unwrap();
        }
    }
    world.flip(&upstream);
    let open = upstream.open();
    assert!(open >= 2, "none is kept");
    // A connection is put by a moment after its client has had the answer.
    let mut closed = 0;
    eventually("each is put by, and closed", || {
        closed += old.close_idle();
        closed >= open - 1
    })
    .await;
    assert_eq!(closed, open - 1);
    eventually("only the busy one is left", || upstream.open() == 1).await;
    chunks(&mut events).await.expect("it was not touched");
    eventually("it is put by, and closed", || old.close_idle() == 1).await;
    eventually("all are closed", || upstream.open() == 0).await;
}

/// An app with WebSockets of a real library: it echoes, and notes with what its clients close.
struct App {
    address: std::net::SocketAddr,
    closes: Arc<Mutex<Vec<(u16, String)>>>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closes = Arc::<Mutex<Vec<_>>>::default();
        let noted = closes.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let noted = noted.clone();
                tokio::spawn(async move {
                    let mut socket = accept_async(tcp).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        match message {
                            Message::Close(Some(frame)) => {
                                let close = (frame.code.into(), frame.reason.to_string());
                                noted.lock().unwrap().push(close);
                            }
                            Message::Text(_) => {
                                let _ = socket.send(message).await;
                            }
                            _ => {}
                        }
                    }
                });
            }
        });
        Self { address, closes }
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn websocket(world: &World) -> Socket {
    let tcp = TcpStream::connect(world.address).await.unwrap();
    client_async("ws://test/", tcp).await.unwrap().0
}

async fn echo(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back, Message::text(text));
}

/// Talks on until the Close frame; says its code and reason, and what came after it.
async fn talk_to_the_end(mut socket: Socket) -> (u16, String) {
    let mut close = None;
    let mut number = 0;
    loop {
        let next = match close {
            None => {
                number += 1;
                // After the Close frame the library refuses to send: then it is read next.
                let _ = socket.send(Message::text(format!("{number}"))).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                socket.next().await
            }
            Some(_) => socket.next().await,
        };
        match next {
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.expect("a code");
                close = Some((frame.code.into(), frame.reason.to_string()));
            }
            Some(Ok(_)) => assert!(close.is_none(), "something after the Close frame"),
            None | Some(Err(Error::ConnectionClosed)) => return close.expect("a Close frame"),
            Some(Err(error)) => panic!("no orderly end: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_websockets_get_a_close_frame_on_both_sides_and_none_too_early() {
    let app = App::start().await;
    let world = World::start().await;
    let old = world.flip(app.address);
    let mut sockets = Vec::new();
    for number in 0..200 {
        let mut socket = websocket(&world).await;
        echo(&mut socket, &format!("hello {number}")).await;
        sockets.push(socket);
    }
    assert_eq!(old.open().websockets, 200);
    let next = App::start().await;
    world.flip(next.address);
    let limits = Drain {
        websockets: Duration::from_millis(1500),
        spread: Duration::from_millis(500),
        ..all(SHORT)
    };
    let at = Instant::now();
    let clients = sockets.into_iter().enumerate().map(|(number, mut socket)| {
        tokio::spawn(async move {
            // Half of them talk, half are silent.
            let close = match number % 2 {
                0 => talk_to_the_end(socket).await,
                _ => match socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        let close = (frame.code.into(), frame.reason.to_string());
                        assert!(socket.next().await.is_none(), "no orderly end");
                        close
                    }
                    other => panic!("not a Close frame: {other:?}"),
                },
            };
            (close, at.elapsed())
        })
    });
    let clients: Vec<_> = clients.collect();
    let cut = world.switch.retire(&old, &limits).await;
    let expected = Open {
        websockets: 200,
        ..Open::default()
    };
    assert_eq!(cut, expected);
    let close = (1012, "service restart".to_owned());
    let mut ends = Vec::new();
    for client in clients {
        let (code, after) = client.await.unwrap();
        assert_eq!(code, close);
        assert!(after >= limits.websockets - limits.spread, "{after:?}");
        ends.push(after);
    }
    ends.sort_unstable();
    assert!(ends[180] - ends[20] > limits.spread / 4, "all at once");
    eventually("the app has heard of all", || {
        app.closes.lock().unwrap().len() == 200
    })
    .await;
    assert!(app.closes.lock().unwrap().iter().all(|it| *it == close));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_ends_do_not_answer_is_ended_all_the_same() {
    let upstream = Upstream::start("a", Manners::Kind).await;
    let world = World::start().await;
    let old = world.flip(&upstream);
    let mut client = upgraded(&world).await;
    // The answer to that is no frame that is known, and is never finished.
    client.exactly(1).await.unwrap();
    world.flip(&upstream);
    let cut = old.cut_now().await;
    assert_eq!(cut.websockets, 1);
    assert_eq!(old.tickets(), 0);
}

async fn upgraded(world: &World) -> Wire {
    let mut client = world.connect().await;
    client
        .send(
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(client.answer("").await.unwrap().status(), 101);
    client
}

/// A frame is cut in two by the end of the time: it is finished, and then comes the Close frame; in
/// the other direction there is a boundary at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_has_begun_is_finished_before_the_close_frame() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start().await;
    let old = world.flip(listener.local_addr().unwrap());
    let app = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let read = tcp.read(&mut head).await.unwrap();
        assert!(head[..read].ends_with(b"\r\n\r\n"));
        tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05he")
            .await
            .unwrap();
        tcp
    };
    let (mut client, mut app) = tokio::join!(upgraded(&world), app);
    assert_eq!(client.exactly(4).await.unwrap(), b"\x81\x05he");
    world.flip(listener.local_addr().unwrap());
    let drain = Drain {
        close_code: 1001,
        ..all(Duration::ZERO)
    };
    let ends = async {
        // To the app at once, masked.
        let mut close = [0; 20];
        app.read_exact(&mut close[..18]).await.unwrap();
        assert_eq!(close[..2], [0x88, 0x80 | 12]);
        app.write_all(b"llo\x81\x01x").await.unwrap();
        assert_eq!(
            client.exactly(3 + 14).await.unwrap(),
            b"llo\x88\x0c\x03\xe9going away"
        );
        // Both answer, and it is over; nothing after the Close frame has come through.
        client.send(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
        app.write_all(b"\x88\x02\x03\xe9").await.unwrap();
        assert!(client.rest().await.unwrap().is_empty());
        assert!(matches!(app.read(&mut close).await, Ok(0) | Err(_)));
    };
    let at = Instant::now();
    let (cut, ()) = tokio::join!(world.switch.retire(&old, &drain), ends);
    assert_eq!(cut.websockets, 1);
    assert!(
        at.elapsed() < Duration::from_secs(2),
        "nobody was waited for"
    );
}
