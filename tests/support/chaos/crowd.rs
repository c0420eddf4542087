//! Clients of every kind, and what their answers and failures mean beside what was killed meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::super::eventually::eventually;
use super::super::http::{Client, Head, Trouble};
use super::super::program::{lives, send};

/// Longer than any pause before a restart, and than the time in the park.
const PATIENCE: Duration = Duration::from_secs(60);

/// What clients do, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// `GET /` on one connection.
    KeepAlive,
    /// `GET /` on a connection for each.
    NewConnection,
    /// `GET /slow`, which takes two seconds.
    Slow,
    /// `POST /echo`.
    Post,
    /// A second of events.
    Events,
}

/// How many clients of each kind there are.
const CLIENTS: [(Ask, usize); 5] = [
    (Ask::KeepAlive, 4),
    (Ask::NewConnection, 3),
    (Ask::Slow, 2),
    (Ask::Post, 3),
    (Ask::Events, 2),
];
/// A shim that a daemon was starting as it died has its connections until it is a program of its own:
/// who asks meanwhile on one of them is cut off when that is so.
const FORKED: Duration = Duration::from_millis(50);
/// Between two requests of one client: what the machine carries beside all else.
const BETWEEN: Duration = Duration::from_millis(15);

/// Who sends requests meanwhile.
pub(super) struct Crowd {
    runtime: Option<Runtime>,
    clients: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    to: std::net::SocketAddr,
    begun: Instant,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

#[derive(Default)]
pub(super) struct Tally {
    /// Which versions may answer, and since when.
    allowed: Vec<(Instant, Vec<String>)>,
    pub kills: Vec<Kill>,
    pub failed: Vec<Failed>,
    pub wrong: Vec<String>,
    /// When each answer was whole, in that order.
    pub answers: Vec<Instant>,
}

/// A process was killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub kind: Kind,
    pid: u32,
    from: Instant,
    /// It was gone, and what ends with it.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    App,
    /// Of this app, which ends with it.
    Shim(Option<u32>),
    Daemon,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "an app",
            Self::Shim(_) => "a shim",
            Self::Daemon => "a daemon",
        }
    }
}

/// A request without a whole answer.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    ask: Ask,
    begun: Instant,
    ended: Instant,
    why: String,
    since: Duration,
}

impl Failed {
    /// Whether it was in flight on what was killed, or could have been.
    pub fn is_excused(&self, kills: &[Kill]) -> bool {
        let met = || {
            let met = kills.iter();
            met.filter(|kill| self.begun <= kill.until && kill.from <= self.ended)
        };
        if met().any(|kill| kill.kind == Kind::Daemon) {
            return true;
        }
        match self.ask {
            // Sent once more: only the second death ends it.
            Ask::KeepAlive | Ask::NewConnection | Ask::Slow => met().count() >= 2,
            // Never sent twice; or the answer was begun.
            Ask::Post | Ask::Events => met().count() >= 1,
        }
    }

    pub fn about(&self, kills: &[Kill]) -> String {
        let took = self.ended - self.begun;
        let near = kills.iter().filter(|kill| {
            kill.from <= self.ended + Duration::from_secs(1)
                && self.begun <= kill.until + Duration::from_secs(1)
        });
        let near: Vec<String> = near
            .map(|kill| {
                let after = kill.from.saturating_duration_since(self.begun);
                let before = self.begun.saturating_duration_since(kill.from);
                let took = kill.until - kill.from;
                let Kill { kind, pid, .. } = kill;
                format!("{kind:?} {pid} at +{after:?} -{before:?}, gone within {took:?}")
            })
            .collect();
        format!(
            "{:?} at {:?}, failed after {took:?}: {}; kills: {near:?}",
            self.ask, self.since, self.why
        )
    }
}

