//! The little world of a test: upstreams that behave as told, and a proxy in front of them.
//!
//! Everything is on loopback, at ports that the system chooses, and ends with the runtime.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotctl_config::{Address, Drain, ReleaseId, ServiceName, Slot, Timeouts};
use hotctl_proxy::{AccessLog, Metrics, Pool, Proxy, Route, Settings, Split, Stage, Switch, Table};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wire::{Head, Wire};

/// How an upstream treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Keeps them.
    Kind,
    /// Closes each after so many answers, without saying so.
    Rude(usize),
    /// Reads a request and closes without an answer, so many times; then it is kind.
    Mute(usize),
}

/// A small HTTP server.
#[derive(Clone)]
pub struct Upstream {
    pub address: Address,
    seen: Arc<Seen>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Wire> {
        Ok(match self {
            Self::Tcp(listener) => Wire::new(listener.accept().await?.0),
            Self::Unix(listener) => Wire::on(listener.accept().await?.0),
        })
    }
}

impl From<&Upstream> for Address {
    fn from(upstream: &Upstream) -> Self {
        upstream.address.clone()
    }
}

/// What an upstream has seen.
#[derive(Default)]
pub struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    muted: AtomicUsize,
    heads: Mutex<Vec<Head>>,
    bodies: Mutex<Vec<String>>,
}

impl Upstream {
    /// Answers with `name` to everything, and in special ways to some paths, see `serve`.
    pub async fn start(name: &str, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, name, manners)
    }

    pub fn on(listener: TcpListener, name: &str, manners: Manners) -> Self {
        let address = listener.local_addr().unwrap().into();
        Self::at(address, Listener::Tcp(listener), name, manners)
    }

    /// The same, at a unix socket.
    pub fn on_unix(listener: UnixListener, name: &str, manners: Manners) -> Self {
        let address = listener.local_addr().unwrap();
        let address = Address::Unix(address.as_pathname().unwrap().into());
        Self::at(address, Listener::Unix(listener), name, manners)
    }

    fn at(address: Address, listener: Listener, name: &str, manners: Manners) -> Self {
        let seen = Arc::new(Seen::default());
        let (name, upstream) = (Arc::<str>::from(name), Self { address, seen });
        let seen = upstream.seen.clone();
        tokio::spawn(async move {
            while let Ok(wire) = listener.accept().await {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let (name, seen) = (name.clone(), seen.clone());
                tokio::spawn(async move {
                    seen.open.fetch_add(1, Ordering::SeqCst);
                    let _ = serve(wire, &name, manners, &seen).await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        upstream
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<Head> {
        self.seen.heads.lock().unwrap().clone()
    }

    /// The bodies of all `POST`s.
    pub fn bodies(&self) -> Vec<String> {
        self.seen.bodies.lock().unwrap().clone()
    }
}

async fn serve(mut wire: Wire, name: &str, manners: Manners, seen: &Seen) -> io::Result<()> {
    let mut answers = 0;
    while let Some(head) = wire.head().await? {
        if head.get("expect").is_some() {
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if head.second() == "/unread" {
            // Its answer, before anything of the body is asked for.
            wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                .await?;
            wire.body(&head, false).await?;
            continue;
        }
        let body = wire.body(&head, false).await?;
        seen.heads.lock().unwrap().push(head.clone());
        if let Manners::Mute(times) = manners
            && seen.muted.fetch_add(1, Ordering::SeqCst) < times
        {
            return Ok(());
        }
        let text = match head.line.starts_with("POST ") {
            true => {
                let body = String::from_utf8_lossy(&body).into_owned();
                let text = format!("{name} {}", body.len());
                seen.bodies.lock().unwrap().push(body);
                text
            }
            false => name.to_owned(),
        };
        let length = text.len();
        let (path, query) = match head.second().split_once('?') {
            Some((path, query)) => (path, query.parse().unwrap_or(0)),
            None => (head.second(), 0),
        };
        match path {
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(query)).await;
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
                ))
                .await?;
            }
            // As many events as asked for, 5 ms apart.
            "/events" => {
                wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                )
                .await?;
                for number in 0..query {
                    let event = format!("data: {name} {number}\n\n");
                    wire.send(format!("{:x}\r\n{event}\r\n", event.len()))
                        .await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                wire.send("0\r\n\r\n").await?;
            }
            // A byte each 5 ms, as many as asked for, of a length that is not said.
            "/drip" => {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await?;
                for _ in 0..query {
                    wire.send("1\r\n.\r\n").await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                wire.send("0\r\n\r\n").await?;
            }
            // That status, and nothing else.
            "/status" => {
                wire.send(format!("HTTP/1.1 {query} Any\r\nContent-Length: 0\r\n\r\n"))
                    .await?;
            }
            // Two halves of an answer of known length, the second when the client has said so.
            "/halves" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
                    .await?;
                tokio::time::sleep(Duration::from_millis(query)).await;
                wire.send("full").await?;
            }
            // Half of an answer, and no more.
            "/torn" => {
                return wire
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
                    .await;
            }
            "/torn-chunks" => {
                return wire
                    .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
                    .await;
            }
            "/unasked" => {
                return wire
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\nraw")
                    .await;
            }
            "/nonsense" => return wire.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            "/until-end" => {
                return wire.send(format!("HTTP/1.0 200 OK\r\n\r\n{text}")).await;
            }
            "/hop-by-hop" => {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\nUpgrade: h2c\r\nTrailer: X-Sum\r\nX-Yours: 1\r\nContent-Length: {length}\r\n\r\n{text}"
                ))
                .await?;
            }
            "/early" => {
                wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                    .await?;
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
                ))
                .await?;
            }
            "/upgrade" if head.get("upgrade").is_some() => {
                let protocol = head.get("upgrade").unwrap_or_default();
                wire.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
                ))
                .await?;
                // The name, then everything back as it comes, up to a full stop.
                wire.send(name).await?;
                loop {
                    let byte = wire.exactly(1).await?;
                    wire.send(&byte).await?;
                    if byte == b"." {
                        return wire.shut().await;
                    }
                }
            }
            "/chunked" => {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n"
                ))
                .await?;
            }
            _ if head.line.starts_with("HEAD ") => {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await?;
            }
            _ => {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
                ))
                .await?;
            }
        }
        answers += 1;
        if manners == Manners::Rude(answers) || head.closes() {
            return Ok(());
        }
    }
    Ok(())
}

