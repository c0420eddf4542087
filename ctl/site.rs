//! One service on this machine: its record, its store, and what runs in its slots. Everything that
//! touches processes, ports or traffic of a service goes through here; what is to be done, and
//! when, is decided by the driver and the service's task.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotctl_config::file::Service;
use hotctl_config::names::{ServiceName, Slot};
use hotctl_deploy::ledger::{Ledger, Traffic};
use hotctl_deploy::machine::{Deployment, Phase, Placement};
use hotctl_deploy::ports::{Lease, Ports};
use hotctl_deploy::process::{self, Exit, Process, Spec};
use hotctl_deploy::release::Store;
use hotctl_deploy::restart::Backoff;
use hotctl_deploy::why::{Kind, Why};
use hotctl_proxy::{Closed, Pool, Split, Switch};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

use crate::fault::Fault;
use crate::metrics::{Metrics, ReleaseInfo};
use crate::store::StateFolder;

/// How many releases may drain at once; the oldest beyond that is cut first.
const MAX_DRAINING: usize = 3;

/// What the services share; handed in by the daemon.
#[derive(Debug)]
pub struct Means {
    pub switch: Arc<Switch>,
    pub traffic: Arc<hotctl_proxy::Metrics>,
    pub metrics: Arc<Metrics>,
    pub ports: Ports,
    pub state: StateFolder,
    /// How many shards the switch has; pools are made alike.
    pub shards: NonZeroUsize,
}

/// One service on this machine.
#[derive(Debug)]
pub struct Site {
    pub name: ServiceName,
    pub config: Service,
    pub store: Store,
    pub means: Arc<Means>,
    inner: Mutex<Inner>,
    /// One change of the record at a time, so that what is written last is what is true last.
    writing: tokio::sync::Mutex<()>,
    /// Processes that ended. Its reader is the service's task; sixteen may wait for it, further
    /// ones hold up only the tiny tasks that watch a process.
    exits: mpsc::Sender<(Slot, Exit)>,
    /// Woken after each round of probes.
    probed: Notify,
    /// Drains, retirements and watchers; none outlives the daemon's end.
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    slots: BTreeMap<Slot, Running>,
    /// Retirements that still wait for answers, oldest first: wake one to cut it short.
    draining: VecDeque<(Slot, Arc<Notify>)>,
    began: Option<Instant>,
}

/// What runs in a slot.
#[derive(Debug)]
struct Running {
    at: Placement,
    address: SocketAddr,
    pool: Pool,
    /// Keeps the port ours as long as the slot is in use.
    _lease: Lease,
    process: Process,
    alive: bool,
    since: Instant,
    health: Health,
    backoff: Backoff,
    restarts: u32,
    drain: Option<Drain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Health {
    text: String,
    misses: u32,
}

impl Health {
    fn good() -> Self {
        Self {
            text: "healthy".into(),
            misses: 0,
        }
    }
}

/// The wait for the last answer of a pool that lost its traffic.
#[derive(Debug)]
struct Drain {
    over: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// A candidate that was started.
#[derive(Debug, Clone)]
pub struct Launched {
    pub process: Process,
    pub address: SocketAddr,
    pub log: PathBuf,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub took: Duration,
    /// Requests still open when the time was over.
    pub open: usize,
}

/// What `status` says of one slot.
#[derive(Debug, Clone)]
pub struct SlotView {
    pub at: Placement,
    pub role: &'static str,
    pub address: SocketAddr,
    pub pid: Option<u32>,
    pub uptime: Duration,
    pub tickets: usize,
    pub health: String,
    pub restarts: u32,
}

impl Site {
    /// Open the service's folder and read its record. A deployment that was under way when the
    /// last daemon ended is brought to its end on paper; it is returned to be told.
    ///
    /// # Errors
    /// If record or store cannot be read.
    pub fn open(
        name: &ServiceName,
        config: &Service,
        means: &Arc<Means>,
        exits: mpsc::Sender<(Slot, Exit)>,
    ) -> Result<(Arc<Self>, Option<Deployment>), Fault> {
        let folder = means.state.service(name);
        let mut ledger = means.state.load(name)?;
        let interrupted = ledger.interrupted();
        let fault =
            |cause: io::Error| Fault::config(format!("state {}: {cause}", folder.display()));
        for part in ["logs", "data"] {
            std::fs::create_dir_all(folder.join(part)).map_err(fault)?;
        }
        let store = Store::open(folder.join("releases")).map_err(fault)?;
        means.metrics.prepare(name);
        let site = Arc::new(Self {
            name: name.clone(),
            config: config.clone(),
            store,
            means: means.clone(),
            inner: Mutex::new(Inner {
                ledger,
                slots: BTreeMap::new(),
                draining: VecDeque::new(),
                began: None,
            }),
            writing: tokio::sync::Mutex::new(()),
            exits,
            probed: Notify::new(),
            tasks: TaskTracker::new(),
        });
        Ok((site, interrupted))
    }

