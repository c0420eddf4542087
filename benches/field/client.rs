//! A load of our own: every answer is looked at, every outcome is counted, and the time of each is kept.
//! One thread for all connections, each of which asks again as soon as it has its answer.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::process;
use super::seen::Seen;

/// What is asked, again and again.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: Kind,
    pub host: String,
}

/// What comes and goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An answer of 100 bytes on an open connection.
    Small,
    /// The same, on a connection for each.
    NewConnection,
    /// An answer of 1 MiB.
    Big,
    /// A body of so many bytes, and an answer of 100.
    Post(usize),
    /// A message on a WebSocket, and its echo.
    Message,
}

/// How long one answer may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure, so that what fails at once does not fail a million times.
const PAUSE: Duration = Duration::from_millis(5);
const SMALL: usize = 100;
const BIG: usize = 1024 * 1024;
/// A masked text message of twelve bytes; the mask is zero.
const MESSAGE: [u8; 18] = *b"\x81\x8c\0\0\0\0hello, hello";

impl Ask {
    /// The usual host.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            host: "test".to_string(),
        }
    }

    /// What is asked for.
    pub fn path(&self) -> &'static str {
        match self.kind {
            Kind::Small | Kind::NewConnection | Kind::Post(_) => "/",
            Kind::Big => "/big",
            Kind::Message => "/ws",
        }
    }

    /// Whether each has a connection of its own.
    pub fn closes(&self) -> bool {
        self.kind == Kind::NewConnection
    }

    fn bytes(&self) -> Vec<u8> {
        let (method, more, body) = match self.kind {
            Kind::Small | Kind::Big => ("GET", String::new(), 0),
            Kind::NewConnection => ("GET", "connection: close\r\n".to_string(), 0),
            Kind::Post(length) => ("POST", format!("content-length: {length}\r\n"), length),
            Kind::Message => {
                let key = "dGhlIHNhbXBsZSBub25jZQ==";
                let more = format!(
                    "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: {key}\r\n"
                );
                ("GET", more, 0)
            }
        };
        let (path, host) = (self.path(), &self.host);
        let mut bytes =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n").into_bytes();
        bytes.resize(bytes.len() + body, b'x');
        bytes
    }
}

/// Ask with so many connections, for so long.
pub fn load(
    to: SocketAddr,
    ask: &Ask,
    connections: usize,
    during: Duration,
    cores: &[usize],
) -> Seen {
    run(to, ask, connections, Until::Time(during), cores)
}

/// Ask so often, on one connection.
pub fn count(to: SocketAddr, ask: &Ask, requests: u64, cores: &[usize]) -> Seen {
    run(to, ask, 1, Until::Count(requests), cores)
}

/// When a client has asked enough.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Count(u64),
}

fn run(to: SocketAddr, ask: &Ask, connections: usize, until: Until, cores: &[usize]) -> Seen {
    let (ask, cores) = (Arc::new(ask.clone()), cores.to_vec());
    let ran = thread::spawn(move || {
        process::settle_self(&cores);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // The clock starts when all are connected: what is kept alive is measured without that.
            let all = Arc::new(Barrier::new(connections + 1));
            let clients: Vec<_> = (0..connections)
                .map(|_| tokio::spawn(client(to, ask.clone(), until, all.clone())))
                .collect();
            all.wait().await;
            let begun = Instant::now();
            let mut parts = Vec::new();
            for client in clients {
                parts.push(client.await.unwrap());
            }
            Seen::of(begun.elapsed(), parts)
        })
    });
    ran.join().unwrap()
}

/// Connections that have asked once, one after the other, and stay open.
pub fn idle(to: SocketAddr, connections: usize) -> io::Result<Vec<std::net::TcpStream>> {
    use std::io::{Read as _, Write as _};
    let ask = Ask::of(Kind::Small).bytes();
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut stream = std::net::TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&ask)?;
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(&[b'x'; SMALL]) {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            read.extend_from_slice(&buffer[..count]);
        }
        open.push(stream);
    }
    Ok(open)
}

