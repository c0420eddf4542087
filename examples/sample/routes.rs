//! What each path answers.

use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Mutex, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::flags::{Failing, Flags, Manner};
use crate::http::{After, Connection, Framing, Head};

/// What every request of the app shares.
pub struct App {
    pub flags: Flags,
    /// True once the app has been told to stop.
    pub stopping: watch::Receiver<bool>,
    /// The names that `/let-go` was asked for.
    let_go: watch::Sender<HashSet<String>>,
    /// What `/eat` has taken.
    eaten: Mutex<Vec<Vec<u8>>>,
    /// The log level, `info` at first.
    level: watch::Sender<String>,
    pid: u32,
    begun: Instant,
}

impl App {
    /// An app that nobody has asked anything.
    pub fn new(flags: Flags, stopping: watch::Receiver<bool>) -> Self {
        Self {
            flags,
            stopping,
            let_go: watch::Sender::new(HashSet::new()),
            eaten: Mutex::default(),
            level: watch::Sender::new("info".to_string()),
            pid: std::process::id(),
            begun: Instant::now(),
        }
    }

    /// The log level, from `info` to `debug` and back.
    pub fn toggle_level(&self) {
        self.level.send_modify(|level| {
            *level = if level == "info" { "debug" } else { "info" }.to_string();
        });
    }

    fn after(&self, head: &Head) -> After {
        match *self.stopping.borrow() {
            true => After::Close,
            false => head.after(),
        }
    }

    /// The first lines of an answer, up to and with the empty one.
    fn head(&self, status: u64, more: &str, framing: &Framing, after: After) -> Vec<u8> {
        let mut text = String::with_capacity(256);
        let reason = reason(status);
        let _ = write!(
            text,
            "HTTP/1.1 {status} {reason}\r\nx-version: {}\r\n",
            self.flags.version
        );
        let _ = write!(text, "x-pid: {}\r\n{more}", self.pid);
        let _ = match framing {
            Framing::Length(length) => write!(text, "content-length: {length}\r\n"),
            Framing::Chunked => write!(text, "transfer-encoding: chunked\r\n"),
            Framing::Bare => Ok(()),
        };
        if after == After::Close {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Answer one request; the connection comes back if it goes on.
pub async fn answer(
    mut connection: Connection,
    head: &Head,
    app: &App,
) -> io::Result<Option<Connection>> {
    match app.flags.manner {
        Manner::Well => {}
        Manner::Failing(Failing::Real, _) if head.path == "/up" => {}
        Manner::Failing(_, after) if app.begun.elapsed() < after => {}
        Manner::Failing(..) => {
            return simple(connection, head, app, 500, "", "broken, as asked\n").await;
        }
        Manner::Never => {
            let _ = app.stopping.clone().wait_for(|stopping| *stopping).await;
            return Ok(None);
        }
    }
    let text = match head.path.as_str() {
        "/" => format!("{}\n", app.flags.version),
        "/up" => "ok\n".to_string(),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(head.number("ms", 1000))).await;
            "slow\n".to_string()
        }
        "/hold" => {
            let name = head.query("name").unwrap_or_default();
            let mut let_go = app.let_go.subscribe();
            let _ = let_go.wait_for(|names| names.contains(name)).await;
            format!("held {name}\n")
        }
        "/let-go" => {
            let name = head.query("name").unwrap_or_default();
            app.let_go.send_modify(|names| {
                names.insert(name.to_string());
            });
            format!("let go {name}\n")
        }
        "/digest" => {
            let (mut length, mut hash) = (0, blake3::Hasher::new());
            while let Some(piece) = connection.body_piece().await? {
                length += piece.len();
                hash.update(&piece);
            }
            format!("{length} {}\n", hash.finalize().to_hex())
        }
        "/level" => {
            let to = match head.method.as_str() {
                "PUT" => head.query("to").map(str::to_string),
                "POST" => {
                    let mut body = Vec::new();
                    while let Some(piece) = connection.body_piece().await? {
                        body.extend_from_slice(&piece);
                    }
                    Some(String::from_utf8_lossy(&body).into_owned())
                }
                _ => None,
            };
            if to.as_deref() == Some("loud") {
                let text = "no level loud\nthere are others\n";
                return simple(connection, head, app, 400, "", text).await;
            }
            if let Some(to) = to {
                app.level.send_replace(to);
            }
            format!("{}\n", app.level.borrow().clone())
        }
        "/headers" => head.text.clone(),
        "/status" => {
            let status = head.number("code", 200);
            let text = format!("status {status}\n");
            return simple(connection, head, app, status, "", &text).await;
        }
        "/redirect" => {
            let to = "location: https://example.test/\r\n";
            return simple(connection, head, app, 301, to, "moved\n").await;
        }
        "/env" => env::var(head.query("name").unwrap_or_default()).unwrap_or_default(),
        "/cwd" => env::current_dir()?.display().to_string(),
        "/proc" => {
            let name = head.query("name").unwrap_or_default();
            std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default()
        }
        "/eat" => {
            let mib = usize::try_from(head.number("mib", 1)).unwrap_or(1);
            // Written to, or the system would only promise it.
            app.eaten.lock().await.push(vec![1; mib << 20]);
            format!("ate {mib} MiB\n")
        }
        "/exit" => std::process::exit(i32::try_from(head.number("code", 1)).unwrap_or(1)),
        "/echo" => return echo(connection, head, app).await,
        "/big" => return big(connection, head, app).await,
        "/sse" => return events(connection, head, app).await,
        "/ws" => return websocket(connection, head, app).await,
        _ => return simple(connection, head, app, 404, "", "no such page\n").await,
    };
    simple(connection, head, app, 200, "", &text).await
}

/// A short answer, in one write.
async fn simple(
    mut connection: Connection,
    head: &Head,
    app: &App,
    status: u64,
    more: &str,
    text: &str,
) -> io::Result<Option<Connection>> {
    let more = format!("content-type: text/plain\r\n{more}");
    let after = app.after(head);
    // RFC 9110 6.4.1 and 8.6: these have neither a body nor the length of one.
    let (text, framing) = match status {
        204 | 304 => ("", Framing::Bare),
        _ => (text, Framing::Length(text.len() as u64)),
    };
    let mut bytes = app.head(status, &more, &framing, after);
    if head.method != "HEAD" {
        bytes.extend_from_slice(text.as_bytes());
    }
    connection.write(&bytes).await?;
    end(connection, after).await
}

async fn echo(
    mut connection: Connection,
    head: &Head,
    app: &App,
) -> io::Result<Option<Connection>> {
    let after = app.after(head);
    let framing = head.length().map_or(Framing::Chunked, Framing::Length);
    let kind = "content-type: application/octet-stream\r\n";
    connection.invite().await?;
    connection
        .write(&app.head(200, kind, &framing, after))
        .await?;
    while let Some(piece) = connection.body_piece().await? {
        match framing {
            Framing::Chunked => connection.write_chunk(&piece).await?,
            _ => connection.write(&piece).await?,
        }
    }
    if let Framing::Chunked = framing {
        connection.write_chunk(b"").await?;
    }
    end(connection, after).await
}

async fn big(mut connection: Connection, head: &Head, app: &App) -> io::Result<Option<Connection>> {
    let after = app.after(head);
    let mut left = head.number("bytes", 1024 * 1024);
    let bytes = app.head(200, "", &Framing::Length(left), after);
    connection.write(&bytes).await?;
    let piece = [b'x'; 16 * 1024];
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        connection.write(&piece[..now]).await?;
        left -= now as u64;
    }
    end(connection, after).await
}

