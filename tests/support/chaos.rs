//! Everything that can die does, in an order that a seed decides, under a load that looks at every
//! answer: apps, their shims, the daemon; while nothing else happens, or in the middle of a deploy, a
//! deploy that fails, a rollback, an upgrade.
//!
//! What may fail: a request that was in flight on a process that was killed. One that is safe to send
//! again is sent once more by hotctl, so only a second death ends it. What may never happen: an answer
//! of a version that is not live, a request that fails for another reason, two live releases, a
//! process that nobody knows.

mod crowd;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::daemon::Daemon;
use super::eventually::{eventually_some, within};
use super::http;
use super::leftovers;
use super::program::Running;
use super::rest::{self, at_rest, daemons};
use crowd::{Crowd, Kind};

/// Restarts are due at once, and no count of deaths ends them; nobody waits long for anything.
const CONFIG: &str = "admin = \"127.0.0.1:0\"\n[[listen]]\naddress = \"$HELD\"\n\
    [service.web]\ninstances = 2\nkeep_warm = \"0s\"\nstop_timeout = \"2s\"\n\
    start_timeout = \"4s\"\npark = { max = 1000, time = \"20s\" }\ncrash_loop = { deaths = 0 }\n";
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
            self.crowd.wrong(about);
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
