//! What runs in a slot: the instances of one release, each at its place, and their pool. Starts and
//! ends them; when that is due is decided elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotctl_config::{Address, Slot};
use hotctl_deploy::machine::Placement;
use hotctl_deploy::process::{self, Exit, Process, Spec};
use hotctl_deploy::restart::Backoff;
use hotctl_deploy::why::{Kind, Why};
use hotctl_proxy::{Open, Pool, Standing};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::named::PortMap;
use super::place::Place;
use super::retire::Drain;
use super::view::Shown;
use super::{Ended, Site};
use crate::failpoint;

/// What runs in a slot.
#[derive(Debug)]
pub(super) struct Running {
    pub at: Placement,
    pub pool: Pool,
    /// As many as the configuration says, by their number; never empty.
    pub instances: Vec<Instance>,
    pub drain: Option<Drain>,
    /// What runs beside it since it went live; ends with its traffic.
    pub beside: Option<AbortOnDropHandle<()>>,
    /// How often an instance died, or had to be replaced, since the release went live.
    pub losses: u32,
    /// Processes that are being started again in this moment, and have no place yet.
    pub starts: TaskTracker,
}

/// One process of a release, at its place.
#[derive(Debug)]
pub(super) struct Instance {
    pub place: Place,
    pub process: Process,
    /// What it was started as; probes by command run in the same environment.
    pub spec: Spec,
    pub state: State,
    pub since: Instant,
    /// Since when it has served; none as long as it has not proved itself.
    pub up: Option<Instant>,
    pub health: Health,
    pub backoff: Backoff,
    pub restarts: u32,
}

/// How an instance stands, as it is steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was started, and has not proved itself yet.
    Starting,
    /// It serves, or could.
    Up,
    /// It is being ended to be started again: it was not healthy.
    Replacing,
    /// It ended by itself.
    Dead,
    /// It ended, and is started again after a pause.
    Resting,
    /// It is being ended with its slot.
    Ending,
}

impl State {
    /// Whether there is a process, and nobody means to end it.
    fn is_whole(self) -> bool {
        matches!(self, Self::Starting | Self::Up)
    }

    /// Whether another process is to take its place.
    pub fn is_due(self) -> bool {
        matches!(self, Self::Replacing | Self::Resting)
    }
}

/// What the last probe said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub text: String,
    pub misses: u32,
    /// Whether the last probe got no answer at all.
    pub silent: bool,
}

impl Health {
    pub fn good() -> Self {
        Self::because("healthy")
    }

    /// Not probed, for this reason.
    pub fn because(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            misses: 0,
            silent: false,
        }
    }
}

/// A release that was started.
#[derive(Debug, Clone)]
pub struct Launched {
    /// By their number; never empty.
    pub instances: Vec<Started>,
}

/// One instance that was started.
#[derive(Debug, Clone)]
pub struct Started {
    pub process: Process,
    pub address: Address,
    /// Its further ports.
    pub ports: PortMap,
    pub spec: Spec,
}

impl Launched {
    /// The first instance; the only one, as a rule.
    pub fn first(&self) -> Option<&Started> {
        self.instances.first()
    }

    /// The logs of all instances.
    pub fn logs(&self) -> Vec<PathBuf> {
        let specs = self.instances.iter().map(|started| &started.spec);
        specs.map(|spec| spec.log.clone()).collect()
    }
}

