//! An HTTP/1.1 client by hand: one connection, nothing done twice, nothing forgiven.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// How long `get` and its like wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset(String),
    /// The connection was closed before the answer was whole.
    ClosedEarly(String),
    /// It is not HTTP.
    Garbled(String),
}

/// Status line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    text: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Bytes,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    unread: BytesMut,
    rest: Rest,
    /// Whether the last answer announced the end of the connection.
    closing: bool,
}

/// What is still to come of the answer's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Bytes(u64),
    Chunk(u64),
    NextChunk,
    UntilClosed,
}

impl Head {
    /// The value of a header, or none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Which version of the sample app answered; empty if none did.
    pub fn version(&self) -> &str {
        self.header("x-version").unwrap_or_default()
    }
}

impl Answer {
    /// The same, if it has that status; panics with all of it if not.
    #[track_caller]
    pub fn has_status(self, status: u16) -> Self {
        assert!(
            self.head.status == status,
            "expected status {status}\n{self}"
        );
        self
    }

    /// The value of a header; panics if there is none.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.head.header(name);
        value.unwrap_or_else(|| panic!("no header {name}\n{self}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.head.text, self.text())
    }
}

/// `GET` a path.
#[track_caller]
pub fn get(from: SocketAddr, path: &str) -> Answer {
    ask(from, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
}

/// Send a request as it stands here and read the answer, on a connection of its own.
#[track_caller]
pub fn ask(from: SocketAddr, request: &str) -> Answer {
    let answer = try_ask(from, request);
    answer.unwrap_or_else(|trouble| panic!("{from}: {trouble}\n{request}"))
}

/// The same, where there may be no answer.
pub fn try_ask(from: SocketAddr, request: &str) -> Result<Answer, Trouble> {
    block_on(async {
        let mut client = Client::connect(from).await?;
        client.ask(request.as_bytes()).await
    })
}

/// Run on a runtime made for it, for as long as a request may take.
pub fn block_on<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    run_on(&runtime(), work)
}

/// A runtime for one request, or one conversation.
pub fn runtime() -> Runtime {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.expect("a runtime")
}

/// Wait for this, as long as a request may take.
pub fn run_on<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        let ended = tokio::time::timeout(PATIENCE, work).await;
        ended.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}"))
    })
}

/// A request that is certainly in flight: the app has asked for its body and waits for the end of it.
pub struct Upload {
    runtime: Runtime,
    client: Client,
}

impl Upload {
    /// Begin one; returns once the app has taken it up.
    #[track_caller]
    pub fn begin(to: SocketAddr, host: &str) -> Self {
        let head = format!(
            "POST /digest HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\n\
             content-length: 10\r\n\r\n"
        );
        let runtime = runtime();
        let client = run_on(&runtime, async {
            let mut client = Client::connect(to).await?;
            client.send(head.as_bytes()).await?;
            let go_on = client.any_head().await?;
            assert_eq!(go_on.status, 100, "{go_on:?}");
            client.send(b"hello").await?;
            Ok::<_, Trouble>(client)
        });
        Self {
            runtime,
            client: client.unwrap_or_else(|trouble| panic!("{to}: {trouble}")),
        }
    }

    /// Send the rest; it must be answered.
    #[track_caller]
    pub fn end(self) -> Answer {
        let answer = self.try_end();
        let answer = answer.unwrap_or_else(|trouble| panic!("{trouble}"));
        let expected = format!("10 {}\n", blake3::hash(b"helloworld").to_hex());
        assert_eq!(answer.text(), expected, "{answer}");
        answer
    }

    /// Send the rest, and see what comes of it.
    pub fn try_end(mut self) -> Result<Answer, Trouble> {
        run_on(&self.runtime, self.client.ask(b"world"))
    }
}

