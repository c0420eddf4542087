//! One service on this machine: its record, its store, and what runs in its slots. Everything that
//! touches processes, ports or traffic of a service goes through here; what is to be done, and
//! when, is decided by the driver and the service's task.

mod adopt;
mod build;
mod earlier;
mod level;
mod named;
mod net;
mod owner;
mod place;
mod renew;
mod replace;
mod retire;
mod slot;
mod spec;
mod tend;
mod traffic;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hotctl_config::file::Service;
use hotctl_config::names::{ServiceName, Slot};
use hotctl_deploy::fingerprint::Key;
use hotctl_deploy::ledger::Ledger;
use hotctl_deploy::machine::{Deployment, Phase};
use hotctl_deploy::ports::Ports;
use hotctl_deploy::process::Exit;
use hotctl_deploy::release::Store;
use hotctl_proxy::Switch;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::api::{BuildStatus, Noted};
use crate::fault::Fault;
use crate::journal::Journal;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::places;
use crate::store::StateFolder;
use crate::upgrade::Serving;
use slot::{Instance, Running};

pub use build::Touched;
pub use level::LevelStays;
pub use renew::Renewal;
pub use retire::Drained;
pub use slot::{Launched, Started};
pub use tend::Loss;
pub use view::{Shown, SlotView};

/// What the services share; handed in by the daemon.
#[derive(Debug)]
pub struct Means {
    pub switch: Arc<Switch>,
    pub traffic: Arc<hotctl_proxy::Metrics>,
    pub metrics: Arc<Metrics>,
    pub journal: Journal,
    pub log: Log,
    pub ports: Ports,
    pub state: StateFolder,
    /// Where apps get a cgroup each; `None` where the system gives us none to divide.
    pub cgroups: Option<PathBuf>,
    /// Whether the hotctl that was replaced still finishes requests, on releases that are live.
    pub predecessor: watch::Sender<bool>,
    /// Who gets requests, as long as it does: what it still has follows.
    pub serving: watch::Sender<BTreeMap<ServiceName, Serving>>,
    /// For what it runs.
    pub manner: Manner,
    /// How many shards the switch has; pools are made alike.
    pub shards: NonZeroUsize,
}

/// For what a daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// To serve: apps outlive it, and what an operator went back to stays.
    Serve,
    /// For whoever edits: apps end with it, and what is there is what is live.
    Dev,
}

impl Manner {
    /// Whether what is there at the start is deployed, also if it was before.
    pub fn always_newest(self) -> bool {
        self == Self::Dev
    }

    /// Whether somebody is told each event as it comes, and need not read the same in the log.
    pub fn tells_events(self) -> bool {
        self == Self::Dev
    }
}

/// One service on this machine.
#[derive(Debug)]
pub struct Site {
    pub name: ServiceName,
    /// What the configuration says of it now; a reload replaces it.
    config: Mutex<Arc<Service>>,
    pub store: Store,
    pub means: Arc<Means>,
    inner: Mutex<Inner>,
    /// One change of the record at a time, so that what is written last is what is true last.
    writing: tokio::sync::Mutex<()>,
    /// Processes that ended. Its reader is the service's task; sixteen may wait for it, further
    /// ones hold up only the tiny tasks that watch a process.
    exits: mpsc::Sender<Ended>,
    /// Whether something is true that is not written.
    unwritten: AtomicBool,
    /// The slot whose processes should be replaced by fresh ones, and why. Its reader is the service's
    /// task, which looks whether that is still so; what was said before counts no more.
    renewal: watch::Sender<Option<(Slot, Renewal)>>,
    /// What became of the last build; nothing before the first.
    build: Mutex<Option<BuildStatus>>,
    /// Somebody wants another one.
    build_again: Notify,
    /// What of the sources has changed since the last flip.
    touched: Mutex<Touched>,
    /// Woken after each round of probes, when a process ends, and when the record is another.
    stirred: Notify,
    /// What fingerprints of the environment are made with.
    key: Key,
    /// Drains, retirements and watchers; none outlives the daemon's end.
    tasks: TaskTracker,
    /// Ends them, where another process goes on.
    left: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    slots: BTreeMap<Slot, Running>,
    /// Retirements that still wait for answers, oldest first: wake one to cut it short.
    draining: VecDeque<(Slot, Arc<Notify>)>,
    began: Option<Instant>,
    /// When the hold of the deployment under way ends.
    hold_until: Option<Instant>,
}

impl Inner {
    /// One instance of what runs in a slot.
    fn instance(&mut self, slot: Slot, instance: usize) -> Option<&mut Instance> {
        self.slots.get_mut(&slot)?.instances.get_mut(instance)
    }
}

fn make_folders(folder: &Path) -> io::Result<()> {
    let mut parts = ["logs", "data", "run", "sock"].iter();
    parts.try_for_each(|part| std::fs::create_dir_all(folder.join(part)))
}

/// A process has ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub slot: Slot,
    pub instance: usize,
    /// Its number; 0 if it could not be started.
    pub pid: u32,
    pub exit: Exit,
}

