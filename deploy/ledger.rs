//! What is true of one service: its releases, which is live, which deployment runs, what is being
//! retired. The one value behind state file, status and recovery. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use hotctl_config::file::Strategy;
use hotctl_config::names::{Digest, Percent, ReleaseId, ServiceName, Slot};
use serde::{Deserialize, Serialize};

use crate::gate::Gate;
use crate::machine::{Deployment, Ladder, Phase, Placement};
use crate::why::{Kind, Why};

/// The record of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Whose record it is.
    pub service: ServiceName,
    /// Its releases by number.
    pub releases: BTreeMap<u32, Release>,
    /// Who serves; none before the first deployment and after a stop.
    pub live: Option<Placement>,
    /// The release that was live before, if it is still stored.
    pub previous: Option<u32>,
    /// An operator stopped the service: the release to start again.
    pub stopped: Option<u32>,
    /// What an operator has put between requests and the service.
    #[serde(default, skip_serializing_if = "Gate::is_open")]
    pub gate: Gate,
    /// The deployment under way.
    pub deployment: Option<Deployment>,
    /// The release of an order that waits for its turn.
    #[serde(default)]
    pub waiting: Option<u32>,
    /// What is being drained and stopped, oldest first.
    pub retiring: Vec<Placement>,
    /// The last number given to a release, a slot and a deployment.
    pub last: Last,
}

/// The last number given to each kind of thing; 0 = none yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Releases.
    pub release: u32,
    /// Slots.
    pub slot: u32,
    /// Deployments.
    pub deployment: u32,
}

/// One release of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its content in the store.
    pub digest: Digest,
    /// The arguments it was deployed with.
    pub args: Vec<String>,
    /// The name of the file or folder it came from, for people.
    pub name: String,
    /// When it was deployed first, in milliseconds since 1970.
    pub created_ms: u64,
    /// It has been live.
    #[serde(default)]
    pub proved: bool,
    /// The fingerprint of the environment it was deployed with; `None` if it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Digest>,
}

/// Who should get new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing has ever been live.
    NothingDeployed,
    /// An operator stopped the service.
    Stopped,
    /// Nobody for a moment: this release is ended so that another can take its place.
    Parked(Placement),
    /// One release gets everything.
    All(Placement),
    /// The candidate gets a share.
    Shared {
        /// Who has the rest.
        live: Placement,
        /// Who has the share.
        candidate: Placement,
        /// How much, 1 to 99.
        weight: Percent,
    },
}

