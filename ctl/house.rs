//! Who lives in the daemon: every service of the configuration, well or damaged, and the tasks that
//! look after those that are well. Knows who there is; what becomes of them is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use axum::http::StatusCode;
use hotctl_config::file::Service;
use hotctl_config::names::ServiceName;
use hotctl_config::suggest::nearest;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::Fault;
use crate::history::History;
use crate::notify::Starter;
use crate::refused::Refused;
use crate::reload::Configured;
use crate::service::Order;
use crate::site::{Means, Site};
use crate::socket::Callers;
use crate::upgrade;

/// What the API shows and steers.
#[derive(Debug)]
pub struct House {
    /// Changed by a reload only.
    lodgers: RwLock<BTreeMap<ServiceName, Lodger>>,
    /// Removed from the configuration, and not ended yet.
    leaving: Mutex<BTreeSet<ServiceName>>,
    pub configured: Configured,
    pub means: Arc<Means>,
    /// Others once services are taken up again that another process was to have.
    tasks: Mutex<Tasks>,
    steering: watch::Sender<Steering>,
    /// Wishes that hotctl be replaced. One may wait while another is under way.
    pub upgrades: mpsc::Sender<upgrade::Order>,
    /// Whoever started the daemon.
    pub starter: Starter,
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub callers: Callers,
    pub since: Instant,
}

/// Who steers the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// This process.
    Ours,
    /// Nobody: another process is about to.
    Away,
    /// Another process.
    Replaced,
}

/// One service of the configuration; a cheap handle.
#[derive(Debug, Clone)]
pub enum Lodger {
    Well(Resident),
    Damaged(Arc<Damaged>),
}

/// One service and its mailbox.
#[derive(Debug, Clone)]
pub struct Resident {
    pub site: Arc<Site>,
    pub history: Arc<History>,
    /// Eight orders may lie unread; a sender waits for its place.
    pub orders: mpsc::Sender<Order>,
    /// Ends its task, and with it all that runs.
    pub stop: CancellationToken,
    /// Ends its probing.
    pub rest: CancellationToken,
}

/// A service whose state cannot be read. Nothing of it is touched: neither its files nor what may
/// still run of it.
#[derive(Debug)]
pub struct Damaged {
    pub config: Service,
    /// What is wrong, and the remedy.
    pub why: Fault,
}

/// The tasks that look after services, and how they are told to end.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// Each service's own task: it ends once nothing of the service runs any more.
    pub services: TaskTracker,
    /// Ends them, and with them what runs, as `parting` says.
    stop: CancellationToken,
    parting: Arc<OnceLock<Parting>>,
    /// Ends the probing before that: what is being stopped need not be well.
    pub rest: CancellationToken,
}

/// What becomes of the apps when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// They are ended.
    Stop,
    /// They live on, for the next daemon to adopt.
    Leave,
}

/// What the task of one service waits for.
#[derive(Debug)]
pub struct Farewell {
    /// Ends it.
    pub stop: CancellationToken,
    parting: Arc<OnceLock<Parting>>,
}

impl Farewell {
    /// Resolves when the service is to end, with what becomes of its apps. One that is alone in it
    /// has been removed.
    pub async fn said(&self) -> Parting {
        self.stop.cancelled().await;
        self.parting.get().copied().unwrap_or(Parting::Stop)
    }
}

/// What there is to say of a daemon when its house is opened.
#[derive(Debug)]
pub struct Address {
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

impl Tasks {
    /// What one service's task waits for, and what ends its probing; both end with all.
    pub fn of_one(&self) -> (Farewell, CancellationToken) {
        let farewell = Farewell {
            stop: self.stop.child_token(),
            parting: self.parting.clone(),
        };
        (farewell, self.rest.child_token())
    }

    /// End the tasks of services. What was said first counts.
    pub fn part(&self, parting: Parting) {
        let _ = self.parting.set(parting);
        self.stop.cancel();
    }
}

impl House {
    /// A house in which these live.
    pub fn new(
        lodgers: BTreeMap<ServiceName, Lodger>,
        address: Address,
        callers: Callers,
        configured: Configured,
        means: Arc<Means>,
        tasks: Tasks,
        upgrades: mpsc::Sender<upgrade::Order>,
    ) -> Self {
        Self {
            lodgers: RwLock::new(lodgers),
            leaving: Mutex::default(),
            configured,
            means,
            tasks: Mutex::new(tasks),
            steering: watch::Sender::new(Steering::Ours),
            upgrades,
            starter: Starter::default(),
            listen: address.listen,
            admin: address.admin,
            callers,
            since: Instant::now(),
        }
    }

