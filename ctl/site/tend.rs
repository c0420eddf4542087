//! What runs is looked after: probed as long as it serves or may serve again, and an instance that
//! died, or is not healthy beside others that are, is started again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotctl_config::Slot;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::probe;
use hotctl_deploy::process::{Exit, Process};
use hotctl_deploy::restart::{Death, Loop};
use hotctl_proxy::Standing;
use tracing::{error, info, warn};

use super::slot::{Health, Instance, Started, State, start};
use super::{Ended, Site};
use crate::api::Noted;

/// Why an instance is started again; the `reason` label of `hotctl_process_restarts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It ended by itself.
    Exited,
    /// `fall` probes in a row failed.
    Unhealthy,
    /// `max_failures` requests in a row failed.
    RequestsFailed,
}

impl Loss {
    /// Every reason, so that a series can exist before its first event.
    pub const ALL: [Self; 3] = [Self::Exited, Self::Unhealthy, Self::RequestsFailed];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Unhealthy => "unhealthy",
            Self::RequestsFailed => "requests_failed",
        }
    }
}

impl Site {
    /// A process ended by itself: start it again in its place, after a pause that grows with each
    /// early death. Where it was the only one, requests are parked meanwhile. Whether that is a crash
    /// loop.
    pub fn revive(self: &Arc<Self>, ended: &Ended) -> Loop {
        let limits = self.config().crash_loop.clone();
        let (at, lost, again, deaths) = {
            let mut inner = self.inner();
            let Some(running) = inner.slots.get_mut(&ended.slot) else {
                return Loop::No;
            };
            let at = running.at;
            let Some(one) = running.instances.get_mut(ended.instance) else {
                return Loop::No;
            };
            if one.state != State::Dead {
                return Loop::No;
            }
            one.state = State::Resting;
            let death = Death {
                at: Instant::now(),
                served: one.up.take().map_or(Duration::ZERO, |up| up.elapsed()),
                jitter: fastrand::f64(),
            };
            let again = one.backoff.died(death, &limits);
            (at, one.process.clone(), again, one.backoff.deaths())
        };
        let release = at.release_of(&self.name);
        warn!(%release, instance = ended.instance, exit = %ended.exit, pause = ?again.pause,
            "a serving process ended by itself: starting it again");
        self.note_exit(at, ended);
        if again.crash_loop == Loop::Begins {
            if !self.means.manner.tells_events() {
                error!(%release, instance = ended.instance, deaths,
                    "a serving process ends again and again: it counts as failed, and is tried every 30 s");
            }
            self.means.metrics.crash_loop(&self.name);
            self.journal(Noted::CrashLoop {
                release,
                slot: at.slot,
                instance: ended.instance,
                deaths,
                exit: ended.exit.to_string(),
            });
            // Nobody is to wait for it.
            self.look_again(at.slot);
        }
        let (site, slot, instance) = (self.clone(), ended.slot, ended.instance);
        self.spawn(async move {
            tokio::time::sleep(again.pause).await;
            site.renew(slot, instance, &lost, Loss::Exited).await;
        });
        again.crash_loop
    }

    /// Let the journal know that a process ended by itself.
    pub fn note_exit(&self, at: Placement, ended: &Ended) {
        self.journal(Noted::InstanceExited {
            release: at.release_of(&self.name),
            slot: at.slot,
            instance: ended.instance,
            pid: ended.pid,
            exit: ended.exit.to_string(),
        });
    }

    /// Let the journal know.
    pub fn journal(&self, noted: Noted) {
        self.means.journal.note(Some(&self.name), noted);
    }

    /// An instance that is not well leaves the pool and is started again, if another is well. Says
    /// whether it is.
    fn replace(self: &Arc<Self>, slot: Slot, instance: usize, loss: Loss) -> bool {
        let process = {
            let mut inner = self.inner();
            let fall = self.config().health.fall;
            let Some(running) = inner.slots.get_mut(&slot) else {
                return false;
            };
            let others = running.instances.iter().enumerate().any(|(n, one)| {
                n != instance && one.state == State::Up && one.health.misses < fall
            });
            let Some(one) = running.instances.get_mut(instance) else {
                return false;
            };
            if !others || one.state != State::Up {
                return false;
            }
            one.state = State::Replacing;
            running.losses = running.losses.saturating_add(1);
            running.pool.set(instance, Standing::Down);
            one.process.clone()
        };
        self.stirred.notify_waiters();
        warn!(service = %self.name, %slot, instance, reason = loss.label(),
            "an instance is not well: it leaves the pool and is started again");
        let site = self.clone();
        self.spawn(async move {
            process.stop(site.config().stop_timeout).await;
            site.renew(slot, instance, &process, loss).await;
        });
        true
    }

