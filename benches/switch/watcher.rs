//! Clients that ask for the version without a pause, and note when which one answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::field::switching::Switched;
use crate::support::http::{Client, Trouble};

/// Connections that are kept; as many more are new for each request.
const KEPT: usize = 4;
/// Between two requests of a client: others need the core, too.
const PAUSE: Duration = Duration::from_micros(500);
/// So long after an order an answer still belongs to it.
const AFTER: Duration = Duration::from_millis(900);

/// Watches.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<Answer>>>,
}

/// All that was seen.
pub struct Watched {
    answers: Vec<Answer>,
    /// The same moment by two clocks.
    now: (Instant, SystemTime),
}

struct Answer {
    begun: Instant,
    ended: Instant,
    /// What went wrong otherwise.
    version: Result<String, String>,
}

/// What clients saw of one switch, in milliseconds since the order.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub first_new: f64,
    pub last_old: f64,
    pub worst: f64,
    /// Until the command said that it was done.
    pub command: f64,
    /// From hotctl's own order to flip to the first new answer.
    pub since_flip: f64,
}

impl Watcher {
    pub fn start(to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let clients: Vec<_> = (0..KEPT * 2)
                    .map(|at| tokio::spawn(client(to, at < KEPT, stopped.clone())))
                    .collect();
                let mut all = Vec::new();
                for client in clients {
                    all.push(client.await.unwrap());
                }
                all
            })
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.thread.join().unwrap();
        Watched {
            answers: all.into_iter().flatten().collect(),
            now: (Instant::now(), SystemTime::now()),
        }
    }
}

impl Watched {
    pub fn total(&self) -> u64 {
        self.answers.len() as u64
    }

    /// What went wrong, each by name.
    pub fn failures(&self) -> Vec<&str> {
        let all = self.answers.iter();
        all.filter_map(|answer| answer.version.as_ref().err().map(String::as_str))
            .collect()
    }

    /// What was seen of a switch from one version to another.
    pub fn of(&self, switched: Switched, from: &str, to: &str, flip: Option<SystemTime>) -> Seen {
        let of = |version: &str| {
            let all = self.answers.iter();
            let all = all.filter(|one| one.version.as_deref() == Ok(version));
            all.map(|one| one.ended).collect::<Vec<_>>()
        };
        let first_new = of(to).into_iter().min();
        let last_old = of(from).into_iter().max();
        let near = self
            .answers
            .iter()
            .filter(|one| one.ended >= switched.ordered && one.begun <= switched.done + AFTER);
        let worst = near.map(|one| one.ended - one.begun).max();
        let since = |at: Option<Instant>| at.map_or(f64::NAN, |at| signed(at, switched.ordered));
        let flip = flip.and_then(|flip| {
            let ago = self.now.1.duration_since(flip).ok()?;
            self.now.0.checked_sub(ago)
        });
        Seen {
            first_new: since(first_new),
            last_old: since(last_old),
            worst: worst.map_or(f64::NAN, |worst| worst.as_secs_f64() * 1e3),
            command: signed(switched.done, switched.ordered),
            since_flip: match (first_new, flip) {
                (Some(first), Some(flip)) => signed(first, flip),
                _ => f64::NAN,
            },
        }
    }
}

/// Milliseconds from the one to the other, less than nothing if it was before.
fn signed(at: Instant, since: Instant) -> f64 {
    let after = at.saturating_duration_since(since);
    let before = since.saturating_duration_since(at);
    (after.as_secs_f64() - before.as_secs_f64()) * 1e3
}

async fn client(to: SocketAddr, keeps: bool, stop: Arc<AtomicBool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut kept: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let reused = kept.take();
        let asked = tokio::time::timeout(Duration::from_secs(10), ask(to, reused, keeps)).await;
        let version = match asked {
            Ok(Ok((version, client))) => {
                kept = client;
                version
            }
            Ok(Err(trouble)) => Err(trouble.to_string()),
            Err(_) => Err("too late".to_string()),
        };
        answers.push(Answer {
            begun,
            ended: Instant::now(),
            version,
        });
        tokio::time::sleep(PAUSE).await;
    }
    answers
}

/// One request. An idle connection that was closed meanwhile is not the fault of the next request.
async fn ask(
    to: SocketAddr,
    reused: Option<Client>,
    keeps: bool,
) -> Result<(Result<String, String>, Option<Client>), Trouble> {
    let mut reused = reused;
    if reused.as_mut().is_some_and(Client::is_over) {
        reused = None;
    }
    let mut client = match reused {
        Some(client) => client,
        None => Client::connect(to).await?,
    };
    let more = if keeps { "" } else { "connection: close\r\n" };
    let request = format!("GET / HTTP/1.1\r\nhost: test\r\n{more}\r\n");
    client.send(request.as_bytes()).await?;
    let head = client.head().await?;
    let body = client.body().await?;
    let version = match head.status {
        200 => Ok(String::from_utf8_lossy(&body).trim().to_string()),
        status => Err(format!("status {status}")),
    };
    let goes_on = keeps && client.goes_on();
    Ok((version, goes_on.then_some(client)))
}
