//! HTTP/1.1, as much of it as the app needs: heads, bodies of both framings, `Expect`, keep-alive.
//! Streams bodies; holds no more than one piece of one.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::listen::Stream;
use crate::routes::App;

/// The longest head that is read.
const HEAD_MAX: usize = 64 * 1024;
/// How long a connection that is over waits for the client to close it, too.
const LINGER: Duration = Duration::from_secs(1);

/// A request without its body.
pub struct Head {
    /// All of it, as it came.
    pub text: String,
    /// `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    query: String,
    http_1_0: bool,
}

/// One client, between two requests or within one.
pub struct Connection {
    stream: Stream,
    unread: BytesMut,
    body: Body,
    expects_continue: bool,
}

/// What is still to come of the request's body.
enum Body {
    Bytes(u64),
    Chunks,
    Rest(u64),
}

/// How an answer's length is told.
pub enum Framing {
    Length(u64),
    Chunked,
    /// By the status: there is no body.
    Bare,
}

/// What a client waits for after the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    KeepAlive,
    Close,
}

impl Head {
    fn parse(text: String) -> io::Result<Self> {
        let mut words = text.lines().next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(bad("no request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            method: method.to_string(),
            path: path.to_string(),
            query: query.to_string(),
            http_1_0: version == "HTTP/1.0",
            text,
        })
    }

    /// A header's value, or none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A value of the query, or none.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=')?;
            (found == name).then_some(value)
        })
    }

    /// A number of the query, or `default`.
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.query(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }

    /// Whether a comma-separated header has this word.
    fn says(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|all| {
            all.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case(word))
        })
    }

    /// Whether the client wants a WebSocket.
    pub fn wants_websocket(&self) -> bool {
        self.says("upgrade", "websocket")
    }

    /// Whether the connection goes on after the answer, as far as the client is concerned.
    pub fn after(&self) -> After {
        let closes = match self.http_1_0 {
            true => !self.says("connection", "keep-alive"),
            false => self.says("connection", "close"),
        };
        if closes {
            After::Close
        } else {
            After::KeepAlive
        }
    }

    fn body(&self) -> Body {
        if self.says("transfer-encoding", "chunked") {
            return Body::Chunks;
        }
        let length = self.header("content-length");
        Body::Bytes(length.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// The length of the body, if it was told beforehand.
    pub fn length(&self) -> Option<u64> {
        match self.body() {
            Body::Bytes(length) => Some(length),
            _ => None,
        }
    }
}

impl Connection {
    /// A client that has just come.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
            body: Body::Bytes(0),
            expects_continue: false,
        }
    }

    /// The next request. None if the client went away, or the app stops, or the connection was idle
    /// for too long.
    pub async fn head(&mut self, app: &App) -> io::Result<Option<Head>> {
        while self.body_piece().await?.is_some() {}
        let mut stopping = app.stopping.clone();
        let idle = app.flags.drop_idle_after.unwrap_or(Duration::MAX);
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head = self.unread.split_to(end + 4);
                let head = Head::parse(String::from_utf8_lossy(&head).into_owned())?;
                self.body = head.body();
                self.expects_continue = head.says("expect", "100-continue");
                return Ok(Some(head));
            }
            if self.unread.len() > HEAD_MAX {
                return Err(bad("head too long"));
            }
            let read = if self.unread.is_empty() {
                // What has been sent is read first: the app does not stop on somebody's request.
                tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut self.unread) => read?,
                    _ = stopping.wait_for(|stopping| *stopping) => 0,
                    () = tokio::time::sleep(idle), if idle < Duration::MAX => 0,
                }
            } else {
                self.stream.read_buf(&mut self.unread).await?
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Tell a client that waits for it to send the body. An answer that begins earlier does this first.
    pub async fn invite(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.expects_continue) {
            true => self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await,
            false => Ok(()),
        }
    }

    /// The next piece of the request's body; none when it has all been read.
    pub async fn body_piece(&mut self) -> io::Result<Option<Bytes>> {
        if matches!(self.body, Body::Bytes(0)) {
            return Ok(None);
        }
        self.invite().await?;
        if let Body::Chunks = self.body {
            let size = self.line().await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            match u64::from_str_radix(size, 16).map_err(|_| bad("no chunk size"))? {
                0 => {
                    while !self.line().await?.is_empty() {}
                    self.body = Body::Bytes(0);
                    return Ok(None);
                }
                size => self.body = Body::Rest(size),
            }
        }
        let (Body::Bytes(left) | Body::Rest(left)) = &mut self.body else {
            return Ok(None);
        };
        if self.unread.is_empty() {
            self.unread.reserve(64 * 1024);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let take = self
            .unread
            .len()
            .min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= take as u64;
        let piece = self.unread.split_to(take).freeze();
        if let Body::Rest(0) = self.body {
            self.line().await?;
            self.body = Body::Chunks;
        }
        Ok(Some(piece))
    }

    /// A line within a chunked body, without its end.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.advance(end + 2);
                return Ok(line);
            }
            if self.unread.len() > HEAD_MAX {
                return Err(bad("line too long"));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Write bytes of an answer.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Write one chunk of a chunked answer; an empty one ends it.
    pub async fn write_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk).await
    }

    /// Say that nothing more comes, and wait a while until the client says so too: closing with unread
    /// bytes would reset the connection and could take the answer away.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
        let rest = async {
            while let Ok(1..) = self.stream.read_buf(&mut self.unread).await {
                self.unread.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    /// The bare stream, for what comes after an upgrade, and what has been read of it already.
    pub fn into_stream(self) -> (Stream, Bytes) {
        (self.stream, self.unread.freeze())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}