/// A proxy for one service, `web`, that takes every request.
pub struct World {
    pub switch: Arc<Switch>,
    pub metrics: Arc<Metrics>,
    pub registry: prometheus::Registry,
    pub address: SocketAddr,
    pub proxy: Proxy,
    pub stage: watch::Sender<Stage>,
    pub serving: JoinHandle<()>,
    releases: AtomicU32,
}

pub const SHARDS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

pub fn web() -> ServiceName {
    "web".parse().unwrap()
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").await.unwrap(), change)
    }

    /// And this socket, which others may have too.
    pub fn at(listener: TcpListener, change: impl FnOnce(&mut Settings)) -> Self {
        let registry = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, NonZeroUsize::MIN).unwrap());
        let switch = Arc::new(Switch::new(SHARDS));
        let route = Route {
            service: web(),
            hosts: vec![],
            paths: vec![],
        };
        switch.publish(Table::new([route]), 1).unwrap();
        let mut settings = Settings {
            trusted_proxies: vec![],
            timeouts: Timeouts::default(),
            threads: SHARDS,
            access_log: AccessLog::default(),
            desk: None,
        };
        change(&mut settings);
        let proxy = Proxy::new(switch.clone(), metrics.clone(), settings);
        let address = listener.local_addr().unwrap();
        let (stage, watch) = watch::channel(Stage::Serving);
        let serves = proxy.clone();
        let serving = tokio::spawn(async move { serves.serve(listener, watch).await });
        Self {
            switch,
            metrics,
            registry,
            address,
            proxy,
            stage,
            serving,
            releases: AtomicU32::new(0),
        }
    }

    /// A new release at this address.
    pub fn pool(&self, address: impl Into<Address>) -> Pool {
        self.pool_of(&[address.into()])
    }

    /// A new release of so many instances.
    pub fn pool_of(&self, instances: &[Address]) -> Pool {
        let number = self.releases.fetch_add(1, Ordering::SeqCst) + 1;
        let release = ReleaseId {
            service: web(),
            number,
        };
        let (first, more) = instances.split_first().unwrap();
        Pool::new(release, Slot(number), first.clone(), more, SHARDS)
    }

    /// Makes a new release at this address live.
    pub fn flip(&self, address: impl Into<Address>) -> Pool {
        let pool = self.pool(address);
        self.flip_to(&pool);
        pool
    }

    pub fn flip_to(&self, pool: &Pool) {
        self.switch.split(&web(), Split::all(pool.clone())).unwrap();
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// The value of a series, by its name and labels as Prometheus writes them.
    pub fn metric(&self, series: &str) -> f64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// As much time for each kind of request, to the end.
pub fn all(within: Duration) -> Drain {
    Drain {
        requests: within,
        websockets: within,
        streams: within,
        spread: Duration::ZERO,
        ..Drain::default()
    }
}

/// Waits until something is so; fails after ten seconds.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("not within 10 s: {what}");
}