impl Crowd {
    pub fn to(to: std::net::SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("crowd")
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            to,
            begun: Instant::now(),
            over: AtomicBool::new(false),
            tally: Mutex::default(),
        });
        let all = CLIENTS.iter();
        let all = all.flat_map(|(ask, count)| std::iter::repeat_n(*ask, *count));
        let clients = all.map(|ask| runtime.spawn(Arc::clone(&shared).life(ask)));
        Self {
            clients: clients.collect(),
            runtime: Some(runtime),
            shared,
        }
    }

    pub fn since(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// From now on only these versions may answer, but for requests that are under way.
    pub fn expect(&self, versions: Vec<String>) {
        self.shared.tally().allowed.push((Instant::now(), versions));
    }

    /// This one may, too.
    pub fn allow(&self, versions: impl IntoIterator<Item = String>) {
        let mut tally = self.shared.tally();
        let mut now = tally
            .allowed
            .last()
            .map_or_else(Vec::new, |(_, all)| all.clone());
        now.extend(versions);
        tally.allowed.push((Instant::now(), now));
    }

    /// Something is not as it should be.
    pub fn wrong(&self, about: String) {
        self.shared.tally().wrong.push(about);
    }

    /// Kill a process and wait until it is gone, with what ends with it.
    pub fn kill(&self, kind: Kind, pid: u32) {
        let from = Instant::now();
        send(pid, Signal::KILL);
        eventually("a process that was killed is gone", || {
            let app = match kind {
                Kind::Shim(app) => app.filter(|app| lives(*app)),
                Kind::App | Kind::Daemon => None,
            };
            !lives(pid) && app.is_none()
        });
        let grace = match kind {
            Kind::Daemon => FORKED,
            Kind::App | Kind::Shim(_) => Duration::ZERO,
        };
        let until = Instant::now() + grace;
        self.shared.tally().kills.push(Kill {
            kind,
            pid,
            from,
            until,
        });
    }

    /// Let each client finish what it has begun.
    pub fn end(mut self) -> Tally {
        self.shared.over.store(true, Ordering::Release);
        let runtime = self.runtime.take().expect("a crowd ends once");
        runtime.block_on(async {
            for client in std::mem::take(&mut self.clients) {
                client.await.expect("a client that does not panic");
            }
        });
        runtime.shutdown_background();
        std::mem::take(&mut *self.shared.tally())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic under this lock")
    }

    async fn life(self: Arc<Self>, ask: Ask) {
        let mut kept = None;
        while !self.over.load(Ordering::Acquire) {
            let begun = Instant::now();
            let asked = tokio::time::timeout(PATIENCE, self.ask(ask, kept.take())).await;
            let ended = Instant::now();
            let outcome = asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
            match outcome {
                Ok((client, version)) => {
                    kept = client;
                    self.tally().answers(ask, begun, ended, &version);
                }
                Err(why) => self.tally().failed.push(Failed {
                    ask,
                    begun,
                    ended,
                    why,
                    since: begun - self.begun,
                }),
            }
            // The pace of a client; nothing is waited for.
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// One request, and its whole answer. The client, if it can be used once more, and the version.
    async fn ask(
        &self,
        ask: Ask,
        kept: Option<Client>,
    ) -> Result<(Option<Client>, String), String> {
        let body = format!("{:?} {}", self.begun.elapsed(), ask as u8);
        let request = match ask {
            Ask::KeepAlive | Ask::NewConnection => "GET / HTTP/1.1\r\nhost: test\r\n\r\n".into(),
            Ask::Slow => "GET /slow HTTP/1.1\r\nhost: test\r\n\r\n".into(),
            Ask::Post => format!(
                "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            Ask::Events => "GET /sse?every=100&count=10 HTTP/1.1\r\nhost: test\r\n\r\n".into(),
        };
        let text = |trouble: Trouble| trouble.to_string();
        // One that the other side has closed meanwhile is not used.
        let kept = kept.filter(|_| ask != Ask::NewConnection);
        let mut client = match kept.and_then(|mut one| (!one.is_over()).then_some(one)) {
            Some(client) => client,
            None => Client::connect(self.to).await.map_err(text)?,
        };
        client.send(request.as_bytes()).await.map_err(text)?;
        let head = client.head().await.map_err(text)?;
        let answer = client.body().await.map_err(text)?;
        if head.status != 200 {
            let reason = head.header("x-hotctl-error").unwrap_or("none");
            return Err(format!("status {}, x-hotctl-error: {reason}", head.status));
        }
        self.look_at(ask, &head, &answer, body.as_bytes())?;
        let version = head.version().to_owned();
        Ok((client.goes_on().then_some(client), version))
    }

    fn look_at(&self, ask: Ask, head: &Head, answer: &[u8], sent: &[u8]) -> Result<(), String> {
        let good = match ask {
            Ask::Post => answer == sent,
            Ask::Events => answer.windows(4).filter(|it| *it == b"id: ").count() == 10,
            Ask::KeepAlive | Ask::NewConnection | Ask::Slow => !answer.is_empty(),
        };
        if good {
            return Ok(());
        }
        let about = format!(
            "{ask:?}: another body from {:?}: {:?}",
            head.version(),
            String::from_utf8_lossy(answer)
        );
        self.tally().wrong.push(about.clone());
        Err(about)
    }
}

impl Tally {
    pub fn longest(&self) -> Duration {
        let two = self.answers.windows(2);
        let between = two.map(|two| two[1].saturating_duration_since(two[0]));
        between.max().unwrap_or_default()
    }

    /// How long after a kill the next one came, in milliseconds.
    pub fn next_answer(&self, kill: &Kill) -> Option<f64> {
        let next = self.answers.partition_point(|at| *at < kill.from);
        let next = self.answers.get(next)?;
        Some((*next - kill.from).as_secs_f64() * 1000.0)
    }

    fn answers(&mut self, ask: Ask, begun: Instant, ended: Instant, version: &str) {
        self.answers.push(ended);
        // What was said last before it began, and all that was said until it ended.
        let first = self.allowed.partition_point(|(at, _)| *at <= begun);
        let since = self
            .allowed
            .get(first.saturating_sub(1)..)
            .unwrap_or_default();
        if !since
            .iter()
            .flat_map(|(_, all)| all)
            .any(|one| one == version)
        {
            self.wrong.push(format!(
                "{ask:?}: answered by {version:?}, expected {since:?}"
            ));
        }
    }
}
