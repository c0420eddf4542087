//! What runs is looked after: probed as long as it serves or may serve again, and started again when
//! it dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotctl_config::names::Slot;
use hotctl_deploy::probe::probe;
use hotctl_deploy::process::Exit;
use tracing::{error, warn};

use super::{Health, Site};

impl Site {
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
                Ok(spec) => site
                    .start(spec.clone(), slot)
                    .await
                    .map(|process| (process, spec)),
                Err(why) => Err(why),
            };
            match started {
                Ok((process, spec)) => {
                    let kept = {
                        let mut inner = site.inner();
                        match inner.slots.get_mut(&slot) {
                            Some(running) => {
                                running.process = process.clone();
                                running.spec = spec;
                                running.alive = true;
                                running.since = Instant::now();
                                running.restarts += 1;
                                running.health.text = "starting".into();
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
            let due: Vec<_> = {
                let inner = self.inner();
                inner
                    .slots
                    .values()
                    .filter(|r| r.alive && matches!(inner.role(r.at), "live" | "warm"))
                    .map(|r| {
                        (
                            r.at.slot,
                            r.process.clone(),
                            r.address.into(),
                            r.spec.clone(),
                        )
                    })
                    .collect()
            };
            for (slot, process, address, spec) in due {
                let began = Instant::now();
                let answer = probe(&process, &address, &spec, &self.config.health).await;
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
}