    /// Start an instance again at its place, instead of the process that it has lost, prove it, and
    /// let it serve. Nothing where it is to have no other, or has one already: each process has one
    /// that follows it.
    async fn renew(self: Arc<Self>, slot: Slot, instance: usize, lost: &Process, loss: Loss) {
        let is_due = |one: &&mut Instance| one.process.is(lost) && one.state.is_due();
        let (at, address, mut place, start_ends) = {
            let mut inner = self.inner();
            let Some(running) = inner.slots.get_mut(&slot) else {
                return;
            };
            let start_ends = running.starts.token();
            let at = running.at;
            let Some(one) = running.instances.get_mut(instance).filter(is_due) else {
                return;
            };
            if let Err(cause) = one.place.clear() {
                warn!(service = %self.name, %slot, instance, %cause, "a socket cannot be removed");
            }
            let address = one.place.address().clone();
            (at, address, one.place.again(), start_ends)
        };
        // Its ports stay what they were; others may be named since.
        let named = place
            .named()
            .with(&self.config().ports, &self.means.ports)
            .map(|named| place.give(named));
        let spec = named.and_then(|()| self.spec(at, instance, &place));
        let started = match spec {
            Ok(spec) => {
                let start = start(spec.clone()).await;
                start.map(|process| (process, spec))
            }
            Err(why) => Err(why),
        };
        let (process, spec) = match started {
            Ok(started) => started,
            Err(why) => {
                let release = at.release_of(&self.name);
                error!(%release, instance, %why, "cannot start a serving process again");
                {
                    let mut inner = self.inner();
                    let Some(one) = inner.instance(slot, instance).filter(is_due) else {
                        return;
                    };
                    one.state = State::Dead;
                    one.health = Health::because(why.to_string());
                }
                drop(start_ends);
                // As if it had died at once: the service's task asks for the next try.
                let ended = Ended {
                    slot,
                    instance,
                    pid: 0,
                    exit: Exit::NotStarted(why.text),
                };
                let again = self.exits.send(ended).await;
                drop(again);
                return;
            }
        };
        let started = {
            let mut inner = self.inner();
            inner.instance(slot, instance).filter(is_due).map(|one| {
                one.process = process.clone();
                one.place.give(place.named().clone());
                one.spec = spec.clone();
                one.state = State::Starting;
                one.since = Instant::now();
                one.up = None;
                one.restarts += 1;
                one.health = Health::because("starting");
                Started {
                    process: process.clone(),
                    address,
                    ports: place.named().ports(),
                    spec,
                }
            })
        };
        let Some(started) = started else {
            process.stop(Duration::ZERO).await;
            return;
        };
        drop(start_ends);
        self.watch(slot, instance, started.process.clone());
        self.means.metrics.restarted(&self.name, loss);
        self.let_serve(slot, instance, &started).await;
    }

    /// An instance of what is live was started with the daemon: prove it, in the background.
    pub fn bring_up(self: &Arc<Self>, slot: Slot, instance: usize, started: Started) {
        let site = self.clone();
        self.spawn(async move { site.let_serve(slot, instance, &started).await });
    }

    /// Prove an instance that was started again, and let it back into the pool.
    pub(super) async fn let_serve(&self, slot: Slot, instance: usize, started: &Started) {
        let proved = probe::prove(
            &started.process,
            &started.address,
            &started.spec,
            &self.health(&started.address, &started.ports),
            self.config().start_timeout,
            |_| {},
        )
        .await;
        match proved {
            // It has ended since, or is to end: that is heard of by itself.
            Ok(_) if !self.proved(slot, instance, &started.process) => {}
            Ok(_) => {
                self.stirred.notify_waiters();
                info!(service = %self.name, %slot, instance, "a process serves again");
                if let Some(at) = self.at(slot) {
                    self.journal(Noted::InstanceRestarted {
                        release: at.release_of(&self.name),
                        slot,
                        instance,
                        pid: started.process.pid(),
                    });
                }
            }
            // Its end is heard of by itself.
            Err(unhealthy) if unhealthy.exit.is_some() => {}
            Err(unhealthy) => {
                warn!(service = %self.name, %slot, instance, %unhealthy, "a process that was started again is not healthy: ending it");
                started.process.stop(self.config().stop_timeout).await;
            }
        }
    }

