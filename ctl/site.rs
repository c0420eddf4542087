//! One service on this machine: its record, its store, and what runs in its slots. Everything that
//! touches processes, ports or traffic of a service goes through here; what is to be done, and
//! when, is decided by the driver and the service's task.

mod retire;
mod tend;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotctl_config::file::{HealthKind, Service};
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
use tracing::error;

use crate::fault::Fault;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::store::StateFolder;

pub use retire::Drained;

/// What the services share; handed in by the daemon.
#[derive(Debug)]
pub struct Means {
    pub switch: Arc<Switch>,
    pub traffic: Arc<hotctl_proxy::Metrics>,
    pub metrics: Arc<Metrics>,
    pub journal: Journal,
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
    /// What it was started with.
    spec: Spec,
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
    /// What it was started with.
    pub spec: Spec,
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
        means.traffic.prepare(name);
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
        let release = at.release_of(&self.name);
        self.means.traffic.release_begins(&release);
        let process = self.start(spec.clone(), at.slot).await?;
        let running = Running {
            at,
            address,
            pool: Pool::new(
                at.release_of(&self.name),
                at.slot,
                address.into(),
                &[],
                self.means.shards,
            ),
            _lease: lease,
            process: process.clone(),
            spec: spec.clone(),
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
            spec,
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
            spec: running.spec.clone(),
        })
    }

    /// Whether a placement has a slot: it runs, or is being started again.
    pub fn runs(&self, at: Placement) -> bool {
        self.inner().slots.get(&at.slot).is_some_and(|r| r.at == at)
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
        let split = split.unwrap_or_else(|| {
            // Only where it could not be started when the daemon was.
            error!(service = %self.name, ?traffic, "what should serve does not run");
            Split::Closed(Closed::NotRunning)
        });
        if let Err(unknown) = self.means.switch.split(&self.name, split) {
            error!(service = %self.name, %unknown, "the routes do not know this service");
        }
    }

    async fn start(self: &Arc<Self>, spec: Spec, slot: Slot) -> Result<Process, Why> {
        let process = process::start(spec).await.map_err(|cause| Why {
            hint: cause.hint().map(Into::into),
            ..Why::new(Kind::NotStarted, cause.to_string())
        })?;
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
            log_size: self.config.logs.file_size,
            listener: None,
            notify: match self.config.health.kind {
                HealthKind::Notify => process::Notify::Yes,
                _ => process::Notify::No,
            },
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