    /// The record as it is now.
    pub fn ledger(&self) -> Ledger {
        self.inner().ledger.clone()
    }

    /// Change the record in memory only; the next write takes it along.
    pub fn note<R>(&self, change: impl FnOnce(&mut Ledger) -> R) -> R {
        change(&mut self.inner().ledger)
    }

    /// Change the record and write it. On a failed write the change is kept if `keep` says so.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn change(
        self: &Arc<Self>,
        keep: Keep,
        change: impl Fn(&mut Ledger) + Send,
    ) -> io::Result<()> {
        let _turn = self.writing.lock().await;
        let mut next = self.ledger();
        change(&mut next);
        let site = self.clone();
        let written = tokio::task::spawn_blocking(move || site.means.state.save(&next))
            .await
            .unwrap_or_else(|join| Err(io::Error::other(join)));
        if written.is_ok() || keep == Keep::Anyway {
            change(&mut self.inner().ledger);
        }
        written
    }

    /// Write down where a deployment stands.
    ///
    /// # Errors
    /// If it could not be written; what leads forward is then not true, what leads back is.
    pub async fn record(self: &Arc<Self>, deployment: &Deployment) -> io::Result<()> {
        let keep = match deployment.phase {
            Phase::Starting => {
                self.inner().began = Some(Instant::now());
                Keep::IfWritten
            }
            Phase::Step(_) => Keep::IfWritten,
            Phase::Reverting(_) | Phase::Done | Phase::Failed(_) => Keep::Anyway,
        };
        self.change(keep, |ledger| ledger.record(deployment)).await
    }

    /// Run a release in a slot on a fresh port. Nothing is sent there by this.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn launch(self: &Arc<Self>, at: Placement) -> Result<Launched, Why> {
        let lease = self.means.ports.lease().map_err(|none| {
            Why::new(Kind::NoPort, none.to_string())
                .hint("widen `ports` in the configuration, or stop what uses them")
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lease.port()));
        let spec = self.spec(at, lease.port())?;
        let log = spec.log.clone();
        let process = self.start(spec, at.slot).await?;
        let running = Running {
            at,
            address,
            pool: Pool::new(
                at.release_of(&self.name),
                at.slot,
                address,
                &[],
                self.means.shards,
            ),
            _lease: lease,
            process: process.clone(),
            alive: true,
            since: Instant::now(),
            health: Health {
                text: "starting".into(),
                misses: 0,
            },
            backoff: Backoff::default(),
            restarts: 0,
            drain: None,
        };
        self.inner().slots.insert(at.slot, running);
        Ok(Launched {
            process,
            address,
            log,
        })
    }

    /// What already runs in a slot, if it does.
    pub fn launched(&self, at: Placement) -> Option<Launched> {
        let inner = self.inner();
        let running = inner
            .slots
            .get(&at.slot)
            .filter(|r| r.alive && r.at == at)?;
        Some(Launched {
            process: running.process.clone(),
            address: running.address,
            log: self.log_path(at),
        })
    }

    /// A candidate has proved itself.
    pub fn proved(&self, slot: Slot) {
        if let Some(running) = self.inner().slots.get_mut(&slot) {
            running.health = Health::good();
        }
    }

    /// End what runs in a slot at once and forget it: a start that is tried again elsewhere.
    pub async fn discard(&self, slot: Slot) {
        let running = self.inner().slots.remove(&slot);
        if let Some(running) = running {
            running.process.stop(Duration::ZERO).await;
        }
    }

    /// Give traffic to whom the record says, in one publication. Who has it again is not drained
    /// any longer.
    pub fn publish(&self) {
        let mut inner = self.inner();
        let traffic = inner.ledger.traffic();
        let mut pool = |at: Placement| {
            let running = inner.slots.get_mut(&at.slot)?;
            running.drain = None;
            Some(running.pool.clone())
        };
        let split = match traffic {
            Traffic::NothingDeployed => Some(Split::Closed(Closed::NothingDeployed)),
            Traffic::Stopped => Some(Split::Closed(Closed::Stopped)),
            Traffic::All(at) => pool(at).map(Split::all),
            Traffic::Shared {
                live,
                candidate,
                weight,
            } => pool(live).map(|live| Split::Live {
                live,
                candidate: pool(candidate).map(|pool| (pool, weight)),
            }),
        };
        match split {
            Some(split) => {
                if let Err(unknown) = self.means.switch.split(&self.name, split) {
                    error!(service = %self.name, %unknown, "the routes do not know this service");
                }
            }
            // Never publish a pool that is not there: what serves goes on serving.
            None => error!(service = %self.name, ?traffic, "what should serve does not run"),
        }
    }