impl Ledger {
    /// The empty record of a service.
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            releases: BTreeMap::new(),
            live: None,
            previous: None,
            stopped: None,
            gate: Gate::Open,
            deployment: None,
            waiting: None,
            retiring: Vec::new(),
            last: Last::default(),
        }
    }

    /// Number a new release.
    pub fn add(&mut self, release: Release) -> u32 {
        self.last.release += 1;
        self.releases.insert(self.last.release, release);
        self.last.release
    }

    /// Number a new deployment, which may wait for its turn.
    pub fn order(&mut self) -> u32 {
        self.last.deployment += 1;
        self.last.deployment
    }

    /// These numbers were given, as somebody remembers: none of them is given again.
    pub fn number_after(&mut self, given: Last) {
        let Last {
            release,
            slot,
            deployment,
        } = &mut self.last;
        *release = given.release.max(*release);
        *slot = given.slot.max(*slot);
        *deployment = given.deployment.max(*deployment);
    }

    /// A release whose order ended before its turn came leaves again; its number is not given twice.
    pub fn withdraw(&mut self, number: u32) {
        if self.waiting == Some(number) {
            self.waiting = None;
        }
        let unproved = self.releases.get(&number).is_some_and(|r| !r.proved);
        if unproved && !self.needed().contains(&number) {
            self.releases.remove(&number);
        }
    }

    /// Order and begin in one: see [`Ledger::begin_ordered`].
    pub fn begin(&mut self, release: u32, ladder: Ladder) -> Deployment {
        let number = self.order();
        self.begin_ordered(number, release, ladder, Strategy::BlueGreen)
    }

    /// Begin a deployment of a release that is in the ledger, in a fresh slot. Nothing runs yet.
    pub fn begin_ordered(
        &mut self,
        number: u32,
        release: u32,
        ladder: Ladder,
        strategy: Strategy,
    ) -> Deployment {
        self.last.slot += 1;
        Deployment {
            strategy,
            service: self.service.clone(),
            number,
            from: self.live,
            to: Placement {
                release,
                slot: Slot(self.last.slot),
            },
            ladder,
            phase: match (strategy, self.live) {
                (Strategy::Recreate, Some(_)) => Phase::Stopping,
                (Strategy::Recreate, None) | (Strategy::BlueGreen, _) => Phase::Starting,
            },
        }
    }

    /// Take note of where the deployment stands; at its end, of what became of it.
    pub fn record(&mut self, deployment: &Deployment) {
        if self.deployment.is_none() && self.waiting == Some(deployment.to.release) {
            // Not before this: in between, nothing would tell of it.
            self.waiting = None;
        }
        match deployment.phase {
            Phase::Done => {
                if let Some(old) = deployment.from {
                    self.retire(old);
                    let to = deployment.to.release;
                    match old.release.cmp(&to) {
                        Ordering::Less => self.previous = Some(old.release),
                        Ordering::Equal => {}
                        // Gone back: the next step back leads further back, never to what was left.
                        Ordering::Greater => self.previous = self.proved_before(to),
                    }
                }
                if let Some(release) = self.releases.get_mut(&deployment.to.release) {
                    release.proved = true;
                }
                self.live = Some(deployment.to);
                self.stopped = None;
                self.deployment = None;
            }
            Phase::Failed(_) => {
                self.retire(deployment.to);
                self.deployment = None;
            }
            Phase::Stopping | Phase::Starting | Phase::Step(_) | Phase::Reverting(_) => {
                self.deployment = Some(deployment.clone());
            }
        }
    }

    /// Who should get new requests now.
    pub fn traffic(&self) -> Traffic {
        let replaced = self
            .deployment
            .as_ref()
            .filter(|d| d.is_between() && matches!(d.phase, Phase::Stopping | Phase::Starting));
        if let Some(from) = replaced.and_then(|d| d.from) {
            return Traffic::Parked(from);
        }
        let weight = self.deployment.as_ref().map(|d| (d.to, d.weight()));
        match (self.live, weight) {
            (_, Some((candidate, Percent::ALL))) => Traffic::All(candidate),
            (Some(live), Some((candidate, weight))) if weight > Percent::ZERO => Traffic::Shared {
                live,
                candidate,
                weight,
            },
            // With nobody live, a candidate in any step has it all.
            (None, Some((candidate, weight))) if weight > Percent::ZERO => Traffic::All(candidate),
            (Some(live), _) => Traffic::All(live),
            (None, _) if self.stopped.is_some() => Traffic::Stopped,
            (None, _) => Traffic::NothingDeployed,
        }
    }

    /// An operator stops the service: what is live is retired, and remembered for `start`.
    pub fn stop(&mut self) -> Option<Placement> {
        let live = self.live.take()?;
        self.stopped = Some(live.release);
        self.retire(live);
        Some(live)
    }

    /// A retirement is complete: nothing of it runs any more.
    pub fn retired(&mut self, slot: Slot) {
        self.retiring.retain(|p| p.slot != slot);
    }

    /// The daemon starts again and nothing of what is written here runs any more. A deployment
    /// that had flipped is taken as done, any other as failed; the end it came to is returned.
    pub fn interrupted(&mut self) -> Option<Deployment> {
        let mut ended = self.deployment.take();
        if let Some(deployment) = &mut ended {
            deployment.phase = if deployment.weight() == Percent::ALL {
                Phase::Done
            } else {
                Phase::Failed(
                    Why::new(
                        Kind::Interrupted,
                        "hotctl ended while the deployment was under way",
                    )
                    .hint("deploy again"),
                )
            };
            self.record(deployment);
        }
        self.retiring.clear();
        // An order that waited has ended with the daemon.
        if let Some(release) = self.waiting {
            self.withdraw(release);
        }
        ended
    }

    /// What a rollback would go to: what is kept warm, else the release before.
    pub fn back(&self) -> Option<u32> {
        let warm = self.deployment.as_ref().filter(|d| d.is_warm());
        match warm {
            Some(deployment) => deployment.from.map(|from| from.release),
            None => self.previous.filter(|n| self.releases.contains_key(n)),
        }
    }

    /// What a rollback to that release, or to the one before, goes to.
    ///
    /// # Errors
    /// Why there is nothing to go back to, and what else there is.
    pub fn back_to(&self, wanted: Option<u32>) -> Result<u32, Why> {
        let Some(number) = wanted else {
            return self.back().ok_or_else(|| {
                Why::new(
                    Kind::NoRelease,
                    "there is no release before this one to go back to",
                )
                .hint(format!("hotctl releases {}", self.service))
            });
        };
        let id = self.id(number);
        let reason = match self.releases.get(&number) {
            Some(release) if release.proved => return Ok(number),
            Some(_) => format!("{id}: has never been live until it settled"),
            None => format!("{id}: is not stored"),
        };
        let proved = self.releases.iter().filter(|(_, release)| release.proved);
        let names: Vec<String> = proved.map(|(n, _)| self.id(*n).to_string()).collect();
        Err(
            Why::new(Kind::NoRelease, reason).hint(match names.as_slice() {
                [] => "none of the stored releases has been live: hotctl deploy PATH".to_owned(),
                names => format!("one of: {}", names.join(", ")),
            }),
        )
    }

    /// The full name of a release.
    pub fn id(&self, number: u32) -> ReleaseId {
        ReleaseId {
            service: self.service.clone(),
            number,
        }
    }

    /// The releases that something still needs: live, candidate, warm, draining, previous, what a
    /// stopped service will start, and what waits for its turn.
    pub fn needed(&self) -> BTreeSet<u32> {
        let deployment = self.deployment.iter().flat_map(|d| {
            [Some(d.to.release), d.from.map(|p| p.release)]
                .into_iter()
                .flatten()
        });
        self.live
            .iter()
            .chain(&self.retiring)
            .map(|p| p.release)
            .chain(deployment)
            .chain(self.previous)
            .chain(self.stopped)
            .chain(self.waiting)
            .collect()
    }

    /// Forget the oldest releases beyond `keep` that nothing needs, those that never went live before
    /// all others; returns their numbers.
    pub fn prune(&mut self, keep: usize) -> Vec<u32> {
        let needed = self.needed();
        let surplus = self.releases.len().saturating_sub(keep);
        // Those that never went live first: nobody can go back to them.
        let mut oldest: Vec<(bool, u32)> = self
            .releases
            .iter()
            .map(|(number, release)| (release.proved, *number))
            .collect();
        oldest.sort_unstable();
        let gone: Vec<u32> = oldest
            .into_iter()
            .map(|(_, number)| number)
            .take(surplus)
            .filter(|n| !needed.contains(n))
            .collect();
        for number in &gone {
            self.releases.remove(number);
        }
        gone
    }

    fn proved_before(&self, number: u32) -> Option<u32> {
        let older = self.releases.range(..number).rev();
        older.filter(|(_, r)| r.proved).map(|(n, _)| *n).next()
    }

    fn retire(&mut self, placement: Placement) {
        if !self.retiring.contains(&placement) {
            self.retiring.push(placement);
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
