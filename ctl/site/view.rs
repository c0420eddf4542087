//! What a site shows of itself: to `status`, to metrics, to `logs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hotctl_config::Address;
use hotctl_deploy::ledger::Traffic;
use hotctl_deploy::machine::Placement;
use hotctl_proxy::Open;

use super::named::PortMap;
use super::slot::{Instance, State};
use super::{Inner, Site};
use crate::metrics::ReleaseInfo;
use crate::store::on_disk;

/// What `status` says of one slot.
#[derive(Debug, Clone)]
pub struct SlotView {
    pub at: Placement,
    pub role: &'static str,
    pub open: Open,
    pub tickets: usize,
    /// By their number; never empty.
    pub instances: Vec<InstanceView>,
}

/// How an instance stands; the `state` of status and of `hotctl_instances`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Starting,
    Up,
    Unhealthy,
    Replacing,
    Dead,
    Failed,
}

impl Shown {
    /// Every state, so that a series can say 0.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Up,
        Self::Unhealthy,
        Self::Replacing,
        Self::Dead,
        Self::Failed,
    ];

    /// The word and the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Unhealthy => "unhealthy",
            Self::Replacing => "replacing",
            Self::Dead => "dead",
            Self::Failed => "failed",
        }
    }
}

/// What `status` says of one instance.
#[derive(Debug, Clone)]
pub struct InstanceView {
    pub address: Address,
    /// Its further ports.
    pub ports: PortMap,
    /// None while it does not run.
    pub pid: Option<u32>,
    pub state: Shown,
    pub uptime: Duration,
    pub health: String,
    pub restarts: u32,
}

impl Site {
    /// What runs, by slot.
    pub fn slots(&self) -> Vec<SlotView> {
        let fall = self.config().health.fall;
        let inner = self.inner();
        inner
            .slots
            .values()
            .map(|r| SlotView {
                at: r.at,
                role: inner.role(r.at),
                open: r.pool.open(),
                tickets: r.pool.tickets(),
                instances: r.instances.iter().map(|one| view(one, fall)).collect(),
            })
            .collect()
    }

    /// Whether requests wait, as nothing can serve them for a moment.
    pub fn is_parked(&self) -> bool {
        if !self.config().http {
            return false;
        }
        let inner = self.inner();
        let up = |at: Placement| inner.slots.get(&at.slot).is_some_and(|r| r.is_up());
        let between = inner.ledger.deployment.as_ref();
        let between = between.is_some_and(hotctl_deploy::machine::Deployment::is_between);
        match inner.ledger.traffic() {
            Traffic::Parked(_) => true,
            Traffic::All(at) | Traffic::Shared { live: at, .. } if !up(at) => {
                between || inner.slots.contains_key(&at.slot)
            }
            _ => false,
        }
    }

    /// Whether what should serve ends again and again.
    pub fn is_failed(&self) -> bool {
        let inner = self.inner();
        let mut live = inner
            .slots
            .values()
            .filter(|running| inner.role(running.at) == "live");
        live.any(super::slot::Running::is_failed)
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

    /// For `hotctl_instances`: how many instances stand how, by role. What should be live is there
    /// even where nothing of it runs.
    pub fn instance_counts(&self) -> Vec<(&'static str, Shown, i64)> {
        let fall = self.config().health.fall;
        let inner = self.inner();
        let mut counts: BTreeMap<&'static str, Vec<Shown>> = BTreeMap::new();
        if inner.ledger.live.is_some() {
            counts.entry("live").or_default();
        }
        for running in inner.slots.values() {
            let standing = running.instances.iter().map(|one| one.standing(fall));
            counts
                .entry(inner.role(running.at))
                .or_default()
                .extend(standing);
        }
        let count = |all: &[Shown], state| {
            let count = all.iter().filter(|one| **one == state).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        counts
            .iter()
            .flat_map(|(role, all)| Shown::ALL.map(|state| (*role, state, count(all, state))))
            .collect()
    }

    /// Until the hold of the deployment under way ends.
    pub fn hold_left(&self) -> Option<Duration> {
        let until = self.inner().hold_until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Since the deployment under way began.
    pub fn deployment_age(&self) -> Duration {
        self.inner()
            .began
            .map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// The log files of a release, the newest slot last, in it by instance.
    pub fn logs_of(&self, release: u32) -> Vec<PathBuf> {
        self.found_logs(release)
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    }

    /// The log files of a release's newest slot, by instance.
    pub fn newest_logs_of(&self, release: u32) -> Vec<PathBuf> {
        let found = self.found_logs(release);
        let newest = found.last().map(|((slot, _), _)| *slot);
        found
            .into_iter()
            .filter(|((slot, _), _)| Some(*slot) == newest)
            .map(|(_, path)| path)
            .collect()
    }

    /// By slot and instance.
    fn found_logs(&self, release: u32) -> Vec<((u32, usize), PathBuf)> {
        let folder = self.logs();
        let prefix = format!("{release}.");
        let entries = on_disk(|| std::fs::read_dir(&folder));
        let mut found: Vec<((u32, usize), PathBuf)> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                // In the moment in which a full file is put aside, only that one is there.
                let name = name.strip_suffix(".1").unwrap_or(&name);
                let rest = name.strip_prefix(&prefix)?.strip_suffix(".log")?;
                let (slot, instance) = rest.split_once('.').unwrap_or((rest, "0"));
                let place = (slot.parse().ok()?, instance.parse().ok()?);
                Some((place, folder.join(name)))
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Inner {
    pub(super) fn role(&self, at: Placement) -> &'static str {
        let serving = match self.ledger.traffic() {
            Traffic::All(serving) => serving == at,
            Traffic::Shared { live, .. } => live == at,
            Traffic::Parked(at_first) => at_first == at,
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

fn view(one: &Instance, fall: u32) -> InstanceView {
    InstanceView {
        address: one.place.address().clone(),
        ports: one.place.named().ports(),
        pid: (!matches!(one.state, State::Dead | State::Resting)).then(|| one.process.pid()),
        state: one.standing(fall),
        uptime: one.since.elapsed(),
        health: one.health.text.clone(),
        restarts: one.restarts,
    }
}