    /// A placement has lost its traffic: wait for its last answers in the background, and say how
    /// that went.
    pub fn lose(self: &Arc<Self>, at: Placement, then: impl FnOnce(Drained) + Send + 'static) {
        let mut inner = self.inner();
        let Some(running) = inner.slots.get_mut(&at.slot) else {
            return;
        };
        let (tell, over) = watch::channel(false);
        let site = self.clone();
        let pool = running.pool.clone();
        let switching = self.means.traffic.switching(&self.name);
        let task = self.tasks.spawn(async move {
            let began = Instant::now();
            let open = site
                .means
                .switch
                .retire(&pool, site.config.drain_timeout)
                .await;
            let took = began.elapsed();
            site.means.metrics.drain(&site.name, took);
            drop(switching);
            // A retirement waits for this; that nobody does yet is no failure.
            let _ = tell.send(true);
            then(Drained { took, open });
        });
        running.drain = Some(Drain {
            over,
            _task: AbortOnDropHandle::new(task),
        });
    }

    /// Drain what is still to drain, then stop it and everything it started; in the background.
    pub fn retire(self: &Arc<Self>, at: Placement) {
        let hurry = Arc::new(Notify::new());
        {
            let mut inner = self.inner();
            inner.draining.push_back((at.slot, hurry.clone()));
            if inner.draining.len() > MAX_DRAINING
                && let Some((slot, oldest)) = inner.draining.front()
            {
                info!(service = %self.name, %slot, "more than {MAX_DRAINING} releases drain: the oldest is cut");
                oldest.notify_one();
            }
        }
        let site = self.clone();
        self.tasks
            .spawn(async move { site.retirement(at, &hurry).await });
    }

    async fn retirement(self: Arc<Self>, at: Placement, hurry: &Notify) {
        let release = at.release_of(&self.name);
        let (over, pool) = {
            let inner = self.inner();
            let running = inner.slots.get(&at.slot);
            (
                running.and_then(|r| r.drain.as_ref().map(|d| d.over.clone())),
                running.map(|r| r.pool.clone()),
            )
        };
        if let Some(mut over) = over {
            tokio::select! {
                // An error is the drain's task gone: nothing to wait for.
                _ = over.wait_for(|over| *over) => {}
                () = hurry.notified() => {}
            }
        }
        let cut = pool.map_or(0, |pool| pool.tickets());
        if cut > 0 {
            warn!(%release, cut, "requests cut: drain_timeout is over");
            self.means.traffic.cut(&self.name, cut);
        }
        self.inner().draining.retain(|(slot, _)| *slot != at.slot);
        let process = {
            let mut inner = self.inner();
            inner.slots.get_mut(&at.slot).map(|running| {
                running.alive = false;
                running.process.clone()
            })
        };
        if let Some(process) = process {
            let stopped = process.stop(self.config.stop_timeout).await;
            info!(%release, slot = %at.slot, exit = %stopped.exit, killed = stopped.killed, "stopped");
        }
        self.inner().slots.remove(&at.slot);
        let gone = self
            .change(Keep::Anyway, |ledger| ledger.retired(at.slot))
            .await;
        if let Err(cause) = gone {
            error!(%release, %cause, "cannot record that a release is retired");
        }
    }

