//! A steady load of clients of every class, on a runtime of its own. Each outcome is looked at, no
//! request is repeated, and which version may answer is known at every moment.

mod clients;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::eventually::eventually;
pub use super::outcomes::{Class, Failed, Failure, Outcomes, Tally};

/// What to send, how fast, and for how long at most.
#[derive(Clone, Debug)]
pub struct Plan {
    to: SocketAddr,
    host: String,
    mix: Vec<(Class, usize)>,
    /// Time between two requests of a client of the quick classes; zero = as soon as answered.
    every: Duration,
    /// How long a request may take, on top of the two seconds that some take by themselves.
    patience: Duration,
    most: u64,
    longest: Duration,
    times: Times,
}

/// Whether the time of each answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Kept,
    Forgotten,
}

/// A load that is under way.
pub struct Load {
    runtime: Option<Runtime>,
    clients: HashMap<usize, (Class, JoinHandle<Tally>)>,
    shared: Arc<Shared>,
}

/// What the clients have in common.
struct Shared {
    plan: Plan,
    begun: Instant,
    stop: AtomicBool,
    answered: AtomicU64,
    /// Which versions may answer: what was said last, and all that was said before. A request may be
    /// answered by what was allowed at any time between its first byte and its answer.
    allowed: RwLock<Vec<Vec<String>>>,
    said: AtomicUsize,
}

impl Plan {
    /// Nothing yet.
    pub fn to(address: SocketAddr) -> Self {
        Self {
            to: address,
            host: "test".to_string(),
            mix: Vec::new(),
            every: Duration::ZERO,
            patience: Duration::from_secs(15),
            most: 5_000_000,
            longest: Duration::from_secs(300),
            times: Times::Forgotten,
        }
    }

    /// So many clients of this class, too.
    pub fn clients(mut self, class: Class, count: usize) -> Self {
        self.mix.push((class, count));
        self
    }

    /// Some of every class: what the machine carries while it does other things as well.
    pub fn of_everything(address: SocketAddr) -> Self {
        Self::to(address)
            .clients(Class::KeepAlive, 4)
            .clients(Class::NewConnection, 2)
            .clients(Class::Post, 2)
            .clients(Class::Slow, 4)
            .clients(Class::EventStream, 2)
            .clients(Class::WebSocket, 2)
            .clients(Class::Upload, 1)
            .every(Duration::from_millis(4))
    }

    /// The `Host` that is asked for.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_string();
        self
    }

    /// Time between two requests of a client of the quick classes, however long an answer takes; one
    /// that is late is counted from when it should have been sent.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// How long a request may take.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// After so many requests, or so long, the load ends by itself.
    pub fn at_most(mut self, requests: u64, time: Duration) -> Self {
        (self.most, self.longest) = (requests, time);
        self
    }

    /// Keep the time of each answer.
    pub fn keep_times(mut self) -> Self {
        self.times = Times::Kept;
        self
    }

    /// Go.
    pub fn start(self) -> Load {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("load")
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            plan: self,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            allowed: RwLock::default(),
            said: AtomicUsize::new(0),
        });
        let mut clients = HashMap::new();
        for (class, count) in &shared.plan.mix {
            for _ in 0..*count {
                let number = clients.len();
                let client = clients::run(*class, number as u64, Arc::clone(&shared));
                clients.insert(number, (*class, runtime.spawn(client)));
            }
        }
        Load {
            runtime: Some(runtime),
            clients,
            shared,
        }
    }
}

impl Load {
    /// Some of every class.
    pub fn of_everything(to: SocketAddr) -> Self {
        Plan::of_everything(to).start()
    }

    /// From now on only these versions may answer, but for requests that are under way.
    pub fn expect(&self, versions: &[&str]) {
        let versions = versions
            .iter()
            .map(|version| (*version).to_string())
            .collect();
        let mut allowed = self
            .shared
            .allowed
            .write()
            .expect("no panic under this lock");
        allowed.push(versions);
        self.shared.said.store(allowed.len(), Ordering::Release);
    }

    /// Do what flips traffic from one version to another. Meanwhile both may answer; once it has
    /// returned, only the new one.
    pub fn flipping<T>(&self, from: &str, to: &str, flip: impl FnOnce() -> T) -> T {
        self.expect(&[from, to]);
        let flipped = flip();
        self.expect(&[to]);
        flipped
    }

    /// How many requests have been answered so far, well or badly.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// Wait until so many more have been answered.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let until = self.answered() + more;
        eventually(&format!("{more} more answers"), || self.answered() >= until);
    }

    /// Let each client finish what it has begun, and see what came of it all.
    #[track_caller]
    pub fn finish(mut self) -> Outcomes {
        self.shared.stop.store(true, Ordering::Release);
        let shared = Arc::clone(&self.shared);
        let clients = std::mem::take(&mut self.clients);
        let runtime = self.runtime.take().expect("a load is finished once");
        // Streams take two seconds beside their patience.
        let patience = shared.plan.patience + Duration::from_secs(5);
        let ended = runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + patience;
            let mut ended = Vec::new();
            for (class, client) in clients.into_values() {
                match tokio::time::timeout_at(deadline, client).await {
                    Ok(tally) => ended.push((class, tally.expect("a client that does not panic"))),
                    Err(_) => {
                        let mut tally = Tally::default();
                        let about = format!("a client that did not end within {patience:?}");
                        tally.fail(Failed(Failure::Timeout, about));
                        ended.push((class, tally));
                    }
                }
            }
            ended
        });
        runtime.shutdown_background();
        Outcomes::of(shared.begun.elapsed(), ended)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
            || self.answered.load(Ordering::Relaxed) >= self.plan.most
            || self.begun.elapsed() >= self.plan.longest
    }

    /// What has been said about versions, to be handed back to `check`.
    fn said(&self) -> usize {
        self.said.load(Ordering::Acquire)
    }

    /// Whether this version may answer a request that began when so much had been said.
    fn check(&self, version: &str, said: usize) -> Result<(), Failed> {
        let allowed = self.allowed.read().expect("no panic under this lock");
        if allowed.is_empty() {
            return Ok(());
        }
        let since = &allowed[said.saturating_sub(1)..];
        if said == 0 || since.iter().flatten().any(|one| one == version) {
            return Ok(());
        }
        let about = format!("answered by {version:?}, expected {since:?}");
        Err(Failed(Failure::WrongVersion, about))
    }
}