/// Server-sent events with ids from 0; after `count` of them, or when the app stops, the stream ends
/// as it should.
async fn events(
    mut connection: Connection,
    head: &Head,
    app: &App,
) -> io::Result<Option<Connection>> {
    let after = app.after(head);
    let kind = "content-type: text/event-stream\r\ncache-control: no-store\r\n";
    let bytes = app.head(200, kind, &Framing::Chunked, after);
    connection.write(&bytes).await?;
    let every = Duration::from_millis(head.number("every", 100).max(1));
    let mut beat = tokio::time::interval(every);
    let mut stopping = app.stopping.clone();
    for id in 0..head.number("count", u64::MAX) {
        tokio::select! {
            _ = beat.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
        let event = format!("id: {id}\ndata: {}\n\n", app.flags.version);
        connection.write_chunk(event.as_bytes()).await?;
    }
    connection.write_chunk(b"").await?;
    end(connection, after).await
}

/// Send every message back, until the client closes or the app stops.
async fn websocket(
    mut connection: Connection,
    head: &Head,
    app: &App,
) -> io::Result<Option<Connection>> {
    let key = head.header("sec-websocket-key");
    let Some(key) = key.filter(|_| head.wants_websocket()) else {
        let text = "a WebSocket lives here\n";
        return simple(connection, head, app, 426, "upgrade: websocket\r\n", text).await;
    };
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nx-version: {}\r\nx-pid: {}\r\nupgrade: websocket\r\n\
         connection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
        app.flags.version,
        app.pid,
        derive_accept_key(key.as_bytes())
    );
    connection.write(switch.as_bytes()).await?;
    let (stream, read) = connection.into_stream();
    let mut socket =
        WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, None).await;
    let mut stopping = app.stopping.clone();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                socket.send(message).await.map_err(io::Error::other)?;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Ok(None),
        }
    }
    // The client is told, and what it has still sent is read until it agrees.
    let _ = socket.close(None).await;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(None)
}

async fn end(connection: Connection, after: After) -> io::Result<Option<Connection>> {
    match after {
        After::KeepAlive => Ok(Some(connection)),
        After::Close => {
            connection.close().await;
            Ok(None)
        }
    }
}

fn reason(status: u64) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        426 => "Upgrade Required",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
