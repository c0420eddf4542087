//! The safety net: what speaks against a release that has just gone live, while the old one is kept
//! warm. Watches; what follows is the machine's.

use std::time::{Duration, Instant};

use hotctl_config::Slot;
use hotctl_deploy::why::Kind;

use super::Site;
use super::slot::{Running, State};

/// A pool that loses so many instances in one hold is not well, even if each is started again.
const MOST_LOSSES: u32 = 3;

/// Why traffic should flip back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub kind: Kind,
    /// What happened, to follow the name of the release.
    pub text: String,
}

impl Site {
    /// Note that a release is being watched for so long from now; for those who show it.
    pub fn hold(&self, slot: Slot, hold: Duration) {
        let mut inner = self.inner();
        inner.hold_until = Instant::now().checked_add(hold);
        if let Some(running) = inner.slots.get_mut(&slot) {
            running.losses = 0;
        }
    }

    /// Resolves when something speaks against what runs in a slot: it has ended, `fall` probes in a
    /// row have failed, or `max_failures` requests in a row. Where several instances serve, one that
    /// is lost is started again and does not count alone.
    pub async fn evidence(&self, slot: Slot) -> Evidence {
        let Some(pool) = self.pool(slot) else {
            return Evidence {
                kind: Kind::Exited,
                text: "is not there any more".into(),
            };
        };
        tokio::select! {
            // An exit first: what failed because of it would tell less.
            biased;
            lost = self.lost(slot) => lost,
            streak = pool.failing(self.config().max_failures) => Evidence {
                kind: Kind::RequestsFailed,
                text: format!(
                    "failed {} requests in a row after the flip: {}",
                    streak.count, streak.last
                ),
            },
        }
    }

    async fn lost(&self, slot: Slot) -> Evidence {
        loop {
            // Made before the look: what stirs in between is not missed.
            let stirred = self.stirred.notified();
            let fall = self.config().health.fall;
            let seen = self
                .inner()
                .slots
                .get(&slot)
                .and_then(|running| running.evidence(fall));
            if let Some(evidence) = seen {
                return evidence;
            }
            stirred.await;
        }
    }
}

impl Running {
    fn evidence(&self, fall: u32) -> Option<Evidence> {
        let well =
            |one: &&super::slot::Instance| one.state == State::Up && one.health.misses < fall;
        if self.instances.iter().any(|one| well(&one)) && self.losses < MOST_LOSSES {
            return None;
        }
        let again = match self.instances.len() {
            1 => String::new(),
            _ => format!(", the last of {} losses", self.losses.max(1)),
        };
        if let Some(exit) = self.last_exit() {
            return Some(Evidence {
                kind: Kind::Exited,
                text: format!("ended after the flip: {exit}{again}"),
            });
        }
        let ill = self.instances.iter().find(|one| !well(one));
        Some(Evidence {
            kind: Kind::NotHealthy,
            text: format!(
                "no longer healthy after the flip: {}{again}",
                ill.map_or("an instance was lost", |one| &one.health.text)
            ),
        })
    }
}
