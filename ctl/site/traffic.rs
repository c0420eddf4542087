//! Who gets requests: from the record, and from what runs, to one publication. What has its traffic
//! and no process to serve it is parked, or refused where that will not be otherwise soon.

use std::sync::Arc;

use hotctl_config::Slot;
use hotctl_deploy::gate::{Gate, Notice};
use hotctl_deploy::ledger::Traffic;
use hotctl_deploy::machine::{Deployment, Placement};
use hotctl_proxy::{Closed, Limits, Pool, Split, Standing, UnknownService};
use tracing::error;

use super::slot::Running;
use super::{Inner, Site};
use crate::upgrade::{Refusing, Serving};

impl Site {
    /// Give traffic to whom the record says, in one publication. Who has it again is not drained
    /// any longer.
    pub fn publish(&self) {
        let mut inner = self.inner();
        let split = self.split(&mut inner);
        if *self.means.predecessor.borrow()
            && let Some(serving) = self.serving_by(&inner, &split)
        {
            let service = self.name.clone();
            self.means.serving.send_if_modified(|all| {
                all.insert(service, serving.clone()).as_ref() != Some(&serving)
            });
        }
        // A worker has no routes.
        if self.config().http
            && let Err(unknown) = self.means.switch.split(&self.name, split)
        {
            error!(service = %self.name, %unknown, "the routes do not know this service");
        }
        drop(inner);
        // Whoever watches what is live looks again.
        self.stirred.notify_waiters();
    }

    /// What runs in a slot has changed: publish anew, if that slot has traffic.
    pub(super) fn look_again(&self, slot: Slot) {
        let serving = match self.inner().ledger.traffic() {
            Traffic::All(at) => at.slot == slot,
            Traffic::Shared {
                live, candidate, ..
            } => live.slot == slot || candidate.slot == slot,
            Traffic::NothingDeployed | Traffic::Stopped | Traffic::Parked(_) => false,
        };
        if serving {
            self.publish();
        }
    }

    /// Who gets its requests, or why they are refused; none before the first deployment.
    fn serving_by(&self, inner: &Inner, split: &Split) -> Option<Serving> {
        let ledger = &inner.ledger;
        let last = ledger.live.map(|it| (ledger.id(it.release), it.slot));
        let last = last.or_else(|| Some((ledger.id(ledger.stopped?), Slot(0))))?;
        let refused = match (split, &ledger.gate) {
            (Split::Closed(_), Gate::Maintenance { notice, .. }) => {
                Some(Refusing::Maintenance(notice.clone()))
            }
            (Split::Closed(Closed::CrashLoop), _) => Some(Refusing::CrashLoop),
            (Split::Closed(Closed::NotRunning), _) => Some(Refusing::NotRunning),
            (Split::Closed(_), _) => Some(Refusing::Stopped),
            (Split::Parked(_) | Split::Live { .. }, _) => None,
        };
        let (release, slot, addresses) = match split {
            Split::Closed(_) | Split::Parked(_) => (last.0, last.1, Vec::new()),
            Split::Live { live, .. } => {
                let all = live.addresses().enumerate();
                let up = all.filter(|(n, _)| live.standing(*n) == Some(Standing::Up));
                let addresses = up.map(|(_, address)| address.clone());
                (live.release().clone(), live.slot(), addresses.collect())
            }
        };
        Some(Serving {
            release,
            slot,
            addresses,
            refused,
        })
    }

    /// Give traffic to whom another hotctl gives it, which steers.
    ///
    /// # Errors
    /// If the routes do not know the service.
    pub fn send_to(&self, serving: Serving) -> Result<(), UnknownService> {
        let split = match (serving.refused, serving.addresses.split_first()) {
            (Some(why), _) => Split::Closed(match why {
                Refusing::Stopped => Closed::Stopped,
                Refusing::NotRunning => Closed::NotRunning,
                Refusing::CrashLoop => Closed::CrashLoop,
                Refusing::Maintenance(notice) => Closed::Maintenance(Arc::new(shown(&notice))),
            }),
            (None, None) => self.parked_split(),
            (None, Some((first, more))) => {
                self.means.traffic.release_begins(&serving.release);
                let first = first.clone();
                let shards = self.means.shards;
                let pool = Pool::new(serving.release, serving.slot, first, more, shards);
                Split::all(pool)
            }
        };
        self.means.switch.split(&self.name, split)
    }

    /// How many requests wait for it now.
    pub fn parked(&self) -> usize {
        self.means.switch.waiting(&self.name)
    }

    fn split(&self, inner: &mut Inner) -> Split {
        let traffic = inner.ledger.traffic();
        match (&inner.ledger.gate, traffic) {
            (Gate::Maintenance { notice, .. }, _) => {
                return Split::Closed(Closed::Maintenance(Arc::new(shown(notice))));
            }
            (_, Traffic::NothingDeployed | Traffic::Stopped) | (Gate::Open, _) => {}
            (Gate::Paused { .. }, _) => return self.parked_split(),
        }
        match traffic {
            Traffic::NothingDeployed => Split::Closed(Closed::NothingDeployed),
            Traffic::Stopped => Split::Closed(Closed::Stopped),
            Traffic::Parked(_) => self.parked_split(),
            Traffic::All(at) => self
                .serving(inner, at)
                .map_or_else(|other| other, Split::all),
            Traffic::Shared {
                live,
                candidate,
                weight,
            } => match self.serving(inner, live) {
                Ok(live) => Split::Live {
                    live,
                    candidate: self.serving(inner, candidate).ok().map(|it| (it, weight)),
                },
                Err(other) => other,
            },
        }
    }

    /// The pool of a placement that can serve, or what to do with its requests.
    fn serving(&self, inner: &mut Inner, at: Placement) -> Result<Pool, Split> {
        let Some(running) = inner.slots.get_mut(&at.slot) else {
            if inner
                .ledger
                .deployment
                .as_ref()
                .is_some_and(Deployment::is_between)
            {
                // It is about to be started again.
                return Err(self.parked_split());
            }
            // Only where it could not be started when the daemon was.
            let release = at.release_of(&self.name);
            if !self.means.manner.tells_events() {
                error!(%release, "does not run, and should serve: requests are answered 503 (hotctl status says why)");
            }
            return Err(Split::Closed(Closed::NotRunning));
        };
        running.drain = None;
        if running.is_up() {
            return Ok(running.pool.clone());
        }
        if running.is_failed() {
            return Err(Split::Closed(Closed::CrashLoop));
        }
        match self.config().park.max {
            // None is to wait: each tries to connect, for as long as the configuration says.
            0 => Ok(running.pool.clone()),
            _ => Err(self.parked_split()),
        }
    }

    fn parked_split(&self) -> Split {
        let park = &self.config().park;
        Split::Parked(Limits {
            max: usize::try_from(park.max).unwrap_or(usize::MAX),
            time: park.time,
        })
    }
}

/// What clients are shown.
fn shown(notice: &Notice) -> hotctl_proxy::Notice {
    match notice {
        Notice::Plain => hotctl_proxy::Notice::Plain,
        Notice::Message(text) => hotctl_proxy::Notice::Message(text.clone()),
        Notice::Page(text) => hotctl_proxy::Notice::Page(text.clone()),
    }
}

impl Running {
    /// Whether none of its processes serves, and all end again and again.
    pub fn is_failed(&self) -> bool {
        !self.is_up() && self.instances.iter().all(|one| one.backoff.is_looping())
    }
}
