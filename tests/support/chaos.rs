//! Everything that can die does, in an order that a seed decides, under a load that looks at every
//! answer: apps, their shims, the daemon; while nothing else happens, or in the middle of a deploy, a
//! deploy that fails, a rollback, an upgrade.
//!
//! What may fail: a request that was in flight on a process that was killed. One that is safe to send
//! again is sent once more by hotctl, so only a second death ends it. What may never happen: an answer
//! of a version that is not live, a request that fails for another reason, two live releases, a
//! process that nobody knows.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::daemon::Daemon;
use super::eventually::{eventually, eventually_some, within};
use super::http::{self, Client, Head, Trouble};
use super::leftovers;
use super::program::{Running, lives, send};
use super::rest::{self, at_rest, daemons};

/// Restarts are due at once, and no count of deaths ends them; nobody waits long for anything.
const CONFIG: &str = "admin = \"127.0.0.1:0\"\n[[listen]]\naddress = \"$HELD\"\n\
    [service.web]\ninstances = 2\nkeep_warm = \"0s\"\nstop_timeout = \"2s\"\n\
    start_timeout = \"4s\"\npark = { max = 1000, time = \"20s\" }\ncrash_loop = { deaths = 0 }\n";
/// Longer than any pause before a restart, and than the time in the park.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a service may take to be at rest again: pauses between restarts grow up to 30 s.
const REST: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug)]
pub struct Story {
    pub seed: u64,
    pub took: Duration,
    /// What was done, and how often.
    pub done: BTreeMap<&'static str, u32>,
    /// How many processes were killed.
    pub killed: usize,
    pub answered: usize,
    /// Requests that failed because what they were in flight on was killed.
    pub excused: usize,
    /// The longest time in which no request was answered.
    pub longest: Duration,
    /// From each kill to the next answer, by what was killed, in milliseconds.
    pub next: BTreeMap<&'static str, Vec<f64>>,
    /// What should not have been.
    pub wrong: Vec<String>,
}

/// Let it happen for so long.
#[track_caller]
pub fn run(seed: u64, length: Duration) -> Story {
    let mut world = World::begin(seed);
    let begun = Instant::now();
    while begun.elapsed() < length {
        world.act();
    }
    world.rests();
    world.end(begun)
}

/// What may happen to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Deploy,
    BadDeploy,
    Rollback,
    Upgrade,
}

/// What may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    App,
    /// And the one that is started in its place, before or after it serves.
    AppTwice,
    EveryApp,
    Shim,
    /// Every process that is one.
    Daemon,
    /// One of two, where one takes the place of the other.
    OneDaemon,
}

struct World {
    daemon: Daemon,
    rng: Rng,
    seed: u64,
    crowd: Crowd,
    done: BTreeMap<&'static str, u32>,
    /// Versions that may go live.
    good: Vec<String>,
    next: u32,
}

impl World {
    fn begin(seed: u64) -> Self {
        let daemon = Daemon::start_activated(CONFIG);
        daemon.deploy("v1", &[]);
        let crowd = Crowd::to(daemon.listen());
        crowd.expect(vec!["v1".to_owned()]);
        Self {
            daemon,
            rng: Rng::with_seed(seed),
            seed,
            crowd,
            done: BTreeMap::new(),
            good: vec!["v1".to_owned()],
            next: 2,
        }
    }

    /// One thing happens, and perhaps something dies meanwhile, and perhaps all comes to rest.
    fn act(&mut self) {
        let order = match self.rng.u8(0..100) {
            0..40 => None,
            40..60 => Some(Order::Deploy),
            60..72 => Some(Order::BadDeploy),
            72..82 => Some(Order::Rollback),
            _ => Some(Order::Upgrade),
        };
        let victim = match self.rng.u8(0..100) {
            0..20 => Victim::App,
            20..30 => Victim::AppTwice,
            30..40 => Victim::EveryApp,
            40..60 => Victim::Shim,
            60..85 => Victim::Daemon,
            _ => Victim::OneDaemon,
        };
        match order {
            None => self.kill(victim),
            Some(order) => {
                let under_way = self.begin_order(order);
                let dies = self.rng.u8(0..100) < 70;
                if dies {
                    self.pause(400);
                    self.kill(victim);
                }
                // Whether it went well is seen by what is live afterwards.
                under_way.wait();
            }
        }
        self.daemon_lives();
        match self.rng.u8(0..100) {
            0..50 => self.rests(),
            50..80 => self.pause(300),
            _ => {}
        }
    }