impl Site {
    /// Open the service's folder and read its record. Nothing of it is taken up yet, see
    /// [`Site::adopt`].
    ///
    /// # Errors
    /// If record or store cannot be read.
    pub fn open(
        name: &ServiceName,
        config: &Service,
        means: &Arc<Means>,
        exits: mpsc::Sender<Ended>,
    ) -> Result<Arc<Self>, Fault> {
        let folder = means.state.service(name);
        let (ledger, restored) = means.state.take_up(name)?;
        if let Some(text) = restored {
            means
                .journal
                .note(Some(name), Noted::StateRestored { text });
        }
        let fault =
            |cause: io::Error| Fault::config(format!("state {}: {cause}", folder.display()));
        make_folders(&folder).map_err(fault)?;
        let key = Key::open(&folder.join("key")).map_err(fault)?;
        let store = Store::open(folder.join("releases")).map_err(fault)?;
        means.metrics.prepare(name);
        means.traffic.prepare(name);
        Ok(Arc::new(Self {
            name: name.clone(),
            config: Mutex::new(Arc::new(config.clone())),
            store,
            means: means.clone(),
            inner: Mutex::new(Inner {
                ledger,
                slots: BTreeMap::new(),
                draining: VecDeque::new(),
                began: None,
                hold_until: None,
            }),
            writing: tokio::sync::Mutex::new(()),
            unwritten: AtomicBool::new(false),
            exits,
            renewal: watch::Sender::new(None),
            build: Mutex::default(),
            build_again: Notify::new(),
            touched: Mutex::default(),
            stirred: Notify::new(),
            key,
            tasks: TaskTracker::new(),
            left: CancellationToken::new(),
        }))
    }

    /// See that its folders are there: somebody may have removed them while hotctl runs.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn make_folders(&self) -> io::Result<()> {
        let folder = self.means.state.service(&self.name);
        if folder.join("releases").exists() {
            return Ok(());
        }
        places::may_be_made(&folder)?;
        // As private as it was.
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(self.means.state.root())?;
        make_folders(&folder)?;
        std::fs::create_dir_all(folder.join("releases"))
    }

    /// What the configuration says of it now.
    pub fn config(&self) -> Arc<Service> {
        let config = self.config.lock();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration says something else of it from now on.
    pub fn configure(&self, config: Service) {
        {
            let mut now = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            *now = Arc::new(config);
        }
        // What waits does so within other bounds, and whoever acts by it looks again.
        self.publish();
    }

    /// Something has happened to it since this was called: a round of probes, the end of a process,
    /// another configuration, another record.
    pub fn stirred(&self) -> Notified<'_> {
        self.stirred.notified()
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
        // Tracked: where another process goes on, what is being written now is what it reads.
        let written = self
            .tasks
            .spawn_blocking(move || site.means.state.save(&next))
            .await
            .unwrap_or_else(|join| Err(io::Error::other(join)));
        if written.is_err() {
            self.means.metrics.write_errors().inc();
        }
        // What is true all the same is written as soon as that can be.
        let lacks = written.is_err() && keep == Keep::Anyway;
        if written.is_ok() || lacks {
            self.unwritten.store(lacks, Ordering::Relaxed);
        }
        if written.is_ok() || keep == Keep::Anyway {
            change(&mut self.inner().ledger);
        }
        self.stirred.notify_waiters();
        written
    }

    /// Write what could not be written when it became true, if there is such a thing.
    pub async fn write_again(self: &Arc<Self>) {
        if self.unwritten.load(Ordering::Relaxed) && self.change(Keep::Anyway, |_| {}).await.is_ok()
        {
            info!(service = %self.name, "what could not be recorded is");
        }
    }

    /// Write down where a deployment stands.
    ///
    /// # Errors
    /// If it could not be written; what leads forward is then not true, what leads back is.
    pub async fn record(self: &Arc<Self>, deployment: &Deployment) -> io::Result<()> {
        let keep = match deployment.phase {
            // It began with the end of what was live.
            Phase::Starting if deployment.replaced().is_some() => Keep::IfWritten,
            Phase::Stopping | Phase::Starting => {
                self.means.metrics.deployment_begins(&self.name);
                let mut inner = self.inner();
                inner.began = Some(Instant::now());
                inner.hold_until = None;
                Keep::IfWritten
            }
            Phase::Step(_) => Keep::IfWritten,
            Phase::Reverting(_) | Phase::Done | Phase::Failed(_) => Keep::Anyway,
        };
        if self.inner().ledger.deployment.as_ref() == Some(deployment) {
            // It goes on where the last daemon ended: that is what is written.
            return Ok(());
        }
        self.change(keep, |ledger| ledger.record(deployment)).await
    }

    /// Let something run that belongs to the service, until another process goes on with it.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let left = self.left.clone();
        self.tasks.spawn(async move {
            let _ = left.run_until_cancelled_owned(work).await;
        })
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