    /// Probe what serves and what is warm, each `interval`, as long as the service exists; and keep
    /// the logs within their bounds.
    pub async fn keep_probing(self: Arc<Self>) {
        /// Logs grow slowly; looking at a folder is not free.
        const TRIM: Duration = Duration::from_secs(60);
        /// Between two looks where nothing runs: there may be thousands of such services.
        const EMPTY: Duration = Duration::from_secs(10);
        let mut trimmed = Instant::now();
        loop {
            let began = tokio::time::Instant::now();
            // Made before the look: what begins to run in between is not missed.
            let stirred = self.stirred.notified();
            let is_empty = self.inner().slots.is_empty();
            let due: Vec<(Slot, usize, Started)> = {
                let inner = self.inner();
                let serving = inner
                    .slots
                    .values()
                    .filter(|r| matches!(inner.role(r.at), "live" | "warm"));
                serving
                    .flat_map(|r| {
                        let up = r.instances.iter().enumerate();
                        up.filter(|(_, one)| one.state == State::Up)
                            .map(|(n, one)| {
                                let started = Started {
                                    process: one.process.clone(),
                                    address: one.place.address().clone(),
                                    ports: one.place.named().ports(),
                                    spec: one.spec.clone(),
                                };
                                (r.at.slot, n, started)
                            })
                    })
                    .collect()
            };
            join_all(
                due.iter()
                    .map(|(slot, n, one)| self.look_at(*slot, *n, one)),
            )
            .await;
            if !due.is_empty() {
                self.stirred.notify_waiters();
            }
            self.write_again().await;
            self.look_at_health();
            self.look_at_age();
            self.look_at_memory().await;
            if trimmed.elapsed() >= TRIM {
                trimmed = Instant::now();
                self.trim_logs();
            }
            if is_empty && !self.unwritten.load(Ordering::Relaxed) {
                let _ = tokio::time::timeout_at(began + EMPTY, stirred).await;
                continue;
            }
            // Asked each time: it may have changed.
            tokio::time::sleep_until(began + self.config().health.interval).await;
        }
    }

    /// Probe one instance.
    async fn look_at(self: &Arc<Self>, slot: Slot, instance: usize, started: &Started) {
        let began = Instant::now();
        let health = self.health(&started.address, &started.ports);
        let answer = probe::probe(&started.process, &started.address, &started.spec, &health).await;
        self.means
            .metrics
            .probe(&self.name, answer.is_ok(), began.elapsed());
        let (before, misses, text) = {
            let mut inner = self.inner();
            let Some(one) = inner.instance(slot, instance) else {
                return;
            };
            if one.state != State::Up || !one.process.is(&started.process) {
                // Another one meanwhile: this answer is not its own.
                return;
            }
            let before = one.health.misses;
            one.health = match answer {
                Ok(_) => Health::good(),
                Err(miss) => Health {
                    silent: miss.is_silence(),
                    text: miss.to_string(),
                    misses: one.health.misses.saturating_add(1),
                },
            };
            (before, one.health.misses, one.health.text.clone())
        };
        if let Some(at) = self.at(slot) {
            let release = at.release_of(&self.name);
            if misses == health.fall && before < misses {
                warn!(%release, instance, last = text, "not healthy");
                self.journal(Noted::Unhealthy {
                    release,
                    slot,
                    instance,
                    text,
                });
            } else if misses == 0 && before >= health.fall {
                info!(%release, instance, "healthy again");
                self.journal(Noted::HealthyAgain {
                    release,
                    slot,
                    instance,
                });
            }
        }
        if misses >= health.fall {
            self.replace(slot, instance, Loss::Unhealthy);
        }
    }

    /// See to it that an instance whose requests fail is replaced, as long as the service exists.
    pub async fn watch_requests(self: Arc<Self>) {
        loop {
            // Made before the look: what stirs in between is not missed.
            let stirred = self.stirred.notified();
            if self.config().max_failures == 0 || self.config().instances.get() == 1 {
                stirred.await;
                continue;
            }
            let live = {
                let inner = self.inner();
                let mut all = inner.slots.values();
                all.find(|r| inner.role(r.at) == "live")
                    .map(|r| (r.at.slot, r.pool.clone()))
            };
            let Some((slot, pool)) = live else {
                stirred.await;
                continue;
            };
            tokio::select! {
                () = stirred => {}
                (instance, streak) = pool.instance_failing(self.config().max_failures) => {
                    warn!(service = %self.name, %slot, instance, failures = streak.count, last = streak.last, "requests fail");
                    if let Some(at) = self.at(slot) {
                        self.journal(Noted::Unhealthy {
                            release: at.release_of(&self.name),
                            slot,
                            instance,
                            text: format!("failed {} requests in a row: {}", streak.count, streak.last),
                        });
                    }
                    if !self.replace(slot, instance, Loss::RequestsFailed) {
                        // Nobody else is well: it stays, and is looked at again after the next probes.
                        self.stirred.notified().await;
                    }
                }
            }
        }
    }
}
