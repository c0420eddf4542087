//! What still runs of a service when the daemon begins: found by the sockets of its shims, and taken
//! up where it stood. What the record does not know is ended. Decides nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hotctl_config::{Address, Slot};
use hotctl_deploy::confine::Confines;
use hotctl_deploy::ledger::{Ledger, Traffic};
use hotctl_deploy::machine::{Phase, Placement};
use hotctl_deploy::process::{self, Adopted, Gone, Notify, Spec};
use hotctl_deploy::restart::Backoff;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::named::PortMap;
use super::place::{self, Place};
use super::slot::{Health, Instance, State, start};
use super::{Ended, Site};
use crate::api::Noted;

/// What an app's shim is told to tell the next daemon. A later daemon reads it: fields are only
/// ever added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Label {
    pub at: Placement,
    pub instance: usize,
    pub address: Address,
    /// Its further ports.
    #[serde(default, skip_serializing_if = "PortMap::is_empty")]
    pub ports: PortMap,
}

impl Label {
    /// As the shim keeps it.
    pub fn note(&self) -> String {
        // Numbers, names and an address: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An app that was found, and what it was started as.
struct Found {
    label: Label,
    app: Adopted,
}

impl Site {
    /// Take up whatever of this service lives. Traffic is not touched by this.
    pub async fn adopt(self: &Arc<Self>) {
        let found = self.found().await;
        let known = known(&self.ledger());
        let mut slots: BTreeMap<Slot, Vec<Found>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for one in found {
            match known.contains(&one.label.at) {
                true => slots.entry(one.label.at.slot).or_default().push(one),
                false => unknown.push(one),
            }
        }
        if known.iter().any(|at| !slots.contains_key(&at.slot)) {
            self.end_lost().await;
        }
        for found in slots.into_values() {
            let (chosen, surplus) = chosen(found);
            unknown.extend(surplus);
            self.take_up(chosen).await;
        }
        self.end_unknown(unknown);
        let mut kept = Vec::new();
        for running in self.inner().slots.values() {
            let addresses = running.instances.iter().map(|one| one.place.address());
            kept.extend(addresses.filter_map(|address| match address {
                Address::Unix(path) => Some(path.to_path_buf()),
                Address::Inet(_) | Address::Nowhere => None,
            }));
        }
        for folder in [self.run_folder(), self.socket_folder()] {
            if let Err(cause) = place::sweep(&folder, &kept) {
                warn!(service = %self.name, %cause, "sockets that nobody uses cannot be removed");
            }
        }
    }

    /// Every app whose shim answers. What is left of one whose shim is gone is ended.
    async fn found(&self) -> Vec<Found> {
        let folder = self.run_folder();
        let sockets = tokio::task::spawn_blocking(move || process::found(&folder)).await;
        let sockets = match sockets.map_err(std::io::Error::other).flatten() {
            Ok(sockets) => sockets,
            Err(cause) => {
                error!(service = %self.name, %cause, "cannot look for apps that still run");
                return Vec::new();
            }
        };
        let met = sockets.into_iter().map(|socket| async move {
            let met = process::adopt(&socket).await;
            self.understood(socket, met).await
        });
        join_all(met).await.into_iter().flatten().collect()
    }

    async fn understood(&self, socket: PathBuf, met: Result<Adopted, Gone>) -> Option<Found> {
        match met {
            Ok(app) => match serde_json::from_str(&app.note) {
                Ok(label) => Some(Found { label, app }),
                Err(cause) => {
                    error!(service = %self.name, shim = app.process.shim_pid(), %cause,
                        "an app that cannot be told apart is ended");
                    app.process.stop(self.config().stop_timeout).await;
                    None
                }
            },
            Err(Gone::Nobody) => {
                let left = process::sweep_marked(socket.clone()).await;
                warn!(service = %self.name, socket = %socket.display(), left,
                    "a shim was killed: what was left of its app is ended");
                None
            }
            Err(Gone::Strange(why)) => {
                error!(service = %self.name, socket = %socket.display(), %why,
                    "a shim cannot be taken over: it and its app are left alone");
                None
            }
        }
    }

    /// Let what was found of one placement be what runs in its slot.
    async fn take_up(self: &Arc<Self>, found: Vec<Found>) {
        let Some(at) = found.first().map(|one| one.label.at) else {
            return;
        };
        let proved = !matches!(
            self.ledger().deployment,
            Some(deployment)
                if deployment.to == at && deployment.phase == Phase::Starting
                    // It was being started again in the place of a candidate.
                    || deployment.replaced() == Some(at)
                        && matches!(deployment.phase, Phase::Reverting(_))
        );
        let mut dead = Vec::new();
        let mut instances = Vec::with_capacity(found.len());
        for Found { label, app } in found {
            let release = at.release_of(&self.name);
            let (pid, exit) = (app.process.pid(), app.process.exit());
            let spec = self.spec_again(&label, &app);
            let state = match (&exit, proved) {
                (Some(_), _) => State::Dead,
                (None, true) => State::Up,
                (None, false) => State::Starting,
            };
            match exit {
                None => {
                    info!(%release, instance = label.instance, address = %label.address, pid, "adopted");
                    self.means.metrics.adopted(&self.name);
                    self.journal(Noted::InstanceAdopted {
                        release,
                        slot: at.slot,
                        instance: label.instance,
                        pid,
                    });
                }
                Some(exit) => dead.push(Ended {
                    slot: at.slot,
                    instance: instances.len(),
                    pid,
                    exit,
                }),
            }
            instances.push(Instance {
                place: Place::adopted(&label.address, &label.ports, app.listener, &app.leases),
                since: app.process.exec_at(),
                up: (state == State::Up).then(|| app.process.exec_at()),
                process: app.process,
                spec,
                state,
                health: match state {
                    State::Up => Health::good(),
                    _ => Health::because("adopted"),
                },
                backoff: Backoff::default(),
                restarts: 0,
            });
        }
        let adopted = instances.len();
        if matches!(self.ledger().traffic(), Traffic::All(it) if it == at) {
            self.complete(at, &mut instances).await;
        }
        let launched = self.move_in(at, instances);
        let all = launched.into_iter().flat_map(|it| it.instances);
        for (instance, one) in all.enumerate().skip(adopted) {
            self.bring_up(at.slot, instance, one);
        }
        let exits = self.exits.clone();
        // The service's task, which reads them, begins later.
        self.spawn(async move {
            for ended in dead {
                // Closed only when the daemon ends.
                let _ = exits.send(ended).await;
            }
        });
    }

    /// Start what is missing of a pool that serves.
    async fn complete(self: &Arc<Self>, at: Placement, instances: &mut Vec<Instance>) {
        let wanted = usize::try_from(self.config().instances.get()).unwrap_or(usize::MAX);
        for instance in instances.len()..wanted {
            let place = Place::take(
                self.config().address_kind(),
                &self.config().ports,
                &self.means.ports,
                &self.socket_folder(),
                at.slot,
                instance,
            );
            let started = match place {
                Ok(place) => match self.spec(at, instance, &place) {
                    Ok(spec) => start(spec.clone()).await.map(|it| (place, it, spec)),
                    Err(why) => Err(why),
                },
                Err(why) => Err(why),
            };
            match started {
                Ok((place, process, spec)) => {
                    instances.push(Instance::starting(place, process, spec))
                }
                Err(why) => {
                    let release = at.release_of(&self.name);
                    error!(%release, instance, %why, "an instance that is gone cannot be started again");
                    return;
                }
            }
        }
    }

    /// What an app was started as, as far as it can be known now: for its log, its probes and its
    /// next start.
    fn spec_again(&self, label: &Label, app: &Adopted) -> Spec {
        let listener = app.listener.clone();
        let place = Place::adopted(&label.address, &label.ports, listener, &app.leases);
        // It is not its own place: what is there stays.
        place.keep();
        let spec = self.spec(label.at, label.instance, &place);
        spec.unwrap_or_else(|why| {
            // An env file that is not there any more, say. It runs, and that is what counts.
            warn!(service = %self.name, %why, "an adopted app could not be started like that now");
            Spec {
                program: Vec::new(),
                env: Vec::new(),
                cwd: self.data(),
                log: self.log_path(label.at, label.instance),
                log_size: self.config().logs.file_size,
                log_files: self.config().logs.files.get(),
                listener: None,
                ports: Vec::new(),
                notify: Notify::No,
                confines: Confines::default(),
                outlive: None,
            }
        })
    }

    /// Something should run and was not found: an app whose shim's socket somebody has removed would go on
    /// unseen, beside the one that is started in its place.
    async fn end_lost(&self) {
        let lost = process::sweep_lost(self.run_folder()).await;
        if !lost.is_empty() {
            error!(service = %self.name, pids = ?lost, folder = %self.run_folder().display(),
                "the sockets of shims were removed: what nobody can attend to is ended");
        }
        let live = self.ledger().live;
        for (pid, at) in lost.into_iter().zip(live.into_iter().cycle()) {
            self.journal(Noted::InstanceEnded {
                release: at.release_of(&self.name),
                slot: at.slot,
                pid,
                why: "somebody removed the socket of its shim".to_owned(),
            });
        }
    }

    /// What the record knows nothing of: a start that was given up as the last daemon died.
    fn end_unknown(self: &Arc<Self>, unknown: Vec<Found>) {
        let grace = self.config().stop_timeout;
        for Found { label, app } in unknown {
            let release = label.at.release_of(&self.name);
            let site = self.clone();
            if app.process.exit().is_none() {
                warn!(%release, instance = label.instance, pid = app.process.pid(), "nobody wants it any more: it is ended");
            }
            self.spawn(async move {
                let grace = match app.process.exit() {
                    Some(_) => Duration::ZERO,
                    None => grace,
                };
                let stopped = app.process.stop(grace).await;
                info!(%release, service = %site.name, exit = %stopped.exit, "stopped");
            });
        }
    }
}

/// The placements that the record speaks of.
fn known(ledger: &Ledger) -> BTreeSet<Placement> {
    let deployment = ledger.deployment.iter();
    deployment
        .flat_map(|d| [Some(d.to), d.from].into_iter().flatten())
        .chain(ledger.live)
        .chain(ledger.retiring.iter().copied())
        .collect()
}

/// Of several that were one instance, the one that lives; of those that have ended, the last.
fn chosen(mut found: Vec<Found>) -> (Vec<Found>, Vec<Found>) {
    found.sort_by_key(|one| {
        let lives = one.app.process.exit().is_none();
        (
            one.label.instance,
            !lives,
            std::cmp::Reverse(one.app.process.started()),
        )
    });
    let mut taken = BTreeSet::new();
    found.into_iter().partition(|one| {
        let lives = one.app.process.exit().is_none();
        // Two that live can both serve.
        taken.insert(one.label.instance) || lives
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_older_shims_keep_is_read_and_what_newer_ones_keep_stays() {
        let old = r#"{"at":{"release":7,"slot":3},"instance":1,"address":"127.0.0.1:20000"}"#;
        let mut label: Label = serde_json::from_str(old).unwrap();
        assert!(label.ports.is_empty());
        assert_eq!(label.note(), old);
        label.ports.insert("debug".parse().unwrap(), 20_001);
        let again: Label = serde_json::from_str(&label.note()).unwrap();
        assert_eq!(again.ports, label.ports);
    }
}