impl Client {
    /// A new connection.
    pub async fn connect(to: SocketAddr) -> Result<Self, Trouble> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: BytesMut::new(),
            rest: Rest::Bytes(0),
            closing: false,
        })
    }

    /// Whether the connection can be used once more, by what the last answer said.
    pub fn goes_on(&self) -> bool {
        !self.closing && self.rest == Rest::Bytes(0)
    }

    /// Whether the other side has closed it since, or sent something that nobody asked for.
    pub fn is_over(&mut self) -> bool {
        let read = self.stream.try_read_buf(&mut self.unread);
        !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Send a request and read the whole answer.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer, Trouble> {
        self.send(request).await?;
        let head = self.head().await?;
        let body = self.body().await?;
        Ok(Answer { head, body })
    }

    /// Send bytes of a request. Where that fails there may still be an answer to read.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Read status line and headers of the final answer.
    pub async fn head(&mut self) -> Result<Head, Trouble> {
        loop {
            let head = self.any_head().await?;
            if !matches!(head.status, 100 | 102..=199) {
                return Ok(head);
            }
        }
    }

    /// Read status line and headers of the next answer, also of one that is not final.
    pub async fn any_head(&mut self) -> Result<Head, Trouble> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end + 4;
            }
            self.more("the head").await?;
        };
        let text = String::from_utf8_lossy(&self.unread.split_to(end)).into_owned();
        let status = text
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| Trouble::Garbled(text.clone()))?;
        let head = Head { status, text };
        let says = |name, word: &str| {
            head.header(name)
                .is_some_and(|value| value.to_ascii_lowercase().contains(word))
        };
        self.closing = says("connection", "close");
        let length = head.header("content-length").map(str::parse);
        self.rest = match length {
            _ if matches!(status, 100..=199 | 204 | 304) => Rest::Bytes(0),
            _ if says("transfer-encoding", "chunked") => Rest::NextChunk,
            Some(Ok(length)) => Rest::Bytes(length),
            Some(Err(_)) => return Err(Trouble::Garbled(head.text)),
            None => Rest::UntilClosed,
        };
        Ok(head)
    }

    /// Read the body.
    pub async fn body(&mut self) -> Result<Bytes, Trouble> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Read the next piece of the body, as soon as there is one; none at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Trouble> {
        if self.rest == Rest::NextChunk {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            match u64::from_str_radix(size, 16) {
                Ok(0) => {
                    while !self.line().await?.is_empty() {}
                    self.rest = Rest::Bytes(0);
                }
                Ok(size) => self.rest = Rest::Chunk(size),
                Err(_) => return Err(Trouble::Garbled(line)),
            }
        }
        let left = match self.rest {
            Rest::Bytes(0) => return Ok(None),
            Rest::Bytes(left) | Rest::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Rest::NextChunk | Rest::UntilClosed => usize::MAX,
        };
        if self.unread.is_empty() {
            match self.more("the body").await {
                Err(Trouble::ClosedEarly(_)) if self.rest == Rest::UntilClosed => {
                    (self.closing, self.rest) = (true, Rest::Bytes(0));
                    return Ok(None);
                }
                read => read?,
            }
        }
        let taken = self.unread.split_to(self.unread.len().min(left)).freeze();
        let still = (left - taken.len()) as u64;
        self.rest = match self.rest {
            Rest::Bytes(_) => Rest::Bytes(still),
            Rest::Chunk(_) if still == 0 => {
                self.line().await?;
                Rest::NextChunk
            }
            Rest::Chunk(_) => Rest::Chunk(still),
            rest => rest,
        };
        Ok(Some(taken))
    }

    /// Wait for the other side to close.
    pub async fn closed(&mut self) -> Result<(), Trouble> {
        match self.more("a connection that is to be closed").await {
            Err(Trouble::ClosedEarly(_)) => Ok(()),
            Err(trouble) => Err(trouble),
            Ok(()) => Err(Trouble::Garbled("more than was asked for".to_string())),
        }
    }

    /// The bare stream, for what comes after an upgrade, and what has been read of it already.
    pub fn into_stream(self) -> (TcpStream, Bytes) {
        (self.stream, self.unread.freeze())
    }

    async fn line(&mut self) -> Result<String, Trouble> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.advance(end + 2);
                return Ok(line);
            }
            self.more("a chunk").await?;
        }
    }

    /// Read whatever comes next; it is an error if nothing can.
    async fn more(&mut self, within: &str) -> Result<(), Trouble> {
        self.unread.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(Trouble::ClosedEarly(format!(
                "within {within}, after {} bytes of it",
                self.unread.len()
            ))),
            _ => Ok(()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Reset(e.to_string()),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset(why) => f.write_str(why),
            Self::ClosedEarly(at) => write!(f, "connection closed {at}"),
            Self::Garbled(text) => write!(f, "not HTTP: {text:?}"),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
