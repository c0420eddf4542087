//! When the processes of what is live should be replaced by fresh ones, without anybody asking: they
//! are old, use too much memory, or are not healthy and have none beside them that is. Only says so;
//! the service's task does it.

use std::sync::Arc;

use hotctl_config::Slot;
use hotctl_config::file::Strategy;
use hotctl_config::units::show_bytes;
use hotctl_deploy::process::Process;
use tokio::sync::watch;
use tracing::warn;

use super::Site;
use super::slot::{Health, Instance, State};

/// Why the processes of a release are replaced by fresh ones, without anybody asking; the `reason`
/// label of `hotctl_renewals_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// They are older than `recycle`.
    Age,
    /// They use more memory than they should.
    Memory,
    /// None of them is healthy: one that hangs, say. The fresh ones prove themselves first, where both
    /// can run side by side; where it is not the processes' fault they do not, and nothing has changed.
    Unhealthy,
}

impl Renewal {
    /// Every reason, so that a series can exist before its first event.
    pub const ALL: [Self; 3] = [Self::Age, Self::Memory, Self::Unhealthy];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Site {
    /// What runs in a slot should be replaced by fresh processes of the same release, in the way of
    /// any restart: the service's task does that when nothing else is under way. May be said again as
    /// long as it is so.
    fn should_renew(&self, slot: Slot, why: Renewal) {
        self.renewal.send_replace(Some((slot, why)));
    }

    /// What should be renewed, as it is said.
    pub fn renewals(&self) -> watch::Receiver<Option<(Slot, Renewal)>> {
        self.renewal.subscribe()
    }

    /// The live slot, if no process of it is healthy. Where what is live has to be ended first, only if
    /// each of them is silent: one that answers badly may still be better than none.
    pub(super) fn look_at_health(&self) {
        let config = self.config();
        let fall = config.health.fall;
        let is_bad = |one: &Instance| {
            let Health { misses, silent, .. } = one.health;
            one.state == State::Up
                && misses >= fall
                && (silent || config.strategy() == Strategy::BlueGreen)
        };
        let bad = {
            let inner = self.inner();
            let mut live = inner.slots.values().filter(|r| inner.role(r.at) == "live");
            live.find(|r| r.instances.iter().all(is_bad))
                .map(|r| r.at.slot)
        };
        if let Some(slot) = bad {
            self.should_renew(slot, Renewal::Unhealthy);
        }
    }

    /// The live slot, if a process of it is older than `recycle`.
    pub(super) fn look_at_age(&self) {
        let oldest = self.config().recycle;
        if oldest.is_zero() {
            return;
        }
        let old = {
            let inner = self.inner();
            let mut live = inner.slots.values().filter(|r| inner.role(r.at) == "live");
            live.find(|r| r.instances.iter().any(|one| one.since.elapsed() >= oldest))
                .map(|r| r.at.slot)
        };
        if let Some(slot) = old {
            self.should_renew(slot, Renewal::Age);
        }
    }

    /// The live slot, if a process of it uses more than `memory_max`.
    pub(super) async fn look_at_memory(self: &Arc<Self>) {
        let most = self.config().memory_max;
        if most == 0 {
            return;
        }
        let live: Vec<(Slot, usize, Process)> = {
            let inner = self.inner();
            let live = inner.slots.values().filter(|r| inner.role(r.at) == "live");
            live.flat_map(|r| {
                let up = r.instances.iter().enumerate();
                up.filter(|(_, one)| one.state == State::Up)
                    .map(|(n, one)| (r.at.slot, n, one.process.clone()))
            })
            .collect()
        };
        let above = tokio::task::spawn_blocking(move || {
            live.into_iter().find_map(|(slot, instance, process)| {
                let used = process.memory_above(most)?;
                Some((slot, instance, process.pid(), used))
            })
        });
        if let Ok(Some((slot, instance, pid, used))) = above.await {
            let (used, most) = (show_bytes(used >> 20 << 20), show_bytes(most));
            warn!(service = %self.name, %slot, instance, pid, used, memory_max = most,
                "a process uses too much memory: it should be replaced by a fresh one");
            self.should_renew(slot, Renewal::Memory);
        }
    }
}
