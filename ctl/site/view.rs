//! What a site shows of itself: to `status`, to metrics, to `logs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hotctl_config::names::Slot;
use hotctl_deploy::ledger::Traffic;
use hotctl_deploy::machine::Placement;

use super::{Inner, Site};
use crate::metrics::ReleaseInfo;

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

    /// The log files of a release, the newest slot last.
    pub fn logs_of(&self, release: u32) -> Vec<PathBuf> {
        let folder = self.means.state.service(&self.name).join("logs");
        let prefix = format!("{release}.");
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                // In the moment in which a full file is put aside, only that one is there.
                let name = name.strip_suffix(".1").unwrap_or(&name);
                let slot = name.strip_prefix(&prefix)?.strip_suffix(".log")?;
                Some((slot.parse().ok()?, folder.join(name)))
            })
            .collect();
        found.sort();
        found.dedup();
        found.into_iter().map(|(_, path)| path).collect()
    }
}

impl Inner {
    pub(super) fn role(&self, at: Placement) -> &'static str {
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