    fn begin_order(&mut self, order: Order) -> Running {
        let args: Vec<String> = match order {
            Order::Deploy => {
                self.count("deploys");
                let version = self.version();
                self.good.push(version.clone());
                self.crowd.allow([version.clone()]);
                deploy(&self.daemon.release(&version), &[])
            }
            Order::BadDeploy => {
                self.count("bad deploys");
                let version = format!("bad{}", self.version());
                let path = self.daemon.release(&version);
                match self.rng.bool() {
                    true => deploy(&path, &["--crash-at-start", "3"]),
                    false => deploy(&path, &["--always-500"]),
                }
            }
            Order::Rollback => {
                self.count("rollbacks");
                // Which one it will be is not known before: any that was good once.
                self.crowd.allow(self.good.clone());
                vec!["rollback".into(), "web".into()]
            }
            Order::Upgrade => {
                self.count("upgrades");
                vec!["upgrade".into()]
            }
        };
        println!("{:?} {order:?}", self.crowd.since());
        self.daemon.alongside(args.iter().map(String::as_str))
    }

    fn version(&mut self) -> String {
        let version = format!("v{}", self.next);
        self.next += 1;
        version
    }

    fn kill(&mut self, victim: Victim) {
        let apps = rest::apps(&self.daemon);
        let app = self.rng.choice(&apps).copied();
        let every = daemons(&self.daemon);
        let (name, kind, pids) = match victim {
            Victim::App | Victim::AppTwice => ("app", Kind::App, Vec::from_iter(app)),
            Victim::EveryApp => ("every app", Kind::App, apps),
            Victim::Shim => {
                let shim = app.and_then(leftovers::parent).filter(|it| is_shim(*it));
                ("shim", Kind::Shim(app), Vec::from_iter(shim))
            }
            Victim::Daemon => ("daemon", Kind::Daemon, every),
            Victim::OneDaemon => {
                let one = self.rng.choice(&every).copied();
                ("one daemon", Kind::Daemon, Vec::from_iter(one))
            }
        };
        self.count(match victim {
            Victim::App => "kills of an app",
            Victim::AppTwice => "kills of an app and the next",
            Victim::EveryApp => "kills of every app",
            Victim::Shim => "kills of a shim",
            Victim::Daemon => "kills of every daemon",
            Victim::OneDaemon => "kills of a daemon",
        });
        for pid in pids {
            println!("{:?} SIGKILL {name} {pid}", self.crowd.since());
            self.crowd.kill(kind, pid);
        }
        if victim == Victim::AppTwice {
            let others = rest::apps(&self.daemon);
            let next = within(Duration::from_secs(1), || {
                let now = rest::apps(&self.daemon);
                now.into_iter().find(|pid| !others.contains(pid))
            });
            self.pause(40);
            if let Some(pid) = next {
                println!("{:?} SIGKILL the next app {pid}", self.crowd.since());
                self.crowd.kill(Kind::App, pid);
            }
        }
    }

    /// There is one daemon, as systemd would see to it.
    fn daemon_lives(&mut self) {
        // One takes the place of the other, or neither does.
        let left = eventually_some("one daemon, or none", || {
            let daemons = daemons(&self.daemon);
            match daemons.as_slice() {
                [] => Some(None),
                [one] => self.answers().then_some(Some(*one)),
                _ => None,
            }
        });
        match left {
            Some(pid) => self.daemon.is_now(pid),
            None => {
                self.daemon.kill();
                self.daemon.start_again();
            }
        }
    }

    fn answers(&self) -> bool {
        let ran = self.daemon.hotctl(["status", "--json"]);
        ran.status.success()
    }

    /// All is as it should be: one release, all of it up, nothing else. What is live is known then.
    #[track_caller]
    fn rests(&mut self) {
        self.count("times at rest");
        let status = within(REST, || at_rest(&self.daemon));
        let status = status.unwrap_or_else(|| {
            panic!(
                "not at rest within {REST:?}: seed {}\n{}\n{}",
                self.seed,
                self.daemon.hotctl(["status"]),
                processes(&self.daemon)
            )
        });
        let live = status.service("web").live.clone().expect("something live");
        // Straight from its process: what clients get is compared with that.
        let version = http::get(live.address.inet(), "/").text().trim().to_owned();
        if !self.good.contains(&version) {
            let about = format!("{} is live, which is {version:?}", live.release);
            self.crowd.shared.tally().wrong.push(about);
        }
        self.crowd.expect(vec![version]);
    }

