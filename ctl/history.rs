//! The deployments of one service, from order to end: kept in memory for readers, and on disk for
//! the next daemon. A disk that cannot be written holds up no deployment. Knows records; what leads
//! to them is the service's.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hotctl_config::names::ServiceName;
use hotctl_deploy::ledger::{Last, Ledger};
use hotctl_deploy::machine::{Deployment, Phase};
use hotctl_deploy::why::{Kind, Why};
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::api::{DeploymentRecord, LastFailure, Outcome, PhaseTook, Summary, Verb};
use crate::sealed::{self, Outlives, Unreadable};
use crate::teller::ms;
use crate::who::Giver;

/// How many records are kept; older ones are forgotten.
const KEPT: usize = 200;
/// The version of the file's shape; a later one is put aside rather than guessed at. Schema 1 had no
/// checksum.
const SCHEMA: u32 = 2;
const FILE: &str = "history.json";

/// The records of a service.
#[derive(Debug)]
pub struct History {
    service: ServiceName,
    folder: PathBuf,
    records: Mutex<VecDeque<DeploymentRecord>>,
    /// Counts the writes that failed.
    errors: IntCounter,
    /// There is something to write.
    changed: Notify,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    schema: u32,
    /// Oldest first.
    deployments: VecDeque<DeploymentRecord>,
}

impl History {
    /// Read the history that a service's folder holds. One that cannot be understood is put aside
    /// and told; its last good copy takes its place, or a new one begins. Writes that fail are
    /// counted in `errors`.
    ///
    /// # Errors
    /// If it is there and can neither be read nor put aside.
    pub fn open(folder: &Path, service: &ServiceName, errors: IntCounter) -> io::Result<Self> {
        let path = folder.join(FILE);
        let records = match read(&path) {
            Ok(Some(records)) => records,
            Ok(None) => VecDeque::new(),
            Err(reason) => {
                let aside = folder.join(format!("history.damaged-{}.json", now_ms()));
                fs::rename(&path, &aside)?;
                let copy = read(&sealed::last_of(folder, FILE)).ok().flatten();
                let goes_on = match &copy {
                    Some(_) => "its last good copy takes its place",
                    None => "a new one begins",
                };
                error!(%service, %reason, aside = %aside.display(),
                    "the history of deployments cannot be read: it is put aside, and {goes_on}");
                copy.unwrap_or_default()
            }
        };
        Ok(Self {
            service: service.clone(),
            folder: folder.to_owned(),
            records: Mutex::new(records),
            errors,
            changed: Notify::new(),
        })
    }

    /// Begin where the last daemon ended. What goes on stays open: the deployment under way, and the
    /// order whose release waits. Anything else that has no end came to it with that daemon.
    pub fn take_up(&self, ledger: &Ledger) {
        if let Some(deployment) = &ledger.deployment
            && self.get(deployment.number).is_none()
        {
            // Its record was not written any more.
            self.add(DeploymentRecord {
                from: deployment.from.map(|from| from.release_of(&self.service)),
                ..record(
                    deployment.number,
                    Verb::Deploy,
                    &Giver::daemon(),
                    deployment.to.release_of(&self.service),
                )
            });
        }
        let goes_on = ledger.deployment.as_ref().map(|it| it.number);
        let waits = self.waiting(ledger).map(|it| it.number);
        let mut records = self.records();
        for record in records.iter_mut().filter(|it| {
            it.ended_ms.is_none() && Some(it.number) != goes_on && Some(it.number) != waits
        }) {
            let is_live = ledger.live.is_some_and(|it| it.release == record.to.number);
            match record.result {
                Outcome::Live => {}
                // Written down in the one place, and not any more in this one.
                Outcome::UnderWay if is_live => record.result = Outcome::Live,
                _ => end(
                    record,
                    &Why::new(Kind::Interrupted, "hotctl ended before the deployment did"),
                ),
            }
            record.ended_ms = Some(now_ms());
        }
        drop(records);
        self.changed.notify_one();
    }

    /// The highest numbers that it tells of; of slots it tells nothing.
    pub fn numbers(&self) -> Last {
        let records = self.records();
        Last {
            release: records.iter().map(|it| it.to.number).max().unwrap_or(0),
            slot: 0,
            deployment: records.iter().map(|it| it.number).max().unwrap_or(0),
        }
    }

    /// The order whose turn had not come when the last daemon ended.
    pub fn waiting(&self, ledger: &Ledger) -> Option<DeploymentRecord> {
        let release = ledger.waiting?;
        let records = self.records();
        let last = records.iter().rev().find(|it| it.ended_ms.is_none())?;
        // That it begins is told before it is written.
        let begins = last.result == Outcome::UnderWay && ledger.deployment.is_none();
        let waits = last.result == Outcome::Queued || begins;
        (last.to.number == release && waits).then(|| last.clone())
    }

    /// A deployment is ordered.
    pub fn add(&self, record: DeploymentRecord) {
        let mut records = self.records();
        if records.len() == KEPT {
            records.pop_front();
        }
        records.push_back(record);
        drop(records);
        self.changed.notify_one();
    }

    /// Newest first, at most so many.
    pub fn newest(&self, limit: usize) -> Vec<DeploymentRecord> {
        self.records().iter().rev().take(limit).cloned().collect()
    }

    /// The newest deployment that has ended, if it did not end well and no later one is live: one
    /// that is live is better news at once, also while its hold goes on.
    pub fn last_failure(&self) -> Option<LastFailure> {
        let records = self.records();
        let last = records
            .iter()
            .rev()
            .find(|one| one.ended_ms.is_some() || one.result == Outcome::Live)?;
        let ended = last.ended_ms?;
        Some(LastFailure {
            deployment: last.number,
            release: last.to.clone(),
            result: last.result,
            ago_s: Duration::from_millis(now_ms().saturating_sub(ended)).as_secs_f64(),
            why: last.why.clone()?,
        })
    }