    /// The live process of `slot` died: start it again in its place, after a pause that grows with
    /// each early death. Requests meanwhile are retried by the proxy within `timeouts.retry`.
    pub fn revive(self: &Arc<Self>, slot: Slot, exit: &Exit) {
        let (at, pause, port) = {
            let mut inner = self.inner();
            let Some(running) = inner.slots.get_mut(&slot) else {
                return;
            };
            running.alive = false;
            running.health.text = format!("exited: {exit}");
            let pause = running
                .backoff
                .died_after(running.since.elapsed(), fastrand::f64());
            (running.at, pause, running.address.port())
        };
        let release = at.release_of(&self.name);
        warn!(%release, %slot, %exit, ?pause, "the live process ended by itself: starting it again");
        let site = self.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            if !site.inner().slots.contains_key(&slot) {
                return;
            }
            let started = match site.spec(at, port) {
                Ok(spec) => site.start(spec, slot).await,
                Err(why) => Err(why),
            };
            match started {
                Ok(process) => {
                    let kept = {
                        let mut inner = site.inner();
                        match inner.slots.get_mut(&slot) {
                            Some(running) => {
                                running.process = process.clone();
                                running.alive = true;
                                running.since = Instant::now();
                                running.restarts += 1;
                                true
                            }
                            None => false,
                        }
                    };
                    if !kept {
                        process.stop(Duration::ZERO).await;
                    }
                }
                Err(why) => {
                    error!(%release, %why, "cannot start the live release again");
                    // As if it had died at once: the service's task asks for the next try.
                    let again = site.exits.send((slot, Exit::NotStarted(why.text))).await;
                    drop(again);
                }
            }
        });
    }

    /// Probe what serves and what is warm, each `interval`, as long as the service exists.
    pub async fn keep_probing(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.config.health.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let due: Vec<(Slot, SocketAddr)> = {
                let inner = self.inner();
                inner
                    .slots
                    .values()
                    .filter(|r| r.alive && matches!(inner.role(r.at), "live" | "warm"))
                    .map(|r| (r.at.slot, r.address))
                    .collect()
            };
            for (slot, address) in due {
                let began = Instant::now();
                let answer = hotctl_deploy::probe::probe(address, &self.config.health).await;
                self.means
                    .metrics
                    .probe(&self.name, answer.is_ok(), began.elapsed());
                if let Some(running) = self.inner().slots.get_mut(&slot) {
                    running.health = match answer {
                        Ok(_) => Health::good(),
                        Err(miss) => Health {
                            text: miss.to_string(),
                            misses: running.health.misses.saturating_add(1),
                        },
                    };
                }
            }
            self.probed.notify_waiters();
        }
    }

    /// Resolves with the last probe's words once `fall` probes of a slot in a row have failed.
    pub async fn fell(&self, slot: Slot) -> String {
        loop {
            let probed = self.probed.notified();
            if let Some(running) = self.inner().slots.get(&slot)
                && running.health.misses >= self.config.health.fall
            {
                return running.health.text.clone();
            }
            probed.await;
        }
    }

    /// End every process of the service, side by side; for the daemon's own end.
    pub async fn stop_everything(&self) {
        let processes: Vec<Process> = self
            .inner()
            .slots
            .values()
            .map(|r| r.process.clone())
            .collect();
        let stops = processes
            .iter()
            .map(|process| process.stop(self.config.stop_timeout));
        futures_util::future::join_all(stops).await;
    }

    /// What runs, by slot.
    pub fn slots(&self) -> Vec<SlotView> {
        let inner = self.inner();
        inner
            .slots
            .values()
            .map(|r| SlotView {
                at: r.at,
                role: inner.role(r.at),
                address: r.address,
                pid: r.alive.then(|| r.process.pid()),
                uptime: r.since.elapsed(),
                tickets: r.pool.tickets(),
                health: r.health.text.clone(),
                restarts: r.restarts,
            })
            .collect()
    }

    /// For `hotctl_release_info`.
    pub fn release_infos(&self) -> Vec<ReleaseInfo> {
        let inner = self.inner();
        inner
            .slots
            .values()
            .map(|r| ReleaseInfo {
                release: r.at.release_of(&self.name).to_string(),
                role: inner.role(r.at),
                hash: inner
                    .ledger
                    .releases
                    .get(&r.at.release)
                    .map_or_else(String::new, |release| release.digest.short()),
            })
            .collect()
    }

    /// Since the deployment under way began.
    pub fn deployment_age(&self) -> Duration {
        self.inner()
            .began
            .map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// How many requests a slot still answers.
    pub fn tickets(&self, slot: Slot) -> usize {
        self.inner()
            .slots
            .get(&slot)
            .map_or(0, |r| r.pool.tickets())
    }

    /// The log files of a release, the newest slot last; those of every release without a number.
    pub fn logs_of(&self, release: u32) -> Vec<PathBuf> {
        let folder = self.means.state.service(&self.name).join("logs");
        let prefix = format!("{release}.");
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let slot = name
                    .strip_prefix(&prefix)?
                    .strip_suffix(".log")?
                    .parse()
                    .ok()?;
                Some((slot, entry.path()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// Forget the oldest releases beyond `keep_releases`, their content and their logs.
    pub async fn prune(self: &Arc<Self>) {
        let keep = usize::try_from(self.config.keep_releases.get()).unwrap_or(usize::MAX);
        let gone = {
            let mut after = self.ledger();
            after.prune(keep)
        };
        if gone.is_empty() {
            return;
        }
        let written = self
            .change(Keep::IfWritten, |ledger| {
                ledger.prune(keep);
            })
            .await;
        if let Err(cause) = written {
            warn!(service = %self.name, %cause, "old releases are kept: cannot write the state");
            return;
        }
        let site = self.clone();
        self.tasks.spawn_blocking(move || site.sweep(&gone));
    }

    /// Remove from disk what the record no longer names.
    fn sweep(&self, gone: &[u32]) {
        let used: Vec<_> = self.ledger().releases.values().map(|r| r.digest).collect();
        if let Err(cause) = self.store.sweep(&used) {
            warn!(service = %self.name, %cause, "cannot remove old releases");
        }
        for path in gone.iter().flat_map(|number| self.logs_of(*number)) {
            let mut rotated = path.clone().into_os_string();
            rotated.push(".1");
            for path in [path, PathBuf::from(rotated)] {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                    Err(cause) => warn!(path = %path.display(), %cause, "cannot remove an old log"),
                }
            }
        }
    }

    async fn start(self: &Arc<Self>, spec: Spec, slot: Slot) -> Result<Process, Why> {
        let process = process::start(spec)
            .await
            .map_err(|cause| Why::new(Kind::NotStarted, cause.to_string()))?;
        let site = self.clone();
        let watched = process.clone();
        self.tasks.spawn(async move {
            let exit = watched.exited().await;
            // Closed only when the daemon ends.
            let _ = site.exits.send((slot, exit)).await;
        });
        Ok(process)
    }

    /// What to run for a placement at a port.
    fn spec(&self, at: Placement, port: u16) -> Result<Spec, Why> {
        let release = at.release_of(&self.name);
        let gone = || {
            Why::new(
                Kind::NoRelease,
                format!("{release}: its files are not in the store"),
            )
            .hint("deploy it again from its source")
        };
        let record = self
            .ledger()
            .releases
            .get(&at.release)
            .cloned()
            .ok_or_else(gone)?;
        let stored = self.store.get(&record.digest).ok_or_else(gone)?;
        let folder = self.means.state.service(&self.name);
        let (program, cwd) = stored
            .command(&self.config.run, &record.args, &folder.join("data"))
            .map_err(|refused| Why {
                hint: refused.hint.clone(),
                ..Why::new(Kind::NotStarted, refused.text.clone())
            })?;
        let port_text = port.to_string();
        // What is no UTF-8 is left out: it could not be told to the shim.
        let mut env: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !is_ours(name))
            .collect();
        env.extend([
            ("PORT".into(), port_text.clone()),
            ("HOST".into(), Ipv4Addr::LOCALHOST.to_string()),
            ("HOTCTL_SERVICE".into(), self.name.to_string()),
            ("HOTCTL_RELEASE".into(), release.to_string()),
        ]);
        Ok(Spec {
            program: program
                .into_iter()
                .map(|word| word.replace("{port}", &port_text))
                .collect(),
            env,
            cwd,
            log: self.log_path(at),
        })
    }

    fn log_path(&self, at: Placement) -> PathBuf {
        self.means
            .state
            .service(&self.name)
            .join("logs")
            .join(format!("{}.{}.log", at.release, at.slot.0))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock leaves values that are each whole; going on beats stopping all.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a change that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is not true either: for what leads forward.
    IfWritten,
    /// It is true all the same: for what leads back, and for what has already happened.
    Anyway,
}

impl Inner {
    fn role(&self, at: Placement) -> &'static str {
        let serving = match self.ledger.traffic() {
            Traffic::All(serving) => serving == at,
            Traffic::Shared { live, .. } => live == at,
            Traffic::NothingDeployed | Traffic::Stopped => false,
        };
        if serving {
            "live"
        } else if self.ledger.retiring.contains(&at) {
            "draining"
        } else if self.ledger.live == Some(at) {
            "warm"
        } else {
            "candidate"
        }
    }
}

/// Variables that speak to the daemon and would mislead an app that inherits them.
fn is_ours(name: &str) -> bool {
    name.starts_with("HOTCTL_")
        || name.starts_with("LISTEN_")
        || name.starts_with("WATCHDOG_")
        || matches!(
            name,
            "NOTIFY_SOCKET"
                | "INVOCATION_ID"
                | "JOURNAL_STREAM"
                | "RUNTIME_DIRECTORY"
                | "STATE_DIRECTORY"
                | "PORT"
                | "HOST"
        )
}