    fn pause(&mut self, most: u64) {
        // A part of what happens by chance; nothing is waited for.
        thread::sleep(Duration::from_millis(self.rng.u64(0..most)));
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn end(self, begun: Instant) -> Story {
        let took = begun.elapsed();
        let tally = self.crowd.end();
        let mut next: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for kill in &tally.kills {
            next.entry(kill.kind.name())
                .or_default()
                .extend(tally.next_answer(kill));
        }
        let longest = tally.longest();
        let (mut wrong, mut excused) = (tally.wrong, 0);
        for failed in tally.failed {
            match failed.is_excused(&tally.kills) {
                true => excused += 1,
                false => wrong.push(failed.about(&tally.kills)),
            }
        }
        if !wrong.is_empty() {
            eprintln!("--- the daemon's log\n{}---", self.daemon.log());
        }
        Story {
            seed: self.seed,
            took,
            done: self.done,
            killed: tally.kills.len(),
            answered: tally.answers.len(),
            excused,
            longest,
            next,
            wrong,
        }
    }
}

/// Not, where an app has lost its own a moment ago, whoever is its parent then.
fn is_shim(pid: u32) -> bool {
    leftovers::command_line(pid) == "hotctl shim"
}

fn deploy(path: &Path, args: &[&str]) -> Vec<String> {
    let mut all = vec!["deploy".to_owned(), path.display().to_string()];
    all.extend(["--service", "web", "--"].map(str::to_owned));
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    all
}

fn processes(daemon: &Daemon) -> String {
    let all = leftovers::processes(daemon.folder());
    let lines = all.iter().map(|it| format!("{} {}", it.pid, it.line));
    lines.collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {:.0?}: ", self.seed, self.took)?;
        for (what, count) in &self.done {
            write!(f, "{count} {what}, ")?;
        }
        write!(
            f,
            "{} processes killed; {} requests answered, {} failed in flight on what was killed, \
             {} wrong; at most {:.0?} without an answer",
            self.killed,
            self.answered,
            self.excused,
            self.wrong.len(),
            self.longest
        )
    }
}

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
struct Crowd {
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
struct Tally {
    /// Which versions may answer, and since when.
    allowed: Vec<(Instant, Vec<String>)>,
    kills: Vec<Kill>,
    failed: Vec<Failed>,
    wrong: Vec<String>,
    /// When each answer was whole, in that order.
    answers: Vec<Instant>,
}

/// A process was killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    kind: Kind,
    pid: u32,
    from: Instant,
    /// It was gone, and what ends with it.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    App,
    /// Of this app, which ends with it.
    Shim(Option<u32>),
    Daemon,
}

/// A request without a whole answer.
#[derive(Clone, Debug)]
struct Failed {
    ask: Ask,
    begun: Instant,
    ended: Instant,
    why: String,
    since: Duration,
}

impl Failed {
    /// Whether it was in flight on what was killed, or could have been.
    fn is_excused(&self, kills: &[Kill]) -> bool {
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

    fn about(&self, kills: &[Kill]) -> String {
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
    fn to(to: std::net::SocketAddr) -> Self {
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

    fn since(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// From now on only these versions may answer, but for requests that are under way.
    fn expect(&self, versions: Vec<String>) {
        self.shared.tally().allowed.push((Instant::now(), versions));
    }

    /// This one may, too.
    fn allow(&self, versions: impl IntoIterator<Item = String>) {
        let mut tally = self.shared.tally();
        let mut now = tally
            .allowed
            .last()
            .map_or_else(Vec::new, |(_, all)| all.clone());
        now.extend(versions);
        tally.allowed.push((Instant::now(), now));
    }

    /// Kill a process and wait until it is gone, with what ends with it.
    fn kill(&self, kind: Kind, pid: u32) {
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
    fn end(mut self) -> Tally {
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

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::App => "an app",
            Self::Shim(_) => "a shim",
            Self::Daemon => "a daemon",
        }
    }
}

impl Tally {
    fn longest(&self) -> Duration {
        let two = self.answers.windows(2);
        let between = two.map(|two| two[1].saturating_duration_since(two[0]));
        between.max().unwrap_or_default()
    }

    /// How long after a kill the next one came, in milliseconds.
    fn next_answer(&self, kill: &Kill) -> Option<f64> {
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