    /// The record of one deployment, if it is kept.
    pub fn get(&self, number: u32) -> Option<DeploymentRecord> {
        let records = self.records();
        records
            .iter()
            .find(|record| record.number == number)
            .cloned()
    }

    /// Write what changes until it is dropped. A write that fails is told, and tried again with the
    /// next change.
    pub async fn keep_writing(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            self.write().await;
        }
    }

    /// Write it now.
    pub async fn write(self: &Arc<Self>) {
        let history = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let deployments = history.records().clone();
            let kept = Kept {
                schema: SCHEMA,
                deployments,
            };
            sealed::write(&history.folder, FILE, &kept, Outlives::PowerCut)
        });
        if let Err(cause) = written.await.unwrap_or_else(|join| Err(join.into())) {
            self.errors.inc();
            warn!(service = %self.service, %cause, "the history of deployments cannot be written");
        }
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut DeploymentRecord)) {
        let mut records = self.records();
        // None: two hundred later ones have been ordered meanwhile.
        if let Some(record) = records.iter_mut().rev().find(|r| r.number == number) {
            change(record);
        }
    }

    fn records(&self) -> MutexGuard<'_, VecDeque<DeploymentRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the record of one deployment as it goes on; a cheap handle.
#[derive(Debug, Clone)]
pub struct Scribe {
    history: Arc<History>,
    number: u32,
    /// The phase that goes on, since when.
    phase: Arc<Mutex<Option<Instant>>>,
}

impl Scribe {
    /// For a deployment that has just been ordered.
    pub fn new(history: &Arc<History>, record: DeploymentRecord) -> Self {
        let number = record.number;
        history.add(record);
        Self {
            history: history.clone(),
            number,
            phase: Arc::default(),
        }
    }

    /// For a deployment that was ordered of the last daemon, and has a record.
    pub fn again(history: &Arc<History>, number: u32) -> Self {
        Self {
            history: history.clone(),
            number,
            phase: Arc::default(),
        }
    }

    /// Its turn has come.
    pub fn begins(&self, deployment: &Deployment) {
        let service = &self.history.service;
        self.history.change(self.number, |record| {
            record.started_ms = Some(now_ms());
            record.result = Outcome::UnderWay;
            record.from = deployment.from.map(|from| from.release_of(service));
            record.to = deployment.to.release_of(service);
        });
        self.history.changed.notify_one();
    }

    /// It enters a phase, and with it leaves the one before.
    pub fn phase(&self, deployment: &Deployment) {
        let name = match &deployment.phase {
            Phase::Stopping => Some("stopping"),
            Phase::Starting => Some("starting"),
            Phase::Step(_) if deployment.is_warm() => Some("warm"),
            Phase::Step(_) => Some("step"),
            Phase::Reverting(_) => Some("reverting"),
            Phase::Done | Phase::Failed(_) => None,
        };
        let now = name.map(|_| Instant::now());
        let before = {
            let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *phase, now)
        };
        self.history.change(self.number, |record| {
            if let (Some(began), Some(last)) = (before, record.phases.last_mut()) {
                last.took_ms = Some(ms(began.elapsed()));
            }
            record.phases.extend(name.map(|name| PhaseTook {
                phase: name.to_owned(),
                began_ms: now_ms(),
                took_ms: None,
            }));
        });
    }

    /// Traffic has flipped to it.
    pub fn live(&self) {
        self.history
            .change(self.number, |record| record.result = Outcome::Live);
        self.history.changed.notify_one();
    }

    /// The old release has given its last answer.
    pub fn summary(&self, summary: &Summary) {
        self.history
            .change(self.number, |record| record.summary = Some(summary.clone()));
        self.history.changed.notify_one();
    }

    /// Nothing more will become of it: it failed, for this reason, or stays live.
    pub fn ends(&self, failed: Option<&Why>) {
        self.history.change(self.number, |record| {
            record.ended_ms = Some(now_ms());
            if let Some(why) = failed {
                end(record, why);
            }
        });
        self.history.changed.notify_one();
    }

    /// What it asked for was live already when its turn came.
    pub fn unchanged(&self) {
        self.history.change(self.number, |record| {
            record.ended_ms = Some(now_ms());
            record.result = Outcome::Unchanged;
        });
        self.history.changed.notify_one();
    }
}

/// The record of a deployment that is ordered now.
pub fn record(
    number: u32,
    verb: Verb,
    by: &Giver,
    to: hotctl_config::names::ReleaseId,
) -> DeploymentRecord {
    DeploymentRecord {
        number,
        service: to.service.clone(),
        verb,
        by: by.clone(),
        ordered_ms: now_ms(),
        started_ms: None,
        ended_ms: None,
        from: None,
        to,
        phases: Vec::new(),
        result: Outcome::Queued,
        why: None,
        summary: None,
    }
}

fn end(record: &mut DeploymentRecord, why: &Why) {
    record.result = match (record.result, why.kind) {
        (Outcome::Live, _) => Outcome::FlippedBack,
        (_, Kind::Cancelled | Kind::RolledBack) => Outcome::Cancelled,
        (_, Kind::Superseded) => Outcome::Superseded,
        (_, Kind::Interrupted) => Outcome::Interrupted,
        _ => Outcome::Failed,
    };
    record.why = Some(why.clone());
}

/// The records in a file, if there is one.
fn read(path: &Path) -> Result<Option<VecDeque<DeploymentRecord>>, Unreadable> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Unreadable::Damaged(format!("cannot be read: {cause}"))),
    };
    let kept: Kept = sealed::understand(&text, SCHEMA)?;
    Ok(Some(kept.deployments))
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