async fn client(
    to: SocketAddr,
    ask: Arc<Ask>,
    until: Until,
    all: Arc<Barrier>,
) -> (Seen, Vec<u32>) {
    let bytes = ask.bytes();
    let mut seen = Seen::default();
    let mut times = Vec::new();
    let mut kept = None;
    if !ask.closes() {
        match tokio::time::timeout(PATIENCE, Talk::connect(to)).await {
            Ok(Ok(talk)) => kept = Some(talk),
            Ok(Err(e)) => seen.fail(&name(&e)),
            Err(_) => seen.fail("too late"),
        }
    }
    all.wait().await;
    let started = Instant::now();
    let goes_on = |seen: &Seen| match until {
        Until::Time(during) => started.elapsed() < during,
        Until::Count(count) => seen.done + seen.failures() < count,
    };
    while goes_on(&seen) {
        let begun = Instant::now();
        let exchange = async {
            let mut talk = match kept.take() {
                Some(talk) => talk,
                None => Talk::connect(to).await?,
            };
            talk.ask(&ask, &bytes).await?;
            io::Result::Ok(talk)
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(talk)) => {
                seen.done += 1;
                times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                kept = Some(talk).filter(|talk| talk.goes_on);
            }
            failed => {
                let what = match failed {
                    Ok(Err(e)) => name(&e),
                    _ => "too late".to_string(),
                };
                seen.fail(&what);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    (seen, times)
}

/// What went wrong, in words that can be counted.
fn name(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::ConnectionRefused => "refused".to_string(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".to_string(),
        ErrorKind::UnexpectedEof => "closed early".to_string(),
        _ => e.to_string(),
    }
}

/// One connection.
struct Talk {
    stream: TcpStream,
    buffer: Vec<u8>,
    goes_on: bool,
    is_websocket: bool,
}

impl Talk {
    async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
            goes_on: true,
            is_websocket: false,
        })
    }

    /// One request and its answer, which must be right.
    async fn ask(&mut self, ask: &Ask, bytes: &[u8]) -> io::Result<()> {
        if ask.kind == Kind::Message {
            if !self.is_websocket {
                self.stream.write_all(bytes).await?;
                let (head, rest) = self.head().await?;
                if !head.starts_with("HTTP/1.1 101") || rest != 0 {
                    return Err(wrong(&head));
                }
                self.is_websocket = true;
            }
            return self.message().await;
        }
        self.stream.write_all(bytes).await?;
        let (head, mut came) = self.head().await?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(wrong(&head));
        }
        let length = length(&head).ok_or_else(|| wrong("no content-length"))?;
        let expected = match ask.kind {
            Kind::Big => BIG,
            _ => SMALL,
        };
        if length != expected {
            return Err(wrong("another length"));
        }
        while came < length {
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            came += count;
        }
        if came > length {
            return Err(wrong("more than was asked for"));
        }
        let lower = head.to_ascii_lowercase();
        self.goes_on = !ask.closes() && !lower.contains("connection: close");
        Ok(())
    }

    async fn message(&mut self) -> io::Result<()> {
        self.stream.write_all(&MESSAGE).await?;
        let mut echo = [0; 14];
        self.stream.read_exact(&mut echo).await?;
        match echo.starts_with(&[0x81, 12]) && echo.ends_with(b"hello, hello") {
            true => Ok(()),
            false => Err(wrong("another echo")),
        }
    }

    /// The header of an answer, and how much of its body came with it.
    async fn head(&mut self) -> io::Result<(String, usize)> {
        let mut read = 0;
        loop {
            let free = self.buffer.get_mut(read..).unwrap_or_default();
            let count = self.stream.read(free).await?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            read += count;
            let all = self.buffer.get(..read).unwrap_or_default();
            if let Some(end) = all.windows(4).position(|at| at == b"\r\n\r\n") {
                let head = all.get(..end).unwrap_or_default();
                return Ok((String::from_utf8_lossy(head).into_owned(), read - end - 4));
            }
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.parse().ok()
}

fn wrong(what: &str) -> io::Error {
    let line = what.lines().next().unwrap_or_default().to_string();
    io::Error::other(line)
}