impl Site {
    /// Run a release in a slot, all its instances at fresh places. Nothing is sent there by this.
    ///
    /// # Errors
    /// Why it does not run; nothing of it is left then.
    pub async fn launch(self: &Arc<Self>, at: Placement) -> Result<Launched, Why> {
        let site = self.clone();
        let linked = tokio::task::spawn_blocking(move || site.persist(at)).await;
        linked.unwrap_or_else(|join| Err(Why::new(Kind::NotStarted, join.to_string())))?;
        let count = usize::try_from(self.config().instances.get()).unwrap_or(usize::MAX);
        let places = (0..count)
            .map(|instance| {
                let run = self.socket_folder();
                Place::take(
                    self.config().address_kind(),
                    &self.config().ports,
                    &self.means.ports,
                    &run,
                    at.slot,
                    instance,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let starts = places
            .iter()
            .enumerate()
            .map(|(instance, place)| async move {
                let spec = self.spec(at, instance, place)?;
                failpoint::pass("before-exec");
                let process = start(spec.clone()).await;
                let process = process.map_err(|why| self.as_edited(at, why))?;
                failpoint::pass("after-exec");
                Ok::<_, Why>((process, spec))
            });
        let mut started = Vec::with_capacity(count);
        let mut failed = None;
        for start in join_all(starts).await {
            match start {
                Ok(one) => started.push(one),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        if let Some(why) = failed {
            let stops = started.iter();
            join_all(stops.map(|(process, _)| process.stop(Duration::ZERO))).await;
            return Err(why);
        }
        let instances: Vec<Instance> = places
            .into_iter()
            .zip(started)
            .map(|(place, (process, spec))| Instance::starting(place, process, spec))
            .collect();
        // Only now, so that a start that is given up leaves nobody who holds its processes.
        let launched = self.move_in(at, instances);
        launched.ok_or_else(|| Why::new(Kind::NotStarted, "no instance to start"))
    }

    /// Let these be what runs in a slot, and hear of their ends. Nothing where there is none.
    pub(super) fn move_in(
        self: &Arc<Self>,
        at: Placement,
        instances: Vec<Instance>,
    ) -> Option<Launched> {
        let mut addresses = instances.iter().map(|one| one.place.address().clone());
        let first = addresses.next()?;
        let more: Vec<Address> = addresses.collect();
        let release = at.release_of(&self.name);
        self.means.traffic.release_begins(&release);
        let pool = Pool::new(release, at.slot, first, &more, self.means.shards);
        // Where nobody serves yet, none is better than another.
        let some_serve = instances.iter().any(|one| one.state == State::Up);
        for (n, one) in instances.iter().enumerate() {
            if some_serve && one.state != State::Up {
                pool.set(n, Standing::Down);
            }
        }
        let running = Running {
            at,
            pool,
            instances,
            drain: None,
            beside: None,
            losses: 0,
            starts: TaskTracker::new(),
        };
        let launched = running.launched();
        let lives: Vec<bool> = running
            .instances
            .iter()
            .map(|one| one.state != State::Dead)
            .collect();
        self.inner().slots.insert(at.slot, running);
        for (n, (one, lives)) in launched.instances.iter().zip(lives).enumerate() {
            if lives {
                self.watch(at.slot, n, one.process.clone());
            }
        }
        Some(launched)
    }

    /// What runs in a slot, if all of it does.
    pub fn launched(&self, at: Placement) -> Option<Launched> {
        let inner = self.inner();
        let running = inner.slots.get(&at.slot).filter(|r| r.at == at)?;
        let whole = running.instances.iter().all(|one| one.state.is_whole());
        whole.then(|| running.launched())
    }

    /// Whether a placement has a slot: it runs, or is being started again.
    pub fn runs(&self, at: Placement) -> bool {
        self.inner().slots.get(&at.slot).is_some_and(|r| r.at == at)
    }

    /// What a slot still answers, by kind.
    pub fn in_flight(&self, slot: Slot) -> Open {
        self.pool(slot)
            .map_or_else(Open::default, |pool| pool.open())
    }

    /// Let something run beside a release, as long as that has traffic.
    pub fn beside(&self, slot: Slot, work: impl Future<Output = ()> + Send + 'static) {
        let mut inner = self.inner();
        if let Some(running) = inner.slots.get_mut(&slot) {
            running.beside = Some(AbortOnDropHandle::new(self.spawn(work)));
        }
    }

    /// The instances of a slot that have ended by themselves.
    pub fn dead(&self, slot: Slot) -> Vec<Ended> {
        let inner = self.inner();
        let instances = inner.slots.get(&slot).map(|r| &r.instances);
        let all = instances.into_iter().flatten().enumerate();
        all.filter(|(_, one)| one.state == State::Dead)
            .filter_map(|(instance, one)| {
                Some(Ended {
                    slot,
                    instance,
                    pid: one.process.pid(),
                    exit: one.process.exit()?,
                })
            })
            .collect()
    }

    /// Whether an instance of a slot serves, or could.
    pub fn is_up(&self, slot: Slot) -> bool {
        self.inner().slots.get(&slot).is_some_and(Running::is_up)
    }

    /// Whether an instance serves, or could, and its probes succeed.
    pub fn is_well(&self, slot: Slot) -> bool {
        let fall = self.config().health.fall;
        let inner = self.inner();
        let well = |one: &Instance| one.state == State::Up && one.health.misses < fall;
        let running = inner.slots.get(&slot);
        running.is_some_and(|running| running.instances.iter().any(well))
    }

    /// Who runs in a slot.
    pub(super) fn at(&self, slot: Slot) -> Option<Placement> {
        self.inner().slots.get(&slot).map(|r| r.at)
    }

    /// The pool of a slot.
    pub fn pool(&self, slot: Slot) -> Option<Pool> {
        self.inner().slots.get(&slot).map(|r| r.pool.clone())
    }

    /// The process of an instance has proved itself. Whether that still counts: not where it has
    /// ended since.
    pub fn proved(&self, slot: Slot, instance: usize, process: &Process) -> bool {
        let counts = {
            let mut inner = self.inner();
            let Some(running) = inner.slots.get_mut(&slot) else {
                return false;
            };
            let Some(one) = running.instances.get_mut(instance) else {
                return false;
            };
            let counts = one.process.is(process) && one.state.is_whole();
            if counts {
                one.state = State::Up;
                one.up = Some(Instant::now());
                one.health = Health::good();
                running.pool.set(instance, Standing::Up);
            }
            counts
        };
        if counts {
            self.look_again(slot);
        }
        counts
    }

    /// End what runs in a slot at once and forget it: a start that is tried again elsewhere.
    pub async fn discard(&self, slot: Slot) {
        let running = self.inner().slots.remove(&slot);
        if let Some(running) = running {
            running.stop(Duration::ZERO).await;
        }
    }

    /// Whether somebody else took a port of this slot between our look and the app's.
    pub fn lost_a_port(&self, slot: Slot) -> bool {
        let inner = self.inner();
        let running = inner.slots.get(&slot);
        running.is_some_and(|r| r.instances.iter().any(|one| one.place.is_taken()))
    }

    /// See to it that the end of a process is heard of.
    pub(super) fn watch(self: &Arc<Self>, slot: Slot, instance: usize, process: Process) {
        let site = self.clone();
        self.spawn(async move {
            let exit = process.exited().await;
            site.hear_end(slot, instance, exit, &process).await;
        });
    }

    async fn hear_end(&self, slot: Slot, instance: usize, exit: Exit, process: &Process) {
        let ended = Ended {
            slot,
            instance,
            pid: process.pid(),
            exit,
        };
        if self.note_end(&ended, process) {
            // Closed only when the daemon ends.
            let _ = self.exits.send(ended).await;
        }
    }

    /// Take note that a process has ended. Whether anybody needs to decide what follows: not where
    /// it was ended on purpose, was another one's predecessor, or is known already.
    fn note_end(&self, ended: &Ended, process: &Process) -> bool {
        let mut inner = self.inner();
        let running = inner.slots.get_mut(&ended.slot);
        let Some(running) = running else { return false };
        let Some(one) = running.instances.get_mut(ended.instance) else {
            return false;
        };
        if !one.process.is(process) || !one.state.is_whole() {
            return false;
        }
        one.state = State::Dead;
        one.health = Health::because(format!("exited: {}", ended.exit));
        running.losses = running.losses.saturating_add(1);
        running.pool.set(ended.instance, Standing::Down);
        drop(inner);
        // Whoever would go there waits from now on, if nobody else is left.
        self.look_again(ended.slot);
        self.stirred.notify_waiters();
        true
    }
}

impl Instance {
    /// One that was just started, and has not proved itself.
    pub fn starting(place: Place, process: Process, spec: Spec) -> Self {
        Self {
            place,
            process,
            spec,
            state: State::Starting,
            since: Instant::now(),
            up: None,
            health: Health::because("starting"),
            backoff: Backoff::default(),
            restarts: 0,
        }
    }

    /// How it stands, as it is shown; unhealthy from `fall` failed probes in a row on.
    pub fn standing(&self, fall: u32) -> Shown {
        match self.state {
            State::Starting | State::Dead | State::Resting if self.backoff.is_looping() => {
                Shown::Failed
            }
            State::Starting => Shown::Starting,
            State::Up if self.health.misses >= fall => Shown::Unhealthy,
            State::Up => Shown::Up,
            State::Replacing | State::Ending => Shown::Replacing,
            State::Dead | State::Resting => Shown::Dead,
        }
    }
}

impl Running {
    /// What is known of its instances to those who prove them.
    pub fn launched(&self) -> Launched {
        let started = |one: &Instance| Started {
            process: one.process.clone(),
            address: one.place.address().clone(),
            ports: one.place.named().ports(),
            spec: one.spec.clone(),
        };
        Launched {
            instances: self.instances.iter().map(started).collect(),
        }
    }

    /// End all processes, side by side, with all that they started. Whether something was killed.
    pub async fn stop(&self, grace: Duration) -> Vec<process::Stopped> {
        let stops = self.instances.iter().map(|one| one.process.stop(grace));
        join_all(stops).await
    }

    /// Whether an instance serves, or could.
    pub fn is_up(&self) -> bool {
        self.instances.iter().any(|one| one.state == State::Up)
    }

    /// How the first instance that ended did so, if one has.
    pub fn last_exit(&self) -> Option<Exit> {
        let is_dead = |one: &&Instance| matches!(one.state, State::Dead | State::Resting);
        let dead = self.instances.iter().find(is_dead)?;
        dead.process.exit()
    }
}

/// Start a process. If the future is dropped, nothing stays behind.
pub(super) async fn start(spec: Spec) -> Result<Process, Why> {
    process::start(spec).await.map_err(|cause| Why {
        hint: cause.hint().map(Into::into),
        ..Why::new(Kind::NotStarted, cause.to_string())
    })
}