    /// The tasks that look after services now.
    pub fn tasks(&self) -> Tasks {
        let tasks = self.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New ones, after the others were told to end.
    pub fn renew_tasks(&self) -> Tasks {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        *tasks = Tasks::default();
        tasks.clone()
    }

    /// Who steers from now on.
    pub fn steer(&self, who: Steering) {
        self.steering.send_replace(who);
    }

    /// Whether another process steers.
    pub fn is_replaced(&self) -> bool {
        *self.steering.borrow() == Steering::Replaced
    }

    /// Resolves when another process steers.
    pub async fn replaced(&self) {
        let mut steering = self.steering.subscribe();
        // An error would be its sender gone, with us.
        let _ = steering.wait_for(|who| *who == Steering::Replaced).await;
    }

    /// Who steers, once that is settled.
    pub async fn steering(&self) -> Steering {
        let mut steering = self.steering.subscribe();
        let settled = steering.wait_for(|who| *who != Steering::Away).await;
        settled.map_or(Steering::Replaced, |who| *who)
    }

    /// Stop steering: what runs lives on, what is under way stays as it is recorded, and nothing is
    /// written any more.
    pub async fn let_go(&self) {
        self.steer(Steering::Away);
        let tasks = self.tasks();
        tasks.rest.cancel();
        tasks.part(Parting::Leave);
        tasks.services.close();
        tasks.services.wait().await;
        self.means.journal.flush().await;
    }

    /// Somebody comes.
    pub fn let_in(&self, name: &ServiceName, lodger: Lodger) {
        let lodgers = self.lodgers.write();
        lodgers
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), lodger);
    }

    /// Somebody of whom nothing runs is not there any more.
    pub fn forget(&self, name: &ServiceName) {
        let lodgers = self.lodgers.write();
        lodgers.unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Somebody is not there any more, and is being ended.
    pub fn leaves(&self, name: &ServiceName) {
        self.leaving().insert(name.clone());
        self.forget(name);
    }

    /// Nothing of it runs any more.
    pub fn has_left(&self, name: &ServiceName) {
        self.leaving().remove(name);
    }

    /// Whether somebody of that name is still being ended.
    pub fn is_leaving(&self, name: &ServiceName) -> bool {
        self.leaving().contains(name)
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeSet<ServiceName>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody, by name.
    pub fn lodgers(&self) -> BTreeMap<ServiceName, Lodger> {
        let lodgers = self.lodgers.read();
        lodgers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those who are well, by name.
    pub fn residents(&self) -> Vec<Resident> {
        let well = |lodger| match lodger {
            Lodger::Well(resident) => Some(resident),
            Lodger::Damaged(_) => None,
        };
        self.lodgers().into_values().filter_map(well).collect()
    }

    /// The service of that name, to be asked or steered.
    ///
    /// # Errors
    /// If there is none, or its state is damaged.
    pub fn resident(&self, name: &ServiceName) -> Result<Resident, Refused> {
        let lodgers = self.lodgers.read().unwrap_or_else(PoisonError::into_inner);
        match lodgers.get(name) {
            Some(Lodger::Well(resident)) => Ok(resident.clone()),
            Some(Lodger::Damaged(damaged)) => {
                let mut why = damaged.why.clone();
                why.text = format!("{name}: {}", why.text);
                Err(Refused::of(StatusCode::SERVICE_UNAVAILABLE, why))
            }
            None => Err(unknown(name, &lodgers)),
        }
    }

    /// See that there is a service of that name, well or damaged.
    ///
    /// # Errors
    /// If there is none.
    pub fn knows(&self, name: &ServiceName) -> Result<(), Refused> {
        let lodgers = self.lodgers();
        match lodgers.contains_key(name) {
            true => Ok(()),
            false => Err(unknown(name, &lodgers)),
        }
    }
}

fn unknown(name: &ServiceName, lodgers: &BTreeMap<ServiceName, Lodger>) -> Refused {
    let names: Vec<&str> = lodgers.keys().map(ServiceName::as_str).collect();
    let meant = nearest(name.as_str(), &names)
        .map(|meant| format!("; did you mean {meant}?"))
        .unwrap_or_default();
    Refused::new(
        StatusCode::NOT_FOUND,
        format!("no service named {name}{meant}"),
    )
    .hint(format!("one of: {}", names.join(", ")))
}
